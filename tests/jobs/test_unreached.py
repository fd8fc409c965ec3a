"""Why a registry gave no answer: no numbers and no names of classes, and a way out where there is one."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.cli.running import zotctl
from zotctl.jobs.check.unreached import why_unreached


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            httpx.ConnectError("[Errno 111] Connection refused"),
            "connection refused; nothing listens there; is the registry running, and is that its port?",
        ),
        (httpx.ConnectError("[Errno -2] Name or service not known"), "name or service not known"),
        (
            httpx.ConnectError(
                "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"
            ),
            "certificate verify failed: self-signed certificate; name the file of its authority in SSL_CERT_FILE",
        ),
        (
            httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"),
            "wrong version number; nothing there speaks TLS; with http:// it may answer",
        ),
        (httpx.ConnectTimeout("timed out"), "no answer in time; is it reachable from here?"),
        (httpx.ReadError(""), "ReadError"),
        (httpx.RemoteProtocolError("Server disconnected"), "Server disconnected"),
    ],
)
def test_an_error_is_words(error: httpx.HTTPError, said: str) -> None:
    assert why_unreached(error) == said


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = zotctl("verify", address)
    assert run.returncode == 14 and f"zotctl: {address}: connection refused; nothing listens there" in run.stderr
