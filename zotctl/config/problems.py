"""Collects the mistakes and warnings about a configuration, so that all are reported and not only the first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from zotctl.errors import ConfigError, UsageError, ZotctlError

COMMAND_LINE = ("option --", "argument ")
"""How the origins of values begin that options and arguments have set."""
OTHER_CLOUD = "only directories and S3 can be served; copy the content to one of them first"


class Problems:
    """Mistakes and warnings, each once, in the order in which they were found. Not safe between threads.

    `serving`: keys that a server must not ignore, since it would let in the wrong clients or answer them wrongly, are
    mistakes. `waived`: such keys that are ignored on request.
    """

    def __init__(self, *, serving: bool = True, waived: Collection[str] = ()) -> None:
        self._serving, self._waived = serving, waived
        self._mistakes: dict[str, None] = {}
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings, each as `WHERE: TEXT`."""
        return tuple(self._warnings)

    def mistake(self, where: str, text: str) -> None:
        """Add a mistake: the configuration is refused. `where` names file and key, or the variable, or the option."""
        self._mistakes[f"{where}: {text}"] = None

    def warn(self, where: str, text: str) -> None:
        """Add a warning about something that is ignored, or that is probably not meant."""
        self._warnings[f"{where}: {text}"] = None

    def unsafe(self, where: str, key: str, text: str) -> None:
        """Add a mistake about what would be unsafe in a server, unless `key` is waived. A job ignores it."""
        if self._serving and key in self._waived:
            self.warn(where, "ignored, as requested")
        elif self._serving:
            self.mistake(where, text)

    def exposed(self, where: str, text: str) -> None:
        """Warn a server, and no job, about what it gives to the network."""
        if self._serving:
            self.warn(where, text)

    def doubtful(self, where: str, key: str, valid: Iterable[str], word: str) -> None:
        """Warn about an unknown `key` that another program may use."""
        names = {name.partition("_")[2]: name for name in valid}  # what all begin with makes any two alike
        if near := get_close_matches(key.partition("_")[2], names, n=1):
            self.warn(where, f"unknown {word}, ignored; did you mean {names[near[0]]}?")
        else:
            self.warn(where, f"unknown {word}, ignored")

    def unknown(self, where: str, key: str, valid: Iterable[str], word: str = "key") -> None:
        """Add a mistake about an unknown `key`. `valid`: those that are known in the same table."""
        self.mistake(where, f"unknown {word}; {_advice(key, list(valid), word)}")

    def raise_mistakes(self) -> None:
        """Raise ConfigError if there are mistakes: a line for each, their list as its `detail`, and the warnings that
        go with them. UsageError if an option or an argument is among them: that comes first, as for words that no
        configuration is needed to refuse."""
        if not self._mistakes:
            return
        said = any(line.startswith(COMMAND_LINE) for line in self._mistakes)
        kind: type[ZotctlError] = UsageError if said else ConfigError
        error = kind("\n".join(self._mistakes), list(self._mistakes))
        error.warnings = self.warnings
        raise error


def _advice(key: str, valid: list[str], word: str) -> str:
    by_case = {name.casefold(): name for name in valid}
    if near := get_close_matches(key.casefold(), by_case, n=1):
        return f"nearest valid {word}: {by_case[near[0]]}"
    return f"valid here: {', '.join(valid)}"
