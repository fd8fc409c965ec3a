"""Whatever call of the operating system fails in a job: it ends with an exit code that has a meaning, never with 70.

The normal run takes a sample of the calls of each job; ZOTCTL_FAULTS=all takes all.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from itertools import count
from pathlib import Path

import pytest

import zotctl.cli
import zotctl.cli.app
import zotctl.cli.jobs
import zotctl.jobs.run
from tests.faultproof.os_errors import OsErrors
from tests.stores import push_blob, push_image, store_over
from zotctl.config import RootConfig
from zotctl.errors import NoSuchStore, ZotctlError
from zotctl.storage.clock import Clock
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.opening import open_root

EVERY = os.environ.get("ZOTCTL_FAULTS") == "all"
STRIDE = 1 if EVERY else 89
NUMBERS = (errno.ENOENT, errno.EIO, errno.ESTALE, errno.EACCES, errno.ELOOP, errno.ENOLCK, errno.EBUSY, errno.ENOSPC)
JOBS = (
    ["gc"], ["gc", "--delay", "0s"], ["gc", "--dry-run"], ["gc", "--restore", "a"], ["gc", "--explain", "a:v1"],
    ["dedupe"], ["dedupe", "--undo"], ["scrub"], ["scrub", "--repair"], ["verify"],
    ["import-layout", "SOURCE", "--repo", "new"], ["import-layout", "SOURCE", "--repo", "new", "--move"],
    ["import-layout", "SOURCE", "--repo", "new", "--link"],
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root, with what is shared, what is not, and zot's databases; and a source to import."""
    place = tmp_path_factory.mktemp("made")
    root = place / "root"
    root.mkdir()
    store = store_over(LocalDriver(str(root)))
    for name in ("a", "b/c"):
        push_image(store, name, "v1", seed="s", layers=2)
    push_blob(store.repository("a"), b"stray")
    store.close()
    shutil.copytree(root / "a", root / "copied")
    shutil.copytree(root / "a", place / "source")
    for name in ("cache.db", "meta.db"):
        (root / name).write_bytes(b"of zot")
    return place


@pytest.mark.parametrize("onward", [False, True], ids=["once", "onward"])
@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_a_root_that_can_not_be_opened_is_told_as_such(made: Path, number: int, onward: bool) -> None:
    for at in count(1):
        errors = OsErrors(str(made / "root"), number, at, onward=onward)
        with errors.active():
            try:
                open_root(RootConfig(path=str(made / "root")), Clock()).protocol.close()
            except ZotctlError as error:
                assert error.exit_code != 70, errors.hit
        if not errors.hit:
            break


def test_a_root_that_goes_away_while_it_is_opened_is_no_store(made: Path) -> None:
    """As a mount does that is taken down: exit 10, from whatever call."""
    for at in count(3):
        errors = OsErrors(str(made / "root"), errno.ENOENT, at, onward=True)
        with errors.active():
            try:
                open_root(RootConfig(path=str(made / "root")), Clock()).protocol.close()
            except NoSuchStore as error:
                assert str(made / "root") in error.message and "is it mounted?" in error.message
            except ZotctlError as error:
                assert "is it mounted?" in error.message, errors.hit
        if not errors.hit:
            break


@pytest.mark.parametrize("onward", [False, True], ids=["once", "onward"])
@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_no_failed_call_ends_a_job_as_a_bug(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: list[str], onward: bool
) -> None:
    monkeypatch.setattr(zotctl.jobs.run, "give_way", lambda: None)
    monkeypatch.setattr(zotctl.cli.jobs, "_stop_on_signals", lambda: None)
    for number in NUMBERS if EVERY else (errno.EIO, errno.ENOENT):
        for at in count(5, STRIDE):
            place = tmp_path / "place"
            shutil.copytree(made, place)
            words = [str(place / "source") if word == "SOURCE" else word for word in job]
            monkeypatch.setattr(sys, "argv", ["zotctl", *words, "--root", str(place / "root")])
            errors = OsErrors(str(place), number, at, onward=onward)
            with errors.active():
                code = zotctl.cli._run()
            assert code != 70, f"{errno.errorcode[number]} of call {at}, {errors.hit}"
            shutil.rmtree(place)
            if not errors.hit:
                break
