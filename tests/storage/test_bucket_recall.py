"""What is remembered of manifests saves requests, and decides nothing that is not so (I5)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests import images
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.jobs.test_gc import Hand
from tests.stores import bucket_store, probed, push_image, push_index
from zotctl.errors import Referenced
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket import facts as kept_facts
from zotctl.storage.bucket.facts import MIN_MANIFESTS, NEWS_SHARE, read_back, write_down
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.references import NONE

DELAY = 100.0
TAGS = 2 * MIN_MANIFESTS
NOBODY = str(digest_of(b"nobody"))
FACTS = keys.facts("a")


class World:
    """A repository with tags, an index of two of them, and a referrer."""

    def __init__(self, tags: int = TAGS) -> None:
        self.clock = Hand()
        self.memory = MemoryObjects(self.clock.now)
        self.objects = Counted(self.memory)
        probed(self.memory)
        store = self.another()
        self.digests = [push_image(store, "a", f"v{at}", seed=str(at), layers=1) for at in range(tags)]
        if tags:
            self.digests.append(push_index(store, "a", "all", children=self.digests[:2]))
            self.digests.append(push_image(store, "a", seed="about", layers=1, subject=self.digests[0]))
        self.objects.taken()

    def another(self) -> Store:
        """As another process opens it."""
        store = bucket_store(self.objects, self.clock, delay=DELAY)
        bucket_of(store.roots[0]).context.pooled = False
        return store

    def read(self, store: Store | None = None) -> list[str]:
        """The manifests that a process reads for a list of referrers."""
        self.objects.taken()
        store, opened = store or self.another(), list[str]()
        self.objects.before = lambda method, args: opened.append(args[0]) if method == "open" else None
        assert store.repository("a").referrers(NOBODY) == []
        self.objects.before = None
        return sorted(key for key in opened if "/blobs/" in key)

    def keys(self, *digests: Digest) -> list[str]:
        return sorted(keys.blob("a", digest) for digest in digests)

    def collect(self, store: Store | None = None, **options: Any) -> Report:
        self.clock.at += 1.5 * DELAY
        run = Run("gc", store or self.another(), **options)
        return run.finish(lambda: gc(run, lambda _: GcOptions(delay=DELAY)))


def test_the_next_process_reads_no_manifest_again() -> None:
    world = World()
    assert world.read() == world.keys(*world.digests)
    assert world.read() == []
    assert len(world.objects.taken()) <= 4
    one, two = world.another(), world.another()
    bucket_of(two.roots[0]).recall = lambda name, manifests: None  # type: ignore[method-assign]
    graphs = []
    for store in (one, two):
        with store.roots[0].graphs.of("a").at(store.repository("a").index()) as graph:
            graphs.append((graph.facts, graph.leaves, graph.faults, graph.absent, graph.reachable()))
    assert graphs[0] == graphs[1]
    subject = str(world.digests[0])
    assert one.repository("a").referrers(subject) == two.repository("a").referrers(subject) != []


def test_a_collection_with_nothing_to_do_reads_no_manifest_again() -> None:
    world = World()
    assert world.collect().exit_code == 0
    world.objects.taken()
    opened: list[str] = []
    world.objects.before = lambda method, args: opened.append(args[0]) if method == "open" else None
    assert world.collect().exit_code == 0
    assert opened == [FACTS]


def test_what_is_new_is_read_and_after_a_while_written_down() -> None:
    world = World()
    world.read()
    before, store, new = world.memory.stored[FACTS], world.another(), list[Digest]()
    while world.memory.stored[FACTS] == before:
        assert len(new) <= len(world.digests) // NEWS_SHARE
        new.append(push_image(store, "a", f"new{len(new)}", seed=f"new{len(new)}", layers=1))
        assert world.read() == world.keys(*new)
    assert len(new) > 1
    assert world.read() == []


@pytest.mark.parametrize("what", ["missing", "cut", "damaged", "rotten", "marked"])
def test_i5_a_manifest_that_is_not_as_it_was_is_noticed(what: str) -> None:
    world = World()
    world.read()
    digest, stray = world.digests[5], digest_of(b"stray")
    place = keys.blob("a", digest)
    world.memory.put(keys.blob("a", stray), b"stray")
    whole = world.memory.stored[place]
    if what == "missing":
        world.memory.delete(place)
    elif what == "marked":
        bucket = bucket_of(world.another().roots[0])
        bucket.damaged.mark(digest, bucket.context.objects.head(place))
    elif what == "rotten":  # below its server, which tells of another time and of no other ETag
        world.clock.at += 5
        world.memory.stored[place] = whole._replace(body=whole.body[:-1] + b" ", modified=int(world.clock.at))
    else:
        world.memory.put(place, whole.body[:-3] if what == "cut" else whole.body[:-1] + b" ")
    for _ in range(4):
        report = world.collect()
        assert report.exit_code == 5 and [finding.digest for finding in report.findings] == [digest]
    assert keys.blob("a", stray) in world.memory.stored, "nothing is collected where something is unknown"


def forged(world: World) -> None:
    """As if no manifest referenced anything, with a right checksum."""
    world.read()
    known = read_back("a", world.memory.stored[FACTS].body)
    assert len(known) == len(world.digests)
    lies = {digest: one._replace(facts=one.facts._replace(blobs=NONE, children=NONE)) for digest, one in known.items()}
    world.memory.put(FACTS, write_down("a", lies) or b"")


def test_i5_what_is_only_remembered_is_no_reason_to_collect() -> None:
    """What goes is decided by bytes that were read in this run."""
    world = World()
    forged(world)
    everything = {key for key in world.memory.stored if "/blobs/" in key}
    for _ in range(4):
        world.collect()
    assert everything <= set(world.memory.stored)


def test_c2_what_takes_its_time_is_done_before_the_deletes_are_signed() -> None:
    """They are good for half a minute, and a large repository is read for longer."""
    world = World()
    world.read()
    world.memory.put(keys.blob("a", digest_of(b"stray")), b"stray")
    world.collect()
    steps: list[str] = []

    def note(method: str, args: tuple[Any, ...]) -> None:
        if method == "open" and "/blobs/" in args[0]:
            steps.append("read")
        elif method in ("put", "delete") and str(args[0]).startswith(keys.INTENTS):
            steps.append("intent" if method == "put" else "withdrawn")

    world.objects.before = note
    report = world.collect()
    assert report.summary["purged"] == 1
    assert steps == ["read"] * len(world.digests) + ["intent", "withdrawn"]


def test_i5_a_deletion_by_a_client_goes_by_bytes_too() -> None:
    world = World()
    forged(world)
    store = world.another()
    assert world.read(store) == []
    layer = digest_of(images.image("5", layers=1).blobs[-1])
    with pytest.raises(Referenced):
        store.repository("a").delete_blob(layer)
    store = world.another()
    assert world.read(store) == []
    with pytest.raises(Referenced):
        store.repository("a").delete_manifest(str(world.digests[0]))


NO_JSON = zlib.compress(b"[]")
CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda body: b"",
    "cut": lambda body: body[:-1],
    "flipped": lambda body: body[:-9] + bytes([body[-9] ^ 1]) + body[-8:],
    "longer": lambda body: body + b"x",
    "of another repository": lambda body: write_down("b", read_back("a", body)) or b"",
    "something else": lambda body: b"%s %s\n%s" % (kept_facts.MAGIC, kept_facts._checksum("a", NO_JSON), NO_JSON),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_is_wrong_with_it_costs_time_only(change: str) -> None:
    world = World()
    world.read()
    world.memory.put(FACTS, CHANGES[change](world.memory.stored[FACTS].body))
    assert world.read() == world.keys(*world.digests)
    assert world.read() == [], "and it was written anew"


def test_what_other_code_has_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.read()
    monkeypatch.setattr(kept_facts, "_code_state", lambda: "other")
    assert world.read() == world.keys(*world.digests)
    monkeypatch.setattr(kept_facts, "_code_state", lambda: "")
    for _ in range(2):
        assert world.read() == world.keys(*world.digests)


def test_what_would_be_too_large_is_not_written_or_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(kept_facts, "LARGEST_KEPT_BYTES", 100)
    world.read()
    assert FACTS not in world.memory.stored
    monkeypatch.undo()
    world.read()
    monkeypatch.setattr(kept_facts, "LARGEST_UNPACKED_BYTES", 100)
    assert world.read() == world.keys(*world.digests)


def test_small_repositories_are_read_and_nothing_is_remembered() -> None:
    world = World(tags=0)
    digest = push_image(world.another(), "a", "v1", seed="one")
    for _ in range(2):
        assert world.read() == world.keys(digest)
    assert FACTS not in world.memory.stored


def test_who_only_looks_writes_nothing() -> None:
    world = World()
    store = world.another()
    bucket_of(store.roots[0]).context.read_only = True
    assert world.read(store) == world.keys(*world.digests)
    store = world.another()
    bucket_of(store.roots[0]).context.writes = lambda: False
    world.read(store)
    assert FACTS not in world.memory.stored


def test_it_goes_with_its_repository() -> None:
    world = World()
    world.read()
    for key in [key for key in world.memory.stored if key.startswith("a/")]:
        world.memory.delete(key)
    for _ in range(3):
        world.collect()
    assert FACTS not in world.memory.stored
