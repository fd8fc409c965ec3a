"""The mistakes and warnings about a configuration: all of them, not only the first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from zotctl.errors import ConfigError

OTHER_CLOUD = "only directories and S3 can be served; copy the content to one of them first"


class Problems:
    """Mistakes and warnings, each once, in the order in which they were met.

    `serving`: keys whose loss would let in the wrong clients, or answer clients wrongly, are refused. A job answers
    no clients.
    `waived`: keys that are ignored on request, though a server would be refused for them.
    """

    def __init__(self, *, serving: bool = True, waived: Collection[str] = ()) -> None:
        self._serving, self._waived = serving, waived
        self._mistakes: dict[str, None] = {}
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Each as `WHERE: TEXT`."""
        return tuple(self._warnings)

    def mistake(self, where: str, text: str) -> None:
        """Note what makes the configuration unusable. `where` names file and key, or the variable, or the option."""
        self._mistakes[f"{where}: {text}"] = None

    def warn(self, where: str, text: str) -> None:
        """Note what is ignored or probably not meant so."""
        self._warnings[f"{where}: {text}"] = None

    def unsafe(self, where: str, key: str, text: str) -> None:
        """To serve without `key` would be wrong, and this version has no way to serve with it."""
        if self._serving and key in self._waived:
            self.warn(where, "ignored, as requested")
        elif self._serving:
            self.mistake(where, text)

    def exposed(self, where: str, text: str) -> None:
        """Warn a server, and no job, about what it gives to the network."""
        if self._serving:
            self.warn(where, text)

    def doubtful(self, where: str, key: str, valid: Iterable[str], word: str) -> None:
        """An unknown `key` that another program may use: a warning."""
        names = {name.partition("_")[2]: name for name in valid}  # what all begin with makes any two alike
        if near := get_close_matches(key.partition("_")[2], names, n=1):
            self.warn(where, f"unknown {word}, ignored; did you mean {names[near[0]]}?")
        else:
            self.warn(where, f"unknown {word}, ignored")

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
