"""Inputs made of valid ones: flipped, cut, spliced, repeated, nested, with numbers and characters that are odd."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

ODD = (
    b"", b"\0", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f\x90\xb3", b"\r\n", b"\n", b"\t", b" ", b'"', b"\\",
    b"{", b"}", b"[", b"]", b":", b",", b"=", b";", b"-", b"-1", b"0", b"9" * 30, b"1e999", b"NaN", b"null", b"true",
    b"<", b">", b"&#0;", b"<!DOCTYPE x>", b"../", b"%2F", b"%00", b"sha256:", b"a" * 300, b"[" * 200, b'{"a":' * 120,
)  # fmt: skip
LONGEST_BYTES = 20_000


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` after one to six changes; sometimes as it is, so that what is valid is tried as well."""
    data = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6))):
        data = _change(random, data, seeds)
    return data[:LONGEST_BYTES]


def _change(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    match random.randrange(8):
        case 0:  # a bit
            if not data:
                return data
            at = random.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:start]
        case 3:
            return data[:end] + data[start:end] * random.choice((1, 2, 20)) + data[end:]
        case 4:
            return data[:start] + random.choice(ODD) + data[start:]
        case 5:
            return data[:start] + random.choice(ODD) + data[end:]
        case 6:
            other = random.choice(seeds)
            return data[:start] + other[random.randint(0, len(other)) :]
    return data[:start] + random.randbytes(random.randint(1, 12)) + data[start:]
