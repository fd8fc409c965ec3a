"""Manifests: what is accepted, what is refused and how it is said, and what hostile bytes do (nothing)."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.errors import DigestInvalid, ManifestInvalid
from zotctl.oci.digest import digest_of, parse_digest
from zotctl.oci.manifest import Manifest, check_manifest, read_manifest
from zotctl.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)

COMPAT = frozenset({"docker2s2"})
SOME = parse_digest("sha256:" + "0" * 64)
ARTIFACT = "application/vnd.example+type"


def descriptor(media_type: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest_of(media_type.encode())), "size": 7, **fields}


def empty() -> dict[str, Any]:
    return {"mediaType": EMPTY, "digest": str(digest_of(b"{}")), "size": 2, "data": "e30="}


def image(**fields: Any) -> dict[str, Any]:
    layers = [descriptor(OCI_LAYER_GZIP)]
    base = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(OCI_CONFIG), "layers": layers}
    return base | fields


def index(**fields: Any) -> dict[str, Any]:
    children = [descriptor(OCI_MANIFEST, platform={"architecture": "amd64", "os": "linux"})]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children} | fields


def without(document: dict[str, Any], field: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != field}


def encoded(document: Any) -> bytes:
    return json.dumps(document, indent=2).encode()


def push(document: Any, content_type: str | None = None, **options: Any) -> Manifest:
    kind = document.get("mediaType", "") if content_type is None else content_type
    return check_manifest(encoded(document), kind, **options)


def test_an_image() -> None:
    document = image(subject=descriptor(OCI_INDEX), annotations={"a": ""})
    manifest = push(document)
    assert manifest.digest == digest_of(encoded(document))
    assert manifest.size == len(encoded(document))
    assert manifest.media_type == OCI_MANIFEST
    assert [blob.media_type for blob in manifest.blobs] == [OCI_CONFIG, OCI_LAYER_GZIP]
    assert manifest.children == ()
    assert manifest.subject is not None
    assert manifest.subject.media_type == OCI_INDEX
    assert manifest.annotations == {"a": ""}
    assert (manifest.artifact_type, manifest.referrer_type) == (None, OCI_CONFIG)


def test_an_index() -> None:
    manifest = push(index())
    assert manifest.blobs == ()
    assert [bytes(child.platform)[:1] for child in manifest.children] == [b"{"]
    assert manifest.referrer_type is None
    assert push(index(artifactType=ARTIFACT)).referrer_type == ARTIFACT


@pytest.mark.parametrize(
    "document",
    [
        without(image(), "mediaType"),
        image(mediaType=None),
        image(layers=[]),
        image(layers=[descriptor("application/vnd.unknown")]),
        image(config=descriptor("application/vnd.cncf.helm.config.v1+json")),
        image(artifactType=ARTIFACT, config=empty(), layers=[empty()]),
        image(artifactType=""),
        image(annotations={}, unknown={"a": [1, 1.5, None, True]}),
        image(annotations=None, subject=None, artifactType=None),
        image(subject=descriptor(OCI_MANIFEST, digest="multihash+base58:Qm")),
        image(layers=[descriptor(OCI_LAYER_GZIP, urls=["https://example.com/x"], annotations={"t": "x"})]),
        image(layers=[descriptor(OCI_LAYER_GZIP, urls=None, annotations=None, platform=None)]),
    ],
)
def test_images_accepted(document: dict[str, Any]) -> None:
    assert push(document, f"{OCI_MANIFEST}; charset=utf-8").media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    "document",
    [
        without(index(), "mediaType"),
        index(manifests=[]),
        index(manifests=[descriptor("application/vnd.unknown+json")]),
        index(manifests=[descriptor(OCI_INDEX), descriptor(DOCKER_MANIFEST)]),
        index(subject=descriptor(OCI_MANIFEST)),
    ],
)
def test_indexes_accepted(document: dict[str, Any]) -> None:
    assert push(document, OCI_INDEX.upper()).media_type == OCI_INDEX


def test_the_type_comes_from_the_field_if_there_is_no_header() -> None:
    assert push(image(), "").media_type == OCI_MANIFEST
    assert push(index(), " ;q=1").media_type == OCI_INDEX
    with pytest.raises(ManifestInvalid, match="no Content-Type and no mediaType field"):
        push(without(image(), "mediaType"), "")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (without(image(), "schemaVersion"), "schemaVersion"),
        (image(schemaVersion=1), "schemaVersion"),
        (image(schemaVersion="2"), "schemaVersion"),
        (image(schemaVersion=2.0), "schemaVersion"),
        (image(schemaVersion=True), "schemaVersion"),
        (image(schemaVersion=10**400), "schemaVersion"),
        (image(mediaType=OCI_INDEX), "mediaType"),
        (image(mediaType=[]), "mediaType"),
        (without(image(), "config"), "config"),
        (image(config=None), "config"),
        (image(config=[]), "config"),
        (without(image(), "layers"), "layers"),
        (image(layers={}), "layers"),
        (image(layers=[None]), r"layers\[0\]"),
        (image(layers=[[]]), r"layers\[0\]"),
        (image(layers=[without(descriptor(OCI_LAYER_GZIP), "digest")]), "digest"),
        (image(layers=[without(descriptor(OCI_LAYER_GZIP), "size")]), "size"),
        (image(layers=[without(descriptor(OCI_LAYER_GZIP), "mediaType")]), "mediaType"),
        (
            image(layers=[descriptor(OCI_LAYER_GZIP), descriptor(OCI_LAYER_GZIP, size=-1)]),
            r"layers\[1\]\.size",
        ),
        (image(layers=[descriptor(OCI_LAYER_GZIP, size=2**63)]), r"layers\[0\]\.size"),
        (image(layers=[descriptor(OCI_LAYER_GZIP, size=1.5)]), r"layers\[0\]\.size"),
        (image(layers=[descriptor(OCI_LAYER_GZIP, size="7")]), "size"),
        (image(layers=[descriptor(OCI_LAYER_GZIP, digest="sha256:0")]), r"layers\[0\]\.digest"),
        (image(config=descriptor("text")), r"config\.mediaType"),
        (image(config=descriptor("text/plain; charset")), r"config\.mediaType"),
        (image(config=descriptor("text/plain, text/html")), r"config\.mediaType"),
        (image(config=empty()), "artifactType: must be set"),
        (image(config=empty(), artifactType=""), "artifactType: must be set"),
        (image(config=empty() | {"data": "W10="}, artifactType=ARTIFACT), r"config\.data"),
        (image(artifactType="text"), "artifactType"),
        (image(subject=descriptor(OCI_MANIFEST, digest="x")), r"subject\.digest"),
        (image(annotations={"a": 1}), "annotations"),
        (image(annotations={"a": None}), "annotations"),
        (image(annotations=[]), "annotations"),
    ],
)
def test_images_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message) as caught:
        push(document, OCI_MANIFEST)
    assert len(caught.value.message) < 400


PARAMETERS = "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("document", "media_type", "strictly"),
    [
        (image(layers=None), OCI_MANIFEST, "layers: an image manifest must have"),
        (index(manifests=None), OCI_INDEX, "manifests: an index must have"),
        (image(mediaType=f"{OCI_MANIFEST}; charset=utf-8"), OCI_MANIFEST, "mediaType: is "),
        (image(mediaType=OCI_MANIFEST.upper()), OCI_MANIFEST, "mediaType: is "),
        (image(layers=[descriptor(PARAMETERS)]), OCI_MANIFEST, r"layers\[0\]\.mediaType"),
        (image(layers=[descriptor('text/html;a="b c" ;d=e')]), OCI_MANIFEST, r"layers\[0\]\.mediaType"),
        (image(config=empty(), artifactType=PARAMETERS), OCI_MANIFEST, "artifactType: "),
        (index(manifests=[descriptor(OCI_MANIFEST, artifactType=PARAMETERS)]), OCI_INDEX, r"\[0\]\.artifactType"),
    ],
)
def test_what_is_taken_as_it_is_and_named_by_verify(document: dict[str, Any], media_type: str, strictly: str) -> None:
    """What Go writes for an empty array, and what systems say of the type of a file."""
    taken = push(document, media_type)
    assert (taken.media_type, taken.irregular) == (media_type, ())
    with pytest.raises(ManifestInvalid, match=strictly):
        check_manifest(encoded(document), media_type, strict=True)


@pytest.mark.parametrize(
    "document",
    [
        without(index(), "manifests"),
        index(manifests={}),
        index(manifests=[descriptor(OCI_MANIFEST, platform="linux")]),
        image(),
        image(mediaType=OCI_INDEX),
    ],
)
def test_indexes_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        push(document, OCI_INDEX)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/vnd.docker.distribution.manifest.v1+json",
        OCI_CONFIG,
        "\n",
        "x" * 10000,
    ],
)
def test_other_types_are_refused_by_name(content_type: str) -> None:
    document = without(image(), "mediaType")
    with pytest.raises(ManifestInvalid, match="accepted are") as caught:
        push(document, content_type)
    assert caught.value.detail == [OCI_MANIFEST, OCI_INDEX]
    assert "\n" not in caught.value.message


def test_docker_types_need_compat() -> None:
    docker = image(mediaType=DOCKER_MANIFEST, config=descriptor(DOCKER_CONFIG), layers=[descriptor(DOCKER_LAYER)])
    for document in (docker, index(mediaType=DOCKER_LIST, manifests=[descriptor(DOCKER_MANIFEST)])):
        assert push(document, compat=COMPAT).media_type == document["mediaType"]
        for content_type in (document["mediaType"], ""):
            with pytest.raises(ManifestInvalid, match=r'compat = \["docker2s2"\]'):
                push(document, content_type)


def test_the_algorithm_of_the_push() -> None:
    assert push(image(), algorithm="sha512").digest == digest_of(encoded(image()), "sha512")
    with pytest.raises(DigestInvalid, match="unsupported"):
        push(image(), algorithm="md5")


VALID = encoded(image())
EXTRA = VALID[:-2] + b', "x": %s}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"2",
        b'"x"',
        b"\0",
        VALID[:-1],
        VALID + b"x",
        VALID + VALID,
        b"\xef\xbb\xbf" + VALID,
        VALID.decode().encode("utf-16"),
        EXTRA % b"NaN",
        EXTRA % b"Infinity",
        EXTRA % b"-",
        EXTRA % b"01",
        EXTRA % b"'a'",
        EXTRA % b'"\xff"',
        EXTRA % b'"\xc0\xaf"',
        EXTRA % b'"\xed\xa0\x80"',
        EXTRA % b'"\n"',
        EXTRA % b'{"platform": "\xff"}',
        EXTRA % (b"[" * 101 + b"]" * 101),
        EXTRA % (b"[" * 1_000_000),
        EXTRA % (b"[" * 1_000_000 + b"]" * 1_000_000),
        EXTRA % (b'{"a":' * 1_000_000),
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"layers":' + b"[" * 1_000_000,
        b'{"config":{"platform":' + b"[" * 1_000_000,
        VALID.replace(b'"size": 7', b'"size": ' + b"9" * 100_000),
        VALID.replace(b'"size": 7', b'"size": 1e999'),
        VALID.replace(b'"schemaVersion": 2', b'"schemaVersion": ' + b"9" * 4000),
    ],
    ids=lambda body: f"{body[:10]!r}-{len(body)}",
)
def test_hostile_json(body: bytes) -> None:
    for content_type in (OCI_MANIFEST, ""):
        with pytest.raises(ManifestInvalid) as caught:
            check_manifest(body, content_type)
        assert len(caught.value.message) < 400


def test_harmless_json() -> None:
    for extra in (b'"\\u0000 \xc3\xa9 [[[[[[[[["', b"1e999", b"9" * 10_000, b'"' + b"[" * 1000 + b'\\""'):
        assert check_manifest(EXTRA % extra, OCI_MANIFEST).layers
    assert check_manifest(VALID + b" \r\n\t", OCI_MANIFEST).layers


def test_depth_is_counted_exactly() -> None:
    wide = b"[" + b",".join([b"[]"] * 5000) + b"]"
    assert check_manifest(EXTRA % wide, OCI_MANIFEST)
    for opening, closing in ((b"[", b"]"), (b'{"]":', b"}")):
        deep = b'{"[": ' + opening * 97 + b"[]" + closing * 97 + b"}"
        assert check_manifest(EXTRA % deep, OCI_MANIFEST)
        with pytest.raises(ManifestInvalid, match="deeper than 100"):
            check_manifest(EXTRA % (b"[" + deep + b"]"), OCI_MANIFEST)
    with pytest.raises(ManifestInvalid, match="deeper than 2"):
        check_manifest(VALID, OCI_MANIFEST, max_depth=2)


def test_what_was_accepted_is_readable_deep_in_a_stack() -> None:
    body = EXTRA % (b"[" * 99 + b"]" * 99)
    check_manifest(body, OCI_MANIFEST)

    def read_at(depth: int) -> Manifest:
        return read_at(depth - 1) if depth else read_manifest(body, SOME)

    found: list[Manifest] = []
    thread = threading.Thread(target=lambda: found.append(read_at(700)))
    thread.start()
    thread.join()
    assert found


def test_reading_trusts_the_digest_and_believes_the_bytes() -> None:
    manifest = read_manifest(encoded(index()), SOME)
    assert (manifest.digest, manifest.media_type, manifest.stated) == (SOME, OCI_INDEX, True)
    assert len(manifest.children) == 1
    assert not read_manifest(encoded(without(index(), "mediaType")), SOME).stated


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (image(), OCI_MANIFEST),
        (index(), OCI_INDEX),
        (image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
        (index(mediaType=DOCKER_LIST), DOCKER_LIST),
        (without(image(), "mediaType"), OCI_MANIFEST),
        (without(index(), "mediaType"), OCI_INDEX),
        ({"layers": []}, OCI_MANIFEST),
        ({"config": None}, OCI_MANIFEST),
        ({"manifests": None}, OCI_INDEX),
    ],
)
def test_reading_tells_the_type(document: dict[str, Any], media_type: str) -> None:
    assert read_manifest(encoded(document), SOME).media_type == media_type


def test_reading_is_lenient() -> None:
    loose = image(schemaVersion=1, layers=None, config=descriptor("text", size=-1, digest="?"), annotations=None)
    manifest = read_manifest(encoded(loose), SOME)
    assert manifest.layers == ()
    assert manifest.config is not None
    assert manifest.config.digest == "?"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        encoded(image(mediaType="application/vnd.unknown")),
        encoded(image(fsLayers=[])),
        encoded({"schemaVersion": 1, "fsLayers": [{"blobSum": str(SOME)}]}),
        b'{"manifests": 1}',
        b'{"layers": [{"digest": "x"}]}',
        b'{"manifests": ' + b"[" * 1_000_000,
        b'{"x": ' + b"[" * 1_000_000,
    ],
    ids=lambda value: repr(value[:20]),
)
def test_reading_refuses_what_it_cannot_know(body: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        read_manifest(body, SOME)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations"])


@given(st.dictionaries(fields, json_values), st.sampled_from(["", OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST]))
def test_any_value_in_any_field(changes: dict[str, Any], content_type: str) -> None:
    body = encoded(image(**changes))
    try:
        accepted = check_manifest(body, content_type, compat=COMPAT)
    except ManifestInvalid:
        return
    assert replace(read_manifest(body, accepted.digest), media_type=accepted.media_type) == accepted


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_any_byte_replaced(position: int, value: int) -> None:
    body = VALID[:position] + bytes([value]) + VALID[position + 1 :]
    try:
        check_manifest(body, OCI_MANIFEST)
    except ManifestInvalid as error:
        assert error.message


@given(st.binary(max_size=100), st.sampled_from(["", OCI_MANIFEST, OCI_INDEX]))
def test_any_bytes(body: bytes, content_type: str) -> None:
    with pytest.raises(ManifestInvalid):
        check_manifest(body, content_type)
    if not body.strip().startswith(b"{"):  # an empty object is lax, and still an object
        with pytest.raises(ManifestInvalid):
            read_manifest(body, SOME)
