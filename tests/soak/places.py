"""Where the store of a soak lies, what can befall it there, and how to look at what is left."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from tests import buckets
from tests.http.serving import WITHOUT_JOBS
from tests.mounts import mounted
from tests.nfs.kernel import LEASE_S, NFSD
from tests.object_proxy import ALL_FAULTS, LOST, TWICE, Proxy, one_in
from tests.soak.network import Network
from tests.soak.troubles import FULL, Troubles
from tests.tools import present, program

FAULT_IN = 150
"""One request in so many to an object store has a fault."""
FREE_BYTES = 64 << 10
"""What a full disk has left at most, now and then."""

Suffering = Callable[[], str]


class Place:
    """`delay`, seconds, is the collection's."""

    delay = 6.0
    servers = 2
    apart = True
    """Whether servers are to be cut off from clients."""
    wrong_clocks = False
    """Whether hosts' clocks jump. Then they share the directories by a network: those of its own a host stamps by its
    own clock."""
    unlikely: tuple[str, ...] = ()
    """What takes so long that it is not waited for."""
    tolerated: frozenset[str] = frozenset()
    """Errors that a job may tell of while others are killed and frozen, and ask to be run again."""
    environ: Mapping[str, str] = WITHOUT_JOBS
    config = ""
    """What the servers and all jobs have as their configuration file."""

    def __init__(self) -> None:
        self.troubles = Troubles()

    def address(self, number: int) -> str:
        """What `--root` gets: of a server, or of a job, which has any number."""
        raise NotImplementedError

    def join(self, network: Network) -> None:
        """The servers are in there."""

    def sufferings(self) -> Sequence[Suffering]:
        """What can befall the storage itself. Each says what it did."""
        return ()

    def recover(self) -> None:
        """The storage is as it should be again."""

    def directories(self) -> list[Path]:
        """Where layouts lie, if they can be looked at as files."""
        return []

    def files(self, encoded: str) -> list[Path]:
        """Those with this content."""
        return named(self.directories(), encoded)


class Directory(Place):
    """On a file system of its own that may be filled, where there can be one: of one machine, or shared by several."""

    def __init__(self, home: Path, *, disk: Path | None = None) -> None:
        super().__init__()
        self.root, self._disk = (disk or home) / "root", disk
        self.wrong_clocks = random.random() < 0.5
        self.root.mkdir()

    def address(self, number: int) -> str:
        return str(self.root)

    def directories(self) -> list[Path]:
        return [self.root]

    def sufferings(self) -> Sequence[Suffering]:
        return (self._fill,) if self._disk else ()

    def _fill(self) -> str:
        """There is no room for a while."""
        assert self._disk is not None
        filler, seconds = self._disk / "filler", random.uniform(0.5, 3)
        with self.troubles.during(FULL):
            try:
                with filler.open("wb") as file:
                    size = 0
                    for step in (64 << 20, 1 << 20, random.choice((FREE_BYTES, 4096))):
                        with suppress(OSError):
                            while True:
                                os.posix_fallocate(file.fileno(), size, step)
                                size += step
                time.sleep(seconds)
            finally:
                filler.unlink()
        return f"disk was full for {seconds:.1f} s"


class Directories(Place):
    """Three roots, each with some of the repositories; layers are mounted across."""

    wrong_clocks = True

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._roots = {prefix: home / f"root-{number}" for number, prefix in enumerate(("", "two", "imported"))}
        for root in self._roots.values():
            root.mkdir()
        self.config = "".join(
            f'[[storage.routes]]\nprefix = "{prefix}"\nroot = {{ path = "{root}" }}\n'
            for prefix, root in self._roots.items()
            if prefix
        )
        self.environ = {**WITHOUT_JOBS, "ZOTCTL_STORAGE_CREATE": "true"}

    def address(self, number: int) -> str:
        return str(self._roots[""])

    def directories(self) -> list[Path]:
        return list(self._roots.values())


class OnNfs(Place):
    """One store on NFS that each server sees as a host of its own (`tests/nfs/kernel.py`). Hosts lose the NFS server,
    which restarts now and then, for less than the time after which it would take their locks away."""

    delay = 25.0
    apart = False
    unlikely = ("dedupe 0", "gc 0")
    tolerated = frozenset({"NotYetReadable"})  # a commit was cut short, and who holds the lock is frozen

    def __init__(self) -> None:
        super().__init__()
        self._mounts = [Path(mount) for mount in os.environ["NFS_MOUNTS"].split(":")]
        (self._mounts[0] / "root").mkdir()

    def address(self, number: int) -> str:
        return str(self._mounts[number % len(self._mounts)] / "root")

    def directories(self) -> list[Path]:
        return [self._mounts[0] / "root"]

    def sufferings(self) -> Sequence[Suffering]:
        return (self._cut_off, self._cut_off, self._restart)

    def _cut_off(self) -> str:
        host, seconds = random.choice(self._mounts).name, random.choice((0.5, 2, LEASE_S / 3))
        run("ip", "link", "set", host, "down")
        time.sleep(seconds)
        run("ip", "link", "set", host, "up")
        return f"host {host} lost the NFS server for {seconds:.1f} s"

    def _restart(self) -> str:
        run("rpc.nfsd", "0")
        run("rpc.nfsd", *NFSD)
        return "NFS server restarted"


class InBucket(Place):
    """Three servers before an object store that is restarted, throttled, and answers one request in `FAULT_IN` wrongly,
    late, or not at all, or does it twice."""

    delay = 12.0
    servers = 3
    wrong_clocks = True
    unlikely = ("dedupe 0",)
    """It waits a minute for readers of old copies, if nobody kills it."""

    def __init__(self, bucket: buckets.Bucket, *, dedupe: bool, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """`more`: variables of the environment."""
        super().__init__()
        self.bucket = bucket
        self._more = {
            **more,
            "ZOTCTL_STORAGE_DEDUPE": str(dedupe).lower(),
            "ZOTCTL_STORAGE_GC_DELAY": f"{self.delay:.0f}s",
        }
        self._by("127.0.0.1")

    def _by(self, host: str) -> None:
        self.proxy = Proxy(
            self.bucket.server.endpoint, one_in(FAULT_IN, random.randrange(10**6), ALL_FAULTS), host=host
        )
        settings = replace(self.bucket.settings, endpoint=self.proxy.endpoint)
        self.environ = {**WITHOUT_JOBS, **buckets.Bucket(settings, None).environment, **self._more}

    def address(self, number: int) -> str:
        return self.bucket.url

    def join(self, network: Network) -> None:
        self.proxy.close()
        self._by(network.host)
        network.storage_port = self.proxy.port

    def sufferings(self) -> Sequence[Suffering]:
        return (self._restart,)

    def _restart(self) -> str:
        options = random.choice([(), ("--max-requests", "4"), ()])
        self.bucket.server.restart(*options)
        return f"S3 server restarted {' '.join(options)}"

    def recover(self) -> None:
        self.proxy.choose = lambda _: ""
        self.bucket.server.restart()

    @property
    def faults(self) -> int:
        return len(self.proxy.faults)

    @property
    def lost(self) -> int:
        """Of them, requests that were done, and not answered or once more."""
        return sum(fault in (LOST, TWICE) for _, fault in self.proxy.faults)

    def files(self, encoded: str) -> list[Path]:
        return named([self.bucket.path("")], encoded)


class Both(InBucket):
    """A directory, and some of the repositories in a bucket; layers are mounted across."""

    def __init__(self, home: Path, bucket: buckets.Bucket) -> None:
        super().__init__(bucket, dedupe=False, more={"ZOTCTL_STORAGE_CREATE": "true"})
        self._root = home / "root"
        self._root.mkdir()
        self.config = "".join(
            f'[[storage.routes]]\nprefix = "{prefix}"\nroot = {{ path = "{bucket.url}/{prefix}" }}\n'
            for prefix in ("two", "imported")
        )

    def address(self, number: int) -> str:
        return str(self._root)

    def directories(self) -> list[Path]:
        return [self._root]

    def files(self, encoded: str) -> list[Path]:
        return [*Place.files(self, encoded), *super().files(encoded)]


def named(roots: Sequence[Path], name: str) -> list[Path]:
    """The files of this name that have content, while others make and remove names and directories."""
    found = list[Path]()
    for root in roots:
        for directory, _, names in os.walk(root):
            with suppress(FileNotFoundError):
                path = Path(directory, name)
                if name in names and path.stat().st_size:
                    found.append(path)
    return found


@contextmanager
def in_directory(home: Path) -> Iterator[Place]:
    if not all(map(present, ("root", "mkfs.xfs", "/dev/loop-control"))):
        yield Directory(home)
        return
    with mounted("xfs") as disk:
        yield Directory(home, disk=disk)


@contextmanager
def in_directories(home: Path) -> Iterator[Place]:
    yield Directories(home)


@contextmanager
def in_bucket(home: Path, *, dedupe: bool = False, both: bool = False) -> Iterator[Place]:
    server = buckets.Server()
    try:
        bucket = buckets.make_bucket(server)
        place = Both(home, bucket) if both else InBucket(bucket, dedupe=dedupe)
        try:
            yield place
        finally:
            place.proxy.close()
    finally:
        server.close()


@contextmanager
def in_pooled_bucket(home: Path) -> Iterator[Place]:
    with in_bucket(home, dedupe=True) as place:
        yield place


@contextmanager
def in_both(home: Path) -> Iterator[Place]:
    with in_bucket(home, both=True) as place:
        yield place


@contextmanager
def on_nfs(home: Path) -> Iterator[Place]:
    yield OnNfs()


def run(*words: str) -> None:
    subprocess.run([program(words[0]), *words[1:]], check=True, capture_output=True)


PLACES = {
    "directory": in_directory,
    "directories": in_directories,
    "bucket": in_bucket,
    "pool": in_pooled_bucket,
}
"""What a soak may be asked for by name, beside `nfs`, which is `INSIDE` in a kernel of its own."""
MORE = {"both": in_both}
"""And for these, which an ordinary test run has no time for."""
INSIDE = {"inside": on_nfs}
