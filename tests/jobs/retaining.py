"""For the tests of retention: the same repository in a directory and in a bucket, with a clock that a test turns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.jobs.test_gc import DELAY, Hand, collect
from tests.stores import bucket_store, probed, push_blob, push_image, store_over
from zotctl.config import KeepTags, Policy, Retention
from zotctl.errors import ManifestUnknown, NameUnknown
from zotctl.jobs.report import Report
from zotctl.jobs.retention import Rules
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store
from zotctl.storage.driver import read

NAME = "app"
KINDS = ("directory", "bucket")


class Place:
    """One repository, its store, and collections in it."""

    def __init__(self, kind: str) -> None:
        self.clock, self.kind = Hand(), kind
        self.driver = MemoryDriver(clock=self.clock.now_ns)
        self.memory = MemoryObjects(self.clock.now)
        probed(self.memory)
        self.store = self.another()

    def another(self) -> Store:
        """As another process opens it."""
        if self.kind == "bucket":
            return bucket_store(self.memory, self.clock, delay=DELAY)
        return store_over(self.driver, clock=self.clock)

    def later(self, delays: float = 1.5) -> None:
        self.clock.at += delays * DELAY

    def push(self, *tags: str, seed: str = "x", subject: Digest | None = None) -> Digest:
        self.clock.at += 10
        return push_image(self.store, NAME, *tags, seed=seed, subject=subject)

    def sign(self, digest: Digest, suffix: str = ".sig", seed: str = "") -> Digest:
        """As cosign does, by a tag; returns the digest of the signature."""
        return self.push(cosign_tag(digest, suffix), seed=seed or f"{suffix} of {digest}")

    def index(self, *tags: str, children: list[Digest], **extra: Any) -> Digest:
        self.clock.at += 10
        repository = self.store.repository(NAME)
        body = images.index([(child, repository.manifest(child).size) for child in children], **extra)
        manifest = check_manifest(body, OCI_INDEX)
        self.store.repository_for_push(NAME).put_manifest(manifest, body, tags)
        return manifest.digest

    def push_sha512(self, *tags: str, seed: str) -> Digest:
        self.clock.at += 10
        made, repository = images.image(seed), self.store.repository_for_push(NAME)
        for body in made.blobs:
            push_blob(repository, body)
        manifest = check_manifest(made.manifest, OCI_MANIFEST, algorithm="sha512")
        repository.put_manifest(manifest, made.manifest, tags)
        return manifest.digest

    def rewrite(self, change: Any) -> None:
        """What another tool does to index.json, as a value."""
        self.store.close()
        if self.kind == "bucket":
            body = json.loads(self.memory.stored[f"{NAME}/index.json"].body)
            change(body)
            self.memory.put(f"{NAME}/index.json", json.dumps(body).encode())
        else:
            body = json.loads(read(self.driver, f"{NAME}/index.json", 1 << 20))
            change(body)
            self.driver.unlink(f"{NAME}/index.json")
            with self.driver.create(f"{NAME}/index.json") as writer:
                writer.write([json.dumps(body).encode()])
        self.store = self.another()

    def collect(self, *policies: Policy, foreign: bool = False, delay: float = DELAY, **options: Any) -> Report:
        """As a process of its own does it: what servers remember was written before."""
        self.store.close()
        self.store = self.another()
        retention = Retention(policies=policies) if policies else None
        report = collect(self.store, delay, rules=Rules(retention, delay, foreign=foreign), **options)
        assert (report.errors, report.findings) == ([], [])
        return report

    def rounds(self, *policies: Policy, count: int = 4, foreign: bool = False) -> None:
        """Collections, each a while after the last one."""
        for _ in range(count):
            self.later()
            self.collect(*policies, foreign=foreign)

    @property
    def tags(self) -> list[str]:
        return self.store.repository(NAME).tags()

    def has(self, digest: Digest) -> bool:
        """Is it served, with the bytes of all that it names?"""
        try:
            repository = self.store.repository(NAME)
            stored = repository.manifest(digest)
        except (ManifestUnknown, NameUnknown):
            return False
        manifest = check_manifest(stored.body, stored.media_type, algorithm=digest.algorithm)
        for blob in manifest.blobs:
            with repository.open_blob(parse_digest(blob.digest)) as reader:
                assert reader.size == blob.size
        return True


def places(kind: str) -> Iterator[Place]:
    """For a fixture: one that is closed at the end."""
    made = Place(kind)
    yield made
    made.store.close()


def cosign_tag(digest: Digest, suffix: str = ".sig") -> str:
    return f"{digest.algorithm}-{digest.encoded}{suffix}"


def keep(count: int, *patterns: str, referrers: bool = True, **fields: Any) -> Policy:
    """The tags pushed last."""
    newest = KeepTags(patterns=patterns, most_recently_pushed_count=count)
    return Policy(("**",), delete_referrers=referrers, keep_tags=(newest,), **fields)
