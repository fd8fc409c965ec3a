"""`python -m tests.model [SAFEGUARD...]`"""

from __future__ import annotations

import sys

from tests.model import bucket, local
from tests.model.explore import Moves, explore
from tests.model.test_models import CASTS, NEIGHBOURS

MOST = 400_000


def main(names: list[str]) -> int:
    for name in names:
        if name not in local.SAFEGUARDS | bucket.SAFEGUARDS:
            print(f"no safeguard is called {name!r}: {', '.join([*local.SAFEGUARDS, *bucket.SAFEGUARDS])}")
            return 2
    missed = 0
    one_each: list[tuple[str, ...]] = [(name,) for name in names or (*local.SAFEGUARDS, *bucket.SAFEGUARDS)]
    for off in one_each if names else [(), *one_each]:
        missed += not _is_as_it_should_be(off)
    return 1 if missed else 0


def _is_as_it_should_be(off: tuple[str, ...]) -> bool:
    """Prints the shortest schedule that loses something. One is wanted exactly if a safeguard is off."""
    found = False
    for protocols, starts in ((local, NEIGHBOURS), (bucket, CASTS)):
        if not set(off) <= protocols.SAFEGUARDS.keys():
            continue
        moves: Moves = protocols.Protocol(*off).moves
        for cast, start in starts.items():
            result = explore(start, moves, protocols.is_damaged, MOST)
            if result.schedule or not off:
                whole = "" if result.whole else ", not all of them"
                print(f"without {', '.join(off) or 'nothing'}, {cast}: {result.states} states{whole}")
                print(*(f"    {line}" for line in result.schedule or ["nothing is lost"]), sep="\n")
            found |= bool(result.schedule)
            if off and found:
                return True
    return found == bool(off)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
