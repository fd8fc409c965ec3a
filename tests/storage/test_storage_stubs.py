"""An empty file is no blob: whoever asks is told so, and a push, an archive or a mount brings the bytes (I2, I6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.jobs.importing import local_store, members_of, run_import, tar_bytes
from tests.jobs.layouts import blob
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import BlobUnknown, Damaged
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.local.protocol import local_of

BODY = b"content"
DIGEST = digest_of(BODY)
BLOB = keys.blob("a", DIGEST)


@pytest.fixture
def memory() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def store(memory: MemoryDriver) -> Store:
    store = store_over(memory)
    for name in "ab":
        push_image(store, name, "v1")
    push_blob(store.repository_for_push("a"), BODY)
    memory.unlink(keys.pool(DIGEST))
    memory.names[BLOB].data[:] = b""
    return store


def test_i6_it_is_not_there_until_it_is_pushed(store: Store) -> None:
    local = local_of(store.roots[0])
    for ask in (local.blobs.find, local.blobs.open):
        with pytest.raises(Damaged):
            ask("a", DIGEST)
    with pytest.raises(BlobUnknown):
        store.repository("a").blob(DIGEST)
    push_blob(store.repository_for_push("a"), BODY)
    assert local.blobs.find("a", DIGEST).size == len(BODY)


def test_i6_it_is_mounted_by_nobody(memory: MemoryDriver, store: Store) -> None:
    assert not local_of(store.roots[0]).blobs.mount("a", "b", DIGEST)
    assert keys.blob("b", DIGEST) not in memory.names


def test_i2_an_archive_brings_anew_what_is_too_short(tmp_path: Path) -> None:
    """Also where a large blob is not staged, because the repository has it."""
    store, made = local_store(tmp_path / "store"), images.image("x")
    layer = made.blobs[1]
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar_bytes(members_of(made)))
    assert run_import(store, archive, repo="a").exit_code == 0
    blob(tmp_path / "store", "a", layer).write_bytes(layer[:2])
    assert run_import(store, archive, repo="a").exit_code == 0
    assert blob(tmp_path / "store", "a", layer).read_bytes() == layer
