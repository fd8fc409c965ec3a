"""Ranges and conditions: RFC 9110, sections 13 and 14. Pure functions over header values."""

from __future__ import annotations

import re

from zotctl.errors import RangeInvalid, RangeUnsatisfiable

_ONE_RANGE = re.compile(r"([0-9]*)-([0-9]*)").fullmatch
_CONTENT_RANGE = re.compile(r"([0-9]{1,19})-([0-9]{1,19})").fullmatch
_LONGEST = 19


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """The part of `size` bytes that a Range header asks for, as offset and count; None: all of it.

    Raises RangeUnsatisfiable. Several ranges are answered by the whole: "A server MAY ignore the Range
    header field."
    """
    unit, _, ranges = value.partition("=")
    # "A server MUST ignore a Range header field received with [...] a range unit it does not understand"
    found = _ONE_RANGE(ranges.strip()) if unit.strip().lower() == "bytes" else None
    if found is None or ranges.strip() == "-":
        return None
    first, last = (text[:_LONGEST] for text in found.groups())
    return _suffix(int(last), size) if not first else _from(int(first), last, size)


def _suffix(count: int, size: int) -> tuple[int, int] | None:
    # "a suffix-range is satisfiable if the suffix-length is non-zero"
    if count == 0:
        raise RangeUnsatisfiable("the last 0 bytes are no range", {"size": size})
    # "If the selected representation is shorter than the specified suffix-length, the entire
    # representation is used."
    return (size - count, count) if count < size else None


def _from(first: int, last: str, size: int) -> tuple[int, int]:
    # "An int-range is satisfiable if it has a first-pos that is less than the current length"
    if first >= size:
        raise RangeUnsatisfiable(f"the range starts at {first} and the blob has {size} bytes", {"size": size})
    # "An int-range is invalid if the last-pos value is present and less than first-pos"; such a header
    # may be ignored or rejected.
    if last and int(last) < first:
        raise RangeUnsatisfiable(f"the range ends at {last}, before its start {first}", {"size": size})
    end = min(int(last), size - 1) if last else size - 1
    return first, end - first + 1


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
