"""On which machine the figures were made, and what else it did meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import ssl
import sys
import time
from pathlib import Path

from benchmarks.load import MIB

_TICK = os.sysconf("SC_CLK_TCK")


def describe(folder: Path) -> dict[str, str]:
    """Processor, memory, kernel, and the file system of `folder`."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB // 1024
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{cpu or platform.machine()}, {cores} cores for the servers and the client",
        "memory": f"{memory} GiB",
        "kernel": platform.release(),
        "file system": _file_system(folder),
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "command": shlex.join(["python", "-m", _module(), *_arguments(sys.argv[1:])]),
    }


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return str(spec.name).removesuffix(".__main__") if spec else "benchmarks"


def _arguments(given: list[str]) -> list[str]:
    """Without those that say where files lie on this machine."""
    hidden = {at for at, text in enumerate(given) if text.partition("=")[0] in ("--dir", "--out")}
    hidden |= {at + 1 for at in hidden if "=" not in given[at]}
    return [text for at, text in enumerate(given) if at not in hidden]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _file_system(folder: Path) -> str:
    """Of the mount with the longest name that holds it: proc_pid_mounts(5)."""
    mounts = [line.split() for line in _lines("/proc/mounts")]
    holding = [(len(fields[1]), fields[2]) for fields in mounts if folder.is_relative_to(fields[1])]
    return max(holding, default=(0, "unknown"))[1]


class Others:
    """How much of the cores went to processes that are none of ours. Ours are this one and those it waited for."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.perf_counter(), _busy(), _own()

    def cores(self) -> float:
        """On average since the beginning. Ask when all servers were stopped."""
        elapsed = time.perf_counter() - self._began
        return max(0.0, (_busy() - self._busy - (_own() - self._own)) / elapsed)


def _busy() -> float:
    """Seconds in which cores were neither idle nor waiting for a disk, or taken by the host: proc_stat(5)."""
    first = next(iter(_lines("/proc/stat")), "cpu 0 0 0 0 0 0 0 0")
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICK


def _own() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
