"""Buckets for the tests of jobs: in memory, and on a real server whose disk is damaged below it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.clocks import Hand
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.jobs.layouts import OLD
from tests.stores import bucket_store
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.storage import Store
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.clock import Clock


class Place(Protocol):
    """A bucket, and what happens to its disk."""

    @property
    def clock(self) -> Clock: ...
    @property
    def objects(self) -> Objects: ...
    def rewrite(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Behind the server's back, long ago."""


class InMemory:
    def __init__(self) -> None:
        self.clock = Hand()
        self.objects = self.memory = MemoryObjects(self.clock.now)

    def rewrite(self, key: str, change: Callable[[bytes], bytes]) -> None:
        before = self.memory.stored[key]
        self.memory.stored[key] = before._replace(body=change(before.body), modified=OLD)


class OnServer:
    def __init__(self, bucket: Bucket) -> None:  # noqa: F811
        self.clock, self.bucket = Clock(), bucket
        self.objects: Objects = bucket.client()

    def rewrite(self, key: str, change: Callable[[bytes], bytes]) -> None:
        path = self.bucket.path(key)
        path.write_bytes(change(path.read_bytes()))
        os.utime(path, (OLD, OLD))


@pytest.fixture(params=["memory", "versitygw"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield InMemory() if request.param == "memory" else OnServer(request.getfixturevalue("bucket"))


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def dedupe(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def opened(
    place: Place, *, dedupe: bool = False, objects: Any = None, threads: ThreadPoolExecutor | None = None
) -> Store:
    """As another process opens it."""
    return bucket_store(objects or place.objects, place.clock, dedupe=dedupe, threads=threads)


def run_job(store: Store, job: str, work: Callable[[Run], None], **options: Any) -> Report:
    run = Run(job, store, **options)
    return run.finish(lambda: work(run))


def keys_of(place: Place) -> list[str]:
    return [found.key for found in place.objects.list("")]


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def shortened(body: bytes) -> bytes:
    return body[:-3]


class Killed(BaseException):
    """Nothing catches it: the process is gone."""


def dying(objects: Objects, after: int) -> Counted:
    """The process is killed in front of one of its requests; what it would do on its way out is not done either."""
    left = [after]

    def before(method: str, args: tuple[Any, ...]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return Counted(objects, before)


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
