"""Untrusted values inside our messages."""

from __future__ import annotations

_LIMIT = 100


def quoted(text: str) -> str:
    """`text` as a Python literal, cut to 100 characters: no control character reaches a terminal or a log."""
    return repr(text) if len(text) <= _LIMIT else f"{text[:_LIMIT]!r}... ({len(text)} characters)"
