"""Damaged, missing, away, not yet readable and refused are five things: none is taken for another."""

from __future__ import annotations

import errno
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.objects import MemoryObjects
from tests.faults import FailOn
from tests.jobs.layouts import blob, cut, flip, lay_out, run_scrub, store_of
from tests.stores import bucket_store, push_blob, push_image, store_over
from zotctl.errors import (
    BlobUnknown,
    Damaged,
    IoFailed,
    LayoutInvalid,
    ManifestBlobUnknown,
    ManifestUnknown,
    NotFound,
    NotYetReadable,
    PermissionRefused,
    StorageError,
    Unavailable,
)
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.local.driver import LocalDriver, translate

IMAGE = images.image()
STATES = (Damaged, NotFound, Unavailable, NotYetReadable, PermissionRefused)


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(STATES, 2)))
def test_none_is_a_kind_of_another(one: type[StorageError], other: type[StorageError]) -> None:
    assert not issubclass(one, other)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound), (errno.EACCES, PermissionRefused), (errno.EPERM, PermissionRefused),
        (errno.EIO, IoFailed), (errno.ESTALE, Unavailable), (errno.ENOTCONN, Unavailable),
        (errno.ETIMEDOUT, Unavailable), (errno.EBUSY, NotYetReadable), (errno.EAGAIN, NotYetReadable),
        (errno.ETXTBSY, NotYetReadable),
    ],
)  # fmt: skip
def test_what_the_system_reports_is_one_of_them(number: int, kind: type[StorageError]) -> None:
    assert type(translate(OSError(number, "x"), "a/index.json", "open")) is kind


def collect(store: Store) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: gc(run, lambda root: GcOptions(delay=0.0)))


def only_a_signature_lies_above(root: Path, damage: Callable[[Path], None]) -> list[Path]:
    """An image that no row names, kept by its signature; its manifest is damaged. Its config and layers."""
    signature = images.image("signature", layers=1, subject=IMAGE.digest)
    lay_out(root, "a", IMAGE)
    for body in (*signature.blobs, signature.manifest):
        blob(root, "a", body).write_bytes(body)
    index = json.loads((root / "a/index.json").read_bytes())
    (root / "a/index.json").write_text(json.dumps({**index, "manifests": [images.row(signature, "s")]}))
    damage(blob(root, "a", IMAGE.manifest))
    return [blob(root, "a", body) for body in IMAGE.blobs]


@pytest.mark.parametrize("damage", [flip, lambda path: cut(path, 0)], ids=["flipped", "empty"])
def test_i5_a_damaged_subject_is_not_an_absent_one(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    content = only_a_signature_lies_above(tmp_path, damage)
    run_scrub(store_of(tmp_path))
    report = collect(store_of(tmp_path))
    assert all(path.exists() for path in content)
    assert (report.exit_code, [finding.kind for finding in report.findings]) == (5, ["digest_mismatch"])


@pytest.fixture(params=["directory", "bucket"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A repository whose first blob, and whose manifest `v2`, are known to be damaged."""
    layer, manifest = digest_of(IMAGE.blobs[0]), images.image("second").digest
    if request.param == "directory":
        store = store_of(tmp_path)
        push_image(store, "a", "v1")
        push_image(store, "a", "v2", seed="second")
        flip(blob(tmp_path, "a", layer))
        flip(blob(tmp_path, "a", manifest))
        run_scrub(store)
        return store_of(tmp_path)
    objects = MemoryObjects()
    store = bucket_store(objects)
    push_image(store, "a", "v1")
    push_image(store, "a", "v2", seed="second")
    for digest in (layer, manifest):
        objects.put(keys.blob("a", digest), b"x" * objects.head(keys.blob("a", digest)).size)
    run_scrub(store)
    return store


def test_the_storage_says_damaged(damaged: Store) -> None:
    root, digest = damaged.roots[0], digest_of(IMAGE.blobs[0])
    for ask in (root.protocol.blobs.find, root.protocol.blobs.open, root.maintenance.look):
        with pytest.raises(Damaged):
            ask("a", digest)
        with pytest.raises(NotFound):
            ask("a", digest_of(b"absent"))


def test_a_client_is_answered_as_if_it_were_missing_and_told_that_it_is_not(damaged: Store) -> None:
    repository, digest = damaged.repository("a"), digest_of(IMAGE.blobs[0])
    for ask in (repository.blob, repository.open_blob):
        with pytest.raises(BlobUnknown, match="is damaged here; push it again"):
            ask(digest)
        with pytest.raises(BlobUnknown, match="no blob"):
            ask(digest_of(b"absent"))
    damaged.roots[0].bodies.drop(images.image("second").digest)  # whoever pushed it still has the right bytes
    with pytest.raises(ManifestUnknown):
        repository.manifest("v2")
    with pytest.raises(ManifestBlobUnknown, match="is damaged here; push it again to heal it, before the manifest"):
        repository.put_manifest(check_manifest(IMAGE.manifest, OCI_MANIFEST), IMAGE.manifest, ["v3"])
    assert not damaged.repository_for_push("b").mount_blob(repository, digest)


def test_a_push_heals_it(damaged: Store) -> None:
    digest = push_blob(damaged.repository("a"), IMAGE.blobs[0])
    assert damaged.repository("a").blob(digest) == len(IMAGE.blobs[0])


# -- not yet readable --------------------------------------------------------------------------


def test_an_index_that_a_tool_is_writing_all_the_while_is_not_yet_readable(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    clock, index = Hand(time.time()), tmp_path / "a/index.json"
    store, whole = store_of(tmp_path, clock=clock), index.read_bytes()
    index.write_bytes(b"{")

    def write_on() -> None:
        with index.open("ab") as file:
            file.write(b" ")
        os.utime(index, (clock.at, clock.at))

    clock.on_sleep = write_on
    with pytest.raises(NotYetReadable, match=r"a/index\.json is not yet readable: another program is writing it"):
        store.repository("a")
    assert store.repositories() == ["a"]  # it is there
    write_on()
    report = collect(store)
    assert (report.exit_code, [error["error"] for error in report.errors]) == (5, ["NotYetReadable"])
    clock.on_sleep = lambda: None
    with pytest.raises(LayoutInvalid):
        store.roots[0].protocol.indexes.read("a")
    index.write_bytes(whole)
    assert store.repository("a").tags() == ["v1"]


# -- away and refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionRefused("x: denied"), "can't be read"), (NotYetReadable("x: in use"), "can't be read"),
        (IoFailed("x: EIO"), "is away"), (NotFound("x: gone"), "is away"),
    ],
)  # fmt: skip
def test_a_root_that_can_not_be_looked_into_says_why(tmp_path: Path, error: StorageError, words: str) -> None:
    driver = FailOn(LocalDriver(str(tmp_path)), "stat", 1, error, keys.VERSION.__eq__)
    state = store_over(driver).roots[0].state()
    assert state is not None
    assert words in state.message
    assert error.message in state.message
    assert isinstance(state, type(error) if words == "can't be read" else Unavailable)
