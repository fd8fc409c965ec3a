"""What happened, in order: every request, job and signal, so that a failure can show the history of its object."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 400
"""Lines of a history that are printed at the most, the latest."""


@dataclass
class Journal:
    """`files` are what servers and jobs wrote themselves; they are searched as well."""

    home: Path
    lines: list[tuple[float, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.time)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def note(self, who: str, what: str, *objects: object) -> None:
        with self._mutex:
            self.lines.append((time.time(), f"{who} {what} {' '.join(str(one) for one in objects)}".rstrip()))

    def count(self, what: str, amount: int = 1) -> None:
        with self._mutex:
            self.counts[what] += amount

    def fail(self, what: str, *objects: object) -> None:
        """Something that must not happen, and what it happened to: a repository, a tag, digests."""
        self.note("FAILURE", what, *objects)
        with self._mutex:
            self.failures.append(f"{what}: {' '.join(str(one) for one in objects)}\n{self._about(objects)}")

    def _about(self, objects: tuple[object, ...]) -> str:
        """All lines about digests and tags, and every signal and job around them."""
        words = [str(one).removeprefix("sha256:") for one in objects if "/" not in str(one) and len(str(one)) > 3]
        mine = [(at, text) for at, text in self.lines if any(word in text for word in words)]
        first = mine[0][0] if mine else time.time() - 30
        around = [(at, text) for at, text in self.lines if at >= first and text.startswith(("chaos", "job", "FAIL"))]
        found = [f"  {at - self._began:9.3f} {text}" for at, text in sorted({*mine, *around})][-SHOWN:]
        return "\n".join([*found, *self._written(words)])

    def _written(self, words: list[str]) -> list[str]:
        """What logs, reports of jobs and the store's own history say."""
        found = []
        for path in sorted(self.home.rglob("*")):
            if path.is_file() and (path.name == "log" or path.parent.name in ("reports", "history")):
                lines = path.read_text(errors="replace").splitlines()
                found += [f"  {path.name}: {line[:600]}" for line in lines if any(word in line for word in words)]
        return found[-SHOWN:]
