"""The directories in which a schedule begins: made once by the real code, then copied for each schedule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from tests.doubles.filesystem import MemoryDriver
from tests.simulation.actors import Direct
from tests.simulation.content import BODIES, M0, M1, M2, M4, M5, Image
from tests.simulation.local.machine import DELAY, Machine, Process
from tests.simulation.local.model import Model
from tests.simulation.model import blob_key
from tests.simulation.scheduler import SECOND
from zotctl.jobs.clock_check import note_clock
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.protocol import LocalProtocol, local_of
from zotctl.storage.locks import Locks
from zotctl.storage.root import Root

START = 1_700_000_000 * SECOND


def open_store(process: Process, *, dedupe: bool = True) -> Store:
    """What a process makes when it starts; that itself is no step."""
    driver, clock = process.driver, process.clock
    context = LocalContext(driver, clock, Locks(driver, clock), commit=process.machine.commit, dedupe=dedupe)
    protocol = LocalProtocol(context, min_free=0)
    root = Root(protocol, read_only=False)
    root.committer = Direct(protocol)  # type: ignore[assignment]
    return Store([root], clock)


# -- making ---------------------------------------------------------------------------------------


class Maker:
    """Pushes what is there at the beginning, at its time."""

    def __init__(self) -> None:
        self.machine = Machine(MemoryDriver(), START - int(20 * DELAY) * SECOND, coarse=False)
        process = Process(self.machine, "setup")
        self.store, self.other = open_store(process), open_store(process, dedupe=False)
        self.rotten: list[str] = []
        """Keys of files that are damaged."""
        self.links: set[str] = set()
        """Repositories that are links out of the store, from the start on."""
        context = local_of(self.store.roots[0]).context
        for directory in (keys.UPLOADS, keys.TMP, keys.POOL, keys.LEASES, keys.TRASH, keys.HISTORY):
            context.make_dirs(directory)
        context.driver.append(keys.VERSION).close()
        context.driver.append(keys.LOCK).close()

    def at(self, delays: float) -> None:
        """So many delays before or after the start."""
        self.machine.now = START + int(delays * DELAY * SECOND)

    def blobs(self, name: str, digests: Iterable[str], *, shared: bool = True) -> None:
        repository = (self.store if shared else self.other).repository_for_push(name)
        for digest in digests:
            with repository.resume_upload(repository.start_upload()) as upload:
                upload.write([BODIES[digest]])
                upload.finish(parse_digest(digest))

    def image(self, name: str, image: Image, *tags: str, shared: bool = True) -> None:
        self.blobs(name, image.blobs, shared=shared)
        store = self.store if shared else self.other
        store.repository_for_push(name).put_manifest(image.manifest, image.body, tags)

    def move_to_trash(self, name: str, run: str, digests: Iterable[str]) -> None:
        protocol = local_of(self.store.roots[0])
        with protocol.context.locks.hold(name) as held:
            protocol.trash.add(held, run, [parse_digest(digest) for digest in digests])

    def rot(self, name: str, digest: str) -> None:
        """One bit flips in an inode, whatever names it has; the time stamp stays."""
        self.machine.driver.names[blob_key(name, digest)].data[0] ^= 1
        self.rotten.append(blob_key(name, digest))


def _old(maker: Maker) -> None:
    """Two repositories that share m0; in `a` unreachable blobs, some of them trashed already."""
    maker.image("a", M0, "t")
    maker.image("b", M0, "t")
    maker.image("a", M4)
    maker.blobs("a", (*M1.blobs, *M2.blobs))
    maker.at(-1.3)
    maker.move_to_trash("a", "20000101T000000-r0", M2.blobs[1:])
    maker.at(-0.7)
    maker.move_to_trash("a", "20000102T000000-r1", M2.blobs[:1])


def _twice(maker: Maker) -> None:
    """What `b` has, it has in files of its own, as another tool would have left it."""
    _old(maker)
    maker.at(-15)
    maker.image("b", M0, "t", "u", shared=False)
    maker.image("c", M0, "t", shared=False)
    maker.blobs("c", M1.blobs, shared=False)


def _rot(maker: Maker) -> None:
    """Damage that was not noticed yet, in files that two repositories and the pool share; `c` has good copies."""
    _twice(maker)
    maker.rot("a", M0.blobs[1])
    maker.rot("a", M1.blobs[1])


def _rotten_copy(maker: Maker) -> None:
    """Damage in files that only `c` has, as another tool left them. Of one the pool has a good copy that `a` uses, too,
    of another a good copy that no repository has any more, of the third the pool knows nothing, and `e` has good ones.
    """
    _twice(maker)
    maker.image("c", M5, "v", shared=False)
    maker.image("e", M5, "v", shared=False)
    maker.blobs("d", M2.blobs)
    maker.blobs("c", M2.blobs, shared=False)
    for digest in M2.blobs:
        driver = maker.machine.driver
        for key in [key for key in driver.names if key.endswith(digest[7:])]:
            if not key.startswith((keys.POOL, "c/")):
                driver.unlink(key)
    for digest in (M1.blobs[1], M2.blobs[1], M5.blobs[1]):
        maker.rot("c", digest)


def _linked(maker: Maker) -> None:
    """`l` was moved away, and a link is in its place: what was trashed there still lies in the trash, and it shares a
    damaged file with `a`, as a copy by hard links does."""
    _rot(maker)
    maker.at(-15)
    maker.image("l", M0, "t")
    maker.blobs("l", (*M1.blobs, *M2.blobs))
    maker.at(-0.7)
    maker.move_to_trash("l", "20000102T000000-r1", M2.blobs)
    maker.links.add("l")


def _noted_clock(maker: Maker) -> None:
    """A collector has seen what the clock says."""
    _old(maker)
    maker.at(-0.1)
    note_clock(maker.store.roots[0], maker.store.clock)


def _long_history(maker: Maker) -> None:
    """Of `a`: most of it is about what is gone."""
    _old(maker)
    maker.at(-2)
    history, gone = maker.store.roots[0].protocol.history, M5.digest
    for _ in range(40):
        history.note("a", "push", gone, {"gone": None})


MADE: dict[str, Callable[[Maker], None]] = {
    "old": _old,
    "twice": _twice,
    "rot": _rot,
    "rotten copy": _rotten_copy,
    "linked": _linked,
    "long history": _long_history,
    "noted clock": _noted_clock,
}


def _made(kind: str) -> Maker:
    maker = Maker()
    MADE[kind](maker)
    return maker


_WORLDS = {kind: _made(kind) for kind in MADE}
"""Made before any test switches a safeguard off, which would make another world."""


# -- copying --------------------------------------------------------------------------------------


def new_world(kind: str, *, coarse: bool, commit: bool = False) -> Machine:
    """A copy of its own of a world, with a model that knows all that is there."""
    made = _WORLDS[kind]
    machine = Machine(_copy(made.machine.driver), START, coarse=coarse)
    machine.commit, machine.links = commit, frozenset(made.links)
    machine.tokens = made.machine.tokens
    machine.model = Model(machine, [machine.driver.names[key] for key in made.rotten])
    return machine


def _copy(driver: MemoryDriver) -> MemoryDriver:
    twin = copy.copy(driver)
    twins: dict[int, Any] = {}
    for inode in driver.names.values():
        if id(inode) not in twins:
            twins[id(inode)] = one = copy.copy(inode)
            one.data, one.locks = bytearray(inode.data), {}
    twin.names = {key: twins[id(inode)] for key, inode in driver.names.items()}
    for one in twins.values():
        if one.names:
            one.names = {name: twins[id(inode)] for name, inode in one.names.items()}
        elif one.is_dir:
            one.names = {}
    twin._free = list(driver._free)
    return twin
