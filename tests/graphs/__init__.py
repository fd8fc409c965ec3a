"""Random graphs of manifests, against an oracle of reachability that is ten lines long.

    python -m tests.graphs 5000         # so many graphs, from number 0
    python -m tests.graphs 1 4711       # one of them, told in full

`making` draws a graph from its number, `oracle` says what is reachable in it, and `agreeing` asks everything of ours
that has an opinion: gc, DELETE, GET by digest, the list of referrers, scrub, verify, import-layout, --explain.
"""
