"""What is wrong with a configuration, all of it, and what is only doubtful."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from zotctl.errors import ConfigError


class Problems:
    """Mistakes and warnings, each once, in the order in which they were met."""

    def __init__(self) -> None:
        self._mistakes: dict[str, None] = {}
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def mistake(self, where: str, text: str) -> None:
        self._mistakes[f"{where}: {text}"] = None

    def warn(self, where: str, text: str) -> None:
        self._warnings[f"{where}: {text}"] = None

    def unknown(self, where: str, key: str, valid: Iterable[str], word: str = "key") -> None:
        """`key` is none of the `valid` ones, which lie in the same table."""
        self.mistake(where, f"unknown {word}; {_advice(key, list(valid), word)}")

    def raise_mistakes(self) -> None:
        """Raises ConfigError with all of them, a line each; its `detail` is their list."""
        if self._mistakes:
            raise ConfigError("\n".join(self._mistakes), list(self._mistakes))


def _advice(key: str, valid: list[str], word: str) -> str:
    by_case = {name.casefold(): name for name in valid}
    if near := get_close_matches(key.casefold(), by_case, n=1):
        return f"nearest valid {word}: {by_case[near[0]]}"
    return f"valid here: {', '.join(valid)}"
