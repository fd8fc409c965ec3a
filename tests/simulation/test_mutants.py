"""Who guards the guards: with any one safeguard off, the simulation fails within a stated number of schedules."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import OFF
from tests.simulation.playing import first_failure
from tests.simulation.scenes import ALL


@pytest.mark.timeout(300)
@pytest.mark.parametrize("safeguard", OFF)
def test_a_safeguard_that_is_off_is_caught(safeguard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    off = OFF[safeguard]
    for owner, name, instead in off.patches:
        monkeypatch.setattr(owner, name, instead)
    found = first_failure(range(off.limit), off.scenes)
    assert found is not None, f"{off.limit} schedules did not see that this is off: {safeguard}"


def test_each_scene_is_in_the_seeds_and_none_fails_by_itself() -> None:
    for scene in ALL:
        assert first_failure(range(5), (scene,)) is None
