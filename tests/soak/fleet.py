"""Servers of two workers on one store, and jobs in loops: all of them processes that may be killed or frozen."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path

from tests.cli.running import REPOSITORY
from tests.http.serving import Server
from tests.soak.journal import Journal
from tests.soak.network import Network
from tests.soak.places import Place
from tests.soak.troubles import DAMAGE

LONGEST = 300.0
"""Seconds after which a job hangs."""


def signalled(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """No proxy stands between a server and the object store of a soak."""
    return {**environ, "NO_PROXY": "*", "no_proxy": "*"}


SKEWED = Path(__file__).with_name("skewed")
SKEWS = (0.0, 0.0, 90.0, -90.0, 3600.0, -3600.0, 5 * 3600.0, -5 * 3600.0)
"""Seconds by which the clock of a host is wrong."""


class Clocks:
    """Those of as many hosts, each with one server; jobs run on any of them. `wrong`: they may jump."""

    def __init__(self, home: Path, hosts: int, *, wrong: bool) -> None:
        self._wrong = wrong
        self._files = [home / f"skew-{number}" for number in range(hosts)]
        for file in self._files:
            file.write_text("0")

    def environ(self, number: int) -> dict[str, str]:
        """Of a process on the host of this number, which may be any."""
        if not self._wrong:
            return {}
        file = self._files[number % len(self._files)]
        return {"PYTHONPATH": f"{SKEWED}{os.pathsep}{REPOSITORY}", "SOAK_SKEW": str(file)}

    def jump(self) -> str:
        """One of them jumps. What has happened."""
        file, seconds = random.choice(self._files), random.choice(SKEWS)
        file.write_text(str(seconds))
        return f"{file.name}: the clock is wrong by {seconds:g} s"


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
    """The servers. Who wants one gets any that is up; that may die in the same moment, or be cut off: each of them has
    a `network` of its own, if there is one."""

    def __init__(self, home: Path, place: Place, journal: Journal, clocks: Clocks, network: Network | None) -> None:
        self._home, self._place, self._journal, self.network = home, place, journal, network
        self._clocks = clocks
        self._started = 0
        self.servers = [self.start(number) for number in range(place.servers)]

    def start(self, number: int) -> Server:
        home = self._home / f"server-{self._started}"
        self._started += 1
        server = Server(
            home,
            config=self._place.config,
            workers=2,
            address=self._place.address(number),
            environ=clean({**self._place.environ, **self._clocks.environ(number)}),
            prefix=self.network.prefix(number) if self.network else (),
            host=self.network.address(number) if self.network else "127.0.0.1",
        )
        self._journal.note("chaos", "server starts", server.process.pid, "on port", server.port)
        return server

    def url(self) -> str:
        return random.choice(self.servers).url

    def replace(self, number: int) -> None:
        self._journal.note("chaos", "SIGKILL to all of server", self.servers[number].process.pid)
        kill_family(self.servers[number])
        self.servers[number] = self.start(number)

    def restart(self) -> None:
        """Stop each server as an operator does, and start another: then whatever was asked of one has happened, or
        never will."""
        for number, server in enumerate(self.servers):
            if (code := server.stop()) != 0:
                self._journal.fail("a server that is stopped ends with", code)
            self.servers[number] = self.start(number)

    def close(self) -> None:
        for server in self.servers:
            kill_family(server)
        if self.network:
            self.network.close()

    def stop(self) -> list[int]:
        return [server.stop() for server in self.servers]

    def logs(self) -> str:
        return "".join(path.read_text() for path in self._home.glob("server-*/log"))


class Jobs:
    """`zotctl COMMAND` again and again, each a loop of its own."""

    def __init__(self, home: Path, place: Place, journal: Journal, clocks: Clocks) -> None:
        self._reports, self.place, self._journal, self._clocks = home / "reports", place, journal, clocks
        self._reports.mkdir()
        self._config = home / "jobs.toml"
        self._config.write_text(place.config)
        self._mutex = threading.Lock()
        self._number = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *words: str, allowed: tuple[int, ...] = (0,), errors: Set[str] = frozenset(), root: str = "") -> int:
        """One run; its exit code, negative if somebody killed it. Another code is a failure, unless the run tells of
        `errors`, by these names, and of no others."""
        with self._mutex:
            self._number += 1
            name = f"{self._number:05}-{words[0]}"
        out, err = self._reports / name, self._reports / f"{name}.err"
        command = [sys.executable, "-m", "zotctl.cli", *words, "--root", root or self.place.address(self._number)]
        command += ["--output", "jsonl", *(() if root else ("--config", str(self._config)))]
        environ = {key: value for key, value in os.environ.items() if "ZOTCTL" not in key}
        environ.update(clean({**self.place.environ, **self._clocks.environ(self._number)}))
        began = time.monotonic()
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
        self._journal.note("job", "starts", name, "pid", process.pid, *words[1:])
        with self._mutex:
            self.running[name] = process
        try:
            code = self._end_of(process, out)
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
        found = self._damage(out) if code == DAMAGE else set()
        excused = {-signal.SIGKILL, *self.place.troubles.excused(began)}
        if strange := found - self.place.troubles.damaged:
            self._journal.fail("found damage that nobody made", name, *strange)
        elif code not in (*allowed, *excused) and not set() < self._errors(out) <= errors:
            told = [line for line in out.read_text().splitlines() if '"item"' not in line and '"progress"' not in line]
            self._journal.fail(f"exit code {code}: {told[-20:]} {err.read_text()[-3000:]}", name)
        return code

    @staticmethod
    def _end_of(process: subprocess.Popen[bytes], out: Path) -> int:
        """Its exit code, however long it takes on a machine with much else to do, as long as it tells of progress."""
        told = -1
        while told < (size := out.stat().st_size):
            told = size
            with suppress(subprocess.TimeoutExpired):
                return process.wait(LONGEST)
        return process.wait(0)

    @staticmethod
    def _damage(out: Path) -> set[str]:
        rows = [json.loads(line) for line in out.read_text().splitlines() if '"finding"' in line]
        return {row["digest"] for row in rows if row["kind"] != "orphan"}

    @staticmethod
    def _errors(out: Path) -> set[str]:
        rows = [json.loads(line) for line in out.read_text().splitlines() if '"error"' in line]
        return {row["error"] for row in rows if row["type"] == "error"}

    def some(self) -> tuple[str, subprocess.Popen[bytes]] | None:
        with self._mutex:
            return random.choice(list(self.running.items())) if self.running else None
