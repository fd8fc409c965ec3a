"""Globs of repositories, as zot has them: doublestar's, in which `X/**` matches `X` too."""

from __future__ import annotations

from collections.abc import Sequence

from wcmatch import glob

_FLAGS = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.FORCEUNIX


def matches(name: str, globs: Sequence[str]) -> bool:
    """Whether one of the globs matches the name of a repository: `*` within a component, `**` across them."""
    expanded = [g for pattern in globs for g in ([pattern[:-3], pattern] if pattern.endswith("/**") else [pattern])]
    return glob.globmatch(name, expanded, flags=_FLAGS)
