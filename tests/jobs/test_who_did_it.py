"""What is told of tags and content that jobs move or delete: the line in the log and in the audit file, with the
policy or the job as the reason, and the history."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.faults import FailOn
from tests.jobs.collecting import Place as Directory
from tests.jobs.layouts import lay_out
from tests.jobs.retaining import KINDS, NAME, Place
from tests.stores import history_of, push_image, store_over
from zotctl.config import KeepTags, Policy
from zotctl.errors import IoFailed
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.storage import Store
from zotctl.storage.history import Event
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.protocol import Change


def told(audit: Path, action: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, audit.read_text().splitlines()) if line["action"] == action]


POLICIES = (Policy(("none/**",)), Policy((NAME,), keep_tags=(KeepTags(patterns=("v2",)),)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tag_that_a_policy_drops_is_a_line_that_names_the_policy(
    kind: str, audit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zotctl")
    place = Place(kind)
    old, new = place.push("v1", seed="1"), place.push("v2", seed="2")
    place.later()
    place.collect(*POLICIES)
    (line,) = told(audit, "untag")
    assert (line["repository"], line["tag"], line["digest_before"], line["digest_after"]) == (NAME, "v1", old, None)
    assert line["reason"] == f"retention: policy 2 ({NAME}): no keepTags entry matches it"
    assert (line["user"], line["client"], line["level"], line["time"][-1]) == (None, None, "info", "Z")
    assert f"untag {NAME}:v1" in [record.getMessage() for record in caplog.records]
    assert told(audit, "delete") == [] and new not in audit.read_text()
    (event,) = [event for event in history(place.store, NAME) if event["a"] == "untag"]
    assert (event["by"], event["tags"]) == (f"retention: policy 2 ({NAME})", {"v1": old})


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_goes_and_its_blobs_are_lines(kind: str, audit: Path) -> None:
    place = Place(kind)
    gone = place.push(seed="untagged")
    place.push("v1", seed="kept")
    for _ in range(5):
        place.later()
        place.collect()
    (line,) = told(audit, "delete")
    assert (line["digest_before"], line["tag"]) == (gone, None)
    assert line["reason"] == "gc: no tag and no index leads to it (deleteUntagged)"
    purged = told(audit, "purge")
    assert gone in [line["digest_before"] for line in purged] and len(purged) >= 2
    assert {line["repository"] for line in purged} == {NAME}
    assert len(told(audit, "trash")) == (len(purged) if kind == "directory" else 0)
    place.later()
    before = audit.read_text()
    place.collect()
    assert audit.read_text() == before


def test_a_rehearsal_tells_nothing(audit: Path) -> None:
    place = Directory()
    place.stray()
    place.wait(3)
    assert place.collect(dry_run=True).items and audit.read_text() == ""


def test_what_is_deleted_at_once_is_a_line(audit: Path) -> None:
    place = Directory()
    stray = place.stray()
    place.wait(0.1)
    place.collect(delay=0.0, rules=Rules(delay=0.0))
    (line,) = told(audit, "purge")
    assert line["digest_before"] == stray and line["reason"].startswith("gc: ")


def test_what_came_back_is_not_told_as_deleted(audit: Path) -> None:
    """Its other name in the trash is purged, and its content stays."""
    place = Directory()
    push_image(place.store, "a", "v1")
    stray = place.stray()
    place.wait(1.5)
    place.collect()
    assert place.store.repository("a").blob(stray)  # from the trash
    place.wait(1.5)
    place.collect()
    assert [line["digest_before"] for line in told(audit, "trash")] == [stray, stray]
    assert told(audit, "purge") == []
    place.wait(1.5)
    place.collect()
    assert [line["digest_before"] for line in told(audit, "purge")] == [stray]


def test_what_a_run_has_moved_before_it_failed_is_told(audit: Path) -> None:
    place = Directory()
    strays = [place.stray(bytes([number])) for number in range(3)]
    place.wait(1.5)
    ill = FailOn(place.driver, "rename", 2, IoFailed("the disk is ill"), lambda key: key.startswith("a/blobs"))
    report = place.collect(place.open(ill))
    assert report.errors
    gone = [str(stray) for stray in strays if not place.lies(stray)]
    assert [line["digest_before"] for line in told(audit, "trash")] == gone and gone


def test_a_tag_that_an_import_moves_is_a_line_that_names_the_source(tmp_path: Path, audit: Path) -> None:
    (tmp_path / "root").mkdir()
    store = store_over(LocalDriver(str(tmp_path / "root")))
    before = push_image(store, "app", "v1", seed="mine")
    lay_out(tmp_path, "app", images.image(seed="theirs"), "v1")
    assert imported(store, tmp_path / "app").exit_code == 0
    after = store.repository("app").manifest("v1").digest
    (line,) = told(audit, "move")
    assert (line["tag"], line["digest_before"], line["digest_after"]) == ("v1", before, after) and before != after
    assert line["reason"].startswith("import-layout: ") and str(tmp_path / "app") in line["reason"]
    assert history(store, "app")[-1]["by"] == "import-layout"
    assert imported(store, tmp_path / "app").exit_code == 0
    assert len(told(audit, "move")) == 1


def test_a_commit_that_is_decided_again_is_told_once(
    tmp_path: Path, audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another writer was first."""
    (tmp_path / "root").mkdir()
    store = store_over(LocalDriver(str(tmp_path / "root")))
    push_image(store, "app", "v1", seed="mine")
    lay_out(tmp_path, "app", images.image(seed="theirs"), "v1")
    committer = store.roots[0].committer
    commit = committer.commit

    def twice(name: str, change: Change) -> object:
        return commit(name, lambda tx, draft: (change(tx, draft.copy()), change(tx, draft))[1])

    monkeypatch.setattr(committer, "commit", twice)
    assert imported(store, tmp_path / "app").exit_code == 0
    assert len(told(audit, "move")) == 1


def test_what_an_operator_brings_back_says_so_in_the_history() -> None:
    place = Directory()
    digest = push_image(place.store, "a", "v1", seed="x")
    place.store.repository("a").delete_manifest(digest, user="bob")
    run = Run("gc", place.store)
    run.finish(lambda: restore(run, f"a@{digest}"))
    assert run.report.errors == []
    assert history(place.store, "a")[-1]["by"] == "gc --restore"


def imported(store: Store, source: Path) -> Report:
    run = Run("import-layout", store)
    return run.finish(lambda: import_layout(run, str(source), ImportOptions(overwrite=True)))


def history(store: Store, name: str) -> list[Event]:
    """What is noted and was not written yet, too."""
    (root,) = store.roots
    root.protocol.close()
    return history_of(store, name)
