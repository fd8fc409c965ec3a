"""The access log: one line per request, without its headers and query, which may contain secrets."""

from __future__ import annotations

import logging
from typing import Any

from zotctl.http.answer import Answer
from zotctl.http.errors import printable
from zotctl.http.request import Request
from zotctl.logs import AUDIT

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class AccessLog:
    """Lines of level INFO with the fields that scripts rely on; writes go to the audit log too, if there is one."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        audit = logging.getLogger(AUDIT)
        self._audit = audit if audit.handlers else None

    @property
    def enabled(self) -> bool:
        return self._audit is not None or self._log.isEnabledFor(logging.INFO)

    def write(self, request: Request, answer: Answer, seconds: float) -> None:
        """One line. `seconds` is the time from the header's last byte to the answer's."""
        fields = _fields(request, answer, seconds)
        message = f"{request.method} {fields['path']} {answer.status}"
        self._log.info("%s", message, extra={"fields": fields})
        if self._audit is not None and request.method not in _READS:
            self._audit.info("%s", message, extra={"fields": fields})


def _fields(request: Request, answer: Answer, seconds: float) -> dict[str, Any]:
    return {
        "request_id": request.id,
        "client": request.client,
        "user": None,
        "method": request.method,
        "path": printable(request.path),
        "route": request.route or None,
        "repository": printable(request.name) or None,
        "reference": printable(request.reference) or None,
        "status": answer.status,
        "bytes_in": request.payload.total_bytes,
        "bytes_out": answer.bytes_out,
        "duration_ms": round(seconds * 1000, 3),
        "user_agent": printable(request.headers.get("User-Agent", "")) or None,
        "error_code": answer.error_code,
    }
