"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
PACKAGE = REPOSITORY / "zotctl"


class Stale(Exception):
    """The code has changed, and the edit doesn't fit any more."""


@dataclass(frozen=True)
class Mutant:
    """`kind` is one of `kinds`. `file` is below `zotctl/`; `old` is there exactly once, and `new` comes into its place.

    `guards`: the invariant that is broken, and `safeguard` what was there to keep it. `test`: the node id of a test
    that fails with the edit and passes without it.
    """

    name: str
    kind: str
    guards: str
    safeguard: str
    file: str
    old: str
    new: str
    test: str

    @property
    def module(self) -> str:
        return "zotctl." + self.file.removesuffix(".py").replace("/", ".")

    @property
    def path(self) -> Path:
        return PACKAGE / self.file

    def apply(self, source: str) -> str:
        """The file with the edit. Raises Stale."""
        if (found := source.count(self.old)) != 1:
            raise Stale(f"{self.name}: its place is {found} times in zotctl/{self.file}:\n{self.old}")
        return source.replace(self.old, self.new)
