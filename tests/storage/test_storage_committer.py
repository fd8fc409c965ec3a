"""Group commit: many changes, few renames, and nobody pays for somebody else's mistake."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import IoFailed, ManifestBlobUnknown, ManifestUnknown, NoSpace, TagInvalid
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage.committer import GROUP_CHANGES, Committer
from zotctl.storage.index import Index, empty_index
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.index_file import WATCHED_FILES
from zotctl.storage.protocol import Change, Outcome
from zotctl.storage.wrappers import WrappedDriver

THREADS = 16


class FakeProtocol:
    """`commit_index` alone: what was committed, in which groups, and a gate to let others queue up."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.groups: list[int] = []
        self.entered = threading.Semaphore(0)
        self.gate: threading.Semaphore | None = None
        self.fail: Callable[[int], BaseException | None] = lambda number: None
        self.inside: Counter[str] = Counter()
        self.overlap = False
        self.waits = threading.Event()
        self.turns: threading.Semaphore | None = None

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        if self.turns is not None:
            self.waits.set()
            assert self.turns.acquire(timeout=20)
        yield

    def commit_index(self, name: str, changes: Sequence[Change]) -> list[Outcome]:
        self.inside[name] += 1
        self.overlap |= self.inside[name] > 1
        try:
            self.groups.append(len(changes))
            self.entered.release()
            if self.gate is not None:
                assert self.gate.acquire(timeout=20)
            if (error := self.fail(len(self.groups))) is not None:
                raise error
            outcomes: list[Outcome] = []
            for change in changes:
                try:
                    change(None, empty_index())  # type: ignore[arg-type]
                    outcomes.append(None)
                except TagInvalid as refusal:
                    outcomes.append(refusal)
            return outcomes
        finally:
            self.inside[name] -= 1


def committer_over(protocol: FakeProtocol) -> Committer:
    return Committer(protocol)  # type: ignore[arg-type]


def adding(protocol: FakeProtocol, what: str) -> Change:
    def change(tx: Any, draft: Index) -> None:
        protocol.done.append(what)

    return change


def refusing(tx: Any, draft: Index) -> None:
    raise TagInvalid("no")


def start(committer: Committer, changes: list[tuple[str, Change]]) -> list[Any]:
    """Each in its own thread; results or exceptions, as futures."""
    pool = ThreadPoolExecutor(len(changes))
    futures = [pool.submit(committer.commit, name, change) for name, change in changes]
    pool.shutdown(wait=False)
    return futures


def queued(committer: Committer, name: str, count: int) -> None:
    until = time.monotonic() + 20
    while len(committer._queues.get(name, ())) < count:
        assert time.monotonic() < until, "they never came"
        time.sleep(0.001)


def held_up(count: int, *, name: str = "a") -> tuple[FakeProtocol, Committer, Any]:
    """One commit under way, to be let go by `protocol.gate`, and a place for `count` more behind it."""
    protocol = FakeProtocol()
    protocol.gate = threading.Semaphore(0)
    committer = committer_over(protocol)
    first = start(committer, [(name, adding(protocol, "first"))])[0]
    assert protocol.entered.acquire(timeout=20)
    return protocol, committer, first


def test_what_waits_is_committed_together_and_in_order() -> None:
    protocol, committer, first = held_up(THREADS)
    futures = []
    for number in range(THREADS):
        futures += start(committer, [("a", adding(protocol, str(number)))])
        queued(committer, "a", number + 1)
    assert protocol.gate is not None
    protocol.gate.release(10)
    for future in [first, *futures]:
        assert future.result(timeout=20) is None
    assert protocol.groups == [1, THREADS]
    assert protocol.done == ["first", *map(str, range(THREADS))]


def test_what_comes_while_the_turn_is_others_is_committed_with_it() -> None:
    protocol = FakeProtocol()
    protocol.turns = threading.Semaphore(0)
    committer = committer_over(protocol)
    futures = start(committer, [("a", adding(protocol, "first"))])
    assert protocol.waits.wait(20)
    futures += start(committer, [("a", adding(protocol, "second"))])
    queued(committer, "a", 1)
    protocol.turns.release()
    for future in futures:
        assert future.result(timeout=20) is None
    assert protocol.groups == [2] and protocol.done == ["first", "second"]


def test_one_that_is_refused_costs_the_others_nothing() -> None:
    protocol, committer, first = held_up(THREADS)
    changes = [refusing if number % 5 == 2 else adding(protocol, str(number)) for number in range(THREADS)]
    futures = start(committer, [("a", change) for change in changes])
    queued(committer, "a", THREADS)
    assert protocol.gate is not None
    protocol.gate.release(10)
    first.result(timeout=20)
    for number, future in enumerate(futures):
        error = future.exception(timeout=20)
        assert isinstance(error, TagInvalid) if number % 5 == 2 else error is None
    assert sorted(protocol.done, key=str) == sorted(["first", *(str(n) for n in range(THREADS) if n % 5 != 2)], key=str)
    assert protocol.groups == [1, THREADS]


@pytest.mark.parametrize(
    "error", [NoSpace("full", {"n": 1}), IoFailed("broken"), ValueError("a bug"), KeyboardInterrupt()]
)
def test_an_error_of_the_storage_reaches_all_of_the_group_and_no_other(error: BaseException) -> None:
    protocol, committer, first = held_up(THREADS)
    protocol.fail = lambda number: error if number == 2 else None
    futures = start(committer, [("a", adding(protocol, "lost"))] * THREADS)
    queued(committer, "a", THREADS)
    assert protocol.gate is not None
    protocol.gate.release()
    assert first.exception(timeout=20) is None
    protocol.gate.release(10)
    found = [future.exception(timeout=20) for future in futures]
    assert [type(e) for e in found] == [type(error)] * THREADS
    if isinstance(error, NoSpace):
        assert [(e.message, e.detail) for e in found] == [("full", {"n": 1})] * THREADS
        assert len({id(e) for e in found}) == THREADS, "one object can't be raised in several threads"
    committer.commit("a", adding(protocol, "after"))
    assert protocol.done == ["first", "after"]


def test_an_answer_for_too_few_is_an_error_for_all_and_no_success() -> None:
    protocol, committer, first = held_up(3)
    assert protocol.gate is not None
    whole = protocol.commit_index

    def short(name: str, changes: Sequence[Change]) -> list[Outcome]:
        return whole(name, changes)[:-1]

    protocol.commit_index = short  # type: ignore[method-assign]
    futures = start(committer, [("a", adding(protocol, "x"))] * 3)
    queued(committer, "a", 3)
    protocol.gate.release(10)
    first.result(timeout=20)
    assert [isinstance(future.exception(timeout=20), ValueError) for future in futures] == [True] * 3


def test_leadership_is_handed_over_and_a_group_has_a_limit() -> None:
    protocol, committer, first = held_up(0)
    count = GROUP_CHANGES + 40
    futures = start(committer, [("a", adding(protocol, "x"))] * count)
    queued(committer, "a", count)
    assert protocol.gate is not None
    protocol.gate.release(10)
    for future in [first, *futures]:
        future.result(timeout=20)
    assert sum(protocol.groups) == count + 1
    assert protocol.groups[0] == 1 and max(protocol.groups) <= GROUP_CHANGES + 1
    assert len(protocol.groups) == 3
    assert committer._queues == {}, "nothing is kept for a repository at rest"


def test_the_heir_of_a_leader_that_failed_leads() -> None:
    protocol, committer, first = held_up(1)
    protocol.fail = lambda number: IoFailed("once") if number == 1 else None
    later = start(committer, [("a", adding(protocol, "later"))])[0]
    queued(committer, "a", 1)
    assert protocol.gate is not None
    protocol.gate.release(10)
    assert isinstance(first.exception(timeout=20), IoFailed)
    assert later.exception(timeout=20) is None
    assert protocol.done == ["later"]


def test_repositories_do_not_wait_for_each_other() -> None:
    protocol, committer, first = held_up(1)
    other = start(committer, [("b", adding(protocol, "other"))])[0]
    assert protocol.entered.acquire(timeout=20), "b is committing while a is"
    assert protocol.gate is not None
    protocol.gate.release(2)
    first.result(timeout=20)
    other.result(timeout=20)


def test_no_wakeup_is_lost() -> None:
    """Sixteen threads on two names for a while: each returns, once, and no two lead at the same time."""
    protocol = FakeProtocol()
    protocol.fail = lambda number: IoFailed("now and then") if number % 7 == 0 else None
    committer = committer_over(protocol)
    answers: Counter[str] = Counter()
    mutex = threading.Lock()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(400):
            change = refusing if rng.random() < 0.1 else adding(protocol, "x")
            try:
                committer.commit(rng.choice("ab"), change)
                answer = "done"
            except TagInvalid:
                answer = "refused"
            except IoFailed:
                answer = "failed"
            with mutex:
                answers[answer] += 1

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "somebody waits for ever"
    assert sum(answers.values()) == THREADS * 400 == sum(protocol.groups)
    assert answers["done"] == len(protocol.done)
    assert min(answers.values()) > 0 and not protocol.overlap
    assert committer._queues == {}


# -- over the real protocol ---------------------------------------------------------------------


class Counting(WrappedDriver):
    """Counts how often an index.json is replaced, and makes it slow, so that others queue up."""

    renames = 0
    full = False

    def rename(self, source: str, target: str) -> None:
        if target.endswith("/index.json"):
            if self.full:
                raise NoSpace("full")
            time.sleep(0.005)
            self.renames += 1
        self.inner.rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        if other.endswith("/index.json"):
            if self.full:
                raise NoSpace("full")
            time.sleep(0.005)
            self.renames += 1
        self.inner.exchange(one, other)


def prepared(store: Any, seeds: list[str]) -> list[images.Image]:
    made = [images.image(seed, layers=1) for seed in seeds]
    repository = store.repository_for_push("a")
    for image in made:
        for blob in image.blobs:
            push_blob(repository, blob)
    return made


@pytest.mark.parametrize("local", [False, True])
def test_i4_sixteen_pushers_lose_nothing_and_share_renames(local: bool, tmp_path: Path) -> None:
    driver = Counting(LocalDriver(str(tmp_path)) if local else MemoryDriver())
    store = store_over(driver)
    made = prepared(store, [str(number) for number in range(THREADS)])
    bad = json.loads(made[0].manifest)
    bad["layers"][0]["digest"] = digest_of(b"not here")
    wrong = json.dumps(bad).encode()
    before, refused = driver.renames, []

    def push(number: int) -> None:
        image = made[number]
        for turn in range(8):
            repository = store.repository_for_push("a")
            manifest = check_manifest(image.manifest, OCI_MANIFEST)
            repository.put_manifest(manifest, image.manifest, [f"t{number}-{turn}"])
            assert store.repository("a").manifest(f"t{number}-{turn}").body == image.manifest
            if turn % 4 == 0:
                with pytest.raises(ManifestBlobUnknown):
                    repository.put_manifest(check_manifest(wrong, OCI_MANIFEST), wrong, ["bad"])
                refused.append(number)
            if turn % 4 == 3:
                repository.delete_manifest(f"t{number}-{turn}")
                with pytest.raises(ManifestUnknown):
                    store.repository("a").manifest(f"t{number}-{turn}")

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(push, number) for number in range(THREADS)]:
            future.result()
    expected = sorted(f"t{n}-{t}" for n in range(THREADS) for t in range(8) if t % 4 != 3)
    assert store.repository("a").tags() == expected == store_over(driver).repository("a").tags()
    changes = THREADS * 10
    assert driver.renames - before < changes / 2, "they did not commit in groups"
    assert len(refused) == THREADS * 2


def test_i4_many_repositories_at_once_with_foreign_writers_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch over old index files is shared by all repositories and threads."""
    monkeypatch.setattr("zotctl.storage.local.index_file.LATE_WRITES_WATCHED_S", 0.005)
    store = store_over(LocalDriver(str(tmp_path)))
    stop, faults = threading.Event(), []

    def maintain() -> None:
        while not stop.is_set():
            try:
                store.maintain()
            except Exception as error:
                faults.append(error)

    helper = threading.Thread(target=maintain)
    helper.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            jobs = [
                pool.submit(push_image, store, f"r{number % 4}", f"t{number}", seed=str(number % 3), layers=1)
                for number in range(160)
            ]
            for job in jobs:
                job.result()
    finally:
        stop.set()
        helper.join()
    assert faults == []
    for number in range(4):
        assert len(store.repository(f"r{number}").tags()) == 40


def test_i3_a_full_disk_at_the_rename_is_an_error_for_all_and_changes_nothing(tmp_path: Path) -> None:
    driver = Counting(LocalDriver(str(tmp_path)))
    store = store_over(driver)
    push_image(store, "a", "v1")
    made = prepared(store, ["one", "two", "three"])
    before = (tmp_path / "a" / "index.json").read_bytes()
    driver.full = True

    def push(image: images.Image) -> None:
        with pytest.raises(NoSpace):
            manifest = check_manifest(image.manifest, OCI_MANIFEST)
            store.repository_for_push("a").put_manifest(manifest, image.manifest, ["v2"])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(push, made))
    assert (tmp_path / "a" / "index.json").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert list((tmp_path / ".zotctl" / "tmp").iterdir()) == []
    driver.full = False
    for image in made:
        store.repository_for_push("a").put_manifest(
            check_manifest(image.manifest, OCI_MANIFEST), image.manifest, ["v2"]
        )
    assert store.repository("a").tags() == ["v1", "v2"]


def test_i4_old_index_files_that_are_watched_have_a_bound_and_nothing_of_them_is_lost(tmp_path: Path) -> None:
    store = store_over(LocalDriver(str(tmp_path)))
    push_image(store, "first", "v1")
    late = (tmp_path / "first" / "index.json").open("r+b")
    push_image(store, "first", "v2", seed="other")
    before = len(os.listdir("/proc/self/fd"))
    written = json.loads(late.read())
    written["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "late"
    late.seek(0)
    late.write(json.dumps(written).encode())
    late.close()
    for number in range(WATCHED_FILES + 20):
        push_image(store, f"r{number}", "v1", layers=1)
        push_image(store, f"r{number}", "v2", layers=1)
    assert len(os.listdir("/proc/self/fd")) - before <= WATCHED_FILES
    store.maintain()
    assert store.repository("first").tags() == ["late", "v1", "v2"]
