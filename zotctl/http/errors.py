"""The one place where errors become responses: distribution-spec, section "Error Codes"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from zotctl.errors import (
    Busy,
    Damaged,
    NoSpace,
    NotYetReadable,
    PermissionRefused,
    ReadOnlyStorage,
    RequestRefused,
    StorageError,
    ZotctlError,
)
from zotctl.http.answer import JSON, Answer

RETRY_AFTER_S = "1"
"""After which a client may ask again."""
FOR_GOOD = (ReadOnlyStorage, PermissionRefused, RequestRefused)
"""For a storage that stays broken until its operator acts."""

_TOLD: tuple[tuple[type[StorageError], str], ...] = (
    (NoSpace, "the registry's storage is full"),
    (ReadOnlyStorage, "the registry's storage takes no writes"),
    (PermissionRefused, "the registry may not use its storage"),
    (RequestRefused, "the registry's storage does not take this, now or later"),
    (Damaged, "it is damaged on the server; push it again to heal it"),
    (NotYetReadable, "something else on the server is using it just now; try again"),
    (Busy, "the repository is busy; try again"),
    (StorageError, "the registry's storage is not available; try again later"),
)
"""What a client is told of a failure of the storage, the most special first: its own words name paths and
devices of the server, and are for the log, which has them under the same request."""


class Refused(Exception):
    """An error with details that only HTTP has: more headers, or another status."""

    def __init__(self, error: ZotctlError, headers: Iterable[tuple[str, str]] = (), status: int | None = None) -> None:
        super().__init__(error.message)
        self.error, self.headers, self.status = error, headers, status


def render(error: ZotctlError | Refused) -> Answer:
    """The response for an error."""
    if isinstance(error, Refused):
        return _render(error.error, list(error.headers), error.status or error.error.status)
    return _render(error, [], error.status, again=not isinstance(error, FOR_GOOD))


def render_bug(request_id: str) -> Answer:
    """The response for a bug. The log has the details, under the same id."""
    return _document(500, "UNKNOWN", "an internal error, which the log describes", {"request_id": request_id}, [])


def malformed(status: int, message: str) -> Answer:
    """The response for bytes that are not HTTP. The connection cannot be used any more."""
    answer = _document(status, "UNSUPPORTED", message, None, [])
    answer.close = True
    return answer


def _render(error: ZotctlError, headers: list[tuple[str, str]], status: int, *, again: bool = True) -> Answer:
    # "A 429 Too Many Requests response SHOULD include a Retry-After header"
    if again and status in (429, 503) and not any(name == "Retry-After" for name, _ in headers):
        headers.append(("Retry-After", RETRY_AFTER_S))
    # RFC 9110, 15.5.6: a 405 MUST say what is allowed. Resources that are in use or read-only can still be read.
    if status == 405 and not any(name == "Allow" for name, _ in headers):
        headers.append(("Allow", "GET, HEAD"))
    if isinstance(error, StorageError):
        return _document(status, error.code, _told(error), None, headers)
    return _document(status, error.code, error.message, error.detail, headers)


def _told(error: StorageError) -> str:
    return next(text for kind, text in _TOLD if isinstance(error, kind))


def _document(status: int, code: str, message: str, detail: Any, headers: list[tuple[str, str]]) -> Answer:
    error: dict[str, Any] = {"code": code, "message": encodable(message)}
    if detail is not None:
        error["detail"] = detail
    answer = Answer(status, headers, _encode(error), content_type=JSON)
    answer.error_code = code
    return answer


def _encode(error: dict[str, Any]) -> bytes:
    try:
        # Digests and names in a detail are classes of ours: the wire has their text.
        return msgspec.json.encode({"errors": [error]}, enc_hook=str)
    except (UnicodeEncodeError, TypeError, msgspec.MsgspecError):
        error["detail"] = encodable(str(error["detail"]))
        return msgspec.json.encode({"errors": [error]})


def encodable(text: str) -> str:
    """`text` without lone surrogates, which a request may smuggle in and no encoder takes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
