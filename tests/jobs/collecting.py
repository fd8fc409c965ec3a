"""A store in memory and a clock by hand, for the tests of the collector."""

from __future__ import annotations

import json
from typing import Any

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.images import Image
from tests.stores import push_blob, store_over
from zotctl.errors import NotFound
from zotctl.jobs.ages import Ages
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver

DELAY = 100.0


class _Hand(Hand):
    """Also by which a store stamps its index.json."""

    def now_ns(self) -> int:
        return int(self.at * 1e9)


class Place:
    """`driver` is the storage; `store` is that of a server. Times move only by `wait`, but no two files have one."""

    def __init__(self, **options: Any) -> None:
        self.clock = _Hand()
        self._stamps = 0
        self.driver = MemoryDriver(clock=self._stamp, **options)
        self.store = self.open()

    def _stamp(self) -> int:
        self._stamps += 1
        return int(self.clock.at * 1e9) + self._stamps

    def open(self, driver: Driver | None = None, **options: Any) -> Store:
        """As another process does it."""
        return store_over(driver or self.driver, clock=self.clock, **options)

    def wait(self, delays: float) -> None:
        self.clock.at += delays * DELAY

    def collect(self, store: Store | None = None, *, repos: tuple[str, ...] = (), **options: Any) -> Report:
        given: dict[str, Any] = {"delay": DELAY, "rules": Rules(delay=DELAY)}
        chosen = GcOptions(**given | options)
        run = Run("gc", store or self.store, repos=repos)
        return run.finish(lambda: gc(run, lambda _: chosen))

    def ages(self) -> Ages:
        """As a run that begins now has them."""
        return Ages(self.driver, self.clock.now(), self.clock)

    # -- what lies there --------------------------------------------------------------------------

    def stray(self, body: bytes = b"stray", name: str = "a") -> Digest:
        return push_blob(self.store.repository_for_push(name), body)

    def strays_of(self, image: Image, name: str = "a") -> list[Digest]:
        """All but the manifest of an image."""
        return [self.stray(body, name) for body in image.blobs]

    def put(self, image: Image, *tags: str, name: str = "a") -> None:
        """Only the manifest."""
        repository = self.store.repository_for_push(name)
        repository.put_manifest(check_manifest(image.manifest, OCI_MANIFEST), image.manifest, tags)

    def tool_writes(self, image: Image, tag: str, name: str = "a", **fields: Any) -> None:
        """As skopeo does: the manifest, and a row in index.json, with no lock and no reservation. `fields` of the
        row."""
        self.write(keys.blob(name, image.digest), image.manifest)
        document = json.loads(self.read(keys.index(name)))
        document["manifests"].append(images.row(image, tag) | fields)
        self.write(keys.index(name), json.dumps(document).encode())

    def exists(self, key: str) -> bool:
        return key in self.driver.names

    def lies(self, digest: Digest | bytes, name: str = "a") -> bool:
        """In its repository."""
        return self.exists(keys.blob(name, digest if isinstance(digest, Digest) else digest_of(digest)))

    def in_trash(self) -> list[str]:
        found = [key for key, inode in self.driver.names.items() if key.startswith(f"{keys.TRASH}/")]
        return [key for key in found if not self.driver.stat(key).is_dir]

    def read(self, key: str) -> bytes:
        with self.driver.open(key) as reader:
            return reader.read_at(0, reader.size)

    def write(self, key: str, body: bytes) -> None:
        """In place, as foreign tools do."""
        try:
            writer = self.driver.append(key, create=False)
            writer.truncate(0)
        except NotFound:
            writer = self.driver.create(key)
        with writer:
            writer.write([body])
