"""What other parsers were fooled by: the subjects of the tests of llhttp and Node, of what http-garden found, and of
RFC 9112's security considerations, each in words of our own.

A stream is refused, or its body is, and nothing behind the mistake is ever taken for a request.
"""

from __future__ import annotations

import os

import pytest

from tests.http.wire import understood
from zotctl.http.body import BATCH_BYTES, SMALL_BODY_BYTES

END = b"\r\n\r\n"
BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def head(*fields: bytes, line: bytes = b"PUT /a HTTP/1.1", host: bytes = b"Host: x") -> bytes:
    return b"\r\n".join([line, host, *fields]) + END


REFUSED: dict[str, bytes] = {
    # -- the request line
    "another protocol": head(line=b"PUT /a RTSP/1.0"),
    "almost a protocol": head(line=b"GET /a XHTTP/1.1"),
    "streaming": head(line=b"GET /a ICE/1.0"),
    "version of the future": head(line=b"GET /a HTTP/2.0"),
    "version of no time": head(line=b"GET /a HTTP/1.2"),
    "version of two digits": head(line=b"GET /a HTTP/1.10"),
    "version in lower case": head(line=b"GET /a http/1.1"),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /a\r\n\r\n",
    "two spaces": head(line=b"GET  /a HTTP/1.1"),
    "two spaces before the version": head(line=b"GET /a  HTTP/1.1"),
    "tabs": head(line=b"GET\t/a\tHTTP/1.1"),
    "space behind": head(line=b"GET /a HTTP/1.1 "),
    "space before": b" " + head(line=b"GET /a HTTP/1.1"),
    "space in the target": head(line=b"GET /a b HTTP/1.1"),
    "byte beyond ASCII in the target": head(line=b"GET /\xc3\xa9 HTTP/1.1"),
    "control character in the target": head(line=b"GET /a\x0b HTTP/1.1"),
    "CR in the target": head(line=b"GET /a\rb HTTP/1.1"),
    "no target": head(line=b"GET  HTTP/1.1"),
    "relative target": head(line=b"GET a HTTP/1.1"),
    "target of an authority": head(line=b"GET x:5000 HTTP/1.1"),
    "asterisk": head(line=b"GET * HTTP/1.1"),
    "target of another scheme": head(line=b"GET ftp://x/a HTTP/1.1"),
    "unknown method": head(line=b"BREW /a HTTP/1.1"),
    "method in lower case": head(line=b"get /a HTTP/1.1"),
    "bytes of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "lines end with LF": b"GET /a HTTP/1.1\nHost: x\n\n",
    # -- fields
    "a field ends with LF": head(b"A: b\nTransfer-Encoding: chunked"),
    "a field ends with CR": head(b"A: b\rContent-Length: 5"),
    "an empty field ends with CR": head(b"A:\rTransfer-Encoding: chunked"),
    "an empty field ends with LF": head(b"A:\nTransfer-Encoding: chunked"),
    "the last line ends with LF": b"PUT /a HTTP/1.1\r\nHost: x\r\nA: b\n\r\n\r\n",
    "CR before CRLF": head(b"A: b\r"),
    "the blank line is CR": b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\rabc\r\n\r\n",
    "folded": head(b"A: b", b" c"),
    "folded by a tab": head(b"A: b", b"\tc"),
    "folded length": head(b"A: b", b" Content-Length: 3"),
    "folded name": head(b"A", b" : b"),
    "folded coding": head(b"Transfer-Encoding: chunked", b"  abc"),
    "folded first field": b"GET /a HTTP/1.1\r\n Host: x\r\n\r\n",
    "space before the colon": head(b"Content-Length : 3"),
    "tab before the colon": head(b"Transfer-Encoding\t: chunked"),
    "space in a name": head(b"Content Length: 3"),
    "CR in a name": head(b"Content\rLength: 3"),
    "no name": head(b": b"),
    "no colon": head(b"Content-Length"),
    "at in a name": head(b"F@: b"),
    "slash in a name": head(b"A/B: c"),
    "quote in a name": head(b'"A": b'),
    "byte beyond ASCII in a name": head(b"Transf\xe9r: b"),
    "NUL in a name": head(b"A\0: b"),
    "NUL in a value": head(b"A: b\0c"),
    "BEL in a value": head(b"A: b\x07c"),
    "DEL in a value": head(b"A: b\x7fc"),
    # -- Host
    "no Host": head(host=b"A: b"),
    "two Hosts": head(b"Host: y"),
    "the same Host twice": head(b"host: x"),
    # -- lengths
    "two lengths": head(b"Content-Length: 1", b"Content-Length: 2"),
    "the same length twice": head(b"Content-Length: 1", b"Content-Length: 1"),
    "lengths in one field": head(b"Content-Length: 1, 1"),
    "negative": head(b"Content-Length: -1"),
    "plus": head(b"Content-Length: +1"),
    "hexadecimal": head(b"Content-Length: 0x3"),
    "a fraction": head(b"Content-Length: 3.0"),
    "an exponent": head(b"Content-Length: 1e1"),
    "underscore": head(b"Content-Length: 1_0"),
    "space within": head(b"Content-Length: 1 3"),
    "digits of another script": head(b"Content-Length: \xd9\xa3"),
    "no length at all": head(b"Content-Length:"),
    "beyond 64 bits": head(b"Content-Length: 99999999999999999999999"),
    # -- codings
    "length and chunks": head(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    "chunks and length": head(b"Transfer-Encoding: chunked", b"Content-Length: 3"),
    "identity": head(b"Transfer-Encoding: identity"),
    "identity and length": head(b"Content-Length: 3", b"Transfer-Encoding: identity"),
    "an unknown coding": head(b"Transfer-Encoding: pigeons"),
    "almost chunked": head(b"Transfer-Encoding: xchunked"),
    "more than chunked": head(b"Transfer-Encoding: chunkedchunked"),
    "chunked with a control character": head(b"Transfer-Encoding: \x0bchunked"),
    "chunked in quotes": head(b'Transfer-Encoding: "chunked"'),
    "chunked with a parameter": head(b"Transfer-Encoding: chunked;a=b"),
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked"),
    "chunked in two fields": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked, then another": head(b"Transfer-Encoding: chunked, gzip"),
    "another, then chunked": head(b"Transfer-Encoding: gzip, chunked"),
    "another in a field before": head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    "chunked and an empty element": head(b"Transfer-Encoding: chunked,"),
    "an empty coding": head(b"Transfer-Encoding:"),
    "chunked in HTTP/1.0": head(b"Transfer-Encoding: chunked", line=b"PUT /a HTTP/1.0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    found = understood(REFUSED[name] + b"0\r\n\r\n" + BEHIND)
    assert found.requests == []
    assert found.refused in (400, 501)


CHUNKED = head(b"Transfer-Encoding: chunked")
BAD_CHUNKS = {
    "no size": b"\r\nabc\r\n",
    "a size that is none": b"xyz\r\nabc\r\n",
    "hexadecimal prefix": b"0x3\r\nabc\r\n",
    "plus": b"+3\r\nabc\r\n",
    "negative": b"-1\r\n",
    "underscore": b"1_0\r\n" + b"a" * 16 + b"\r\n",
    "space before": b" 3\r\nabc\r\n",
    "space behind": b"3 \r\nabc\r\n",
    "tab behind": b"3\t\r\nabc\r\n",
    "extension without semicolon": b"3 abc\r\nabc\r\n",
    "size ends with LF": b"3\nabc\r\n",
    "size ends with CR": b"3\rabc\r\n",
    "size ends with two CR": b"3\r\r\nabc\r\n",
    "LF in an extension": b"3;a\nb\r\nabc\r\n",
    "CR in an extension": b"3;a\rb\r\nabc\r\n",
    "an open quote": b'3;a="b; c\r\nabc\r\n',
    "NUL in an extension": b"3;a\0\r\nabc\r\n",
    "a chunk that is longer": b"3\r\nabcd\r\n",
    "a chunk that is shorter": b"4\r\nabc\r\n",
    "a chunk ends with LF": b"3\r\nabc\n",
    "a chunk ends with CR": b"3\r\nabc\r",
    "a chunk ends with two letters": b"3\r\nabcXX",
    "beyond 64 bits": b"10000000000000000\r\nabc\r\n",
    "no last chunk": b"3\r\nabc\r\n\r\n",
    "the last chunk ends with LF": b"0\n\n",
    "a trailer ends with LF": b"0\r\nA: b\n\r\n",
    "a trailer without colon": b"0\r\nabc\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "a length among the trailers": b"0\r\nContent-Length: 3\r\n\r\n",
    "a coding among the trailers": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_chunks_that_are_refused(name: str) -> None:
    found = understood(CHUNKED + b"1\r\nx\r\n" + BAD_CHUNKS[name] + b"0\r\n\r\n" + BEHIND)
    assert len(found.requests) == 1
    method, path, body = found.requests[0]
    assert (method, path) == ("PUT", "/a") and isinstance(body, str), "the body counts as whole"


TAKEN: dict[str, tuple[bytes, list[tuple[str, str, bytes]]]] = {
    "empty lines before": (b"\r\n\r\n" + head(), [("PUT", "/a", b"")]),
    "empty values": (head(b"A:", b"B: ", b"C: \t"), [("PUT", "/a", b"")]),
    "tabs in values": (head(b"A:\tb\tc\t"), [("PUT", "/a", b"")]),
    "obs-text": (head(b"A: \xe9\xff"), [("PUT", "/a", b"")]),
    "zeros before": (head(b"Content-Length: 003") + b"abc", [("PUT", "/a", b"abc")]),
    "spaces round a length": (head(b"Content-Length: \t 3 \t") + b"abc", [("PUT", "/a", b"abc")]),
    "names in any case": (head(b"cONTENT-lENGTH: 3") + b"abc", [("PUT", "/a", b"abc")]),
    "chunked in any case": (head(b"transfer-encoding: CHUNKED") + b"3\r\nabc\r\n0\r\n\r\n", [("PUT", "/a", b"abc")]),
    "sizes in any case": (
        CHUNKED + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        [("PUT", "/a", b"0123456789" * 2)],
    ),
    "zeros before a size": (CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", [("PUT", "/a", b"abc")]),
    "extensions": (CHUNKED + b'3;a;b=c;d="e \\" f"\r\nabc\r\n0;g\r\n\r\n', [("PUT", "/a", b"abc")]),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nVary: *\r\nA: b\r\n\r\n", [("PUT", "/a", b"abc")]),
    "absolute target": (head(line=b"GET http://x:1/a?b HTTP/1.1"), [("GET", "/a", b"")]),
    "absolute target without path": (head(line=b"GET HTTP://x HTTP/1.1"), [("GET", "/", b"")]),
    "absolute target of a query": (head(line=b"GET http://x?/a HTTP/1.1"), [("GET", "/", b"")]),
    "asterisk": (head(line=b"OPTIONS * HTTP/1.1"), [("OPTIONS", "*", b"")]),
    "no Host in HTTP/1.0": (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [("GET", "/a", b"")]),
    "an upgrade that is declined": (
        head(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3") + b"abc",
        [("PUT", "/a", b"abc")],
    ),
    "an upgrade with chunks": (
        head(b"Connection: upgrade", b"Upgrade: x", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        [("PUT", "/a", b"abc")],
    ),
    "a body that looks like an end": (
        CHUNKED + b"9\r\n0\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
        [("PUT", "/a", b"0\r\n\r\n\r\n\r\n")],
    ),
    "a body that looks like a request": (
        head(b"Content-Length: %d" % len(BEHIND)) + BEHIND,
        [("PUT", "/a", BEHIND)],
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str) -> None:
    stream, meaning = TAKEN[name]
    stream += head(line=b"GET /next HTTP/1.1")
    found = [understood(stream[:at], stream[at:]) for at in range(len(stream))]
    assert {one.refused for one in found} == {None}
    assert all(one.requests == [*meaning, ("GET", "/next", b"")] for one in found)


@pytest.mark.parametrize("size", [SMALL_BODY_BYTES, SMALL_BODY_BYTES + 1, BATCH_BYTES, 3 * BATCH_BYTES + 1])
@pytest.mark.parametrize("read", [10_000, 1 << 30])
def test_a_large_body_ends_where_its_length_says(size: int, read: int) -> None:
    body = os.urandom(size)
    stream = head(b"Content-Length: %d" % size) + body + head(line=b"GET /next HTTP/1.1")
    found = understood(*(stream[at : at + read] for at in range(0, len(stream), read)))
    assert found.refused is None
    assert found.requests == [("PUT", "/a", body), ("GET", "/next", b"")]


@pytest.mark.parametrize(
    "last",
    [
        head(b"Connection: close"),
        head(b"Connection: a, CLOSE"),
        head(line=b"PUT /a HTTP/1.0"),
        head(line=b"CONNECT x:5000 HTTP/1.1"),
    ],
    ids=["close", "close in a list", "HTTP/1.0", "CONNECT"],
)
def test_what_follows_the_last_request_is_no_request(last: bytes) -> None:
    assert len(understood(last + BEHIND).requests) == 1


def test_a_length_without_its_body_takes_what_follows() -> None:
    found = understood(head(b"Content-Length: 123") + head(b"Content-Length: 456"))
    assert found.requests == [("PUT", "/a", "SizeInvalid")]
