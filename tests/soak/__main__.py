"""`python -m tests.soak [PLACE...] [--seconds N] [--seed N] [--keep DIR]`: a soak in each place, one after the other,
and its verdict. The exit code is 1 if one of them failed."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.nfs.kernel import OwnKernel
from tests.soak.journal import Journal
from tests.soak.places import INSIDE, MORE, PLACES
from tests.soak.running import everything_at_once

NFS = "nfs"
LONGEST_S = 1800.0
"""For what comes after a soak on NFS: it has one processor."""


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Everything at once, and a verdict.")
    parser.add_argument("places", nargs="*", metavar="PLACE", help=", ".join((*PLACES, *MORE, NFS)))
    parser.add_argument("--seconds", type=float, default=1800, help="of each; default 1800")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--keep", type=Path, help="a directory for what a failure leaves: logs, reports, journal, store"
    )
    options = parser.parse_args(words)
    if strange := set(options.places) - {*PLACES, *MORE, *INSIDE, NFS}:
        parser.error(f"no such place: {', '.join(sorted(strange))}; there are {', '.join((*PLACES, *MORE, NFS))}")
    # The threads of clients and servers are not the seed's to order: it only says what is tried, not what happens.
    random.seed(options.seed)
    places = options.places or (*PLACES, *MORE, NFS)
    passed = [soak(place, options.seconds, options.seed, options.keep) for place in places]
    return 0 if all(passed) else 1


def soak(where: str, seconds: float, seed: int, keep: Path | None) -> bool:
    if where == NFS:
        return soak_on_nfs(seconds, seed, keep)
    home, began = Path(tempfile.mkdtemp(prefix=f"zotctl-soak-{where}-")), time.monotonic()
    try:
        with (PLACES | MORE | INSIDE)[where](home) as place:
            journal = everything_at_once(home, place, seconds)
            for root in place.directories() if journal.failures and keep else ():
                shutil.copytree(root, home / "store" / root.name, symlinks=True)
    except pytest.skip.Exception as error:
        print(f"## {where}: not run, it {error}\n", flush=True)
        return True
    print(verdict(where, journal, time.monotonic() - began, seed), flush=True)
    if journal.failures and keep:
        (home / "journal").write_text("\n".join(f"{at:.3f} {text}" for at, text in journal.lines))
        shutil.move(home, keep / home.name)
    shutil.rmtree(home, ignore_errors=True)
    return not journal.failures


def soak_on_nfs(seconds: float, seed: int, keep: Path | None) -> bool:
    """In a kernel of its own."""
    command = [sys.executable, "-m", "tests.soak", *INSIDE, "--seconds", str(seconds), "--seed", str(seed)]
    command += ["--keep", str(keep.resolve())] if keep else []
    try:
        code, told = OwnKernel().run(command, timeout=seconds + LONGEST_S)
    except pytest.skip.Exception as error:
        print(f"## {NFS}: not run, it {error}\n", flush=True)
        return True
    print(told.replace("## inside", f"## {NFS}"), flush=True)
    return code == 0


def verdict(where: str, journal: Journal, took: float, seed: int) -> str:
    failures = journal.failures
    lines = [f"## {where}: {'FAILED' if failures else 'passed'}, {took:.0f} s, seed {seed}", ""]
    lines += [f"- {what}: {count:,}" for what, count in sorted(journal.counts.items()) if count]
    lines += [f"\n{failure}" for failure in failures[:3]]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
