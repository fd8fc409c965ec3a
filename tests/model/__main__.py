"""`python -m tests.model [SAFEGUARD...]`"""

from __future__ import annotations

import sys

from tests.model import bucket
from tests.model.explore import explore
from tests.model.test_models import CASTS

MOST = 400_000


def main(names: list[str]) -> int:
    missed = 0
    for off in [(name,) for name in names] or [(), *((name,) for name in bucket.SAFEGUARDS)]:
        protocol = bucket.Protocol(*off)
        for cast, start in CASTS.items():
            found = explore(start, protocol.moves, bucket.is_damaged, MOST)
            if found.schedule or not off:
                whole = "" if found.whole else ", not all of them"
                print(f"without {', '.join(off) or 'nothing'}, {cast}: {found.states} states{whole}")
                print(*(f"    {line}" for line in found.schedule or ["    nothing is lost"]), sep="\n")
            if found.schedule:
                missed += not off
                break
        else:
            missed += bool(off)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
