"""The buckets in which a schedule begins: made once by the real code, then copied for each schedule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from tests.doubles.objects import MemoryObjects
from tests.simulation.actors import Direct
from tests.simulation.bucket.machine import Fault, Machine, Process
from tests.simulation.bucket.model import DELAY, Model
from tests.simulation.content import BODIES, M0, M1, M2, M4, Image, image
from tests.simulation.scheduler import SECOND
from tests.stores import probed
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import Store, keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.probe import PROBE_KEPT_S
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.uploads.buffer import MemoryBudget
from zotctl.storage.root import Root

START = 1_700_000_000 * SECOND
M7 = image("m7", "c0", "l0", "l0")
"""What lies of it in `a` may be collected at once, and all that it needs is needed by others."""
PART = 64
"""Bytes: no blob here is so long."""


def open_store(process: Process, *, dedupe: bool, part: int = PART) -> Store:
    """What a process makes when it starts; that itself is no step."""
    objects = Retrying(process.objects, process.clock)  # type: ignore[arg-type]
    machine = process.machine
    context = BucketContext(objects, process.clock, dedupe, machine.delay, pooled=dedupe)
    if machine.one_host:
        context.deletions, context.lost, context.marked = machine.deletions, machine.lost, machine.marked
    root = Root(BucketProtocol(context, MemoryBudget(1 << 20, part=part)), read_only=False)
    root.committer = Direct(root.protocol)  # type: ignore[assignment]
    return Store([root], process.clock)


class Maker:
    """Pushes what is there at the beginning, at its time."""

    def __init__(self, *, dedupe: bool) -> None:
        memory = MemoryObjects(smallest_part=1)
        self.machine = Machine(memory, START - int(20 * DELAY) * SECOND, dice=Random(0), faults=(), delay=DELAY)
        probed(memory)
        self.dedupe = dedupe

    def store(self) -> Store:
        return open_store(Process(self.machine, "setup"), dedupe=self.dedupe)

    def at(self, delays: float) -> None:
        """So many delays before or after the start."""
        self.machine.now = START + int(delays * DELAY * SECOND)

    def blobs(self, name: str, digests: Iterable[str]) -> None:
        repository = self.store().repository_for_push(name)
        for digest in digests:
            with repository.resume_upload(repository.start_upload()) as upload:
                upload.write([BODIES[digest]])
                upload.finish(parse_digest(digest))

    def image(self, name: str, image: Image, *tags: str) -> None:
        self.blobs(name, image.blobs)
        self.store().repository_for_push(name).put_manifest(image.manifest, image.body, tags)

    def collect(self) -> None:
        """A run that notes since when unreachable content has been seen to be unreachable."""
        collect(self.store(), DELAY)


def collect(store: Store, delay: float) -> Run:
    run, options = Run("gc", store), GcOptions(delay=delay, rules=Rules(delay=delay))
    run.finish(lambda: gc(run, lambda root: options))
    return run


def _made(mode: str) -> Maker:
    """Two repositories that share m0; in `a` unreachable blobs: those of m1 may be collected at once, those of m2
    after a third of a delay."""
    maker = Maker(dedupe=mode == "pool")
    maker.image("a", M0, "t")
    maker.image("b", M0, "t")
    maker.image("a", M4)
    maker.image("a", M7)
    maker.at(-3)
    maker.blobs("a", M1.blobs)
    maker.at(-1.9)
    maker.blobs("a", M2.blobs)
    maker.at(-1.3)
    maker.collect()
    maker.at(-0.7)
    maker.collect()
    return maker


_WORLDS = {mode: _made(mode) for mode in ("own", "pool")}
"""Made before any test switches a safeguard off, which would make another world."""


def new_world(mode: str, dice: Random, faults: Sequence[Fault], *, one_host: bool) -> Machine:
    """A copy of its own of a world, with a model that knows all that is there."""
    made = _WORLDS[mode]
    memory = MemoryObjects(smallest_part=1)
    memory.stored = dict(made.machine.memory.stored)
    machine = Machine(memory, START, dice=dice, faults=faults, delay=DELAY, one_host=one_host)
    machine.tokens = made.machine.tokens
    probed(memory)  # a store that was collected before has it
    known = memory.stored[keys.CAPABILITIES]
    memory.stored[keys.CAPABILITIES] = known._replace(modified=known.modified - PROBE_KEPT_S // 2)
    machine.model = Model(machine, dedupe=mode == "pool")
    return machine
