"""Each fault does what it says: a harness that can't fail proves nothing."""

from __future__ import annotations

import pytest

from tests.conformance.driver_suite import DriverSuite, get, names, put
from tests.doubles.filesystem import MemoryDriver
from tests.faults import (
    Crash,
    CrashAfter,
    DropSync,
    FailOn,
    Faults,
    FlipByte,
    NoSpaceAfter,
    Recorder,
    Slow,
    Truncate,
)
from zotctl.errors import IoFailed, NoSpace
from zotctl.storage.driver import Driver


class TestWithoutAFault(DriverSuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return Faults(MemoryDriver())


def test_recorder_keeps_each_call_in_order() -> None:
    driver = Recorder(MemoryDriver())
    put(driver, "a", b"x")
    driver.rename("a", "b")
    lock = driver.lock("lock", 5)
    assert lock is not None and lock.current()
    lock.release()
    with driver.open("b") as reader:
        reader.read_at(0, 1)
    assert driver.lines() == [
        "create a", "write a", "close a", "rename a -> b", "lock lock -> 5", "current lock", "release lock",
        "open b", "read_at b",
    ]  # fmt: skip


def test_fail_on_fails_the_nth_call_and_no_other() -> None:
    inner = MemoryDriver()
    driver = FailOn(inner, "rename", 2, IoFailed("broken"))
    for name in ("a", "b", "c"):
        put(driver, name, b"")
    driver.rename("a", "a2")
    with pytest.raises(IoFailed, match="broken"):
        driver.rename("b", "b2")
    driver.rename("c", "c2")
    assert names(inner, "") == {"a2", "b", "c2"}


@pytest.mark.parametrize("method", ["write", "sync", "truncate", "set_attributes", "try_lock", "close", "info"])
def test_fail_on_reaches_the_calls_of_a_writer(method: str) -> None:
    driver = FailOn(MemoryDriver(), method, 1, IoFailed("broken"))
    writer = driver.create("file")
    arguments: dict[str, tuple[object, ...]] = {"write": ([b"x"],), "truncate": (0,), "set_attributes": (None, 1)}
    with pytest.raises(IoFailed):
        getattr(writer, method)(*arguments.get(method, ()))


def test_fail_on_counts_only_the_keys_that_match() -> None:
    driver = FailOn(MemoryDriver(), "create", 1, IoFailed("broken"), lambda key: key.startswith("b"))
    put(driver, "a", b"")
    with pytest.raises(IoFailed):
        driver.create("b")


def test_crash_after_dies_at_each_call_and_makes_none_after_it() -> None:
    for n in range(4):
        inner = MemoryDriver()
        driver = CrashAfter(inner, n)
        with pytest.raises(Crash):
            try:
                put(driver, "temp", b"x")
                driver.rename("temp", "index")
                driver.unlink("index")
            finally:
                driver.mkdir("never")
        done = [set[str](), {"temp"}, {"temp"}, {"index"}][n]
        assert driver.crashed
        assert names(inner, "") == done


def test_a_crash_frees_the_locks_and_leaves_the_files() -> None:
    inner = MemoryDriver()
    driver = CrashAfter(inner, 3)
    with pytest.raises(Crash), driver.append("data") as writer:
        assert writer.try_lock()
        writer.write([b"some"])
        writer.write([b"more"])
    with inner.append("data") as other:
        assert other.try_lock()
    assert get(inner, "data") == b"some"


def test_no_crash_when_enough_calls_are_left() -> None:
    driver = CrashAfter(MemoryDriver(), 2)
    put(driver, "a", b"x")
    assert not driver.crashed


@pytest.mark.parametrize("at", [0, 4, 5, 9])
def test_flip_byte_changes_one_bit_of_what_is_written(at: int) -> None:
    inner = MemoryDriver()
    driver = FlipByte(inner, at, lambda key: key == "hit", bit=3)
    for key in ("hit", "spared"):
        with driver.create(key) as writer:
            assert writer.write([b"012", b"34"]) == 5
            writer.write([b"56789"])
    assert get(inner, "spared") == b"0123456789"
    differ = [a ^ b for a, b in zip(get(inner, "hit"), b"0123456789", strict=True)]
    assert differ == [8 if place == at else 0 for place in range(10)]


def test_flip_byte_when_reading_leaves_the_storage_alone() -> None:
    inner = MemoryDriver()
    put(inner, "file", b"0123456789")
    driver = FlipByte(inner, 6, reading=True)
    with driver.open("file") as reader:
        assert reader.read_at(0, 6) == b"012345"
        assert reader.read_at(4, 6) == b"457789"
    assert get(inner, "file") == b"0123456789"


def test_truncate_loses_the_rest_and_says_nothing() -> None:
    inner = MemoryDriver()
    driver = Truncate(inner, 6)
    with driver.create("file") as writer:
        assert writer.write([b"01234"]) == 5
        assert writer.write([b"56789"]) == 5
        assert writer.write([b"more"]) == 4
    assert get(inner, "file") == b"012345"


def test_truncate_when_reading_shows_a_short_file() -> None:
    inner = MemoryDriver()
    put(inner, "file", b"0123456789")
    driver = Truncate(inner, 6, reading=True)
    with driver.open("file") as reader:
        assert (reader.size, reader.info().size) == (6, 6)
        assert (reader.read_at(0, 100), reader.read_at(4, 5), reader.read_at(6, 5)) == (b"012345", b"45", b"")
    assert get(inner, "file") == b"0123456789"


def test_slow_waits_at_the_methods_named() -> None:
    waited: list[float] = []
    driver = Slow(MemoryDriver(), 0.25, ["write", "rename"], waited.append)
    put(driver, "a", b"x")
    driver.rename("a", "b")
    assert waited == [0.25, 0.25]


def test_no_space_after_keeps_what_fits_and_takes_nothing_more() -> None:
    inner = MemoryDriver()
    driver = NoSpaceAfter(inner, 7)
    with driver.create("file") as writer:
        writer.write([b"01234"])
        with pytest.raises(NoSpace):
            writer.write([b"56789"])
        writer.truncate(5)
    for call in (driver.create, driver.mkdir, lambda key: driver.allocate(key, 1)):
        with pytest.raises(NoSpace):
            call("new")
    driver.rename("file", "other")
    assert get(inner, "other") == b"01234"
    driver.left = 10
    driver.allocate("new", 10)
    with pytest.raises(NoSpace):
        driver.create("more")


def test_drop_sync_drops_the_flushes_named_and_nothing_else() -> None:
    for methods, kept in (
        (("sync", "sync_dir"), []),
        (("sync",), ["sync_dir "]),
        (("sync_dir",), ["sync a"]),
    ):
        inner = Recorder(MemoryDriver())
        driver = DropSync(inner, methods)
        with driver.create("a") as writer:
            writer.write([b"x"])
            writer.sync()
        driver.sync_dir("")
        assert [line for line in inner.lines() if line.startswith("sync")] == kept
        assert get(inner, "a") == b"x"


def test_faults_wrap_each_other() -> None:
    inner = MemoryDriver()
    driver = Recorder(FailOn(Truncate(inner, 2), "unlink", 1, IoFailed("broken")))
    put(driver, "file", b"0123")
    with pytest.raises(IoFailed):
        driver.unlink("file")
    assert get(inner, "file") == b"01"
    assert driver.lines()[-1] == "unlink file"


def test_copies_meet_the_faults_of_bytes() -> None:
    inner = MemoryDriver()
    put(inner, "source", b"0123456789")
    for driver in (Truncate(inner, 4), FlipByte(inner, 0), Faults(inner), FlipByte(inner, 0, reading=True)):
        with driver.open("source") as reader, driver.create("copy") as writer:
            writer.copy(reader)
        expected = {Truncate: b"0123", FlipByte: b"1123456789", Faults: b"0123456789"}
        assert get(inner, "copy") == expected[type(driver)]
        inner.unlink("copy")
    full = NoSpaceAfter(inner, 4)
    with full.open("source") as reader, full.create("copy") as writer, pytest.raises(NoSpace):
        writer.copy(reader)
    assert get(inner, "copy") == b"0123"


def test_reading_into_a_buffer_meets_the_faults_of_bytes() -> None:
    inner = MemoryDriver()
    put(inner, "file", b"0123")
    buffer = bytearray(8)
    with FlipByte(inner, 1, reading=True).open("file") as reader:
        assert reader.read_into(0, memoryview(buffer)) == 4
    assert buffer == b"0023" + bytes(4)
