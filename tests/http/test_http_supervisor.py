"""The parent of the workers, turn by turn: its children are made up, and its clock moves by what it would sleep."""

from __future__ import annotations

import errno
import math
import mmap
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zotctl.config import (
    Config,
    HttpConfig,
    MetricsConfig,
    RateLimit,
    RootConfig,
    ScrubConfig,
    StorageConfig,
    UploadLimits,
)
from zotctl.errors import NameInvalid, Unavailable, ZotctlError
from zotctl.http import counters, job_process, sockets, supervisor, worker
from zotctl.http.job_process import FIRST_WITHIN_S, first_wait
from zotctl.http.supervisor import BACK_OFF_S, STEADY_S, Supervisor

FIRST_PID = 1 << 40
"""None of a process."""


class Family:
    """A supervisor whose children are forked by nobody. `killed`: the signals that they were sent, in their order;
    `jobs`: the processes for the jobs; `remembered`: how often the roots were; `full`: no process can be forked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Config, *, rebinds: bool = True) -> None:
        self.at, self.killed, self.remembered = 1000.0, list[tuple[int, int]](), 0
        self.announced, self.forked, self.jobs = 0, list[int](), list[int]()
        self.full, self.piped = False, list[int]()
        self._pipes, self._ends, self._ready = list[tuple[int, int]](), dict[int, int](), dict[int, int]()
        self.fresh: Config | None = None
        """What the next reloads find; None: what is there already."""
        pipe = os.pipe
        patience = Supervisor._patience

        def piped() -> tuple[int, int]:
            self._pipes.append(pipe())
            self.piped += self._pipes[-1]
            return self._pipes[-1]

        def remember(storage: StorageConfig) -> None:
            self.remembered += 1

        monkeypatch.setattr(os, "pipe", piped)
        monkeypatch.setattr(os, "fork", self._fork)
        monkeypatch.setattr(os, "waitpid", self._wait)
        monkeypatch.setattr(supervisor, "_kill", lambda child, number: self.killed.append((child.pid, number)))
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: self.at))
        monkeypatch.setattr(supervisor, "remember_roots", remember)
        monkeypatch.setattr(Supervisor, "_patience", lambda running: 0.0)
        self._patience = patience
        listening = sockets.listen(sockets.resolve("127.0.0.1", 0), config.http.workers)
        self.running = Supervisor(config, listening, self._announce, self._reload, rebinds=rebinds)
        self.running.wakeup, self.signals = socket.socketpair()
        for slot in self.running.slots:
            slot.child = self.running._fork(slot)

    def _announce(self) -> None:
        self.announced += 1

    def _reload(self, config: Config) -> Config:
        return self.fresh or config

    def _fork(self) -> int:
        if self.full:
            self._pipes.clear()
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        pid = FIRST_PID + len(self.forked) + len(self.jobs)
        if len(self._pipes) == 2:
            self.forked.append(pid)
            self._ready[pid] = os.dup(self._pipes[0][1])
        else:
            self.jobs.append(pid)
        self._pipes.clear()
        return pid

    def _wait(self, pid: int, options: int) -> tuple[int, int]:
        return (pid, self._ends.pop(pid)) if pid in self._ends else (0, 0)

    def turn(self) -> None:
        self.piped.clear()
        self.running._turn()

    def left_pipes(self) -> list[int]:
        """The ends of pipes that the last turn made and left open."""
        return [end for end in self.piped if os.path.exists(f"/proc/self/fd/{end}")]

    def sleep(self) -> float:
        """What the parent does of itself: for how long it sleeps, and then a turn."""
        patience = self._patience(self.running)
        assert patience is not None, "it would sleep for ever"
        self.at += patience / 1000
        self.turn()
        return patience / 1000

    def gets(self, number: int) -> None:
        self.signals.send(bytes([number]))
        self.turn()

    def tells(self, pid: int, report: bytes = worker.READY) -> None:
        """A worker serves, or can't."""
        os.write(self._ready[pid], report)

    def serves(self, pid: int) -> None:
        self.tells(pid)
        self.turn()

    def dies(self, pid: int, status: int = signal.SIGKILL) -> None:
        if (ready := self._ready.pop(pid, None)) is not None:
            os.close(ready)
        self._ends[pid] = status

    def ends(self, pid: int, status: int = signal.SIGKILL) -> None:
        self.dies(pid, status)
        self.turn()

    def close(self) -> None:
        for ready in self._ready.values():
            os.close(ready)
        for child in self.running._children():
            os.close(child.life)
            if child.ready is not None:
                os.close(child.ready)
        for sock in (*self.running.listening, *(slot.sock for slot in self.running.slots)):
            if sock is not None:
                sock.close()
        self.running.wakeup.close()
        self.signals.close()


Made = Callable[..., Family]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Made]:
    families = list[Family]()

    def make(workers: int = 1, *, gc: bool = False, metrics: bool = False, rebinds: bool = True) -> Family:
        root = RootConfig(path=str(tmp_path), gc=gc)
        http, counted = HttpConfig(port=0, workers=workers), MetricsConfig(enabled=metrics)
        config = Config(storage=StorageConfig(roots=(root,)), http=http, metrics=counted)
        families.append(Family(monkeypatch, config, rebinds=rebinds))
        return families[-1]

    yield make
    monkeypatch.undo()
    for family in families:
        family.close()


def serving(family: Family) -> Family:
    for pid in list(family.forked):
        family.serves(pid)
    assert family.announced == 1
    return family


# -- workers that die ------------------------------------------------------------------------------


def test_a_worker_that_dies_again_and_again_is_replaced_again_and_again(made: Made) -> None:
    family, waits = serving(made()), list[float]()
    (slot,) = family.running.slots
    for _ in range(len(BACK_OFF_S) + 2):
        family.ends(family.forked[-1])
        before = len(family.forked)
        assert slot.sock is None, "no client waits in the queue of a socket without a worker"
        waits.append(family.sleep())
        assert len(family.forked) == before + 1 and slot.sock is not None
        family.serves(family.forked[-1])
    assert waits == sorted(waits) and waits[0] < waits[-1] == pytest.approx(BACK_OFF_S[-1], abs=0.1)
    family.at += STEADY_S + 1
    family.ends(family.forked[-1])
    assert slot.child is not None and slot.child.pid == family.forked[-1], "at once: it had been steady"


def test_the_socket_of_another_is_kept_though_its_worker_dies(made: Made) -> None:
    """Of systemd, which gives it once."""
    family = serving(made(rebinds=False))
    family.ends(family.forked[-1])
    assert family.running.slots[0].sock is family.running.listening[0]
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 1, "no second one beside the one that starts in a moment"
    family.sleep()
    family.serves(family.forked[-1])
    assert [child.pid for child in family.running._children()] == family.forked[1:]


def test_a_port_that_another_program_has_taken_is_tried_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(address: sockets.ListenAddress) -> socket.socket:
        raise ZotctlError("it is in use")

    family, again = serving(made()), sockets.again
    monkeypatch.setattr(sockets, "again", taken)
    family.ends(family.forked[-1])
    for _ in range(3):
        family.sleep()
        assert len(family.forked) == 1
    monkeypatch.setattr(sockets, "again", again)
    family.sleep()
    assert len(family.forked) == 2


def test_a_worker_that_can_not_be_forked_is_tried_again(made: Made) -> None:
    """Whoever uses up the processes of a user or a container ends no server."""
    family = serving(made(metrics=True))
    slot, counters = family.running.slots[0], family.running.counters
    assert counters is not None
    free = len(counters._free)
    family.full = True
    family.ends(family.forked[0])
    family.sleep()
    assert family.left_pipes() == [] and len(counters._free) == free + 1
    assert slot.child is None and slot.sock is None, "no client waits in a queue without a worker"
    family.full = False
    assert family.sleep() > BACK_OFF_S[-1] - 1
    family.serves(family.forked[-1])
    assert slot.child is not None and slot.child.pid == family.forked[-1] and slot.sock is not None


def test_a_server_whose_workers_can_not_all_be_forked_ends(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    family = made(workers=2)
    monkeypatch.setattr(supervisor, "_caught_signals", lambda: nullcontext(family.running.wakeup))
    monkeypatch.setattr(worker, "settle_memory", lambda: None)
    family.full = True
    for pid in family.forked:
        family.dies(pid)
    with pytest.raises(Unavailable, match="no process can be started"):
        family.running.run()


def test_a_worker_that_does_not_get_ready_is_killed_and_replaced(made: Made) -> None:
    family = serving(made())
    family.ends(family.forked[-1])
    family.sleep()
    family.sleep()
    assert family.killed == [(family.forked[-1], signal.SIGKILL)]
    family.ends(family.forked[-1])
    family.sleep()
    assert len(family.forked) == 3


def test_why_the_first_worker_can_not_start_is_told(made: Made) -> None:
    """Also if its end is seen before its report, which is read then."""
    family = made(2)
    family.tells(family.forked[0], b'["NameInvalid", "no such name"]')
    family.dies(family.forked[0], 2 << 8)
    family.running._reap()
    assert isinstance(family.running.failed, NameInvalid) and family.running.failed.message == "no such name"
    assert family.killed == [(family.forked[1], signal.SIGQUIT)]


def test_all_serve_before_it_is_announced(made: Made) -> None:
    family = made(2)
    family.serves(family.forked[1])
    assert family.announced == 0
    family.serves(family.forked[0])
    assert family.announced == 1


def test_roots_are_remembered_when_they_may_have_been_made(made: Made) -> None:
    """So that no worker makes a directory in the place of one that is gone."""
    family = made()
    assert family.remembered == 1
    serving(family)
    assert family.remembered == 2
    family.gets(signal.SIGHUP)
    family.serves(family.forked[-1])
    assert family.remembered == 3


def test_what_a_dead_worker_counted_for_is_free(made: Made) -> None:
    family = serving(made(metrics=True))
    given, forgotten = list[object](), list[int]()
    (slot,) = family.running.slots
    assert slot.child is not None and slot.child.row is not None
    told: Any = SimpleNamespace(give_back=given.append, take=lambda: 7, know=lambda roots: None)
    family.running.counters = told
    family.running.uploads = SimpleNamespace(forget=forgotten.append)  # type: ignore[assignment]
    row, life = slot.child.row, slot.child.life
    family.ends(family.forked[0])
    assert (given, forgotten) == ([row], [family.forked[0]])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(life)


# -- a new configuration ---------------------------------------------------------------------------


def test_workers_are_replaced_one_after_the_other_and_end_or_are_killed(made: Made) -> None:
    family = serving(made(2))
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 3, "one at a time"
    family.serves(family.forked[2])
    assert family.killed == [(family.forked[0], worker.REPLACED)]
    assert len(family.forked) == 4
    family.serves(family.forked[3])
    assert family.killed[1:] == [(family.forked[1], worker.REPLACED)]
    family.ends(family.forked[0], 0)
    while family.killed[2:] == []:
        family.sleep()
    assert family.killed[2:] == [(family.forked[1], signal.SIGKILL)]
    family.ends(family.forked[1])
    assert [child.pid for child in family.running._children()] == family.forked[2:]


def test_after_a_worker_that_can_not_start_no_other_is_replaced(made: Made) -> None:
    family = serving(made(2))
    family.gets(signal.SIGHUP)
    family.ends(family.forked[2], 2 << 8)
    assert family.killed == [] and len(family.forked) == 3
    assert [child.pid for child in family.running._children()] == family.forked[:2]
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 4, "and the next signal is obeyed"
    family.serves(family.forked[3])
    assert family.killed == [(family.forked[0], worker.REPLACED)]


def test_a_worker_whose_next_one_can_not_be_forked_stays(made: Made) -> None:
    family = serving(made(workers=2))
    family.full = True
    family.gets(signal.SIGHUP)
    assert family.left_pipes() == [] and family.killed == [] and len(family.forked) == 2
    family.full = False
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 3, "the next reload is not kept waiting"


def test_a_signal_to_reload_while_the_first_workers_start_is_obeyed_afterwards(made: Made) -> None:
    family = made()
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 1
    family.serves(family.forked[0])
    assert len(family.forked) == 2


# -- the end ---------------------------------------------------------------------------------------


def test_what_does_not_end_is_killed(made: Made) -> None:
    """A worker that got ready meanwhile, too."""
    family = made(2)
    family.gets(signal.SIGTERM)
    assert family.killed == [(pid, signal.SIGTERM) for pid in family.forked]
    family.serves(family.forked[0])
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 2 and family.announced == 0
    while len(family.killed) < 4:
        family.sleep()
    assert family.killed[2:] == [(pid, signal.SIGKILL) for pid in family.forked]
    for pid in family.forked:
        family.ends(pid)
    assert family.running._children() == [] and family.running.failed is None


def test_a_second_signal_ends_the_patience(made: Made) -> None:
    family = serving(made())
    family.gets(signal.SIGTERM)
    family.gets(signal.SIGTERM)
    assert [number for _, number in family.killed] == [signal.SIGTERM, signal.SIGQUIT]
    family.sleep()
    assert family.killed[2:] == [(family.forked[0], signal.SIGKILL)]


def test_a_worker_that_waits_to_be_replaced_is_not_at_the_end(made: Made) -> None:
    family = serving(made())
    (root,) = family.running.config.storage.roots
    family.fresh = replace(family.running.config, storage=StorageConfig(roots=(replace(root, gc=True),)))
    family.ends(family.forked[0])
    family.gets(signal.SIGTERM)
    family.gets(signal.SIGHUP)
    family.at += 2 * BACK_OFF_S[-1] + FIRST_WITHIN_S
    family.turn()
    assert len(family.forked) == 1 and family.running._children() == []
    assert family.jobs == [] and family.running.keeper_at is None, "nor are the jobs begun"


# -- a reload that can't be done ---------------------------------------------------------------------


def limited(config: Config) -> Config:
    http = replace(config.http, rate_limit=RateLimit(rate=5.0), limits=UploadLimits(uploads_per_client=5))
    return replace(config, http=http)


@pytest.mark.parametrize("made_before", [0, 1])
def test_a_server_without_room_for_what_workers_share_goes_on_as_it_is(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, made_before: int
) -> None:
    family = serving(made())
    old, memfd_create, opened = family.running.config, os.memfd_create, list[int]()

    def created(name: str, flags: int) -> int:
        if len(opened) == made_before:
            raise OSError(errno.EMFILE, "Too many open files")
        opened.append(memfd_create(name, flags))
        return opened[-1]

    family.fresh = limited(old)
    monkeypatch.setattr(os, "memfd_create", created)
    family.gets(signal.SIGHUP)
    assert family.running.config is old and family.running.rates is None and family.running.uploads is None
    assert len(family.forked) == 1 and "the old one stays: no lock can be shared" in caplog.text
    assert not any(os.path.exists(f"/proc/self/fd/{one}") for one in opened)
    monkeypatch.setattr(os, "memfd_create", memfd_create)
    family.gets(signal.SIGHUP)
    assert family.running.config is family.fresh and len(family.forked) == 2
    rates, uploads = family.running.rates, family.running.uploads
    assert rates is not None and uploads is not None
    rates.close()
    uploads.close()


def test_a_worker_without_memory_to_count_in_leaves_the_old_one(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, size: int) -> mmap.mmap:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    family = serving(made(gc=True))
    family.fresh = replace(family.running.config, metrics=MetricsConfig(enabled=True))
    plan = family.running.plan
    monkeypatch.setattr(job_process, "Plan", lambda: plan)  # there was room for it
    monkeypatch.setattr(counters, "mmap", SimpleNamespace(mmap=full, PAGESIZE=mmap.PAGESIZE))
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 1 and not family.running.stopping
    family.sleep()
    assert family.jobs == [] and family.running.keeper_at is not None, "tried again"


def test_a_bug_in_the_reading_of_a_configuration_ends_no_server(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    family = serving(made())
    monkeypatch.setattr(family.running, "reload", lambda config: int("a bug"))
    family.gets(signal.SIGHUP)
    assert len(family.forked) == 1 and "ValueError" in caplog.text


# -- the process for the jobs ----------------------------------------------------------------------


def test_jobs_have_one_process_as_long_as_workers_serve(made: Made) -> None:
    family = serving(made(gc=True))
    assert family.jobs == [] and family.sleep() <= FIRST_WITHIN_S
    assert len(family.jobs) == 1
    family.ends(family.jobs[0], 0)
    assert len(family.jobs) == 2, "at once: it has left no plan"
    for number in (3, 4):
        family.ends(family.jobs[-1], 1 << 8)
        assert len(family.jobs) == number - 1
        family.sleep()
        assert len(family.jobs) == number
    family.gets(signal.SIGTERM)
    assert (family.jobs[-1], signal.SIGTERM) in family.killed


def test_jobs_have_no_process_until_one_is_due(made: Made) -> None:
    family = serving(made(gc=True))
    family.sleep()
    assert family.running.plan.write({"gc /a": family.at + 7200.0, "gc /b": family.at + 3600.0, "gc /c": math.inf})
    family.ends(family.jobs[0], 0)
    assert len(family.jobs) == 1 and 3599 < family.sleep() < 3601
    assert len(family.jobs) == 2
    assert family.running.plan.write({"gc /a": math.inf})
    family.ends(family.jobs[1], 0)
    assert len(family.jobs) == 2 and family.running.keeper_at is None, "none is due again"


def with_gc(config: Config, **changed: Any) -> Config:
    (root,) = config.storage.roots
    return replace(config, storage=replace(config.storage, roots=(replace(root, gc=True, **changed),)))


def test_a_reload_that_is_not_about_the_jobs_lets_them_go_on(made: Made) -> None:
    """A signal for the logs, or for a password, each minute: a collection that takes an hour comes to its end."""
    family = serving(made(gc=True))
    family.sleep()
    for number in range(3):
        family.fresh = replace(family.running.config, http=replace(family.running.config.http, realm=f"{number}"))
        family.gets(signal.SIGHUP)
        family.serves(family.forked[-1])
    assert len(family.jobs) == 1
    assert [number for pid, number in family.killed if pid == family.jobs[0]] == [signal.SIGHUP] * 3, "for its logs"
    due = family.at + 7200.0
    assert family.running.plan.write({"gc /a": due})
    family.ends(family.jobs[0], 0)
    family.gets(signal.SIGHUP)
    assert family.running.keeper_at == due and len(family.jobs) == 1, "nor are those begun anew that have ended"


def test_a_reload_makes_the_jobs_due_anew(made: Made) -> None:
    """The interval may be another now."""
    family = serving(made(gc=True))
    family.sleep()
    assert family.running.plan.write({"gc /a": family.at + 7200.0})
    family.ends(family.jobs[0], 0)
    family.fresh = with_gc(family.running.config, gc_interval=60.0)
    family.gets(signal.SIGHUP)
    assert family.sleep() <= FIRST_WITHIN_S
    assert len(family.jobs) == 2 and family.running.plan.read() == {}
    root = family.running.config.storage.roots[0]
    family.fresh = replace(family.running.config, storage=StorageConfig(roots=(replace(root, gc=False),)))
    family.serves(family.forked[-1])
    family.gets(signal.SIGHUP)
    family.ends(family.jobs[1], 0)
    assert family.running.keeper is None and family.running.keeper_at is None, "no job is wanted any more"


def test_signals_to_reload_do_not_put_the_jobs_off_for_ever(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_process, "first_wait", lambda config: FIRST_WITHIN_S)
    family = serving(made(gc=True))
    for number in range(5):
        family.at += FIRST_WITHIN_S / 4
        family.fresh = with_gc(family.running.config, gc_interval=60.0 + number)
        family.gets(signal.SIGHUP)
        family.serves(family.forked[-1])
    assert len(family.jobs) == 1


def test_jobs_may_be_due_after_longer_than_a_system_call_waits(made: Made) -> None:
    family = serving(made(gc=True))
    family.sleep()
    far = family.at + 60 * 86400
    assert family.running.plan.write({"gc /a": far})
    family.ends(family.jobs[0], 0)
    while family.at < far:
        assert len(family.jobs) == 1
        assert family.sleep() * 1000 < 1 << 31, "poll(2) takes an int"
    assert len(family.jobs) == 2


def test_servers_that_start_together_do_not_collect_together() -> None:
    def waits(gc_interval: float, scrub: float | None) -> list[float]:
        roots = (
            RootConfig(path="/a", gc=True, gc_interval=gc_interval),
            RootConfig(path="/b", gc=False, gc_interval=1),
        )
        config = Config(storage=StorageConfig(roots=roots), scrub=ScrubConfig(interval=scrub))
        return [first_wait(config) for _ in range(200)]

    for gc_interval, scrub, most in ((3600.0, None, FIRST_WITHIN_S), (0.0, None, FIRST_WITHIN_S), (4.0, 2.0, 2.0)):
        found = waits(gc_interval, scrub)
        assert len(set(found)) > 100 and min(found) >= 0 and most / 2 < max(found) <= most


def test_jobs_go_by_the_new_configuration(made: Made) -> None:
    family = serving(made())
    assert family.jobs == []
    family.fresh = with_gc(family.running.config)
    family.gets(signal.SIGHUP)
    assert family.sleep() <= FIRST_WITHIN_S
    assert len(family.jobs) == 1
    family.serves(family.forked[-1])
    family.fresh = with_gc(family.running.config, gc_interval=60.0)
    family.gets(signal.SIGHUP)
    assert (family.jobs[0], signal.SIGTERM) in family.killed
    family.ends(family.jobs[0], 0)
    assert len(family.jobs) == 2


def test_jobs_whose_process_can_not_be_forked_are_tried_again(made: Made) -> None:
    """It is forked for each run, at any moment of a server that has been serving for months."""
    family = serving(made(gc=True))
    family.full = True
    family.sleep()
    assert family.left_pipes() == [] and family.jobs == [] and family.running.keeper is None
    family.full = False
    assert family.sleep() > BACK_OFF_S[-1] - 1
    assert len(family.jobs) == 1


def test_jobs_that_a_reload_ends_while_they_start_are_begun_at_once(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    family = serving(made(gc=True))
    family.sleep()
    family.fresh = with_gc(family.running.config, gc_interval=60.0)
    family.gets(signal.SIGHUP)
    family.ends(family.jobs[0], signal.SIGTERM)
    assert len(family.jobs) == 2 and caplog.text == ""
