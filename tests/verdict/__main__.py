"""`python -m tests.verdict [LEVEL...] [--long] [--seed N] [--output FILE]`: runs the levels of docs/design/proof.md and
writes one page: what was run, how much of it, and what failed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import SystemRandom

from tests.verdict.levels import LEVELS
from tests.verdict.page import page
from tests.verdict.running import run


def main(words: list[str]) -> int:
    """0: every level passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.verdict", description="All levels of the proof on one page.")
    parser.add_argument("levels", nargs="*", metavar="LEVEL", help=", ".join(level.name for level in LEVELS))
    parser.add_argument("--long", action="store_true", help="hours instead of minutes")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the page is written; default standard output"
    )
    options = parser.parse_args(words)
    if strange := set(options.levels) - {level.name for level in LEVELS}:
        parser.error(f"no such level: {', '.join(sorted(strange))}")
    fates, text = [], ""
    for level in LEVELS:
        if not options.levels or level.name in options.levels:
            print(f"{level.name} ...", file=sys.stderr, flush=True)
            fates.append(run(level, long=options.long, seed=options.seed))
            text = page(fates, long=options.long, seed=options.seed)
            if options.output is not None:  # after each level, so that who interrupts it has those that were run
                options.output.write_text(text)
    if options.output is None:
        print(text)
    return 0 if all(fate.passed for fate in fates) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
