"""When imported tags count as pushed, step by step."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from tests import images
from zotctl.jobs.imports.plan import Wanted, push_times
from zotctl.storage.history import Timeline
from zotctl.storage.index import parse_index

IMAGE = images.image("x")
NOW = 1_800_000_000.0


def times(*rows: dict[str, object], past: Timeline | None = None) -> dict[str, float]:
    index = parse_index(json.dumps({"schemaVersion": 2, "manifests": list(rows)}).encode())
    wanted = [Wanted(row, IMAGE.digest, row.tag) for row in index.rows()]
    layout: Any = SimpleNamespace(past=past, index=index, each=map)  # `each`: manifests are not read for a time
    return push_times(layout, wanted, {}, NOW)


def created(tag: str, at: str) -> dict[str, object]:
    row: dict[str, Any] = images.row(IMAGE, tag)
    return row | {"annotations": row["annotations"] | {"org.opencontainers.image.created": at}}


def test_no_imported_tag_was_pushed_in_the_future() -> None:
    """By the history of its store, or by what it says itself: else it is the latest for years."""
    assert times(images.row(IMAGE, "v1"), past=Timeline(tagged={"v1": NOW + 1e8})) == {"v1": NOW}
    found = times(created("v1", "2126-01-01T00:00:00Z"), created("v2", "2026-01-01T00:00:00Z"), images.row(IMAGE, "v3"))
    assert found["v2"] < found["v1"] < found["v3"] <= NOW, "rows that say the same keep their order"


def test_a_time_without_a_zone_and_one_of_no_time() -> None:
    found = times(
        created("v1", "2026-01-01T00:00:00"),
        created("v2", "1970-01-01T00:00:00Z"),
        created("v3", "2025-01-01T00:00:00Z"),
    )
    assert found["v3"] < found["v1"] < found["v2"]
