"""What is remembered of pushes and pulls in a directory, and what is left of it when it is made shorter."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.nfs import ByTwoRequests
from tests.faults import Call, Crash, Faults, Meanwhile
from tests.stores import push_image, root_over, store_over
from zotctl.errors import NotFound
from zotctl.storage import keys
from zotctl.storage.driver import Buffer, Driver, Writer, read
from zotctl.storage.history import Timeline, condensed, events_of
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.history import Here, LocalHistory
from zotctl.storage.local.protocol import local_of
from zotctl.storage.protocol import WouldBlock

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
KEY = keys.history("app")


@pytest.fixture
def only_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compaction leaves only what a timeline needs."""
    monkeypatch.setattr("zotctl.storage.local.history.REMEMBERED_EVENTS", 0)


@pytest.fixture(params=["memory", "directory"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    return MemoryDriver() if request.param == "memory" else LocalDriver(str(tmp_path))


def history_over(driver: Driver, clock: Hand | None = None) -> LocalHistory:
    return local_of(root_over(driver, clock or Hand())).history


def here(alive: Container[str], tags: Container[str]) -> Callable[[], Here]:
    """What a collector finds."""
    return lambda: Here(alive, tags)


def fill(history: LocalHistory, count: int = 50) -> None:
    """Something to forget."""
    for number in range(count):
        history.note("app", "push", f"sha256:{number:064}", {"v1": None})


def test_what_no_terminal_or_encoder_takes_is_left_out(driver: Driver) -> None:
    """A login need not be UTF-8, and one in a token may have anything."""
    history = history_over(driver)
    history.note("app", "push", A, {"v1": None}, user=b"m\xfcller".decode("utf-8", "surrogateescape"))
    history.note("app", "untag", A, {"v1": A}, user="\x1b[2Jm\u00fcller")
    found = [event["u"] for event in history.events("app")]
    assert found == [r"m\udcfcller", r"\x1b[2Jm" + "\u00fcller"]


@pytest.mark.usefixtures("only_needed")
def test_it_remembers_when_a_manifest_lost_its_tag(driver: Driver) -> None:
    """Which the push of another manifest tells, that may be gone by now."""
    clock = Hand()
    history = history_over(driver, clock)
    history.note("app", "push", A, {"v1": None})
    clock.at += 1000
    history.note("app", "push", B, {"v1": A})
    lost = clock.at
    clock.at += 1000
    history.note("app", "delete", B)
    fill(history)
    history.compact("app", here({A}, set()))
    past = history.timeline("app")
    assert past.pushed[A] == lost
    assert past.here >= {A} and history.size("app") < 500


@pytest.mark.usefixtures("only_needed")
def test_it_remembers_pulls_and_notes(driver: Driver) -> None:
    clock = Hand()
    history = history_over(driver, clock)
    history.note("app", "note", A)
    noted = clock.at
    for _ in range(100):
        clock.at += 86400
        history.note_pull("app", A)
    history.note("app", "note", A)
    history.note("app", "push", B, {"v1": None, "gone": None})
    before = history.timeline("app")
    history.compact("app", here({A, B}, {"v1"}))
    assert len(events_of(read(driver, KEY, 1 << 20))) == 3
    past = history.timeline("app")
    assert (past.noted, past.pulled, past.pushed, past.here) == ({A: noted}, before.pulled, before.pushed, before.here)
    assert past.tagged["v1"] == before.tagged["v1"]


digests = st.sampled_from(["a", "b", "c"])
events = st.lists(
    st.fixed_dictionaries(
        {
            "t": st.integers(0, 9),
            "a": st.sampled_from(["push", "pull", "note", "untag", "delete", "move"]),
            "d": digests,
        },
        optional={"tags": st.dictionaries(st.sampled_from(["v1", "v2"]), st.none() | digests, max_size=2)},
    ),
    max_size=12,
)


@given(events, st.sets(digests), st.sets(st.sampled_from(["v1", "v2"])))
def test_nothing_is_forgotten_of_what_is_there(
    written: list[dict[str, object]], alive: set[str], tags: set[str]
) -> None:
    def known(some: list[dict[str, object]]) -> list[object]:
        past = Timeline()
        for event in some:
            past.take(event)
        times = [{d: at for d, at in times.items() if d in alive} for times in (past.pushed, past.pulled, past.noted)]
        return [*times, past.here & alive, {tag: at for tag, at in past.tagged.items() if tag in tags}]

    kept = condensed(written, alive, tags)
    assert known(kept) == known(written)
    assert condensed(kept, alive, tags) == kept, "and nothing is left to be forgotten"


class Beside(Faults):
    """Before one step, somebody else does something."""

    def __init__(self, inner: Driver, at: int, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self.at, self.act, self.calls = at, act, list[str]()

    def before(self, call: Call) -> None:
        self.calls.append(call.method)
        if len(self.calls) == self.at:
            self.act()


@pytest.mark.usefixtures("only_needed")
def test_what_is_written_meanwhile_is_kept(driver: Driver) -> None:
    """At any step of it, by another process."""
    other, step, done = history_over(driver), 1, False
    while not done:
        fill(other)
        faulty = Beside(driver, 0, partial(other.note, "app", "pull", f"{step}"))
        history = history_over(faulty)
        faulty.calls.clear()
        faulty.at = step
        history.compact("app", here({str(number) for number in range(step + 1)}, set()))
        done = len(faulty.calls) < step
        step += not done
    assert step > 6
    assert other.timeline("app").pulled.keys() == {str(number) for number in range(1, step)}


def pulled_beside_a_compaction(driver: MemoryDriver, step: int) -> set[str]:
    """The pulls that are known after a compaction, at this step of which another process noted one."""
    beside = Beside(driver, 0, lambda: history_over(driver).note("app", "pull", A))
    history = history_over(beside)
    beside.calls.clear()
    beside.at = step
    history.compact("app", here({A}, set()))
    assert len(beside.calls) >= step
    return set(history_over(driver).timeline("app").pulled)


@pytest.mark.usefixtures("only_needed")
@pytest.mark.parametrize("step", range(1, 15))
def test_what_is_written_meanwhile_is_kept_behind_a_long_one(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which only the end is read."""
    monkeypatch.setattr("zotctl.storage.local.history.LARGEST_HISTORY_BYTES", 1000)
    driver = MemoryDriver()
    fill(history_over(driver))
    assert pulled_beside_a_compaction(driver, step) == {A}


@pytest.mark.usefixtures("only_needed")
@pytest.mark.parametrize("step", range(1, 8))
def test_what_is_written_meanwhile_is_kept_of_one_that_two_stores_share(step: int) -> None:
    """Who writes puts a copy in its place, up to the moment when the shorter one is about to get the name."""
    driver = MemoryDriver()
    fill(history_over(driver))
    driver.link(KEY, "of-another-store")
    assert pulled_beside_a_compaction(driver, step) == {A}
    assert not driver.scan(keys.TMP), "nothing is left behind"


class Opened(Faults):
    """Somebody acts when the file is open and nothing is written yet."""

    act: Callable[[], object] = staticmethod(lambda: None)

    def append(self, key: str, *, create: bool = True) -> Writer:
        writer, act = super().append(key, create=create), self.act
        self.act = lambda: None
        act()
        return writer


@pytest.mark.usefixtures("only_needed")
def test_who_has_it_open_writes_into_the_new_one(driver: Driver) -> None:
    opened, collector = Opened(driver), history_over(driver)
    history = history_over(opened)
    fill(history)
    opened.act = lambda: collector.compact("app", here({A}, set()))
    history.note("app", "untag", A, {"v1": A})
    assert collector.timeline("app").pushed.keys() == {A}
    assert collector.size("app") < 500


@pytest.mark.usefixtures("only_needed")
def test_of_two_that_make_it_shorter_one_gives_way(driver: Driver) -> None:
    """The other had the file open when it was replaced."""
    opened, other = Opened(driver), history_over(driver)
    history = history_over(opened)
    fill(history)

    def act() -> None:
        other.compact("app", here({A}, set()))
        other.note("app", "push", B, {"v2": None})

    opened.act = act
    history.compact("app", here({A}, set()))
    assert history.timeline("app").here == {B} and history.size("app") < 500


@pytest.mark.usefixtures("only_needed")
def test_a_push_that_is_noted_while_what_is_there_is_asked_for_stays(driver: Driver) -> None:
    """It is not there yet, and no older event is: whoever tells holds the lock under which it was done."""
    history = history_over(driver)
    fill(history)

    def found() -> Here:
        history.note("app", "push", B, {"v2": None})
        return Here({A}, set())

    history.compact("app", found)
    assert history.timeline("app").here == {B} and history.size("app") < 500


@pytest.mark.usefixtures("only_needed")
def test_where_that_is_not_known_nothing_is_forgotten(driver: Driver) -> None:
    history = history_over(driver)
    fill(history)
    before = history.size("app")
    history.compact("app", lambda: None)
    assert history.size("app") == before


@pytest.mark.usefixtures("only_needed")
def test_without_locks_it_is_written_once_more() -> None:
    driver, acts = MemoryDriver(locks=False), list[Callable[[], object]]()

    class Writing(Faults):
        def written(self, key: str, inner: Writer, buffers: Sequence[Buffer]) -> int:
            while acts:
                acts.pop()()
            return super().written(key, inner, buffers)

    history, collector = history_over(Writing(driver)), history_over(driver)
    fill(history)
    acts.append(lambda: collector.compact("app", here({A}, set())))
    history.note("app", "untag", A, {"v1": A})
    assert collector.timeline("app").pushed.keys() == {A} and acts == []


@pytest.mark.usefixtures("only_needed")
def test_it_is_flushed_before_it_takes_the_place_of_the_old_one(driver: Driver) -> None:
    """Whatever `commit` says: what it replaces was safe for years."""
    steps: list[str] = []

    class Watched(Faults):
        def before(self, call: Call) -> None:
            if call.method in ("write", "sync", "rename") and not call.key.endswith("lock"):
                steps.append(call.method)

    history = history_over(Watched(driver))
    fill(history)
    steps.clear()
    history.compact("app", here(set(), set()))
    assert steps == ["write", "sync", "rename", "rename"]


@pytest.mark.parametrize("step", range(1, 12))
def test_killed_anywhere_it_is_the_old_one_or_the_new_one(step: int) -> None:
    driver = MemoryDriver()

    class Dying(Faults):
        left = step

        def before(self, call: Call) -> None:
            self.left -= 1
            if self.left <= 0:
                raise Crash

    history = history_over(driver)
    fill(history)
    history.note("app", "push", A, {"v1": None})
    before = history.timeline("app")
    faulty = history_over(driver)
    faulty._context.driver = Dying(driver)
    with pytest.raises(Crash):
        faulty.compact("app", here({A}, {"v1"}))
        raise Crash  # fewer steps than that
    after = history.timeline("app")
    assert after == before or after.pushed.keys() == {A}


class Waits(Crash):
    """It would wait for another process."""


class Impatient(Hand):
    def sleep(self, seconds: float) -> None:
        raise Waits


@pytest.mark.usefixtures("only_needed")
@pytest.mark.parametrize("pull", range(1, 19))
@pytest.mark.parametrize("death", range(1, 19))
def test_killed_anywhere_it_loses_no_pull(pull: int, death: int) -> None:
    """A pull comes before one step of it, unless it has to wait, and then comes when the lock is free."""
    driver, noted = MemoryDriver(), list[str]()

    def note(event: str) -> None:
        with suppress(Waits):
            history_over(driver, Impatient()).note("app", "pull", event)
            noted.append(event)

    class Dying(Faults):
        step = 0

        def before(self, call: Call) -> None:
            self.step += 1
            if self.step == pull:
                note(A)
            if self.step >= death:
                raise Crash

    fill(history_over(driver))
    faulty = history_over(driver)
    faulty._context.driver = Dying(driver)
    with suppress(Crash):
        faulty.compact("app", here({A, B}, {"v1"}))
    note(B)
    assert history_over(driver).timeline("app").pulled.keys() == set(noted) >= {B}


@pytest.mark.usefixtures("only_needed")
def test_i4_it_is_read_and_written_while_no_file_has_its_name(driver: Driver) -> None:
    other = history_over(driver)
    other.note("app", "push", A, {"v1": None})
    fill(other)

    def between(_: str) -> None:
        assert KEY not in [f"{keys.HISTORY}/{entry.name}" for entry in driver.scan(keys.HISTORY)]
        assert other.timeline("app").pushed.keys() == {A}
        assert other.names() == {"app"}
        other.note("app", "pull", A)

    with suppress(NotFound):
        history_over(ByTwoRequests(driver, between)).compact("app", here({A}, set()))
    past = other.timeline("app")
    assert past.pushed.keys() == past.pulled.keys() == {A}
    assert [entry.name for entry in driver.scan(keys.HISTORY)] == [keys.name_key("app")]


@pytest.mark.usefixtures("only_needed")
def test_i4_killed_while_no_file_has_its_name_it_is_the_new_one(driver: Driver) -> None:
    other = history_over(driver)
    other.note("app", "push", A, {"v1": None})
    fill(other)

    def die(_: str) -> None:
        raise Crash

    with pytest.raises(Crash):
        history_over(ByTwoRequests(driver, die)).compact("app", here({A}, set()))
    assert other.timeline("app").pushed.keys() == {A}
    other.note("app", "pull", A)
    past = other.timeline("app")
    assert past.pushed.keys() == past.pulled.keys() == {A}
    assert [entry.name for entry in driver.scan(keys.HISTORY)] == [keys.name_key("app")]


@pytest.mark.usefixtures("only_needed")
def test_i4_who_gives_it_its_name_takes_none_from_another(driver: Driver) -> None:
    """One stands still while the file has both names. Another takes it for one that a copied store shares, and puts a
    copy in its place, by the name that the first one is about to remove."""
    other = history_over(driver)
    other.note("app", "push", A, {"v1": None})
    fill(other)
    driver.rename(KEY, keys.renewed(KEY))  # a compaction was killed
    stands, goes_on = Event(), Event()

    def stand() -> None:
        stands.set()
        goes_on.wait(20)

    def go_on(key: str) -> None:
        if key == KEY:
            goes_on.set()
            first.join()

    standing = history_over(Meanwhile(driver, "unlink", stand, lambda key: key == keys.renewed(KEY)))
    first = Thread(target=standing.note, args=("app", "pull", A))
    first.start()
    assert stands.wait(20)
    history_over(ByTwoRequests(driver, go_on)).note("app", "pull", B)
    goes_on.set()
    first.join()
    assert A in other.timeline("app").pushed


def test_of_many_changes_one_waits_for_a_process_that_stands_still() -> None:
    """Else a commit of 256 changes would hold the repository's lock for so long that it began again, for ever."""
    driver, clock, waits = MemoryDriver(), Hand(), list[int]()
    clock.on_sleep = lambda: waits.append(1)
    history = history_over(driver, clock)
    fill(history, 1)
    with driver.append(KEY) as frozen:
        assert frozen.try_lock() and waits == []
        fill(history, 1)
        once = len(waits)
        fill(history, 256)
        assert len(waits) == once > 0
        clock.at += 60
        fill(history, 1)
        assert len(waits) > once
    assert len(history.events("app")) == 259


def test_a_pull_that_must_not_wait_is_noted_by_one_that_may() -> None:
    """As each pull on the event loop, on which no other request would be served meanwhile."""
    driver, clock = MemoryDriver(), Hand()
    digest = push_image(store := store_over(driver, clock=clock), "app", "v1")
    with driver.append(KEY) as other:
        assert other.try_lock()
        clock.on_sleep = lambda: pytest.fail("it waits")
        with pytest.raises(WouldBlock):
            store.repository("app", wait=False).note_pull(digest)
        clock.on_sleep = other.close
        store.repository("app").note_pull(digest)
    assert store.roots[0].history.timeline("app").pulled.keys() == {digest}


def test_a_pull_that_must_not_wait_copies_no_history() -> None:
    """Which another store shares, that was copied by links."""
    driver = MemoryDriver()
    digest = push_image(store := store_over(driver), "app", "v1")
    driver.link(KEY, "the-other")
    with pytest.raises(WouldBlock):
        store.repository("app", wait=False).note_pull(digest)
    assert driver.stat(KEY).nlink == 2
    store.repository("app").note_pull(digest)
    assert driver.stat(KEY).nlink == 1
    assert store.roots[0].history.timeline("app").pulled.keys() == {digest}


def test_where_little_would_be_forgotten_nothing_is_written(driver: Driver) -> None:
    history = history_over(driver)
    fill(history, 10)
    before = driver.stat(KEY)
    history.compact("app", here({f"sha256:{number:064}" for number in range(8)}, {"v1"}))
    assert driver.stat(KEY).generation == before.generation


def test_a_torn_line_costs_no_other(driver: Driver) -> None:
    history = history_over(driver)
    history.note("app", "push", A, {"v1": None})
    with driver.append(KEY) as writer:
        writer.write([b'{"t":1,"a":"pu'])
    history.note("app", "push", B, {"v2": None})
    assert history.timeline("app").here == {A, B}


def test_of_a_long_one_the_end_is_read(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zotctl.storage.local.history.LARGEST_HISTORY_BYTES", 500)
    history = history_over(driver)
    fill(history)
    history.note("app", "push", A, {"v1": None})
    assert A in history.timeline("app").here


def test_what_is_no_event_is_skipped(driver: Driver) -> None:
    history = history_over(driver)
    rubbish: list[Any] = [
        {"t": "x"}, [], {"a": "push", "d": A}, {"t": 1, "d": [1]}, {"t": 1, "a": "push", "d": A, "tags": [1]},
        {"t": 1, "a": "push", "d": A, "tags": {"v1": [2]}}, None, 7,
    ]  # fmt: skip
    history.note("other", "push", A)  # so that there is the directory
    with driver.append(KEY) as writer:
        writer.write([b"".join(json.dumps(one).encode() + b"\n" for one in rubbish)])
        writer.write([b'{"t":NaN,"a":"push","d":"x"}\n{"t":Infinity,"a":"push","d":"x"}\n\xff\n'])
        writer.write([b"[" * 100_000, b'\n{"t":1', b"0" * 400, b',"a":"push","d":"x"}\n'])
    history.note("app", "push", B)
    assert history.timeline("app").pushed.keys() == {B}


@pytest.mark.usefixtures("only_needed")
def test_what_was_elsewhere_was_then_and_never_later_than_it_was_written_down(driver: Driver) -> None:
    """Pulls and pushes that an import brings; a compaction compares pulls by that, too."""
    clock = Hand()
    history = history_over(driver, clock)
    history.note("app", "pull", A, None, clock.at - 50)
    history.note("app", "push", A, {"mine": None}, clock.at + 999)
    now = clock.at
    clock.at += 10
    history.note("app", "pull", A, None, now - 500)
    fill(history)
    for _ in range(2):
        past = history.timeline("app")
        assert (past.pulled[A], past.tagged["mine"]) == (now - 50, now)
        history.compact("app", here({A}, {"mine"}))


def test_a_line_that_says_later_than_it_was_written_is_of_then(driver: Driver) -> None:
    history = history_over(driver, clock := Hand())
    history.note("app", "push", B)
    with driver.append(KEY) as writer:
        writer.write([json.dumps({"t": clock.at, "a": "pull", "r": "app", "d": A, "at": clock.at + 999}).encode()])
    assert history.timeline("app").pulled[A] == clock.at


def test_a_pull_is_written_once_a_day_for_each_manifest_of_each_repository(driver: Driver) -> None:
    clock = Hand()
    history = history_over(driver, clock)
    for _ in range(3):
        history.note_pull("app", A)
    size = history.size("app")
    history.note_pull("other", A)
    assert history.timeline("other").pulled.keys() == {A}
    assert len(events_of(read(driver, KEY, 1 << 20))) == 1
    clock.at += 86400
    history.note_pull("app", A)
    assert history.size("app") > size


def test_what_was_removed_since(driver: Driver) -> None:
    clock = Hand()
    history = history_over(driver, clock)
    history.note("app", "untag", A, {"before": A})
    clock.at += 10
    since = clock.at
    history.note("app", "push", B, {"pushed": None})
    history.note("app", "untag", A, {"since": A})
    history.note("app", "delete", B)
    assert history.removed_since("app", since) == {"since", B}


@pytest.mark.usefixtures("only_needed")
def test_a_compaction_keeps_what_only_a_later_version_knows(driver: Driver) -> None:
    history = history_over(driver)
    history.note("app", "sealed", A)
    fill(history)
    history.compact("app", here({A}, set()))
    assert [event["a"] for event in events_of(read(driver, KEY, 1 << 20))] == ["sealed"]
