"""A source, or a store, that is lost in the middle of an import: one line, exit 14, and no image called incomplete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.jobs.importing import run_import, write_layout
from tests.jobs.layouts import Leaving, lay_out
from tests.jobs.test_bucket_away import filled, lost
from tests.object_faults import AWAY, FaultyObjects, StillClock
from tests.stores import bucket_store, probed, store_over
from zotctl.jobs.imports import job
from zotctl.jobs.imports.sources import THE_LAYOUT
from zotctl.jobs.report import Report
from zotctl.oci.digest import digest_of
from zotctl.storage import Store
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.driver import Driver
from zotctl.storage.root import Root
from zotctl.storage.wrappers import AliasedDriver


@pytest.fixture
def from_store(monkeypatch: pytest.MonkeyPatch) -> Callable[[Store], None]:
    """What an s3:// source is, without a configuration."""

    def use(store: Store) -> None:
        @contextmanager
        def bucket_root(_: Store, source: str) -> Iterator[Root]:
            yield store.roots[0]

        monkeypatch.setattr(job, "bucket_root", bucket_root)

    return use


def require_one_line(report: Report) -> None:
    assert (report.exit_code, report.findings, len(report.errors)) == (14, [], 1), (report.findings, report.errors)


@pytest.mark.parametrize("after", [1, 3, 8, 20, 40, 60])
def test_a_bucket_that_is_imported_from(after: int, from_store: Callable[[Store], None]) -> None:
    from_store(lost(memory := filled(), after))
    target = store_over(MemoryDriver())
    require_one_line(run_import(target, "s3://memory/test", all=True))
    from_store(bucket_store(memory))
    assert run_import(target, "s3://memory/test", all=True).exit_code == 0
    assert target.repositories() == [f"app{number}" for number in range(5)]


def test_a_blob_of_it_begins_the_outage(from_store: Callable[[Store], None]) -> None:
    memory, clock, begun = filled(), StillClock(), list[str]()

    def choose(method: str, key: str) -> str:
        if begun or (method == "open" and "/blobs/" in key and key.startswith("app2/")):
            begun.append(key)
        return AWAY if begun else ""

    from_store(bucket_store(Retrying(FaultyObjects(memory, choose), clock), clock))
    target = store_over(MemoryDriver())
    require_one_line(run_import(target, "s3://memory/test", all=True))
    assert target.repositories() == ["app0", "app1"]


def test_a_blob_that_is_copied_begins_the_outage(from_store: Callable[[Store], None]) -> None:
    """Its manifests were read, and it is wanted: not to be had, and neither missing nor damaged."""
    memory, clock, begun = filled(), StillClock(), list[str]()
    manifests = [str(row.digest) for row in bucket_store(memory).repository("app2").index().rows()]

    def choose(method: str, key: str) -> str:
        is_blob = key.startswith("app2/blobs/") and not any(digest.endswith(key[-64:]) for digest in manifests)
        if begun or (method == "open" and is_blob):
            begun.append(key)
        return AWAY if begun else ""

    from_store(bucket_store(Retrying(FaultyObjects(memory, choose), clock), clock))
    target = store_over(MemoryDriver())
    require_one_line(run_import(target, "s3://memory/test", all=True))
    assert target.repository("app2").tags() == []


@pytest.mark.parametrize("after", [1, 3, 8, 20, 40, 60])
def test_a_bucket_that_is_imported_into(after: int, tmp_path: Path) -> None:
    for number in range(5):
        lay_out(tmp_path, f"app{number}", images.image(f"{number}"), "v1")
    memory = MemoryObjects()
    probed(memory)
    require_one_line(run_import(lost(memory, after), tmp_path))
    for found in list(memory.list(".zotctl/leases/")):
        memory.delete(found.key)
    assert run_import(bucket_store(memory), tmp_path).exit_code == 0


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("at", ["app2/index.json", "app2/blobs/sha256/", "app3/oci-layout"])
def test_a_directory_that_is_unmounted_meanwhile(
    at: str, empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        lay_out(tmp_path, f"app{number}", images.image(f"{number}"), "v1")
    driver = Leaving(str(tmp_path), "nothing yet", empty=empty)

    def in_directory(source: str, *_: object, **__: object) -> tuple[Driver, list[str]]:
        driver.at = at
        return driver, [f"app{number}" for number in range(5)]

    monkeypatch.setattr(job, "in_directory", in_directory)
    target = store_over(MemoryDriver())
    require_one_line(run_import(target, tmp_path))
    assert target.repositories() == [f"app{number}" for number in range(int(at[3]))]


def test_a_lone_layout_that_is_unmounted_is_no_wrong_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides which image gets the tag could not be read."""
    image = images.image("1")
    signature = images.image("2", subject=digest_of(image.manifest))
    write_layout(tmp_path, image, signature, rows=[images.row(image), images.row(signature)])
    driver = Leaving(str(tmp_path), "blobs/sha256/", empty=False)
    monkeypatch.setattr(job, "in_directory", lambda *_, **__: (AliasedDriver(driver, THE_LAYOUT, ""), [THE_LAYOUT]))
    require_one_line(run_import(store_over(MemoryDriver()), tmp_path, repo="app", tag="v1"))
    driver.at, driver.gone = "nothing", False
    assert run_import(store_over(MemoryDriver()), tmp_path, repo="app", tag="v1").exit_code == 0
