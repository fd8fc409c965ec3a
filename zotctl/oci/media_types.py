"""Media types: image-spec, media-types.md, and the Docker types it is compatible with."""

from __future__ import annotations

import re

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
"""Of the release candidates of image-spec 1.1: read where it is found, and never accepted."""
BUILDKIT_CACHE = "application/vnd.buildkit.cacheconfig.v0"

_IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_KNOWN = _IMAGES | _INDEXES | {ARTIFACT}
_PLAIN = frozenset({OCI_CONFIG, DOCKER_CONFIG, EMPTY, BUILDKIT_CACHE})
_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_NONDISTRIBUTABLE = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_RESTRICTED_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_is_media_type = re.compile(f"{_RESTRICTED_NAME}/{_RESTRICTED_NAME}").fullmatch
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f]*")'
_is_with_parameters = re.compile(
    rf"{_RESTRICTED_NAME}/{_RESTRICTED_NAME}(?:[ \t]*;[ \t]*(?:{_TOKEN}={_VALUE})?)*"
).fullmatch


def is_media_type(text: str, *, parameters: bool = False) -> bool:
    """Whether `text` follows the grammar of RFC 6838, section 4.2: type and subtype; `parameters`: or with parameters,
    as in a Content-Type."""
    return (_is_with_parameters if parameters else _is_media_type)(text) is not None


def is_image(media_type: str) -> bool:
    """Whether it is a manifest with a config and layers."""
    return media_type in _IMAGES


def is_index(media_type: str) -> bool:
    """Whether it is a manifest that lists manifests."""
    return media_type in _INDEXES


def is_artifact(media_type: str) -> bool:
    """Whether it is an artifact manifest, which the image-spec had before it was 1.1."""
    return media_type == ARTIFACT


def is_docker(media_type: str) -> bool:
    """Whether it is a Docker schema 2 manifest or list."""
    return media_type in (DOCKER_MANIFEST, DOCKER_LIST)


def is_manifest_type(media_type: str) -> bool:
    """Whether it is the type of a manifest that we can read, so that all that it references is known."""
    return media_type in _KNOWN


def is_plain(media_type: str) -> bool:
    """Whether it is a layer or a config: content that is fetched as a blob, and in which no client looks for
    descriptors of other content."""
    return media_type in _PLAIN or media_type.startswith(_LAYERS)


def is_nondistributable(media_type: str) -> bool:
    """Whether a layer of this type may be absent from a registry, in any compression."""
    return media_type.startswith(_NONDISTRIBUTABLE)


def essence(content_type: str) -> str:
    """A Content-Type header without its parameters, in lower case, since types have no case."""
    return content_type.partition(";")[0].strip().lower()
