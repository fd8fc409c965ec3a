"""`zotctl serve`: binds, forks workers, watches and restarts them, and passes signals on.

It runs no event loop, no thread and no store, so that a fork is safe at any time. It holds the listening
sockets, so that connections which wait for a worker that died are served by its successor.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain

from zotctl import __version__, logs
from zotctl.auth.logins import Logins
from zotctl.config import Config, HttpConfig, open_to_all, reload_config
from zotctl.errors import Unavailable, ZotctlError
from zotctl.http import counters, job_process, routes, sockets, systemd, tls, worker
from zotctl.http.counters import StatusBoard
from zotctl.http.ratelimit import SharedRates
from zotctl.http.uploadlimit import SharedUploads
from zotctl.storage import first_link, preload, remember_roots

log = logging.getLogger("zotctl.http")

START_TIMEOUT_S = 60.0
"""For a worker to be ready."""
STOP_NOW_S = 3.0
"""After which a worker that was told to stop now is killed."""
AFTER_DRAIN_S = 15.0
"""Beyond `drain`, after which a worker that does not end is killed."""
LONGEST_SLEEP_S = 86400.0
"""poll(2) takes milliseconds of 32 bits, which are less than the month that may lie between two collections."""
STEADY_S = 5.0
"""After which a worker's death is no sign that the next one will die too."""
BACK_OFF_S = (0.0, 0.2, 1.0, 2.0, 5.0, 10.0)
"""Before a worker is replaced, by how many have died one after the other."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


_UNTIL_A_RESTART = ("address", "port", "workers")
"""Keys of `http` that a reload does not change."""
_LINK = "%s is a symbolic link, and none is followed: copy the layout with cp -rL, or take it over with import-layout"


def run(
    config: Config,
    *,
    reload: Callable[[Config], Config] | None = None,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Call it from the main thread, with no other running.

    `reload` makes a new configuration of the one in force at SIGHUP, and raises ZotctlError to refuse it;
    by default it reads again what `config` was made of, and opens the log anew.
    `announce` gets the one line that says where the server listens, by default on standard output.
    Raises ZotctlError when it can't start: the port is in use, a root or a certificate is refused.
    """
    http = config.http
    _check_files(http)
    sockets.allow_all_files()
    worker.keep_pieces()
    preload(config.storage)
    job_process.preload(config)
    if config.metrics.enabled:
        import zotctl.http.metrics  # noqa: F401 - before the fork, so that the workers share its memory
    passed = systemd.passed_socket()
    listening = (
        [passed, *(passed.dup() for _ in range(http.workers - 1))]
        if passed is not None
        else sockets.listen(sockets.resolve(http.address, http.port), http.workers)
    )
    address = sockets.bound_to(listening[0])
    if not address.is_loopback and (warning := open_to_all(config, sockets.shown(address))) is not None:
        log.warning("%s", warning)
    if (link := first_link(config.storage)) is not None:
        log.warning(_LINK, link)
    scheme = "https" if http.tls is not None else "http"
    line = f"zotctl {__version__} serving on {scheme}://{sockets.shown(address)}"
    say = announce or _to_standard_output
    return Supervisor(config, listening, lambda: say(line), reload or _reload, rebinds=passed is None).run()


def _check_files(http: HttpConfig) -> None:
    """Certificates, passwords and keys: the workers read them again, and must not be the first to find a fault."""
    tls.context(http.tls)
    Logins(http).close()


def _reload(config: Config) -> Config:
    fresh = reload_config(config)
    _check_files(fresh.http)
    logs.setup(fresh.log.level, fresh.log.output, fresh.log.format, fresh.log.audit)
    for warning in fresh.warnings:
        log.warning(warning)
    return fresh


def _to_standard_output(line: str) -> None:
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        log.warning("standard output cannot be written: %s", error)


@dataclass
class Child:
    """A forked worker. `ready` and `life` are our ends of its pipes; `row` is where it counts."""

    pid: int
    ready: int | None
    life: int
    since: float
    serving: bool = False
    report: bytes = b""
    deadline: float | None = None
    row: int | None = None


@dataclass
class Slot:
    """A place for one worker: its socket, the worker, and the next one while they change over."""

    index: int
    sock: socket.socket | None
    child: Child | None = None
    successor: Child | None = None
    failures: int = 0
    retry_at: float | None = None


@dataclass
class Supervisor:
    """`announce` is called once when all workers serve; `reload` makes a new configuration of the old.

    `rebinds`: the sockets are ours to close and to make anew.
    """

    config: Config
    listening: list[socket.socket]
    announce: Callable[[], None]
    reload: Callable[[Config], Config]
    rebinds: bool = True
    slots: list[Slot] = field(init=False)
    retired: list[Child] = field(default_factory=list)
    keeper: Child | None = None
    keeper_at: float | None = None
    """When the next process for the jobs is to be started; None: there is one, or no job is due again."""
    failed: ZotctlError | None = None
    started: bool = False
    stopping: bool = False
    restarting: list[Slot] = field(default_factory=list)
    """Slots whose workers are still to be replaced, beside the one that has a successor already."""
    reload_wanted: bool = False
    """A SIGHUP came while workers started that have the configuration of before."""

    def __post_init__(self) -> None:
        self.fixed = {key: getattr(self.config.http, key) for key in _UNTIL_A_RESTART}
        self.address = sockets.bound_to(self.listening[0])
        self.slots = [Slot(index, sock) for index, sock in enumerate(self.listening)]
        self.board = StatusBoard(len(self.slots))
        self.counters: counters.SharedCounters | None = None
        self.rates = _rates(self.config)
        self.uploads = _uploads(self.config)
        self.plan = job_process.Plan()
        self.watchdog = systemd.watchdog_interval()
        remember_roots(self.config.storage)

    def run(self) -> int:
        """Until told to stop. Raises what the first worker that could not start raised."""
        worker.settle_memory()
        with _caught_signals() as wakeup:
            self.wakeup = wakeup
            try:
                for slot in self.slots:
                    slot.child = self._fork(slot)
            except Unavailable as error:
                self.failed = error
                self._stop(now=True)
            while not (self.stopping and not self._children()):
                self._turn()
        if self.failed is not None:
            raise self.failed
        return 0

    # -- the loop --------------------------------------------------------------------------------

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        waiting = {child.ready: child for child in self._children() if child.ready is not None}
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        for descriptor, _ in poll.poll(self._patience()):
            if descriptor == self.wakeup.fileno():
                self._signalled()
            else:
                self._heard_from(waiting[descriptor])
        self._reap()
        self._keep_time()

    def _patience(self) -> float | None:
        """Milliseconds until something is due."""
        due = [child.deadline for child in self._children() if child.deadline is not None]
        due += [slot.retry_at for slot in self.slots if slot.retry_at is not None]
        due += [self.keeper_at] if self.keeper_at is not None else []
        if self.watchdog is not None:
            due.append(time.monotonic() + self.watchdog)
        return max(0.0, min(min(due) - time.monotonic(), LONGEST_SLEEP_S) * 1000 + 1) if due else None

    def _keep_time(self) -> None:
        now = time.monotonic()
        for child in self._children():
            if child.deadline is not None and now >= child.deadline:
                log.error("worker %d did not answer in time and is killed", child.pid)
                child.deadline = None
                _kill(child, signal.SIGKILL)
        for slot in self.slots:
            if slot.retry_at is not None and now >= slot.retry_at:
                self._respawn(slot)
        if self.keeper_at is not None and now >= self.keeper_at:
            self._start_keeper()
        if self.watchdog is not None:
            systemd.notify("WATCHDOG=1")

    def _children(self) -> list[Child]:
        current = (child for slot in self.slots for child in (slot.child, slot.successor))
        beside = [self.keeper] if self.keeper is not None else []
        return [child for child in current if child is not None] + self.retired + beside

    # -- signals ---------------------------------------------------------------------------------

    def _signalled(self) -> None:
        for number in self.wakeup.recv(64):
            match number:
                case signal.SIGTERM | signal.SIGINT:
                    self._stop(now=self.stopping)
                case signal.SIGHUP:
                    self._restart_all()
                case signal.SIGUSR1:
                    self._say_status()

    def _stop(self, *, now: bool) -> None:
        systemd.notify("STOPPING=1")
        self.stopping = True
        self.keeper_at = None
        patience = STOP_NOW_S if now else self.config.http.drain + AFTER_DRAIN_S
        for slot in self.slots:
            slot.retry_at = None
            if slot.sock is not None:
                slot.sock.close()
                slot.sock = None
        for child in self._children():
            child.deadline = time.monotonic() + patience
            _kill(child, signal.SIGQUIT if now else signal.SIGTERM)

    def _say_status(self) -> None:
        counts = self.board.total()
        pids = [slot.child.pid for slot in self.slots if slot.child is not None and slot.child.serving]
        fields = {"workers": len(pids), "pids": pids, **counts._asdict()}
        log.info(
            "%d workers, %d connections, %d requests under way, %d since their start",
            len(pids),
            *counts,
            extra={"fields": fields},
        )

    # -- a new configuration ---------------------------------------------------------------------

    def _restart_all(self) -> None:
        if self.stopping:
            return
        self.reload_wanted = not self.started or any(slot.successor for slot in self.slots)
        if self.reload_wanted:
            return
        systemd.reloading()
        plan = self.plan
        try:
            self._take(self.reload(self.config))
        except Exception as error:  # by a bug of ours no server must end that can go on as it is
            reason, is_bug = (error.message, False) if isinstance(error, ZotctlError) else (repr(error), True)
            log.error("the configuration is refused, the old one stays: %s", reason, exc_info=is_bug)
            systemd.notify("READY=1")
            return
        if self.plan is not plan:
            self._plan_jobs()
        elif self.keeper is not None:
            _kill(self.keeper, signal.SIGHUP)  # it opens its logs anew, and its job goes on
        self.restarting = list(self.slots)
        self._restart_next()

    def _take(self, config: Config) -> None:
        """Raises Unavailable, and changes nothing, if the system has no room for what the workers are to share."""
        old, new = self.config.http, config.http
        plan, rates, uploads = self.plan, self.rates, self.uploads
        if job_process.goes_by(self.config) != job_process.goes_by(config):
            plan = job_process.Plan()
        if old.limits != new.limits:
            uploads = _uploads(config)
        if old.rate_limit != new.rate_limit:
            try:
                rates = _rates(config)
            except Unavailable:
                _leave(uploads, self.uploads)
                raise
        for key, value in self.fixed.items():
            if (wanted := getattr(new, key)) != value:
                log.warning("http.%s stays %r until a restart, which makes it %r", key, value, wanted)
        _leave(self.rates, rates)
        _leave(self.uploads, uploads)
        self.config, self.plan, self.rates, self.uploads = config, plan, rates, uploads

    def _restart_next(self) -> None:
        while self.restarting:
            slot = self.restarting.pop(0)
            if slot.sock is not None and slot.retry_at is None:
                try:
                    slot.successor = self._fork(slot)
                except Unavailable as error:
                    self._keep(error)
                return
        remember_roots(self.config.storage)
        log.info("all workers serve the configuration as it is now")
        self._restarted()

    def _restarted(self) -> None:
        """What a reload began is done."""
        systemd.notify("READY=1")
        if self.reload_wanted:
            self._restart_all()

    def _hand_over(self, slot: Slot) -> None:
        old, slot.child, slot.successor = slot.child, slot.successor, None
        if old is not None:
            old.deadline = time.monotonic() + self.config.http.drain + AFTER_DRAIN_S
            self.retired.append(old)
            _kill(old, worker.REPLACED if old.serving else signal.SIGTERM)
        self._restart_next()

    # -- workers ---------------------------------------------------------------------------------

    def _heard_from(self, child: Child) -> None:
        """A worker serves, reports why it cannot, or ended without a report."""
        assert child.ready is not None
        if part := os.read(child.ready, 65536):
            child.report += part
        if child.report == worker.READY or not part:
            os.close(child.ready)
            child.ready = None
            child.serving = child.report == worker.READY
            if not self.stopping:  # or else the deadline is that of the end
                child.deadline = None
        if child.serving and not self.stopping:
            self._serving(child)

    def _serving(self, child: Child) -> None:
        for slot in self.slots:
            if slot.successor is child:
                self._hand_over(slot)
        if not self.started and all(slot.child is not None and slot.child.serving for slot in self.slots):
            self.started = True
            remember_roots(self.config.storage)  # those that the first workers have made, too
            self.announce()
            self._plan_jobs()
            systemd.notify("READY=1", f"STATUS=serving with {len(self.slots)} workers")
            if self.reload_wanted:
                self._restart_all()

    def _reap(self) -> None:
        for child in self._children():
            pid, code = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                while child.ready is not None:
                    self._heard_from(child)
                os.close(child.life)
                if self.counters is not None and child.row is not None:
                    self.counters.give_back(child.row)
                if self.uploads is not None:
                    self.uploads.forget(pid)
                self._ended(child, os.waitstatus_to_exitcode(code))

    def _ended(self, child: Child, code: int) -> None:
        if child in self.retired:
            self.retired.remove(child)
            return
        if child is self.keeper:
            self._keeper_ended(child, code)
            return
        slot = next(slot for slot in self.slots if child in (slot.child, slot.successor))
        if slot.successor is child:
            self._keep_old(slot, child, code)
            return
        slot.child = None
        if not self.started and not self.stopping:
            self.failed = worker.failure(child.report)
            self._stop(now=True)
        elif not self.stopping:
            self._replace(slot, child, code)

    def _keep_old(self, slot: Slot, child: Child, code: int) -> None:
        slot.successor = None
        if self.stopping:
            return
        if slot.child is None:
            self._replace(slot, child, code)
            self._restarted()
        else:
            self._keep(worker.failure(child.report))

    def _keep(self, error: ZotctlError) -> None:
        log.error("the new worker could not start, the old one stays: %s", error.message)
        self._restarted()

    def _replace(self, slot: Slot, child: Child, code: int) -> None:
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not child.serving:
            why += f": {worker.failure(child.report).message}"
        if slot.successor is not None:
            log.error("worker %d ended (%s); the next one starts already", child.pid, why)
            return
        lasted = time.monotonic() - child.since
        slot.failures = slot.failures + 1 if lasted < STEADY_S else 0
        wait = BACK_OFF_S[min(slot.failures, len(BACK_OFF_S) - 1)]
        log.error("worker %d ended (%s); the next one starts in %g s", child.pid, why, wait)
        if wait:
            self._close_queue(slot)
        slot.retry_at = time.monotonic() + wait

    def _close_queue(self, slot: Slot) -> None:
        """No client must wait in the queue of a socket without a worker."""
        if slot.sock is not None and self.rebinds:
            slot.sock.close()
            slot.sock = None

    def _respawn(self, slot: Slot) -> None:
        slot.retry_at = None
        try:
            slot.sock = slot.sock or sockets.again(self.address)
            slot.child = self._fork(slot)
        except ZotctlError as error:
            log.error("%s", error.message)
            self._close_queue(slot)
            slot.retry_at = time.monotonic() + BACK_OFF_S[-1]

    # -- the jobs --------------------------------------------------------------------------------

    def _plan_jobs(self) -> None:
        """Begin anew, by the configuration as it is now. What was to begin earlier does: signals that come again and
        again must not put it off for ever."""
        before, self.keeper_at = self.keeper_at, None
        if self.keeper is not None:
            _kill(self.keeper, signal.SIGTERM)  # the next one starts when it has ended
        elif job_process.is_wanted(self.config):
            at = time.monotonic() + job_process.first_wait(self.config)
            self.keeper_at = at if before is None else min(at, before)

    def _start_keeper(self) -> None:
        self.keeper_at = None
        try:
            board = self._measuring()
            with _pipes(1) as ((life_end, life),), _signals_held():
                pid = os.fork()
                if pid == 0:
                    counted = board.jobs if board is not None else None
                    self._become(lambda: job_process.main(self.config, life_end, self.plan, counted), None, (life,))
        except Unavailable as error:
            self._keeper_waits(error.message)
            return
        os.close(life_end)
        self.keeper = Child(pid, None, life, time.monotonic())

    def _keeper_ended(self, child: Child, code: int) -> None:
        self.keeper = None
        if self.stopping or not job_process.is_wanted(self.config):
            return
        if code not in (0, -signal.SIGTERM):  # it does not catch the signal from its first moment on
            self._keeper_waits(f"it ended ({code})")
            return
        due = self.plan.next_due()
        self.keeper_at = due if due < math.inf else None

    def _keeper_waits(self, why: str) -> None:
        wait = BACK_OFF_S[-1]
        log.error("the process for gc and scrub starts in %g s: %s", wait, why)
        self.keeper_at = time.monotonic() + wait

    def _fork(self, slot: Slot) -> Child:
        """A worker that starts. Raises Unavailable."""
        board = self._measuring()
        row = board.take() if board is not None else None
        try:
            with _pipes(2) as ((ours, theirs), (life_end, life)), _signals_held():
                pid = os.fork()
                if pid == 0:
                    ties = worker.Ties(theirs, life_end, board, row, self.rates, self.uploads)
                    self._become(lambda: self._work(slot, ties), slot, (ours, life))
        except Unavailable:
            if board is not None and row is not None:
                board.give_back(row)
            raise
        os.close(theirs)
        os.close(life_end)
        now = time.monotonic()
        return Child(pid, ours, life, now, deadline=now + START_TIMEOUT_S, row=row)

    def _measuring(self) -> counters.SharedCounters | None:
        """Where workers count from now on. What was counted stays when a new configuration wants no metrics."""
        if not self.config.metrics.enabled:
            return None
        if self.counters is None:
            self.counters = counters.SharedCounters(routes.ROUTE_COUNT, len(self.slots))
        self.counters.know(root.path for root in self.config.storage.every_root)
        return self.counters

    def _work(self, slot: Slot, ties: worker.Ties) -> int:
        assert slot.sock is not None
        return worker.main(self.config, slot.sock, ties, self.board.row(slot.index))

    def _become(self, main: Callable[[], int], slot: Slot | None, not_ours: tuple[int, ...]) -> None:
        code = 70
        try:
            _forget_signals(reopens=slot is None)
            if slot is None:
                threading.Thread(target=_reopen_logs, daemon=True).start()
            self._close_all_but(slot, not_ours)
            code = main()
        except BaseException:
            log.exception("a bug ended a child process")
        finally:
            with suppress(Exception):
                logging.shutdown()
            os._exit(code)

    def _close_all_but(self, slot: Slot | None, not_ours: tuple[int, ...]) -> None:
        """A worker must not keep its siblings' ends alive: their pipes would never end."""
        self.wakeup.close()
        for descriptor in not_ours:
            os.close(descriptor)
        for child in self._children():
            os.close(child.life)
            if child.ready is not None:
                os.close(child.ready)
        for other in self.slots:
            if other is not slot and other.sock is not None:
                other.sock.close()


def _rates(config: Config) -> SharedRates | None:
    return SharedRates(config.http.rate_limit) if config.http.rate_limit is not None else None


def _uploads(config: Config) -> SharedUploads | None:
    limits = config.http.limits
    return SharedUploads(limits) if limits.uploads_per_client or limits.bytes_per_client else None


def _leave(old: SharedRates | SharedUploads | None, new: SharedRates | SharedUploads | None) -> None:
    """Close what is not in use any more."""
    if old is not None and old is not new:
        old.close()


def _kill(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid, number)


@contextmanager
def _caught_signals() -> Iterator[socket.socket]:
    """Signals arrive as bytes on the socket, in their order, and interrupt nothing else."""
    read, write = socket.socketpair()
    read.setblocking(False)
    write.setblocking(False)
    previous = {number: signal.signal(number, _noted) for number in _SIGNALS}
    old = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in previous.items():
            signal.signal(number, handler)
        read.close()
        write.close()


@contextmanager
def _pipes(count: int) -> Iterator[list[tuple[int, int]]]:
    """Pipes for a fork. Raises Unavailable, and leaves none, when the system has no room for them or for the process:
    a moment later it may, and the others still serve."""
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
        yield made
    except OSError as error:
        for descriptor in chain(*made):
            os.close(descriptor)
        raise Unavailable(f"no process can be started: {error.strerror}") from error


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back around a fork, until the child forgets the parent's handlers: one that came before would be
    told to the parent once more, and be lost to the child."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_SIGNALS, signal.SIGQUIT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _noted(number: int, frame: object) -> None:
    pass


def _reopen_logs() -> None:
    """On SIGHUP, which is blocked, and in a thread: a handler would do it in the middle of a line."""
    while True:
        signal.sigwait([signal.SIGHUP])
        logs.reopen()


def _forget_signals(*, reopens: bool) -> None:
    """In a child: the terminal's SIGINT and a SIGHUP are for the parent, which passes on what is meant. `reopens`: it
    will wait for SIGHUP, which stays blocked, so that none is lost."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGQUIT):  # a shell ignores SIGQUIT for what it starts with &
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL if reopens else signal.SIG_IGN)
    blocked = {signal.SIGHUP} if reopens else set()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_SIGNALS, signal.SIGQUIT} - blocked)
