"""Which rows of index.json have a name: a dictionary that is cheap to copy and to change.

A commit changes a few of maybe 100,000 names, so the copy that it works on shares everything else with its original.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

Ids = int | tuple[int, ...]
"""The number of the only row that has a name; or of several, in ascending order."""

FEW_CHANGES = 256
CHANGED_SHARE = 64
"""Copies share what has not changed until more than FEW_CHANGES, and one in so many names, have."""


class Names:
    """The numbers of rows by name. One that threads share is not changed: change a `copy()`."""

    __slots__ = ("_layers",)

    def __init__(self, names: Iterable[str | None] = ()) -> None:
        """`names`: those of the rows 0, 1, ...; None: that row has none. Takes linear time, also if many are equal."""
        found: dict[str, Ids] = {}
        several: dict[str, list[int]] = {}
        for row_id, name in enumerate(names):
            if name is not None and (first := found.setdefault(name, row_id)) != row_id:
                several.setdefault(name, [first] if isinstance(first, int) else []).append(row_id)
        found.update((name, tuple(ids)) for name, ids in several.items())
        self._layers: tuple[dict[str, Ids], dict[str, Ids | None]] = (found, {})
        """A dictionary that copies share and nobody changes, and what has changed since; None: the name is gone."""

    def copy(self) -> Names:
        """A copy; takes the time of what has changed, and now and then that of all."""
        base, changes = self._layers
        if len(changes) > max(FEW_CHANGES, len(base) // CHANGED_SHARE):
            base, changes = self.all(), {}
        twin = Names.__new__(Names)
        twin._layers = (base, changes.copy())
        return twin

    def all(self) -> dict[str, Ids]:
        """All names; not to be changed."""
        base, changes = self._layers
        if changes:
            gone = [name for name, ids in changes.items() if ids is None and name in base]
            base = base | {name: ids for name, ids in changes.items() if ids is not None}
            for name in gone:
                del base[name]
            # Threads that share this may all do so; each puts the same in its place, by one assignment.
            self._layers = (base, {})
        return base

    def get(self, name: str) -> Ids | None:
        """The rows of a name; None: it has none."""
        base, changes = self._layers
        return changes[name] if name in changes else base.get(name)

    def ids(self, name: str) -> tuple[int, ...]:
        """The same as a tuple, in ascending order."""
        found = self.get(name)
        if found is None:
            return ()
        return (found,) if isinstance(found, int) else found

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def changed_since(self, earlier: Names) -> Iterable[str]:
        """The names that may have other rows than in `earlier`, and all that have: those that changed since the two
        shared all."""
        (base, changes), (old_base, old_changes) = self._layers, earlier._layers
        shared = base is old_base
        return dict.fromkeys((*(() if shared else (*base, *old_base)), *changes, *old_changes))

    def several(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        """The names that several rows have."""
        return ((name, ids) for name, ids in self.all().items() if not isinstance(ids, int))

    def add(self, name: str, row_id: int) -> None:
        """Give a name to one more row."""
        ids = self.ids(name)
        place = bisect_left(ids, row_id)
        self._layers[1][name] = (*ids[:place], row_id, *ids[place:]) if ids else row_id

    def remove(self, name: str, row_id: int) -> None:
        """Take a name from a row that has it."""
        ids = self.ids(name)
        place = bisect_left(ids, row_id)
        left = ids[:place] + ids[place + 1 :]
        self._layers[1][name] = left[0] if len(left) == 1 else left or None
