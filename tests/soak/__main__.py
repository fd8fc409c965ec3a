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

from tests.soak.journal import Journal
from tests.soak.places import PLACES
from tests.soak.running import everything_at_once


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Everything at once, and a verdict.")
    parser.add_argument("places", nargs="*", metavar="PLACE", help=", ".join(PLACES))
    parser.add_argument("--seconds", type=float, default=1800, help="of each; default 1800")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", type=Path, help="a directory for what a failure leaves: logs, reports, the journal")
    options = parser.parse_args(words)
    if strange := set(options.places) - set(PLACES):
        parser.error(f"no such place: {', '.join(sorted(strange))}; there are {', '.join(PLACES)}")
    # The threads of clients and servers are not the seed's to order: it only says what is tried, not what happens.
    random.seed(options.seed)
    failed = [
        place for place in options.places or PLACES if not soak(place, options.seconds, options.seed, options.keep)
    ]
    return 1 if failed else 0


def soak(where: str, seconds: float, seed: int, keep: Path | None) -> bool:
    home, began = Path(tempfile.mkdtemp(prefix=f"zotctl-soak-{where}-")), time.monotonic()
    try:
        with PLACES[where](home) as place:
            journal = everything_at_once(home, place, seconds)
    except pytest.skip.Exception as error:
        print(f"## {where}: not run, it {error}\n", flush=True)
        return True
    print(verdict(where, journal, time.monotonic() - began, seed), flush=True)
    if journal.failures and keep:
        (home / "journal").write_text("\n".join(f"{at:.3f} {text}" for at, text in journal.lines))
        shutil.move(home, keep / home.name)
    shutil.rmtree(home, ignore_errors=True)
    return not journal.failures


def verdict(where: str, journal: Journal, took: float, seed: int) -> str:
    failures = journal.failures
    lines = [f"## {where}: {'FAILED' if failures else 'passed'}, {took:.0f} s, seed {seed}", ""]
    lines += [f"- {what}: {count:,}" for what, count in sorted(journal.counts.items()) if count]
    lines += [f"\n{failure}" for failure in failures[:3]]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
