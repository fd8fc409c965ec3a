"""Users."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """A client that is logged in, or, without a name, one that is not. `groups` are those of the configuration."""

    name: str = ""
    groups: frozenset[str] = frozenset()

    @property
    def is_anonymous(self) -> bool:
        """Whether the client has not logged in."""
        return not self.name


ANONYMOUS = User()
