"""The real storage and job code under a deterministic scheduler (the invariants are checked at every step).

A seed is a whole schedule: `ZOTCTL_SEED=17 pytest tests/simulation` plays it alone. CI plays 20,000, and
`ZOTCTL_SCHEDULES=100000` as many as it says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.scheduler import Failure, plan_of, run
from zotctl.storage.local.site import Site
from zotctl.storage.local.trash import Trash

CHUNK = 1000
WANTED = int(os.environ.get("ZOTCTL_SCHEDULES", "20000" if os.environ.get("CI") else "1000"))
SEED = os.environ.get("ZOTCTL_SEED")


def told(failure: Failure) -> str:
    trace = "\n".join(failure.lines()[-200:])
    return f"ZOTCTL_SEED={failure.plan.seed} pytest tests/simulation\n{failure.error}\n{trace}"


def first_failure(seeds: range) -> Failure | None:
    return next(filter(None, (run(plan_of(seed)) for seed in seeds)), None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", [None] if SEED else range(max(1, WANTED // CHUNK)))
def test_no_schedule_breaks_an_invariant(chunk: int | None) -> None:
    first = int(SEED or 0) if chunk is None else chunk * CHUNK
    failure = first_failure(range(first, first + (1 if chunk is None else CHUNK)))
    assert failure is None, told(failure)


def _nothing_comes_back(self: Trash, *_: Any, **__: Any) -> bool:
    return False


def _copies_are_believed(self: Site, one: str, other: str) -> bool:
    return True


def _condemned_is_gone(self: Trash, held: Any, run: str, digests: Any) -> list[Any]:
    for digest in digests:
        self._site.discard(f"{held.name}/blobs/{digest.algorithm}/{digest.encoded}")
    return list(digests)


MUTANTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "nothing comes back from the trash": (Trash, "restore", _nothing_comes_back),
    "a copy is linked unread": (Site, "same_bytes", _copies_are_believed),
    "no trash: condemned content is gone at once": (Trash, "condemn", _condemned_is_gone),
}
"""Safeguards of local.md, each switched off in turn."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_safeguard_that_is_off_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, instead = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, instead)
    assert first_failure(range(4000)) is not None, f"4,000 schedules did not see that {mutant}"
