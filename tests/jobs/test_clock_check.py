"""A clock that is far ahead takes nothing; and one that has only gone on, for however long, stops no collection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import images
from tests.cli.running import zotctl
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Recorder
from tests.jobs.retaining import KINDS, NAME, Place, places
from tests.jobs.test_gc import DELAY
from tests.stores import push_blob, root_over
from zotctl.config import Config, KeepTags, Policy, Retention
from zotctl.errors import ClockDoubtful, NoSpace
from zotctl.jobs.clock_check import LONGEST_PAUSE_S, boot_id, note_clock, require_clock
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.jobs.schedule import Schedule
from zotctl.storage import keys
from zotctl.storage.clock import DAY_S
from zotctl.storage.local.driver import LocalDriver

YEAR = 365 * DAY_S
MONTH = Policy(("**",), keep_tags=(KeepTags(pushed_within=30 * DAY_S),))


class Machine:
    """A place whose machine has been running for `up` seconds, whatever its clock says."""

    def __init__(self, place: Place) -> None:
        self.place, self.up, self.boot = place, 1000.0, "one"
        place.clock.boottime = lambda: self.up  # type: ignore[method-assign]

    def runs(self, seconds: float) -> None:
        self.up += seconds
        self.place.clock.at += seconds

    def jumps(self, seconds: float) -> None:
        self.place.clock.at += seconds

    def starts_anew(self) -> None:
        self.boot, self.up = f"{self.boot} more", 10.0

    def collect(self, *, trusted: bool = False, dry_run: bool = False) -> Report:
        self.place.store.close()
        self.place.store = self.place.another()
        rules = Rules(Retention(policies=(MONTH,)), DELAY)
        options = GcOptions(DELAY, rules=rules, compares_clock=True, trusts_clock=trusted)
        run = Run("gc", self.place.store, dry_run=dry_run)
        return run.finish(lambda: gc(run, lambda _: options))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from places(request.param)


@pytest.fixture
def machine(place: Place, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(place)
    monkeypatch.setattr("zotctl.jobs.clock_check.boot_id", lambda: made.boot)
    return made


def _all_of(place: Place) -> dict[str, object]:
    """Everything that lies there, but for what jobs write of themselves."""
    if place.kind == "bucket":
        found: dict[str, object] = {key: stored.body for key, stored in place.memory.stored.items()}
    else:
        found = {key: inode.ino for key, inode in place.driver.names.items() if inode is not None}
    return {key: body for key, body in found.items() if not key.startswith((keys.CLOCK, keys.LEASES))}


def test_a_year_ahead_for_one_run_takes_nothing(machine: Machine) -> None:
    place = machine.place
    digest = place.push("v1", seed="image")
    push_blob(place.store.repository_for_push(NAME), b"stray")
    machine.runs(2 * DELAY)
    assert machine.collect().exit_code == 0
    place.store.repository_for_push(NAME).start_upload()
    machine.runs(60)
    place.store.close()
    before = _all_of(place)
    machine.jumps(YEAR)
    report = machine.collect()
    assert report.exit_code == ClockDoubtful.exit_code == 15
    assert "365 days" in report.errors[0]["reason"] and "--trust-clock" in report.errors[0]["reason"]
    assert _all_of(place) == before
    machine.jumps(-YEAR)
    assert machine.collect().exit_code == 0
    assert place.has(digest) and place.tags == ["v1"]


def test_a_registry_that_nobody_has_touched_for_a_year_is_collected(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    assert machine.collect().exit_code == 0
    machine.runs(YEAR)
    assert machine.collect().exit_code == 0
    assert machine.place.tags == []


def test_where_nothing_was_noted_nothing_is_doubted(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 0
    assert machine.place.tags == []


def test_an_operator_who_says_so_is_believed(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    assert machine.collect(trusted=True).exit_code == 0
    assert machine.place.tags == []
    machine.runs(60)
    assert machine.collect().exit_code == 0, "for good"


def test_a_clock_that_only_goes_on_is_believed_after_a_day(machine: Machine) -> None:
    """Nobody has to do anything: a virtual machine that was paused for a year looks like that."""
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.jumps(YEAR)
    for _ in range(3):
        assert machine.collect().exit_code == 15
        machine.runs(DAY_S / 4)
    machine.runs(DAY_S / 4)
    assert machine.collect().exit_code == 0
    assert machine.place.tags == []


def test_another_jump_begins_anew(machine: Machine) -> None:
    machine.collect()
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    machine.runs(DAY_S / 2)
    assert machine.collect().exit_code == 15


@pytest.mark.parametrize(("pause", "code"), [(LONGEST_PAUSE_S - DAY_S, 0), (LONGEST_PAUSE_S + DAY_S, 15)])
def test_after_a_start_of_the_machine_only_a_long_pause_is_doubted(machine: Machine, pause: float, code: int) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.starts_anew()
    machine.jumps(pause)
    assert machine.collect().exit_code == code
    machine.runs(DAY_S)
    assert machine.collect().exit_code == 0


def test_a_clock_that_is_behind_stops_nothing(machine: Machine) -> None:
    machine.collect()
    machine.jumps(-YEAR)
    assert machine.collect().exit_code == 0


def test_a_server_that_starts_notes_what_the_clock_says(machine: Machine) -> None:
    """So that already the first collection has something to compare."""
    place = machine.place
    place.push("v1", seed="image")
    Schedule(Config(), place.store, lambda seconds: True).run()
    machine.jumps(YEAR)
    note_clock(place.store.roots[0], place.clock)
    assert machine.collect().exit_code == 15
    assert place.tags == ["v1"]


def test_two_clocks_that_disagree_take_nothing(machine: Machine) -> None:
    """That of the storage, by which all is dated, and that of the machine; without any run before."""
    place = machine.place
    place.push("v1", seed="image")
    other: Callable[[], float] = lambda: place.clock.at - YEAR  # noqa: E731
    place.driver.clock = lambda: int(other() * 1e9)
    place.memory.clock = lambda: place.clock.at + YEAR
    report = machine.collect()
    assert report.exit_code == 15 and "and that of" in report.errors[0]["reason"]
    assert machine.collect(trusted=True).exit_code == 0


def test_a_dry_run_tells_it_and_writes_nothing(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.jumps(YEAR)
    before = dict(machine.place.memory.stored) if machine.place.kind == "bucket" else dict(machine.place.driver.names)
    assert machine.collect(dry_run=True).exit_code == 15
    after = dict(machine.place.memory.stored) if machine.place.kind == "bucket" else dict(machine.place.driver.names)
    assert after.keys() == before.keys() and after.get(keys.CLOCK) == before.get(keys.CLOCK)
    assert [item["tag"] for item in machine.collect(dry_run=True, trusted=True).items] == ["v1"]


def test_a_full_disk_is_collected_all_the_same(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise NoSpace("full")

    maintenance = type(machine.place.store.roots[0].maintenance)
    monkeypatch.setattr(maintenance, "write", full)
    assert machine.collect().exit_code == 0


NO_NOTES = ["", "[]", '{"last": {"at": "x"}}', '{"last": 7, "doubted": []}', "[" * 5000,
            '{"last": {"at": 1' + "0" * 400 + ', "boot": "", "up": 1}}']  # fmt: skip


@pytest.mark.parametrize("body", NO_NOTES, ids=range(len(NO_NOTES)))
def test_what_is_no_note_is_none(machine: Machine, body: str) -> None:
    machine.place.store.roots[0].maintenance.write(keys.CLOCK, [body.encode()])
    assert machine.collect().exit_code == 0


def test_that_it_has_only_gone_on_is_told_by_the_machine(machine: Machine) -> None:
    """A jump of less than a day is no doubt of its own, and no hour of waiting either."""
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    machine.jumps(0.8 * DAY_S)
    machine.runs(0.5 * DAY_S)
    assert machine.collect().exit_code == 15
    assert machine.place.tags == ["v1"]


def test_another_jump_a_day_later_is_doubted_by_itself(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    machine.jumps(YEAR)
    machine.runs(DAY_S)
    assert machine.collect().exit_code == 15
    machine.runs(DAY_S)
    assert machine.collect().exit_code == 0, "that one has only gone on since"


def test_a_clock_that_was_put_back_halfway_begins_anew(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    machine.jumps(-YEAR / 2)
    machine.runs(DAY_S / 2)
    assert machine.collect().exit_code == 15
    machine.runs(DAY_S / 2)
    assert machine.collect().exit_code == 15
    machine.runs(DAY_S / 2)
    assert machine.collect().exit_code == 0


@pytest.mark.parametrize(("pause", "code"), [(LONGEST_PAUSE_S / 2, 0), (LONGEST_PAUSE_S + DAY_S, 15)])
def test_without_a_number_of_its_start_no_machine_is_taken_for_the_same(
    machine: Machine, pause: float, code: int
) -> None:
    machine.boot = ""
    machine.collect()
    machine.jumps(pause)
    assert machine.collect().exit_code == code


def test_a_clock_that_is_behind_after_a_start_stops_nothing(machine: Machine) -> None:
    machine.collect()
    machine.starts_anew()
    machine.jumps(-YEAR)
    assert machine.collect().exit_code == 0


def _server_starts(machine: Machine) -> None:
    note_clock(machine.place.store.roots[0], machine.place.clock)


def test_a_server_notes_no_clock_that_is_doubtful(machine: Machine) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    machine.starts_anew()
    machine.jumps(YEAR)
    _server_starts(machine)
    assert machine.collect().exit_code == 15


def test_a_server_notes_after_each_start_of_the_machine(machine: Machine) -> None:
    """Then no pause of weeks is believed that the machine knows better of."""
    machine.collect()
    machine.starts_anew()
    _server_starts(machine)
    machine.jumps(LONGEST_PAUSE_S / 2)
    assert machine.collect().exit_code == 15


def test_and_once_so_that_two_small_jumps_are_a_large_one(machine: Machine) -> None:
    machine.collect()
    machine.jumps(0.6 * DAY_S)
    _server_starts(machine)
    machine.jumps(0.6 * DAY_S)
    assert machine.collect().exit_code == 15


def test_a_server_notes_nothing_where_its_root_is_away(tmp_path: Path) -> None:
    root = root_over(LocalDriver(str(tmp_path)))
    (tmp_path / keys.VERSION).unlink()
    note_clock(root, root.protocol.clock)
    assert not (tmp_path / keys.CLOCK).exists()


def test_a_file_system_that_is_ahead_is_doubted_too(machine: Machine) -> None:
    place = machine.place
    place.push("v1", seed="image")
    place.driver.clock = lambda: int((place.clock.at + YEAR) * 1e9)
    place.memory.clock = lambda: place.clock.at - YEAR
    assert machine.collect().exit_code == 15


def test_a_full_disk_makes_no_clock_right(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.place.push("v1", seed="image")
    machine.collect()
    test_a_full_disk_is_collected_all_the_same(machine, monkeypatch)
    machine.jumps(YEAR)
    assert machine.collect().exit_code == 15
    assert machine.place.tags == ["v1"]


def test_a_rehearsal_makes_no_file_to_see_the_clock_of_the_file_system() -> None:
    driver = Recorder(MemoryDriver())
    root = root_over(driver)
    driver.calls.clear()
    require_clock(root, root.protocol.clock, trusted=False, dry_run=True)
    assert {call.method for call in driver.calls} <= {"stat", "open", "read", "scan"}


def test_the_command(tmp_path: Path) -> None:
    images.lay_out(tmp_path / "app", images.image(), [images.row(images.image(), "v1")])
    assert zotctl("gc", "--root", str(tmp_path)).returncode == 0
    note = tmp_path / keys.CLOCK
    found = json.loads(note.read_text())["last"]
    assert found["boot"] == boot_id() and abs(found["at"] - time.time()) < DAY_S
    note.write_text(json.dumps({"last": found | {"at": found["at"] - YEAR}}))
    refused = zotctl("gc", "--root", str(tmp_path))
    assert refused.returncode == 15 and "zotctl gc --trust-clock" in refused.stderr
    assert zotctl("gc", "--root", str(tmp_path), "--trust-clock").returncode == 0
    assert zotctl("gc", "--root", str(tmp_path)).returncode == 0
