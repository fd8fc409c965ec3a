"""What every driver holds. A driver is done when the suite runs on it unchanged.

A class of tests derives from `DriverSuite` (any driver) or `FileSystemSuite` (a `LocalDriver`) and gives a
fixture `driver`: a new, empty storage for each test.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from zotctl.errors import CannotLink, Exists, NoSpace, NotEmpty, NotFound
from zotctl.storage.driver import Buffer, Driver, read
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.network import probe

HOUR = 3_600_000_000_000


def put(driver: Driver, key: str, *parts: bytes) -> None:
    """A whole file."""
    with driver.create(key) as writer:
        writer.write(parts)


def get(driver: Driver, key: str) -> bytes:
    return read(driver, key, 1 << 26)


def names(driver: Driver, key: str) -> set[str]:
    return {entry.name for entry in driver.scan(key)}


class DriverSuite:
    max_links: int | None = None
    """How many names one inode can have, where there is a limit that is worth reaching in a test."""
    fillable = False
    """The storage is so small that a test may fill it."""

    # Looking and reading

    def test_the_root_is_a_directory(self, driver: Driver) -> None:
        assert driver.stat("").is_dir
        assert driver.scan("") == []

    def test_what_is_not_there_is_not_found(self, driver: Driver) -> None:
        put(driver, "file", b"x")
        for key in ("none", "none/below", "file/below"):
            for call in (driver.stat, driver.open, driver.scan, driver.unlink, driver.rmdir, driver.sync_dir):
                with pytest.raises(NotFound):
                    call(key)

    def test_stat_tells_files_from_directories(self, driver: Driver) -> None:
        driver.mkdir("dir")
        put(driver, "dir/file", b"12345")
        file, directory = driver.stat("dir/file"), driver.stat("dir")
        assert (file.is_file, file.is_dir, file.is_link, file.size, file.nlink) == (True, False, False, 5, 1)
        assert (directory.is_file, directory.is_dir) == (False, True)
        assert file.ino != directory.ino and file.dev == directory.dev

    def test_i8_bytes_come_back_identical(self, driver: Driver) -> None:
        body = bytes(range(256)) * 50
        put(driver, "file", body)
        assert get(driver, "file") == body

    def test_reading_gives_fewer_bytes_only_at_the_end(self, driver: Driver) -> None:
        put(driver, "file", b"0123456789")
        with driver.open("file") as reader:
            assert reader.size == 10
            assert reader.read_at(3, 4) == b"3456"
            assert reader.read_at(8, 100) == b"89"
            assert reader.read_at(10, 1) == reader.read_at(1000, 1) == b""

    def test_reader_tells_of_its_inode_as_it_is_now(self, driver: Driver) -> None:
        put(driver, "file", b"old")
        with driver.open("file") as reader:
            before = reader.info()
            assert before.generation == driver.stat("file").generation
            with driver.append("file") as writer:
                writer.write([b" and new"])
            assert reader.size == 3
            assert reader.info().size == 11
            assert reader.info().generation != before.generation

    def test_a_directory_is_no_file(self, driver: Driver) -> None:
        driver.mkdir("dir")
        for call in (driver.open, driver.append, driver.unlink):
            with pytest.raises(NotFound):
                call("dir")
        assert driver.stat("dir").is_dir

    def test_scan_lists_each_name_with_its_kind(self, driver: Driver) -> None:
        driver.mkdir("dir")
        driver.mkdir("dir/below")
        put(driver, "dir/file", b"")
        put(driver, "dir/below/deeper", b"")
        found = {entry.name: (entry.is_dir, entry.is_file) for entry in driver.scan("dir")}
        assert found == {"below": (True, False), "file": (False, True)}
        assert names(driver, "") == {"dir"}

    def test_scan_of_a_file_is_not_found(self, driver: Driver) -> None:
        put(driver, "file", b"")
        with pytest.raises(NotFound):
            driver.scan("file")

    def test_odd_names_are_names(self, driver: Driver) -> None:
        odd = {" ", "a b", "é✓", "a\nb", "-rf", ".hidden", "...", "a..b", "x" * 255}
        for name in odd:
            put(driver, name, name.encode())
        assert names(driver, "") == odd
        assert all(get(driver, name) == name.encode() for name in odd)

    # Writing

    def test_create_never_replaces(self, driver: Driver) -> None:
        put(driver, "file", b"mine")
        driver.mkdir("dir")
        for key in ("file", "dir"):
            with pytest.raises(Exists):
                driver.create(key)
        assert get(driver, "file") == b"mine"

    def test_nothing_is_made_in_a_directory_that_is_missing(self, driver: Driver) -> None:
        put(driver, "file", b"")
        for call in (driver.create, driver.append, driver.mkdir):
            with pytest.raises(NotFound):
                call("none/name")
        for move in (driver.link, driver.rename):
            with pytest.raises(NotFound):
                move("file", "none/name")
        with pytest.raises(NotFound):
            driver.lock("none/name", 1)
        with pytest.raises(NotFound):
            driver.allocate("none/name", 1)
        assert names(driver, "") == {"file"}

    def test_append_makes_a_file_and_goes_on_at_its_end(self, driver: Driver) -> None:
        for part in (b"one ", b"two ", b"three"):
            with driver.append("file") as writer:
                assert writer.write([part]) == len(part)
        assert get(driver, "file") == b"one two three"

    def test_a_writer_is_always_at_the_end(self, driver: Driver) -> None:
        with driver.append("file") as one, driver.append("file") as other:
            one.write([b"a"])
            other.write([b"bb"])
            one.write([b"c"])
        assert get(driver, "file") == b"abbc"

    def test_many_buffers_of_each_kind_are_written_in_order(self, driver: Driver) -> None:
        piece = bytes(range(250)) * 3
        kinds: list[Buffer] = [piece, bytearray(piece), memoryview(piece), memoryview(bytearray(piece))[10:20], b""]
        buffers = kinds * 700
        with driver.create("file") as writer:
            assert writer.write(buffers) == sum(map(len, buffers))
            assert writer.write([]) == 0
            assert writer.info().size == sum(map(len, buffers))
        assert get(driver, "file") == b"".join(buffers)

    def test_after_truncate_writing_goes_on_there(self, driver: Driver) -> None:
        with driver.create("file") as writer:
            writer.write([b"0123456789"])
            writer.truncate(4)
            assert writer.info().size == 4
            writer.write([b"X"])
        assert get(driver, "file") == b"0123X"

    def test_dress_sets_mode_and_time(self, driver: Driver) -> None:
        put(driver, "old", b"")
        with driver.append("old") as writer:
            writer.set_attributes(driver.stat("old")._replace(mode=stat.S_IFREG | 0o640), HOUR)
        old = driver.stat("old")
        assert (old.mode, old.mtime_ns) == (stat.S_IFREG | 0o640, HOUR)
        with driver.create("new") as writer:
            writer.write([b"x"])
            writer.set_attributes(old, 2 * HOUR)
        new = driver.stat("new")
        assert (new.mode, new.mtime_ns, new.uid, new.gid) == (old.mode, 2 * HOUR, old.uid, old.gid)

    def test_dress_without_a_pattern_sets_the_time_alone(self, driver: Driver) -> None:
        with driver.create("file") as writer:
            before = writer.info()
            writer.set_attributes(None, HOUR)
        after = driver.stat("file")
        assert (after.mode, after.uid, after.mtime_ns) == (before.mode, before.uid, HOUR)

    def test_touch_sets_the_time_of_a_file_or_a_directory(self, driver: Driver) -> None:
        put(driver, "file", b"x")
        driver.mkdir("directory")
        long_ago = 1_000_000_000 * 10**9
        for key in ("file", "directory"):
            driver.touch(key, long_ago)
            assert driver.stat(key).mtime_ns == long_ago
            assert driver.stat(key).ctime_ns > long_ago or not driver.stat(key).ctime_ns > 10**18
        with pytest.raises(NotFound):
            driver.touch("none", long_ago)

    def test_flushing_works_on_files_and_directories(self, driver: Driver) -> None:
        driver.mkdir("dir")
        with driver.create("dir/file") as writer:
            writer.write([b"x"])
            writer.sync()
        driver.sync_dir("dir")
        driver.sync_dir("")

    def test_handles_can_be_closed_twice(self, driver: Driver) -> None:
        with driver.create("file") as writer:
            writer.close()
        with driver.open("file") as reader:
            reader.close()

    def test_allocate_makes_a_file_of_that_size_and_never_replaces(self, driver: Driver) -> None:
        driver.allocate("file", 300_000)
        driver.allocate("empty", 0)
        assert (driver.stat("file").size, driver.stat("empty").size) == (300_000, 0)
        with pytest.raises(Exists):
            driver.allocate("file", 1)
        assert driver.stat("file").size == 300_000

    def test_space_is_told(self, driver: Driver) -> None:
        space = driver.space()
        assert 0 < space.free <= space.total
        assert space.free_inodes == -1 or space.free_inodes > 0

    def test_no_space_leaves_nothing_of_what_was_allocated(self, driver: Driver) -> None:
        self._must_be_fillable()
        free = driver.space().free
        with pytest.raises(NoSpace):
            driver.allocate("file", free + (1 << 20))
        assert names(driver, "") == set()
        assert driver.space().free >= free * 0.9

    def test_no_space_keeps_what_was_written_before(self, driver: Driver) -> None:
        self._must_be_fillable()
        with driver.create("file") as writer:
            writer.write([b"known"])
            writer.sync()
            body = bytes(driver.space().free // 8 + 1)
            with pytest.raises(NoSpace):
                for _ in range(12):
                    writer.write([body])
                    writer.sync()
            writer.truncate(5)
        assert get(driver, "file") == b"known"

    def test_reading_into_a_buffer_fills_it_up_to_the_end(self, driver: Driver) -> None:
        put(driver, "file", b"0123456789")
        buffer = bytearray(6)
        with driver.open("file") as reader:
            reader.once()
            assert reader.read_into(2, memoryview(buffer)) == 6
            reader.uncache()
            assert buffer == b"234567"
            assert reader.read_into(8, memoryview(buffer)) == 2
            assert buffer[:2] == b"89"
            assert reader.read_into(10, memoryview(buffer)) == 0

    def test_a_copy_is_appended_whole_and_stands_alone(self, driver: Driver) -> None:
        body = bytes(range(251)) * 9_000
        put(driver, "source", body)
        with driver.open("source") as reader:
            with driver.create("copy") as writer:
                writer.copy(reader)
                writer.write([b" and more"])
            with driver.create("behind") as writer:
                writer.write([b"first "])
                writer.copy(reader)
        with driver.append("source") as writer:
            writer.write([b"later"])
        assert get(driver, "copy") == body + b" and more"
        assert get(driver, "behind") == b"first " + body
        assert driver.stat("copy").ino != driver.stat("source").ino

    # Names

    def test_link_gives_one_more_name_to_the_inode(self, driver: Driver) -> None:
        put(driver, "one", b"body")
        driver.link("one", "other")
        one, other = driver.stat("one"), driver.stat("other")
        assert (one.ino, one.nlink, other.nlink) == (other.ino, 2, 2)
        driver.unlink("one")
        assert driver.stat("other").nlink == 1
        assert get(driver, "other") == b"body"

    def test_link_never_replaces(self, driver: Driver) -> None:
        put(driver, "one", b"mine")
        put(driver, "other", b"theirs")
        driver.mkdir("dir")
        for key in ("other", "dir"):
            with pytest.raises(Exists):
                driver.link("one", key)
        assert get(driver, "other") == b"theirs"
        assert driver.stat("one").nlink == 1

    def test_link_needs_its_source(self, driver: Driver) -> None:
        with pytest.raises(NotFound):
            driver.link("none", "name")
        assert names(driver, "") == set()

    def test_a_directory_has_one_name(self, driver: Driver) -> None:
        driver.mkdir("dir")
        with pytest.raises(CannotLink):
            driver.link("dir", "other")

    def test_too_many_links_are_told_and_one_less_is_enough(self, driver: Driver) -> None:
        if self.max_links is None:
            pytest.skip("no limit of links that is known")
        driver.mkdir("dir")
        put(driver, "dir/0", b"x")
        for number in range(1, self.max_links):
            driver.link("dir/0", f"dir/{number}")
        with pytest.raises(CannotLink):
            driver.link("dir/0", "dir/more")
        assert driver.stat("dir/0").nlink == self.max_links
        driver.unlink("dir/1")
        driver.link("dir/0", "dir/more")

    def test_i3_rename_replaces_a_file(self, driver: Driver) -> None:
        put(driver, "index", b"old")
        put(driver, "temp", b"new")
        moved = driver.stat("temp").ino
        driver.rename("temp", "index")
        assert get(driver, "index") == b"new"
        assert driver.stat("index").ino == moved
        assert names(driver, "") == {"index"}

    sees_gaps: type[Exception] | tuple[()] = ()
    """What a reader may meet for a moment while the file is replaced that it has opened."""

    def test_i3_a_reader_sees_the_old_one_or_the_new_one(self, driver: Driver) -> None:
        bodies = [b"a" * 5_000, b"b" * 7_000]
        put(driver, "index", bodies[0])
        stop, wrong = threading.Event(), list[object]()

        def look() -> None:
            while not stop.is_set() and not wrong:
                try:
                    if (seen := get(driver, "index")) not in bodies:
                        wrong.append(seen)
                except self.sees_gaps:
                    pass
                except Exception as error:
                    wrong.append(error)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            for number in range(60):
                put(driver, "temp", bodies[number % 2])
                driver.rename("temp", "index")
        finally:
            stop.set()
            thread.join(10)
        assert not wrong, wrong

    def test_i2_an_open_reader_survives_that_its_name_is_replaced(self, driver: Driver) -> None:
        put(driver, "index", b"old bytes")
        put(driver, "temp", b"new")
        with driver.open("index") as reader:
            driver.rename("temp", "index")
            assert reader.read_at(0, 100) == b"old bytes"
            assert reader.info().ino != driver.stat("index").ino

    def test_i2_an_open_reader_survives_that_its_name_is_removed(self, driver: Driver) -> None:
        put(driver, "blob", b"bytes")
        with driver.open("blob") as reader:
            driver.unlink("blob")
            put(driver, "blob", b"other")
            assert reader.read_at(0, 100) == b"bytes"
            assert reader.info().ino != driver.stat("blob").ino

    def test_rename_of_two_names_of_one_inode_keeps_both(self, driver: Driver) -> None:
        put(driver, "one", b"x")
        driver.link("one", "other")
        driver.rename("one", "other")
        assert names(driver, "") == {"one", "other"}
        assert driver.stat("one").nlink == 2

    def test_rename_to_itself_changes_nothing(self, driver: Driver) -> None:
        put(driver, "file", b"x")
        driver.rename("file", "file")
        assert get(driver, "file") == b"x"

    def test_rename_needs_its_source(self, driver: Driver) -> None:
        put(driver, "target", b"stays")
        with pytest.raises(NotFound):
            driver.rename("none", "target")
        assert get(driver, "target") == b"stays"

    def test_rename_never_replaces_a_directory_with_a_file(self, driver: Driver) -> None:
        put(driver, "file", b"x")
        driver.mkdir("dir")
        with pytest.raises(Exists):
            driver.rename("file", "dir")
        assert names(driver, "") == {"file", "dir"}

    def test_rename_lowers_the_links_of_what_it_replaces(self, driver: Driver) -> None:
        put(driver, "old", b"x")
        driver.link("old", "kept")
        put(driver, "new", b"y")
        driver.rename("new", "old")
        assert driver.stat("kept").nlink == 1

    def test_i3_exchange_swaps_two_files(self, driver: Driver) -> None:
        if not driver.capabilities.exchange:
            pytest.skip("this storage has no exchange of names")
        put(driver, "one", b"one")
        driver.mkdir("dir")
        put(driver, "dir/other", b"other")
        before = driver.stat("one"), driver.stat("dir/other")
        driver.exchange("one", "dir/other")
        assert (get(driver, "one"), get(driver, "dir/other")) == (b"other", b"one")
        after = driver.stat("dir/other"), driver.stat("one")
        assert [(info.ino, info.size, info.mtime_ns, info.nlink) for info in before] == [
            (info.ino, info.size, info.mtime_ns, info.nlink) for info in after
        ]
        assert (names(driver, ""), names(driver, "dir")) == ({"one", "dir"}, {"other"})

    def test_exchange_needs_both(self, driver: Driver) -> None:
        if not driver.capabilities.exchange:
            pytest.skip("this storage has no exchange of names")
        put(driver, "one", b"one")
        for pair in (("one", "none"), ("none", "one")):
            with pytest.raises(NotFound):
                driver.exchange(*pair)
        assert (get(driver, "one"), names(driver, "")) == (b"one", {"one"})

    def test_rename_moves_a_directory_with_what_is_in_it(self, driver: Driver) -> None:
        driver.mkdir("one")
        driver.mkdir("one/below")
        put(driver, "one/below/file", b"x")
        put(driver, "one-more", b"y")
        driver.rename("one", "other")
        assert get(driver, "other/below/file") == b"x"
        assert names(driver, "") == {"other", "one-more"}
        assert names(driver, "other") == {"below"}
        with pytest.raises(NotFound):
            driver.stat("one/below/file")

    def test_rename_never_replaces_a_directory_with_content(self, driver: Driver) -> None:
        driver.mkdir("one")
        driver.mkdir("other")
        put(driver, "other/file", b"x")
        with pytest.raises(NotEmpty):
            driver.rename("one", "other")
        assert get(driver, "other/file") == b"x"

    def test_mkdir_never_replaces(self, driver: Driver) -> None:
        driver.mkdir("dir")
        put(driver, "dir/file", b"x")
        for key in ("dir", "dir/file", ""):
            with pytest.raises(Exists):
                driver.mkdir(key)
        assert get(driver, "dir/file") == b"x"

    def test_rmdir_removes_an_empty_directory_only(self, driver: Driver) -> None:
        driver.mkdir("dir")
        put(driver, "dir/file", b"x")
        with pytest.raises(NotEmpty):
            driver.rmdir("dir")
        with pytest.raises(NotFound):
            driver.rmdir("dir/file")
        driver.unlink("dir/file")
        driver.rmdir("dir")
        with pytest.raises(NotFound):
            driver.stat("dir")

    def test_generation_stays_with_the_content(self, driver: Driver) -> None:
        put(driver, "file", b"one")
        before = driver.stat("file").generation
        assert get(driver, "file") == b"one"
        assert driver.stat("file").generation == before
        put(driver, "temp", b"two")
        driver.rename("temp", "file")
        assert driver.stat("file").generation != before

    def test_a_directory_tells_by_its_time_that_names_changed(self, driver: Driver) -> None:
        driver.mkdir("dir")
        put(driver, "temp", b"x")
        with driver.create("probe") as writer:
            writer.set_attributes(None, HOUR)
        before = driver.stat("dir")
        self.tick()
        driver.rename("temp", "dir/name")
        after = driver.stat("dir")
        assert after.mtime_ns > before.mtime_ns

    # Locks

    def test_a_lock_excludes_another_handle_until_released(self, driver: Driver) -> None:
        lock = driver.lock("lock", 7)
        assert lock is not None and lock.current()
        assert driver.lock("lock", 7) is None
        other = driver.lock("lock", 1 << 61)
        assert other is not None
        lock.release()
        lock.release()
        again = driver.lock("lock", 7)
        assert again is not None
        again.release()
        other.release()

    def test_a_lock_is_not_lost_when_another_handle_of_the_file_closes(self, driver: Driver) -> None:
        lock = driver.lock("lock", 1)
        assert lock is not None
        driver.open("lock").close()
        driver.append("lock").close()
        other = driver.lock("lock", 2)
        assert other is not None
        other.release()
        assert driver.lock("lock", 1) is None
        lock.release()

    def test_a_lock_excludes_another_thread(self, driver: Driver) -> None:
        lock, seen = driver.lock("lock", 1), list[object]()
        thread = threading.Thread(target=lambda: seen.append(driver.lock("lock", 1)))
        thread.start()
        thread.join()
        assert lock is not None and seen == [None]
        lock.release()

    def test_a_lock_is_not_current_when_its_file_was_removed(self, driver: Driver) -> None:
        driver.mkdir("dir")
        lock = driver.lock("dir/lock", 1)
        assert lock is not None and lock.current()
        driver.unlink("dir/lock")
        assert not lock.current()
        other = driver.lock("dir/lock", 1)
        assert other is not None and other.current() and not lock.current()
        lock.release()
        other.release()
        driver.unlink("dir/lock")
        driver.rmdir("dir")
        with pytest.raises(NotFound):
            driver.lock("dir/lock", 1)

    def test_a_lock_is_not_current_when_its_file_was_replaced(self, driver: Driver) -> None:
        lock = driver.lock("lock", 1)
        put(driver, "temp", b"")
        driver.rename("temp", "lock")
        assert lock is not None and not lock.current()
        lock.release()

    def test_one_writer_excludes_the_others_until_closed(self, driver: Driver) -> None:
        with driver.append("data") as one, driver.append("data") as other:
            assert one.try_lock() and one.try_lock()
            assert not other.try_lock()
            driver.open("data").close()
            assert not other.try_lock()
            one.close()
            assert other.try_lock()

    def test_probe_finds_links_and_locks_and_leaves_nothing(self, driver: Driver) -> None:
        driver.mkdir("dir")
        found = probe(driver, "dir")
        assert (found.links, found.locks) == (True, True)
        assert found.local == driver.capabilities.local
        assert names(driver, "dir") == set()

    def tick(self) -> None:
        """Let the storage's clock go on: file systems stamp with the kernel's tick."""

    def _must_be_fillable(self) -> None:
        if not self.fillable:
            pytest.skip("too big to be filled")


_CHILD = """
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, int(sys.argv[2]), 1, 0))
except OSError:
    print("refused", flush=True)
else:
    print("taken", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def lock_in_a_child(path: str, byte: int, seconds: float) -> tuple[subprocess.Popen[str], str]:
    """Another process asks for a byte, says whether it has it, and keeps it."""
    arguments = [sys.executable, "-S", "-E", "-c", _CHILD, path, str(byte), str(seconds)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, child.stdout.readline().strip()


class FileSystemSuite(DriverSuite):
    """And what a directory holds besides."""

    def tick(self) -> None:
        threading.Event().wait(0.02)

    def test_a_symbolic_link_is_not_followed(self, driver: LocalDriver) -> None:
        put(driver, "file", b"secret")
        os.symlink("file", f"{driver.label}/link")
        os.symlink("none", f"{driver.label}/dangling")
        for key in ("link", "dangling"):
            assert driver.stat(key).is_link
            for call in (driver.open, driver.append, lambda key: driver.lock(key, 1)):
                with pytest.raises(NotFound):
                    call(key)
            with pytest.raises(Exists):
                driver.create(key)
        assert names(driver, "") == {"file", "link", "dangling"}

    def test_to_ask_for_a_mount_changes_nothing(self, driver: LocalDriver) -> None:
        driver.mkdir("dir")
        put(driver, "dir/file", b"1")
        before = [driver.stat(key) for key in ("", "dir", "dir/file")]
        assert not driver.crosses_mount("dir")
        with pytest.raises(NotFound):
            driver.crosses_mount("none")
        assert [driver.stat(key) for key in ("", "dir", "dir/file")] == before

    def test_scan_calls_a_symbolic_link_neither(self, driver: LocalDriver) -> None:
        driver.mkdir("dir")
        os.symlink("dir", f"{driver.label}/link")
        found = {entry.name: (entry.is_dir, entry.is_file) for entry in driver.scan("")}
        assert found == {"dir": (True, False), "link": (False, False)}

    def test_rename_replaces_a_symbolic_link_and_not_what_it_names(self, driver: LocalDriver) -> None:
        put(driver, "victim", b"stays")
        os.symlink("victim", f"{driver.label}/link")
        put(driver, "temp", b"new")
        driver.rename("temp", "link")
        assert (get(driver, "link"), get(driver, "victim")) == (b"new", b"stays")

    @pytest.mark.timeout(10)
    def test_a_fifo_is_not_opened_and_does_not_block(self, driver: LocalDriver) -> None:
        os.mkfifo(f"{driver.label}/fifo")
        for call in (driver.open, driver.append):
            with pytest.raises(NotFound):
                call("fifo")
        assert not driver.stat("fifo").is_file

    def test_names_that_are_no_text_are_skipped(self, driver: LocalDriver) -> None:
        put(driver, "good", b"")
        try:
            os.close(os.open(os.fsencode(driver.label) + b"/bad-\xff", os.O_CREAT | os.O_WRONLY))
        except OSError:
            pytest.skip("this file system refuses such names")
        assert names(driver, "") == {"good"}

    def test_i14_no_key_leads_out(self, driver: LocalDriver) -> None:
        driver.mkdir("dir")
        for key in ("..", "../x", "dir/..", "dir/../../x"):
            for call in (driver.stat, driver.open, driver.create, driver.mkdir, driver.scan):
                with pytest.raises(NotFound):
                    call(key)

    def test_a_name_that_is_too_long_is_not_there(self, driver: LocalDriver) -> None:
        for call in (driver.stat, driver.open, driver.unlink):
            with pytest.raises(NotFound):
                call("x" * 300)

    def test_new_files_follow_the_umask(self, driver: LocalDriver) -> None:
        before = os.umask(0o027)
        try:
            driver.create("file").close()
            driver.append("other").close()
            driver.mkdir("dir")
        finally:
            os.umask(before)
        modes = [stat.S_IMODE(driver.stat(key).mode) for key in ("file", "other", "dir")]
        assert modes == [0o640, 0o640, 0o750]

    def test_i10_a_lock_excludes_another_process(self, driver: LocalDriver) -> None:
        lock = driver.lock("lock", 5)
        child, answer = lock_in_a_child(f"{driver.label}/lock", 5, 0)
        child.communicate()
        assert lock is not None and answer == "refused"
        lock.release()
        child, answer = lock_in_a_child(f"{driver.label}/lock", 5, 0)
        child.communicate()
        assert answer == "taken"

    def test_i10_a_killed_process_frees_its_lock_and_a_frozen_one_keeps_it(self, driver: LocalDriver) -> None:
        child, answer = lock_in_a_child(f"{driver.label}/lock", 5, 60)
        try:
            assert answer == "taken"
            child.send_signal(signal.SIGSTOP)
            assert driver.lock("lock", 5) is None
            other = driver.lock("lock", 6)
            assert other is not None
            other.release()
        finally:
            child.kill()
            child.communicate()
        lock = driver.lock("lock", 5)
        assert lock is not None
        lock.release()

    def test_a_lock_is_freed_though_a_child_has_its_descriptor(self, driver: LocalDriver) -> None:
        lock = driver.lock("lock", 1)
        writer = driver.append("data")
        assert lock is not None and writer.try_lock()
        pid = os.fork()
        if not pid:
            signal.pause()
            os._exit(0)
        try:
            lock.release()
            writer.close()
            again = driver.lock("lock", 1)
            assert again is not None
            again.release()
            with driver.append("data") as other:
                assert other.try_lock()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def test_no_descriptor_is_left_open(self, driver: LocalDriver) -> None:
        put(driver, "file", b"x")
        driver.mkdir("dir")
        os.symlink("file", f"{driver.label}/link")
        held = driver.lock("lock", 1)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            assert driver.lock("lock", 1) is None
            for key in ("dir", "link", "none"):
                with pytest.raises(NotFound):
                    driver.open(key)
            with pytest.raises(NotFound):
                driver.append("dir")
            driver.open("file").close()
            driver.append("file").close()
            driver.sync_dir("dir")
            driver.scan("")
            driver.stat("file")
        assert len(os.listdir("/proc/self/fd")) == before
        assert held is not None
        held.release()

    def test_a_copy_has_the_labels_of_its_source(self, driver: LocalDriver) -> None:
        put(driver, "source", b"x")
        try:
            os.setxattr(f"{driver.label}/source", "user.note", b"kept")
        except OSError:
            pytest.skip("this file system has no attributes for users")
        with driver.open("source") as reader, driver.create("copy") as writer:
            before = reader.labels()
            writer.copy(reader)
        with driver.open("copy") as reader:
            assert reader.labels() == before  # on NFS there is an ACL as well
        assert before["user.note"] == b"kept"

    def test_allocated_bytes_are_really_occupied(self, driver: LocalDriver) -> None:
        driver.allocate("file", 1 << 20)
        assert os.stat(Path(driver.label, "file")).st_blocks * 512 >= 1 << 20
