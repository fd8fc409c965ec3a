"""Images in the form of `docker save`: a manifest.json that names, by paths in the archive, a config and the tars of
layers (moby, "Docker Image Specification v1.2", "Combined Image JSON + Filesystem Changeset Format").

Config and layers are taken as they are, and each layer must match its diff_id in the config. Only the manifest is made
here, from nothing but these bytes, so that the same archive gives the same digest each time; it is the one that Docker
since 25 writes itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zotctl.errors import LayoutInvalid, quoted
from zotctl.jobs.finding import Finding, Kind
from zotctl.jobs.imports.members import OTHER_TEXT_BYTES, Blob, LayoutBlobs, Members, below
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest
from zotctl.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from zotctl.oci.reference import tag_names
from zotctl.storage.cache import Lru
from zotctl.storage.tar import MOST_MEMBERS

CONFIGS_BYTES = 64 << 20
"""The most bytes that configs take which were read."""
_HEX_NAME = re.compile(r"(?:sha256:)?([a-f0-9]{64})(?:\.json)?").fullmatch


@dataclass(frozen=True)
class DockerImage:
    """An entry of manifest.json. `config` and `layers` are paths."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


@dataclass
class DockerLayout:
    """What an archive of images becomes."""

    index: bytes = b""
    names: dict[str, list[str]] = field(default_factory=dict)
    blobs: LayoutBlobs = field(default_factory=LayoutBlobs)
    findings: list[Finding] = field(default_factory=list)
    """The images that are left out, and why."""


class _Config(NamedTuple):
    """A config, and the digests of the unpacked layers that it lists."""

    blob: Blob
    diff_ids: list[str]


class _Unfit(Exception):
    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def docker_images(body: bytes | None) -> list[DockerImage]:
    """The entries of a manifest.json; none if it is something else. One that is no entry beside others that are is an
    image without a config, which is then missed."""
    with suppress(ValueError):
        found = load_json(body or b"[]")
        images = list(map(_image, found)) if isinstance(found, list) else []
        if any(images):
            return [image or DockerImage("", (), _names(one)) for image, one in zip(images, found, strict=True)]
    return []


def _image(entry: object) -> DockerImage | None:
    """None: it is no entry."""
    if not isinstance(entry, dict) or not isinstance(config := entry.get("Config"), str):
        return None
    layers = entry.get("Layers") or []
    if not isinstance(layers, list) or not all(isinstance(one, str) for one in layers):
        return None
    return DockerImage(config, tuple(layers), _names(entry))


def _names(entry: object) -> tuple[str, ...]:
    names = entry.get("RepoTags") if isinstance(entry, dict) else None
    return tuple(one for one in names if isinstance(one, str)) if isinstance(names, list) else ()


def docker_names(body: bytes | None) -> dict[str, list[str]]:
    """The names of images, by the digest in the name of their config, of an archive that is a layout as well."""
    names: dict[str, list[str]] = {}
    for image in docker_images(body):
        config = image.config.removesuffix(".json").rpartition("/")[2]
        names.setdefault(f"sha256:{config}", []).extend(image.names)
    return names


def docker_layout(
    members: Members,
    place: str,
    images: list[DockerImage],
    take: Callable[[bytes], Blob],
    read: Callable[[Digest], bytes | None],
    unpack: Callable[[Digest, Blob], Blob],
) -> DockerLayout:
    """A layout of these images.

    `place`: the directory of their manifest.json. `take`: stores bytes as a blob. `read`: the bytes of a blob that may
    be a config. `unpack`: looks into a layer that was not looked at as one. Raises LayoutInvalid if it is too much.
    """
    if len(images) + sum(len(image.layers) for image in images) > MOST_MEMBERS:
        raise LayoutInvalid(f"manifest.json lists more than {MOST_MEMBERS} images and layers")
    made, rows = DockerLayout(), dict[str, dict[str, Any]]()
    maker = _Maker(members, place, take, read, unpack)
    for image in images:
        try:
            config, layers = maker.parts(image)
        except _Unfit as error:
            tags = sorted({tag for name in image.names if (tag := tag_names(None, name)[1])})
            made.findings.append(Finding("", None, error.kind, error.reason, tuple(tags), "skip"))
            continue
        manifest = take(_manifest(config, layers))
        made.blobs.present |= {blob.digest: blob for blob in (config, *layers, manifest)}
        made.names.setdefault(config.digest, []).extend(image.names)
        rows.setdefault(manifest.digest, _descriptor(OCI_MANIFEST, manifest))
    made.index = _encoded({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(rows.values())})
    return made


class _Maker:
    def __init__(
        self,
        members: Members,
        place: str,
        take: Callable[[bytes], Blob],
        read: Callable[[Digest], bytes | None],
        unpack: Callable[[Digest, Blob], Blob],
    ) -> None:
        self._members, self._place, self._take, self._read, self._unpack = members, place, take, read, unpack
        self._configs: Lru[str, _Config | _Unfit] = Lru(CONFIGS_BYTES)
        self._unpacked: dict[Digest, Blob] = {}
        """Layers that were looked into: images share them."""

    def parts(self, image: DockerImage) -> tuple[Blob, list[Blob]]:
        """The config and the layers. Raises _Unfit."""
        config, diff_ids = self._config(image.config)
        if len(diff_ids) != len(image.layers):
            reason = f"the config {quoted(image.config)} has {len(diff_ids)} diff_ids for {len(image.layers)} layers"
            raise _Unfit("invalid_manifest", reason)
        return config, list(map(self._layer, image.layers, diff_ids))

    def _path(self, name: str) -> str:
        """Paths start from the directory of manifest.json; some tools put a slash before them."""
        return below(self._place, "/".join(part for part in name.split("/") if part not in ("", ".")))

    def _config(self, name: str) -> _Config:
        """Read once, however many entries name it."""
        path = self._path(name)
        file = self._members.real(path) or path
        known = self._configs.get(file)
        if known is None:
            known, weight = self._read_config(name, path)
            self._configs.put(file, known, weight)
        if isinstance(known, _Unfit):
            raise known
        match = _HEX_NAME(name.rpartition("/")[2])
        if match is not None and match[1] != known.blob.digest.encoded:
            raise _Unfit("digest_mismatch", f"the config {quoted(name)} has the digest {known.blob.digest}")
        return known

    def _read_config(self, name: str, path: str) -> tuple[_Config | _Unfit, int]:
        """With the bytes that it takes in memory, about."""
        body = self._members.text(path)
        blob = self._members.blob(path)
        if body is None and blob is not None:
            if blob.fault:
                return _Unfit("digest_mismatch", f"the config {quoted(name)} is damaged: {blob.fault}"), 1000
            body = self._read(blob.digest) if blob.size <= OTHER_TEXT_BYTES else None
        if body is None:
            reason = f"the config {quoted(name)} is not in the archive, or is no config"
            return _Unfit("missing_blob", reason), 1000
        try:
            diff_ids = _diff_ids(name, body)
        except _Unfit as error:
            return error, 1000
        return _Config(blob or self._take(body), diff_ids), 1000 + 2 * len(body)

    def _layer(self, name: str, diff_id: str) -> Blob:
        blob = self._members.blob(self._path(name))
        if blob is None:
            raise _Unfit("missing_blob", f"the layer {quoted(name)} is not in the archive, or is no tar")
        if not (blob.unpacked or blob.why_not or blob.fault or blob.digest == diff_id):
            if blob.digest not in self._unpacked:
                self._unpacked[blob.digest] = self._unpack(blob.digest, blob)
            blob = self._unpacked[blob.digest]
        if blob.fault:
            raise _Unfit("digest_mismatch", f"the layer {quoted(name)} is damaged: {blob.fault}")
        if diff_id in (blob.digest, blob.unpacked):
            return blob
        if blob.why_not:
            raise _Unfit("unreadable", f"the layer {quoted(name)} can't be checked: {blob.why_not}")
        has = blob.unpacked or blob.digest
        raise _Unfit("digest_mismatch", f"the layer {quoted(name)} has the digest {has}, its config says {diff_id}")


def _diff_ids(name: str, body: bytes) -> list[str]:
    """Docker Image Specification v1.2, "rootfs". Raises _Unfit."""
    with suppress(ValueError, TypeError, AttributeError):
        config = load_json(body)
        found = (config.get("rootfs") or {}).get("diff_ids") or []
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    raise _Unfit("invalid_manifest", f"{quoted(name)} is no config of an image")


def _manifest(config: Blob, layers: list[Blob]) -> bytes:
    listed = [_descriptor(f"{OCI_LAYER}+{one.packing}" if one.packing else OCI_LAYER, one) for one in layers]
    head = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    return _encoded({**head, "config": _descriptor(OCI_CONFIG, config), "layers": listed})


def _descriptor(media_type: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
