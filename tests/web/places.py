"""Both kinds of store in memory, with content to look at, and HTML that is read as a browser reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, push_blob, push_image, store_over
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import EMPTY, OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store
from zotctl.web.render import render

VOID = {"meta", "input", "br", "rect", "link", "hr"}
COMMON = {"site": "registry.test", "user": "ann", "offers_login": False, "shows_health": True}
REGISTRY = {"host": "registry.test", "plain": True, "loopback": False}
EVIL = "\"><script>alert(1)</script>&'\u202e"


class Place:
    """A store, and what it lies in."""

    def __init__(self, kind: str) -> None:
        self.clock = Hand()
        self.memory = MemoryObjects(self.clock.now)
        self.driver = MemoryDriver(clock=lambda: int(self.clock.at * 1e9))
        self.kind = kind
        self.store = self.open()

    def open(self) -> Store:
        """As another process does it."""
        if self.kind == "bucket":
            return bucket_store(self.memory, self.clock)
        return store_over(self.driver, clock=self.clock)


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(request.param)


def put(store: Store, name: str, document: dict[str, object], *tags: str) -> Digest:
    body = json.dumps(document).encode()
    manifest = check_manifest(body, str(document["mediaType"]))
    store.repository_for_push(name).put_manifest(manifest, body, tags)
    return manifest.digest


def push_platforms(store: Store, name: str, *tags: str, seed: str = "m", **extra: object) -> Digest:
    """An index of two images that share nothing."""
    rows = []
    for arch in ("amd64", "arm64"):
        digest = push_image(store, name, seed=f"{seed}-{arch}")
        size = store.repository(name).manifest(digest).size
        platform = {"os": "linux", "architecture": arch}
        rows.append({"mediaType": OCI_MANIFEST, "digest": str(digest), "size": size, "platform": platform})
    return put(store, name, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows, **extra}, *tags)


def push_artifact(store: Store, name: str, subject: Digest | None, kind: str, *tags: str, **more: str) -> Digest:
    repository = store.repository_for_push(name)
    for blob in (b"{}", kind.encode()):
        push_blob(repository, blob)
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": images.descriptor(b"{}", EMPTY),
        "layers": [images.descriptor(kind.encode(), "text/plain")],
        "annotations": {"org.opencontainers.image.created": "2026-11-21T10:00:00Z", **more},
    }
    if subject is not None:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 7}
    return put(store, name, document, *tags)


def size_of(store: Store, name: str, *digests: str) -> int:
    return sum(len(store.repository(name).manifest(digest).body) for digest in digests)


class Page(HTMLParser):
    """What is on a page: elements with their attributes, and the text of each."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._open: list[tuple[str, int]] = []
        self._texts: list[list[str]] = []
        self.feed(html.decode())
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._texts.append([])
        if tag not in VOID:
            self._open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._texts.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1][0] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for _, place in self._open:
            self._texts[place].append(data)

    def all(self, tag: str, **attributes: str) -> Iterator[tuple[dict[str, str], str]]:
        """Attributes and text of each such element."""
        for (name, found), text in zip(self.elements, self._texts, strict=True):
            if name == tag and attributes.items() <= found.items():
                yield found, " ".join("".join(text).split())

    def texts(self, tag: str, **attributes: str) -> list[str]:
        return [text for _, text in self.all(tag, **attributes)]

    def rows(self) -> list[list[str]]:
        """The cells of the rows of all tables, without their heads."""
        found: list[list[str]] = []
        for (tag, attributes), text in zip(self.elements, self._texts, strict=True):
            shown = " ".join("".join(text).split())
            if tag == "tr":
                found.append([])
            elif tag in ("td", "th") and attributes.get("scope") != "col":
                found[-1].append(shown)
        return [row for row in found if row]


def page(template: str, **values: object) -> Page:
    return Page(render(template, {**COMMON, **values}))


def wrong_body(place: Place, name: str, digest: Digest, body: bytes) -> None:
    """Behind the store's back."""
    key = f"{name}/blobs/sha256/{digest.encoded}"
    if place.kind == "bucket":
        place.memory.stored[key] = place.memory.stored[key]._replace(body=body)
    else:
        with place.driver.create(f"{key}.new") as writer:
            writer.write([body])
        place.driver.rename(f"{key}.new", key)


def blobs_of(seed: str) -> list[Digest]:
    return [digest_of(blob) for blob in images.image(seed).blobs]
