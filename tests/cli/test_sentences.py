"""How `dedupe` and `import-layout` end: in sentences, and silently with -q if all is well."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.cli.running import zotctl
from tests.jobs.layouts import lay_out
from zotctl.cli.importing import ImportText
from zotctl.cli.sharing import SharingText
from zotctl.jobs.report import Report

IMAGE = images.image()


def last_line(capsys: pytest.CaptureFixture[str], sink: Any, report: Report) -> str:
    sink.close(report)
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("summary", "dry", "said"),
    [
        ({"repositories": 2, "blobs": 8}, False, "Checked 8 blobs in 2 repositories: nothing to change."),
        ({"repositories": 1, "blobs": 8, "linked": 1, "saved_bytes": 2048, "left_unlike": 3}, False,
         "Checked 8 blobs in 1 repository: 1 copy linked to equal content (2.0 KiB freed); left as they are: 3 of "
         "another owner or mode."),
        ({"repositories": 2, "pooled": 2, "pooled_bytes": 5, "dropped": 3, "dropped_bytes": 9}, False,
         "Checked 2 repositories: 2 blobs put into the pool (5 B), 3 old copies deleted (9 B)."),
        ({"repositories": 2, "copied": 2, "copied_bytes": 5}, True,
         "Checked 2 repositories: 2 blobs would be copied into repositories (5 B). Dry run: nothing was changed."),
    ],
)  # fmt: skip
def test_the_end_of_dedupe(capsys: pytest.CaptureFixture[str], summary: dict[str, Any], dry: bool, said: str) -> None:
    assert last_line(capsys, SharingText(False), Report("dedupe", "1", dry, summary=summary)) == said


def test_the_end_of_an_import(capsys: pytest.CaptureFixture[str]) -> None:
    sink = ImportText(False, dry_run=False)
    for name in ("a", "b", "b"):
        sink.item({"action": "import", "repository": name, "tag": "v1", "digest": "d", "size_bytes": 3, "source": "s"})
    summary = {"repositories": 3, "imported": 3, "unchanged": 1, "tags_kept": 2, "blobs": 4, "copied_bytes": 3}
    assert last_line(capsys, sink, Report("import-layout", "1", summary=summary, codes=[16])) == (
        "Imported 3 images into 2 repositories (4 blobs, 3 B copied), 1 image is there already, 2 tags kept as they "
        "were, stopped at --max-duration."
    )


def test_a_store_is_shared_and_separated_in_sentences(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lay_out(tmp_path / "root", name, IMAGE, "v1")
    words = ("dedupe", "--root", str(tmp_path / "root"))
    rehearsal = zotctl(*words, "--dry-run")
    assert "4 copies would be linked to equal content" in rehearsal.stdout, "also where nobody has served"
    assert rehearsal.stdout.endswith("Dry run: nothing was changed.\n")
    assert not (tmp_path / "root/.zotctl").exists()
    assert zotctl(*words).stdout.splitlines()[0].startswith("b: 4 copies linked to equal content (")
    for more in ((), ("--undo",)):
        done = zotctl(*words, "--quiet", *more)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_mirror_removes_in_sentences(tmp_path: Path) -> None:
    """What stays is told, too."""
    source = lay_out(tmp_path / "source", "a", IMAGE, "v1").parent
    gone = lay_out(source, "gone", IMAGE, "v1")
    (tmp_path / "images").mkdir()
    mirror = ("import-layout", str(source), "--root", str(tmp_path / "images"), "--mirror")
    assert zotctl(*mirror).returncode == 0
    shutil.rmtree(gone)
    why = f"removed: {source} has no such repository"
    done = zotctl(*mirror, "--dry-run")
    assert done.stdout.splitlines() == [
        f"gone:v1 would be {why} ({IMAGE.digest})",
        f"gone@{IMAGE.digest} would be {why}",
        "Would import nothing, 1 image is there already, 2 tags and manifests would be removed (1 repository as a "
        "whole). Dry run: nothing was imported or removed.",
    ]
    gone.mkdir()
    done = zotctl(*mirror)
    assert done.returncode == 5 and done.stdout.splitlines() == [
        f"gone left as it is: {source} has no such repository, as far as it could be read",
        "Imported nothing, 1 image is there already, nothing removed from 1 repository, 1 error.",
    ]
    gone.rmdir()
    assert zotctl(*mirror).stdout.splitlines() == [
        f"gone:v1 {why} ({IMAGE.digest})",
        f"gone@{IMAGE.digest} {why}",
        "Imported nothing, 1 image is there already, 2 tags and manifests removed (1 repository as a whole).",
    ]


def test_images_come_in_sentences(tmp_path: Path) -> None:
    lay_out(tmp_path / "source", "a", IMAGE, "v1")
    (tmp_path / "root").mkdir()
    words = ("import-layout", str(tmp_path / "source"), "--root", str(tmp_path / "root"))
    rehearsal = zotctl(*words, "--dry-run").stdout
    assert rehearsal.startswith(f"a:v1 would be imported from {tmp_path}/source/a ({IMAGE.digest}, ")
    assert zotctl(*words).stdout.splitlines()[1].startswith("Imported 1 image into 1 repository (4 blobs, ")
    assert zotctl(*words).stdout.splitlines() == [
        f"a:v1 is there already: {IMAGE.digest}", "Imported nothing, 1 image is there already."
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "root/a")
    done = zotctl(*words, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
