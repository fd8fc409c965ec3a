"""Collection where manifests are damaged: nothing goes, and what is told is what is the matter."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tests import images
from tests.buckets import bucket  # noqa: F401 - a fixture
from tests.jobs.bucketing import Place, flipped, opened, place, run_job  # noqa: F401 - a fixture
from tests.jobs.layouts import blob, cut, flip, lay_out, run_scrub, store_of
from tests.stores import push_image
from zotctl.errors import Referenced
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.explain import explain
from zotctl.jobs.finding import Finding
from zotctl.jobs.gc import gc, gc_settings
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.jobs.schedule import log_report
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.facts import DAMAGED_REASON as ASIDE

IMAGE = images.image()
SETTINGS = gc_settings()


def collect(store: Store) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: gc(run, SETTINGS))


def only(report: Report) -> Finding:
    (finding,) = report.findings
    assert (finding.repository, finding.digest, finding.tags) == ("a", IMAGE.digest, ("v1",))
    assert (report.exit_code, report.summary["repositories_left_alone"]) == (5, 1)
    return finding


def test_a_manifest_that_is_known_bad_is_not_called_missing(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    flip(blob(tmp_path, "a", IMAGE.manifest))
    run_scrub(store_of(tmp_path))
    finding = only(collect(store_of(tmp_path)))
    assert (finding.kind, finding.reason) == ("digest_mismatch", f"nothing is collected in a: {ASIDE}")
    explained = Run("gc", store_of(tmp_path))
    (item,) = explained.finish(lambda: explain(explained, "a", SETTINGS)).items
    assert ASIDE in item["why"]
    # A client that wants to delete hears of it, too.
    with pytest.raises(Referenced, match=f"{ASIDE}; push it again or delete it first"):
        store_of(tmp_path).repository("a").delete_blob(digest_of(IMAGE.blobs[0]))


def test_nor_is_an_empty_one(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    cut(blob(tmp_path, "a", IMAGE.manifest), 0)
    assert only(collect(store_of(tmp_path))).reason == f"nothing is collected in a: {ASIDE}"


def test_one_that_is_missing_is(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    blob(tmp_path, "a", IMAGE.manifest).unlink()
    finding = only(collect(store_of(tmp_path)))
    assert finding.kind == "missing_manifest"
    assert finding.reason == "nothing is collected in a: the manifest is not there"


def test_on_a_bucket(place: Place) -> None:  # noqa: F811
    push_image(opened(place), "a", "v1")
    place.rewrite(keys.blob("a", IMAGE.digest), flipped)
    run_job(opened(place), "scrub", lambda run: scrub(run, ScrubOptions()))
    finding = only(collect(opened(place)))
    assert (finding.kind, finding.reason) == ("digest_mismatch", f"nothing is collected in a: {ASIDE}")


def test_the_log_of_a_server_has_the_way_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    flip(blob(tmp_path, "a", IMAGE.manifest))
    store = store_of(tmp_path)
    with caplog.at_level(logging.WARNING):
        log_report(collect(store), store.roots[0])
    assert "gc: to heal what is damaged or missing: push it again, or run `zotctl scrub --repair`" in caplog.text


def explained(root: Path, what: str) -> Report:
    run = Run("gc", store_of(root))
    return run.finish(lambda: explain(run, what, SETTINGS))


def test_explain_names_the_manifest_because_of_which_nothing_goes(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    blob(tmp_path, "a", IMAGE.manifest).unlink()
    (item,) = explained(tmp_path, "a").items
    assert item["why"] == f"nothing is collected in this repository: {IMAGE.digest}: the manifest is not there"


def test_explain_names_all_of_them_each_once(tmp_path: Path) -> None:
    store, other = store_of(tmp_path), images.image("other")
    push_image(store, "a", "v1")
    push_image(store, "a", "v2", seed="other")
    store.close()
    for made in (IMAGE, other):
        blob(tmp_path, "a", made.manifest).unlink()
    (item,) = explained(tmp_path, "a").items
    reasons = str(item["why"]).removeprefix("nothing is collected in this repository: ").split("; ")
    assert sorted(reasons) == sorted(f"{one.digest}: the manifest is not there" for one in (IMAGE, other))


def test_explain_names_a_row_that_has_no_digest(tmp_path: Path) -> None:
    lay_out(tmp_path, "a", IMAGE, "v1")
    index = tmp_path / "a" / "index.json"
    document = json.loads(index.read_bytes())
    document["manifests"].append({"mediaType": OCI_MANIFEST, "digest": "sha256:none", "size": 1})
    index.write_text(json.dumps(document))
    (item,) = explained(tmp_path, "a").items
    assert str(item["why"]).startswith("nothing is collected in this repository: ")
    assert "sha256:none" in str(item["why"]) and ": : " not in str(item["why"])


def test_explain_does_not_deny_what_it_could_not_look_at(tmp_path: Path) -> None:
    lay_out(tmp_path, "cut", IMAGE, "v1")
    (tmp_path / "cut" / "index.json").write_text("{")
    report = explained(tmp_path, "cut")
    assert (report.exit_code, [error["repository"] for error in report.errors]) == (5, ["cut"])
    assert explained(tmp_path, "nowhere").exit_code == 10
