"""Reads and writes JSON: the one place that decodes untrusted input and translates the decoder's errors."""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any, TypeVar

import msgspec

from zotctl.errors import ManifestInvalid
from zotctl.oci.digest import Digest

MAX_DEPTH = 100
"""Levels of nesting in a manifest."""

_T = TypeVar("_T")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 as signed bytes
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def decode(
    decoder: msgspec.json.Decoder[_T], body: bytes, what: str, error: type[ManifestInvalid] = ManifestInvalid
) -> _T:
    """Decode `body` with `decoder`. Raises `error`, which names `what`, the rule and the place. Thread-safe."""
    try:
        return decoder.decode(body)
    except RecursionError:
        raise error(f"{what} is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as cause:
        raise error(f"{what} is not valid: {cause}") from None


def encode(value: object) -> bytes:
    """Encode `value` as compact JSON: structs, dicts, lists, and digests too."""
    return _ENCODER.encode(value)


def check_text(body: bytes, what: str, max_depth: int = MAX_DEPTH) -> None:
    """Check UTF-8 and depth also in the fields that the decoder skips. Call it after `decode`; raises ManifestInvalid.

    The decoder's own limit on depth depends on how deep the caller's stack is. A manifest that one thread
    accepts has to stay readable for every other, hence a fixed limit far below.
    """
    # RFC 8259, section 8.1: "JSON text exchanged between systems that are not part of a closed ecosystem
    # MUST be encoded using UTF-8."
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise ManifestInvalid(f"{what} is not UTF-8: {cause}") from None
    if body.count(b"[") + body.count(b"{") > max_depth and _depth(body) > max_depth:
        raise ManifestInvalid(f"{what} is nested deeper than {max_depth} levels")


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written: every key in order, repeated keys included."""


def names_in(body: bytes, what: str) -> tuple[set[str], bool]:
    """All keys of all objects in valid JSON, and whether an object repeats a key. Raises ManifestInvalid.

    Takes some hundred nanoseconds for each key, whatever the 4 MiB of a manifest hold.
    """
    names, repeated = set[str](), False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated
        if pairs:
            fields = dict(pairs)
            names.update(fields)
            if len(fields) < len(pairs):
                repeated = True

    _load(body, what, look)
    return names, repeated


def pairs_of(body: bytes, what: str) -> Any:
    """Valid JSON with each object as `Pairs`; numbers stay text. Raises ManifestInvalid."""
    return _load(body, what, Pairs)


def load_json(text: bytes | str) -> Any:
    """Decode JSON that is no document of the specifications: our own notes, and answers of other programs.

    A crash, a disk or another program may have left anything there. So everything that can't be used is one ValueError:
    no JSON, no UTF-8, nested too deeply, or a number that is no finite `float`. Thread-safe.
    """
    try:
        return _NOTES.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    if not math.isfinite(found := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return found


def _whole(text: str) -> int:
    _finite(text)
    return int(text)


def fold(key: str) -> str:
    """A form that is equal for keys that Go's encoding/json takes for the same: it ignores case, and folds two more
    letters into s and k."""
    return key.lower().replace("\u017f", "s")  # the other, U+212A, is "k" in lower case


def _load(body: bytes, what: str, hook: Any) -> Any:
    # Numbers are not converted: Python refuses integers of many digits, which are valid JSON.
    try:
        return json.loads(_text(body), object_pairs_hook=hook, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise ManifestInvalid(f"{what} is nested too deeply") from None
    except ValueError as cause:
        raise ManifestInvalid(f"{what} is not valid: {cause}") from None


def _text(body: bytes) -> str:
    """The decoder is lax about UTF-8 in what it skips, and so is this."""
    return body.decode("utf-8", "surrogateescape")


def _depth(body: bytes) -> int:
    """How many levels valid JSON nests."""
    steps = _STRING.sub(b"", body).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0)


def _plain(value: object) -> str:
    """For the encoder, which knows `str` but not its subclasses."""
    if isinstance(value, Digest):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_NOTES = json.JSONDecoder(parse_float=_finite, parse_int=_whole, parse_constant=_finite)
