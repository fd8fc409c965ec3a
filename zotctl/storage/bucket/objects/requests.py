"""Requests to a bucket, one at a time: signed here, sent by urllib3, answered as they are.

What is asked often goes this way, for botocore takes three times as much of the processor for each request; it still
says where the bucket is, who we are and whom we trust.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from botocore.httpsession import get_cert_path  # type: ignore[import-untyped]
from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout
from urllib3.connection import HTTPConnection
from urllib3.util import make_headers, parse_url

from zotctl import __version__
from zotctl.storage.bucket.objects.checksums import NOTHING, Cut, Sent
from zotctl.storage.bucket.objects.listing import plain
from zotctl.storage.bucket.objects.signing import Identity, authorized, query_of
from zotctl.storage.driver import Buffer

ONCE = Retry(False)
"""urllib3's own repetitions are off: see `retrying`."""
ALIVE = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
AGENT = {"user-agent": f"zotctl/{__version__}"}
NO_QUERY: Mapping[str, str] = {}


class Reply(NamedTuple):
    """`body` is empty when `response` is still to be read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    response: BaseHTTPResponse


class Wire:
    """Shared by threads. Raises what urllib3 raises, and botocore's ClientError for an answer that is an error."""

    def __init__(
        self,
        url: str,
        identity: Callable[[], Identity],
        answered: Callable[[Mapping[str, str]], None],
        *,
        verify: bool | str,
        proxy: str | None,
        connections: int,
        timeout: Timeout,
    ) -> None:
        """`url` of the bucket, without a "/" at its end; `answered` is told the headers of each answer."""
        self.url, parts = url, urlsplit(url)
        self._host, self._path = parts.netloc, parts.path
        # A proxy that isn't a tunnel is told the whole URL.
        self._origin = f"{parts.scheme}://{parts.netloc}" if proxy and parts.scheme == "http" else ""
        self._identity, self._answered = identity, answered
        self._manager = _manager(proxy, verify, maxsize=connections, timeout=timeout)
        self._pool = self._manager.connection_from_url(url)

    def ask(
        self,
        method: str,
        key: str,
        operation: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        headers: Mapping[str, str] = NO_QUERY,
        sent: Sent = NOTHING,
        stream: bool = False,
        cut: bool = False,
    ) -> Reply:
        """`key` is quoted; "" is the bucket itself. `operation`: as S3 calls it. With `stream`, the caller reads the
        body of what is no error. Status 304 is none. `cut`: hang up in the middle of the body, which raises Cut."""
        path, asked = f"{self._path}/{key}" if key else self._path or "/", query_of(query)
        said = {**AGENT, **headers, **sent.headers}
        signed = authorized(method, self._host, path, asked, said, self._identity(), time.time())
        target = f"{path}?{asked}" if asked else path
        if cut:
            signed["content-length"] = str(len(sent.body))
        answer = self.send(method, target, signed, _half(sent.body) if cut else sent.body, stream=stream)
        if answer.status >= 300 and answer.status != 304:
            raise ClientError(_said(answer), operation)
        return answer

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: Buffer | Iterator[bytes], *,
        stream: bool = False,
    ) -> Reply:  # fmt: skip
        """One that is signed already; any answer. `target`: path and query."""
        response = self._pool.urlopen(
            method,
            f"{self._origin}{target}",
            body=cast(bytes, body) if body or method in ("PUT", "POST") else None,
            headers={"host": self._host, **headers},
            retries=ONCE,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        self._answered(response.headers)
        whole = b"" if stream and response.status < 300 else response.read()
        return Reply(response.status, response.headers, whole, response)

    def close(self) -> None:
        self._manager.clear()


def _half(body: Buffer) -> Iterator[bytes]:
    yield bytes(body[: len(body) // 2])
    raise Cut


def _manager(proxy: str | None, verify: bool | str, **options: Any) -> PoolManager:
    trust = {"cert_reqs": "CERT_REQUIRED", "ca_certs": get_cert_path(verify)} if verify else {"cert_reqs": "CERT_NONE"}
    options |= {"socket_options": ALIVE, **trust}
    if proxy is None:
        return PoolManager(**options)
    login = parse_url(proxy).auth
    # What is quoted is bytes, which make_headers takes for this encoding.
    known = make_headers(proxy_basic_auth=unquote(login, "latin-1")) if login else None
    return ProxyManager(proxy, proxy_headers=known, **options)


def _said(answer: Reply) -> dict[str, object]:
    """As botocore has it. A HEAD has no words but its status."""
    said = {"Code": str(answer.status), "Message": ""}
    try:
        for child in ElementTree.fromstring(answer.body) if answer.body else ():
            said[plain(child.tag)] = child.text or ""
    except (ElementTree.ParseError, LookupError, ValueError):  # the last two: of an unknown encoding
        said["Message"] = "an answer that is not S3's"
    return {"Error": said, "ResponseMetadata": {"HTTPStatusCode": answer.status, "HTTPHeaders": answer.headers}}
