"""`python -m tests.graphs N [SEED]`"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter

from tests.graphs.making import Graph, graph_of
from tests.graphs.running import first_disagreements, told


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.graphs", description="Random graphs against an oracle.")
    parser.add_argument("count", type=int, metavar="N")
    parser.add_argument("seed", type=int, nargs="?", default=0, metavar="SEED")
    options = parser.parse_args(words)
    if options.count == 1:
        print(shown(graph_of(options.seed)))
    logging.disable()
    found = first_disagreements(map(graph_of, range(options.seed, options.seed + options.count)))
    kinds = Counter(line.partition(":")[0].partition(" sha256")[0] for lines in found.values() for line in lines)
    print(told(found))
    print(f"{options.count} graphs, {len(found)} with disagreements", *kinds.items())
    return 1 if found else 0


def shown(graph: Graph) -> str:
    lines = [f"quirks: {', '.join(sorted(graph.quirks))}"]
    for digest, body in graph.bodies.items():
        state = "missing" if digest in graph.missing else "damaged" if digest in graph.damaged else ""
        lines.append(f"{digest} {graph.types.get(digest, '')} {state}\n    {body.decode().strip()}")
    return "\n".join([*lines, graph.index.decode()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
