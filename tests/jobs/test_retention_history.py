"""What collections make of the history: nothing that the delay of a manifest depends on is forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.retaining import KINDS, NAME, Place, places
from zotctl.storage import keys
from zotctl.storage.bucket.history import MAX_HISTORY_OBJECTS


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr("zotctl.jobs.local.gc.COMPACT_ABOVE_BYTES", 0)
    for kind in ("local", "bucket"):
        monkeypatch.setattr(f"zotctl.storage.{kind}.history.REMEMBERED_EVENTS", 0)
    yield from places(request.param)


def _size(place: Place) -> int:
    if place.kind == "bucket":
        return sum(key.startswith(keys.HISTORY) for key in place.memory.stored)
    return place.driver.stat(keys.history(NAME)).size


def _much(place: Place) -> None:
    """Of manifests that are gone, in many files."""
    history = place.store.roots[0].history
    for number in range(200):
        history.note(NAME, "push", f"sha256:{number:064}", {"v1": None})
        if number % (200 // MAX_HISTORY_OBJECTS - 2) == 0:
            place.store.close()


def test_a_manifest_that_lost_its_tag_to_one_that_is_gone_has_its_delay(place: Place) -> None:
    image = place.push("v1", seed="image")
    place.later(10)
    other, moved = place.push("v1", seed="other"), place.clock.at
    place.push("v2", seed="more")
    place.store.repository_for_push(NAME).delete_manifest(other)
    _much(place)
    before = _size(place)
    place.later(0.7)
    place.collect()
    assert _size(place) < before / 2
    assert place.another().roots[0].history.timeline(NAME).pushed[image] == pytest.approx(moved, abs=1)
    place.collect()
    assert place.has(image), "it lost its tag not so long ago"
    place.rounds()
    assert not place.has(image)


def test_i5_nothing_is_forgotten_where_something_is_unknown(place: Place) -> None:
    digest = place.push("v1", seed="image")
    child = place.push(seed="child")
    place.index("v2", children=[child])
    _much(place)
    place.store.close()
    if place.kind == "bucket":
        place.memory.delete(keys.blob(NAME, child))
    else:
        place.driver.unlink(keys.blob(NAME, child))
    before = _size(place)
    with pytest.raises(AssertionError):  # a finding
        place.collect()
    assert _size(place) >= before
    assert {digest, child} <= place.another().roots[0].history.timeline(NAME).here
