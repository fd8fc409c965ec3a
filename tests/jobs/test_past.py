"""`gc --history`: who did what to tags and manifests, on both kinds of store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.jobs.retaining import KINDS, NAME, Place
from zotctl.config import KeepTags, Policy
from zotctl.jobs.past import history
from zotctl.jobs.restore import restore
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage.history import REMEMBERED_EVENTS
from zotctl.storage.local.history import Here


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request.param)
    yield made
    made.store.close()


def told(place: Place, what: str | None = None) -> list[dict[str, Any]]:
    place.store.close()
    place.store = place.another()
    run = Run("gc", place.store)
    report = run.finish(lambda: history(run, what))
    assert report.errors == []
    return report.items


def lines(place: Place, what: str | None = None) -> list[tuple[Any, ...]]:
    return [(i["action"], i["tag"], i["before"], i["after"], i["by"]) for i in told(place, what)]


def test_each_change_is_a_line(place: Place) -> None:
    old, new = place.push("v1", seed="1"), place.push("v1", seed="2")
    place.store.repository(NAME).delete_manifest("v1", user="ann")
    run = Run("gc", place.store)
    run.finish(lambda: restore(run, f"{NAME}:v1"))
    assert lines(place, f"{NAME}:v1") == [
        ("pushed", "v1", None, old, "a client"),
        ("moved", "v1", old, new, "a client"),
        ("removed", "v1", new, None, "ann"),
        ("restored", "v1", None, new, "gc --restore"),
    ]
    assert [item["at"] for item in told(place)] == sorted(item["at"] for item in told(place))
    assert lines(place, str(old)) == lines(place, f"{NAME}:v1")[:2]


def test_a_policy_is_named_and_what_then_becomes_of_the_manifest(place: Place) -> None:
    policy = Policy(("**",), keep_tags=(KeepTags(patterns=("kept",)),))
    place.push("kept", seed="kept")
    gone = place.push("v1", seed="1")
    place.rounds(policy, count=6)
    changes = lines(place, f"{NAME}:v1")
    assert [line[:4] for line in changes] == [
        ("pushed", "v1", None, gone), ("removed", "v1", gone, None), ("removed", None, gone, None),
        ("purged", None, gone, None),
    ]  # fmt: skip
    assert changes[1][4] == "retention: policy 1 (**)" and "deleteUntagged" in changes[2][4] and changes[3][4] == "gc"


def test_it_tells_of_every_repository(place: Place) -> None:
    place.push("v1", seed="1")
    assert [line[:2] for line in lines(place)] == [("pushed", "v1")]


def test_what_is_unknown_is_said(place: Place) -> None:
    place.push("v1", seed="1")
    run = Run("gc", place.store)
    assert run.finish(lambda: history(run, f"{NAME}:v2")).exit_code == 10


def test_a_compaction_leaves_the_latest_changes(place: Place) -> None:
    """Of what is gone, too; of more than that, the oldest are forgotten."""
    gone = place.push("v1", seed="1")
    place.store.repository(NAME).delete_manifest(gone)
    past = place.store.roots[0].history
    for number in range(REMEMBERED_EVENTS + 100):
        place.clock.at += 1
        past.note(NAME, "push", str(digest_of(f"{number}".encode())), {"v2": None})
        if number % 100 == 0 and place.kind == "bucket":
            past.flush()  # type: ignore[attr-defined]
    place.later(5)
    if place.kind == "bucket":
        past.flush()  # type: ignore[attr-defined]
        assert past.events(NAME)
        past.compact(NAME, set(), set(), place.clock.at)  # type: ignore[attr-defined]
    else:
        for _ in range(4_000):
            past.note(NAME, "pull", str(gone))
        past.compact(NAME, lambda: Here(set(), set()))  # type: ignore[attr-defined]
    kept = [event for event in past.events(NAME) if event["a"] != "pull"]
    assert len(kept) == REMEMBERED_EVENTS and kept[-1]["d"] == digest_of(f"{REMEMBERED_EVENTS + 99}".encode())
