"""The lease of the single writer of a bucket (zotctl.storage.bucket.lease)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.doubles.objects import MemoryObjects
from zotctl.errors import HeldElsewhere
from zotctl.storage import keys
from zotctl.storage.bucket.lease import WRITER_LEASE_S, SingleWriterLease, refuse_beside_one, system
from zotctl.storage.clock import Clock

SIGN = keys.lease("writer")


class Hour:
    """The server's clock."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0


@pytest.fixture
def hour() -> Hour:
    return Hour()


@pytest.fixture
def objects(hour: Hour) -> MemoryObjects:
    return MemoryObjects(lambda: hour.now)


LeaseOf = Callable[[int], SingleWriterLease]


@pytest.fixture
def lease_of(objects: MemoryObjects) -> Iterator[LeaseOf]:
    """Makes the lease of a process. A claimed one is renewed by a thread until it is given back."""
    made: list[SingleWriterLease] = []

    def make(process: int) -> SingleWriterLease:
        made.append(SingleWriterLease(objects, Clock(), process))
        return made[-1]

    yield make
    for lease in made:
        lease.release()


def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_no_other_process_writes_there(objects: MemoryObjects, lease_of: LeaseOf, hour: Hour) -> None:
    lease_of(os.getpid()).claim()
    for refused in (lease_of(os.getppid()).claim, lambda: refuse_beside_one(objects)):
        with pytest.raises(HeldElsewhere, match=f"process {os.getpid()} on "):
            refused()
    hour.now += WRITER_LEASE_S
    refuse_beside_one(objects)
    lease_of(os.getppid()).claim()


def test_processes_of_one_server_follow_each_other(objects: MemoryObjects, lease_of: LeaseOf) -> None:
    first, second = lease_of(os.getppid()), lease_of(os.getppid())
    first.claim()
    second.claim()
    first.release()
    with pytest.raises(HeldElsewhere):
        refuse_beside_one(objects)
    second.release()
    refuse_beside_one(objects)


def test_the_lease_of_a_process_that_has_died_here_counts_no_more(objects: MemoryObjects, lease_of: LeaseOf) -> None:
    lease_of(gone()).claim()
    refuse_beside_one(objects)


def test_a_number_of_another_container_says_nothing(objects: MemoryObjects) -> None:
    """It has numbers of its own, so that one is not dead which has none here."""
    said = {"host": "elsewhere", "system": f"{system()}, another", "pid": gone()}
    objects.put(SIGN, json.dumps(said).encode())
    with pytest.raises(HeldElsewhere, match="on elsewhere"):
        refuse_beside_one(objects)


def test_nor_is_one_with_the_same_number_and_name_the_same(objects: MemoryObjects, lease_of: LeaseOf) -> None:
    """Containers in the host's network have its name, and each has a process 1."""
    lease_of(os.getpid()).claim()
    got = objects.get(SIGN)
    assert got is not None
    objects.put(SIGN, json.dumps({**json.loads(got[1]), "system": "another"}).encode())
    with pytest.raises(HeldElsewhere):
        lease_of(os.getpid()).claim()


def test_a_lease_that_is_not_readable_counts(objects: MemoryObjects) -> None:
    objects.put(SIGN, b"[]")
    with pytest.raises(HeldElsewhere, match="another process"):
        refuse_beside_one(objects)


def test_a_second_writer_is_told_and_keeps_its_sign(
    objects: MemoryObjects, lease_of: LeaseOf, caplog: pytest.LogCaptureFixture
) -> None:
    """Frozen for a minute, and then awake again."""
    first, second = lease_of(os.getpid()), lease_of(os.getppid())
    first.claim()
    objects.delete(SIGN)
    second.claim()
    first.renew()
    assert f"a second writer, process {os.getppid()} on" in caplog.text and "stop one" in caplog.text
    first.release()
    with pytest.raises(HeldElsewhere, match=f"process {os.getppid()} on"):
        refuse_beside_one(objects)
    second.renew()
    assert caplog.text.count("a second writer") == 1


def test_it_is_not_renewed_after_it_was_given_back(objects: MemoryObjects, lease_of: LeaseOf) -> None:
    """By the thread that was about to: the next writer would be refused for a minute."""
    lease = lease_of(os.getpid())
    lease.claim()
    lease.release()
    lease.renew()
    assert SIGN not in objects.stored
