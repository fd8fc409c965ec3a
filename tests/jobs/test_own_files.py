"""What jobs write down for the next run, where an NFS client replaces a file by two requests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.nfs import ByTwoRequests
from tests.faults import Crash
from tests.stores import store_over
from zotctl.jobs import clock_check
from zotctl.jobs.check.scrub_state import Checked, FirstSeen, passes, standing_findings
from zotctl.jobs.last_run import last_run, note_run
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.driver import Driver, Info
from zotctl.storage.root import Root

DIGEST = digest_of(b"x")
BLOB = Info(1, 0, 0, 0, 1, 0, 0, 0, 0)


@pytest.fixture
def far() -> MemoryDriver:
    return MemoryDriver(local=False)


def root_of(driver: Driver) -> Root:
    return store_over(driver, clock=Hand()).roots[0]


def written(driver: Driver, key: str, body: bytes) -> None:
    root_of(driver).maintenance.write(key, [body])


def test_it_is_read_while_its_name_leads_nowhere(far: MemoryDriver) -> None:
    met = list[bytes]()

    def between(key: str) -> None:
        met.append(root_of(far).maintenance.read(key, 9))

    written(far, keys.CLOCK, b"one")
    written(ByTwoRequests(far, between), keys.CLOCK, b"two")
    assert met == [b"two"]
    assert root_of(far).maintenance.read(keys.CLOCK, 9) == b"two"
    assert keys.renewed(keys.CLOCK) not in far.names and not far.scan(keys.TMP)


def test_killed_then_it_is_the_new_one_until_it_is_replaced(far: MemoryDriver) -> None:
    def die(_: str) -> None:
        raise Crash

    written(far, keys.CLOCK, b"one")
    with pytest.raises(Crash):
        written(ByTwoRequests(far, die), keys.CLOCK, b"two")
    assert root_of(far).maintenance.read(keys.CLOCK, 9) == b"two"
    written(far, keys.CLOCK, b"three")
    assert root_of(far).maintenance.read(keys.CLOCK, 9) == b"three"
    assert keys.renewed(keys.CLOCK) not in far.names


def test_killed_twice_it_is_the_latest(far: MemoryDriver) -> None:
    """The first one has died before it took any name away."""
    written(far, keys.CLOCK, b"one")
    with far.create(keys.renewed(keys.CLOCK)) as writer:
        writer.write([b"two"])

    def die(_: str) -> None:
        raise Crash

    with pytest.raises(Crash):
        written(ByTwoRequests(far, die), keys.CLOCK, b"three")
    assert root_of(far).maintenance.read(keys.CLOCK, 9) == b"three"


def _scrub_state(root: Root) -> object:
    state = Checked(root, Hand())
    return state.when(DIGEST, BLOB), state.repositories


def _noted(root: Root) -> None:
    """All that jobs write down."""
    clock, run = Hand(), Run("gc", store_over(root.driver, clock=Hand()))
    state, seen = Checked(root, clock), FirstSeen(root, clock)
    state.begin()
    state.note(DIGEST, BLOB)
    state.note_repository("a")
    state.save()
    seen.of("a", DIGEST, "digest_mismatch", "")
    seen.save()
    note_run(run.finish(lambda: None), [root])
    clock_check.note_clock(root, clock)


READERS: dict[str, Callable[[Root], object]] = {
    "when it was hashed": _scrub_state,
    "how far a scrub has come": passes,
    "what is damaged": standing_findings,
    "what the clock said": lambda root: clock_check._read(root)[0],
    "the last run": lambda root: last_run(root, "gc"),
}


@pytest.mark.parametrize("what", READERS)
def test_each_reader_finds_it(far: MemoryDriver, what: str) -> None:
    root = root_of(far)
    _noted(root)
    before = READERS[what](root)
    for key in (keys.SCRUB_STATE, keys.SCRUB_FINDINGS, keys.CLOCK, keys.last_run("gc")):
        far.rename(key, keys.renewed(key))
    assert before and READERS[what](root) == before
