"""Descriptors and media types."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.errors import ManifestInvalid
from zotctl.oci.codec import encode
from zotctl.oci.descriptor import Descriptor, validate
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    EMPTY,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    essence,
    is_docker,
    is_image,
    is_index,
    is_manifest_type,
    is_media_type,
    is_nondistributable,
)

GOOD = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest_of(b"x"), size=1)


def changed(**fields: object) -> Descriptor:
    return msgspec.structs.replace(GOOD, **fields)


@pytest.mark.parametrize(
    "descriptor",
    [
        GOOD,
        changed(size=0),
        changed(size=2**63 - 1),
        changed(digest="multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"),
        changed(urls=("https://example.com/a%20b?c=d#e", "urn:x:y")),
        changed(data="eA=="),
        changed(media_type=EMPTY, digest=digest_of(b"{}"), size=2, data="e30="),
        changed(size=0, digest=digest_of(b""), data=""),
        changed(digest="md5:0", data="eA=="),
        changed(artifact_type=""),
        changed(artifact_type="application/vnd.example+type"),
        changed(platform=msgspec.Raw(b'{"os":"linux","architecture":"amd64"}')),
        changed(platform=msgspec.Raw(b"null")),
    ],
)
def test_valid(descriptor: Descriptor) -> None:
    validate(descriptor, "config")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("media_type", ""),
        ("media_type", "text"),
        ("media_type", "text/plain; charset=utf-8"),
        ("media_type", "text/plain\n"),
        ("media_type", "a/" + "b" * 128),
        ("media_type", "-a/b"),
        ("digest", ""),
        ("digest", "sha256:../../x"),
        ("digest", "sha256:" + "A" * 64),
        ("size", -1),
        ("size", 2**63),
        ("size", 10**4000),
        ("urls", ("https://example.com/a b",)),
        ("urls", ("no-scheme",)),
        ("urls", ("javascript:\n",)),
        ("artifact_type", "text"),
        ("platform", msgspec.Raw(b'"linux"')),
        ("data", ""),
        ("data", "eQ=="),
        ("data", "eA="),
        ("data", "eA==eA=="),
        ("data", "!!!!"),
        ("data", "ÿÿÿÿ"),
    ],
)
def test_invalid(field: str, value: object) -> None:
    with pytest.raises(ManifestInvalid, match=r"^layers\[3\]\.") as caught:
        validate(changed(**{field: value}), "layers[3]")
    assert len(caught.value.message) < 300


def test_large_data_is_checked_for_its_length_only() -> None:
    content = bytes(100_000)
    wrong = base64.b64encode(content).decode()
    validate(changed(size=len(content), data=wrong), "config")
    with pytest.raises(ManifestInvalid):
        validate(changed(size=len(content), data=wrong + "AAAA"), "config")


@given(st.binary(max_size=200))
def test_embedded_content(content: bytes) -> None:
    data = base64.b64encode(content).decode()
    validate(changed(digest=digest_of(content), size=len(content), data=data), "config")
    with pytest.raises(ManifestInvalid):
        validate(changed(digest=digest_of(content + b"x"), size=len(content), data=data), "config")


def test_json() -> None:
    text = (
        b'{"mediaType":"a/b","digest":"x:y","size":3,"artifactType":"c/d","platform":{"os" : "linux"},'
        b'"unknown":{"x":[1]}}'
    )
    descriptor = msgspec.json.decode(text, type=Descriptor)
    assert descriptor.platform == msgspec.Raw(b'{"os" : "linux"}')
    assert not GOOD.platform
    assert encode(descriptor) == text.replace(b',"unknown":{"x":[1]}', b"")
    assert encode({"a": [GOOD.digest]}) == b'{"a":["%s"]}' % GOOD.digest.encode()
    with pytest.raises(NotImplementedError):
        encode(object())


def test_kinds() -> None:
    kinds = [(is_image(t), is_index(t), is_docker(t)) for t in (OCI_MANIFEST, OCI_INDEX)]
    assert kinds == [(True, False, False), (False, True, False)]
    kinds = [(is_image(t), is_index(t), is_docker(t)) for t in (DOCKER_MANIFEST, DOCKER_LIST)]
    assert kinds == [(True, False, True), (False, True, True)]
    assert is_manifest_type(DOCKER_LIST)
    assert not is_manifest_type("application/vnd.docker.distribution.manifest.v1+json")
    assert not is_manifest_type("")


@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
def test_nondistributable(suffix: str) -> None:
    assert is_nondistributable(f"application/vnd.oci.image.layer.nondistributable.v1.tar{suffix}")
    assert is_nondistributable("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    assert not is_nondistributable(f"application/vnd.oci.image.layer.v1.tar{suffix}")


def test_media_types() -> None:
    assert is_media_type("application/vnd.example+type")
    assert not is_media_type("application/")
    assert essence(" Application/JSON ; charset=utf-8") == "application/json"
    assert essence("") == essence(";") == ""
