"""What scrub remembers between its runs, step by step."""

from __future__ import annotations

import json

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.jobs.test_scrub_rounds import DAY, Hand
from tests.stores import store_over
from zotctl.errors import Unavailable
from zotctl.jobs.check import scrub_state
from zotctl.jobs.check.scrub_state import SETTLING_S, Checked, FirstSeen
from zotctl.storage import keys
from zotctl.storage.driver import Info, read
from zotctl.storage.root import Root


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def root(clock: Hand) -> Root:
    return store_over(MemoryDriver(), clock=clock).roots[0]


def info(number: int) -> Info:
    return Info(number, 0, 0, 0, 1, 0, 0, 0, 0)


def noted(root: Root, clock: Hand) -> Checked:
    """One file of an earlier pass, and one of the pass that is open."""
    state = Checked(root, clock)
    state.begin()
    state.note("early", info(1))
    state.note_repository("early")
    clock.at += DAY
    state.complete(whole=False, prune=False)
    state.begin()
    state.note("late", info(2))
    state.note_repository("late")
    return state


def test_a_clock_that_does_not_answer_costs_no_state(root: Root, clock: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> float:
        raise Unavailable("it is away")

    monkeypatch.setattr(root.protocol, "now", refuse)
    noted(root, clock).save()
    assert Checked(root, clock).when("late", info(2))


@pytest.mark.parametrize(("whole", "prune"), [(True, True), (True, False), (False, True)])
def test_only_a_pass_over_everything_that_saw_everything_forgets(
    root: Root, clock: Hand, whole: bool, prune: bool
) -> None:
    state = noted(root, clock)
    began = state.began
    state.complete(whole=whole, prune=prune)
    kept = not (whole and prune)
    assert (state.when("early", info(1)) > 0) == kept
    assert ("early" in state.repositories) == kept
    assert state.when("late", info(2)) == began
    assert (state.began, state.last) == (0, began if whole else 0)


def test_what_was_written_shortly_before_a_stop_of_the_machine_is_doubtful(
    root: Root, clock: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Checked(root, clock)
    assert state.doubtful_since() is None, "nothing is known"
    state.save()
    saved = int(clock.at)
    assert Checked(root, clock).doubtful_since() is None
    monkeypatch.setattr(scrub_state, "boot_id", lambda: "another start")
    clock.at += DAY
    state = Checked(root, clock)
    assert state.doubtful_since() == saved - SETTLING_S
    state.save()
    assert Checked(root, clock).doubtful_since() == saved - SETTLING_S, "until it was looked at"
    state.complete(whole=False, prune=True)
    assert state.doubtful_since() == saved - SETTLING_S, "a part is not all"
    state.complete(whole=True, prune=False)
    assert state.doubtful_since() is None
    state.save()
    assert Checked(root, clock).doubtful_since() is None


def test_nothing_counts_as_checked_by_a_clock_that_was_wrong(root: Root, clock: Hand) -> None:
    right = clock.at
    clock.at += 3650 * DAY
    state = Checked(root, clock)
    state.begin()
    state.note("one", info(1))
    state.note_repository("one")
    state.complete(whole=True, prune=True)
    state.begin()
    state.save()
    clock.at = right
    state = Checked(root, clock)
    assert (state.began, state.last) == (0, 0)
    assert state.when("one", info(1)) <= right
    assert state.repositories["one"] <= right


def test_a_clock_that_is_slow_by_a_moment_takes_nothing_away(root: Root, clock: Hand) -> None:
    state = noted(root, clock)
    began = state.began
    state.save()
    clock.at -= 10
    state = Checked(root, clock)
    assert state.began == began
    state.note("next", info(3))
    assert state.when("next", info(3)) == began, "never before the pass that it belongs to"


def test_a_part_of_the_state_is_none(root: Root, clock: Hand) -> None:
    noted(root, clock).save()
    body = read(root.driver, keys.SCRUB_STATE, 1 << 20)
    root.maintenance.write(keys.SCRUB_STATE, [body[:-8]])
    state = Checked(root, clock)
    assert (state.began, state.repositories, state.when("late", info(2))) == (0, {}, 0)


def test_one_that_is_noted_again_is_there_once(root: Root, clock: Hand) -> None:
    state = noted(root, clock)
    state.save()
    size = root.driver.stat(keys.SCRUB_STATE).size
    clock.at += 5
    state.note("late", info(2))
    state.save()
    assert root.driver.stat(keys.SCRUB_STATE).size == size
    assert Checked(root, clock).when("late", info(2)) == int(clock.at)


def test_when_a_finding_was_first_seen_goes_with_its_repository(root: Root, clock: Hand) -> None:
    seen = FirstSeen(root, clock)
    first = seen.of("a", "sha256:1", "missing_blob", "")
    seen.of("a", "sha256:2", "missing_blob", "")
    seen.of("b", "sha256:1", "missing_blob", "")
    seen.save()
    clock.at += DAY
    seen = FirstSeen(root, clock)
    assert seen.of("a", "sha256:1", "missing_blob", "") == first
    seen.gone_through("a")
    seen.save()
    known = json.loads(read(root.driver, keys.SCRUB_FINDINGS, 1 << 20))
    assert sorted(json.loads(key)[:2] for key in known) == [["a", "sha256:1"], ["b", "sha256:1"]]


def test_what_another_job_has_found_meanwhile_stays(root: Root, clock: Hand) -> None:
    """`scrub` and `dedupe` run at once, and each has read the file when it began."""
    before = FirstSeen(root, clock)
    before.of("a", "sha256:1", "missing_blob", "")
    before.of("c", "sha256:1", "missing_blob", "")
    before.save()
    scrub, dedupe = FirstSeen(root, clock), FirstSeen(root, clock)
    dedupe.of("b", "sha256:2", "digest_mismatch", "")
    scrub.of("b", "sha256:1", "digest_mismatch", "")
    scrub.gone_through("a")
    scrub.save()
    dedupe.save()
    known = json.loads(read(root.driver, keys.SCRUB_FINDINGS, 1 << 20))
    assert sorted(json.loads(key)[:2] for key in known) == [["b", "sha256:1"], ["b", "sha256:2"], ["c", "sha256:1"]]
