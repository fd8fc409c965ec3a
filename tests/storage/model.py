"""What the rows of an index.json mean, edited in the plainest way: the reference for `storage.index`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Row = tuple[str | None, str | None, str | None]
"""Digest, tag, alias."""


class Rows:
    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows = list(rows)

    def digests(self) -> set[str]:
        return {digest for digest, _, _ in self.rows if digest}

    def tags(self) -> dict[str, str]:
        found: dict[str, str] = {}
        by_alias: dict[str, set[str]] = {}
        for digest, tag, alias in self.rows:
            if digest and tag:
                found[tag] = digest
            if digest and alias:
                by_alias.setdefault(alias, set()).add(digest)
        return {tag: min(digests) for tag, digests in by_alias.items() if len(digests) == 1} | found

    def put(self, digest: str, tags: Iterable[str] = ()) -> None:
        for tag in tags:
            holders = [d for d, t, _ in self.rows if t == tag]
            if holders != [digest]:
                self.vacate(lambda row, tag=tag: row[1] == tag)  # type: ignore[misc]
                if (digest, None, None) in self.rows:
                    self.rows[self.rows.index((digest, None, None))] = (digest, tag, None)
                else:
                    self.rows.append((digest, tag, None))
        if digest not in self.digests():
            self.rows.append((digest, None, None))

    def untag(self, tag: str) -> None:
        self.vacate(lambda row: row[1] == tag)
        self.vacate(lambda row: row[2] == tag)

    def drop(self, digest: str) -> None:
        self.rows = [row for row in self.rows if row[0] != digest]

    def vacate(self, wanted: Callable[[Row], bool]) -> None:
        """Take the name from rows: the last of a manifest stays without one, any other goes."""
        at = 0
        while at < len(self.rows):
            row = self.rows[at]
            if row[0] and wanted(row):
                if [r[0] for r in self.rows].count(row[0]) > 1:
                    del self.rows[at]
                    continue
                self.rows[at] = (row[0], None, None)
            at += 1
