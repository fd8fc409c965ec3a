"""The file of --report: what it shows, and that it is whole or not there."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import images
from tests.cli.running import zotctl
from tests.jobs.layouts import blob, flip, lay_out
from tests.stores import push_image
from tests.web.places import EVIL, Page, Place, blobs_of, place, size_of, wrong_body  # noqa: F401 - a fixture
from zotctl.config import KeepTags, Policy, Retention
from zotctl.jobs import files
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.usage import PLACES, usage
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.web import report, words
from zotctl.web.report import report_page, write_report
from zotctl.web.treemap import Area, layout


def shown(run: Run, items: list[dict[str, Any]] | None = None) -> Page:
    return Page(write_report(run.report, run, items or [], 0))


def ended(job: str, place: Place, work: Any = None, **options: Any) -> Run:  # noqa: F811
    run = Run(job, place.store, **options)
    run.finish(lambda: work(run) if work is not None else None)
    return run


# -- the map -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=40))
def test_areas_are_as_the_values_and_fill_the_map(values: list[int]) -> None:
    rectangles = layout([Area(str(value), value, "", "own") for value in values], 960, 440)
    assert len(rectangles) == len(values)
    total = sum(values)
    for one in rectangles:
        assert one.x >= -0.2 and one.x + one.width <= 960.2 and one.y >= -0.2 and one.y + one.height <= 440.2
        # To a tenth of a unit on each side, which is what is written.
        assert abs(one.width * one.height - 960 * 440 * one.area.value / total) <= 0.06 * (one.width + one.height + 1)


def test_nothing_has_no_area() -> None:
    assert layout([]) == [] and layout([Area("a", 0, "", "own")]) == []


def test_a_claim_of_any_size_has_an_area() -> None:
    (one,) = layout([Area("a", 10**400, "", "own")])
    assert (one.width, one.height) == (960.0, 440.0)


def test_a_name_that_does_not_fit_ends_as_it_ends() -> None:
    first, *others = layout([Area("a" * 300 + "/end", 9, "9 B", "own"), Area("b", 0.001, "", "own")])
    assert first.label.startswith("…") and first.label.endswith("/end") and first.note == "9 B"
    assert [one.label for one in others] == [""]


# -- what is on the page -------------------------------------------------------------------------


def test_the_space_is_what_verify_usage_says(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a", "1", seed="same")
    push_image(place.store, "b", "1", seed="same")
    push_image(place.store, "b", "2", seed="other")
    run = ended("verify", place, usage)
    told = [item for item in run.report.items if item["what"] == "repository"]
    (disk,) = (item["size_bytes"] for item in run.report.items if item["what"] == "disk")
    page = report_page(run.report, run, [], 0)
    assert page.space is not None and (page.space.disk, page.space.unknown) == (disk, 0)
    assert [(one.name, one.sizes.fields()) for _, one in page.space.repositories] == [
        (item["repository"], {name: item[name] for name in one.sizes.fields()})
        for item, (_, one) in zip(told, page.space.repositories, strict=True)
    ]
    assert bool(page.space.shared) is (place.kind == "directory") and page.space.others == 0
    assert sum(one.area.value for one in page.areas) == disk
    (b,) = (item for item in told if item["repository"] == "b")
    only = ended("verify", place, repos=["b"])
    part = report_page(only.report, only, [], 0)
    assert part.space is not None and [one.name for _, one in part.space.repositories] == ["b"]
    assert (part.space.disk, part.space.others) == (disk, sum(i["own_bytes"] for i in told) - b["own_bytes"])
    assert sum(one.area.value for one in part.areas) == disk
    texts = shown(run).rows()
    assert ["a", *(words.size(count) for count in page.space.repositories[-1][1].sizes.fields().values())] in texts


def test_what_can_not_be_looked_at_is_counted(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a", "1")
    wrong_body(place, "a", images.image().digest, b"{}")
    place.store = place.open()
    run = ended("verify", place)
    page = report_page(run.report, run, [], 0)
    assert page.space is not None and page.space.unknown == 1 and not run.report.errors
    assert "1 repository or root could not be looked at." in shown(run).texts("p")


def test_what_scrub_found(place: Place) -> None:  # noqa: F811
    push_image(place.store, "good", "1", seed="1")
    push_image(place.store, "bad", "1", seed="2")
    wrong_body(place, "bad", blobs_of("2")[1], b"x" * len(images.image("2").blobs[1]))
    place.store = place.open()
    page = shown(ended("scrub", place, lambda run: scrub(run, ScrubOptions(resume=True))))
    assert "Damage was found." in " ".join(page.texts("strong"))
    assert any(row[0] == "bad" and row[2] == "1" for row in page.rows())
    assert "zotctl scrub --repair" in page.texts("code")
    assert [shape["class"] for shape, _ in page.all("rect")].count("hurt") == 1
    assert ["Within a day", "2"] in [row[:2] for row in page.rows()]
    assert ["Never", "0"] in [row[:2] for row in page.rows()]


def test_what_lies_in_the_trash() -> None:
    place = Place("directory")  # noqa: F811
    push_image(place.store, "a", "1", seed="1")
    place.store.repository("a").delete_manifest("1")
    place.clock.at += 1000
    chosen = GcOptions(100.0, rules=Rules(delay=100.0))
    run = ended("gc", place, lambda run: gc(run, lambda _: chosen))
    page = report_page(run.report, run, [], 0)
    (one,) = page.next or []
    assert (one.trashed.repository, one.trashed.blobs) == ("a", 4)
    assert one.restore in shown(run).texts("code") and one.goes == one.trashed.moved + 100
    assert page.space is not None and page.space.rest[PLACES["trash"]] == one.trashed.size


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_collections_remove_next_is_what_they_remove(place: Place, dry_run: bool) -> None:  # noqa: F811
    """By the settings of the run that tells it."""
    kept = Policy(("**",), keep_tags=(KeepTags(patterns=("stays",)), KeepTags(pushed_within=2000.0)))
    rules = Rules(Retention(policies=(kept,)), delay=100.0)
    moved = push_image(place.store, "a", "goes", "stays", seed="1")
    push_image(place.store, "a", "stays", seed="2")
    push_image(place.store, "late", "goes", seed="3")

    def collect(run: Run) -> None:
        gc(run, lambda _: GcOptions(100.0, rules=rules))

    run = ended("gc", place, collect, dry_run=dry_run)
    page = report_page(run.report, run, [], 0)
    told = [(one.repository, one.tag, one.tag or one.digest) for one in page.coming]
    assert ("a", "goes", "goes") in told and ("a", None, str(moved)) in told and not page.more_coming
    assert [one.at for one in page.coming] == sorted(one.at for one in page.coming)
    assert all(bool(one.gone) == (one.tag is None) for one in page.coming)
    rows = shown(run).rows()
    assert any(row[:2] == ["a", "goes"] and row[2] == words.moment(page.coming[0].at) for row in rows)
    for at in sorted({one.at for one in page.coming}):
        for early in (True, False):
            place.clock.at = at - 1.5 if early else at
            found = ended("gc", place, collect, dry_run=True).report.items
            goes = {(item["repository"], item["tag"], item["digest"]) for item in found if item["action"] == "drop"}
            due = {(one.repository, one.tag, one.digest) for one in page.coming if one.at == at}
            # On a bucket a row goes by the second run that wants it.
            sure = {one for one in due if one[1] is not None or place.kind == "directory"}
            assert not goes & due if early else goes >= sure
        ended("gc", place, collect)


def test_a_page_lists_what_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_LISTED", 3)
    place = Place("directory")  # noqa: F811
    for number in range(5):
        push_image(place.store, f"r{5 - number}", seed=str(number))
        place.clock.at += 10
    run = ended("gc", place, lambda run: gc(run, lambda _: GcOptions(100.0, rules=Rules(delay=100.0))))
    page = report_page(run.report, run, [], 0)
    assert [one.repository for one in page.coming] == ["r5", "r4", "r3"] and page.more_coming
    assert any("gc --explain" in text for text in shown(run).texts("p"))
    held = ended("gc", place, lambda run: gc(run, lambda _: GcOptions(100.0, rules=Rules(delay=100.0), dry_run=True)))
    assert report_page(held.report, held, [], 0).coming == []


def test_what_was_done_is_listed_as_text(place: Place) -> None:  # noqa: F811
    run = ended("gc", place, dry_run=True)
    run.report.errors.append({"repository": EVIL, "reason": f"{EVIL} `zotctl verify` {EVIL}", "error": "X"})
    items: list[dict[str, Any]] = [
        {"action": "drop", "repository": EVIL, "tag": EVIL, "reason": EVIL, "size_bytes": "x"},
        {},
        {"digest": None},
    ]
    page = shown(run, items)
    assert not list(page.all("script"))
    (rule,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert (
        rule[0]["content"].startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in rule[0]["content"]
    )
    assert [row[1] for row in page.rows()][-3:] == ["drop", "", ""]


def test_nothing_is_foretold_by_a_clock_in_doubt_or_for_a_root_that_can_not_be_written(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push_image(place.store, "a")
    run = ended("gc", place, lambda run: gc(run, lambda _: GcOptions(100.0, rules=Rules(delay=100.0))))
    assert report_page(run.report, run, [], 0).coming
    monkeypatch.setattr(run.roots[0], "read_only", True)
    assert report_page(run.report, run, [], 0).coming == []
    monkeypatch.undo()
    run.report.codes.append(15)
    page = report_page(run.report, run, [], 0)
    assert (page.coming, page.foretells) == ([], False)


def test_a_run_that_was_stopped_measures_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    push_image(place.store, "a", "1")
    run = ended("gc", place)
    run.report.codes.append(16)
    page = report_page(run.report, run, [], 0)
    assert (page.space, page.ages, page.next, page.foretells) == (None, None, None, False)
    assert "its time limit" in page.result


def test_a_job_that_could_not_begin() -> None:
    report = Report("gc", "1", codes=[3], errors=[{"repository": "", "reason": "no such key", "error": "ConfigError"}])
    page = Page(write_report(report, None, [], 0))
    assert "no such key" in page.texts("li") and "exit 3" in " ".join(page.texts("strong"))


# -- the file ------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    lay_out(made, "team/app", images.image(), "v1")
    return made


def test_each_job_writes_one_file(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("what an earlier run said")
    layer = images.image().blobs[1]
    for job, code in (("gc", 0), ("verify", 0), ("scrub", 4)):
        if job == "scrub":
            flip(blob(root, "team/app", layer))
        done = zotctl(job, "--root", str(root), "--report", str(file), "-q")
        assert done.returncode == code, done.stderr
        page = Page(file.read_bytes())
        assert page.texts("h1") == [f"zotctl {job}"] and "team/app" in [row[0] for row in page.rows()]
    assert os.listdir(root / ".zotctl/runs") == ["gc"]
    assert sorted(os.listdir(tmp_path)) == ["report.html", "root"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~_umask()


def test_usage_has_a_report_with_the_size_of_each_tag(root: Path, tmp_path: Path) -> None:
    lay_out(root, "other", images.image("y"), "v2")
    file = tmp_path / "usage.html"
    done = zotctl("verify", "--usage", "--root", str(root), "--report", str(file), "--json")
    assert done.returncode == 0, done.stderr
    page = Page(file.read_bytes())
    tags = {item["tag"]: item for item in json.loads(done.stdout)["items"] if item["what"] == "tag"}
    rows = {row[2]: row for row in page.rows()[-2:]}
    assert "What each tag takes" in page.texts("h2") and rows.keys() == tags.keys() == {"v1", "v2"}
    for tag, row in rows.items():
        own, freed = (words.size(tags[tag][f"{of}_bytes"]) for of in ("own", "freed"))
        assert row[0] == tags[tag]["repository"] and row[3:] == [
            words.size(tags[tag]["size_bytes"]), f"{own} own, frees {freed}"
        ]  # fmt: skip


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def test_a_layout_and_an_archive_have_a_report_too(root: Path, tmp_path: Path) -> None:
    layout, archive, file = root / "team/app", tmp_path / "a.tar", tmp_path / "report.html"
    with tarfile.open(archive, "w") as tar:
        tar.add(layout, ".")
    for target, rows in ((layout, ["app"]), (archive, [])):
        assert zotctl("verify", str(target), "--report", str(file)).returncode == 0
        assert [row[0] for row in Page(file.read_bytes()).rows()][: len(rows)] == rows


def test_what_can_not_be_shown_is_refused(root: Path, tmp_path: Path) -> None:
    for command in (
        ("gc", "--list-trash", "--report", "x.html"),
        ("verify", "--probe", "--report", "x.html"),
        ("scrub", "--report", "none/x.html"),
        ("scrub", "--report", "."),
    ):
        done = zotctl(*command, "--root", str(root), cwd=tmp_path)
        assert done.returncode == 2 and "--report" in done.stderr, command
    assert not (tmp_path / "x.html").exists()


def test_a_file_that_can_not_be_written_ends_the_run_with_1(root: Path, tmp_path: Path) -> None:
    (tmp_path / "x.html.tmp").mkdir()
    done = zotctl("gc", "--root", str(root), "--report", "x.html", cwd=tmp_path)
    assert done.returncode == 1 and "--report" in done.stderr


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")

    def fail(descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        files.replace_file(str(path), b"after")
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["x"]
