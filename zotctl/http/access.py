"""What is told of each request: a line in the log, without its headers and query, which may contain secrets, and the
counters."""

from __future__ import annotations

import logging
from typing import Any

from zotctl.http.answer import Answer
from zotctl.http.counters import CounterRow
from zotctl.http.errors import printable
from zotctl.http.request import Request
from zotctl.logs import AUDIT, audit_change, tell

_log = logging.getLogger("zotctl.http")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class AccessLog:
    """Lines of level INFO with the fields that scripts rely on; writes go to the audit log too, if there is one.

    `row`: where each request is counted, whether or not it is logged; None: nowhere. `enabled`: either is done.
    """

    def __init__(self, log: logging.Logger, row: CounterRow | None) -> None:
        self._log, self._row = log, row
        audit = logging.getLogger(AUDIT)
        self._audit = audit if audit.handlers else None
        self._tells = log.isEnabledFor(logging.INFO)
        self._logs = self._audit is not None or self._tells
        self.enabled = self._logs or row is not None

    def write(self, request: Request, answer: Answer, seconds: float) -> None:
        """One line, one count. `seconds` is the time from the header's last byte to the answer's."""
        if self._row is not None:
            received = request.body.arrived
            self._row.count(request.method, request.route, answer.status, seconds, received, answer.bytes_out)
            if request.connection.service.gate.drops_claims(request):
                self._row.drop_claims()
        if not self._logs:
            return
        fields = _fields(request, answer, seconds)
        message = f"{request.method} {fields['path']} {answer.status}"
        if self._tells:
            tell(self._log, message, fields)
        if self._audit is not None and request.method not in _READS:
            self._audit.info("%s", message, extra={"fields": fields})


def tell_change(
    request: Request, action: str, *, tag: str | None = None, before: str, after: str | None = None
) -> None:
    """One line of its own in the log and the audit file: a client moved or removed a tag, or deleted content. Called
    in the thread that did it, as soon as it is done: the client may be gone by then. See `logs.audit_change`."""
    audit_change(
        _log,
        action,
        printable(request.name),
        tag=tag,
        before=before,
        after=after,
        reason=f"request: {request.method} {printable(request.path)}",
        user=printable(request.identity.user.name) or None,
        client=request.client,
        request_id=request.id,
    )


def _fields(request: Request, answer: Answer, seconds: float) -> dict[str, Any]:
    path, name, reference, user = request.path, request.name, request.reference, request.identity.user.name
    if not path.isascii():  # its parts are of the path
        path, name, reference = printable(path), printable(name), printable(reference)
    return {
        "request_id": request.id,
        "client": request.client,
        "user": printable(user) or None,
        "method": request.method,
        "path": path,
        "route": request.route or None,
        "repository": name or None,
        "reference": reference or None,
        "status": answer.status,
        "bytes_in": request.body.arrived,
        "bytes_out": answer.bytes_out,
        "duration_ms": round(seconds * 1000, 3),
        "user_agent": printable(request.headers.get("user-agent", "")) or None,
        "error_code": answer.error_code,
    }
