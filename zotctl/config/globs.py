"""Globs of repositories, as zot has them: doublestar's, in which `X/**` matches `X` too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

MOST_EXPANDED = 1000
"""How many globs the braces of one may stand for. Each of them becomes a regular expression."""
REMEMBERED_GLOBS = 10_000


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs, each of which passed `check_glob`, matches the name of a repository: `*` within a
    component, `**` across them."""
    return any(expression.fullmatch(name) for pattern in globs for expression in _expressions(pattern))


def check_glob(pattern: str) -> None:
    """Raises ValueError for what is no glob, such as braces that stand for more than MOST_EXPANDED of them."""
    try:
        _expressions(pattern)
    except Exception as error:  # the library's own are not public
        raise ValueError(f"{pattern!r} is not usable as a glob: {error}") from None


@lru_cache(REMEMBERED_GLOBS)
def _expressions(pattern: str) -> list[re.Pattern[str]]:
    from wcmatch import glob  # few configurations have globs

    flags = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.FORCEUNIX
    both = [pattern[:-3], pattern] if pattern.endswith("/**") else pattern
    return [re.compile(found) for found in glob.translate(both, flags=flags, limit=MOST_EXPANDED)[0]]
