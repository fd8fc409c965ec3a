"""Room kept back: how much, when it is given back, and when an upload is refused (docs/design/local.md#a-full-disk)."""

from __future__ import annotations

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn, NoSpaceAfter
from tests.stores import push_image, root_over
from zotctl.errors import BlobUploadUnknown, IoFailed, NoSpace, NotFound
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver
from zotctl.storage.local import reserve, uploads
from zotctl.storage.local.protocol import LocalProtocol, local_of
from zotctl.storage.local.reserve import LARGEST_SHARE, LEAST_RESERVE_BYTES, SPARE_INODES, Reserve

MIB = 1 << 20


def reserve_on(driver: Driver, min_free: int | None = None) -> Reserve:
    return Reserve(local_of(root_over(driver)).context, min_free)


def size_on(driver: Driver) -> int | None:
    try:
        return driver.stat(keys.RESERVE).size
    except NotFound:
        return None


def spares_on(driver: Driver) -> int:
    try:
        return len(driver.scan(keys.SPARE))
    except NotFound:
        return 0


@pytest.mark.parametrize(("capacity", "size"), [(None, LEAST_RESERVE_BYTES), (LARGEST_SHARE * MIB, MIB)])
def test_on_a_small_file_system_it_is_small(capacity: int | None, size: int) -> None:
    driver = MemoryDriver(capacity=capacity)
    reserve_on(driver).keep()
    assert size_on(driver) == size


@pytest.mark.parametrize(
    ("inodes", "spares"),
    [(None, 0), (LARGEST_SHARE * SPARE_INODES // 4, 0), (LARGEST_SHARE * SPARE_INODES, SPARE_INODES)],
)
def test_inodes_are_kept_where_they_are_counted_and_from_plenty(inodes: int | None, spares: int) -> None:
    driver = MemoryDriver(inodes=inodes)
    reserve_on(driver).keep()
    assert spares_on(driver) == spares


def test_it_is_given_back_whole_and_made_anew() -> None:
    driver = MemoryDriver(inodes=LARGEST_SHARE * SPARE_INODES)
    kept = reserve_on(driver)
    kept.keep()
    assert kept.release() is True
    assert (size_on(driver), spares_on(driver)) == (None, 0)
    assert kept.release() is False
    kept.keep()
    assert (size_on(driver), spares_on(driver)) == (LEAST_RESERVE_BYTES, SPARE_INODES)


def test_what_another_process_has_given_back_is_made_anew() -> None:
    """A gc that met a full disk ends, and makes nothing again."""
    driver = MemoryDriver(inodes=LARGEST_SHARE * SPARE_INODES)
    server = reserve_on(driver)
    server.keep()
    reserve_on(driver).release()
    server.keep()
    assert (size_on(driver), spares_on(driver)) == (LEAST_RESERVE_BYTES, SPARE_INODES)


def test_it_grows_with_the_largest_index() -> None:
    driver = MemoryDriver()
    kept = reserve_on(driver)
    kept.keep()
    kept.grow(LEAST_RESERVE_BYTES // 2)
    assert size_on(driver) == LEAST_RESERVE_BYTES
    kept.grow(LEAST_RESERVE_BYTES)
    kept.keep()
    assert size_on(driver) == 4 * LEAST_RESERVE_BYTES


def test_a_commit_says_how_large_an_index_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "LEAST_RESERVE_BYTES", 10)
    root = root_over(MemoryDriver())
    root.maintain()
    push_image(Store([root], root.protocol.clock), "a", "v1")
    root.maintain()
    assert size_on(root.driver) == 4 * root.driver.stat(keys.index("a")).size


def test_an_upload_looks_for_room_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others fill the disk while it is written."""
    monkeypatch.setattr(uploads, "SPACE_CHECKED_EVERY_BYTES", 10)
    sessions = local_of(root_over(MemoryDriver())).uploads
    session = sessions.begin("a", "sha256")
    session.write([b"12345"])

    def full() -> None:
        raise NoSpace("full")

    monkeypatch.setattr(sessions.reserve, "check", full)
    session.write([b"12345", b"1234"])
    with pytest.raises(NoSpace):
        session.write([b"1"])
    with pytest.raises(BlobUploadUnknown):
        sessions.offset("a", session.id)


@pytest.mark.parametrize("error", [NoSpace("full"), IoFailed("no")])
def test_where_it_can_not_be_made_nothing_fails_and_it_is_tried_again(error: NoSpace | IoFailed) -> None:
    driver = MemoryDriver()
    kept = reserve_on(FailOn(driver, "allocate", 1, error))
    kept.keep()
    assert size_on(driver) is None
    kept.keep()
    assert size_on(driver) == LEAST_RESERVE_BYTES


@pytest.mark.parametrize(
    ("free", "min_free", "refused"),
    [
        (0, 0, False), (9, 10, True), (10, 10, False),
        (5 * MIB, None, False), (5 * MIB - 1, None, True),  # a twentieth of a small file system
    ],
)  # fmt: skip
def test_an_upload_is_refused_when_less_is_free_than_is_kept_back(
    free: int, min_free: int | None, refused: bool
) -> None:
    driver = MemoryDriver(capacity=100 * MIB)
    kept = reserve_on(driver, min_free)
    driver.allocate("filled", driver.space().free - free)
    if not refused:
        return kept.check()
    with pytest.raises(NoSpace, match="min_free"):
        kept.check()
    return None


def test_no_upload_begins_on_a_full_disk() -> None:
    protocol = LocalProtocol(local_of(root_over(MemoryDriver(capacity=100 * MIB))).context, min_free=200 * MIB)
    with pytest.raises(NoSpace):
        protocol.uploads.start("a", "sha256")
    assert protocol.driver.scan(keys.UPLOADS) == []


def test_a_push_on_a_full_disk_that_fits_nowhere_leaves_nothing_of_its_session() -> None:
    full = NoSpaceAfter(MemoryDriver(links=False), 1 << 20)
    root = root_over(full)
    upload = root.protocol.uploads.begin("a", "sha256")
    with pytest.raises(NoSpace):
        full.left = 0
        upload.write([b"more"])
    assert full.inner.scan(keys.UPLOADS) == []
