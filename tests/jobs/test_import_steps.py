"""An import beside others, step by step: what costs a source its move, what is brought anew, what stops a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.faults import Recorder
from tests.images import Image, descriptor, image, lay_out, row
from tests.jobs.importing import actions, blob_file, left_behind, run_import, write_layout
from tests.jobs.layouts import blob
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import NoSpace, NotFound
from zotctl.jobs.imports import job
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.local.jobs import LocalJobs
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.durable import LocalGathering

MADE = image("x")
LAYER = MADE.blobs[1]
DIGEST = digest_of(LAYER)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "source", MADE, [row(MADE, "v1")])


# -- a move -------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_i4_a_source_stays_whose_tag_is_taken(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """Before the run, or between the copy and the commit: the image is there, and its name is not."""
    source = write_layout(tmp_path / "source", MADE, other := image("other"), rows=[row(MADE, "v1"), row(other, "v2")])
    root = store.roots[0]
    commit = root.committer.commit

    def push(name: str, change: Any) -> None:
        monkeypatch.setattr(root.committer, "commit", commit)
        push_image(store, name, "v1", seed="pushed")
        commit(name, change)

    if late:
        monkeypatch.setattr(root.committer, "commit", push)
    else:
        push_image(store, "source", "v1", seed="pushed")
    report = run_import(store, source, move=True)
    assert len(actions(report, "keep")) == 1
    assert store.repository("source").tags() == ["v1", "v2"]
    assert all(blob_file(source, body).exists() for body in (*MADE.blobs, MADE.manifest))
    assert len(json.loads((source / "index.json").read_bytes())["manifests"]) == 2


def test_i4_what_a_tool_wrote_anew_is_not_put_back_over(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index.json has changed, is set aside, and another comes into its place."""
    index, rename = source / "index.json", LocalDriver.rename
    anew = json.dumps({"schemaVersion": 2, "manifests": [row(MADE, "anew")]}).encode()

    def write(self: LocalDriver, one: str, other: str) -> None:
        if aside := other.endswith("zotctl-moved"):
            document = json.loads(index.read_bytes())
            document["manifests"].append(row(MADE, "new"))
            index.write_text(json.dumps(document))
        rename(self, one, other)
        if aside:
            index.write_bytes(anew)

    monkeypatch.setattr(LocalDriver, "rename", write)
    assert run_import(store, source, move=True, repo="a").exit_code != 0
    assert index.read_bytes() == anew
    assert blob_file(source, LAYER).exists()
    assert {path.name for path in source.iterdir()} == {"blobs", "index.json", "oci-layout"}


def test_i4_a_source_stays_until_what_was_copied_has_its_name(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector may sweep what waits for a flush, while a large blob is copied. Of what is copied in the place of a
    damaged blob, that one has the name until then."""
    (tmp_path / "target").mkdir()
    store, flush = store_over(LocalDriver(str(tmp_path / "target")), commit=True), LocalGathering.flush
    lost: list[bool] = []
    push_blob(store.repository_for_push("a"), LAYER)
    stored = blob(tmp_path / "target", "a", LAYER)
    stored.write_bytes(b"x" * len(LAYER))

    def sweep(self: LocalGathering) -> None:
        if not lost:
            lost.append(True)
            raise NotFound("swept")
        flush(self)

    monkeypatch.setattr(LocalGathering, "flush", sweep)
    run_import(store, source, move=True, repo="a")
    assert lost and not blob_file(source, LAYER).exists()
    assert stored.read_bytes() == LAYER


def test_a_layer_that_may_be_absent_and_is_there_comes(store: Store, tmp_path: Path) -> None:
    config = b'{"os":"windows"}'
    foreign = descriptor(b"is here", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [foreign],
    }
    made = Image(json.dumps(document).encode(), [config, b"is here"])
    assert run_import(store, lay_out(tmp_path / "source", made, [row(made, "v1")]), move=True).exit_code == 0
    assert store.repository("source").blob(digest_of(b"is here"))


def test_a_store_is_not_imported_into_itself_by_way_of_a_link(store: Store, tmp_path: Path) -> None:
    push_image(store, "a", "v1")
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert run_import(store, tmp_path / "link", all=True).exit_code == 2
    assert store.repositories() == ["a"]


# -- what is there already ------------------------------------------------------------------------


@pytest.fixture
def cut(store: Store, source: Path) -> Path:
    """A blob of the repository that is too short."""
    run_import(store, source, repo="a")
    store.repository_for_push("a").delete_manifest("v1")
    store.repository_for_push("a").delete_manifest(MADE.digest)
    path = blob(Path(store.roots[0].label), "a", LAYER)
    os.truncate(path, 2)
    return path


def test_i2_what_is_too_short_is_brought_anew(store: Store, source: Path, cut: Path) -> None:
    report = run_import(store, source, repo="a", dry_run=True)
    assert report.summary["copied_bytes"] == len(LAYER) + len(MADE.manifest)
    assert run_import(store, source, repo="a").exit_code == 0
    assert cut.read_bytes() == LAYER


def cutting(root: Path, times: int, commit: Callable[..., Any]) -> Callable[..., Any]:
    """Before so many commits, a blob is cut short."""
    left = [times]

    def later(name: str, change: Any) -> None:
        if left[0]:
            left[0] -= 1
            os.truncate(blob(root, name, LAYER), 2)
        commit(name, change)

    return later


@pytest.mark.parametrize("times", [1, 99])
def test_i5_no_row_is_written_over_a_blob_that_is_cut_before_the_commit(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """It is brought again; and if it will not stay, that is an error."""
    root = store.roots[0]
    monkeypatch.setattr(root.committer, "commit", cutting(Path(root.label), times, root.committer.commit))
    report = run_import(store, source, repo="a")
    if times == 1:
        assert (report.exit_code, store.repository("a").tags()) == (0, ["v1"])
        assert blob(Path(root.label), "a", LAYER).read_bytes() == LAYER
    else:
        assert report.exit_code != 0
        assert store.repository_for_push("a").tags() == []


def test_i4_what_was_there_without_a_row_is_flushed_with_the_first(tmp_path: Path, source: Path) -> None:
    """A killed run has brought it, and flushed nothing."""
    memory = MemoryDriver()
    run = Run("import-layout", store_over(memory))
    run.finish(lambda: import_layout(run, str(source), job.ImportOptions(repo="a")))
    for which in ("v1", MADE.digest):
        store_over(memory).repository_for_push("a").delete_manifest(which)
    recorder = Recorder(memory)
    run = Run("import-layout", store_over(recorder, commit=True))
    assert run.finish(lambda: import_layout(run, str(source), job.ImportOptions(repo="a"))).exit_code == 0
    flushed = {call.key for call in recorder.calls if call.method == "sync_file"}
    assert flushed >= {keys.blob("a", digest_of(body)) for body in MADE.blobs}


def test_a_tag_that_is_moved_tells_the_history_what_it_was_before(store: Store, tmp_path: Path) -> None:
    """The delay of what it named runs from now, and not from its push."""
    old = push_image(store, "a", "v1", seed="old")
    history = store.roots[0].history
    before = history.timeline("a").pushed[old]
    store.clock.now = lambda: before + 86400  # type: ignore[method-assign]
    run_import(store, lay_out(tmp_path / "source", MADE, [row(MADE, "v1")]), overwrite=True, repo="a")
    assert history.timeline("a").pushed[old] >= before + 86000


# -- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["another user", "not to be read by its owner", "another device"])
def test_link_takes_only_what_the_servers_can_read(store: Store, source: Path, what: str) -> None:
    found = blob_file(source, LAYER).stat()
    LocalJobs(store.roots[0]).require_linkable(found)
    fields: list[Any] = list(found)
    if what == "another user":
        fields[4] += 1
    elif what == "another device":
        fields[2] += 1
    else:
        fields[0] &= ~0o400
    with pytest.raises(OSError):
        LocalJobs(store.roots[0]).require_linkable(os.stat_result(fields))


# -- what stops a run, and what takes nothing ------------------------------------------------------


def test_i11_a_full_disk_ends_the_import_of_a_tree(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        lay_out(tmp_path / "tree" / name, MADE, [row(MADE, "v1")])
    tried: list[str] = []

    def full(tree: object, name: str, mirror: object, *, fixed: bool) -> None:
        tried.append(name)
        raise NoSpace("full")

    monkeypatch.setattr(job._Tree, "_take_below", full)
    report = run_import(store, tmp_path / "tree", all=True)
    assert (report.exit_code, len(tried)) == (NoSpace("").exit_code, 1)


def test_i14_an_import_into_a_repository_that_is_a_link_writes_nothing(
    store: Store, source: Path, tmp_path: Path
) -> None:
    lay_out(tmp_path / "elsewhere", image("other"), [row(image("other"), "v1")])
    (tmp_path / "store" / "a").symlink_to(tmp_path / "elsewhere")
    before = sorted(map(str, (tmp_path / "elsewhere").rglob("*")))
    report = run_import(store, source, repo="a")
    assert report.exit_code != 0 and "takes no writes" in report.errors[0]["reason"]
    assert sorted(map(str, (tmp_path / "elsewhere").rglob("*"))) == before
    assert not [name for name in left_behind(store) if name.startswith(".zotctl/")]
