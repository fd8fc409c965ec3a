"""When imported tags were pushed, for retention: as the source's own store remembers, or at least in order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.objects import MemoryObjects
from tests.images import Image, descriptor, image, row
from tests.jobs.importing import run_import, tar_of, write_layout
from tests.jobs.test_gc import DELAY, collect
from tests.stores import bucket_store, push_image, store_over
from zotctl.config import KeepTags, Policy, Retention
from zotctl.jobs.imports import job
from zotctl.jobs.retention import Rules
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX
from zotctl.storage import Store
from zotctl.storage.clock import Clock
from zotctl.storage.local.driver import LocalDriver

CREATED = "org.opencontainers.image.created"
YEAR = 365 * 86400.0


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    clock = Clock()
    if request.param == "bucket":
        made = bucket_store(MemoryObjects(clock.now), clock, delay=DELAY)
    else:
        (tmp_path / "store").mkdir()
        made = store_over(LocalDriver(str(tmp_path / "store")), clock=clock)
    yield made
    made.close()


def kept(store: Store, count: int = 1, **rule: Any) -> list[str]:
    """What is left by a policy that keeps the tags pushed last."""
    keep = KeepTags(**(rule or {"most_recently_pushed_count": count}))
    report = collect(store, rules=Rules(Retention(policies=(Policy(("**",), keep_tags=(keep,)),)), DELAY))
    assert (report.errors, report.findings) == ([], [])
    return store.repository("app").tags()


def at(year: int) -> str:
    return f"{year}-01-02T03:04:05.123456789Z"


def made_in(year: str | None, seed: str, **extra: object) -> Image:
    """Whose config says when it was made."""
    plain = image(seed)
    config = json.loads(plain.blobs[0]) | ({"created": year} if year else {})
    body = json.dumps(config).encode()
    manifest = json.loads(plain.manifest) | {"config": descriptor(body, images.CONFIG)} | extra
    return Image(json.dumps(manifest).encode(), [body, *plain.blobs[1:]])


def named(made: Image, tag: str, **annotations: str) -> dict[str, object]:
    found = row(made, tag)
    found["annotations"] = {"org.opencontainers.image.ref.name": tag, **annotations}
    return found


def test_rows_that_say_when_they_were_created(store: Store, tmp_path: Path) -> None:
    made = [image(str(n)) for n in range(3)]
    years = {"a": 2024, "b": 2026, "c": 2025}
    rows = [named(one, tag, **{CREATED: at(years[tag])}) for one, tag in zip(made, years, strict=True)]
    run_import(store, write_layout(tmp_path / "app", *made, rows=rows))
    assert kept(store, 2) == ["b", "c"]
    assert kept(store) == ["b"]


def test_manifests_and_configs_that_say_it(store: Store, tmp_path: Path) -> None:
    annotated = made_in(at(2020), "1", annotations={CREATED: at(2026)})
    told, old = made_in(at(2025), "2"), made_in(at(2024), "3")
    made = (told, annotated, old)
    rows = [row(told, "told"), row(annotated, "annotated"), row(old, "old")]
    run_import(store, write_layout(tmp_path / "app", *made, rows=rows))
    assert kept(store, 2) == ["annotated", "told"]
    assert kept(store) == ["annotated"]


@pytest.mark.parametrize("annotations", [None, {}, {CREATED: "yesterday"}])
def test_annotations_that_say_nothing_leave_it_to_the_config(
    store: Store, tmp_path: Path, annotations: dict[str, str] | None
) -> None:
    new, old = made_in(at(2025), "1", annotations=annotations), made_in(at(2024), "2", annotations=annotations)
    run_import(store, write_layout(tmp_path / "app", new, old, rows=[row(new, "new"), row(old, "old")]))
    assert kept(store) == ["new"]


def test_an_index_is_as_old_as_its_images(store: Store, tmp_path: Path) -> None:
    new, old = made_in(at(2026), "new"), made_in(at(2024), "old")
    body = images.index([(new.digest, len(new.manifest))])
    multi = descriptor(body, OCI_INDEX) | {"annotations": {"org.opencontainers.image.ref.name": "multi"}}
    rows = [multi, row(old, "old")]
    layout = write_layout(tmp_path / "app", new, old, rows=rows)
    (layout / "blobs" / "sha256" / digest_of(body).encoded).write_bytes(body)
    run_import(store, layout)
    assert kept(store) == ["multi"]


@pytest.mark.parametrize("year", [None, "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "yesterday", at(2100)])
def test_of_images_without_a_time_the_last_row_is_the_latest(store: Store, tmp_path: Path, year: str | None) -> None:
    """Builds that can be repeated say 1970, which is none; what is not yet is of now."""
    made = [made_in(year, str(n)) for n in range(3)]
    rows = [row(one, tag) for one, tag in zip(made, ("c", "b", "a"), strict=True)]
    run_import(store, write_layout(tmp_path / "app", *made, rows=rows))
    assert kept(store) == ["a"]


def test_an_old_image_that_is_taken_over_now_does_not_expire(store: Store, tmp_path: Path) -> None:
    """The import is its push here."""
    run_import(store, write_layout(tmp_path / "app", made := made_in(at(2020), "1"), rows=[row(made, "v1")]))
    assert kept(store, pushed_within=30 * 86400.0) == ["v1"]


def test_an_archive(store: Store, tmp_path: Path) -> None:
    new, old = made_in(at(2026), "new"), made_in(at(2024), "old")
    layout = write_layout(tmp_path / "there" / "app", new, old, rows=[row(new, "new"), row(old, "old")])
    (tmp_path / "app.tar").write_bytes(tar_of(layout))
    run_import(store, tmp_path / "app.tar")
    assert kept(store) == ["new"]


@pytest.mark.parametrize("below", ["", "app"])
def test_a_store_remembers_when_it_was(store: Store, tmp_path: Path, below: str) -> None:
    """Its tags were pushed in another order than their names have, and one was pulled lately."""
    clock = Hand(Clock().now() - 2 * YEAR)
    (tmp_path / "source").mkdir()
    source = store_over(LocalDriver(str(tmp_path / "source")), clock=clock)
    for tag in ("c", "b", "a"):
        digest = push_image(source, "app", tag, seed=tag)
        clock.at += YEAR / 4
    clock.at = Clock().now() - 3600
    source.roots[0].history.note_pull("app", source.repository("app").manifest("c").digest)
    run_import(store, tmp_path / "source" / below)
    assert store.roots[0].history.timeline("app").tagged["a"] == pytest.approx(clock.at - 1.5 * YEAR + 3600, abs=5000)
    assert kept(store, pulled_within=86400.0, most_recently_pushed_count=1) == ["a", "c"]
    assert kept(store, pushed_within=YEAR) == []
    assert digest in store.repository("app").index(), "its delay begins now"


def test_a_bucket_remembers_when_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Hand(Clock().now() - 2 * YEAR)
    source = bucket_store(MemoryObjects(clock.now), clock)
    for tag in ("c", "b", "a"):
        push_image(source, "app", tag, seed=tag)
        clock.at += YEAR / 4
    source.close()

    @contextmanager
    def opened(*_: object) -> Iterator[object]:
        yield source.roots[0]

    monkeypatch.setattr(job, "bucket_root", opened)
    (tmp_path / "store").mkdir()
    store = store_over(LocalDriver(str(tmp_path / "store")))
    run_import(store, "s3://there")
    assert kept(store) == ["a"]
    assert store.roots[0].history.timeline("app").tagged["a"] < Clock().now() - YEAR


def test_olareg_remembers_when_it_was(store: Store, tmp_path: Path) -> None:
    made = [image(str(n)) for n in range(3)]
    tags = ("b", "c", "a")
    history = {tag: [{"time": at(2000 + n), "digest": str(one.digest)}] for n, (one, tag) in
               enumerate(zip(made, tags, strict=True), 20)}  # fmt: skip
    history["b"].append({"time": at(2025), "digest": str(made[0].digest)})
    history["a"].append({"time": at(2026), "digest": "sha256:" + "0" * 64})
    rows = [row(one, tag) for one, tag in zip(made, tags, strict=True)]
    run_import(store, write_layout(tmp_path / "app", *made, rows=rows, **{"org.olareg.history": history}))
    assert kept(store) == ["b"]


@pytest.mark.parametrize("history", [None, [], 7, {"v1": None}, {"v1": [None]}, {"v1": [{"time": 7}]}])
def test_what_is_no_history_is_none(store: Store, tmp_path: Path, history: object) -> None:
    made = image()
    layout = write_layout(tmp_path / "app", made, rows=[row(made, "v1")], **{"org.olareg.history": history})
    assert run_import(store, layout).exit_code == 0
    assert kept(store) == ["v1"]


def test_a_damaged_history_is_none(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = store_over(LocalDriver(str(tmp_path / "source")))
    push_image(source, "app", "v1")
    shutil.rmtree(tmp_path / "source" / ".zotctl" / "history")
    (tmp_path / "source" / ".zotctl" / "history").write_text("no directory")
    assert run_import(store, tmp_path / "source").exit_code == 0
    assert kept(store) == ["v1"]
