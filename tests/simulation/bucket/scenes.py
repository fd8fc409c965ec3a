"""Who meets whom on a bucket. Names begin with "bucket", so that a seed is told apart from one of directories."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.simulation import actors as a
from tests.simulation.bucket import actors as b
from tests.simulation.bucket.actors import Script
from tests.simulation.content import M0, M1, M2, M3, M4, M5, M6, R1, X1, X2

Cast = list[tuple[str, Script]]


def _push_gc(rng: Random) -> Cast:
    image, push = rng.choice([M1, M2, M6, M3]), rng.choice([a.pusher, a.promised])
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
        ("p2", lambda client: [a.untagger("a", "u")(client), a.tagger("a", M0, "u")(client)]),  # type: ignore[list-item]
        ("p3", a.untagger("a", "u")),
        ("push", a.promised("a", M1, "new")),
        ("gc", b.collectors(2)),
    ][: rng.choice([3, 4, 5])]


def _delete_blob(rng: Random) -> Cast:
    digest = rng.choice([*M1.blobs, *M2.blobs])
    image = M1 if digest in M1.blobs else M2
    others = [
        ("head", a.looker("a", digest, digest)), ("put", a.tagger("a", image, "new")), ("up", a.uploader("a", digest)),
        ("push", b.patient(a.pusher("a", image, "new"))), ("ask", a.promised("a", image, "w")),
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
    """Promises that are made good late, and collectors all the while."""
    image = rng.choice([M1, M2, M6])
    return [
        ("ask", a.promised("a", image, "new", slow=rng.choice([0.3, 0.9]))),
        ("gc", b.collectors(3, rng.choice([0.2, 0.45]))),
        (
            "head",
            lambda client: [a.looker("a", *image.blobs)(client), client.sleep(20), a.looker("a", *image.blobs)(client)],
        ),  # type: ignore[list-item]
    ][: rng.choice([2, 3])]


def _pull(rng: Random) -> Cast:
    """Somebody is in the middle of a pull while the tag is taken away."""
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


def _crowd(rng: Random) -> Cast:
    repo = rng.choice("aab")
    image = rng.choice([M1, M2, M3, M5, M6])
    everybody = [
        ("push", b.patient(a.pusher(repo, image, "u", slow=rng.choice([0, 0.5])))),
        ("push2", a.pusher("a", rng.choice([M1, M2, M6]), "u")),
        ("ask", a.promised("a", rng.choice([M1, M2, M6]), "w", slow=rng.choice([0, 0.7]))),
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


SCENES: dict[str, Callable[[Random], Cast]] = {
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
    "bucket crowd": _crowd,
}
