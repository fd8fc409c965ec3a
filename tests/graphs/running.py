"""Many graphs, one after the other."""

from __future__ import annotations

from collections.abc import Iterable

from tests.graphs.agreeing import complaints
from tests.graphs.making import Graph

MOST = 20
"""Graphs that are told; more of them say the same."""


def first_disagreements(graphs: Iterable[Graph]) -> dict[int, list[str]]:
    """Complaints by the number of the graph. An exception is one, too."""
    found: dict[int, list[str]] = {}
    for graph in graphs:
        try:
            lines = complaints(graph)
        except Exception as error:
            lines = [f"{type(error).__name__}: {error}"]
        if lines:
            found[graph.seed] = lines
        if len(found) >= MOST:
            break
    return found


def told(found: dict[int, list[str]]) -> str:
    return "\n".join(line for seed, lines in found.items() for line in (f"python -m tests.graphs 1 {seed}", *lines))
