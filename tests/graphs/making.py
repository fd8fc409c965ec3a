"""A graph from its number: blobs first, then manifests of what is there already, to any depth and without a circle.

Most of what tools do wrong is in it: claims that the bytes contradict, fields of the other shape, keys in another case
or twice, indexes that list layers, parts that are damaged or missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests import images
from tests.graphs.oracle import pairs_of
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import REF_NAME

CACHE = "application/vnd.buildkit.cacheconfig.v0"
MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
ABSENT = str(digest_of(b"nobody has this"))


@dataclass
class Graph:
    """`bodies`: all that was ever in it, by digest. `missing` are not there, and a byte of `damaged` is another one."""

    seed: int
    bodies: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    """Of manifests: what they are."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    quirks: set[str] = field(default_factory=set)
    """What is odd about it."""

    @property
    def stored(self) -> dict[str, bytes]:
        there = {digest: body for digest, body in self.bodies.items() if digest not in self.missing}
        return {digest: spoilt(body) if digest in self.damaged else body for digest, body in there.items()}

    @property
    def index(self) -> bytes:
        return json.dumps({"schemaVersion": 2, "manifests": self.rows}).encode()

    @property
    def heads(self) -> list[str]:
        return [row["digest"] for row in self.rows]


def spoilt(body: bytes) -> bytes:
    """Still JSON, if it was; and of the same length."""
    return body[:-1] + b" " if body.endswith(b"\n") else body[:-1] + bytes([body[-1] ^ 1])


def graph_of(seed: int, *, harm: bool | None = None) -> Graph:
    """`harm`: shall something be damaged or missing? None: as the number has it."""
    rng = Random(seed)
    made = _Making(rng, Graph(seed))
    made.blobs(rng.randint(2, 9))
    for _ in range(rng.choice([1, 2, 3, 5, 8, 12])):
        made.manifest()
    made.rows()
    if rng.random() < 0.4 if harm is None else harm:
        made.harm()
    return made.graph


class _Making:
    def __init__(self, rng: Random, graph: Graph) -> None:
        self._rng, self.graph = rng, graph
        self._quirky = rng.random() < 0.6
        self._blobs: list[str] = []

    def blobs(self, count: int) -> None:
        """Also some that look a little like manifests."""
        for number in range(count):
            body = f"blob {number} of {self.graph.seed}\n".encode()
            if self._rng.random() < 0.2:
                body = json.dumps({"config": {"digest": ABSENT}, "n": number}).encode() + b"\n"
            self._blobs.append(self._enter(body))

    def _enter(self, body: bytes) -> str:
        digest = str(digest_of(body))
        self.graph.bodies[digest] = body
        return digest

    def _odd(self, quirk: str, chance: float) -> bool:
        if not (self._quirky and self._rng.random() < chance):
            return False
        self.graph.quirks.add(quirk)
        return True

    # -- manifests ------------------------------------------------------------------------------

    def manifest(self) -> None:
        is_index = bool(self.graph.types) and self._rng.random() < 0.5
        fields = self._index_fields() if is_index else self._image_fields()
        if self._odd("both shapes", 0.15):
            fields += self._image_fields() if is_index else self._index_fields()
        if self.graph.types and self._rng.random() < 0.3:
            self.graph.quirks.add("a subject")
            fields.append(("subject", self._manifest_descriptor()))
        elif self._rng.random() < 0.1:
            fields.append(("subject", {"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 7}))
        if fields and self._odd("another case", 0.1):
            at = self._rng.randrange(len(fields))
            fields[at] = (fields[at][0].title(), fields[at][1])
        if fields and self._odd("a key twice", 0.1):
            fields.append((fields[0][0], (self._index_fields() if is_index else self._image_fields())[0][1]))
        media_type = self._rng.choice([OCI_INDEX, DOCKER_LIST] if is_index else [OCI_MANIFEST, DOCKER_MANIFEST])
        said = self._rng.choice(MANIFEST_TYPES) if self._odd("a wrong type within", 0.1) else media_type
        head: list[tuple[str, Any]] = [("schemaVersion", 2)]
        head += [] if self._rng.random() < 0.2 else [("mediaType", said)]
        text = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head + fields)
        digest = self._enter(f"{{{text}}}\n".encode())
        self.graph.types[digest] = media_type

    def _image_fields(self) -> list[tuple[str, Any]]:
        layers = [self._descriptor(self._rng.choice(self._blobs), images.LAYER) for _ in range(self._rng.randint(0, 3))]
        return [("config", self._descriptor(self._rng.choice(self._blobs), images.CONFIG)), ("layers", layers)]

    def _index_fields(self) -> list[tuple[str, Any]]:
        if not self.graph.types:
            return [("manifests", [])]
        children = [self._manifest_descriptor() for _ in range(self._rng.randint(0, 4))]
        if self._odd("leaves", 0.3):
            kind = self._rng.choice([images.LAYER, CACHE])
            children.append(self._descriptor(self._rng.choice(self._blobs), kind))
        return [("manifests", children)]

    def _manifest_descriptor(self) -> dict[str, Any]:
        digest = self._rng.choice(list(self.graph.types)[-6:])
        claimed = self._rng.choice(MANIFEST_TYPES) if self._odd("a wrong claim", 0.1) else self.graph.types[digest]
        return self._descriptor(digest, claimed)

    def _descriptor(self, digest: str, media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest, "size": len(self.graph.bodies[digest])}

    # -- index.json, and what happened to it ------------------------------------------------------

    def rows(self) -> None:
        """Some manifests are listed, some of them twice, and some not: then they are children, subjects or garbage."""
        for digest, media_type in self.graph.types.items():
            for _ in range(self._rng.choice([0, 1, 1, 1, 2])):
                claimed = self._rng.choice(MANIFEST_TYPES) if self._odd("a wrong row", 0.1) else media_type
                row = self._descriptor(digest, claimed)
                if self._rng.random() < 0.7:
                    row["annotations"] = {REF_NAME: f"t{len(self.graph.rows)}"}
                self.graph.rows.append(row)

    def harm(self) -> None:
        for digest in self._rng.sample(list(self.graph.bodies), min(len(self.graph.bodies), self._rng.randint(1, 3))):
            (self.graph.missing if self._rng.random() < 0.5 else self.graph.damaged).add(digest)


def is_manifest(body: bytes) -> bool:
    return bool(pairs_of(body))
