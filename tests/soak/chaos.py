"""What befalls servers, jobs, the network between them and the storage below them."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.soak.fleet import Clocks, Fleet, Jobs, signalled
from tests.soak.journal import Journal
from tests.soak.places import Place


class Chaos:
    """SIGKILL, or SIGSTOP and after a while SIGCONT, to servers, workers and jobs at random; servers that are cut off
    and that reload; hosts whose clocks jump; and what befalls the storage. Each is counted by its name."""

    def __init__(self, fleet: Fleet, jobs: Jobs, journal: Journal, place: Place, clocks: Clocks) -> None:
        self._fleet, self._jobs, self._journal, self._place, self._clocks = fleet, jobs, journal, place, clocks
        self._passing: list[threading.Thread] = []

    def pass_away(self) -> None:
        """Wait until everything goes on that was frozen, and everything is joined that was cut off."""
        for thread in self._passing:
            thread.join()

    def strike(self) -> None:
        random.choices(
            (self._worker_dies, self._worker_freezes, self._server_dies, self._parent_dies, self._job_dies,
             self._job_freezes, self._storage_suffers, self._server_is_cut_off,
             self._clock_jumps, self._server_reloads),
            (2, 3, 1, 1, 3, 3, 1, 3, 2, 1),
        )[0]()  # fmt: skip

    def _worker(self) -> int | None:
        workers = random.choice(self._fleet.servers).workers()
        return random.choice(workers) if workers else None

    def _worker_dies(self) -> None:
        if (pid := self._worker()) is not None and signalled(pid, signal.SIGKILL):
            self._tell("kills of workers", "SIGKILL to worker", pid)

    def _worker_freezes(self) -> None:
        if (pid := self._worker()) is not None:
            self._freeze(partial(signalled, pid), random.uniform(0.1, 3), f"worker {pid}")

    def _server_dies(self) -> None:
        self._fleet.replace(random.randrange(len(self._fleet.servers)))
        self._journal.count("kills of servers")

    def _parent_dies(self) -> None:
        """Its workers notice, and go by themselves."""
        number = random.randrange(len(self._fleet.servers))
        server = self._fleet.servers[number]
        workers = server.workers()
        if signalled(server.process.pid, signal.SIGKILL):
            self._tell("kills of parents", "SIGKILL to parent", server.process.pid)
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
        self._fleet.servers[number] = self._fleet.start(number)

    def _job_dies(self) -> None:
        if (job := self._jobs.some()) is not None:
            self._tell("kills of jobs", "SIGKILL to job", job[0])
            job[1].kill()

    def _job_freezes(self) -> None:
        """At times for longer than the delay, so that it goes on with what it saw long ago."""
        if (job := self._jobs.some()) is not None:
            self._freeze(job[1].send_signal, random.choice((0.3, 1, 3, self._place.delay + 2)), f"job {job[0]}")

    def _storage_suffers(self) -> None:
        if sufferings := self._place.sufferings():
            self._tell("sufferings of the storage", random.choice(sufferings)())

    def _clock_jumps(self) -> None:
        if self._place.wrong_clocks:
            self._tell("jumps of clocks", self._clocks.jump())

    def _server_reloads(self) -> None:
        server = random.choice(self._fleet.servers)
        if signalled(server.process.pid, signal.SIGHUP):
            self._tell("reloads", "SIGHUP to server", server.process.pid)

    def _server_is_cut_off(self) -> None:
        if (network := self._fleet.network) is None:
            return
        number, kind = random.randrange(len(self._fleet.servers)), random.choice(network.kinds())
        seconds = random.choice((0.3, 1, 2, 4))
        server = self._fleet.servers[number]
        join = network.cut(number, kind, server.port)
        self._tell("partitions", f"{kind} for {seconds} s at server", server.process.pid)
        self._after(seconds, join, f"all reaches again what was server {server.process.pid}")

    def _freeze(self, send: Callable[[signal.Signals], object], seconds: float, what: str) -> None:
        self._tell("freezes", f"SIGSTOP for {seconds:.1f} s to {what}")
        send(signal.SIGSTOP)
        self._after(seconds, lambda: send(signal.SIGCONT), f"SIGCONT to {what}")

    def _after(self, seconds: float, go_on: Callable[[], object], what: str) -> None:
        def wait() -> None:
            time.sleep(seconds)
            self._journal.note("chaos", what)
            go_on()

        self._passing = [thread for thread in self._passing if thread.is_alive()]
        self._passing.append(threading.Thread(target=wait, daemon=True))
        self._passing[-1].start()

    def _tell(self, kind: str, what: str, *objects: object) -> None:
        self._journal.note("chaos", what, *objects)
        self._journal.count(kind)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
