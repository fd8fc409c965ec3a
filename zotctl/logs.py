"""Logging: one schema, as lines of JSON or as text for a terminal.

A caller passes `extra={"fields": {...}}` in snake case. The component is the second part of the logger's
name: "http" of `zotctl.http.supervisor`.
"""

from __future__ import annotations

import errno
import json
import logging
import mmap
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from select import PIPE_BUF
from typing import Any, TextIO

import msgspec

from zotctl.errors import ConfigError, about_file

AUDIT = "zotctl.audit"
"""The logger of writes; with a file it goes there only. `audit` and `audit_change` write to it."""
AUDIT_BACKLOG_LINES = 10_000
"""Lines that a process keeps in memory while the audit file can't be written; then the oldest are lost."""
_FULL = (errno.ENOSPC, errno.EDQUOT)

_warned: set[str] = set()
_direct: LogStream | None = None
"""The log, if its lines are JSON."""
_encode = msgspec.json.Encoder(enc_hook=str).encode


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _component(record: logging.LogRecord) -> str:
    return record.name.removeprefix("zotctl.").partition(".")[0]


def time_text(moment: float) -> str:
    """A moment, in seconds since the epoch, as lines have it: RFC 3339 in UTC, with microseconds."""
    second = int(moment)
    return f"{_to_the_second(second)}.{int((moment - second) * 1_000_000):06d}Z"


@lru_cache(maxsize=2)
def _to_the_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")


def json_line(time: str, level: str, component: str, message: str, fields: dict[str, Any]) -> str:
    """A line of JSON, without its end. `time` as `time_text` writes it."""
    line = {"time": time, "level": level, "message": message, "component": component, **fields}
    try:
        return _encode(line).decode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return json.dumps(line, default=str)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, message, component, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON: time, level, component, message, and the fields of the record."""
        fields = _fields(record)
        if record.exc_info:
            fields = {**fields, "traceback": self.formatException(record.exc_info)}
        moment, level = time_text(record.created), record.levelname.lower()
        return json_line(moment, level, _component(record), record.getMessage(), fields)


class TextFormatter(logging.Formatter):
    """A line for people. Of an exception it has the last line, a traceback is for the JSON format."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for a terminal: time, level, component, message, `field=value`."""
        fields = _fields(record)
        if record.exc_info and (error := record.exc_info[1]) is not None:
            fields = {**fields, "error": f"{type(error).__name__}: {error}"}
        words = [f"{name}={_word(value)}" for name, value in fields.items() if value is not None]
        message = _printable(record.getMessage())
        head = f"{time_text(record.created)[:19]}Z {record.levelname.lower()} {_component(record)}: {message}"
        return " ".join([head, *words])


def _word(value: object) -> str:
    text = _printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _printable(text: str) -> str:
    # What a client sends must not steer the terminal.
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class LogStream(logging.StreamHandler[TextIO]):
    """Writes a line at once. Lines of requests wait for one another, and several leave in one write; the order stays.

    A write has at most `PIPE_BUF` bytes, as long as no single line has more: so lines of processes that share a pipe
    stay whole (pipe(7)). Thread-safe.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.take_waiting: Callable[[], list[str]] = list
        """Lines that wait, with their ends: taken whenever something is written, in any thread, by one at a time."""

    def write_waiting(self) -> None:
        """Never raises: a log that can't be written stops no request."""
        with suppress(OSError, ValueError):
            self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Called under the handler's lock. Lines of requests that came before are written before it."""
        try:
            self.write_waiting()
        except Exception:
            self.handleError(record)
        super().emit(record)

    def flush(self) -> None:
        """Write what waits. Raises OSError."""
        self.acquire()
        try:
            for lines in _writes(self.take_waiting()):
                with suppress(OSError):  # which the last flush raises again, unless it can be written by then
                    self.stream.write(lines)
                    self.stream.flush()
            super().flush()
        finally:
            self.release()


def _writes(lines: list[str]) -> Iterator[str]:
    """Whole lines, as many together as one write may have."""
    start, room = 0, PIPE_BUF
    for place, line in enumerate(lines):
        size = len(line) if line.isascii() else len(line.encode("utf-8", "backslashreplace"))
        if size > room and place > start:
            yield "".join(lines[start:place])
            start, room = place, PIPE_BUF
        room -= size
    if lines:
        yield "".join(lines[start:])


class _LogFile(LogStream):
    """Appends to a file that may be moved away and opened anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(self._open())

    def _open(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8", errors="backslashreplace")

    def reopen(self) -> None:
        """Raises OSError; what is open then stays so."""
        old = self.setStream(self._open())
        if old is not None:
            old.close()


class _AuditState:
    """What all processes of a server share: made once, before the fork. One number each, written without a lock: of two
    processes that fail in the same nanosecond, one may not be counted."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def errors(self) -> int:
        """Failed writes."""
        return int(struct.unpack_from("<Q", self._memory, 0)[0])

    @property
    def reason(self) -> str | None:
        """Why the last write failed; None: it did not. All write the same file, so the last one tells."""
        number = int(struct.unpack_from("<Q", self._memory, 8)[0])
        return os.strerror(number) if number else None

    def wrote(self, number: int) -> None:
        """`number`: the errno of the failure, 0 for a success."""
        if number:
            struct.pack_into("<Q", self._memory, 0, self.errors + 1)
        struct.pack_into("<Q", self._memory, 8, number)


_audit_state = _AuditState()


class _AuditFile(logging.Handler):
    """Appends whole lines, each by one write, since several processes share the file.

    What can't be written now is an error, said once and counted; the line is kept, and written before the next one.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError, but not for a full disk: a collection, which frees it, needs this file, too."""
        super().__init__()
        self._path, self._fd = path, -1
        self._waiting = deque[bytes]()
        self._failing, self._lost = False, 0
        try:
            self._fd = self._open()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._failed(error)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def emit(self, record: logging.LogRecord) -> None:
        """Called under the handler's lock."""
        if len(self._waiting) >= AUDIT_BACKLOG_LINES:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        self._drain()

    def flush(self) -> None:
        """Try to write what could not be written before."""
        self.acquire()
        try:
            if self._failing:
                self._drain()
        finally:
            self.release()

    def _drain(self) -> None:
        try:
            if self._fd < 0:
                self._fd = self._open()
            while self._waiting:
                line = self._waiting[0]
                if os.write(self._fd, line) == len(line):
                    self._waiting.popleft()
                else:
                    # The disk became full in the middle of a line: once more, whole, behind the torn one.
                    self._waiting[0] = b"\n" + line.lstrip(b"\n")
        except OSError as error:
            self._failed(error)
            return
        if _audit_state.reason is not None:
            _audit_state.wrote(0)
        if self._failing:
            self._failing, lost = False, f"; {self._lost} lines are lost" if self._lost else ""
            logging.getLogger("zotctl.logs").warning("the audit file %s is written again%s", self._path, lost)
            self._lost = 0

    def _failed(self, error: OSError) -> None:
        _audit_state.wrote(error.errno or errno.EIO)
        if self._fd >= 0:
            os.close(self._fd)  # of a share that was away it may stay dead
            self._fd = -1
        if not self._failing:
            self._failing = True
            message = "the audit file %s can't be written: %s; its lines are kept in memory until it can"
            logging.getLogger("zotctl.logs").error(message, self._path, error.strerror)

    def reopen(self) -> None:
        """Raises OSError; what is open then stays so."""
        self.acquire()
        try:
            fresh, old = self._open(), self._fd
            self._fd = fresh
            if old >= 0:
                os.close(old)
        finally:
            self.release()
        self.flush()

    def close(self) -> None:
        """Once more what is waiting."""
        self.flush()
        if self._waiting:
            message = "%d lines of the audit file %s are lost"
            logging.getLogger("zotctl.logs").error(message, len(self._waiting) + self._lost, self._path)
            self._waiting.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def direct_log(log: logging.Logger) -> LogStream | None:
    """Where lines of `log` go, if they are JSON and nothing else listens: what is told of each request can go there
    without a record of logging, at a fraction of the cost. None: it goes the long way."""
    handler = _direct
    return handler if handler is not None and logging.root.handlers == [handler] and not log.handlers else None


def audit(log: logging.Logger, message: str, fields: dict[str, Any]) -> None:
    """One line of level INFO in a log, and in the audit file, if there is one. Never raises."""
    log.info("%s", message, extra={"fields": fields})
    if has_audit_file():
        logger = logging.getLogger(AUDIT)
        logger.info("%s", message, extra={"fields": fields})


def audit_change(
    log: logging.Logger,
    action: str,
    repository: str,
    *,
    reason: str,
    tag: str | None = None,
    before: str | None = None,
    after: str | None = None,
    user: str | None = None,
    client: str | None = None,
    **more: Any,
) -> None:
    """Tell that a tag was moved or removed, or content deleted: one line, with the same fields for every origin.

    `action`: move, untag, delete, trash or purge. `before` and `after` are digests; `repository` is "" for what no
    single repository has. `reason`: the client's request, the retention policy or the job.
    """
    where = f"{repository}:{tag}" if tag else f"{repository}@{before}" if repository else before
    fields = {
        "action": action, "user": user, "client": client, "repository": repository or None, "tag": tag,
        "digest_before": before and str(before), "digest_after": after and str(after), "reason": reason, **more,
    }  # fmt: skip
    audit(log, f"{action} {where}", fields)


def audit_errors() -> int:
    """Writes of the audit file that failed, in all processes of this server."""
    return _audit_state.errors


def has_audit_file() -> bool:
    """Is there one in this process?"""
    return bool(logging.getLogger(AUDIT).handlers)


def audit_trouble() -> str | None:
    """Why the audit file can't be written; None: it can, or there is none. Tries to write what is waiting."""
    handlers = logging.getLogger(AUDIT).handlers
    for handler in handlers:
        handler.flush()
    return _audit_state.reason if handlers else None


def setup(level: str, output: str | None = None, format: str = "auto", audit: str | None = None) -> None:
    """Send the logs of this process to `output`, a path, or to standard error.

    `level` is debug, info, warning or error; `format` is json, text, or auto: text on a terminal.
    Raises ConfigError if a file can't be written.
    """
    logging.raiseExceptions = False
    _record_less()
    handler = _file("log.output", output) if output else LogStream(sys.stderr)
    text = format == "text" or (format == "auto" and not output and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    least = logging.getLevelName(level.upper())
    _replace(logging.getLogger(), handler, max(least, logging.WARNING))
    global _direct
    _direct = None if text else handler
    logging.getLogger("zotctl").setLevel(least)
    if audit:
        setup_audit(audit)
    else:
        _close(logging.getLogger(AUDIT))


def _record_less() -> None:
    """No line says where in the code it comes from: finding that out costs more than the line (Python's
    logging HOWTO, "Optimization")."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def setup_audit(path: str) -> None:
    """Send the audit lines of this process to a file, beside the log. Raises ConfigError if it can't be opened."""
    try:
        handler = _AuditFile(path)
    except OSError as error:
        raise ConfigError(f"log.audit: {about_file(path, error)}") from None
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(AUDIT)
    logger.propagate = False
    _replace(logger, handler, logging.INFO)


def _file(key: str, path: str) -> _LogFile:
    try:
        return _LogFile(path)
    except OSError as error:
        raise ConfigError(f"{key}: {about_file(path, error)}") from None


def _replace(logger: logging.Logger, handler: logging.Handler, level: int) -> None:
    _close(logger)
    logger.addHandler(handler)
    logger.setLevel(level)


def _close(logger: logging.Logger) -> None:
    """Take away its handlers; files of ours are closed."""
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        if isinstance(old, LogStream):
            old.write_waiting()
        if isinstance(old, _LogFile):
            old.stream.close()
        elif isinstance(old, _AuditFile):
            old.close()


def reopen() -> None:
    """Open the log files anew, as after SIGHUP. Where that fails it is logged, and the old one kept."""
    for logger in (logging.getLogger(), logging.getLogger(AUDIT)):
        for handler in logger.handlers:
            if isinstance(handler, (_LogFile, _AuditFile)):
                try:
                    handler.reopen()
                except OSError as error:
                    logging.getLogger("zotctl.logs").error("the log can't be reopened: %s", error)


def warn_once(logger: logging.Logger, key: str, message: str, **fields: object) -> None:
    """Log a warning the first time that this process meets `key`."""
    if key not in _warned:
        _warned.add(key)
        logger.warning(message, extra={"fields": fields})
