"""Logging: one schema, as lines of JSON or as text for a terminal.

A caller passes `extra={"fields": {...}}` in snake case. The component is the second part of the logger's
name: "http" of `zotctl.http.supervisor`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from zotctl.errors import ConfigError

AUDIT = "zotctl.audit"
"""The logger of writes; it goes to its own file only."""

_warned: set[str] = set()
_encode = msgspec.json.Encoder(enc_hook=str).encode


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _component(record: logging.LogRecord) -> str:
    return record.name.removeprefix("zotctl.").partition(".")[0]


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, message, component, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON: time, level, component, message, and the fields of the record."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "component": _component(record),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            return _encode(line).decode()
        except UnicodeEncodeError:  # a file name that is not UTF-8
            return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """A line for people. Of an exception it has the last line, a traceback is for the JSON format."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for a terminal: time, level, component, message, `field=value`."""
        fields = _fields(record)
        if record.exc_info and (error := record.exc_info[1]) is not None:
            fields = {**fields, "error": f"{type(error).__name__}: {error}"}
        words = [f"{name}={_word(value)}" for name, value in fields.items() if value is not None]
        message = _printable(record.getMessage())
        head = f"{_time(record)[:19]}Z {record.levelname.lower()} {_component(record)}: {message}"
        return " ".join([head, *words])


def _word(value: object) -> str:
    text = _printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _printable(text: str) -> str:
    # What a client sends must not steer the terminal.
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _LogFile(logging.StreamHandler[TextIO]):
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


def setup(level: str, output: str | None = None, format: str = "auto", audit: str | None = None) -> None:
    """Send the logs of this process to `output`, a path, or to standard error.

    `level` is debug, info, warning or error; `format` is json, text, or auto: text on a terminal.
    Raises ConfigError if a file can't be written.
    """
    logging.raiseExceptions = False
    _record_less()
    handler = _file("log.output", output) if output else logging.StreamHandler(sys.stderr)
    text = format == "text" or (format == "auto" and not output and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    least = logging.getLevelName(level.upper())
    _replace(logging.getLogger(), handler, max(least, logging.WARNING))
    logging.getLogger("zotctl").setLevel(least)
    if audit:
        _setup_audit(audit)


def _record_less() -> None:
    """No line says where in the code it comes from: finding that out costs more than the line (Python's
    logging HOWTO, "Optimization")."""
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _setup_audit(path: str) -> None:
    handler = _file("log.audit", path)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(AUDIT)
    logger.propagate = False
    _replace(logger, handler, logging.INFO)


def _file(key: str, path: str) -> _LogFile:
    try:
        return _LogFile(path)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None


def _replace(logger: logging.Logger, handler: logging.Handler, level: int) -> None:
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        if isinstance(old, _LogFile):
            old.stream.close()
    logger.addHandler(handler)
    logger.setLevel(level)


def reopen() -> None:
    """Open the log files anew, as after SIGHUP. Where that fails it is logged, and the old one kept."""
    for logger in (logging.getLogger(), logging.getLogger(AUDIT)):
        for handler in logger.handlers:
            if isinstance(handler, _LogFile):
                try:
                    handler.reopen()
                except OSError as error:
                    logging.getLogger("zotctl.logs").error("the log can't be reopened: %s", error)


def warn_once(logger: logging.Logger, key: str, message: str, **fields: object) -> None:
    """Log a warning the first time that this process meets `key`."""
    if key not in _warned:
        _warned.add(key)
        logger.warning(message, extra={"fields": fields})
