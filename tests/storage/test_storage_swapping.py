"""A tool renames its own index.json in between our last look and ours: what came out of the swap is taken in (I4)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.faults import Call, Crash, FailOn, Faults
from tests.jobs.layouts import blob, store_of
from tests.stores import push_image, store_over
from zotctl.errors import IoFailed, NoSpace
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.storage import Store, keys
from zotctl.storage.driver import Capabilities, Driver
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import local_of
from zotctl.storage.wrappers import WrappedDriver

THEIRS = images.image("theirs")


def put_content(root: Path) -> None:
    for body in (*THEIRS.blobs, THEIRS.manifest):
        blob(root, "a", body).write_bytes(body)


def rename_in(root: Path, change: Callable[[list[dict[str, object]]], None]) -> None:
    """As umoci does: a new file, and a rename."""
    path, temp = root / "a/index.json", root / "a/.their-temp"
    document = json.loads(path.read_bytes())
    change(document["manifests"])
    temp.write_text(json.dumps(document, indent=1))
    temp.rename(path)


def tag_theirs(rows: list[dict[str, object]]) -> None:
    rows.append(images.row(THEIRS, "theirs"))


class JustBefore(WrappedDriver):
    """Runs something right before index.json gets a new file, each time that it has something to run."""

    def __init__(self, inner: Driver, *moments: Callable[[], None]) -> None:
        super().__init__(inner)
        self.moments = list(moments)

    def exchange(self, one: str, other: str) -> None:
        if self.moments:
            self.moments.pop(0)()
        self.inner.exchange(one, other)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    push_image(store_of(tmp_path), "a", "v1")
    push_image(store_of(tmp_path), "a", "gone", seed="gone")
    put_content(tmp_path)
    return tmp_path


def left(root: Path) -> list[str]:
    return [name for name in os.listdir(root / "a") if name.startswith(".")]


def tags(root: Path) -> list[str]:
    return store_of(root).repository("a").tags()


def test_i4_a_tag_that_was_renamed_in_at_the_last_moment_is_there_when_we_answer(root: Path) -> None:
    driver = JustBefore(LocalDriver(str(root)), lambda: rename_in(root, tag_theirs))
    push_image(store_over(driver), "a", "ours", seed="ours")
    assert tags(root) == ["gone", "ours", "theirs", "v1"]
    assert left(root) == []


def test_i4_several_in_a_row(root: Path) -> None:
    other = images.image("another")

    def another() -> None:
        for body in (*other.blobs, other.manifest):
            blob(root, "a", body).write_bytes(body)
        rename_in(root, lambda rows: rows.append(images.row(other, "another")))

    driver = JustBefore(LocalDriver(str(root)), lambda: rename_in(root, tag_theirs), another, lambda: None)
    push_image(store_over(driver), "a", "ours", seed="ours")
    assert tags(root) == ["another", "gone", "ours", "theirs", "v1"]
    assert (left(root), driver.moments) == ([], [])


def test_i4_what_it_took_away_and_moved_is_done_too_and_ours_wins_where_both_changed(root: Path) -> None:
    def change(rows: list[dict[str, object]]) -> None:
        rows[:] = [images.row(THEIRS, "ours"), images.row(THEIRS, "v1")]

    driver = JustBefore(LocalDriver(str(root)), lambda: rename_in(root, change))
    ours = push_image(store_over(driver), "a", "ours", seed="ours")
    repository = store_of(root).repository("a")
    assert repository.tags() == ["ours", "v1"]
    assert (repository.manifest("ours").digest, repository.manifest("v1").digest) == (ours, THEIRS.digest)


STRANGE = {"digest": "sha384:00", "size": 1, "annotations": {"org.opencontainers.image.ref.name": "odd"}}


def test_i9_rows_and_fields_that_mean_nothing_here_are_taken_in(root: Path) -> None:
    """As the other program would have left them: a row came, one went, one got a field, and so did the index."""
    path = root / "a/index.json"
    document = json.loads(path.read_bytes())
    document["manifests"] += [{"digest": "none", "x": 1}, {"digest": "none", "x": 2}]
    path.write_text(json.dumps(document | {"x-gone": 1, "x-moved": 1}))

    def change() -> None:
        found = json.loads(path.read_bytes())
        found["manifests"].remove({"digest": "none", "x": 2})
        found["manifests"].append(STRANGE)
        next(row for row in found["manifests"] if "v1" in str(row))["platform"] = {"os": "linux"}
        del found["x-gone"]
        path.with_name(".their-temp").write_text(json.dumps(found | {"x-moved": 2, "x-new": [1.0]}))
        path.with_name(".their-temp").rename(path)

    push_image(store_over(JustBefore(LocalDriver(str(root)), change)), "a", "ours", seed="ours")
    found = json.loads(path.read_bytes())
    strange = [row for row in found["manifests"] if row.get("digest") in ("none", "sha384:00")]
    assert strange == [{"digest": "none", "x": 1}, STRANGE]
    assert next(row for row in found["manifests"] if "v1" in str(row))["platform"] == {"os": "linux"}
    assert {name: value for name, value in found.items() if name.startswith("x-")} == {"x-moved": 2, "x-new": [1.0]}
    assert "ours" in tags(root)


def test_i9_gc_takes_in_rows_that_mean_nothing_here(root: Path) -> None:
    die(root, lambda: rename_in(root, lambda rows: rows.append(STRANGE)))
    local_of(store_of(root).roots[0]).take_over("a")
    assert STRANGE in json.loads((root / "a/index.json").read_bytes())["manifests"]
    assert left(root) == []


def test_i4_the_same_beside_a_deletion(root: Path) -> None:
    driver = JustBefore(LocalDriver(str(root)), lambda: rename_in(root, tag_theirs))
    store_over(driver).repository("a").delete_manifest("v1")
    assert tags(root) == ["gone", "theirs"]


def test_what_can_not_be_parsed_is_kept_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    def rubbish() -> None:
        (root / "a/.their-temp").write_text("{")
        (root / "a/.their-temp").rename(root / "a/index.json")

    push_image(store_over(JustBefore(LocalDriver(str(root)), rubbish)), "a", "ours", seed="ours")
    assert tags(root) == ["gone", "ours", "v1"]
    (kept,) = left(root)
    assert (root / "a" / kept).read_text() == "{"
    assert f"a/{kept}, which another program had put in the place of index.json, is kept" in caplog.text


@pytest.mark.parametrize("known", [True, False])
def test_without_an_exchange_it_is_renamed_as_ever(root: Path, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    def refuse(one: str, other: str) -> None:
        assert not known
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("zotctl.storage.local.driver.swap", refuse)
    driver = LocalDriver(str(root), capabilities=Capabilities(exchange=not known))
    push_image(store_over(driver), "a", "ours", seed="ours")
    assert tags(root) == ["gone", "ours", "v1"]
    assert left(root) == []


# -- a process that dies, or fails, with the file of another program in its hands ------------------


class DieAfter(Faults):
    """The process dies right after the n-th exchange."""

    dead = False

    def before(self, call: Call) -> None:
        if self.dead and call.method not in ("close", "release"):
            raise Crash(str(call))

    def exchange(self, one: str, other: str) -> None:
        super().exchange(one, other)
        self.dead = True


def die(root: Path, *moments: Callable[[], None], seed: str = "ours") -> None:
    driver = DieAfter(JustBefore(LocalDriver(str(root)), *moments))
    with pytest.raises(Crash):
        push_image(store_over(driver), "a", seed, seed=seed)


def collect(store: Store, delay: float = 0.0, *, dry_run: bool = False) -> Report:
    run = Run("gc", store, dry_run=dry_run)
    return run.finish(lambda: gc(run, lambda root: GcOptions(delay=delay)))


def test_i4_gc_takes_in_what_a_dead_process_had_in_its_hands_before_it_collects(root: Path) -> None:
    die(root, lambda: rename_in(root, tag_theirs))
    assert tags(root) == ["gone", "ours", "v1"]
    assert len(left(root)) == 1
    assert collect(store_of(root), dry_run=True).exit_code == 0
    assert len(left(root)) == 1
    assert collect(store_of(root)).exit_code == 0
    assert tags(root) == ["gone", "ours", "theirs", "v1"]
    assert left(root) == []
    assert all(blob(root, "a", body).exists() for body in (*THEIRS.blobs, THEIRS.manifest))


def test_i4_and_before_it_purges(root: Path) -> None:
    """Its content was trashed by a run that knew nothing of it."""
    kept = root / ".their-layers"
    kept.mkdir()
    for body in THEIRS.blobs:
        os.link(blob(root, "a", body), kept / blob(root, "a", body).name)
    folder = root / keys.TRASH / "run" / "a" / "blobs" / "sha256"
    folder.mkdir(parents=True)
    die(root, lambda: rename_in(root, tag_theirs))
    for body in THEIRS.blobs:
        blob(root, "a", body).rename(folder / blob(root, "a", body).name)
    assert collect(store_of(root)).exit_code == 0
    assert tags(root) == ["gone", "ours", "theirs", "v1"]
    assert all(blob(root, "a", body).exists() for body in THEIRS.blobs)


def test_i6_what_was_deleted_since_does_not_come_back(root: Path) -> None:
    die(root, lambda: rename_in(root, tag_theirs))
    store_of(root).repository("a").delete_manifest("gone")
    store_of(root).repository("a").delete_manifest(str(images.image().digest))
    assert collect(store_of(root)).exit_code == 0
    assert tags(root) == ["ours", "theirs"]


def test_the_index_that_ours_was_made_of_is_no_debt(root: Path) -> None:
    die(root)
    assert len(left(root)) == 1
    store = store_of(root)
    assert local_of(store.roots[0]).indexes.unmerged("a") == []
    store.repository("a").delete_manifest("v1")
    os.utime(root / "a", (1, 1))
    assert collect(store_of(root)).exit_code == 0
    assert tags(root) == ["gone", "ours"]


@pytest.mark.parametrize("written", [b"", b'{"schemaVersion":2,"manifests":[{"med'], ids=["nothing", "a part"])
def test_i10_an_index_that_a_process_died_writing_is_no_debt_and_goes(root: Path, written: bytes) -> None:
    began = root / keys.Swap("0123456789abcdef", 1, 2).key("a")
    began.write_bytes(written)
    os.utime(began, (3, 3))
    assert local_of(store_of(root).roots[0]).indexes.unmerged("a") == []
    assert collect(store_of(root)).exit_code == 0
    assert (left(root), tags(root)) == ([], ["gone", "v1"])


@pytest.fixture(params=["open", "unlink"])
def failing(request: pytest.FixtureRequest, root: Path) -> Driver:
    """The look at what came out fails, or its removal, and once more."""
    driver: Driver = LocalDriver(str(root))
    for _ in range(2):
        driver = FailOn(driver, request.param, 1, IoFailed("broken"), lambda key: "/.index.json" in key)
    return driver


def test_a_failure_after_the_swap_fails_no_push(failing: Driver, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    push_image(store_over(failing), "a", "ours", seed="ours")
    assert tags(root) == ["gone", "ours", "v1"]
    assert len(left(root)) == 1
    assert "is left there, for gc to look at: broken" in caplog.text


def test_i4_a_merge_that_fails_leaves_it_for_gc(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner = FailOn(LocalDriver(str(root)), "create", 2, NoSpace("full"), lambda key: "/.index.json" in key)
    driver = JustBefore(inner, lambda: rename_in(root, tag_theirs))
    push_image(store_over(driver), "a", "ours", seed="ours")
    assert tags(root) == ["gone", "ours", "v1"]
    assert "is kept until gc can take it over: full" in caplog.text
    assert collect(store_of(root), 3600.0).exit_code == 0
    assert tags(root) == ["gone", "ours", "theirs", "v1"]
