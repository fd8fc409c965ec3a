"""Small images for the simulation: `c1` and `l1` are blobs, `m1` a manifest of both, `x1` an index of manifests,
`r1` a referrer. A digest's name is what traces show."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tests import images
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import Manifest, check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST


@dataclass(frozen=True)
class Image:
    """A manifest with what it references; `blobs` by digest with their bytes."""

    name: str
    body: bytes
    digest: Digest
    manifest: Manifest
    media_type: str
    blobs: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    subject: str = ""


BODIES: dict[str, bytes] = {}
"""Of blobs, by digest."""
NAMES: dict[str, str] = {}
MANIFESTS: dict[str, Image] = {}
IMAGES: dict[str, Image] = {}


def blob(name: str) -> Digest:
    body = f"the content of {name}".encode()
    digest = digest_of(body)
    BODIES[digest], NAMES[digest] = body, name
    return digest


def _enter(name: str, body: bytes, media_type: str, **more: object) -> Image:
    digest = digest_of(body)
    made = Image(name, body, digest, check_manifest(body, media_type), media_type, **more)  # type: ignore[arg-type]
    NAMES[digest] = name
    MANIFESTS[digest] = IMAGES[name] = made
    return made


def image(name: str, config: str, *layers: str, subject: str = "") -> Image:
    blobs = [blob(config), *map(blob, layers)]
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": images.descriptor(BODIES[blobs[0]], images.CONFIG),
        "layers": [images.descriptor(BODIES[digest], images.LAYER) for digest in blobs[1:]],
    }
    if subject:
        about = IMAGES[subject]
        document["subject"] = images.descriptor(about.body, OCI_MANIFEST)
        subject = about.digest
    return _enter(name, json.dumps(document).encode(), OCI_MANIFEST, blobs=tuple(blobs), subject=subject)


def index(name: str, *children: str) -> Image:
    found = [IMAGES[child] for child in children]
    body = images.index([(child.digest, len(child.body)) for child in found])
    return _enter(name, body, OCI_INDEX, children=tuple(child.digest for child in found))


M0 = image("m0", "c0", "l0")
"""In every world, tagged `t`."""
M1 = image("m1", "c1", "l1")
"""Its blobs lie unreferenced and old in `a`."""
M2 = image("m2", "c2", "l2")
"""Its blobs lie in the trash of `a`."""
M3 = image("m3", "c1", "l0")
M4 = image("m4", "c4", "l4")
"""An untagged row of `a`, old enough to be dropped."""
M5 = image("m5", "c5", "l5")
"""New everywhere."""
M6 = image("m6", "c2", "l1", "l4")
"""Something trashed, something unreferenced, something that is going to be dropped."""
F1 = image("f1", "c1", "l1", "l1")
F2 = image("f2", "c2", "l2", "l2")
"""What a foreign tool pushes of the same blobs."""
X1 = index("x1", "m4", "m0")
X2 = index("x2", "m1", "m5")
R1 = image("r1", "c5", subject="m4")


@lru_cache(10_000)
def reach(digests: frozenset[str]) -> frozenset[str]:
    """What must be there: rows, children, blobs; not subjects, which may be missing."""
    found: set[str] = set()
    todo = list(digests)
    while todo:
        digest = todo.pop()
        if digest not in found:
            found.add(digest)
            if (known := MANIFESTS.get(digest)) is not None:
                todo += [*known.blobs, *known.children]
    return frozenset(found)


@lru_cache(10_000)
def subjects(digests: frozenset[str]) -> frozenset[str]:
    """What referrers among the rows keep, if it is there, with all that it needs."""
    return reach(subject_roots(digests))


@lru_cache(10_000)
def subject_roots(digests: frozenset[str]) -> frozenset[str]:
    about: Iterable[str] = (MANIFESTS[d].subject for d in reach(digests) if d in MANIFESTS)
    return frozenset(filter(None, about))


def readable(text: str) -> str:
    """Digests by the names that the contents have in these tests."""
    for digest, name in NAMES.items():
        text = text.replace(digest, name).replace(digest[7:], name)
    return text
