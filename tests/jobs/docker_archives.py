"""Archives in the form of `docker save`, as the tools write them that can't all run here. The bytes are ours, and the
same at each run; the names and the order are theirs."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable

from tests.images import Image
from tests.jobs.importing import header
from zotctl.oci.digest import digest_of

Members = list[tuple[str, bytes] | tarfile.TarInfo]
Entry = tuple[str, list[str]]
"""The paths of a config and of its layers."""


def plain_layers(made: Image) -> list[bytes]:
    return [gzip.decompress(body) for body in made.blobs[1:]]


def _hex(body: bytes) -> str:
    return digest_of(body).encoded


def _docker(made: Image, members: Members) -> Entry:
    """Before Docker 25: a directory for each layer, with an id that is no digest of it."""
    paths = []
    for number, body in enumerate(plain_layers(made)):
        place = _hex(b"id %d" % number + made.manifest)
        members += [
            header(f"{place}/", tarfile.DIRTYPE), (f"{place}/VERSION", b"1.0"), (f"{place}/json", b'{"id":"x"}'),
            (f"{place}/layer.tar", body),
        ]  # fmt: skip
        paths.append(f"{place}/layer.tar")
    config = f"{_hex(made.blobs[0])}.json"
    members.append((config, made.blobs[0]))
    return config, paths


def _docker_links(made: Image, members: Members) -> Entry:
    """Docker 1.10 to 24: a layer that is in it already is a link, which its manifest.json names."""
    config, paths = _docker(made, members)
    links = []
    for number, path in enumerate(paths):
        place = _hex(b"again %d" % number + made.manifest)
        members.append(header(f"{place}/layer.tar", tarfile.SYMTYPE, linkname=f"../{path}"))
        links.append(f"{place}/layer.tar")
    return config, links


def _podman(made: Image, members: Members) -> Entry:
    """podman, buildah, skopeo: layers by their diff_id, and links as the older form had files."""
    paths = [f"{_hex(body)}.tar" for body in plain_layers(made)]
    members += zip(paths, plain_layers(made), strict=True)
    config = f"{_hex(made.blobs[0])}.json"
    members.append((config, made.blobs[0]))
    for path in paths:
        place = _hex(path.encode())
        members += [header(f"{place}/layer.tar", tarfile.SYMTYPE, linkname=f"../{path}"), (f"{place}/VERSION", b"1.0")]
    return config, paths


def _crane(made: Image, members: Members) -> Entry:
    """crane, ko, kaniko: gzip as it came from the registry."""
    config, paths = f"sha256:{_hex(made.blobs[0])}", [f"{_hex(body)}.tar.gz" for body in made.blobs[1:]]
    members += [(config, made.blobs[0]), *zip(paths, made.blobs[1:], strict=True)]
    return config, paths


def _jib(made: Image, members: Members) -> Entry:
    paths = [f"{_hex(body)}.tar.gz" for body in made.blobs[1:]]
    members += [*zip(paths, made.blobs[1:], strict=True), ("config.json", made.blobs[0])]
    return "config.json", paths


def _nix(made: Image, members: Members) -> Entry:
    config, paths = f"{_hex(made.blobs[0])}.json", [f"{_hex(body)}/layer.tar" for body in plain_layers(made)]
    members += [*zip((f"./{path}" for path in paths), plain_layers(made), strict=True), (f"./{config}", made.blobs[0])]
    return config, paths


def _rules_oci(made: Image, members: Members) -> Entry:
    config = f"blobs/sha256/{_hex(made.blobs[0])}"
    paths = [f"blobs/sha256/{_hex(body)}.tar.gz" for body in made.blobs[1:]]
    members += [(config, made.blobs[0]), *zip(paths, made.blobs[1:], strict=True)]
    return config, paths


SHAPES: dict[str, Callable[[Image, Members], Entry]] = {
    "docker": _docker, "docker-links": _docker_links, "podman": _podman, "crane": _crane, "jib": _jib, "nix": _nix,
    "rules_oci": _rules_oci,
}  # fmt: skip
PLAIN = ("docker", "docker-links", "podman", "nix")
"""Those whose layers are not packed."""


def saved(shape: str, *images: tuple[Image, list[str] | None]) -> Members:
    """The members of an archive of images with these names."""
    members: Members = []
    entries = []
    for made, names in images:
        config, layers = SHAPES[shape](made, members)
        entries.append({"Config": config, "RepoTags": names, "Layers": layers})
    prefix = "./" if shape == "nix" else ""
    return [*members, (f"{prefix}manifest.json", json.dumps(entries).encode()), (f"{prefix}repositories", b"{}")]
