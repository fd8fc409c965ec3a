"""`python -m tests.fuzz [COUNT] [--seed N] [KIND...]`: so many fuzzed inputs, a million unless told otherwise."""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

from tests.fuzz.kinds import Kind, kinds

SLOW_S = 10.0
"""An input that takes more of a processor's time is a bug, on any machine."""
STUCK_S = 300.0
"""And so is one for which nothing has happened for so long."""
GROWTH_KIB = 20_000
"""More memory at the end than after the first tenth is a leak: what is cached has its bounds by then."""
PEAK_KIB = 60_000
"""An input, of some kilobytes, that takes more is a bug: it could have megabytes."""


class Stuck(BaseException):
    """Raised in what takes too long. It is no Exception, so that no reader catches it with its errors."""


def _stop(*_: object) -> None:
    raise Stuck(f"more than {SLOW_S} s of work, or {STUCK_S} s")


def main() -> int:
    """0: no bug. Each is told with what makes it again."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--input", type=int, help="this one alone, of one kind")
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    asked = parser.parse_intermixed_args()
    logging.disable()
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, _stop)
    print(f"seed {asked.seed}", flush=True)
    bugs, began = 0, time.monotonic()
    with kinds() as known:
        names = [kind.name for kind in known]
        if strange := set(asked.kinds) - set(names):
            parser.error(f"no such kind: {', '.join(sorted(strange))}; there are {', '.join(names)}")
        chosen = [kind for kind in known if not asked.kinds or kind.name in asked.kinds]
        shares = sum(kind.share for kind in chosen)
        for kind in chosen:
            if asked.input is not None:
                kind.try_one(asked.input, asked.seed)
            else:
                bugs += run(kind, asked.count * kind.share // shares, asked.seed)
    print(f"{asked.count:,} inputs in {time.monotonic() - began:.0f} s, {bugs} bugs")
    return min(bugs, 1)


def run(kind: Kind, count: int, seed: int) -> int:
    """Try `count` inputs; the number of bugs."""
    began, bugs, first = time.monotonic(), 0, 0
    for number in range(count):
        if number == count // 10:
            first = _resident_kib()
        peak = _peak_kib()
        try:
            signal.setitimer(signal.ITIMER_PROF, SLOW_S)
            signal.setitimer(signal.ITIMER_REAL, STUCK_S)
            kind.try_one(number, seed)
        except (Exception, Stuck) as error:
            bugs += 1
            if bugs <= 5:
                print(f"{kind.name}: {error!r}: python -m tests.fuzz --seed {seed} --input {number} 1 {kind.name}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        if (more := _peak_kib() - peak) > PEAK_KIB:
            bugs += 1
            print(f"{kind.name}: input {number} of seed {seed} took {more} KiB")
    grown = _resident_kib() - first
    if grown > GROWTH_KIB:
        bugs += 1
        print(f"{kind.name}: {grown} KiB more memory after {count} inputs than after a tenth of them")
    seconds = time.monotonic() - began
    print(
        f"{kind.name:10} {count:9,} inputs {count / max(seconds, 1e-9):9,.0f}/s  {bugs} bugs, {grown:+} KiB", flush=True
    )
    return bugs


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _resident_kib() -> int:
    """What is in use: the rest, which the allocator gives back here, grows and shrinks by tens of megabytes."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    raise SystemExit(main())
