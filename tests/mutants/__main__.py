"""`python -m tests.mutants [--table] [NAME...]`"""

from __future__ import annotations

import argparse
import sys

from tests.mutants.running import Fate, try_all
from tests.mutants.table import KINDS, MUTANTS


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Try mutants out on their tests.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a mutant, or of a kind (in quotes)")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--table", action="store_true", help="print what guards what, the simulations included")
    options = parser.parse_args(words)
    chosen = [name for word in options.names or KINDS for name in _meant(parser, word)]
    if options.list:
        for kind, found in KINDS.items():
            print(kind, *(f"    {mutant.name}: {mutant.safeguard}" for mutant in found), sep="\n")
        return 0
    if options.table:
        print_table()
        return 0
    survivors = [fate for fate in map(_told, try_all(MUTANTS[name] for name in chosen)) if not fate.caught]
    for fate in survivors:
        print(f"\n{fate.mutant.name} in zotctl/{fate.mutant.file}:\n{fate.output}")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants were caught")
    return 1 if survivors else 0


def _meant(parser: argparse.ArgumentParser, word: str) -> list[str]:
    if word in KINDS:
        return [mutant.name for mutant in KINDS[word]]
    if word not in MUTANTS:
        parser.error(f"no mutant and no kind is called {word}; --list names them")
    return [word]


def print_table() -> None:
    """A line a safeguard. Schedules: within so many the simulation fails without it; a named test needs one."""
    from tests.simulation.stores import STORES

    print("| invariant | safeguard | mutant | test | schedules |", "|---|---|---|---|---|", sep="\n")
    for mutant in MUTANTS.values():
        print(f"| {mutant.guards} | {mutant.safeguard} | `{mutant.name}` | {mutant.test.removeprefix('tests/')} | 1 |")
    test = "simulation/test_mutants.py::test_a_safeguard_that_is_off_is_caught"
    for store, simulated in STORES.items():
        for safeguard, off in simulated.off.items():
            where = ", ".join(off.scenarios)
            print(f"| I4 to I7 | {safeguard} | off, in {where} | {test}[{store}-{safeguard}] | {off.limit} |")


def _told(fate: Fate) -> Fate:
    test = fate.mutant.test.removeprefix("tests/")
    print(f"{fate.word:8} {fate.seconds:5.1f} s  {fate.mutant.guards:4} {fate.mutant.name:44} {test}", flush=True)
    return fate


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
