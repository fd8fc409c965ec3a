"""The manifest graph by itself: what it reads, what it makes of claims, and what it looks at again."""

from __future__ import annotations

import itertools
import json

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.images import CONFIG, LAYER, descriptor
from zotctl.errors import Damaged, ManifestInvalid, NotFound, Unavailable
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import ARTIFACT, BUILDKIT_CACHE, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from zotctl.storage.facts import LARGEST_MANIFEST_BYTES, SMALL_CONTENT_BYTES, Content, read_content
from zotctl.storage.graph import Earlier, ManifestGraph, reach
from zotctl.storage.references import Reference

UNKNOWN = "application/vnd.thing+json"


class Shelf:
    """Bodies by digest, with a note of what was read."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = {digest_of(body): body for body in bodies}
        self.errors: dict[str, Exception] = {}
        self.read: list[str] = []

    def __call__(self, digest: Digest, whole: bool) -> Content:
        self.read.append(digest)
        if digest in self.errors:
            raise self.errors[digest]
        if digest not in self.bodies:
            raise NotFound(digest)
        return Content(len(self.bodies[digest]), self.bodies[digest])


def ref(body: bytes, media_type: str) -> Reference:
    return Reference(digest_of(body), len(body), media_type)


def index_of(*children: tuple[bytes, str], **fields: object) -> bytes:
    listed = [descriptor(body, media_type) for body, media_type in children]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, **fields}).encode()


IMAGE = images.image()
UNTYPED = IMAGE.manifest.replace(f'"mediaType": "{OCI_MANIFEST}", '.encode(), b"", 1)


@pytest.mark.parametrize(
    "body",
    [IMAGE.manifest, UNTYPED, b"text", b"{}", b'{"layers": []}', b'{"a": 1}', b"[]"],
    ids=lambda body: repr(body[:9]),
)
def test_i5_what_is_known_depends_on_no_order_of_claims(body: bytes) -> None:
    claims = ["", OCI_MANIFEST, OCI_INDEX, LAYER, BUILDKIT_CACHE, UNKNOWN]
    for some in itertools.chain.from_iterable(itertools.combinations(claims, count) for count in (1, 2, 3)):
        found = set()
        for order in itertools.permutations(some):
            graph = ManifestGraph(Shelf(body))
            graph.add(ref(body, claim) for claim in order)
            found.add(repr((graph.facts, graph.leaves, [*graph.faults], graph.media_type(digest_of(body)))))
        assert len(found) == 1, some


@pytest.mark.parametrize("claim", [OCI_INDEX, DOCKER_LIST, LAYER, ARTIFACT, UNKNOWN])
def test_i5_references_are_followed_whatever_it_is_called(claim: str) -> None:
    graph = ManifestGraph(Shelf(IMAGE.manifest))
    graph.add([ref(IMAGE.manifest, claim)])
    assert graph.reachable() == {IMAGE.digest, *map(digest_of, IMAGE.blobs)} == reach([IMAGE.digest], graph.facts)
    assert [digest for digest, _ in graph.contradictions()] == [IMAGE.digest]
    assert (IMAGE.digest in graph.faults) == (claim == UNKNOWN)


def test_a_type_that_fits_is_no_contradiction() -> None:
    graph = ManifestGraph(Shelf(IMAGE.manifest, UNTYPED))
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    graph.add([ref(IMAGE.manifest, f"{OCI_MANIFEST.upper()}; charset=utf-8"), ref(UNTYPED, docker), ref(UNTYPED, "")])
    assert list(graph.contradictions()) == []
    assert graph.media_type(digest_of(UNTYPED)) == docker


def test_a_referrer_may_call_its_subject_what_it_likes() -> None:
    signature = images.image("sig").manifest.replace(
        b'"layers"', b'"subject": ' + json.dumps(descriptor(IMAGE.manifest, OCI_INDEX)).encode() + b', "layers"'
    )
    graph = ManifestGraph(Shelf(signature, IMAGE.manifest))
    graph.add([ref(signature, OCI_MANIFEST)])
    assert list(graph.contradictions()) == [] and IMAGE.digest in graph.facts


@pytest.mark.parametrize(
    ("body", "claims", "leaf"),
    [
        (b"\x1f\x8b\x08", [LAYER], True),
        (b"\x1f\x8b\x08", ["application/vnd.thing"], True),
        (b"\x1f\x8b\x08", [LAYER, OCI_MANIFEST], False),
        (b"\x1f\x8b\x08", [""], False),
        (b'{"layers": [{"blob": "x"}]}', [BUILDKIT_CACHE], True),
        (b'{"layers": [{"blob": "x"}]}', [BUILDKIT_CACHE, UNKNOWN], False),
        (b'{"layers": [{"digest": "x"}]}', [BUILDKIT_CACHE], False),
        (b'{"config": {"Cmd": []}}', [CONFIG], True),
        (b'{"config": {"Cmd": []}}', [UNKNOWN], False),
        (b" \n\t{}", [UNKNOWN], False),
        (b"", [LAYER], True),
        (b"   ", [UNKNOWN], True),
    ],
)
def test_leaves(body: bytes, claims: list[str], leaf: bool) -> None:
    graph = ManifestGraph(Shelf(body))
    graph.add(ref(body, claim) for claim in claims)
    assert (digest_of(body) in graph.leaves) == leaf == (digest_of(body) not in graph.faults)
    assert graph.reaches(digest_of(body))


def test_only_the_beginning_of_a_large_layer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = MemoryDriver()
    for key, body in (
        ("large", b"\x1f" * (SMALL_CONTENT_BYTES + 1)),
        ("text", b"{" + b" " * SMALL_CONTENT_BYTES),
        ("small", b"\x1f" * 9),
    ):
        with driver.create(key) as writer:
            writer.write([body])
    wrong = digest_of(b"of something else")
    with driver.open("large") as reader:
        assert read_content(reader, wrong, False) == Content(SMALL_CONTENT_BYTES + 1, None)
        with pytest.raises(Damaged):
            read_content(reader, wrong, True)
    for key in ("text", "small"):  # a manifest that has rotten must not pass for a leaf
        with driver.open(key) as reader, pytest.raises(Damaged):
            read_content(reader, wrong, False)
    with driver.open("large") as reader:
        monkeypatch.setattr(type(reader), "size", property(lambda self: LARGEST_MANIFEST_BYTES + 1))
        assert read_content(reader, wrong, False).body is None
        with pytest.raises(ManifestInvalid, match="too many"):
            read_content(reader, wrong, True)


def test_each_manifest_is_read_once() -> None:
    child = IMAGE.manifest
    one, two = (index_of((child, OCI_MANIFEST), annotations={"n": n}) for n in "12")
    shelf = Shelf(child, one, two)
    graph = ManifestGraph(shelf)
    graph.add([ref(one, OCI_INDEX), ref(two, OCI_INDEX), ref(child, OCI_MANIFEST)])
    graph.add([ref(child, OCI_INDEX)])
    graph.again()
    assert sorted(shelf.read) == sorted(map(digest_of, (child, one, two)))
    assert graph.parents(digest_of(child)) == sorted(map(digest_of, (one, two)))


# -- subjects -------------------------------------------------------------------------------------


def chain(depth: int) -> list[bytes]:
    bodies = [IMAGE.manifest]
    for _ in range(depth):
        bodies.append(images.image("sig", layers=0, subject=digest_of(bodies[-1])).manifest)
    return bodies


def test_i5_subjects_at_any_depth() -> None:
    bodies = chain(3000)
    graph = ManifestGraph(Shelf(*bodies))
    graph.add([ref(bodies[-1], OCI_MANIFEST)])
    assert graph.reachable() >= {*map(digest_of, (*bodies, *IMAGE.blobs))}
    assert list(graph.below(digest_of(bodies[-1]), set())) == [digest_of(body) for body in bodies]


def test_a_subject_that_is_not_there_is_looked_for_when_it_is_asked_for() -> None:
    _, signature = chain(1)
    shelf = Shelf(signature)
    graph = ManifestGraph(shelf)
    graph.add([ref(signature, OCI_MANIFEST)])
    assert (graph.absent, graph.faults) == ({IMAGE.digest}, {})
    assert IMAGE.digest in graph.reachable()
    shelf.bodies[IMAGE.digest] = IMAGE.manifest
    graph.look_for(digest_of(signature))
    assert graph.media_type(IMAGE.digest) is None
    graph.look_for(IMAGE.digest)
    assert graph.media_type(IMAGE.digest) == OCI_MANIFEST and not graph.absent
    assert graph.users(digest_of(IMAGE.blobs[0])) == [IMAGE.digest]
    assert graph.users(IMAGE.digest) == [digest_of(signature)]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Damaged("x"), "digest_mismatch"), (Unavailable("x"), "unreadable"), (ManifestInvalid("x"), "invalid_manifest")],
)
def test_i5_a_subject_that_is_there_and_can_not_be_read_is_a_fault(error: Exception, kind: str) -> None:
    _, signature = chain(1)
    shelf = Shelf(signature, IMAGE.manifest)
    shelf.errors[IMAGE.digest] = error
    graph = ManifestGraph(shelf)
    graph.add([ref(signature, OCI_MANIFEST)])
    assert [fault.kind for fault in graph.faults.values()] == [kind]
    assert not graph.absent
    shelf.errors.clear()
    graph.again(absent=False)
    assert not graph.faults and IMAGE.digest in graph.facts


def test_i5_what_is_needed_and_what_is_a_subject_only() -> None:
    """In whatever order they are met."""
    _, signature = chain(1)
    index = index_of((IMAGE.manifest, OCI_MANIFEST))
    for order in itertools.permutations([ref(signature, OCI_MANIFEST), ref(index, OCI_INDEX)]):
        graph = ManifestGraph(Shelf(signature, index))
        for row in order:
            graph.add([row])
        assert [fault.kind for fault in graph.faults.values()] == ["missing_manifest"] and not graph.absent
        assert graph.is_needed(IMAGE.digest)


def test_a_subject_that_has_gone_is_not_remembered() -> None:
    _, signature = chain(1)
    shelf = Shelf(signature, IMAGE.manifest)
    first = ManifestGraph(shelf)
    first.add([ref(signature, OCI_MANIFEST), ref(IMAGE.manifest, OCI_MANIFEST)])
    del shelf.bodies[IMAGE.digest]
    shelf.read.clear()
    second = ManifestGraph(shelf, Earlier(first.known, first.absent))
    second.add([ref(signature, OCI_MANIFEST)])
    assert (second.absent, shelf.read) == ({IMAGE.digest}, [IMAGE.digest])


def test_a_subject_that_was_absent_is_not_looked_for_each_time() -> None:
    _, signature = chain(1)
    shelf = Shelf(signature)
    first = ManifestGraph(shelf)
    first.add([ref(signature, OCI_MANIFEST)])
    shelf.bodies[IMAGE.digest] = IMAGE.manifest
    shelf.read.clear()
    second = ManifestGraph(shelf, Earlier(first.known, first.absent))
    second.add([ref(signature, OCI_MANIFEST)])
    assert (second.absent, shelf.read) == ({IMAGE.digest}, [])
    second.before = None
    second.again()
    assert IMAGE.digest in second.facts


# -- what is missing ------------------------------------------------------------------------------


def test_a_layer_that_is_not_there_is_no_fault_until_it_is_called_a_manifest() -> None:
    index = index_of((IMAGE.manifest, LAYER))
    shelf = Shelf(index)
    graph = ManifestGraph(shelf)
    graph.add([ref(index, OCI_INDEX)])
    assert (graph.leaves, graph.faults) == ({IMAGE.digest: -1}, {})
    graph.add([ref(IMAGE.manifest, OCI_MANIFEST)])
    assert (graph.leaves, list(graph.faults)) == ({}, [IMAGE.digest])
    graph = ManifestGraph(shelf)
    graph.add([ref(index, OCI_INDEX)])
    shelf.bodies[IMAGE.digest] = IMAGE.manifest
    graph.again()
    assert not graph.leaves and digest_of(IMAGE.blobs[0]) in graph.reachable()


def test_a_digest_that_can_not_be_computed_here() -> None:
    child = Reference("sha256:no", 1, OCI_MANIFEST)
    graph = ManifestGraph(Shelf())
    graph.add([child])
    assert [fault.kind for fault in graph.faults.values()] == ["invalid_manifest"]
