"""The memory of all uploads of a process has a limit, and no upload waits for ever (I13)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.storage.uploading import PART, World, finish, patch, random_bytes, write
from zotctl.errors import Busy
from zotctl.oci.digest import digest_of
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.multipart import PART_BYTES, SMALLEST_PART_BYTES
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.uploads.buffer import BudgetShare, MemoryBudget
from zotctl.storage.bucket.uploads.upload import BucketUpload

SMALL = PART // 16


def as_http_does(upload: BucketUpload, body: bytes, batch: int) -> None:
    """No thread waits for memory: it is asked for before each write."""
    for at in range(0, len(body), batch):
        piece = body[at : at + batch]
        while not upload.ready(len(piece)):
            time.sleep(0.001)
        upload.write([piece])
    upload.finish(digest_of(body))


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("senders", [False, True])
def test_many_uploads_at_once_stay_within_the_limit(parts: int, senders: bool) -> None:
    """32 of them with 4 threads, and memory for a few."""
    world = World(threads=senders, limit=4 * parts * PART // 3)
    budget, uploads, most = world.one.uploads.budget, 32, [0]

    def look(*_: Any) -> None:
        most[0] = max(most[0], budget.held)

    world.objects.before = look
    turns: list[tuple[BucketUpload, bytes, int]] = []
    for number in range(uploads):
        body = random_bytes(5 * PART + number, number)
        turns.append((world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")), body, 0))

    def step(upload: BucketUpload, piece: bytes) -> None:
        upload.write([piece])

    with ThreadPoolExecutor(4) as pool:
        until = time.monotonic() + 60
        while turns:
            assert time.monotonic() < until, "they wait for each other"
            ready = [turn for turn in turns if turn[0].ready(SMALL * 2)]
            list(pool.map(lambda turn: step(turn[0], turn[1][turn[2] : turn[2] + SMALL * 2]), ready))
            moved = [(u, body, at + SMALL * 2 if (u, body, at) in ready else at) for u, body, at in turns]
            for upload, body, at in moved:
                if at >= len(body):
                    upload.finish(digest_of(body))
            turns = [turn for turn in moved if turn[2] < len(turn[1])]
    assert most[0] <= max(budget._large.limit, PART) + budget._small.limit
    assert budget.held == 0
    assert world.left() == []
    assert len(world.blobs()) == uploads


def test_threads_that_wait_get_their_turn() -> None:
    """Uploads of jobs, which have a thread each, and no more memory than for one."""
    world = World(threads=True, limit=PART)
    bodies = [random_bytes(4 * PART + number, number) for number in range(6)]

    def push(body: bytes) -> None:
        upload_id = world.one.uploads.start("a", "sha256")
        patch(world.one, upload_id, body)
        finish(world.one, upload_id, digest_of(body))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(push, bodies))
    for body in bodies:
        world.check(body)


def test_waiting_for_memory_has_an_end() -> None:
    budget = MemoryBudget(4 * PART, part=PART, wait_s=0.05)
    first, second = BudgetShare(), BudgetShare()
    budget.grow(first, 2 * PART)
    with pytest.raises(Busy):
        budget.grow(second, 2 * PART)
    assert (second.size, budget.held, budget.wanted) == (0, 2 * PART, False)
    budget.release(first)
    budget.grow(second, 2 * PART)
    assert budget.held == 2 * PART


def test_an_upload_that_was_not_served_goes_on_later() -> None:
    world = World(limit=PART)
    world.one.uploads.budget._wait_s = 0.05
    body = random_bytes(2 * PART)
    holder = world.one.uploads.resume("a", world.one.uploads.start("a", "sha256"))
    holder.write([body])
    upload_id = world.one.uploads.start("a", "sha256")
    with pytest.raises(Busy):
        patch(world.one, upload_id, body)
    holder.finish(digest_of(body))
    finish(world.one, upload_id, digest_of(body), body)
    world.check(body)


def test_few_threads_wait() -> None:
    """The others are told at once: with all threads waiting no thread could give memory back."""
    budget = MemoryBudget(PART, part=PART, wait_s=30, waiting_threads=2)
    holder, done = BudgetShare(), []
    budget.grow(holder, PART)

    def wait() -> None:
        share = BudgetShare()
        budget.grow(share, PART)
        budget.release(share)
        done.append(True)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(budget._large.queue) < 2:
        time.sleep(0.001)
    began = time.monotonic()
    with pytest.raises(Busy):
        budget.grow(BudgetShare(), PART)
    assert time.monotonic() - began < 20
    budget.release(holder)
    for thread in threads:
        thread.join()
    assert done == [True, True]


def test_who_was_first_is_served_first() -> None:
    budget = MemoryBudget(4 * PART, part=PART)
    shares = [BudgetShare() for _ in range(5)]
    budget.grow(shares[0], 3 * PART)
    assert [budget.ask(share, PART) for share in shares[1:]] == [False] * 4
    assert not budget.swap(shares[0], 3 * PART + 1), "not while others wait"
    budget.settle(shares[2])
    budget.release(shares[0])
    assert [budget.ask(share, PART) for share in (shares[4], shares[3], shares[1])] == [True] * 3
    assert not budget.ask(shares[2], PART)


def test_small_uploads_are_not_held_up_by_large_ones() -> None:
    world = World(limit=2 * PART)
    holders = [world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) for _ in range(2)]
    for holder in holders[:1]:
        write(holder, random_bytes(PART // 2))
    assert not holders[1].ready(PART)
    for number in range(20):
        body = random_bytes(SMALL, number)
        upload_id = world.one.uploads.start("a", "sha256")
        patch(world.one, upload_id, body)
        finish(world.one, upload_id, digest_of(body))
        world.memory.stored.pop(world.place(digest_of(body)))


def test_idle_tails_give_way() -> None:
    world = World(limit=3 * PART)
    ids = [world.one.uploads.start("a", "sha256") for _ in range(10)]
    bodies = [random_bytes(PART - 5, number) for number in range(10)]
    for upload_id, body in zip(ids, bodies, strict=True):
        patch(world.one, upload_id, body)
    assert world.one.uploads.budget.held <= 3 * PART
    for upload_id, body in zip(ids, bodies, strict=True):
        finish(world.one, upload_id, digest_of(body))
    assert len(world.blobs()) == 10


def test_who_waited_and_vanished_leaves_the_queue() -> None:
    world = World(limit=PART)
    holder, gone, other = (world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) for _ in range(3))
    write(holder, random_bytes(PART // 2))
    assert not gone.ready(PART)
    assert not other.ready(PART)
    gone.close()
    holder.cancel()
    assert other.ready(PART)
    other.cancel()
    assert world.one.uploads.budget.held == 0


def test_who_vanished_when_it_was_his_turn_leaves_nothing() -> None:
    world = World(limit=PART)
    holder, gone = (world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) for _ in range(2))
    write(holder, random_bytes(PART // 2))
    assert not gone.ready(PART)
    holder.cancel()
    gone.close()
    assert world.one.uploads.budget.held == 0


def test_an_upload_that_rests_makes_way_for_one_that_waits() -> None:
    world = World(limit=PART)
    holder, other = (world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) for _ in range(2))
    write(holder, random_bytes(PART // 2))
    assert not other.ready(PART)
    holder.close()
    assert other.ready(PART)


def test_after_a_part_it_is_the_turn_of_others() -> None:
    world = World(limit=PART)
    holder, other = (world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) for _ in range(2))
    body = random_bytes(3 * PART)
    holder.write([body[:PART]])
    assert not other.ready(PART)
    holder.write([body[PART : PART + 10]])
    assert other.ready(PART)
    assert not holder.ready(PART - 20)
    other.cancel()
    assert holder.ready(PART - 20)
    holder.write([body[PART + 10 :]])
    holder.finish(digest_of(body))
    world.check(body)


@pytest.mark.parametrize("size", [PART, 5 * PART + 1])
@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("way", ["patch", "put"])
def test_memory_goes_back_though_somebody_still_refers_to_it(size: int, threads: bool, way: str) -> None:
    """Frames of an exception that is over do, until the garbage is collected."""
    world, body, kept = World(threads=threads), random_bytes(size), list[Any]()

    def keep(_: str, args: tuple[Any, ...]) -> None:
        kept.extend(arg for arg in args if isinstance(arg, memoryview))

    world.objects.before = keep
    upload_id = world.one.uploads.start("a", "sha256")
    patch(world.one, upload_id, body if way == "patch" else b"")
    finish(world.one, upload_id, digest_of(body), b"" if way == "patch" else body)
    world.check(body)
    assert kept
    for view in kept:
        with pytest.raises(ValueError, match="released"):
            view.tobytes()


def test_parts_fit_into_a_small_limit() -> None:
    assert MemoryBudget().part == PART_BYTES
    assert MemoryBudget(40 << 20).part == 10 << 20
    assert MemoryBudget(1 << 20).part == SMALLEST_PART_BYTES


def test_an_upload_under_pressure_is_whole() -> None:
    """It leaves its part's memory to others after each part, and gets it again."""
    world = World(limit=PART)
    one, two = (world.one.uploads.resume("a", world.one.uploads.start("a", "sha256")) for _ in range(2))
    bodies = random_bytes(6 * PART + 100, 1), random_bytes(6 * PART + 200, 2)
    threads = [threading.Thread(target=as_http_does, args=(u, b, 100)) for u, b in zip((one, two), bodies, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for body in bodies:
        world.check(body)


def test_one_request_at_a_time_where_nothing_else_is_wanted() -> None:
    """Without threads every request is made by who writes, in order: a simulation can play it."""
    counted = Counted(MemoryObjects(smallest_part=PART))
    seen: set[int] = set()
    counted.before = lambda *_: seen.add(threading.get_ident())
    protocol = BucketProtocol(BucketContext(counted, World().time), MemoryBudget(64 * PART, part=PART))
    patch(protocol, protocol.uploads.start("a", "sha256"), random_bytes(9 * PART))
    assert seen == {threading.get_ident()}


def test_i13_the_memory_of_the_process_follows_the_limit() -> None:
    """32 uploads of 96 MiB at once, with a limit of 64 MiB, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=110, env=os.environ)
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    assert grown < (64 << 20) + (40 << 20), f"{grown >> 20} MiB"


PROGRAM = textwrap.dedent(
    """
    import resource, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from zotctl.oci.digest import digest_of_hash, new_hash
    from zotctl.storage.clock import Clock
    from tests.doubles.objects import MemoryObjects
    from zotctl.storage.bucket.objects.seam import Object
    from zotctl.storage.bucket.uploads.buffer import MemoryBudget
    from zotctl.storage.bucket.protocol import BucketProtocol
    from zotctl.storage.bucket.context import BucketContext

    class Nowhere(MemoryObjects):
        def put_part(self, key, upload, number, body):
            time.sleep(0.001)
            return f'"{number}"'
        def complete_parts(self, key, upload, etags):
            del self.parts[upload]
            return '"done"'

    objects = Nowhere()
    protocol = BucketProtocol(BucketContext(objects, Clock(), threads=ThreadPoolExecutor(16)), MemoryBudget(64 << 20))
    piece, count = bytes(1 << 20), 96
    hasher = new_hash("sha256")
    for _ in range(count):
        hasher.update(piece)
    digest = digest_of_hash("sha256", hasher)

    def peak():
        return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) << 10

    def push():
        upload = protocol.uploads.begin("a", "sha256")
        upload.expect(digest)
        for _ in range(count):
            while not upload.ready(len(piece)):
                time.sleep(0.01)
            upload.write([piece])
        upload.finish(digest)

    before = peak()
    threads = [threading.Thread(target=push) for _ in range(32)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert protocol.uploads.budget.held == 0
    assert not objects.parts
    print(peak() - before)
    """
)
