"""One repair, step by step: the pool, a name that moved on, a client that deletes meanwhile, a full disk."""

from __future__ import annotations

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.faults import Meanwhile
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import DigestInvalid, NoSpace
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver, read
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.protocol import local_of
from zotctl.storage.local.reserve import Reserve

GOOD, ROTTEN = b"good bytes", b"rot, bytes"
DIGEST = digest_of(GOOD)
BLOB = keys.blob("a", DIGEST)


@pytest.fixture
def driver() -> MemoryDriver:
    """Two repositories share a damaged blob with the pool."""
    made = MemoryDriver()
    store = store_over(made)
    for name in "ab":
        push_image(store, name, "v1")
        push_blob(store.repository_for_push(name), GOOD)
    with made.append(BLOB) as writer:
        writer.truncate(0)
        writer.write([ROTTEN])
    return made


def heal(store: Store, body: bytes = GOOD) -> list[str]:
    root = store.roots[0]
    with root.driver.open(BLOB) as reader:
        return root.maintenance.heal("a", DIGEST, HeldFile(reader), iter([body]))


def test_everybody_gets_good_bytes_and_so_does_the_pool(driver: MemoryDriver) -> None:
    assert heal(store_over(driver)) == ["a", "b"]
    places = (BLOB, keys.blob("b", DIGEST), keys.pool(DIGEST))
    assert [read(driver, key, 99) for key in places] == [GOOD] * 3
    assert len({driver.stat(key).ino for key in places}) == 1


def test_i2_other_bytes_heal_nothing(driver: MemoryDriver) -> None:
    with pytest.raises(DigestInvalid):
        heal(store_over(driver), b"evil bytes")
    assert read(driver, BLOB, 99) == ROTTEN
    assert driver.scan(keys.TMP) == []


def test_where_the_name_leads_elsewhere_by_now_nothing_is_done(driver: MemoryDriver) -> None:
    """Another process has healed it; the pool is none of ours then."""

    def another() -> None:
        driver.unlink(BLOB)
        with driver.create(BLOB) as writer:
            writer.write([GOOD])

    meanwhile: Driver = Meanwhile(driver, "create", another, lambda key: key.startswith(keys.TMP))
    store = store_over(meanwhile)
    ino = driver.stat(keys.pool(DIGEST)).ino
    assert heal(store) == []
    assert driver.stat(keys.pool(DIGEST)).ino == ino


def test_i7_what_a_client_deletes_meanwhile_stays_away(driver: MemoryDriver) -> None:
    for name in "b":
        driver.unlink(keys.blob(name, DIGEST))
    meanwhile: Driver = Meanwhile(driver, "stat", lambda: driver.unlink(BLOB), lambda key: key == keys.pool(DIGEST))
    assert heal(store_over(meanwhile)) == []
    assert BLOB not in driver.names


def test_a_full_disk_is_not_filled_by_repairs(driver: MemoryDriver) -> None:
    store = store_over(driver)
    local_of(store.roots[0]).reserve = Reserve(local_of(store.roots[0]).context, min_free=1 << 60)
    with pytest.raises(NoSpace):
        heal(store)
    assert driver.scan(keys.TMP) == []
