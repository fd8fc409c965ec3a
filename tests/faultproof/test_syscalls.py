"""Kill a command at each of its system calls, or let the call fail: what is left is a store, and nothing is lost.

The normal run takes a sample of the calls, of each kind the first and the last; ZOTCTL_FAULTS=all takes all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import images
from tests.faultproof import push_once
from tests.faultproof.checks import faults_of, files_below, tags
from tests.faultproof.push_once import BASE_LAYER, NAME, NEW, OLD, TAG
from tests.faultproof.stracing import CHANGING, Outcome, Tracer
from tests.tools import need
from zotctl.errors import IoFailed
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.local.driver import LocalDriver

EVERY = os.environ.get("ZOTCTL_FAULTS") == "all"
COMMITS = pytest.mark.parametrize("commit", [False, True], ids=["lazy", "commit"])
WRITERS = ["push", "push_first", "push_shared", "mount", "untag", "delete_manifest", "delete_blob"]
REFUSED = ["delete_used_blob"]
"""Told no, even when nothing fails."""

OLD_DIGEST, NEW_DIGEST = str(images.image(OLD, layers=1).digest), str(images.image(NEW, layers=1).digest)
UNUSED = keys.blob(NAME, digest_of(BASE_LAYER))
EMPTY_INDEX = b'{"schemaVersion":2,"manifests":[]}'
IO_ERRORS = {"IoFailed", "Unavailable"}
NO_SPACE_CALLS = (
    "mkdir", "openat", "write", "writev", "link", "linkat", "rename", "renameat2", "fdatasync", "fsync", "fallocate",
)  # fmt: skip


@pytest.fixture(scope="module")
def tracer() -> Iterator[Tracer]:
    need("strace")
    made = Tracer()
    yield made
    made.close()


def sample(count: int, most: int) -> list[int]:
    """Which of the calls 1 to `count`: the first, the last and some between."""
    if EVERY or count <= most:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (most - 1)) for step in range(most)}) if most > 1 else [count]


class Sweep:
    """One action, disturbed at one call after the other, each time on a fresh store."""

    def __init__(self, tracer: Tracer, base: Path, action: str, commit: bool) -> None:
        self._tracer, self._base, self.action, self.commit = tracer, base, action, commit
        self.seen: set[str | None] = set()

    def calls(self, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, int]]:
        counts = self._tracer.calls(self.action, self._root("calls"), commit=self.commit)
        for call, count in counts.items():
            if wanted(call):
                yield from ((call, number) for number in sample(count, most))

    def disturb(self, call: str, number: int, how: str) -> tuple[Outcome, Path]:
        root = self._root(f"{call}-{number}")
        inject = f"{call}:{how}:when={number}"
        outcome = self._tracer.run(self.action, root, commit=self.commit, inject=inject)
        self.seen.add(outcome.error)
        return outcome, root

    def _root(self, name: str) -> Path:
        root = self._base / name
        root.mkdir()
        push_once.prepare(str(root), commit=self.commit)
        return root

    def assert_whole(self, outcome: Outcome, root: Path, where: str, *, killed: bool) -> None:
        """I1 to I5 now, and after the same command once more, which must work."""
        files = files_below(root)
        assert faults_of(files, temps=killed) == [], where
        self._assert_result(outcome.ack, files, where)
        again = push_once.run(self.action, str(root), commit=self.commit)
        done_before = self.action.startswith(("untag", "delete")) and again["kind"] == "oci"
        assert again["ack"] or done_before, (where, again)
        files = files_below(root)
        assert faults_of(files) == [], (where, "and again")
        self._assert_result(again["ack"] or done_before, files, where)

    def _assert_result(self, ack: bool, files: dict[str, bytes], where: str) -> None:
        """I4: what was acknowledged is so; otherwise it is as before or as wanted, and nothing else changed."""
        rows = files[keys.index(NAME)].decode()
        if self.action == "push":
            assert tags(files, NAME)[TAG] in ([NEW_DIGEST] if ack else [OLD_DIGEST, NEW_DIGEST]), where
        elif self.action in ("push_first", "push_shared") and ack:
            name = "fresh/one" if self.action == "push_first" else "fresh/two"
            assert tags(files, name)[TAG] == (NEW_DIGEST if self.action == "push_first" else OLD_DIGEST), where
        elif self.action == "mount" and ack:
            assert keys.blob("fresh/three", digest_of(BASE_LAYER)) in files, where
        elif self.action == "delete_blob" and ack:
            assert UNUSED not in files, where
        elif self.action == "delete_manifest" and ack:
            assert OLD_DIGEST not in rows, where
        if self.action == "untag":
            assert OLD_DIGEST in rows, where
            assert not ack or TAG not in tags(files, NAME), where
        elif self.action not in ("push", "delete_manifest"):
            assert tags(files, NAME) == {TAG: OLD_DIGEST}, where
        if self.action != "delete_blob":
            assert UNUSED in files, where


@pytest.fixture
def sweep(tracer: Tracer, tmp_path: Path) -> Callable[[str, bool], Sweep]:
    return lambda action, commit: Sweep(tracer, tmp_path, action, commit)


@COMMITS
@pytest.mark.parametrize("action", WRITERS)
def test_i1_to_i5_killed_at_a_call(sweep: Callable[[str, bool], Sweep], action: str, commit: bool) -> None:
    one = sweep(action, commit)
    killed = 0
    for call, number in one.calls(lambda call: call in CHANGING, most=3 if commit else 4):
        outcome, root = one.disturb(call, number, "signal=KILL")
        one.assert_whole(outcome, root, f"killed at {call} {number}", killed=True)
        killed += outcome.killed
    assert killed > 5


@COMMITS
@pytest.mark.parametrize("action", [*WRITERS, *REFUSED])
def test_i3_i5_io_error_at_a_call(sweep: Callable[[str, bool], Sweep], action: str, commit: bool) -> None:
    """An error of ours and nothing else; nothing half-done is left; an unreadable manifest protects (I5)."""
    one = sweep(action, commit)
    for call, number in one.calls(lambda call: True, most=2 if commit else 3):
        outcome, root = one.disturb(call, number, "error=EIO")
        where = f"EIO at {call} {number}: {outcome}"
        assert outcome.ack or outcome.error in IO_ERRORS or (action in REFUSED and outcome.error == "Referenced"), where
        assert not (outcome.ack and action in REFUSED), where
        if action not in REFUSED:
            one.assert_whole(outcome, root, where, killed=call in ("unlink", "close"))
        else:
            assert faults_of(files_below(root)) == [], where
    assert one.seen & IO_ERRORS


@pytest.mark.parametrize("action", ["read_all"])
def test_i15_io_error_while_reading(sweep: Callable[[str, bool], Sweep], action: str) -> None:
    one = sweep(action, False)
    for call, number in one.calls(lambda call: True, most=5):
        outcome, _ = one.disturb(call, number, "error=EIO")
        assert outcome.ack or outcome.error in IO_ERRORS, f"EIO at {call} {number}: {outcome}"
    assert one.seen & IO_ERRORS


@COMMITS
@pytest.mark.parametrize("action", WRITERS)
def test_i3_no_space_at_a_call(sweep: Callable[[str, bool], Sweep], action: str, commit: bool) -> None:
    one = sweep(action, commit)
    for call, number in one.calls(lambda call: call in NO_SPACE_CALLS, most=2 if commit else 3):
        outcome, root = one.disturb(call, number, "error=ENOSPC")
        where = f"ENOSPC at {call} {number}: {outcome}"
        assert outcome.ack or outcome.error == "NoSpace", where
        one.assert_whole(outcome, root, where, killed=False)
        if "(open)" not in outcome.text:  # no open of a file that is there ever meets a full disk
            assert os.listdir(root / keys.UPLOADS) == [], f"{where}: the bytes of the upload are not free"
    assert "NoSpace" in one.seen


@pytest.mark.parametrize("code", ["EMLINK", "EXDEV", "EPERM"])
@pytest.mark.parametrize("action", ["push", "push_first", "push_shared", "mount"])
def test_i7_no_link_to_be_had(sweep: Callable[[str, bool], Sweep], action: str, code: str) -> None:
    """Not an error: the bytes get a name of their own. A mount is told to send them (202)."""
    one = sweep(action, False)
    for call, number in one.calls(lambda call: call in ("link", "linkat"), most=9 if code == "EMLINK" else 2):
        outcome, root = one.disturb(call, number, f"error={code}")
        where = f"{code} at {call} {number}: {outcome}"
        assert outcome.ack or (action == "mount" and outcome.error == "AssertionError"), where
        one.assert_whole(outcome, root, where, killed=False)


@pytest.mark.parametrize("action", ["push", "delete_blob", "untag"])
def test_no_lock_to_be_had(sweep: Callable[[str, bool], Sweep], action: str) -> None:
    one = sweep(action, False)
    for call, number in one.calls(lambda call: call == "fcntl", most=9):
        outcome, root = one.disturb(call, number, "error=ENOLCK")
        where = f"ENOLCK at {call} {number}: {outcome}"
        assert outcome.ack or outcome.error == "NoLocks", where
        one.assert_whole(outcome, root, where, killed=False)
    assert "NoLocks" in one.seen


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_i1_who_made_the_layout_died_between_its_files(tmp_path: Path, name: str) -> None:
    """The sweep finds this only when all calls are taken."""
    push_once.prepare(str(tmp_path), commit=False)
    made = tmp_path / "fresh" / "one"
    (made / "blobs" / "sha256").mkdir(parents=True)
    (made / name).write_bytes((tmp_path / NAME / name).read_bytes() if name == "oci-layout" else EMPTY_INDEX)
    assert push_once.run("push_first", str(tmp_path), commit=False)["ack"]
    assert faults_of(files_below(tmp_path)) == []


def test_a_lock_that_can_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = LocalDriver(str(tmp_path)).lock("lock", 7)
    assert lock is not None

    def broken(fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("zotctl.storage.local.driver.os.fstat", broken)
    with pytest.raises(IoFailed):
        lock.current()
    monkeypatch.undo()
    assert LocalDriver(str(tmp_path)).lock("lock", 7) is not None, "it was let go"


@pytest.mark.parametrize("how", ["error=EIO", "error=ENOSPC"])
def test_no_descriptor_is_lost_on_an_error(sweep: Callable[[str, bool], Sweep], how: str) -> None:
    one = sweep("push", True)
    undisturbed, _ = one.disturb("rename", 99, how)
    for call, number in one.calls(lambda call: call != "close", most=2):
        outcome, _ = one.disturb(call, number, how)
        assert outcome.open_files <= undisturbed.open_files, f"{how} at {call} {number}: {outcome}"
