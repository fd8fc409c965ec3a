"""Why a registry gave no answer, in words for an operator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

_code = re.compile(r"\[(?:Errno -?\d+|SSL: (\w+))\] *([^(]*)").match
"""`[Errno 111] Connection refused`, `[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: ... (_ssl.c:1006)`."""
_WAY_OUT = {
    "Connection refused": "nothing listens there; is the registry running, and is that its port?",
    "CERTIFICATE_VERIFY_FAILED": "name the file of its authority in SSL_CERT_FILE",
    "WRONG_VERSION_NUMBER": "nothing there speaks TLS; with http:// it may answer",
}
"""By the kind of an error of TLS, or else by what the system says."""


def why_unreached(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    """`connection refused; nothing listens there; ...`."""
    import httpx  # not with the jobs inside `serve`, which it costs 13 MiB

    if isinstance(error, httpx.TimeoutException):
        return "no answer in time; is it reachable from here?"
    found = _code(str(error))
    if found is None:
        return str(error) or type(error).__name__
    kind, said = found[1], found[2].strip()
    way_out = _WAY_OUT.get(kind or said)
    said = said[:1].lower() + said[1:]
    return f"{said}; {way_out}" if way_out else said
