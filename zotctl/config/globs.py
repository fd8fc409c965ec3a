"""Globs of repositories, as zot has them: doublestar's, in which `X/**` matches `X` too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

MOST_EXPANDED = 1000
"""How many globs the braces of one may stand for. Each of them becomes a regular expression."""
REMEMBERED_GLOBS = 10_000
_CLOSED = re.compile(r"\\.|\[[!^]?+(?:\\.|[^\\\]])(?:\\.|[^\\\]])*\]", re.DOTALL)
"""An escaped character, or a class of at least one."""


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs, each of which passed `check_glob`, matches the name of a repository: `*` within a
    component, `**` across them."""
    return any(expression.fullmatch(name) for pattern in globs for expression in _expressions(pattern))


def check_glob(pattern: str) -> None:
    """Raises ValueError for what is no glob: a class or braces that are not closed, which zot refuses too, or braces
    that stand for more than MOST_EXPANDED globs."""
    if (open_mark := _unclosed(pattern)) is not None:
        raise ValueError(f"{pattern!r} is not usable as a glob: its {open_mark} has no counterpart")
    try:
        _expressions(pattern)
    except Exception as error:  # the library's own are not public
        raise ValueError(f"{pattern!r} is not usable as a glob: {error}") from None


def _unclosed(pattern: str) -> str | None:
    """The mark that stands alone, if one does: doublestar matches nothing by such a glob, wcmatch the mark itself."""
    opened = 0
    for mark in re.findall(r"[\\\[{}]", _CLOSED.sub("", pattern)):
        if mark in "\\[":
            return str(mark)
        opened += 1 if mark == "{" else -1
        if opened < 0:
            return "}"
    return "{" if opened else None


@lru_cache(REMEMBERED_GLOBS)
def _expressions(pattern: str) -> list[re.Pattern[str]]:
    from wcmatch import glob  # few configurations have globs

    flags = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.FORCEUNIX
    both = [pattern[:-3], pattern] if pattern.endswith("/**") else pattern
    return [re.compile(found) for found in glob.translate(both, flags=flags, limit=MOST_EXPANDED)[0]]
