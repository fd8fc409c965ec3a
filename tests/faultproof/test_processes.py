"""Several processes on one store: killed, frozen, and beside a tool that knows nothing of our locks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests import images
from tests.faultproof.checks import faults_of, files_below, tags
from tests.faults import Meanwhile
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import Busy, ManifestUnknown, NameUnknown
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Capabilities
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.index_file import IndexFiles
from zotctl.storage.local.protocol import local_of
from zotctl.storage.locks import Locks
from zotctl.storage.wrappers import WrappedDriver

HERE = Path(__file__).parents[2]
NAME = "team/app"


@contextmanager
def worker(*words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faultproof.worker", *map(str, words)]
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def acknowledged(lines: list[str]) -> dict[str, str]:
    """A line that a kill has cut short doesn't count."""
    return dict(line.split() for line in lines if line.endswith("\n") and not line.startswith("failed"))


def collect(process: subprocess.Popen[str], lines: list[str], seen: Callable[[], None]) -> threading.Thread:
    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            seen()

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def run_pushers(root: Path, *, count: int, killed: int | None, threads: int = 2) -> tuple[dict[str, str], list[str]]:
    """Three processes push into one repository; one of them is killed in the middle of it."""
    lines: list[list[str]] = [[], [], []]
    with ExitStack() as stack:
        counts = [1000 if number == killed else count for number in range(3)]  # or it ends before it is killed
        running = [stack.enter_context(worker("push", root, NAME, f"p{n}", threads, counts[n])) for n in range(3)]

        def kill_when_going(number: int) -> Callable[[], None]:
            def seen() -> None:
                if number == killed and len(lines[number]) == count // 2:
                    running[number].send_signal(signal.SIGKILL)

            return seen

        readers = [collect(p, lines[n], kill_when_going(n)) for n, p in enumerate(running)]
        for reader in readers:
            reader.join(60)
        codes = [process.wait(10) for process in running]
    assert codes == [-9 if number == killed else 0 for number in range(3)]
    told: dict[str, str] = {}
    for some in lines:
        told |= acknowledged(some)
    return told, [line for some in lines for line in some if line.startswith("failed")]


def test_i4_one_of_three_processes_is_killed(tmp_path: Path) -> None:
    told, failed = run_pushers(tmp_path, count=8, killed=1)
    files = files_below(tmp_path)
    assert faults_of(files) == []
    assert failed == []
    there = tags(files, NAME)
    assert {tag: there.get(tag) for tag in told} == told
    assert len(told) >= 2 * 2 * 8
    assert push_image(store_over(LocalDriver(str(tmp_path))), NAME, "after")


def test_i4_sixteen_pushers(tmp_path: Path) -> None:
    """Four threads in each of three processes and four here."""
    store, told = store_over(LocalDriver(str(tmp_path))), {}
    lock = threading.Lock()

    def pusher(number: int) -> None:
        for turn in range(3):
            tag = f"here-{number}-{turn}"
            digest = str(push_image(store, NAME, tag, seed=tag, layers=1))
            with lock:
                told[tag] = digest

    threads = [threading.Thread(target=pusher, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    others, failed = run_pushers(tmp_path, count=3, killed=None, threads=4)
    for thread in threads:
        thread.join()
    told |= others
    assert (failed, len(told)) == ([], 16 * 3)
    files = files_below(tmp_path)
    assert faults_of(files, temps=False) == []
    assert tags(files, NAME) == told
    assert store.repository(NAME).tags() == sorted(told)


def test_i4_without_a_lock_tags_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of the two above: another one commits between the last look of a commit and its rename."""
    monkeypatch.setattr(Locks, "_take", lambda self, name: self.process_locks.take(object()))
    # Or else the first one would find that its new file is gone, and begin again.
    monkeypatch.setattr(IndexFiles, "_remove_swaps", lambda self, name, ours: None)
    # What comes out of a swap would be taken in.
    driver = LocalDriver(str(tmp_path), capabilities=Capabilities(exchange=False))
    told = {"first": str(push_image(store_over(driver), NAME, "first"))}

    def commit_between() -> None:
        told["between"] = str(push_image(store_over(driver), NAME, "between", seed="between"))

    late = Meanwhile(driver, "rename", commit_between, lambda key: keys.INDEX_TEMP_PREFIX in key)
    told["late"] = str(push_image(store_over(late), NAME, "late", seed="late"))
    there = tags(files_below(tmp_path), NAME)
    assert {tag for tag, digest in told.items() if there.get(tag) != digest} == {"between"}


def impatient(root: Path, deadline: float) -> Store:
    store = store_over(LocalDriver(str(root)))
    context = local_of(store.roots[0]).context
    context.locks = Locks(context.driver, context.clock, deadline)
    return store


def test_i10_a_frozen_holder_of_the_lock(tmp_path: Path) -> None:
    """Others are told to come again; other repositories and readers don't notice; its death frees the lock."""
    store = impatient(tmp_path, 0.2)
    old = push_image(store, NAME, "v1", seed="old")
    new = images.image("new")
    for blob in new.blobs:
        push_blob(store.repository_for_push(NAME), blob)
    with worker("hold", tmp_path, NAME) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(Busy):
            push_image(store, NAME, "v1", seed="new")
        assert time.monotonic() - start < 20
        with pytest.raises(Busy):
            store.repository_for_push(NAME).delete_manifest("v1")
        assert store.repository(NAME).manifest("v1").digest == old
        push_image(store, "another/one", "v1")
        assert os.listdir(tmp_path / keys.TMP) == []
        holder.kill()
        holder.wait()
        assert push_image(store, NAME, "v1", seed="new") == new.digest
    assert faults_of(files_below(tmp_path)) == []


# -- a foreign tool, which truncates index.json and writes it ------------------------------------


def foreign_tag(
    root: Path, tag: str, *, pause: float = 0.0, replace: bool = False, begun: threading.Event | None = None
) -> None:
    """As skopeo does: read, add a row, truncate, write; no lock. `replace`: by rename, as others do. `begun`: from then
    on nothing that somebody else writes is lost by what was read before."""
    path = root / keys.index(NAME)
    made = images.image("foreign")
    (root / keys.blob(NAME, made.digest)).write_bytes(made.manifest)
    for blob in made.blobs:
        (root / keys.blob(NAME, digest_of(blob))).write_bytes(blob)
    while True:
        try:
            document = json.loads(path.read_bytes())
            break
        except ValueError:
            continue
    document["manifests"].append(images.row(made, tag))
    if replace:
        beside = path.with_name("theirs")
        beside.write_text(json.dumps(document))
        beside.rename(path)
        return
    with path.open("r+b", buffering=0) as file:
        file.truncate()
        if begun is not None:
            begun.set()
        time.sleep(pause)
        body = json.dumps(document).encode()
        file.write(body[: len(body) // 2])
        time.sleep(pause)
        file.write(body[len(body) // 2 :])


def test_i4_a_foreign_tool_writes_in_place_meanwhile(tmp_path: Path) -> None:
    """One that has read after our last rename loses nothing, and we wait while it is in the middle of writing."""
    store = store_over(LocalDriver(str(tmp_path)))
    told = {"v0": str(push_image(store, NAME, "v0", seed="0"))}
    for turn in range(1, 6):
        begun = threading.Event()
        options = {"pause": 0.03, "begun": begun}
        writer = threading.Thread(target=foreign_tag, args=(tmp_path, f"f{turn}"), kwargs=options)
        writer.start()
        assert begun.wait(30)
        told[f"v{turn}"] = str(push_image(store, NAME, f"v{turn}", seed=str(turn)))
        writer.join()
        store.maintain()
        there = tags(files_below(tmp_path), NAME)
        assert {tag: there.get(tag) for tag in told} == told
        assert there[f"f{turn}"] == str(images.image("foreign").digest)
    assert faults_of(files_below(tmp_path)) == []
    store.close()


class Between(WrappedDriver):
    """Runs something once, right before the rename of index.json or right before the look that precedes it."""

    def __init__(self, root: Path, *, before_look: bool) -> None:
        super().__init__(LocalDriver(str(root)))
        self._before_look = before_look
        self.then: Callable[[], None] | None = None

    def create(self, key: str):  # type: ignore[no-untyped-def]
        if self._before_look and keys.INDEX_TEMP_PREFIX in key:
            self._run()
        return super().create(key)

    def rename(self, source: str, target: str) -> None:
        if not self._before_look and target == keys.index(NAME):
            self._run()
        super().rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        if not self._before_look and other == keys.index(NAME):
            self._run()
        super().exchange(one, other)

    def _run(self) -> None:
        then, self.then = self.then, None
        if then:
            then()


@pytest.mark.parametrize(
    ("before_look", "replace"),
    [(True, False), (True, True), (False, False), (False, True)],
    ids=["in place", "by rename", "late", "late by rename"],
)
def test_i4_a_foreign_write_just_before_the_rename(tmp_path: Path, before_look: bool, replace: bool) -> None:
    """The second look finds it; after that look what comes out of the swap tells."""
    driver = Between(tmp_path, before_look=before_look)
    store = store_over(driver)
    push_image(store, NAME, "v1", seed="1")
    driver.then = lambda: foreign_tag(tmp_path, "f1", replace=replace)
    ours = str(push_image(store, NAME, "v2", seed="2"))
    store.maintain()
    there = tags(files_below(tmp_path), NAME)
    assert there["f1"] == str(images.image("foreign").digest)
    assert (there["v2"], set(there)) == (ours, {"v1", "v2", "f1"})
    assert store.repository(NAME).tags() == ["f1", "v1", "v2"]
    store.close()


@pytest.mark.parametrize("halves", [False, True], ids=["at once", "in two halves"])
def test_i4_a_foreign_write_after_the_rename(tmp_path: Path, halves: bool) -> None:
    """It had the file open: what it writes into the inode without a name is taken over; what we deleted since isn't."""
    store = store_over(LocalDriver(str(tmp_path)))
    push_image(store, NAME, "v1", seed="1")
    push_image(store, NAME, "gone", seed="2")
    path = tmp_path / keys.index(NAME)
    made = images.image("3")
    for blob in (made.manifest, *made.blobs):
        push_blob(store.repository_for_push(NAME), blob)
    with path.open("r+b", buffering=0) as file:
        document = json.loads(file.read())
        store.repository_for_push(NAME).delete_manifest("gone")
        document["manifests"].append(images.row(made, "f1"))
        body = json.dumps(document).encode()
        file.seek(0)
        file.truncate()
        if halves:
            file.write(body[:100])
            store.maintain()
            file.write(body[100:])
        else:
            file.write(body)
    store.maintain()
    assert set(tags(files_below(tmp_path), NAME)) == {"v1", "f1"}
    store.close()


def test_many_threads_and_late_writes(tmp_path: Path) -> None:
    """Commits of several repositories at once look for late writes at once."""
    store = store_over(LocalDriver(str(tmp_path)))
    failed: list[BaseException] = []

    def pusher(number: int) -> None:
        try:
            for turn in range(6):
                push_image(store, f"r{number}", f"t{turn}", seed=f"{number}", layers=1)
                store.maintain()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=pusher, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    store.close()


def test_a_reader_meanwhile(tmp_path: Path) -> None:
    """Another process's reads see the old or the new, never neither."""
    writing, reading = store_over(LocalDriver(str(tmp_path))), store_over(LocalDriver(str(tmp_path)))
    push_image(writing, NAME, "v", seed="0", layers=1)
    wanted = {images.image(str(turn), layers=1).digest for turn in range(30)}
    done = threading.Event()
    wrong: list[object] = []

    def reader() -> None:
        while not done.is_set():
            try:
                if (found := reading.repository(NAME).manifest("v").digest) not in wanted:
                    wrong.append(found)
            except (ManifestUnknown, NameUnknown) as error:
                wrong.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    for turn in range(30):
        push_image(writing, NAME, "v", seed=str(turn), layers=1)
    done.set()
    thread.join()
    assert wrong == []
