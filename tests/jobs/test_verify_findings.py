"""`verify` of stores and archives in one process: each thing that is wrong is told once, and what is right never."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn, Meanwhile
from tests.jobs.layouts import blob
from tests.jobs.test_scrub_rounds import Hand
from tests.stores import push_blob, store_over, two_repositories
from zotctl.errors import IoFailed, PermissionRefused
from zotctl.jobs.check.repository import NAMED_ORPHANS
from zotctl.jobs.check.verify import VerifyOptions, verify, verify_archive
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.driver import Driver
from zotctl.storage.local.driver import LocalDriver

IMAGE = images.image("x")
CONFIG, LAYER, _ = IMAGE.blobs
DIGEST = digest_of(LAYER)
A = keys.blob("a", DIGEST)
FOREIGN = images.LAYER.replace("layer.v1", "layer.nondistributable.v1")

Spoil = Callable[[Path], object]


def check(*drivers: Driver, clock: Hand | None = None, deep: bool = False) -> Report:
    run = Run("verify", store_over(*drivers, clock=clock), dry_run=True)
    return run.finish(lambda: verify(run, VerifyOptions(deep=deep, workers=1)))


def found(report: Report) -> list[tuple[str, str]]:
    """The repository and the kind of each finding."""
    return sorted((one.repository, one.kind) for one in report.findings)


def reasons(report: Report) -> str:
    return " ".join(one.reason for one in report.findings)


# -- layouts in a directory ------------------------------------------------------------------------


def moved_and_linked(part: str) -> Spoil:
    def spoil(app: Path) -> None:
        (app / part).rename(app.parent.parent / "elsewhere")
        (app / part).symlink_to(app.parent.parent / "elsewhere")

    return spoil


def a_file_for(part: str) -> Spoil:
    def spoil(app: Path) -> None:
        shutil.rmtree(app / part)
        (app / part).touch()

    return spoil


def with_rows(*rows: dict[str, object]) -> Spoil:
    return lambda app: images.lay_out(app, IMAGE, list(rows))


def with_layers(*layers: dict[str, object]) -> Spoil:
    """Two manifests beside it, with these layers."""

    def spoil(app: Path) -> None:
        rows = [images.row(IMAGE, "v1")]
        for author in ("one", "two"):
            config = images.descriptor(CONFIG, images.CONFIG)
            body = {"schemaVersion": 2, "mediaType": images.OCI_MANIFEST, "config": config, "layers": layers,
                    "annotations": {"author": author}}  # fmt: skip
            made = images.Image(json.dumps(body).encode(), [])
            rows.append(images.row(made, author))
            images.lay_out(app, made)
        images.lay_out(app, IMAGE, rows)

    return spoil


def unknown_algorithm(app: Path) -> None:
    (app / "blobs" / "multihash+base58").mkdir()
    (app / "blobs" / "multihash+base58" / "QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8").touch()


LAYER_FILE = f"blobs/sha256/{DIGEST.encoded}"
SPOILED: dict[str, tuple[Spoil, str, str]] = {
    "index.json is a link": (moved_and_linked("index.json"), "invalid_index", "index.json is a symbolic link"),
    "oci-layout is a link": (moved_and_linked("oci-layout"), "invalid_layout", "oci-layout is a symbolic link"),
    "blobs is a link": (moved_and_linked("blobs"), "invalid_layout", "blobs is a symbolic link"),
    "blobs/sha256 is a link": (moved_and_linked("blobs/sha256"), "invalid_layout", "blobs/sha256 is a symbolic link"),
    "blobs/sha256 is a file": (a_file_for("blobs/sha256"), "invalid_layout", "blobs/sha256 is a file, not a directory"),
    "a wrong version": (
        lambda app: (app / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}'),
        "invalid_layout",
        "2.0.0",
    ),
    "a blob is a link": (moved_and_linked(LAYER_FILE), "missing_blob", "what has its name is a symbolic link"),
    "a blob is a FIFO": (
        lambda app: ((app / LAYER_FILE).unlink(), os.mkfifo(app / LAYER_FILE)),
        "missing_blob",
        "what has its name is no regular file",
    ),
    "a blob is too long": (
        lambda app: (app / LAYER_FILE).write_bytes(LAYER + b"x"),
        "size_mismatch",
        f"the file has {len(LAYER) + 1} bytes, ",
    ),
    "an untagged manifest has lost a blob": (
        lambda app: (with_rows(images.row(IMAGE))(app), (app / LAYER_FILE).unlink()),
        "missing_blob",
        f"{IMAGE.digest} needs it",
    ),
    "a row with another size": (with_rows(images.row(IMAGE, "v1", size=7)), "size_mismatch", "but index.json says 7"),
    "a layer that two lack": (
        with_layers(images.descriptor(b"absent", images.LAYER)),
        "missing_blob",
        "needs it and it is not there",
    ),
    "an algorithm that can't be computed": (unknown_algorithm, "unreadable", "1 blobs have digests of algorithms"),
    "a directory that anybody may write": (
        lambda app: (app / "blobs").chmod(0o777),
        "mode",
        "directories that anybody may write",
    ),
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return images.lay_out(tmp_path / "root" / "app", IMAGE, [images.row(IMAGE, "v1")])


def local(app: Path) -> LocalDriver:
    return LocalDriver(str(app.parent))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("wrong", SPOILED)
def test_what_is_wrong_is_told_once(app: Path, wrong: str, deep: bool) -> None:
    spoil, kind, reason = SPOILED[wrong]
    spoil(app)
    report = check(local(app), deep=deep)
    told = [one for one in report.findings if one.kind not in ("orphan", "unreadable") or one.kind == kind]
    assert [(one.repository, one.kind) for one in told] == [("app", kind)] and reason in told[0].reason


def test_a_layout_without_blobs_lacks_their_directory(app: Path) -> None:
    with_rows()(app)
    shutil.rmtree(app / "blobs")
    assert "the directory blobs is missing" in reasons(check(local(app)))


def test_what_is_right_is_not_told(app: Path) -> None:
    """A layer that is kept elsewhere, and what a group may write."""
    with_layers(images.descriptor(b"kept elsewhere", FOREIGN))(app)
    (app / "index.json").chmod(0o664)
    assert found(check(local(app), deep=True)) == []


def test_a_blob_that_is_cut_short_has_the_wrong_size(app: Path) -> None:
    (app / LAYER_FILE).write_bytes(LAYER[:-1])
    report = check(local(app), deep=True)
    assert found(report) == [("app", "size_mismatch")] and report.findings[0].tags == ("v1",)


def test_a_name_that_is_none_and_a_root_that_anybody_may_write(app: Path) -> None:
    images.lay_out(app.parent / "No_Name", IMAGE)
    app.parent.chmod(0o777)
    assert found(check(local(app))) == [("", "mode"), ("No_Name", "bad_name")]


def test_a_layout_that_lost_its_index_is_not_taken_for_one_that_is_being_made(app: Path) -> None:
    """Which has no blob yet."""
    (app / "index.json").unlink()
    assert found(check(local(app))) == [("app", "invalid_index")]
    for body in (*IMAGE.blobs, IMAGE.manifest):
        blob(app.parent, "app", body).unlink()
    assert found(check(local(app))) == []


def test_the_first_orphans_are_named(app: Path) -> None:
    for number in range(NAMED_ORPHANS + 1):
        body = b"%d" % number
        blob(app.parent, "app", body).write_bytes(body)
    (finding,) = check(local(app)).findings
    assert finding.details["count"] == NAMED_ORPHANS + 1 and len(finding.details["digests"]) == NAMED_ORPHANS


def test_an_empty_store_is_one(tmp_path: Path) -> None:
    report = check(LocalDriver(str(tmp_path)))
    assert (report.exit_code, report.errors) == (0, [])


# -- archives --------------------------------------------------------------------------------------


def archive(tmp_path: Path, *layouts: str) -> Report:
    """The report about an archive of these directories."""
    place = tmp_path / "images.tar"
    with tarfile.open(place, "w") as tar:
        for layout in layouts:
            tar.add(tmp_path / "root" / layout, arcname=layout if len(layouts) > 1 else ".")
    return archived(place)


def archived(place: Path) -> Report:
    run = Run("verify", store_over(MemoryDriver()), dry_run=True)
    return run.finish(lambda: verify_archive(run, str(place)))


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda file: file.unlink(), "missing_blob"),
        (lambda file: file.write_bytes(LAYER[::-1]), "digest_mismatch"),
        (lambda file: file.write_bytes(b""), "stub"),
    ],
)
def test_an_archive_is_read_to_its_bytes(app: Path, tmp_path: Path, spoil: Spoil, kind: str) -> None:
    assert found(archive(tmp_path, "app")) == []
    spoil(app / LAYER_FILE)
    report = archive(tmp_path, "app")
    assert [one.kind for one in report.findings] == [kind] and report.findings[0].tags == ("v1",)
    assert report.exit_code == 4


def test_a_manifest_that_is_damaged_in_an_archive_is_told_once(app: Path, tmp_path: Path) -> None:
    blob(app.parent, "app", IMAGE.manifest).write_bytes(IMAGE.manifest + b" ")
    assert [one.kind for one in archive(tmp_path, "app").findings] == ["size_mismatch"]


def test_one_layout_of_an_archive_that_is_broken_is_told_beside_the_others(app: Path, tmp_path: Path) -> None:
    images.lay_out(app.parent / "other", IMAGE, [images.row(IMAGE, "v1")])
    (app / "index.json").write_text("{")
    (app.parent / "other" / LAYER_FILE).unlink()
    assert found(archive(tmp_path, "app", "other")) == [("app", "invalid_layout"), ("other", "missing_blob")]


def test_an_archive_that_is_none_or_cut_is_told(app: Path, tmp_path: Path) -> None:
    (tmp_path / "root" / "none").mkdir()
    assert found(archive(tmp_path, "none")) == [("", "invalid_layout")]
    assert found(archive(tmp_path, "app")) == []
    whole = tmp_path / "images.tar"
    with tarfile.open(whole, "a") as tar:
        tar.addfile(tarfile.TarInfo("last"))
        end = tar.offset
    os.truncate(whole, end)
    assert "may have been cut between two members" in reasons(archived(whole))


# -- beside others ---------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def memory(clock: Hand) -> MemoryDriver:
    """Two repositories that share an image."""
    return two_repositories(clock)


def put(memory: MemoryDriver, body: bytes) -> None:
    memory.unlink(A)
    with memory.create(A) as writer:
        writer.write([body])


def at_the_index(memory: MemoryDriver, act: Callable[[], object]) -> Driver:
    """Happens when all blobs of `a` were looked at."""
    return Meanwhile(memory, "open", act, lambda key: key == keys.index("a"))


def test_what_was_damaged_and_has_been_healed_meanwhile_is_no_finding(memory: MemoryDriver, clock: Hand) -> None:
    put(memory, LAYER[::-1])
    clock.at += 100
    assert found(check(memory, clock=clock, deep=True)) == [("a", "digest_mismatch")]
    assert found(check(at_the_index(memory, partial(put, memory, LAYER)), clock=clock, deep=True)) == []


def test_what_was_short_and_has_been_replaced_meanwhile_is_no_finding(memory: MemoryDriver, clock: Hand) -> None:
    put(memory, LAYER[:-1])
    assert found(check(memory, clock=clock)) == [("a", "size_mismatch")]
    assert found(check(at_the_index(memory, partial(put, memory, LAYER)), clock=clock)) == []


def test_a_repository_that_is_removed_meanwhile_is_no_finding(memory: MemoryDriver, clock: Hand) -> None:
    def remove() -> None:
        for key in sorted((key for key in memory.names if key == "a" or key.startswith("a/")), reverse=True):
            memory.rmdir(key) if memory.stat(key).is_dir else memory.unlink(key)

    assert found(check(at_the_index(memory, remove), clock=clock)) == []


def test_a_blob_that_goes_before_it_is_read_says_nothing_of_another_name(memory: MemoryDriver, clock: Hand) -> None:
    stray = push_blob(store_over(memory, clock=clock).repository_for_push("a"), b"stray")
    push_blob(store_over(memory, clock=clock).repository_for_push("b"), b"stray")
    key = keys.blob("a", stray)
    gone = Meanwhile(memory, "open", partial(memory.unlink, key), lambda opened: opened == key)
    assert {kind for _, kind in found(check(gone, clock=clock, deep=True))} == {"orphan"}
    assert gone.done


def test_a_blob_that_can_not_be_read_is_told(memory: MemoryDriver, clock: Hand) -> None:
    failing: Driver = memory
    for _ in range(9):
        failing = FailOn(failing, "open", 1, PermissionRefused("no"), lambda key: key == A)
    report = check(failing, clock=clock, deep=True)
    assert found(report) == [("a", "unreadable")] and 5 in report.codes


def test_a_temporary_file_beside_an_index_is_told_when_it_is_old(memory: MemoryDriver, clock: Hand) -> None:
    memory.create(f"a/{keys.INDEX_TEMP_PREFIX}0123").close()
    assert found(check(memory, clock=clock)) == []
    clock.at += 30 * 86400
    assert found(check(memory, clock=clock)) == [("a", "orphan")]


def test_a_directory_that_the_owner_can_not_enter_is_told(memory: MemoryDriver, clock: Hand) -> None:
    for inode in memory.names.values():
        inode.uid = inode.gid = 7
    memory.names[keys.blobs("a")].mode &= ~0o111
    assert "directories that the owner of the store (uid 7) can't read" in reasons(check(memory, clock=clock))


def test_a_root_that_can_not_be_listed_is_told_once(clock: Hand) -> None:
    failing = FailOn(MemoryDriver(), "scan", 1, IoFailed("broken"), lambda key: key == "")
    run = Run("verify", store_over(failing.inner, clock=clock), dry_run=True)
    run.store.roots[0].driver.unlink(keys.VERSION)
    assert found(run.finish(lambda: verify(run, VerifyOptions()))) == []
    assert len(run.report.errors) == 1
