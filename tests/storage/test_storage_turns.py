"""Processes of one server come after each other at one index.json, and none waits for one that stands still."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zotctl.config import RootConfig
from zotctl.storage import turns
from zotctl.storage.clock import Clock
from zotctl.storage.local.opening import open_root
from zotctl.storage.turns import SERVER_TURNS, TicketLocks, at_once


def forked(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid


def holding(made: TicketLocks, hold: Callable[[], object], label: str = "s3://x") -> int:
    """A process that has the turn at a/b when this returns."""
    ready, told = os.pipe()

    def body() -> None:
        with made.of(label, Clock())("a/b"):
            os.write(told, b"x")
            hold()

    pid = forked(body)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    os.close(told)
    return pid


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(turns, "TURN_TIMEOUT_S", 60.0)


@pytest.mark.usefixtures("patient")
def test_one_after_the_other() -> None:
    made, (reader, writer) = TicketLocks(), os.pipe()
    turn = made.of("s3://x", Clock())

    def body() -> None:
        for _ in range(5):
            with turn("a/b"):
                os.write(writer, b"<")
                time.sleep(0.002)
                os.write(writer, b">")

    for pid in [forked(body) for _ in range(3)]:
        os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"<>" * 15
    os.close(reader)
    os.close(writer)


class Told(Clock):
    """Tells of the first sleep, and stands still in it until it may go on."""

    def __init__(self, tell: Callable[[], object], go_on: Callable[[], object]) -> None:
        self._first: list[Callable[[], object]] = [tell, go_on]

    def sleep(self, seconds: float) -> None:
        while self._first:
            self._first.pop(0)()
        super().sleep(seconds)


@pytest.mark.usefixtures("patient")
def test_the_process_that_had_the_turn_comes_after_the_one_that_waits() -> None:
    """Else the faster process would go on for ever."""
    made, (waits, says), (goes, go) = TicketLocks(), os.pipe(), os.pipe()

    def wait_in_vain_first() -> None:
        with made.of("s3://x", Told(lambda: os.write(says, b"waits"), lambda: os.read(goes, 1)))("a/b"):
            os.write(says, b"has it")

    pid = 0
    try:
        with made.of("s3://x", Clock())("a/b"):
            pid = forked(wait_in_vain_first)
            assert os.read(waits, 10) == b"waits"
        with made.of("s3://x", Told(lambda: os.write(go, b"!"), lambda: None))("a/b"):
            os.set_blocking(waits, False)
            assert os.read(waits, 10) == b"has it"
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for pipe in (waits, says, goes, go):
            os.close(pipe)


def test_another_repository_is_another_turn() -> None:
    made = TicketLocks()
    pid = holding(made, signal.pause)
    try:
        entered = threading.Event()
        with made.of("s3://x", Clock())("a/c"), made.of("s3://y", Clock())("a/b"):
            entered.set()
        assert entered.is_set()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Patient(Clock):
    """Counts the sleeps, which take no time but on its own watch."""

    slept = 0.0

    def elapsed(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_a_process_that_stands_still_in_its_turn_delays_no_other() -> None:
    made, clock = TicketLocks(), Patient()
    pid = holding(made, signal.pause)
    try:
        with made.of("s3://x", clock)("a/b"):
            pass
        assert turns.TURN_TIMEOUT_S <= clock.slept < turns.TURN_TIMEOUT_S + 1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    clock.slept = 0
    with made.of("s3://x", clock)("a/b"):
        pass
    assert clock.slept == 0  # who died has given it back


def test_a_single_process_waits_for_no_turn() -> None:
    with at_once("a"):
        pass


def test_where_no_anonymous_file_is_allowed_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with TicketLocks().of("s3://x", Clock())("a/b"):
        pass


def test_where_it_gives_no_locks_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    made, clock = TicketLocks(), Patient()
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with made.of("s3://x", clock)("a/b"):
        pass
    assert clock.slept == 0


def test_the_workers_of_a_server_come_after_each_other_in_a_directory(tmp_path: Path) -> None:
    """Else the one that has just committed takes the lock again before the other looks, for half a second."""
    clock = Patient()
    root = open_root(RootConfig(path=str(tmp_path), create=True), clock)
    pid = holding(SERVER_TURNS, signal.pause, str(tmp_path))
    try:
        root.committer.commit("a/b", lambda tx, draft: None)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        root.protocol.close()
    assert clock.slept >= turns.TURN_TIMEOUT_S
