"""Images for tests, made here and the same at each run, so that digests are fixed."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    manifest: bytes
    blobs: list[bytes]
    """The config, then the layers."""

    @property
    def digest(self) -> Digest:
        return digest_of(self.manifest)


def descriptor(body: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest_of(body)), "size": len(body)}


def layer(text: str) -> tuple[bytes, str]:
    """A real layer, tar + gzip with no time in it, and its diff id."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        info = tarfile.TarInfo(f"file-{digest_of(text.encode()).encoded[:8]}")
        info.size = len(text.encode())
        tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(raw.getvalue(), mtime=0), str(digest_of(raw.getvalue()))


def image(seed: str = "x", layers: int = 2, subject: Digest | None = None, **extra: object) -> Image:
    made = [layer(f"{seed} {number} " * 50) for number in range(layers)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]},
            "history": [{"created_by": seed} for _ in made],
        }
    ).encode()
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(body, LAYER) for body, _ in made],
        **extra,
    }
    if subject is not None:
        manifest["subject"] = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 7}
    return Image(json.dumps(manifest).encode(), [config, *(body for body, _ in made)])


def index(children: list[tuple[Digest, int]], **extra: object) -> bytes:
    rows = [
        {
            "mediaType": OCI_MANIFEST,
            "digest": str(digest),
            "size": size,
            "platform": {"os": "linux", "architecture": ("amd64", "arm64", "s390x")[number % 3]},
        }
        for number, (digest, size) in enumerate(children)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows, **extra}).encode()


def build_cache(seed: str = "cache") -> tuple[bytes, list[bytes]]:
    """As BuildKit exports one with `image-manifest=false`: an index that lists layers and a config of the cache, which
    are all blobs. The index, and these."""
    layers = [layer(f"{seed} {number} " * 50) for number in range(2)]
    config = {
        "layers": [{"blob": str(digest_of(body)), "parent": at - 1} for at, (body, _) in enumerate(layers)],
        "records": [{"digest": str(digest_of(seed.encode())), "layers": [{"layer": 0}]}],
    }
    body = json.dumps(config).encode()
    listed = [
        descriptor(blob, LAYER) | {"annotations": {"containerd.io/uncompressed": diff_id}} for blob, diff_id in layers
    ]
    listed.append(descriptor(body, "application/vnd.buildkit.cacheconfig.v0"))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    return json.dumps(index).encode(), [*(blob for blob, _ in layers), body]


def lay_out(directory: Path, made: Image, rows: list[dict[str, object]] | None = None, **index_fields: object) -> Path:
    """An image layout on disk, as another tool would leave it (image-spec, image-layout.md)."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for body in [made.manifest, *made.blobs]:
        (blobs / digest_of(body).encoded).write_bytes(body)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    row = descriptor(made.manifest, OCI_MANIFEST)
    document = {"schemaVersion": 2, "manifests": rows if rows is not None else [row], **index_fields}
    (directory / "index.json").write_text(json.dumps(document, indent=2))
    return directory


def row(made: Image, name: str | None = None, **fields: object) -> dict[str, object]:
    found = descriptor(made.manifest, OCI_MANIFEST) | fields
    if name is not None:
        found["annotations"] = {"org.opencontainers.image.ref.name": name}
    return found
