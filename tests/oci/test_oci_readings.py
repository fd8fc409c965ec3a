"""Keys that stand in a manifest twice, or in another case: refused in a push, and all followed where they are."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from tests.images import descriptor
from zotctl.errors import ManifestInvalid, MediaTypeUnknown
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest, read_manifest
from zotctl.oci.media_types import ARTIFACT, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from zotctl.oci.readings import may_reference

CONFIG, ONE, OTHER = descriptor(b"{}", OCI_CONFIG), descriptor(b"1", OCI_LAYER), descriptor(b"2", OCI_LAYER)
CHILD = descriptor(b"{ }", OCI_MANIFEST)


class Twice(dict[str, Any]):
    """Written with more keys than a dictionary has."""

    def __init__(self, *pairs: tuple[str, Any]) -> None:
        super().__init__({"x": 1})  # or it would be written as empty
        self._pairs = pairs

    def items(self) -> Any:
        return self._pairs


def image(*more: tuple[str, Any], layer: Any = ONE) -> bytes:
    fields = (("schemaVersion", 2), ("mediaType", OCI_MANIFEST), ("config", CONFIG), ("layers", [layer]))
    return json.dumps(Twice(*fields, *more), ensure_ascii=False).encode()


def digests(body: bytes) -> set[str]:
    manifest = read_manifest(body, digest_of(body))
    return {one.digest for one in (*manifest.blobs, *manifest.children, *manifest.subjects)}


def bodies() -> dict[str, bytes]:
    found = {
        "twice": image(("layers", [OTHER])),
        "case": image(("Layers", [OTHER])),
        "upper": image(("LAYERS", [OTHER])),
        "long s": image(("layer\u017f", [OTHER])),
        "escaped": image(("layers", [OTHER])).replace(b'"layers"', b'"l\\u0061yers"', 1),
        "config": image(("Config", OTHER)),
        "digest": image(layer=ONE | {"Digest": OTHER["digest"]}),
        "digest twice": image(layer=Twice(*ONE.items(), ("digest", OTHER["digest"]))),
        "subject": image(("Subject", OTHER)),
        "manifests": image(("Manifests", [OTHER])),
    }
    return found


@pytest.mark.parametrize("which", bodies())
def test_a_push_has_one_reading_only(which: str) -> None:
    with pytest.raises(ManifestInvalid, match=r"the same key twice|only in case"):
        check_manifest(bodies()[which], OCI_MANIFEST)


@pytest.mark.parametrize("which", bodies())
def test_all_readings_of_what_is_stored_are_followed(which: str) -> None:
    body = bodies()[which]
    assert digests(body) >= {CONFIG["digest"], OTHER["digest"]}
    assert read_manifest(body, digest_of(body)).irregular


@pytest.mark.parametrize(
    "body",
    [
        image(("mediatype", OCI_INDEX)),
        image(("SchemaVersion", 2)),
        image(("annotations", Twice(("a", "1"), ("a", "2")))),
        image(layer=ONE | {"annotations": Twice(("a", "1"), ("a", "2"))}),
        image(layer=ONE | {"Size": 3}),
        image(("subject", CHILD | {"platform": {"OS": "linux"}})),
        image(("unknown", [Twice(("a", 1), ("a", 1))])),
    ],
)
def test_other_keys_are_as_unique(body: bytes) -> None:
    with pytest.raises(ManifestInvalid, match=r"the same key twice|only in case"):
        check_manifest(body, OCI_MANIFEST)


@pytest.mark.parametrize(
    "body",
    [
        image(("annotations", {"Size": "1", "OS": "linux", "Layers": "", "mediatype": ""})),
        image(("unknown", {"Layers": [], "Digest": ""})),
        image(layer=ONE | {"annotations": {"Digest": "x"}}),
        image(layer=ONE | {"Config": {}}),  # no key of a descriptor
    ],
)
def test_names_that_anybody_may_choose_are_not_ours(body: bytes) -> None:
    assert not check_manifest(body, OCI_MANIFEST).irregular
    assert digests(body) == {CONFIG["digest"], ONE["digest"]}


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX, ""])
def test_no_body_is_an_index_and_an_image(media_type: str) -> None:
    both = {"schemaVersion": 2, "config": CONFIG, "layers": [ONE], "manifests": [CHILD]}
    for content_type in (OCI_MANIFEST, OCI_INDEX):
        body = json.dumps(both | ({"mediaType": content_type} if media_type == content_type else {})).encode()
        with pytest.raises(ManifestInvalid, match="manifests: stands beside config"):
            check_manifest(body, content_type)
        assert digests(body) == {CONFIG["digest"], ONE["digest"], CHILD["digest"]}


def test_the_fields_of_every_shape_are_followed() -> None:
    artifact = json.dumps({"mediaType": ARTIFACT, "blobs": [ONE], "subject": CHILD}).encode()
    assert digests(artifact) == {ONE["digest"], CHILD["digest"]}
    assert digests(image(("blobs", [OTHER]))) == {CONFIG["digest"], ONE["digest"], OTHER["digest"]}
    assert digests(image(("blobs", "some property of nobody's"))) == {CONFIG["digest"], ONE["digest"]}
    listed_as_layer = read_manifest(image(layer=CHILD), digest_of(b""))
    assert [child.digest for child in listed_as_layer.children] == [CHILD["digest"]]


def test_of_other_types_nothing_is_known() -> None:
    for body in (
        image(("MediaType", "application/vnd.other+json")),
        image(("FsLayers", [])),
        b'{"schemaVersion": 1, "fsLayers": []}',
        b'{"schemaVersion": 2}',
    ):
        with pytest.raises(MediaTypeUnknown):
            read_manifest(body, digest_of(body))


def test_a_descriptor_of_too_many_readings_is_refused() -> None:
    many = Twice(*ONE.items(), *(("digest", str(digest_of(str(i).encode()))) for i in range(50)))
    with pytest.raises(ManifestInvalid, match="again and again"):
        read_manifest(image(layer=many), digest_of(b""))


def test_what_is_no_manifest_may_look_like_one() -> None:
    cache = {"layers": [{"blob": str(digest_of(b"1")), "parent": -1}], "records": [{"digest": str(digest_of(b"2"))}]}
    assert not may_reference(json.dumps(cache).encode())
    assert not may_reference(json.dumps({"config": {"Cmd": ["/bin/true"]}}).encode())
    assert may_reference(json.dumps({"layers": [{"digest": str(digest_of(b"1"))}]}).encode())
    assert may_reference(json.dumps({"Config": {"DIGEST": str(digest_of(b"1"))}}).encode())
    assert may_reference(json.dumps({"schemaVersion": 1, "fsLayers": [{"blobSum": str(digest_of(b"1"))}]}).encode())
    assert may_reference(b'{"layers": [{"digest": "x"}]} and more')


@pytest.mark.parametrize("claim", [OCI_MANIFEST.upper(), f"{OCI_MANIFEST}; charset=utf-8"])
def test_a_manifest_among_the_layers_is_a_child_however_its_type_is_written(claim: str) -> None:
    """Types have no case."""
    body = image(layer=CHILD | {"mediaType": claim})
    assert [one.digest for one in read_manifest(body, digest_of(body)).children] == [CHILD["digest"]]


@pytest.mark.parametrize("piece", [b"{},", b'{"":1},', b'{"a":1,"b":2},', b'"\\"":1,'], ids=repr)
@pytest.mark.timeout(30)
def test_four_mebibytes_cost_no_seconds(piece: bytes) -> None:
    body = image()[:-1] + b', "x": [' + piece * ((4 << 20) // len(piece)) + b"1]}"
    if b":" in piece[:6] and not piece.startswith(b"{"):
        body = image()[:-1] + b"," + b",".join(b'"k%d":1' % i for i in range(300_000)) + b"}"
    assert check_manifest(body, OCI_MANIFEST).size == len(body)


def test_where_a_key_stands_twice_is_told_in_little_memory() -> None:
    """A long key before a long list: a place is put into words only where it is told."""
    key = "k" * 20_000
    body = image((key, [[0]] * 5_000), ("deep", {"x": [{}, Twice(("a", 1), ("a", 2))]}))
    tracemalloc.start()
    try:
        with pytest.raises(ManifestInvalid, match=r"'deep\.x\[1\]\.a': the same key twice"):
            check_manifest(body, OCI_MANIFEST)
        assert tracemalloc.get_traced_memory()[1] < 200 * len(body)
    finally:
        tracemalloc.stop()
