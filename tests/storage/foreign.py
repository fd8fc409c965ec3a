"""Layouts as other tools leave them on disk, written by hand so that no tool is needed.

Each function lays one image (or an index of images) into a directory and says what is expected of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import images
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST

REF = "org.opencontainers.image.ref.name"
CONTAINERD = "io.containerd.image.name"
OLD = 1_700_000_000


@dataclass
class Expected:
    """What a layout must be seen as: tags with their digests, and what is reachable by digest alone."""

    tags: dict[str, Digest] = field(default_factory=dict)
    digests: dict[Digest, bytes] = field(default_factory=dict)
    referrers: dict[Digest, list[Digest]] = field(default_factory=dict)


def put_blob(directory: Path, body: bytes, mode: int = 0o644) -> Digest:
    digest = digest_of(body)
    path = directory / "blobs" / "sha256" / digest.encoded
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    path.chmod(mode)
    return digest


def put_image(directory: Path, made: images.Image, expected: Expected) -> Digest:
    for body in made.blobs:
        put_blob(directory, body)
    expected.digests[made.digest] = made.manifest
    return put_blob(directory, made.manifest)


def finish(directory: Path, document: dict[str, Any] | str, layout: str = '{"imageLayoutVersion":"1.0.0"}') -> None:
    text = document if isinstance(document, str) else json.dumps(document, separators=(",", ":"))
    (directory / "index.json").write_text(text)
    (directory / "oci-layout").write_text(layout)


def age(directory: Path) -> None:
    """As copied with its time stamps: nothing looks as if it were just being written."""
    for path, names, files in os.walk(directory, topdown=False):
        for name in (*files, *names):
            os.utime(os.path.join(path, name), (OLD, OLD), follow_symlinks=False)
    os.utime(directory, (OLD, OLD))


def skopeo(directory: Path) -> Expected:
    """`skopeo copy ... oci:DIR:docker.io/library/busybox:1.36`, then another without a name."""
    expected = Expected()
    one, two = images.image("one"), images.image("two")
    put_image(directory, one, expected)
    put_image(directory, two, expected)
    rows = [images.row(one, "docker.io/library/busybox:1.36"), images.row(two)]
    finish(directory, {"schemaVersion": 2, "manifests": rows})
    expected.tags["1.36"] = one.digest
    return expected


def skopeo_all(directory: Path) -> Expected:
    """`skopeo copy --all`: the index is a row, its children are not."""
    expected = Expected()
    children = [images.image(str(number)) for number in range(3)]
    for child in children:
        put_image(directory, child, expected)
    body = images.index([(child.digest, len(child.manifest)) for child in children])
    digest = put_blob(directory, body)
    row = images.descriptor(body, OCI_INDEX) | {"annotations": {REF: "multi"}}
    finish(directory, {"schemaVersion": 2, "manifests": [row]})
    expected.digests[digest] = body
    expected.tags["multi"] = digest
    return expected


def umoci(directory: Path) -> Expected:
    """The bare tag; the temporary directory of a run that died stays."""
    expected = Expected()
    made = images.image("umoci")
    put_image(directory, made, expected)
    (directory / ".umoci-1234").mkdir()
    (directory / ".umoci-1234" / "blob-77").write_bytes(b"half")
    finish(directory, {"schemaVersion": 2, "manifests": [images.row(made, "latest"), images.row(made, "v1.0")]})
    expected.tags |= {"latest": made.digest, "v1.0": made.digest}
    return expected


def umoci_init(directory: Path) -> Expected:
    """`umoci init` of old versions: `manifests` is null."""
    (directory / "blobs" / "sha256").mkdir(parents=True)
    finish(directory, '{"schemaVersion":2,"manifests":null}')
    return Expected()


def buildah(directory: Path) -> Expected:
    """A full reference with a host and port, and one without a tag."""
    expected = Expected()
    one, two = images.image("one"), images.image("two")
    put_image(directory, one, expected)
    put_image(directory, two, expected)
    rows = [images.row(one, "localhost:5000/team/app:v2"), images.row(two, "localhost:5000/team/app")]
    finish(directory, {"schemaVersion": 2, "manifests": rows})
    expected.tags["v2"] = one.digest
    return expected


def buildkit(directory: Path) -> Expected:
    """`type=oci`, and `docker save`: two annotations, with manifest.json and repositories beside."""
    expected = Expected()
    made = images.image("kit")
    put_image(directory, made, expected)
    names = {CONTAINERD: "docker.io/library/app:v3", REF: "v3", "org.opencontainers.image.created": "2026-01-01"}
    finish(
        directory,
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [images.row(made, annotations=names)]},
    )
    (directory / "manifest.json").write_text("[]")
    (directory / "repositories").write_text("{}")
    expected.tags["v3"] = made.digest
    return expected


def crane(directory: Path) -> Expected:
    """`crane pull --format=oci`: no name at all; indented, layout with a newline."""
    expected = Expected()
    made = images.image("crane")
    put_image(directory, made, expected)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [images.row(made)]}
    finish(directory, json.dumps(document, indent=3), '{\n    "imageLayoutVersion": "1.0.0"\n}\n')
    return expected


def oras(directory: Path) -> Expected:
    """Any string as a name; every manifest has a row, a referrer too; an `ingest` directory."""
    expected = Expected()
    subject = images.image("subject")
    signature = images.image("signature", layers=1, subject=subject.digest, artifactType="application/vnd.sig")
    put_image(directory, subject, expected)
    put_image(directory, signature, expected)
    (directory / "ingest").mkdir()
    rows = [
        images.row(subject, "not a tag"),
        images.row(signature, artifactType="application/vnd.sig"),
        images.row(subject, "v1"),
    ]
    finish(directory, {"schemaVersion": 2, "manifests": rows})
    expected.tags["v1"] = subject.digest
    expected.referrers[subject.digest] = [signature.digest]
    return expected


def regctl(directory: Path) -> Expected:
    """The bare tag with `created`; referrers under a fallback tag that lists them."""
    expected = Expected()
    subject = images.image("subject")
    sbom = images.image("sbom", layers=1, subject=subject.digest)
    put_image(directory, subject, expected)
    put_image(directory, sbom, expected)
    fallback = images.index([(sbom.digest, len(sbom.manifest))])
    digest = put_blob(directory, fallback)
    tag = str(subject.digest).replace(":", "-")
    created = {"org.opencontainers.image.created": "2026-01-02T03:04:05Z"}
    rows = [
        images.row(subject, annotations={REF: "v1", **created}),
        images.descriptor(fallback, OCI_INDEX) | {"annotations": {REF: tag}},
    ]
    finish(directory, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows})
    expected.digests[digest] = fallback
    expected.tags |= {"v1": subject.digest, tag: digest}
    expected.referrers[subject.digest] = [sbom.digest]
    return expected


def olareg(directory: Path) -> Expected:
    """Its own annotations, rows of referrers responses, a history field, and `_uploads`."""
    expected = Expected()
    subject = images.image("subject")
    sbom = images.image("sbom", layers=1, subject=subject.digest)
    put_image(directory, subject, expected)
    put_image(directory, sbom, expected)
    response = images.index([(sbom.digest, len(sbom.manifest))])
    digest = put_blob(directory, response)
    rows = [
        images.row(subject, "v1"),
        images.descriptor(response, OCI_INDEX) | {"annotations": {"org.olareg.referrer.subject": str(subject.digest)}},
    ]
    (directory / "_uploads").mkdir()
    finish(
        directory,
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": rows,
            "annotations": {"org.olareg.referrer.convert": "true"},
            "org.olareg.history": {"v1": [{"time": "2026-01-01T00:00:00Z", "digest": str(subject.digest)}]},
        },
    )
    expected.digests[digest] = response
    expected.tags["v1"] = subject.digest
    expected.referrers[subject.digest] = [sbom.digest]
    return expected


def zot(directory: Path) -> Expected:
    """Modes 0600 and 0700, compact, no mediaType; untagged rows; `.uploads` and `.sync`."""
    expected = Expected()
    one, two = images.image("one"), images.image("two")
    put_image(directory, one, expected)
    put_image(directory, two, expected)
    rows = [images.row(one, "v1"), images.row(two), images.row(one, "latest")]
    finish(directory, {"schemaVersion": 2, "manifests": rows})
    (directory / ".uploads").mkdir()
    (directory / ".uploads" / "b0a2c1de-0000-4000-8000-000000000000").write_bytes(b"half")
    (directory / ".sync" / "b0a2c1de-0000-4000-8000-000000000001").mkdir(parents=True)
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    expected.tags |= {"v1": one.digest, "latest": one.digest}
    return expected


def nested(directory: Path) -> Expected:
    """An index of an index of an image, no row but the outermost; one child is not there."""
    expected = Expected()
    made = images.image("deep")
    put_image(directory, made, expected)
    inner = images.index([(made.digest, len(made.manifest)), (digest_of(b"absent"), 7)])
    outer = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [images.descriptor(inner, OCI_INDEX)]}
    ).encode()
    for body in (inner, outer):
        expected.digests[put_blob(directory, body)] = body
    row = images.descriptor(outer, OCI_INDEX) | {"annotations": {REF: "deep"}}
    finish(directory, {"schemaVersion": 2, "manifests": [row]})
    expected.tags["deep"] = digest_of(outer)
    return expected


def referrer_in_index(directory: Path) -> Expected:
    """A referrer that only an index names, whose subject is nowhere."""
    expected = Expected()
    subject = digest_of(b"somewhere else")
    sbom = images.image("sbom", layers=1, subject=subject)
    put_image(directory, sbom, expected)
    body = images.index([(sbom.digest, len(sbom.manifest))])
    expected.digests[put_blob(directory, body)] = body
    finish(directory, {"schemaVersion": 2, "manifests": [images.descriptor(body, OCI_INDEX)]})
    expected.referrers[subject] = [sbom.digest]
    return expected


def by_hand(directory: Path) -> Expected:
    """Unknown fields everywhere, rows that mean nothing, an unknown media type, files of somebody."""
    expected = Expected()
    made = images.image("hand")
    put_image(directory, made, expected)
    thing = b'{"what":"ever"}'
    expected.digests[put_blob(directory, thing)] = thing
    rows: list[object] = [
        {"mediaType": OCI_MANIFEST, "digest": "md5:00", "size": 1, "annotations": {REF: "gone"}},
        images.row(made, "v1", platform={"os": "linux", "architecture": "amd64"}, **{"x-unknown": [1, {"y": None}]}),
        images.descriptor(thing, "application/vnd.thing") | {"annotations": {REF: "thing"}},
    ]
    document = {
        "x-before": 1.0, "manifests": rows, "annotations": {"k": "v"}, "subject": None, "schemaVersion": 2,
        "x-after": {"a": []}, "config": images.descriptor(b"{}", "application/json"),
    }  # fmt: skip
    finish(directory, json.dumps(document, indent="\t"))
    (directory / "README").write_text("mine")
    (directory / "notes").mkdir()
    expected.tags |= {"v1": made.digest, "thing": digest_of(thing)}
    return expected


TOOLS: list[Callable[[Path], Expected]] = [
    skopeo, skopeo_all, umoci, umoci_init, buildah, buildkit, crane, oras, regctl, olareg, zot, nested,
    referrer_in_index, by_hand,
]  # fmt: skip
