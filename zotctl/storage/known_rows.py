"""What has changed in an index.json, most rows of which are known: the others are found without parsing all.

Known pieces are cut out of the bytes, and a mark is put in their place. What is left is a small document, which is
parsed as any other is. If each mark is a row of it, then the whole is a valid document, too, and has the known rows in
the place of the mark: JSON is read from the left with a stack, and one row, or many with commas between them, lead from
the same state to the same state. Hence nothing depends on how the pieces were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from zotctl.storage.rows import Piece

MARK = b'"zotctl: known rows"'
ANCHOR_BYTES = 256
SLACK_BYTES = 1 << 16
"""A piece is looked for so far behind the place where it would be if those before it were gone or as they were."""
FEW_MISSES = 16


class Cut(NamedTuple):
    """An index.json without the pieces that are known: `rest` has a mark in the place of each of the `runs`."""

    rest: bytes
    runs: list[tuple[int, int]]
    """The first piece of each, and the one behind its last."""


class Changes(NamedTuple):
    """What leads from known rows to those of a file."""

    of_rows: list[tuple[int, bytes]]
    """The numbers of rows that have other bytes now; none if it was removed."""
    appended: list[bytes]


def cut(body: bytes, pieces: Sequence[Piece]) -> Cut | None:
    """Cut out what is known. None: too little is."""
    kept, runs = list[bytes](), list[tuple[int, int]]()
    done, skipped, misses, number = 0, 0, 0, 0
    while number < len(pieces):
        rows = pieces[number].raw[1:]
        start = body.find(rows[:ANCHOR_BYTES], done, done + skipped + SLACK_BYTES) if rows else -1
        if start < 0 or not body.startswith(rows, start):
            skipped += len(rows)
            misses += 1
            if misses > FEW_MISSES + len(pieces) // 2:
                return None
            number += 1
            continue
        first, end = number, start + len(rows)
        number += 1
        while number < len(pieces) and body.startswith(pieces[number].raw, end):
            end += len(pieces[number].raw)
            number += 1
        runs.append((first, number))
        kept += [body[done:start], MARK]
        done, skipped = end, 0
    kept.append(body[done:])
    if not runs or any(MARK in part for part in kept[::2]):
        return None
    return Cut(b"".join(kept), runs)


def changes(found: Cut, raws: Sequence[msgspec.Raw], pieces: Sequence[Piece], piece_rows: int) -> Changes | None:
    """What leads from the rows of `pieces`, of `piece_rows` numbers each, to those of the file whose `rest` has the
    rows `raws`. None: a mark is no row, or it is more than rows that were changed in their place, removed, or appended.
    """
    of_rows, new, at, runs = list[tuple[int, bytes]](), list[bytes](), 0, iter([*found.runs, (len(pieces),) * 2])
    marks = 0
    for raw in [*map(bytes, raws), MARK]:
        if raw != MARK:
            new.append(raw)
            continue
        marks += 1
        if marks > len(found.runs) + 1:
            return None
        first, behind = next(runs)
        old = [
            (number * piece_rows + place, row)
            for number in range(at, first)
            for place, row in pieces[number].numbered()
        ]
        step = _between(old, new)
        if step.appended and marks <= len(found.runs):
            return None
        of_rows += step.of_rows
        at, new = behind, step.appended
    return Changes(of_rows, new) if marks == len(found.runs) + 1 else None


def _between(old: Sequence[tuple[int, bytes]], new: Sequence[bytes]) -> Changes:
    """Give each new row the number of an old one, in ascending order, and the rest to the end."""
    staying = {row for _, row in old} & set(new)
    changed, place = list[tuple[int, bytes]](), 0
    for row_id, row in old:
        now = new[place] if place < len(new) else b""
        if now == row:
            place += 1
        elif now in staying or not now:
            changed.append((row_id, b""))
        else:
            changed.append((row_id, now))
            place += 1
    return Changes(changed, list(new[place:]))
