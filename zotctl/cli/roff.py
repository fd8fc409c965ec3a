"""Writing man(7): escaping, wrapping, and the few macros a page needs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDTH = 76


class ManualPage:
    """A man page in the making."""

    def __init__(self, name: str, section: int, date: str, source: str) -> None:
        self._lines = [f'.TH {_escape(name.upper())} {section} "{date}" "{_escape(source)}"']

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {_escape(title)}")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs, wrapped."""
        for paragraph in paragraphs:
            self._begin_paragraph()
            self._lines += _wrap(paragraph)

    def verbatim(self, text: str) -> None:
        """Lines that stay as they are, indented."""
        self._begin_paragraph()
        lines = [_guard(_escape(line)) for line in text.splitlines()]
        self._lines += [".RS 4", ".nf", *lines, ".fi", ".RE"]

    def items(self, items: Iterable[tuple[str, str]]) -> None:
        """Terms in bold, and what they mean."""
        for term, meaning in items:
            self._lines += [".TP", f'.B "{_escape(term)}"', *_wrap(meaning)]

    def _begin_paragraph(self) -> None:
        if not self._lines[-1].startswith(".SH"):
            self._lines.append(".PP")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def _wrap(text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [_guard(_escape(line)) for line in lines]


def _escape(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _guard(line: str) -> str:
    # A line that begins so would be read as a macro.
    return f"\\&{line}" if line.startswith((".", "'")) else line
