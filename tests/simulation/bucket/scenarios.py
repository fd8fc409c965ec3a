"""Which actors meet on a bucket. Names begin with "bucket", so that a seed is told apart from one of directories."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.simulation import actors as a
from tests.simulation.bucket import actors as b
from tests.simulation.bucket.world import M7
from tests.simulation.content import M0, M1, M2, M3, M4, M5, M6, R1, X1, X2
from tests.simulation.scheduler import Script

Cast = list[tuple[str, Script]]


def _push_gc(rng: Random) -> Cast:
    image, push = rng.choice([M1, M2, M6, M3]), rng.choice([a.pusher, a.reserved])
    return [
        ("push", push("a", image, "new", slow=rng.choice([0, 0, 0.3, 0.6]))),
        ("gc", b.collectors(rng.choice([1, 1, 2]))),
    ]


def _push_two_gcs(rng: Random) -> Cast:
    return [*_push_gc(rng), ("gc2", b.collectors(rng.choice([1, 2]), name="gc2"))]


def _upload_head_gc(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    cast = [("up", a.uploader("a", digest)), ("head", a.looker("a", digest, digest)), ("gc", b.collectors(2))]
    return rng.sample(cast, rng.choice([2, 3]))


def _push_untag_gc(rng: Random) -> Cast:
    return [
        ("push", a.pusher("a", rng.choice([M0, M3]), "u")),
        ("del", a.untagger("a", "t")),
        ("gc", b.collectors(3, rng.choice([0.4, 1.05]))),
        ("read", a.reader("a", "t", "u")),
    ]


def _mount_gc(rng: Random) -> Cast:
    source, to = rng.choice([("a", "b"), ("a", "n"), ("b", "n/x")])
    image = M0 if source == "b" else rng.choice([M1, M2, M0])
    return [
        ("mount", a.mounter(source, to, image, "u")),
        ("gc", b.collectors(2)),
        ("del", a.untagger(source, "t")),
        ("gc2", b.collector("gc2")),
    ][: rng.choice([2, 3, 4])]


def _new_repository(rng: Random) -> Cast:
    return [
        ("p1", a.pusher("n", rng.choice([M1, M5]), "u")),
        ("p2", a.pusher("n", rng.choice([M1, M2]), rng.choice("uv"))),
        ("gc", b.collectors(2)),
        ("del", a.untagger("n", "u")),
    ][: rng.choice([2, 3, 4])]


def _tags(rng: Random) -> Cast:
    return [
        ("p1", a.tagger("a", M0, "u", "v")),
        ("p2", a.pusher("a", rng.choice([M3, M5]), "v", "w", head=False)),
        ("del", a.untagger("a", rng.choice("tuv"))),
        ("read", a.reader("a", "t", "v", "w")),
    ][: rng.choice([2, 3, 4])]


def _back_and_forth(rng: Random) -> Cast:
    """The same content of index.json again and again: only generations tell its states apart."""
    return [
        ("p1", a.tagger("a", M0, "u")),
        ("p2", a.in_turn(a.untagger("a", "u"), a.tagger("a", M0, "u"))),
        ("p3", a.untagger("a", "u")),
        ("push", a.reserved("a", M1, "new")),
        ("gc", b.collectors(2)),
    ][: rng.choice([3, 4, 5])]


def _delete_blob(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    image = M1 if digest in M1.blobs else M2
    others = [
        ("head", a.looker("a", digest, digest)), ("put", a.tagger("a", image, "new")), ("up", a.uploader("a", digest)),
        ("push", b.patient(a.pusher("a", image, "new"))), ("ask", a.reserved("a", image, "w")),
        ("gc", b.collectors(2)), ("mount", a.mounter("a", "b", image, "new")),
        ("del2", b.patient(a.blob_deleter("a", digest))),
    ]  # fmt: skip
    return [("del", b.patient(a.blob_deleter("a", digest))), *rng.sample(others, rng.choice([1, 2, 2]))]


def _regret(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    return [("del", a.regretter("a", digest)), ("head", a.looker("a", digest)), ("gc", b.collectors(2))][
        : rng.choice([1, 2, 3])
    ]


def _delete_manifest(rng: Random) -> Cast:
    push = rng.choice(
        [a.pusher("a", M0, "v"), a.index_pusher("a", X1, "x"), a.pusher("a", R1, "r"), a.tagger("a", M0, "z")]
    )
    return [
        ("push", push), ("del", a.manifest_deleter("a", rng.choice([M0, M4]))), ("gc", b.collectors(3)),
        ("read", a.reader("a", "t", "v")),
    ][: rng.choice([2, 3, 4])]  # fmt: skip


def _index_gc(rng: Random) -> Cast:
    return [
        ("index", a.index_pusher("a", rng.choice([X1, X1, X2]), "x")),
        ("gc", b.collectors(3, rng.choice([0.4, 1.05]))),
        ("read", a.reader("a", "x")),
        ("ref", a.pusher("a", R1)),
    ][: rng.choice([2, 3, 4])]


def _wait(rng: Random) -> Cast:
    """Reservations that are made good late, and collectors all the while."""
    image = rng.choice([M1, M2, M6])
    return [
        ("ask", a.reserved("a", image, "new", slow=rng.choice([0.3, 0.9]))),
        ("gc", b.collectors(3, rng.choice([0.2, 0.45]))),
        ("head", a.in_turn(a.looker("a", *image.blobs), a.later(0.2, a.looker("a", *image.blobs)))),
    ][: rng.choice([2, 3])]


def _pull(rng: Random) -> Cast:
    """A client is in the middle of a pull while the tag is taken away."""
    return [
        ("read", a.reader("a", "t", "t")),
        ("del", a.untagger("a", "t")),
        ("gc", b.collectors(4, rng.choice([0.3, 0.55, 1.05]))),
    ]


def _scrub(rng: Random) -> Cast:
    others = [
        ("push", a.pusher("b", M0, "u", head=False)), ("del", a.untagger("b", "t")), ("gc", b.collectors(2)),
        ("blob", a.blob_deleter("a", *M1.blobs)),
    ]  # fmt: skip
    return [("scrub", b.scrubber()), *rng.sample(others, rng.choice([1, 2]))]


def _sleeper(rng: Random) -> Cast:
    """Stopped in the middle of a push, for longer than collectors take to announce what it was reserved."""
    image, push = rng.choice([M1, M2]), rng.choice([a.pusher, a.reserved])
    return [("push", push("a", image, "new")), ("gc", b.collectors(4, 1.05))]


def _stopped_gc(rng: Random) -> Cast:
    """A collector stops before it deletes, and others push when its intent is dead."""
    image, start = rng.choice([M1, M2]), rng.choice([0.01, 0.03, 0.27, 0.3])
    push = rng.choice([a.pusher, a.reserved])("a", image, "new")
    return [
        ("gc", rng.choice([b.collector(), a.blob_deleter("a", *image.blobs)])),
        ("push", a.later(start, push)),
        ("gc2", a.later(start, b.collector("gc2"))),
    ][: rng.choice([2, 3])]


def _clock_back(rng: Random) -> Cast:
    """The object store's clock is put back while something is about to be deleted."""
    image = rng.choice([M1, M2])
    ask = rng.choice([a.reserved("a", image, "new"), a.looker("a", *image.blobs), a.uploader("a", *image.blobs)])
    gc = rng.choice([b.collector(), b.patient(a.blob_deleter("a", *image.blobs))])
    return [
        ("gc", gc),
        ("clock", b.put_back(rng.choice([90.0, 301.0, 3600.0]), turns=rng.randrange(40))),
        ("ask", ask),
    ]


def _remembered(rng: Random) -> Cast:
    """Answered from memory, as late as may be, while collectors see when the reservation was written."""
    image, again = rng.choice([M0, M1]), rng.choice([0.2, 0.24, 0.6])

    def head(client: a.Client) -> None:
        a.looker("a", *image.blobs)(client)
        client.pause(again)
        a.looker("a", *image.blobs)(client)

    cast = [("head", head), ("gc", b.collectors(3, rng.choice([0.51, 1.02])))]
    return [*cast, ("del", a.untagger("a", "t")), ("del b", a.untagger("b", "t"))] if image is M0 else cast


def _manifest_again(rng: Random) -> Cast:
    """A manifest is collected that a client pushes."""
    push = rng.choice([a.pusher, a.reserved])("a", M7, "new")
    return [("push", push), ("gc", b.collector()), ("gc2", b.collector("gc2"))][: rng.choice([2, 3])]


def _slow_head(rng: Random) -> Cast:
    """Stopped between the steps of a reservation, and back when collectors are about to delete."""
    image = rng.choice([M1, M2])
    ask = rng.choice([a.looker("a", *image.blobs), a.reserved("a", image, "new"), a.uploader("a", *image.blobs)])
    return [("head", ask), ("gc", b.collectors(4, 1.05))]


def _late_delete(rng: Random) -> Cast:
    """A delete without an answer, and a client that pushes what it was about."""
    image, start = rng.choice([M1, M2]), rng.choice([0.0, 0.03, 0.06, 0.2, 0.26])
    return [
        ("del", rng.choice([b.collector(), b.patient(a.blob_deleter("a", *image.blobs))])),
        ("push", a.later(start, b.patient(a.pusher("a", image, "new"), tries=12))),
    ]


def _crowd(rng: Random) -> Cast:
    repo = rng.choice("aab")
    image = rng.choice([M1, M2, M3, M5, M6])
    everybody = [
        ("push", b.patient(a.pusher(repo, image, "u", slow=rng.choice([0, 0.5])))),
        ("push2", a.pusher("a", rng.choice([M1, M2, M6]), "u")),
        ("ask", a.reserved("a", rng.choice([M1, M2, M6]), "w", slow=rng.choice([0, 0.7]))),
        ("index", a.index_pusher("a", rng.choice([X1, X2]), "x")),
        ("mount", a.mounter("a", "b", rng.choice([M1, M2]), "y")),
        ("tag", a.tagger("a", M0, "t2", "u")),
        ("read", a.reader("a", "t", "u", "x")),
        ("untag", a.untagger("a", rng.choice("tux"))),
        ("blob", a.blob_deleter("a", rng.choice([*M1.blobs, *M2.blobs]))),
        ("drop", a.manifest_deleter("a", rng.choice([M0, M4, image]))),
        ("gc2", b.collectors(2, name="gc2")),
        ("ref", a.pusher("a", R1, "r")),
    ]
    return [("gc", b.collectors(2)), *rng.sample(everybody, rng.choice([2, 3]))]


SCENARIOS: dict[str, Callable[[Random], Cast]] = {
    "bucket push gc": _push_gc,
    "bucket push gc gc": _push_two_gcs,
    "bucket upload head gc": _upload_head_gc,
    "bucket push untag gc": _push_untag_gc,
    "bucket mount gc": _mount_gc,
    "bucket new": _new_repository,
    "bucket tags": _tags,
    "bucket back and forth": _back_and_forth,
    "bucket delete blob": _delete_blob,
    "bucket regret": _regret,
    "bucket delete manifest": _delete_manifest,
    "bucket index gc": _index_gc,
    "bucket wait": _wait,
    "bucket pull": _pull,
    "bucket scrub": _scrub,
    "bucket sleeper": _sleeper,
    "bucket stopped gc": _stopped_gc,
    "bucket clock back": _clock_back,
    "bucket remembered": _remembered,
    "bucket manifest again": _manifest_again,
    "bucket slow head": _slow_head,
    "bucket late delete": _late_delete,
    "bucket unanswered": _tags,
    "bucket crowd": _crowd,
}

SLEEPY: dict[str, tuple[str, tuple[float, ...]]] = {
    "bucket sleeper": ("put", (2.6, 3.5)),
    "bucket slow head": ("head", (2.1, 2.1002, 2.1004, 2.1006, 2.101)),
    "bucket stopped gc": ("execute", (0.02, 0.05, 0.28, 0.5, 1.1)),
}
"""Scenarios in which the first actor freezes: before which kind of request, for how many delays."""

FAULTY: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "bucket late delete": ("execute", "", ("late", "late", "lost", "never")),
    "bucket unanswered": ("put", "/index.json", ("late", "lost", "never", "never")),
}
"""Scenarios in which requests of a kind go wrong, and how."""
