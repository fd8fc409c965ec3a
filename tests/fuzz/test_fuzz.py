"""Some thousands of fuzzed inputs; `python -m tests.fuzz` tries a million, with other seeds."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.kinds import kinds

COUNT = int(os.environ.get("ZOTCTL_EXAMPLES", "3000"))
with kinds() as _known:
    NAMES = [kind.name for kind in _known]


@pytest.mark.parametrize("name", NAMES)
def test_only_documented_errors(name: str) -> None:
    with kinds() as known:
        kind = next(kind for kind in known if kind.name == name)
        for number in range(max(1, COUNT * kind.share // 1000)):
            kind.try_one(number, seed=1)
