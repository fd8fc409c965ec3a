"""One request: its head, parsed once by llhttp, and what the handlers ask of it.

RFC 9112 says how a head is read. llhttp refuses bare CR and LF, folded lines, spaces before colons, control
characters, two lengths and a length beside chunks by itself; `Request` adds the rules where it is milder. Whatever
is refused ends the connection, so that nothing behind it can be taken for another request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from zotctl.storage.cache import Lru

if TYPE_CHECKING:
    from zotctl.http.answer import Answer
    from zotctl.http.body import Body
    from zotctl.http.protocol import Connection

HEAD_BYTES = 65536
LINE_BYTES = 8190
"""The maximum of a request line or field, without its line end."""
FIELD_COUNT = 128

KEPT_HEAD_BYTES = 1024
"""The maximum of a head that is kept parsed."""
HEAD_OVERHEAD_BYTES, FIELD_OVERHEAD_BYTES = 1000, 150
"""That it takes beside its own bytes, and that each of its fields takes."""
KEPT_HEADS_BYTES = 1 << 20
"""Of all that are kept."""
_SECRETS = frozenset({"authorization", "proxy-authorization", "cookie"})

# RFC 9112, sections 3 and 2.3: single spaces, a target of printable ASCII, and two versions.
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([\x21-\x7e]+) HTTP/1\.([01])\r\n").match
_ABSOLUTE = re.compile(r"https?://[^/?#]+(.*)", re.IGNORECASE).fullmatch
# RFC 9110, section 7.2: uri-host [ ":" port ], by RFC 3986, section 3.2.2; the zone of RFC 6874 too.
_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?").fullmatch
_LENGTH = re.compile(r"[0-9]+").fullmatch
_ONCE = frozenset({"host", "content-length", "transfer-encoding"})


class Malformed(Exception):
    """The bytes are no request that this server takes. `status` is that of the last answer on the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Head:
    """What a head says. Never changed: requests that came with the same bytes share it.

    `path` is raw, never decoded, since `%2F` must not become a separator; `raw_query` follows its "?". `headers` has
    names in lower case, and values as text; repeated fields are joined by ", " (RFC 9110, section 5.3), but for
    those that may stand only once. `length` is that of the body in bytes, None if it is chunked.
    """

    __slots__ = ("_repeated", "headers", "is_http10", "keep_alive", "length", "method", "path", "raw_query")

    def __init__(self, head: bytes) -> None:
        """`head` ends with its blank line, and has no other. Raises Malformed."""
        self.headers: dict[str, str] = {}
        self._repeated = ""
        if len(head) > LINE_BYTES:
            check_lines(head)
        if head.count(b"\r\n") > FIELD_COUNT + 2:
            raise Malformed(400, f"there are more than {FIELD_COUNT} header fields")
        line = _REQUEST_LINE(head)
        try:
            HttpRequestParser(self).feed_data(head)
        except HttpParserUpgrade:
            pass  # RFC 9110, section 7.8: a server MAY ignore it
        except HttpParserInvalidMethodError:
            # RFC 9110, section 9.1: "a request method that is unrecognized or not implemented SHOULD [be answered]
            # with the 501 (Not Implemented) status code"
            if line is not None:
                raise Malformed(501, f"the method {line[1].decode()} is not implemented") from None
            raise Malformed(400, "malformed request: its first line is none of HTTP/1.1") from None
        except HttpParserInvalidURLError:
            raise Malformed(400, "malformed request: the target is no path of a URL") from None
        except HttpParserError as error:
            raise Malformed(400, f"malformed request: {error}") from None
        if line is None:
            raise Malformed(400, "malformed request: its first line is none of HTTP/1.0 or HTTP/1.1")
        self.method = line[1].decode()
        self.is_http10 = line[3] == b"0"
        self.path, _, self.raw_query = self._origin_form(line[2].decode()).partition("?")
        self._check_host()
        self.length = self._body_length()
        persistence = self.headers.get("connection", "").lower()
        tokens = {token.strip() for token in persistence.split(",")} if persistence else ()
        # CONNECT would make a tunnel of what follows.
        self.keep_alive = ("keep-alive" in tokens if self.is_http10 else "close" not in tokens) and (
            self.method != "CONNECT"
        )

    def on_header(self, name: bytes, value: bytes) -> None:
        """For the parser."""
        key = name.decode("ascii").lower()
        text = value.rstrip(b" \t").decode("utf-8", "surrogateescape")
        if key in self.headers:
            if key in _ONCE:
                self._repeated = key
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text

    def _origin_form(self, target: str) -> str:
        if target[0] == "/":
            return target
        if self.method == "CONNECT" or (target == "*" and self.method == "OPTIONS"):
            return target  # no endpoint
        # RFC 9112, section 3.2.2: "a server MUST accept the absolute-form in requests"
        absolute = _ABSOLUTE(target)
        if absolute is None:
            raise Malformed(400, f"malformed request: the target {target[:100]!r} is no path and no URL")
        return absolute[1] if absolute[1].startswith("/") else f"/{absolute[1]}"

    def _check_host(self) -> None:
        # RFC 9112, section 3.2: "A server MUST respond with a 400 [...] to any HTTP/1.1 request message that lacks a
        # Host header field and to any request message that contains more than one Host header field line or a Host
        # header field with an invalid field value"
        if self._repeated:
            raise Malformed(400, f"malformed request: more than one {self._repeated}")
        if not self.is_http10 and "host" not in self.headers:
            raise Malformed(400, "malformed request: a Host header field is missing")
        if not _HOST(self.headers.get("host", "")):
            raise Malformed(400, "malformed request: the Host header field is no host with or without a port")

    def _body_length(self) -> int | None:
        """Section 6.3. What a proxy before us may have read in another way is refused (section 11.2)."""
        coding = self.headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked" or self.is_http10 or "content-length" in self.headers:
                raise Malformed(400, "malformed request: Transfer-Encoding is not chunked alone")
            return None
        length = self.headers.get("content-length")
        if length is None:
            return 0
        if not _LENGTH(length):
            raise Malformed(400, "malformed request: Content-Length is not a number of bytes")
        # Leading zeros are digits too: `int` refuses thousands of them.
        return int(length.lstrip("0") or "0")


_known = Lru[bytes, Head](KEPT_HEADS_BYTES)


def _parsed(head: bytes) -> tuple[Head, bool]:
    """What a head says, and whether it was kept: clients ask for the same again and again, and the nodes of a cluster
    in the same words. No secret is kept."""
    kept = _known.get(head)
    if kept is not None:
        return kept, True
    parsed = Head(head)
    reads = parsed.method in ("GET", "HEAD") and parsed.length == 0
    if reads and len(head) <= KEPT_HEAD_BYTES and _SECRETS.isdisjoint(parsed.headers):
        _known.put(head, parsed, len(head) + HEAD_OVERHEAD_BYTES + len(parsed.headers) * FIELD_OVERHEAD_BYTES)
    return parsed, False


class Request:
    """One request, with what its head says (`said`). For the event loop, but for reading its attributes.

    `is_repeated`: the same head came a while ago, and no secret was in it.
    `identity` is who sent it, as far as that was proven: the gate sets it. `admitted`: the limits of rates counted it.
    The router sets `route`, `name` and `reference`, as text that is not checked yet. `begun`: an answer of which a part
    was sent, to what came at the time `began`.
    """

    __slots__ = (
        "_query",
        "admitted",
        "began",
        "begun",
        "body",
        "connection",
        "headers",
        "identity",
        "is_http10",
        "is_repeated",
        "keep_alive",
        "length",
        "method",
        "name",
        "number",
        "path",
        "raw_query",
        "reference",
        "route",
        "said",
    )

    body: Body

    def __init__(self, head: bytes, connection: Connection) -> None:
        """`head` ends with its blank line, and has no other. Raises Malformed."""
        self.said, self.is_repeated = _parsed(head)
        said = self.said
        self.method, self.path, self.raw_query = said.method, said.path, said.raw_query
        self.headers, self.length = said.headers, said.length
        self.is_http10, self.keep_alive = said.is_http10, said.keep_alive
        self.connection = connection
        self._query: dict[str, list[str]] | None = None
        self.name = self.reference = self.route = ""
        self.identity = connection.service.gate.anonymous
        self.number = 0
        self.admitted = False
        self.begun: Answer | None = None
        self.began = 0.0

    # -- who asks --------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """What the log calls it; unique among the workers of a server."""
        return f"{self.connection.service.id_prefix}-{self.number:x}"

    @property
    def client(self) -> str:
        """The address of the client, behind trusted proxies; "" if there is none."""
        return self.connection.service.gate.client(self)

    @property
    def certificate(self) -> Mapping[str, Any] | None:
        """The verified certificate of the client, as `getpeercert` returns it; None or empty without one."""
        return self.connection.tls.getpeercert() if self.connection.tls is not None else None

    # -- what is asked ---------------------------------------------------------------------------

    def param(self, name: str) -> str | None:
        """The first value of a query parameter; None if it is absent or empty."""
        return next(iter(self.params(name)), None)

    def params(self, name: str) -> list[str]:
        """All values of a query parameter that are not empty."""
        if not self.raw_query:
            return []
        if self._query is None:
            self._query = parse_qs(self.raw_query)
        return self._query.get(name, [])

    def decoded_reference(self) -> str:
        """The last segment of the path: some clients encode the colon of a digest."""
        return unquote(self.reference) if "%" in self.reference else self.reference

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client asked for a 100 before its body, and got none yet."""
        return self.body.expects and not self.body.started


def check_lines(lines: bytes, *, first: bool = True) -> None:
    """Raise Malformed for a line that is too long; the last may be incomplete. `first`: the request line is among
    them."""
    for number, line in enumerate(lines.split(b"\r\n")):
        if len(line) > LINE_BYTES and first and number == 0 and b" " in line[:65]:
            raise Malformed(414, f"the target is longer than {LINE_BYTES} bytes")
        if len(line) > LINE_BYTES:
            raise Malformed(431, f"a header field is longer than {LINE_BYTES} bytes")


_NEVER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?=[^\n])").search
_EMPTY_LINES = re.compile(rb"(?:\r\n)*").match


def check_beginning(lines: bytes, *, before: int = 0) -> None:
    """Raise Malformed if these lines, among which is no blank one yet, can't be of a head: nothing is waited for.

    `before`: bytes of the lines that were found good before.
    """
    if _NEVER(lines):
        raise Malformed(400, "malformed request: a character that no header may have")
    if len(lines) > LINE_BYTES:
        check_lines(lines, first=before == 0)
    if before + len(lines) > HEAD_BYTES:
        raise Malformed(431, f"the header is longer than {HEAD_BYTES} bytes")


def without_empty_lines(data: bytes) -> bytes:
    """What follows the empty lines at its beginning."""
    found = _EMPTY_LINES(data)
    return data[found.end() :] if found is not None else data
