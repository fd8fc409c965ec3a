"""The driver suite on each driver and file system, and what one of them holds alone."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests.clocks import Hand
from tests.conformance.driver_suite import DriverSuite, FileSystemSuite, get, names, put
from tests.doubles.filesystem import MemoryDriver
from tests.mounts import Mounts, control_file, mounts  # noqa: F401 - a fixture
from tests.tools import missing, need
from zotctl.errors import (
    CannotExchange,
    CannotLink,
    Exists,
    IoFailed,
    NoLocks,
    NoSpace,
    NotFound,
    PermissionRefused,
    ReadOnlyStorage,
    StorageError,
    Unavailable,
)
from zotctl.storage.driver import Capabilities, Driver
from zotctl.storage.local import syscalls
from zotctl.storage.local.driver import LocalDriver, translate
from zotctl.storage.local.network import NetworkDriver, detect, filesystem, find_mount, probe
from zotctl.storage.wrappers import AliasedDriver, ReadOnlyDriver, WrappedDriver


class TestMemory(DriverSuite):
    max_links = 50
    fillable = True

    @pytest.fixture
    def driver(self) -> Driver:
        return MemoryDriver(capacity=8 << 20, inodes=200, max_links=50)

    def test_a_freed_inode_number_goes_to_the_next_file(self, driver: Driver) -> None:
        put(driver, "one", b"")
        number = driver.stat("one").ino
        driver.unlink("one")
        put(driver, "other", b"")
        assert driver.stat("other").ino == number

    def test_an_open_handle_keeps_inode_and_space(self, driver: Driver) -> None:
        put(driver, "one", b"12345")
        number, free = driver.stat("one").ino, driver.space()
        with driver.open("one"):
            driver.unlink("one")
            put(driver, "other", b"")
            assert driver.stat("other").ino != number
            assert driver.space().free == free.free
        assert driver.space().free == free.free + 5
        assert driver.space().free_inodes == free.free_inodes

    def test_no_inodes_left(self) -> None:
        driver = MemoryDriver(inodes=2)
        put(driver, "one", b"")
        for call in (driver.create, driver.mkdir, driver.append, lambda key: driver.lock(key, 1)):
            with pytest.raises(NoSpace):
                call("other")
        driver.link("one", "other")
        driver.unlink("one")
        driver.unlink("other")
        driver.mkdir("dir")

    def test_without_links_and_locks(self) -> None:
        driver = MemoryDriver(links=False, locks=False)
        put(driver, "one", b"")
        with pytest.raises(CannotLink):
            driver.link("one", "other")
        with pytest.raises(NoLocks):
            driver.lock("lock", 1)
        assert probe(driver, "") == driver.capabilities == Capabilities(links=False, locks=False)

    def test_without_an_exchange(self) -> None:
        driver = MemoryDriver(exchange=False)
        put(driver, "one", b"1")
        put(driver, "other", b"2")
        with pytest.raises(CannotExchange):
            driver.exchange("one", "other")
        assert probe(driver, "") == driver.capabilities == Capabilities(exchange=False)

    def test_the_clock_stamps_what_changes(self) -> None:
        now = 100
        driver = MemoryDriver(clock=lambda: now)
        put(driver, "file", b"x")
        now = 200
        driver.link("file", "other")
        info = driver.stat("file")
        assert (info.mtime_ns, info.ctime_ns, driver.stat("").mtime_ns) == (100, 200, 200)
        assert [(key, body) for key, _, body in driver.files()] == [("file", b"x"), ("other", b"x")]


class TestLocal(FileSystemSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Driver:
        return LocalDriver(str(tmp_path))

    def test_root_gives_what_it_makes_to_the_owner(self, tmp_path: Path) -> None:
        need("root")
        driver = LocalDriver(str(tmp_path), owner=(1234, 2345))
        driver.mkdir("dir")
        put(driver, "file", b"")
        driver.append("data").close()
        driver.append("data").close()
        driver.allocate("reserve", 1)
        lock = driver.lock("lock", 1)
        assert lock is not None
        lock.release()
        for key in ("dir", "file", "data", "reserve", "lock"):
            assert (driver.stat(key).uid, driver.stat(key).gid) == (1234, 2345), key

    def test_root_dresses_as_the_owner_of_the_old_file(self, tmp_path: Path) -> None:
        need("root")
        driver = LocalDriver(str(tmp_path))
        put(driver, "old", b"")
        os.chown(tmp_path / "old", 1234, 2345)
        os.chmod(tmp_path / "old", 0o664)
        with driver.create("new") as writer:
            writer.set_attributes(driver.stat("old"), 1)
        new = driver.stat("new")
        assert (new.uid, new.gid, new.mode & 0o777) == (1234, 2345, 0o664)

    def test_another_user_is_refused(self) -> None:
        need("root")
        with tempfile.TemporaryDirectory(dir="/tmp") as directory:
            os.chmod(directory, 0o755)
            driver = LocalDriver(directory)
            driver.mkdir("dir")
            os.chmod(f"{directory}/dir", 0o700)
            put(driver, "dir/file", b"")
            with as_user(65534):
                for call in (driver.stat, driver.open, driver.create, driver.append, driver.unlink):
                    with pytest.raises(PermissionRefused, match=r"dir/file.*sudo -u"):
                        call("dir/file")

    def test_a_root_that_is_a_symbolic_link_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        for driver in (LocalDriver(str(tmp_path / "link")), NetworkDriver(str(tmp_path / "link"))):
            assert driver.stat("").is_dir
            assert driver.scan("") == []

    def test_a_root_that_went_away_is_not_found(self, tmp_path: Path) -> None:
        driver = LocalDriver(str(tmp_path / "gone"))
        for call in (driver.stat, driver.scan, driver.sync_dir):
            with pytest.raises(NotFound):
                call("")


class TestLocalOnShm(FileSystemSuite):
    @pytest.fixture
    def driver(self) -> Iterator[Driver]:
        need("/dev/shm")
        if os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize < 16 << 20:
            pytest.skip("/dev/shm has less room than 16 MiB")
        with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="zotctl-") as directory:
            yield LocalDriver(directory)


class TestNetworkOnLocal(FileSystemSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Driver:
        return NetworkDriver(str(tmp_path), capabilities=Capabilities(local=False))


class TestWrapped(DriverSuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return WrappedDriver(MemoryDriver())


class TestAliased(DriverSuite):
    """A directory under the name "app": seen through a second alias, so that the suite finds a root."""

    @pytest.fixture
    def driver(self) -> Driver:
        inner = MemoryDriver()
        inner.mkdir("layouts")
        inner.mkdir("layouts/one")

        class Below(WrappedDriver):
            """Each key with "app" before it."""

        for method in ("stat", "open", "create", "append", "unlink", "mkdir", "rmdir", "scan", "sync_dir", "touch"):
            setattr(Below, method, lambda self, key, *a, m=method: getattr(self.inner, m)(f"app/{key}".rstrip("/"), *a))
        for method in ("link", "rename", "exchange"):
            setattr(Below, method, lambda self, a, b, m=method: getattr(self.inner, m)(f"app/{a}", f"app/{b}"))
        for method in ("lock", "allocate"):
            setattr(Below, method, lambda self, key, n, m=method: getattr(self.inner, m)(f"app/{key}", n))
        return Below(AliasedDriver(inner, "app", "layouts/one"))


class OnMount(FileSystemSuite):
    kind = ""

    @pytest.fixture
    def driver(self, mounts: Mounts) -> Iterator[Driver]:  # noqa: F811
        with tempfile.TemporaryDirectory(dir=mounts.get(self.kind)) as directory:
            yield detect(directory)

    def test_the_file_system_is_known(self, driver: LocalDriver) -> None:
        assert driver.filesystem.startswith(self.kind)
        assert isinstance(driver, NetworkDriver) == (not driver.capabilities.local) == (self.kind == "fuse")


class TestExt4(OnMount):
    kind, max_links = "ext4", 65_000


class TestXfs(OnMount):
    kind = "xfs"


class TestBtrfs(OnMount):
    kind, max_links = "btrfs", 65_535


class TestTmpfs(OnMount):
    kind, fillable = "tmpfs", True

    def test_a_file_system_that_becomes_read_only(self, driver: LocalDriver, mounts: Mounts) -> None:  # noqa: F811
        point = str(mounts.get(self.kind))
        put(driver, "file", b"x")
        subprocess.run(["mount", "-o", "remount,ro", point], check=True)
        try:
            for call in (driver.create, driver.mkdir, driver.append):
                with pytest.raises(ReadOnlyStorage, match="read-write"):
                    call("new")
            with pytest.raises(ReadOnlyStorage):
                driver.rename("file", "other")
            assert get(driver, "file") == b"x"
        finally:
            subprocess.run(["mount", "-o", "remount,rw", point], check=True)

    def test_a_probe_of_a_full_storage_keeps_what_was_assumed(self, driver: LocalDriver) -> None:
        with pytest.raises(NoSpace):
            for number in range(1000):
                driver.create(f"{number}").close()
        assert probe(driver, "") == driver.capabilities


class TestFuse(OnMount):
    kind = "fuse"

    @pytest.fixture(autouse=True)
    def _no_fault_after(self, driver: Driver, mounts: Mounts) -> Iterator[None]:  # noqa: F811
        yield
        control_file(mounts.get(self.kind)).unlink(missing_ok=True)

    def test_an_error_of_the_server_is_told(self, driver: LocalDriver, mounts: Mounts) -> None:  # noqa: F811
        put(driver, "file", b"x")
        control_file(mounts.get(self.kind)).write_text("rename EIO 1")
        with pytest.raises(IoFailed, match="other"):
            driver.rename("file", "other")
        assert names(driver, "") == {"file"}

    @pytest.mark.parametrize("fault", ["rename! ENOENT 1", "rename! EIO 1"])
    def test_a_rename_that_was_done_is_done(
        self,
        driver: LocalDriver,
        mounts: Mounts,  # noqa: F811
        fault: str,
    ) -> None:
        put(driver, "file", b"x")
        control_file(mounts.get(self.kind)).write_text(fault)
        driver.rename("file", "other")
        assert names(driver, "") == {"other"}


def repeated(call: Callable[..., None], *codes: int) -> Callable[..., None]:
    """The call is done, and then reports an error: what a retransmitted request meets."""
    left = list(codes)

    def step(*arguments: object, **options: object) -> None:
        call(*arguments, **options)
        if left:
            code = left.pop()
            raise OSError(code, os.strerror(code))

    return step


class TestRepeatedRequests:
    """docs/design/local.md#networks: after an error compare the inode at the target before believing it."""

    @pytest.fixture
    def driver(self, tmp_path: Path) -> NetworkDriver:
        driver = NetworkDriver(str(tmp_path))
        put(driver, "file", b"x")
        return driver

    @pytest.mark.parametrize("code", [errno.EEXIST, errno.EIO, errno.ESTALE])
    def test_link(self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        monkeypatch.setattr(os, "link", repeated(os.link, code))
        driver.link("file", "other")
        assert driver.stat("file").nlink == 2

    @pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO])
    def test_rename(self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        monkeypatch.setattr(os, "rename", repeated(os.rename, code))
        driver.rename("file", "other")
        assert names(driver, "") == {"other"}

    @pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO])
    def test_unlink(self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        monkeypatch.setattr(os, "unlink", repeated(os.unlink, code))
        driver.unlink("file")
        assert names(driver, "") == set()

    @pytest.mark.parametrize("code", [errno.EEXIST, errno.EIO])
    def test_mkdir(self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        monkeypatch.setattr(os, "mkdir", repeated(os.mkdir, code))
        driver.mkdir("dir")
        assert driver.stat("dir").is_dir

    def test_rmdir(self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        driver.mkdir("dir")
        monkeypatch.setattr(os, "rmdir", repeated(os.rmdir, errno.ENOENT))
        driver.rmdir("dir")
        assert names(driver, "") == {"file"}

    def test_exchange_is_not_made_again_for_that_would_undo_it(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(driver, "other", b"yy")
        real = syscalls.swap

        def done_and_broken(one: str, other: str) -> None:
            real(one, other)
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr("zotctl.storage.local.driver.swap", done_and_broken)
        driver.exchange("file", "other")
        assert (get(driver, "file"), get(driver, "other")) == (b"yy", b"x")

    def test_an_exchange_that_was_not_made_is_told(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(driver, "other", b"yy")

        def refuse(one: str, other: str) -> None:
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr("zotctl.storage.local.driver.swap", refuse)
        with pytest.raises(IoFailed):
            driver.exchange("file", "other")

    @pytest.mark.parametrize("method", ["link", "rename", "unlink", "mkdir"])
    def test_an_error_of_what_was_not_done_is_raised(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        def refuse(*arguments: object) -> None:
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr(os, method, refuse)
        arguments = {"link": ("file", "other"), "rename": ("file", "other"), "unlink": ("file",)}
        with pytest.raises(IoFailed):
            getattr(driver, method)(*arguments.get(method, ("dir",)))
        assert names(driver, "") == {"file"}

    def test_a_name_that_a_cache_denied_is_asked_again(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, asked = os.open, list[str]()

        def stale(path: str, *arguments: int) -> int:
            asked.append(path)
            if len(asked) == 2:
                raise FileNotFoundError(errno.ENOENT, "cached")
            return real(path, *arguments)

        monkeypatch.setattr(os, "open", stale)
        assert driver.stat("file").size == 1
        assert asked == [f"{driver.label}/", f"{driver.label}/file"] * 2

    @pytest.mark.parametrize(("stale_for", "error"), [(0.5, None), (9.0, Unavailable)])
    def test_a_handle_that_is_stale_is_looked_up_again(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, stale_for: float, error: type[Exception] | None
    ) -> None:
        """While the directory seems unchanged to the client (by tests/nfs: a tick of the server's clock); but that has
        an end."""
        name, real, driver.clock = f"{driver.label}/file", os.open, Hand(0)

        def stale(path: str, *arguments: int) -> int:
            if path == name and driver.clock.now() < stale_for:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return real(path, *arguments)

        monkeypatch.setattr(os, "open", stale)
        with pytest.raises(error) if error else nullcontext():
            driver.open("file").close()

    def test_a_mount_that_is_stale_is_told_at_once(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver.clock = Hand(0)

        def stale(path: str, *arguments: int) -> int:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        monkeypatch.setattr(os, "open", stale)
        with pytest.raises(Unavailable, match="Stale file handle"):
            driver.open("file")
        assert driver.clock.now() == 0

    @pytest.mark.parametrize("method", ["stat", "open", "append"])
    def test_a_name_that_leads_to_an_older_file_in_a_cache_is_looked_up_anew(
        self, driver: NetworkDriver, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """An NFS client opens a file that a process of its host holds open without asking for its name (tests/nfs)."""
        name, real = f"{driver.label}/file", os.open
        held, looked = real(name, os.O_RDWR), list[str]()
        put(driver, "other", b"replaced")
        os.rename(f"{driver.label}/other", name)

        def caching(path: str, flags: int, *mode: int) -> int:
            if flags & os.O_DIRECTORY:
                looked.append(path)
            return os.dup(held) if path == name and not looked else real(path, flags, *mode)

        monkeypatch.setattr(os, "open", caching)
        found = getattr(driver, method)("file")
        monkeypatch.undo()
        assert found.ino == driver.stat("file").ino if method == "stat" else found.info().size == 8
        os.close(held)


class TestReadOnly:
    def test_reading_works_and_every_change_is_refused(self) -> None:
        inner = MemoryDriver()
        put(inner, "file", b"x")
        driver: Driver = ReadOnlyDriver(inner)
        before = dict(inner.names)
        one: list[Callable[[str], object]] = [
            driver.create, driver.append, driver.unlink, driver.mkdir, driver.rmdir,
            lambda key: driver.lock(key, 1), lambda key: driver.allocate(key, 1),
            lambda key: driver.link("file", key), lambda key: driver.rename("file", key),
            lambda key: driver.exchange("file", key),
        ]  # fmt: skip
        for call in one:
            for key in ("file", "new"):
                with pytest.raises(ReadOnlyStorage, match=key):
                    call(key)
        assert inner.names == before
        assert (get(driver, "file"), names(driver, ""), driver.stat("file").size) == (b"x", {"file"}, 1)
        driver.sync_dir("")
        assert (driver.label, driver.capabilities) == (inner.label, inner.capabilities)


class TestAlias:
    @pytest.mark.parametrize("directory", ["", "layouts/one"])
    def test_only_the_name_is_there(self, directory: str) -> None:
        inner = MemoryDriver()
        for made in ("layouts", "layouts/one"):
            inner.mkdir(made)
        put(inner, f"{directory}/index.json".lstrip("/"), b"index")
        driver = AliasedDriver(inner, "some/app", directory)
        assert get(driver, "some/app/index.json") == b"index"
        assert driver.stat("some/app") == driver.stat("") == inner.stat(directory)
        assert "index.json" in names(driver, "some/app")
        for key in ("some", "some/apple", "index.json", "layouts/one/index.json", "some/app2/index.json"):
            with pytest.raises(NotFound):
                driver.stat(key)


class TestTranslation:
    @pytest.mark.parametrize(
        ("step", "code", "kind"),
        [
            ("open", errno.ENOENT, NotFound),
            ("open", errno.ELOOP, NotFound),
            ("open", errno.ENOTDIR, NotFound),
            ("open", errno.EISDIR, NotFound),
            ("open", errno.ENODEV, Unavailable),
            ("open", errno.EMFILE, Unavailable),
            ("create", errno.EEXIST, Exists),
            ("mkdir", errno.ENAMETOOLONG, StorageError),
            ("link", errno.EXDEV, CannotLink),
            ("link", errno.EMLINK, CannotLink),
            ("link", errno.EPERM, CannotLink),
            ("link", errno.EOPNOTSUPP, CannotLink),
            ("link", errno.EACCES, PermissionRefused),
            ("unlink", errno.EPERM, PermissionRefused),
            ("write", errno.ENOSPC, NoSpace),
            ("write", errno.EDQUOT, NoSpace),
            ("write", errno.EROFS, ReadOnlyStorage),
            ("write", errno.EFBIG, StorageError),
            ("lock", errno.ENOLCK, NoLocks),
            ("lock", errno.ENOSYS, NoLocks),
            ("lock", errno.EOPNOTSUPP, NoLocks),
            ("read", errno.EIO, IoFailed),
            ("read", errno.EUCLEAN, IoFailed),
            ("read", errno.ESTALE, Unavailable),
            ("stat", errno.ETIMEDOUT, Unavailable),
            ("stat", errno.ENOTCONN, Unavailable),
            ("stat", errno.EHOSTDOWN, Unavailable),
        ],
    )
    def test_each_errno_of_a_step(self, step: str, code: int, kind: type[StorageError]) -> None:
        error = translate(OSError(code, os.strerror(code)), "/root/key", step)
        assert type(error) is kind
        assert error.message.startswith("/root/key: ")

    def test_no_locks_of_a_file_system_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.fcntl", refuse)
        driver = LocalDriver(str(tmp_path))
        with pytest.raises(NoLocks, match="one worker"):
            driver.lock("lock", 1)
        assert probe(driver, "") == Capabilities(locks=False)
        assert names(driver, "") == {"lock"}

    def test_locks_that_let_all_in_are_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fcntl.fcntl", lambda *arguments: 0)
        assert probe(LocalDriver(str(tmp_path)), "") == Capabilities(locks=False)

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
    def test_no_exchange_of_a_file_system_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def refuse(one: str, other: str) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr("zotctl.storage.local.driver.swap", refuse)
        driver = LocalDriver(str(tmp_path))
        put(driver, "one", b"1")
        with pytest.raises(CannotExchange):
            driver.exchange("one", "one")
        assert probe(driver, "") == Capabilities(exchange=False)
        assert names(driver, "") == {"one"}

    @pytest.mark.parametrize("kind", [LocalDriver, NetworkDriver])
    def test_an_exchange_that_is_a_rename_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[LocalDriver]
    ) -> None:
        """A FUSE server that knows of no flags does what it knows, and reports that it was done."""
        monkeypatch.setattr("zotctl.storage.local.driver.swap", os.rename)
        assert not probe(kind(str(tmp_path)), "").exchange
        assert os.listdir(tmp_path) == []

    def test_links_that_are_copies_are_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "link", lambda a, b: Path(b).write_bytes(Path(a).read_bytes()))
        assert probe(LocalDriver(str(tmp_path)), "") == Capabilities(links=False)
        assert os.listdir(tmp_path) == []

    def test_writing_goes_on_after_a_partial_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.writev
        monkeypatch.setattr(os, "writev", lambda fd, buffers: real(fd, [b"".join(buffers)[:3]]))
        driver = LocalDriver(str(tmp_path))
        put(driver, "file", b"", b"01234", b"5", b"", b"678", b"9")
        assert get(driver, "file") == b"0123456789"

    def test_a_close_that_fails_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = LocalDriver(str(tmp_path)).create("file")
        monkeypatch.setattr(os, "close", repeated(os.close, errno.EDQUOT))
        with pytest.raises(NoSpace):
            writer.close()
        writer.close()


class TestDetection:
    LINES = (
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
        "40 27 0:50 / /srv/nfs\\040share rw shared:5 - nfs4 host:/x rw",
        "41 27 0:51 / /srv/nfs rw - xfs /dev/vdb rw",
        "42 27 0:52 / /srv rw - btrfs /dev/vdc rw",
        "43 42 0:53 / /srv rw - overlay none rw",
        "broken",
    )

    @pytest.mark.parametrize(
        ("path", "device", "kind"),
        [
            ("/srv/nfs share/store", "0:99", "nfs4"),
            ("/srv/nfs/store", "0:99", "xfs"),
            ("/srv/nfs2", "0:99", "overlay"),
            ("/srv/nfs2", "0:50", "nfs4"),
            ("/home", "0:99", "ext4"),
        ],
    )
    def test_device_first_then_the_longest_mount_point(self, path: str, device: str, kind: str) -> None:
        assert find_mount(list(self.LINES), path, device) == kind

    @pytest.mark.parametrize("kind", ["nfs", "nfs4", "fuse.sshfs", "fuseblk", "cifs", "smb3", "9p", "ceph"])
    def test_network_kinds(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zotctl.storage.local.network.filesystem", lambda path: kind)
        driver = detect(str(tmp_path), owner=(1, 2))
        assert (type(driver), driver.capabilities.local, driver.filesystem) == (NetworkDriver, False, kind)

    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "autofs", ""])
    def test_local_kinds(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("zotctl.storage.local.network.filesystem", lambda path: kind)
        driver = detect(str(tmp_path))
        assert (type(driver), driver.capabilities.local, driver.filesystem) == (LocalDriver, True, kind)

    def test_what_is_here(self, tmp_path: Path) -> None:
        if not os.path.exists("/proc/self/mountinfo"):
            missing("/proc")
        assert filesystem(str(tmp_path))
        assert filesystem("/none/at/all") == ""


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
