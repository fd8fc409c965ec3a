"""The oci-layout file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.errors import LayoutInvalid
from zotctl.oci.layout import LAYOUT_BYTES, check_layout


@pytest.mark.parametrize(
    "body",
    [LAYOUT_BYTES, b'{ "imageLayoutVersion": "1.0.0", "x": [1] }\n', b'{"imageLayoutVersion":"1.0.0"}\r\n'],
)
def test_valid(body: bytes) -> None:
    check_layout(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"1.0.0"',
        b'{"imageLayoutVersion":1}',
        b'{"imageLayoutVersion":null}',
        b'{"imageLayoutVersion":"2.0.0"}',
        b'{"imageLayoutVersion":"1.0.0"',
        b"\xef\xbb\xbf" + LAYOUT_BYTES,
        LAYOUT_BYTES + LAYOUT_BYTES,
        b'{"imageLayoutVersion":"\xff"}',
        b'{"x":' + b"[" * 1_000_000,
        b"\0" * 30,
    ],
)
def test_invalid(body: bytes) -> None:
    with pytest.raises(LayoutInvalid, match="oci-layout"):
        check_layout(body)


@given(st.binary(max_size=60))
def test_any_bytes(body: bytes) -> None:
    try:
        check_layout(body)
    except LayoutInvalid:
        return
    assert b"1.0.0" in body
