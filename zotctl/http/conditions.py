"""Ranges and conditions: RFC 9110, sections 13 and 14, over the values of headers.

The commit evaluates the conditions of a push.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zotctl.errors import PreconditionFailed, RangeInvalid, RangeUnsatisfiable, TooManyRanges, quoted
from zotctl.storage import Condition

if TYPE_CHECKING:
    from zotctl.storage.index import Index

MAX_RANGES = 64
"""In one answer, after merging. A client that is refused merges some itself and asks again, as containers/storage
does, which gives up below this number."""

_RANGE_SPEC = re.compile(r"([0-9]*)-([0-9]*)").fullmatch
_CONTENT_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})").fullmatch
_POSITION_DIGITS = 19


def parse_ranges(value: str, size: int) -> list[tuple[int, int]] | None:
    """The parts of `size` bytes that a Range header asks for, each an offset and a count; None: all of it.

    RFC 9110, section 14. Parts that overlap are one, so that they never are more bytes than there are; else they are
    those of the header, in its order: containers/storage takes no answer with fewer parts than it asked for, and asks
    for parts that adjoin. Raises RangeUnsatisfiable, and TooManyRanges for more than MAX_RANGES.
    """
    unit, _, specs = value.partition("=")
    # "A server MUST ignore a Range header field received with [...] a range unit it does not understand"
    if unit.strip().lower() != "bytes":
        return None
    found = [_RANGE_SPEC(spec.strip()) for spec in specs.split(",") if spec.strip()]
    texts = [(_position(spec[1]), _position(spec[2])) for spec in found if spec is not None]
    if not texts or len(texts) < len(found) or ("", "") in texts or size == 0:
        return None
    if len(texts) > 1 and any(first and last and int(last) < int(first) for first, last in texts):
        return None  # "MAY ignore or reject a Range header field that contains an invalid ranges-specifier"
    parts, refused = [], None
    for first, last in texts:
        try:
            parts.append(_satisfied(first, last, size))
        except RangeUnsatisfiable as error:
            refused = error
    if refused is not None and not parts:
        raise refused
    merged = _merged(parts)
    if len(merged) > MAX_RANGES:
        raise TooManyRanges(f"{len(merged)} ranges in one request; at most {MAX_RANGES} are answered")
    # "If the selected representation is shorter than the specified suffix-length, the entire representation is used."
    return None if len(texts) == 1 and not texts[0][0] and merged == [(0, size)] else merged


def _position(digits: str) -> str:
    """A position of a few digits that is as large as any blob if `digits` are; "" stays ""."""
    return (digits.lstrip("0") or digits[:1])[:_POSITION_DIGITS]


def _satisfied(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        # "a suffix-range is satisfiable if the suffix-length is non-zero"
        if int(last) == 0:
            raise RangeUnsatisfiable("the last 0 bytes are no range", {"size": size})
        count = min(int(last), size)
        return size - count, count
    # "An int-range is satisfiable if it has a first-pos that is less than the current length"
    start = int(first)
    if start >= size:
        raise RangeUnsatisfiable(f"the range starts at {start} and the blob has {size} bytes", {"size": size})
    # "An int-range is invalid if the last-pos value is present and less than first-pos"
    if last and int(last) < start:
        raise RangeUnsatisfiable(f"the range ends at {last}, before its start {start}", {"size": size})
    end = min(int(last), size - 1) if last else size - 1
    return start, end - start + 1


def _merged(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Section 15.3.7.2: "SHOULD send the parts in the same order that the corresponding range-spec appeared [...],
    excluding those ranges that were deemed unsatisfiable or that were coalesced into other ranges"."""
    merged: list[tuple[int, int, int]] = []
    for offset, place, count in sorted((offset, place, count) for place, (offset, count) in enumerate(parts)):
        if merged and offset < merged[-1][1] + merged[-1][2]:
            before, at, had = merged[-1]
            merged[-1] = (min(before, place), at, max(had, offset + count - at))
        else:
            merged.append((place, offset, count))
    return [(offset, count) for _, offset, count in sorted(merged)]


def parse_content_range(value: str) -> tuple[int, int]:
    """First and last position of a chunk, both inclusive. Raises RangeInvalid.

    distribution-spec, "Pushing a blob in chunks": "It MUST match the following regular expression:
    ^[0-9]+-[0-9]+$"
    """
    found = _CONTENT_RANGE(value)
    if not found or int(found[1]) > int(found[2]):
        raise RangeInvalid(f"Content-Range: {value[:100]!r} is not <start>-<end> with both ends inclusive")
    return int(found[1]), int(found[2])


def names_etag(header: str, etag: str, *, weak: bool = True) -> bool:
    """Whether a list of entity tags holds `etag`; `weak`: by the weak comparison of section 8.8.3.2.

    Tags here are digests, so that a comma can't be part of one.
    """
    if header.strip() == "*":
        return True
    candidates = (candidate.strip() for candidate in header.split(","))
    return any((c.removeprefix("W/") if weak else c) == etag for c in candidates)


def condition_of_push(headers: Mapping[str, str], reference: str) -> Condition | None:
    """The condition of If-Match and If-None-Match on the manifest at `reference`; None: no condition.

    It raises PreconditionFailed. Other tags of the same push are no target of it, and are not looked at.
    """
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is None and unwanted is None:
        return None

    def check(index: Index) -> None:
        row = index.find(reference)
        current = row.digest if row is not None else None
        # Section 13.2.2: If-Match comes first, then If-None-Match.
        if wanted is not None and not _matches(wanted, current, weak=False):
            raise _failed("If-Match", wanted, reference, current)
        if unwanted is not None and _matches(unwanted, current, weak=True):
            raise _failed("If-None-Match", unwanted, reference, current)

    return check


def _matches(header: str, current: str | None, *, weak: bool) -> bool:
    # "*": true "if the origin server has a current representation for the target resource".
    return current is not None and names_etag(header, f'"{current}"', weak=weak)


def _failed(name: str, value: str, reference: str, current: str | None) -> PreconditionFailed:
    there = f"is {current}" if current else "is not here"
    return PreconditionFailed(f"{name}: {quoted(value)} does not hold: {reference} {there}", {"current": current})
