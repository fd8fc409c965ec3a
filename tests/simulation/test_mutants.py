"""Who guards the guards: with any one safeguard off, the simulation fails within a stated number of schedules."""

from __future__ import annotations

import pytest

from tests.simulation.stores import STORES

SAFEGUARDS = [(store, safeguard) for store, simulated in STORES.items() for safeguard in simulated.off]

BROKEN = (AttributeError, NameError, TypeError)
"""What a safeguard's substitute raises that was written for other code: that is no failure that was found."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("store", "safeguard"), SAFEGUARDS)
def test_a_safeguard_that_is_off_is_caught(store: str, safeguard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = STORES[store]
    off = simulated.off[safeguard]
    for owner, name, instead in off.patches:
        monkeypatch.setattr(owner, name, instead)
    found = simulated.first_failure(range(off.limit), off.scenarios)
    assert found is not None, f"{off.limit} schedules did not see that this is off: {safeguard}"
    assert not isinstance(found[1].error, BROKEN), f"it does not fit the code any more: {found[1].error!r}"


@pytest.mark.parametrize("store", STORES)
def test_each_scenario_is_in_the_seeds_and_none_fails_by_itself(store: str) -> None:
    for scenario in STORES[store].scenarios:
        assert STORES[store].first_failure(range(5), (scenario,)) is None
