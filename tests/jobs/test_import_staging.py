"""What an import of an archive has staged, beside gc, which removes it when nobody goes on with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.retaining import KINDS, Place, places
from tests.jobs.test_gc import DELAY, collect
from tests.stores import push_blob
from zotctl.jobs.staging import STAGED_KEPT_S, STAGING
from zotctl.oci.digest import digest_of
from zotctl.storage import keys

BODY = b"a layer" * 100
HOUR_S = 3600.0


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An import was killed in it."""
    for made in places(request.param):
        made.push("v1")
        made.store.roots[0].maintenance.take(STAGING, digest_of(BODY), [BODY])
        yield made


def is_staged(place: Place) -> bool:
    return place.store.roots[0].stat(keys.blob(STAGING, digest_of(BODY))) is not None


def gc_after(place: Place, seconds: float, delay: float = DELAY) -> list[str]:
    place.clock.at += seconds
    place.store.close()
    place.store = place.another()
    report = collect(place.store, delay)
    assert (report.errors, report.findings) == ([], [])
    return [item["action"] for item in report.items]


def test_the_next_import_finds_it_for_a_day(place: Place) -> None:
    assert gc_after(place, STAGED_KEPT_S - HOUR_S) == []
    assert is_staged(place)


def test_gc_removes_what_nobody_goes_on_with(place: Place) -> None:
    assert gc_after(place, STAGED_KEPT_S + HOUR_S) == ["purge_import"]
    assert not is_staged(place)
    assert gc_after(place, HOUR_S) == []
    assert place.tags == ["v1"]


def test_gc_leaves_a_running_import_alone(place: Place) -> None:
    place.clock.at += 2 * STAGED_KEPT_S
    with place.another().roots[0].maintenance.lease("import-layout"):
        assert gc_after(place, 1, delay=0) == []
        assert is_staged(place)


def test_without_a_delay_the_space_is_wanted_now(place: Place) -> None:
    assert gc_after(place, 1, delay=0) == ["purge_import"]
    assert not is_staged(place)


def test_an_import_that_goes_on_keeps_all_that_is_staged(place: Place) -> None:
    """With blobs of another algorithm, which lie beside the others."""
    place.clock.at += STAGED_KEPT_S + HOUR_S
    place.store.roots[0].maintenance.take(STAGING, digest_of(BODY, "sha512"), [BODY])
    assert gc_after(place, HOUR_S) == []
    assert is_staged(place)


@pytest.mark.parametrize("place", ["directory"], indirect=True)
def test_what_a_repository_has_as_well_frees_nothing(place: Place) -> None:
    push_blob(place.store.repository_for_push("other"), BODY)
    place.clock.at += STAGED_KEPT_S + HOUR_S
    place.store.close()
    place.store = place.another()
    report = collect(place.store, DELAY)
    assert "purge_import" in [item["action"] for item in report.items] and report.summary["purged_bytes"] == 0
