"""Two servers of two workers on one root, and jobs in loops: all of them processes that may be killed or frozen."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cli.running import REPOSITORY
from tests.http.serving import Server
from tests.soak.journal import Journal
from tests.soak.places import Place

LONGEST = 300.0
"""Seconds after which a job hangs."""


def signalled(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_family(server: Server) -> None:
    """SIGKILL to parent and workers before any of them can tell another; frozen ones too."""
    if server.process.poll() is None:
        server.send(signal.SIGSTOP)
        family = [server.process.pid, *server.workers()]
        for pid in family:
            signalled(pid, signal.SIGKILL)
    server.process.wait(20)
    assert server.process.stdout is not None
    server.process.stdout.close()


class Fleet:
    """The servers. Who wants one gets any that is up; that may die in the same moment."""

    def __init__(self, home: Path, place: Place, journal: Journal) -> None:
        self._home, self._place, self._journal = home, place, journal
        self._started = 0
        self.servers = [self.start() for _ in range(place.servers)]

    def start(self) -> Server:
        home = self._home / f"server-{self._started}"
        self._started += 1
        server = Server(home, workers=2, address=self._place.address, environ=self._place.environ)
        self._journal.note("chaos", "server starts", server.process.pid, "on port", server.port)
        return server

    def url(self) -> str:
        return random.choice(self.servers).url

    def replace(self, number: int) -> None:
        self._journal.note("chaos", "SIGKILL to all of server", self.servers[number].process.pid)
        kill_family(self.servers[number])
        self.servers[number] = self.start()

    def restart(self) -> None:
        """Stop each server as an operator does, and start another: then whatever was asked of one has happened, or
        never will."""
        for number, server in enumerate(self.servers):
            if (code := server.stop()) != 0:
                self._journal.fail("a server that is stopped ends with", code)
            self.servers[number] = self.start()

    def close(self) -> None:
        for server in self.servers:
            kill_family(server)

    def stop(self) -> list[int]:
        return [server.stop() for server in self.servers]

    def logs(self) -> str:
        return "".join(path.read_text() for path in self._home.glob("server-*/log"))


class Jobs:
    """`zotctl COMMAND` again and again, each a loop of its own."""

    def __init__(self, home: Path, place: Place, journal: Journal) -> None:
        self._reports, self._place, self._journal = home / "reports", place, journal
        self._reports.mkdir()
        self._mutex = threading.Lock()
        self._number = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *words: str, allowed: tuple[int, ...] = (0,), root: str = "") -> int:
        """One run; its exit code, negative if somebody killed it. Another code is a failure."""
        with self._mutex:
            self._number += 1
            name = f"{self._number:05}-{words[0]}"
        out, err = self._reports / name, self._reports / f"{name}.err"
        command = [sys.executable, "-m", "zotctl.cli", *words, "--root", root or self._place.address]
        command += ["--output", "jsonl"]
        environ = {key: value for key, value in os.environ.items() if "ZOTCTL" not in key}
        environ.update(self._place.environ)
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
        self._journal.note("job", "starts", name, "pid", process.pid, *words[1:])
        with self._mutex:
            self.running[name] = process
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self._journal.fail(f"hangs for {LONGEST} s", name)
            code = 0
        finally:
            with self._mutex:
                del self.running[name]
            process.kill()
            process.wait()
        self._journal.note("job", "ends", name, "exit code", code)
        self._journal.count(f"{words[0]} {'killed' if code == -signal.SIGKILL else code}")
        if code not in (*allowed, -signal.SIGKILL):
            told = [line for line in out.read_text().splitlines() if '"item"' not in line]
            self._journal.fail(f"exit code {code}: {told[-20:]} {err.read_text()[-3000:]}", name)
        return code

    def some(self) -> tuple[str, subprocess.Popen[bytes]] | None:
        with self._mutex:
            return random.choice(list(self.running.items())) if self.running else None


class Chaos:
    """SIGKILL, or SIGSTOP and after a while SIGCONT, to servers, workers and jobs at random."""

    def __init__(self, fleet: Fleet, jobs: Jobs, journal: Journal, place: Place) -> None:
        self._fleet, self._jobs, self._journal, self._place = fleet, jobs, journal, place
        self._frozen: list[threading.Thread] = []

    def thaw(self) -> None:
        """Wait until everything goes on that was frozen."""
        for thread in self._frozen:
            thread.join()

    def strike(self) -> None:
        random.choices(
            (self._worker_dies, self._worker_freezes, self._server_dies, self._parent_dies, self._job_dies,
             self._job_freezes, self._storage_suffers),
            (2, 3, 1, 1, 3, 3, 1),
        )[0]()  # fmt: skip

    def _worker(self) -> int | None:
        workers = random.choice(self._fleet.servers).workers()
        return random.choice(workers) if workers else None

    def _worker_dies(self) -> None:
        if (pid := self._worker()) is not None and signalled(pid, signal.SIGKILL):
            self._tell("SIGKILL to worker", pid)

    def _worker_freezes(self) -> None:
        if (pid := self._worker()) is not None:
            self._freeze(partial(signalled, pid), random.uniform(0.1, 3), f"worker {pid}")

    def _server_dies(self) -> None:
        self._fleet.replace(random.randrange(len(self._fleet.servers)))
        self._journal.count("signals")

    def _parent_dies(self) -> None:
        """Its workers notice, and go by themselves."""
        number = random.randrange(len(self._fleet.servers))
        server = self._fleet.servers[number]
        workers = server.workers()
        if signalled(server.process.pid, signal.SIGKILL):
            self._tell("SIGKILL to parent", server.process.pid)
        server.process.wait(20)
        end = time.monotonic() + 60
        while any(_alive(pid) for pid in workers):
            if time.monotonic() > end:
                self._journal.fail("workers outlive their parent", *workers)
                for pid in workers:
                    signalled(pid, signal.SIGKILL)
            time.sleep(0.05)
        assert server.process.stdout is not None
        server.process.stdout.close()
        self._fleet.servers[number] = self._fleet.start()

    def _job_dies(self) -> None:
        if (job := self._jobs.some()) is not None:
            self._tell("SIGKILL to job", job[0])
            job[1].kill()

    def _job_freezes(self) -> None:
        """At times for longer than the delay, so that it goes on with what it saw long ago."""
        if (job := self._jobs.some()) is not None:
            self._freeze(job[1].send_signal, random.choice((0.3, 1, 3, self._place.delay + 2)), f"job {job[0]}")

    def _storage_suffers(self) -> None:
        if what := self._place.suffer():
            self._tell(what)

    def _freeze(self, send: Callable[[signal.Signals], object], seconds: float, what: str) -> None:
        self._tell(f"SIGSTOP for {seconds:.1f} s to {what}")
        send(signal.SIGSTOP)

        def go_on() -> None:
            time.sleep(seconds)
            self._journal.note("chaos", "SIGCONT to", what)
            send(signal.SIGCONT)

        self._frozen = [thread for thread in self._frozen if thread.is_alive()]
        self._frozen.append(threading.Thread(target=go_on, daemon=True))
        self._frozen[-1].start()

    def _tell(self, what: str, *objects: object) -> None:
        self._journal.note("chaos", what, *objects)
        self._journal.count("signals")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
