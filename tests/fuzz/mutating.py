"""Inputs made of valid ones: flipped, cut, spliced, repeated, nested, with numbers and characters that are odd."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

ODD = (
    b"", b"\0", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf0\x9f\x90\xb3", b"\r\n", b"\n", b"\t", b" ", b'"', b"\\",
    b"{", b"}", b"[", b"]", b":", b",", b"=", b";", b"-", b"-1", b"0", b"9" * 30, b"1e999", b"NaN", b"null", b"true",
    b"<", b">", b"&#0;", b"<!DOCTYPE x>", b"../", b"%2F", b"%00", b"sha256:", b"a" * 300, b"[" * 200, b'{"a":' * 120,
)  # fmt: skip
VALUES = (
    b"5", b"-1", b"1e999", b"9" * 30, b"1" + b"0" * 400, b"9" * 5000, b"0x" + b"f" * 5000, b"true", b"null", b"[]",
    b"{}", b'""', b'"\\ud800"', b'"\xff"', b'"{1..99999999}"', b'"' + b"k" * 8000 + b'"', b'"' + b"(" * 2000 + b'"',
    b"[" + b"[0]," * 2000 + b"0]", b"[" * 900 + b"]" * 900, b'{"a":' * 300 + b"1" + b"}" * 300, b'{"a":1,"a":2}',
)  # fmt: skip
LONGEST_BYTES = 20_000

_value = re.compile(rb'"(?:[^"\\]|\\.)*"|[0-9]+|true|false|null')
_pair = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[0-9]+|true|false|null)')
_digits = re.compile(rb"[0-9]+")


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` after one to six changes; sometimes as it is, so that what is valid is tried as well."""
    data = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3, 6))):
        data = _change(random, data, seeds)[:LONGEST_BYTES]
    return data


def _change(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
    match random.randrange(11):
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
        case 7:  # a value or a key becomes another
            return _with(random, data, _value, lambda _: random.choice(VALUES))
        case 8:  # a number gets digits
            return _with(
                random, data, _digits, lambda text: random.choice((b"0" * 30 + text, text * 20, b"-" + text, b""))
            )
        case 9:  # a key stands twice, perhaps in another case, perhaps with another value
            return _with(random, data, _pair, lambda text: _again(random, text) + b"," + text)
    return data[:start] + random.randbytes(random.randint(1, 12)) + data[start:]


def _with(random: Random, data: bytes, pattern: re.Pattern[bytes], change: Callable[[bytes], bytes]) -> bytes:
    found = list(pattern.finditer(data))
    if not found:
        return data
    one = random.choice(found)
    return data[: one.start()] + change(one[0]) + data[one.end() :]


def _again(random: Random, pair: bytes) -> bytes:
    key, _, value = pair.partition(b":")
    key = random.choice((key, key.upper(), key.title(), b'"\xff"', b'"' + b"k" * 8000 + b'"'))
    return key + b":" + random.choice((value, random.choice(VALUES)))
