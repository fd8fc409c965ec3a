"""`python -m tests.fuzz [COUNT] [--seed N] [KIND...]`: so many fuzzed inputs, a million unless told otherwise."""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from random import SystemRandom

from tests.fuzz.kinds import Kind, kinds

SLOW_S = 10.0
"""An input that takes longer is a bug, on any machine."""
GROWTH_KIB = 20_000
"""More memory at the end than after the first tenth is a leak: what is cached has its bounds by then."""


def main() -> int:
    """0: no bug. Each is told with what makes it again."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--input", type=int, help="this one alone, of one kind")
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    asked = parser.parse_args()
    bugs = 0
    with kinds() as known:
        chosen = [kind for kind in known if not asked.kinds or kind.name in asked.kinds]
        shares = sum(kind.share for kind in chosen)
        for kind in chosen:
            if asked.input is not None:
                kind.try_one(asked.input, asked.seed)
            else:
                bugs += run(kind, asked.count * kind.share // shares, asked.seed)
    return min(bugs, 1)


def run(kind: Kind, count: int, seed: int) -> int:
    """Try `count` inputs; the number of bugs."""
    began, bugs, first = time.monotonic(), 0, 0
    for number in range(count):
        if number == count // 10:
            gc.collect()
            first = _resident_kib()
        before = time.monotonic()
        try:
            kind.try_one(number, seed)
        except Exception as error:
            bugs += 1
            if bugs <= 5:
                print(f"{kind.name}: {error!r}: python -m tests.fuzz --seed {seed} --input {number} 1 {kind.name}")
        if (took := time.monotonic() - before) > SLOW_S:
            bugs += 1
            print(f"{kind.name}: input {number} of seed {seed} took {took:.1f} s")
    gc.collect()
    grown = _resident_kib() - first
    if grown > GROWTH_KIB:
        bugs += 1
        print(f"{kind.name}: {grown} KiB more memory after {count} inputs than after a tenth of them")
    seconds = time.monotonic() - began
    print(
        f"{kind.name:10} {count:9,} inputs {count / max(seconds, 1e-9):9,.0f}/s  {bugs} bugs, {grown:+} KiB", flush=True
    )
    return bugs


def _resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    raise SystemExit(main())
