"""Streams of valid and of invalid bytes: what they mean does not depend on where they were cut."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.wire import understood
from zotctl.http import request
from zotctl.http.request import FIELD_COUNT, HEAD_BYTES

EXAMPLES = int(os.environ.get("ZOTCTL_EXAMPLES", "150"))

METHODS = st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE"])
NAMES = st.text("abcXYZ09-_!#", min_size=1, max_size=8)
VALUES = st.text("ab \t;=,\"'\x80é/", max_size=12).map(lambda text: text.strip(" \t"))
BODIES = st.binary(max_size=300) | st.sampled_from(
    [b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 70_001]
)


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    made, at = b"", 0
    while at < len(body):
        size = draw(st.integers(min(len(body) - at, len(body) // 8 + 1), len(body) - at))
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
        made += f"{size:x}".encode() + extension + b"\r\n" + body[at : at + size] + b"\r\n"
        at += size
    trailers = draw(st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d e\r\n"]))
    return made + draw(st.sampled_from([b"0", b"000"])) + b"\r\n" + trailers + b"\r\n"


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, tuple[str, str, bytes]]:
    method, path = draw(METHODS), "/" + draw(st.text("abc/%?=&", max_size=9))
    fields = [f"X-{name}: {value}" for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))]
    body, framed = b"", b""
    if method != "GET" and draw(st.booleans()):
        body = draw(BODIES)
        if draw(st.booleans()):
            framed = draw(chunks(body))
            fields.append("Transfer-Encoding: chunked")
        else:
            framed = body
            fields.append(f"Content-Length: {len(body):0{draw(st.integers(1, 5))}}")
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *draw(st.permutations(fields)), "", ""])
    before = draw(st.sampled_from([b"", b"", b"\r\n"]))
    return before + head.encode() + framed, (method, path.partition("?")[0], body)


BROKEN = st.sampled_from(
    [b"\r", b"\n", b"\0", b"\x7f", b" ", b"\t", b":", b"\r\n", b"\r\n\r\n", b"\xff", b"0", b"Content-Length: 3\r\n"]
)


@st.composite
def mistakes(draw: st.DrawFn) -> bytes:
    """A stream in which something was put, replaced or taken away."""
    stream = b"".join(bytes_ for bytes_, _ in draw(st.lists(messages(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(BROKEN) + stream[at + draw(st.integers(0, 2)) :]
    return stream


@st.composite
def cuts(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True) if start < end]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(messages(), max_size=4), st.data())
def test_valid_requests_are_understood_wherever_they_are_cut(
    sent: list[tuple[bytes, tuple[str, str, bytes]]], data: st.DataObject
) -> None:
    stream = b"".join(bytes_ for bytes_, _ in sent)
    for pieces in ([stream], data.draw(cuts(stream))):
        found = understood(*pieces)
        assert found.refused is None
        assert found.requests == [meaning for _, meaning in sent]


@settings(max_examples=EXAMPLES, deadline=None)
@given(mistakes() | st.binary(max_size=200), st.data())
def test_mistakes_are_the_same_wherever_they_are_cut(stream: bytes, data: st.DataObject) -> None:
    whole = understood(stream)
    assert understood(*data.draw(cuts(stream))) == whole
    if len(stream) < 1000:
        assert understood(*(stream[at : at + 1] for at in range(len(stream)))) == whole


def test_limits_are_the_same_wherever_they_are_cut() -> None:
    line = b"X: " + b"y" * 8000 + b"\r\n"
    for head, status in (
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (FIELD_COUNT - 1), None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * FIELD_COUNT, 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 8, None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + line * 9, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 8188 + b"\r\n", 431),
        (b"GET /" + b"y" * 8181 + b" HTTP/1.1\r\nHost: x\r\n", 414),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * (HEAD_BYTES + 1), None),
    ):
        for size in (len(head) + 2, 4096, 8191):
            stream = head + b"\r\n"
            found = understood(*(stream[at : at + size] for at in range(0, len(stream), size)))
            assert found.refused == status, (head[:60], size)
    assert found.requests == [("PUT", "/", "BlobUploadInvalid")]


def test_a_head_of_many_pieces_is_looked_at_once() -> None:
    """64 KiB byte by byte, and as many empty lines at once, take no longer than their bytes."""
    lines = b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 60
    looked: list[int] = []
    search = request._NEVER

    def counting(data: bytes) -> object:
        looked.append(len(data))
        return search(data)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(request, "_NEVER", counting)
        stream = lines + b"\r\n"
        found = understood(*(stream[at : at + 1] for at in range(len(stream))))
    assert (found.requests, found.refused) == ([("GET", "/", b"")], None)
    assert max(looked) <= 1100
    assert understood(b"\r\n" * 100_000 + stream).requests == [("GET", "/", b"")]
