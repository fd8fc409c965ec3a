"""What a store holds before a measurement, laid out directly as OCI image layouts, or pushed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Address, Body, Maker, Request, Tally, play, pushes, puts

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF_NAME = "org.opencontainers.image.ref.name"

Descriptor = dict[str, object]


@dataclass(frozen=True)
class Manifest:
    data: bytes
    tag: str = ""

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()


@dataclass
class Repository:
    """Blobs first, then manifests that use them."""

    blobs: list[Body] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)


Content = dict[str, Repository]


def describe(body: Body, media_type: str = _LAYER) -> Descriptor:
    return {"mediaType": media_type, "digest": body.digest, "size": body.size}


def manifest(
    config: Body, layers: Sequence[Body], *, mark: str, tag: str = "", subject: Descriptor | None = None
) -> Manifest:
    """An image; `mark` makes it unlike the others."""
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(config, _CONFIG),
        "layers": [describe(layer) for layer in layers],
        "annotations": {"com.example.mark": mark},
    }
    if subject:
        fields |= {"artifactType": "application/vnd.example.attached", "subject": subject}
    return Manifest(json.dumps(fields).encode(), tag)


def tagged(count: int) -> Repository:
    """`count` tags t0, t1, ... on as many images, which share one config and one layer."""
    config, layer = Body(300), Body(2000)
    images = [manifest(config, [layer], mark=f"laid {i}", tag=f"t{i}") for i in range(count)]
    return Repository([config, layer], images)


def many_repositories(count: int) -> Content:
    """A catalog of `count` repositories with one image each."""
    return {f"many/r{i:04}": tagged(1) for i in range(count)}


def images(repositories: int, each: int, blobs: int) -> Content:
    """`each` images a repository, with a config and `blobs` - 1 layers of their own."""
    return {f"store/r{i:03}": _own_blobs(each, blobs) for i in range(repositories)}


def _own_blobs(each: int, blobs: int) -> Repository:
    repository = Repository()
    for i in range(each):
        config, *layers = (Body(1024) for _ in range(blobs))
        repository.blobs += [config, *layers]
        repository.manifests.append(manifest(config, layers, mark=str(i), tag=f"t{i}"))
    return repository


def referred(count: int) -> Repository:
    """One image, tagged t0, and `count` untagged artifacts that have it as their subject."""
    repository = tagged(1)
    config, layer = repository.blobs
    first = repository.manifests[0]
    subject: Descriptor = {"mediaType": MANIFEST, "digest": first.digest, "size": len(first.data)}
    for i in range(count):
        repository.manifests.append(manifest(config, [layer], mark=f"artifact {i}", subject=subject))
    return repository


def large(count: int, size: int) -> Repository:
    """One image, tagged t0, with `count` layers of `size` bytes."""
    config, layers = Body(300), [Body(size) for _ in range(count)]
    return Repository([config, *layers], [manifest(config, layers, mark="large", tag="t0")])


def lay_out(root: str, content: Content) -> None:
    """One OCI image layout a repository under `root`."""
    for name, repository in content.items():
        _lay_out(os.path.join(root, *name.split("/")), repository)


def _lay_out(path: str, repository: Repository) -> None:
    blobs = os.path.join(path, "blobs", "sha256")
    os.makedirs(blobs)
    for body in repository.blobs:
        body.write(os.path.join(blobs, body.digest.removeprefix("sha256:")))
    for image in repository.manifests:
        _write(os.path.join(blobs, image.digest.removeprefix("sha256:")), image.data)
    _write(os.path.join(path, "index.json"), index_of(repository))
    _write(os.path.join(path, "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')


def index_of(repository: Repository) -> bytes:
    """Its index.json."""
    rows = [_row(image) for image in repository.manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": rows}).encode()


def _row(image: Manifest) -> dict[str, object]:
    row: dict[str, object] = {"mediaType": MANIFEST, "digest": image.digest, "size": len(image.data)}
    return row | ({"annotations": {_REF_NAME: image.tag}} if image.tag else {})


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def push(address: Address, content: Content, prefix: str = "", connections: int = 8) -> None:
    """The same by the wire. Raises RuntimeError if something is refused."""
    maker = Maker(address)
    for name, repository in content.items():
        bodies, path = iter(repository.blobs), prefix + name
        tally = Tally()
        play(address, [pushes(tally, maker, path, bodies) for _ in range(connections)], tally)
        requests = manifest_puts(maker, path, repository.manifests)
        play(address, [puts(tally, requests) for _ in range(connections)], tally)
        if tally.errors:
            raise RuntimeError(tally.complaint)


def manifest_puts(maker: Maker, repository: str, manifests: list[Manifest]) -> Iterator[Request]:
    for image in manifests:
        yield maker.put(f"/v2/{repository}/manifests/{image.tag or image.digest}", image.data, MANIFEST)
