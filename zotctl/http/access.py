"""What is told of each request: a line in the log, without its headers and query, which may contain secrets, and the
counters."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from typing import Any

from zotctl.http.answer import Answer
from zotctl.http.counters import CounterRow
from zotctl.http.errors import encodable
from zotctl.http.request import Request
from zotctl.logs import AUDIT, LogStream, audit_change, direct_log, json_line, time_text
from zotctl.storage.cache import Lru

_log = logging.getLogger("zotctl.http")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_COMPONENT = "http"

WAIT_S = 0.005
"""For which a line waits for others, to be written with them."""
WAITING_LINES = 64
"""The maximum."""
TEMPLATES_BYTES = 1 << 20
"""Of all that are kept."""
TEMPLATE_OVERHEAD_BYTES = 1000
"""That each takes beside its text."""
_GAP = secrets.token_hex(16)
"""In a template, where something differs from request to request. No client knows it."""


class AccessLog:
    """Lines of level INFO with the fields that scripts rely on; writes go to the audit log too, if there is one.

    `row`: where each request is counted, whether or not it is logged; None: nowhere. `enabled`: either is done. For the
    event loop. A line is made and written `WAIT_S` later at most, with those that came meanwhile; earlier when
    anything else is logged, or the process ends.
    """

    def __init__(self, log: logging.Logger, row: CounterRow | None) -> None:
        self._log, self._row = log, row
        audit = logging.getLogger(AUDIT)
        self._audit = audit if audit.handlers else None
        self._tells = log.isEnabledFor(logging.INFO)
        self._logs = self._audit is not None or self._tells
        self.enabled = self._logs or row is not None
        self._waiting = _Waiting()
        self._loop, self._writes_soon = asyncio.get_running_loop(), False

    def write(self, request: Request, answer: Answer, seconds: float) -> None:
        """One line, one count. `seconds` is the time from the header's last byte to the answer's."""
        if self._row is not None:
            received = request.body.arrived
            self._row.count(request.method, request.route, answer.status, seconds, received, answer.bytes_out)
            if request.connection.service.gate.drops_claims(request):
                self._row.drop_claims()
        if not self._logs:
            return
        direct = direct_log(self._log) if self._tells else None
        audit = self._audit if request.method not in _READS else None
        if direct is not None:
            self._wait(direct, request, answer, seconds)
        if audit is None and (direct is not None or not self._tells):
            return
        fields = _fields(request, answer.status, answer.error_code, answer.bytes_out, seconds)
        message = _message(request, answer.status)
        if direct is None and self._tells:
            self._log.info("%s", message, extra={"fields": fields})
        if audit is not None:
            audit.info("%s", message, extra={"fields": fields})

    def _wait(self, log: LogStream, request: Request, answer: Answer, seconds: float) -> None:
        lines = self._waiting.lines
        lines.append((time.time(), request, answer.status, answer.error_code, answer.bytes_out, seconds))
        if not self._writes_soon:
            self._writes_soon = True
            log.take_waiting = self._waiting.take
            self._loop.call_later(WAIT_S, self._write, log)
        elif len(lines) >= WAITING_LINES:
            log.write_waiting()

    def _write(self, log: LogStream) -> None:
        self._writes_soon = False
        log.write_waiting()


class _Waiting:
    """Lines that wait, of which only what they are made of is known: they are made together, at half the cost.

    `lines`: of each its moment in seconds since the epoch, and what `_fields` needs. What is said of a read is said
    again and again, so that it is made once, but for what differs.
    """

    def __init__(self) -> None:
        self.lines = deque[tuple[float, Request, int, str | None, int, float]]()
        self._templates = Lru[tuple[object, ...], list[str]](TEMPLATES_BYTES)

    def take(self) -> list[str]:
        """All lines, as JSON. In any thread, by one at a time."""
        taken = []
        for _ in range(len(self.lines)):
            moment, request, status, error_code, bytes_out, duration = self.lines.popleft()
            if request.method not in _READS:
                fields = _fields(request, status, error_code, bytes_out, duration)
                taken.append(_json(time_text(moment), request, fields))
                continue
            key = (
                request.method, request.path, request.route, request.client, request.identity.user.name,
                request.headers.get("user-agent"), status, error_code, request.body.arrived, bytes_out,
            )  # fmt: skip
            template = self._templates.get(key)
            if template is None:
                template = _template(request, _fields(request, status, error_code, bytes_out, duration))
                self._templates.put(key, template, TEMPLATE_OVERHEAD_BYTES + 2 * sum(map(len, template)))
            begin, id_prefix, middle, end = template
            now, number = time_text(moment), request.number
            taken.append(f'{begin}"{now}"{id_prefix}{number:x}{middle}{duration * 1000:.3f}{end}')
        return taken


def _template(request: Request, fields: dict[str, Any]) -> list[str]:
    """The pieces of its line; between them stand its time, its number and its milliseconds. They are cut from a whole
    line, so that what is said, and how, stands once."""
    own = {"request_id": request.id.removesuffix(f"{request.number:x}") + _GAP, "duration_ms": _GAP}
    text = _json(_GAP, request, fields | own)
    return text.replace(f'"{_GAP}"', _GAP).split(_GAP)


def _json(now: str, request: Request, fields: dict[str, Any]) -> str:
    return json_line(now, "info", _COMPONENT, _message(request, fields["status"]), fields) + "\n"


def tell_change(
    request: Request, action: str, *, tag: str | None = None, before: str, after: str | None = None
) -> None:
    """One line of its own in the log and the audit file: a client moved or removed a tag, or deleted content. Called
    in the thread that did it, as soon as it is done: the client may be gone by then. See `logs.audit_change`."""
    audit_change(
        _log,
        action,
        encodable(request.name),
        tag=tag,
        before=before,
        after=after,
        reason=f"request: {request.method} {encodable(request.path)}",
        user=encodable(request.identity.user.name) or None,
        client=request.client,
        request_id=request.id,
    )


def _message(request: Request, status: int) -> str:
    return f"{request.method} {encodable(request.path)} {status}"


def _fields(request: Request, status: int, error_code: str | None, bytes_out: int, duration: float) -> dict[str, Any]:
    path, name, reference, user = request.path, request.name, request.reference, request.identity.user.name
    if not path.isascii():  # its parts are of the path
        path, name, reference = encodable(path), encodable(name), encodable(reference)
    return {
        "request_id": request.id,
        "client": request.client,
        "user": encodable(user) or None,
        "method": request.method,
        "path": path,
        "route": request.route or None,
        "repository": name or None,
        "reference": reference or None,
        "status": status,
        "bytes_in": request.body.arrived,
        "bytes_out": bytes_out,
        "duration_ms": round(duration * 1000, 3),
        "user_agent": encodable(request.headers.get("user-agent", "")) or None,
        "error_code": error_code,
    }
