"""Sends requests to a bucket: each is signed here, sent once by urllib3, and its answer returned.

botocore, which finds address, credentials and certificates, would take three times as much CPU time for each request.
"""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout
from urllib3.connection import HTTPConnection
from urllib3.util import make_headers, parse_url

from zotctl import __version__
from zotctl.storage.bucket.objects.replies import LARGEST_XML_BYTES, error_of
from zotctl.storage.bucket.objects.seam import MD5, SHA256
from zotctl.storage.bucket.objects.signing import Credentials, query_of, signed_headers
from zotctl.storage.driver import Buffer

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 60.0
"""Seconds without a byte after which a request fails."""
SILENT_WORK_TIMEOUT_S = 900.0
"""The read timeout where a server may work in silence: for a copy, or making one object of 10,000 parts."""
ONCE = Retry(False)
"""urllib3's own repetitions are off: they would report 412 for a conditional write of ours that was done (`retry`)."""
KEEP_ALIVE = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
AGENT = {"user-agent": f"zotctl/{__version__}"}
NOTHING: Mapping[str, str] = {}


class Cut(Exception):
    """We ended the connection in the middle of a request, on purpose."""


class Sent(NamedTuple):
    """The body of a request, and the headers that prove it (I2).

    Some stores keep what has arrived when a connection ends in the middle of a PUT. Told a checksum, they keep nothing
    but the whole. A part needs none: the request that completes its upload names the ETag of each part as the store
    answered it, and half of a part has another.
    """

    body: Buffer
    headers: Mapping[str, str] = NOTHING


def with_checksum(body: Buffer, checksum: str, sha256: str = "") -> Sent:
    """A body with its checksum. `checksum`: as in `Objects.adapt`; `sha256` (hex) of the body, if the caller knows
    it."""
    if checksum == SHA256:
        digest = bytes.fromhex(sha256) if sha256 else hashlib.sha256(body).digest()
        return Sent(body, {"x-amz-checksum-sha256": base64.b64encode(digest).decode()})
    return Sent(body, content_md5(body)) if checksum == MD5 else Sent(body)


def content_md5(body: Buffer) -> dict[str, str]:
    """The header by which a store refuses other bytes. Some stores require it for DeleteObjects."""
    return {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}


class Reply(NamedTuple):
    """An answer. `body` is empty if the caller reads `response` itself."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    response: BaseHTTPResponse


class Wire:
    """The connections to a bucket at one address. Shared by threads. Its calls raise what urllib3 raises, and
    `ErrorReply` for an answer that is an error."""

    def __init__(
        self,
        url: str,
        region: str,
        identity: Callable[[], Credentials],
        answered: Callable[[Mapping[str, str]], None],
        now: Callable[[], float],
        *,
        trusted: str | None,
        proxy: str | None,
        connections: int,
    ) -> None:
        """`url` of the bucket, without a "/" at its end. `answered` is told the headers of each answer. `now`: the
        time that requests are signed with, in seconds since 1970. `trusted`: a
        file of certificates, None for no check. `proxy`: its URL. `connections` are kept for the next requests."""
        self.url, self.region, parts = url, region, urlsplit(url)
        self._host, self._path = parts.netloc, parts.path
        # A proxy that isn't a tunnel is told the whole URL.
        self._origin = f"{parts.scheme}://{parts.netloc}" if proxy and parts.scheme == "http" else ""
        self._identity, self._answered, self._now = identity, answered, now
        self._timeout = Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        self._silent = Timeout(connect=CONNECT_TIMEOUT_S, read=SILENT_WORK_TIMEOUT_S)
        self._manager = _manager(proxy, trusted, maxsize=connections)
        self._pool = self._manager.connection_from_url(url)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NOTHING,
        headers: Mapping[str, str] = NOTHING,
        sent: Sent = Sent(b""),  # noqa: B008 - it is constant
        stream: bool = False,
        silent: bool = False,
        cut: bool = False,
    ) -> Reply:
        """One request, signed now. `path`: the quoted key, "" for the bucket itself. With `stream`, the caller reads
        the body of what is no error. `silent`: the server may work for minutes before its first byte. `cut`: hang up
        in the middle of the body, which raises Cut. Status 304 is no error."""
        where, asked = f"{self._path}/{path}" if path else self._path or "/", query_of(query)
        said = {**AGENT, **headers, **sent.headers}
        signed = signed_headers(method, self._host, where, asked, said, self._identity(), self.region, self._now())
        if cut:
            signed["content-length"] = str(len(sent.body))
        body = _half(sent.body) if cut else sent.body
        target = f"{where}?{asked}" if asked else where
        answer = self.send(method, target, signed, body, stream=stream, silent=silent)
        if answer.status >= 300 and answer.status != 304:
            raise error_of(answer.status, answer.headers, answer.body)
        return answer

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: Buffer | Iterator[bytes], *,
        stream: bool = False, silent: bool = False,
    ) -> Reply:  # fmt: skip
        """Send a request that is signed already, and return any answer. `target`: path and query."""
        response = self._pool.urlopen(
            method,
            f"{self._origin}{target}",
            body=cast(bytes, body) if body or method in ("PUT", "POST") else None,
            headers={"host": self._host, **headers},
            retries=ONCE,
            redirect=False,
            timeout=self._silent if silent else self._timeout,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        self._answered(response.headers)
        whole = b"" if stream and response.status < 300 else _bounded(response)
        return Reply(response.status, response.headers, whole, response)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._manager.clear()


def _bounded(response: BaseHTTPResponse) -> bytes:
    """Read a short body, XML or a message, to its end, so that its connection serves the next request."""
    body = response.read(LARGEST_XML_BYTES + 1)
    if len(body) > LARGEST_XML_BYTES:
        response.close()
        raise HTTPException(f"an answer of more than {LARGEST_XML_BYTES} bytes")
    return body


def _half(body: Buffer) -> Iterator[bytes]:
    yield bytes(body[: len(body) // 2])
    raise Cut


def _manager(proxy: str | None, trusted: str | None, **options: Any) -> PoolManager:
    options |= {"socket_options": KEEP_ALIVE, "cert_reqs": "CERT_REQUIRED" if trusted else "CERT_NONE"}
    if trusted:
        options["ca_certs"] = trusted
    if proxy is None:
        return PoolManager(**options)
    login = parse_url(proxy).auth
    # What is quoted is bytes, which make_headers takes for this encoding.
    known = make_headers(proxy_basic_auth=unquote(login, "latin-1")) if login else None
    return ProxyManager(proxy, proxy_headers=known, **options)
