"""Uploads over an object store in memory, with small parts, several processes and faults."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.clocks import Hand
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from zotctl.oci.digest import Digest, digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.uploads.buffer import MemoryBudget
from zotctl.storage.bucket.uploads.sessions import Claim
from zotctl.storage.bucket.uploads.upload import BucketUpload

PART = 4096
SIZES = [0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1, 3 * PART, 7 * PART, 7 * PART + 5]


class World:
    """`objects` counts what all processes ask for."""

    def __init__(self, *, dedupe: bool = False, threads: bool = False, limit: int = 64 * PART) -> None:
        self.time, self.dedupe, self.threads, self.limit = Hand(1_000_000.0), dedupe, threads, limit
        self.memory = MemoryObjects(self.time.now, smallest_part=PART)
        self.objects = Counted(self.memory)
        self.processes: list[BucketProtocol] = []
        self.one, self.two = self.process(), self.process()

    def process(self, objects: Objects | None = None) -> BucketProtocol:
        context = BucketContext(objects or self.objects, self.time, dedupe=self.dedupe)
        context.threads = ThreadPoolExecutor(4) if self.threads else None
        self.processes.append(BucketProtocol(context, MemoryBudget(self.limit, part=PART)))
        return self.processes[-1]

    def place(self, digest: Digest) -> str:
        return self.one.context.blob("a", digest)

    def content(self, digest: Digest) -> bytes | None:
        found = self.memory.stored.get(self.place(digest))
        return found.body if found else None

    def left(self) -> list[str]:
        """What uploads have stored, and parts that were not completed; when the last answer's work is done."""
        while any(Claim.DISCARDING in process.uploads._claims.values() for process in self.processes):
            time.sleep(0.001)
        stored = [key for key in self.memory.stored if key.startswith((f"{keys.UPLOADS}/", f"{keys.STAGED}/"))]
        return stored + list(self.memory.parts)

    def check(self, body: bytes, algorithm: str = "sha256") -> None:
        """It is published, and nothing else is left."""
        assert self.content(digest_of(body, algorithm)) == body
        assert self.left() == []
        for process in (self.one, self.two):
            assert process.uploads._claims == {}

    def blobs(self) -> set[str]:
        return {key for key in self.memory.stored if "/sha256/" in key and not key.startswith(keys.HIDDEN)}


def random_bytes(size: int, seed: object = 0) -> bytes:
    return random.Random(str(seed)).randbytes(size)


def write(upload: BucketUpload, body: bytes, seed: object = 0) -> None:
    """In pieces of odd sizes."""
    chance, at = random.Random(str(seed)), 0
    while at < len(body):
        size = chance.choice([1, 100, PART // 3, PART, 3 * PART])
        upload.write([body[at : at + size // 2], memoryview(body)[at + size // 2 : at + size]])
        at += size


def push(protocol: BucketProtocol, body: bytes, *, put: bytes = b"", digest: Digest | None = None) -> str:
    """POST, PATCH with `body`, PUT with `put`; as the server does it, with the digest when it knows it."""
    upload_id = protocol.uploads.start("a", "sha256")
    if body or not put:
        patch(protocol, upload_id, body)
    finish(protocol, upload_id, digest or digest_of(body + put), put)
    return upload_id


def patch(protocol: BucketProtocol, upload_id: str, body: bytes) -> int:
    with protocol.uploads.resume("a", upload_id) as upload:
        upload.expect()
        write(upload, body, len(body))
        upload.save()
        return upload.offset


def finish(protocol: BucketProtocol, upload_id: str, digest: Digest, body: bytes = b"") -> None:
    with protocol.uploads.resume("a", upload_id) as upload:
        upload.expect(digest)
        write(upload, body, len(body))
        upload.finish(digest)


class Crash(BaseException):
    """The process is gone at this point."""


class Dying:
    """The store of a process that dies at its request number `at`: before it, or, if `done`, without its answer."""

    def __init__(self, inner: Objects, at: int, *, done: bool) -> None:
        self.inner, self.left, self.done = inner, at, done

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0 and not (self.done and self.left == -1):
                raise Crash
            result = found(*args, **options)
            if self.left == -1:
                raise Crash
            return result

        return call


class Failing:
    """Raises `error` at the requests for which `when` says so: before it is done, or, if `done`, afterwards."""

    def __init__(
        self, inner: Objects, when: Callable[[str, Sequence[Any]], bool], error: Exception, *, done: bool = False
    ) -> None:
        self.inner, self.when, self.error, self.done, self.times = inner, when, error, done, 1

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            fails = self.times > 0 and self.when(name, args)
            self.times -= fails
            if fails and not self.done:
                raise self.error
            result = found(*args, **options)
            if fails:
                raise self.error
            return result

        return call
