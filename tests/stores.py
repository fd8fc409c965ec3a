"""Stores for tests: one root over any driver, without a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from tests import images
from tests.doubles.filesystem import MemoryDriver
from zotctl.errors import ZotctlError
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Repository, Store, keys
from zotctl.storage.bucket.context import BucketContext as BucketSite
from zotctl.storage.bucket.objects.seam import SHA256, Objects
from zotctl.storage.bucket.probe import Abilities
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Driver, read
from zotctl.storage.history import Event, events_of
from zotctl.storage.index import Index
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.protocol import LocalProtocol
from zotctl.storage.locks import Locks
from zotctl.storage.protocol import Transaction, WouldBlock
from zotctl.storage.root import Root


def root_over(driver: Driver, clock: Clock | None = None, *, commit: bool = False, dedupe: bool = True) -> Root:
    """A root as `open_root` makes one, over a driver that is there already."""
    clock = clock or Clock()
    context = LocalContext(driver, clock, Locks(driver, clock), commit, dedupe)
    for directory in (keys.UPLOADS, keys.TMP, keys.POOL, keys.LEASES):
        context.make_dirs(directory)
    driver.append(keys.VERSION).close()
    return Root(LocalProtocol(context, min_free=0), read_only=False)


MADE: list[Store] = []
"""The stores of `store_over` that are open."""


@contextmanager
def closed() -> Iterator[None]:
    """Close what `store_over` makes meanwhile: each index.json that a store has replaced lately is open, and in a
    process of hundreds of tests they would be a thousand."""
    before = len(MADE)
    try:
        yield
    finally:
        for store in MADE[before:]:
            with suppress(ZotctlError):
                store.close()
        del MADE[before:]


def store_over(*drivers: Driver, clock: Clock | None = None, commit: bool = False, dedupe: bool = True) -> Store:
    clock = clock or Clock()
    MADE.append(Store([root_over(driver, clock, commit=commit, dedupe=dedupe) for driver in drivers], clock))
    return MADE[-1]


def bucket_root(
    objects: Objects,
    clock: Clock | None = None,
    *,
    dedupe: bool = False,
    delay: float = 3600.0,
    single_writer: bool = False,
    threads: ThreadPoolExecutor | None = None,
) -> Root:
    """A root on a bucket, as opening makes one; without threads, unless they are given."""
    context = BucketSite(
        objects, clock or Clock(), dedupe=dedupe, delay=delay, single_writer=single_writer, threads=threads
    )
    return Root(BucketProtocol(context), read_only=False)


def bucket_store(
    objects: Objects,
    clock: Clock | None = None,
    *,
    dedupe: bool = False,
    delay: float = 3600.0,
    threads: ThreadPoolExecutor | None = None,
) -> Store:
    return Store([bucket_root(objects, clock, dedupe=dedupe, delay=delay, threads=threads)], clock or Clock())


def probed(objects: Objects, server: str = "", *, signed_deletes: bool = True) -> None:
    """What is written in a bucket whose server was tried out within the last day, and can do all that is needed."""
    able = Abilities(True, True, True, True, True, SHA256, False, signed_deletes)
    objects.put(keys.CAPABILITIES, json.dumps({"server": server, **able._asdict()}).encode())


def push_blob(repository: Repository, body: bytes, algorithm: str = "sha256") -> Digest:
    """As the server does: at once if it can."""
    digest = digest_of(body, algorithm)
    with repository.resume_upload(repository.start_upload(algorithm)) as upload:
        upload.write([body])
        try:
            upload.finish(digest, wait=False)
        except WouldBlock:
            upload.finish(digest)
    return digest


def push_image(
    store: Store, name: str, *tags: str, seed: str = "x", layers: int = 2, subject: Digest | None = None
) -> Digest:
    """Blobs first, then the manifest: what every client does. Returns the manifest's digest."""
    repository = store.repository_for_push(name)
    image = images.image(seed, layers=layers, subject=subject)
    for blob in image.blobs:
        push_blob(repository, blob)
    manifest = check_manifest(image.manifest, OCI_MANIFEST)
    repository.put_manifest(manifest, image.manifest, tags)
    return manifest.digest


def two_repositories(clock: Clock, *, dedupe: bool = True) -> MemoryDriver:
    """`a` and `b` with one image, whose files were written 1,000 seconds ago by a clock that is turned by hand."""
    made = MemoryDriver(clock=lambda: int((clock.now() - 1000) * 1e9))
    for name in "ab":
        push_image(store_over(made, clock=clock, dedupe=dedupe), name, "v1", seed="x")
    return made


def push_index(store: Store, name: str, *tags: str, children: list[Digest]) -> Digest:
    repository = store.repository(name)
    body = images.index([(child, repository.manifest(child).size) for child in children])
    manifest = check_manifest(body, OCI_INDEX)
    repository.put_manifest(manifest, body, tags)
    return manifest.digest


def drop_rows(store: Store, name: str, *digests: str) -> None:
    """As retention drops them: their bytes stay where they are."""

    def change(tx: Transaction, draft: Index) -> None:
        for digest in digests:
            draft.drop(digest)

    assert store.repository(name).root.protocol.commit_index(name, [change]) == [None]


def manifest_body(store: Store, name: str, reference: str) -> bytes:
    return store.repository(name).manifest(reference).body


def history_of(store: Store, name: str) -> list[Event]:
    """The events of a repository that are written, in the order in which that was done."""
    (root,) = store.roots
    if root.protocol.kind == "local":
        return events_of(read(root.driver, keys.history(name), 1 << 24))
    found = sorted(entry.name for entry in root.driver.scan(keys.history(name)))
    parts = [events_of(read(root.driver, f"{keys.history(name)}/{entry}", 1 << 24)) for entry in found]
    return sorted((event for part in parts for event in part), key=lambda event: float(event["t"]))
