"""Which actors meet. A scenario is a world and a choice of actors; a seed picks the scenario and the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulation import actors as a
from tests.simulation.content import F1, F2, M0, M1, M2, M3, M4, M5, M6, R1, X1, X2
from tests.simulation.local import actors as d
from tests.simulation.scheduler import Script

Cast = list[tuple[str, Script]]


@dataclass(frozen=True)
class Scenario:
    world: str
    cast: Callable[[Random], Cast]
    crashes: bool = True
    """May a process die in it?"""
    to_the_end: bool = False
    """Each schedule of it, until all is collected that can be."""


def _gc(rng: Random) -> Script:
    return rng.choice([d.collector(), d.collector(), d.purger()])


def _push_gc(rng: Random) -> Cast:
    image = rng.choice([M1, M2, M6, M3])
    return [
        ("push", rng.choice([a.pusher, a.reserved])("a", image, "new", slow=rng.choice([0, 0, 0.6]))),
        ("gc", _gc(rng)),
    ]


def _push_two_gcs(rng: Random) -> Cast:
    return [*_push_gc(rng), ("gc2", d.collector("gc2"))]


def _upload_head_gc(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    return [("up", a.uploader("a", digest)), ("head", a.looker("a", digest)), ("gc", _gc(rng))]


def _push_untag_gc(rng: Random) -> Cast:
    image = rng.choice([M0, M3])
    return [
        ("push", a.pusher("a", image, "u")),
        ("del", a.untagger("a", "t")),
        ("gc", d.collector()),
        ("read", a.reader("a", "t", "u")),
    ]


def _mount_gc(rng: Random) -> Cast:
    source, to = rng.choice([("a", "b"), ("a", "n"), ("b", "n/x")])
    image = M0 if source == "b" else rng.choice([M1, M2, M0])
    return [
        ("mount", a.mounter(source, to, image, "u")),
        ("del", a.untagger(source, "t")),
        ("gc", d.collector()),
        ("gc2", d.collector("gc2")),
    ]


def _dedup_gc(rng: Random) -> Cast:
    return [
        ("up", a.pusher(rng.choice("bn"), rng.choice([M1, M2]), "u", head=False)),
        ("del", a.manifest_deleter("a", M0)),
        ("gc", d.collector()),
    ]


def _tags(rng: Random) -> Cast:
    return [
        ("p1", a.tagger("a", M0, "u", "v")),
        ("p2", a.pusher("a", rng.choice([M3, M5]), "v", "w", head=False)),
        ("del", a.untagger("a", rng.choice("tuv"))),
        ("read", a.reader("a", "t", "v", "w")),
    ][: rng.choice([2, 3, 4])]


def _delete_blob(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    image = M1 if digest in M1.blobs else M2
    others = [
        ("head", a.looker("a", digest, digest)),
        ("put", a.tagger("a", image, "new")),
        ("up", a.uploader("a", digest)),
        ("push", a.pusher("a", image, "new")),
        ("gc", _gc(rng)),
        ("mount", a.mounter("a", "b", image, "new")),
    ]
    return [("del", a.blob_deleter("a", digest)), *rng.sample(others, rng.choice([1, 2, 2]))]


def _regret(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    return [("del", a.regretter("a", digest)), ("head", a.looker("a", digest)), ("gc", _gc(rng))][
        : rng.choice([1, 2, 3])
    ]


def _delete_manifest(rng: Random) -> Cast:
    push = rng.choice(
        [a.pusher("a", M0, "v"), a.index_pusher("a", X1, "x"), a.pusher("a", R1, "r"), a.tagger("a", M0, "z")]
    )
    return [
        ("push", push), ("del", a.manifest_deleter("a", rng.choice([M0, M4]))), ("gc", d.collector()),
        ("read", a.reader("a", "t", "v")), ("undel", d.restorer(str(rng.choice([M0, M4]).digest))),
    ][: rng.choice([2, 3, 4, 5])]  # fmt: skip


def _index_gc(rng: Random) -> Cast:
    index = rng.choice([X1, X1, X2])
    return [
        ("index", a.index_pusher("a", index, "x")),
        ("gc", d.collector()),
        ("read", a.reader("a", "x")),
        ("ref", a.pusher("a", R1)),
    ][: rng.choice([2, 3, 4])]


def _untagged(rng: Random) -> Cast:
    return [
        ("put", a.tagger("a", M4, "again")),
        ("gc", d.collector()),
        ("push", a.pusher("a", M4)),
        ("un", a.untagger("a", "again")),
    ][: rng.choice([2, 3, 4])]


def _dedupe(rng: Random) -> Cast:
    digest = rng.choice(M1.blobs)
    others = [
        ("del", a.blob_deleter("c", digest)),
        ("head", a.looker("c", digest)),
        ("push", a.pusher("c", M1, "u")),
        ("gc", d.collector()),
        ("scrub", d.scrubber()),
        ("undo", d.undoer()),
        ("untag", a.untagger("c", "t")),
    ]
    return [("dedupe", d.deduper()), *rng.sample(others, rng.choice([1, 2, 2]))]


def _dedupe_delete(rng: Random) -> Cast:
    return [("dedupe", d.deduper()), ("del", a.blob_deleter("c", *M1.blobs))]


def _bad_pool(rng: Random) -> Cast:
    others = [
        ("scrub", d.scrubber(repair=rng.random() < 0.7)), ("gc", d.collector()), ("dedupe", d.deduper()),
        ("read", a.reader("b", "t")), ("push2", a.pusher("b", M0, "u", head=False)),
    ]  # fmt: skip
    repo, image = rng.choice(["a", "b", "n"]), rng.choice([M1, M0])
    return [("push", a.pusher(repo, image, "u", head=False)), *rng.sample(others, rng.choice([1, 1, 2]))]


def _scrub(rng: Random) -> Cast:
    others = [
        ("scrub2", d.scrubber(repair=False)), ("push", a.pusher("b", M0, "u", head=False)), ("del", a.untagger("b", "t")),
        ("drop", a.manifest_deleter("a", M0)), ("gc", d.collector()), ("blob", a.blob_deleter("a", *M1.blobs)),
    ]  # fmt: skip
    return [("scrub", d.scrubber()), *rng.sample(others, rng.choice([1, 2]))]


def _foreign(rng: Random) -> Cast:
    tool = d.foreign_tool("a", rng.choice([F1, F2]), rng.choice(["f", "f", "t"]))
    others = [
        ("push", a.pusher("a", rng.choice([M0, M1, M5]), "u", head=False)), ("tag", a.tagger("a", M0, "u", "v")),
        ("untag", a.untagger("a", "t")), ("gc", d.collector()), ("read", a.reader("a", "t", "f")), ("purge", d.purger()),
    ]  # fmt: skip
    return [("skopeo", tool), *rng.sample(others, rng.choice([1, 2, 3]))]


def _foreign_gc(rng: Random) -> Cast:
    return [
        ("skopeo", d.foreign_tool("a", rng.choice([F1, F2]), "f")),
        ("gc", d.collector()),
        ("gc2", d.collector("gc2")),
    ]


def _foreign_commit(rng: Random) -> Cast:
    return [("skopeo", d.foreign_tool("a", F1, rng.choice(["f", "t"]))), ("tag", a.tagger("a", M0, "u", "v", "w"))]


def _foreign_purge(rng: Random) -> Cast:
    return [
        ("skopeo", d.foreign_tool("a", F1, "f", slow=rng.choice([0, 0.3, 0.8]))),
        ("gc", a.later(rng.choice([0, 0.01]), d.collector())),
        ("purge", a.later(rng.choice([1.005, 1.2]), rng.choice([d.purger(), d.collector("gc2")]))),
    ]


def _wait(rng: Random) -> Cast:
    """Reservations that are made good late, and collectors all the while."""
    image = rng.choice([M1, M2, M6])
    return [
        ("ask", a.reserved("a", image, "new", slow=rng.choice([0.3, 0.9]))),
        ("gc", d.collector()),
        ("gc2", a.later(rng.choice([0.1, 0.5]), d.collector("gc2"))),
        ("purge", a.later(rng.choice([0.2, 0.8, 0.95]), d.purger())),
    ]


def _scrub_delete(rng: Random) -> Cast:
    return [("scrub", d.scrubber()), ("blob", a.blob_deleter("a", M1.blobs[1]))]


def _crowd(rng: Random) -> Cast:
    repo = rng.choice("aab")
    image = rng.choice([M1, M2, M3, M5, M6])
    everybody = [
        ("push", a.pusher(repo, image, "u", slow=rng.choice([0, 0.5]))),
        ("push2", a.pusher("a", rng.choice([M1, M2, M6]), "u")),
        ("ask", a.reserved("a", rng.choice([M1, M2, M6]), "w", slow=rng.choice([0, 0.7]))),
        ("index", a.index_pusher("a", rng.choice([X1, X2]), "x")),
        ("mount", a.mounter("a", "b", rng.choice([M1, M2]), "y")),
        ("tag", a.tagger("a", M0, "t2", "u")),
        ("read", a.reader("a", "t", "u", "x")),
        ("untag", a.untagger("a", rng.choice("tux"))),
        ("blob", a.blob_deleter("a", rng.choice([*M1.blobs, *M2.blobs]))),
        ("drop", a.manifest_deleter("a", rng.choice([M0, M4, image]))),
        ("dedupe", d.deduper()),
        ("scrub", d.scrubber()),
        ("purge", d.purger()),
        ("undel", d.restorer(rng.choice([*M2.blobs, str(M4.digest)]))),
        ("ref", a.pusher("a", R1, "r")),
    ]
    return [("gc", d.collector()), *rng.sample(everybody, rng.choice([2, 3, 4]))]


SCENARIOS: dict[str, Scenario] = {
    "push gc": Scenario("old", _push_gc),
    "push gc gc": Scenario("old", _push_two_gcs),
    "upload head gc": Scenario("old", _upload_head_gc),
    "push untag gc": Scenario("old", _push_untag_gc),
    "mount gc": Scenario("old", _mount_gc),
    "dedup gc": Scenario("old", _dedup_gc),
    "tags": Scenario("old", _tags),
    "delete blob": Scenario("old", _delete_blob),
    "regret": Scenario("old", _regret),
    "delete manifest": Scenario("old", _delete_manifest),
    "index gc": Scenario("old", _index_gc),
    "untagged": Scenario("old", _untagged),
    "dedupe": Scenario("twice", _dedupe),
    "dedupe delete": Scenario("twice", _dedupe_delete),
    "bad pool": Scenario("rot", _bad_pool),
    "scrub": Scenario("rot", _scrub),
    "foreign": Scenario("old", _foreign),
    "foreign gc": Scenario("old", _foreign_gc),
    "foreign commit": Scenario("old", _foreign_commit),
    "foreign purge": Scenario("old", _foreign_purge),
    "wait": Scenario("old", _wait),
    "scrub delete": Scenario("rot", _scrub_delete),
    "crowd": Scenario("old", _crowd),
    "crowd twice": Scenario("twice", _crowd),
}


def _foreign_rename(rng: Random) -> Cast:
    tool = d.renaming_tool("a", rng.choice([F1, F2]), rng.choice(["f", "f", "t"]))
    others = [
        ("push", a.pusher("a", rng.choice([M0, M1, M5]), "u", head=False)), ("tag", a.tagger("a", M0, "u", "v")),
        ("untag", a.untagger("a", "u")), ("gc", d.collector()), ("read", a.reader("a", "t", "f")),
        ("umoci2", d.renaming_tool("a", F1, "g")),
    ]  # fmt: skip
    return [("umoci", tool), *rng.sample(others, rng.choice([1, 2, 3]))]


def _foreign_rename_commit(rng: Random) -> Cast:
    return [("umoci", d.renaming_tool("a", F1, rng.choice("ft"))), ("tag", a.tagger("a", M0, "u", "v", "w"))]


def _foreign_rename_crash(rng: Random) -> Cast:
    """It dies with the other program's index.json in its hands."""
    dies = d.dying(rng.randrange(53, 60), a.tagger("a", M0, "u"))
    return [("umoci", d.renaming_tool("a", F1, "f")), ("tag", dies)]


def _pool_sweep(rng: Random) -> Cast:
    """A push finds a copy in the pool that no repository has; gc takes that away, and dedupe puts another there."""
    others = [
        ("gc", d.collector()), ("dedupe", d.deduper()), ("push2", a.pusher("b", M2, "u", head=False)),
        ("scrub", d.scrubber()), ("gc2", a.later(rng.choice([0, 0.01]), d.collector("gc2"))),
    ]  # fmt: skip
    push = a.pusher(rng.choice(["a", "n", "d"]), M2, "u", head=False)
    return [("push", push), *others[: rng.choice([2, 2, 3, 5])]]


def _pool_swap(rng: Random) -> Cast:
    upload = a.uploader(rng.choice("an"), M2.blobs[1])
    return [("push", upload), ("sweep", d.sweeper()), ("dedupe", d.deduper())]


def _rotten_copy(rng: Random) -> Cast:
    image = rng.choice([M1, M2, M5])
    others = [
        ("push", a.pusher("c", image, "u", head=False)), ("push2", a.pusher(rng.choice("an"), image, "w", head=False)),
        ("gc", d.collector()), ("scrub", d.scrubber(repair=rng.random() < 0.7)), ("read", a.reader("c", "t", "v")),
        ("untag", a.untagger("c", "v")), ("blob", a.blob_deleter("c", M1.blobs[1])), ("undo", d.undoer()),
    ]  # fmt: skip
    return [("dedupe", d.deduper()), *rng.sample(others, rng.choice([1, 2, 3]))]


def _replaced(rng: Random) -> Cast:
    """Files that are removed and written anew, with the same number and the same time stamp."""
    digest = rng.choice([M1.blobs[1], M5.blobs[1]])
    others = [
        ("scrub", d.scrubber(repair=rng.random() < 0.3)), ("dedupe", d.deduper()), ("read", a.reader("c", "v")),
        ("push", a.pusher("c", rng.choice([M1, M5]), "u", head=False)),
    ]  # fmt: skip
    return [("rsync", d.replacer("c", digest)), *others[: rng.choice([1, 2, 2, 3, 4])]]


def _compaction(rng: Random) -> Cast:
    """`m0` loses a tag to `m3`, of which only later pushes need to be remembered."""
    moves = a.in_turn(a.tagger("a", M3, "t", "w"), a.untagger("a", "t"))
    others = [
        ("pull", d.pull_noter("a", M0)), ("push", a.tagger("a", M3, "u")), ("push2", a.tagger("a", M0, "v")),
        ("untag", a.untagger("a", "t")), ("compact2", d.compacter("a")), ("gc", d.collector()),
        ("move", a.in_turn(moves, d.compacter("a"))),
    ]  # fmt: skip
    return [("compact", d.compacter("a")), *rng.sample(others, rng.choice([1, 2, 3]))]


def _linked(rng: Random) -> Cast:
    """A repository that is a link out of the store is read, and nothing else."""
    image = rng.choice([M0, M1, M2])
    others = [
        ("push", a.pusher("l", image, "u")), ("read", a.reader("l", "t")), ("undel", d.restorer(rng.choice(M2.blobs))),
        ("mount", a.mounter("l", rng.choice("bn"), image, "u")), ("heal", a.uploader("a", M0.blobs[1], M1.blobs[1])),
        ("gc", d.collector()), ("purge", d.purger()), ("dedupe", d.deduper()), ("undo", d.undoer()),
        ("scrub", d.scrubber()), ("blob", a.blob_deleter("l", *M1.blobs)),
    ]  # fmt: skip
    return [("look", a.looker("l", *M2.blobs)), *rng.sample(others, rng.choice([1, 2, 3]))]


def _clocks(rng: Random) -> Cast:
    """The host's clock is set while others push and collect: back by any time, and ahead by more than a day, which a
    collector doubts."""
    image = rng.choice([M1, M2, M6])
    steps = [rng.choice([-1e6, -3600.0, -150.0, -50.0, 1e5, 1e6, 1e8]) for _ in range(rng.choice([1, 1, 2, 3]))]
    others = [
        ("gc", d.collector(doubts=True)),
        ("gc2", a.later(rng.choice([0, 0.01, 0.5]), d.collector("gc2", doubts=True))),
        ("ask", a.reserved("a", image, "w", slow=rng.choice([0, 0.7]))), ("read", a.reader("a", "t")),
        ("blob", a.blob_deleter("a", *M1.blobs)), ("untag", a.untagger("a", "t")),
    ]  # fmt: skip
    push = a.pusher("a", image, "u", slow=rng.choice([0, 0.3, 0.9]))
    return [("ntp", d.clock_setter(*steps)), ("push", push), *others[: rng.choice([1, 2, 2, 3, 5, 6])]]


LATER: dict[str, Scenario] = {
    "foreign rename": Scenario("old", _foreign_rename),
    "foreign rename commit": Scenario("old", _foreign_rename_commit),
    "foreign rename crash": Scenario("old", _foreign_rename_crash, to_the_end=True),
    "pool sweep": Scenario("rotten copy", _pool_sweep),
    "pool swap": Scenario("rotten copy", _pool_swap),
    "rotten copy": Scenario("rotten copy", _rotten_copy),
    "linked": Scenario("linked", _linked),
    "clocks": Scenario("noted clock", _clocks),
    "compaction": Scenario("long history", _compaction, crashes=False),
    "replaced": Scenario("rotten copy", _replaced),
}
"""A list of their own, so that what the seeds mean that were recorded before stays; a quarter of all seeds play them."""
ALL = SCENARIOS | LATER
