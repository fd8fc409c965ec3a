"""For the tests of mirrors: a source in a directory that clients change, and a target of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.faults import Call, Faults
from tests.jobs.importing import actions, run_import
from tests.stores import bucket_store, probed, push_image, push_index, store_over
from zotctl.jobs.report import Report
from zotctl.oci.digest import Digest
from zotctl.storage import Store
from zotctl.storage.driver import Driver, read

KINDS = ("directory", "bucket")
SIGNED = "sha256-{}.sig"


class Target:
    """A store that mirrors a source, opened anew by each run, as by another process."""

    def __init__(self, kind: str) -> None:
        self.kind, self.clock = kind, Hand()
        self.driver, self.objects = MemoryDriver(), MemoryObjects(self.clock.now)
        probed(self.objects)
        self.store = self.another()

    def another(self, wrapped: Any = None) -> Store:
        """`wrapped`: the driver or the object store, inside of something."""
        if self.kind == "bucket":
            return bucket_store(wrapped or self.objects, self.clock)
        return store_over(wrapped or self.driver)

    def open(self) -> Store:
        self.store.close()
        self.clock.at += 10  # a bucket's clock has whole seconds
        self.store = self.another()
        return self.store

    def mirror(self, source: Path | str, **options: Any) -> Report:
        return run_import(self.open(), source, mirror=True, **options)

    def write(self, key: str, body: bytes) -> None:
        """Behind the back of every store."""
        self.store.close()
        if self.kind == "bucket":
            self.objects.put(key, body)
            return
        self.driver.unlink(key)
        with self.driver.create(key) as writer:
            writer.write([body])

    def remove(self, key: str) -> None:
        """Behind the back of every store."""
        self.store.close()
        if self.kind == "bucket":
            self.objects.delete(key)
        else:
            self.driver.unlink(key)

    def rows(self) -> dict[str, set[tuple[str | None, str]]]:
        return rows_of(self.open())


def rows_of(store: Store) -> dict[str, set[tuple[str | None, str]]]:
    """Tags and digests of each repository that has any: one without rows is for a collector to remove."""
    found = {}
    for root in store.roots:
        for name in root.catalog.everything():
            index = root.protocol.indexes.read(name).index
            found[name] = {(row.tag, str(row.digest)) for row in index.rows()}
    return {name: rows for name, rows in found.items() if rows}


def fill(directory: Path) -> Path:
    """A source with everything that a row may be: tags, an index with its children, a referrer, an untagged one."""
    return _write(directory, _files(changed=False))


def change(directory: Path) -> None:
    """A tag moves, one is deleted, an index goes with a child, a repository goes, and another comes."""
    shutil.rmtree(directory)
    _write(directory, _files(changed=True))


@cache
def _files(*, changed: bool) -> dict[str, bytes]:
    """All files of such a source, made in memory, since a disk would flush each."""
    driver = MemoryDriver()
    store = store_over(driver)
    first = push_image(store, "a", "v1", seed="1")
    push_image(store, "a", "v2", seed="2")
    push_index(store, "a", "all", children=[first, push_image(store, "a", seed="child")])
    push_image(store, "a", SIGNED.format(first.encoded), seed="signature")
    push_image(store, "a", seed="referrer", subject=first)
    push_image(store, "a", seed="untagged")
    push_image(store, "b/c", "v1", seed="1")
    if changed:
        push_image(store, "a", "v1", seed="moved")
        store.repository_for_push("a").delete_manifest("v2")
        for digest in (store.repository("a").manifest("all").digest, image("child"), image("untagged"), image("2")):
            store.repository_for_push("a").delete_manifest(digest)
    push_image(store, "d" if changed else "b/gone", "v1", *([] if changed else ["v2"]), seed="gone")
    store.close()
    return {key: read(driver, key, 1 << 24) for key in _below(driver, "") if not key.startswith(".zotctl/")}


def _below(driver: Driver, key: str) -> Iterator[str]:
    for entry in driver.scan(key):
        inside = f"{key}/{entry.name}".lstrip("/")
        if entry.is_dir:
            yield from _below(driver, inside)
        else:
            yield inside


def _write(directory: Path, files: dict[str, bytes]) -> Path:
    for key, body in files.items():
        (directory / key).parent.mkdir(parents=True, exist_ok=True)
        (directory / key).write_bytes(body)
    (directory / ".zotctl").mkdir()
    return directory


def image(seed: str) -> Digest:
    """The digest of an image that `push_image` has pushed."""
    return images.image(seed).digest


def dropped(report: Report) -> set[tuple[str, str | None, str]]:
    return {(item["repository"], item["tag"], item["digest"]) for item in actions(report, "drop")}


class Watched(Faults):
    """Notes each call that a store makes of its driver."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []

    def before(self, call: Call) -> None:
        self.calls.append(call)
