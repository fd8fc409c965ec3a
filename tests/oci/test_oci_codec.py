"""JSON that is no document of the specs: whatever stands there, it is read, or it is a ValueError."""

from __future__ import annotations

import pytest

from zotctl.oci.codec import load_json

UNUSABLE = {
    "empty": b"",
    "truncated": b'{"t": 1, "a": "pu',
    "zeros": bytes(64),
    "no UTF-8": b'"\xff"',
    "deep": b"[" * 100_000,
    "deep and whole": b"[" * 100_000 + b"]" * 100_000,
    "large": b"1" + b"0" * 400,
    "larger": b"1" + b"0" * 5000,
    "large and negative": b"[-1" + b"0" * 400 + b"]",
    "infinite": b"1e400",
    "Infinity": b"-Infinity",
    "NaN": b"[NaN]",
}


@pytest.mark.parametrize("body", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_used_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        load_json(body)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"t": 1.5, "d": [7, -0, null]}', {"t": 1.5, "d": [7, 0, None]}),
        ('"\u00e4"', "\u00e4"),
        (b"12345678901234567890", 12345678901234567890),
    ],
)
def test_what_can_be_used_is_what_stands_there(body: bytes | str, found: object) -> None:
    assert load_json(body) == found
    assert not isinstance(found, int) or isinstance(load_json(body), int)
