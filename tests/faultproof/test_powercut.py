"""A power cut: what was acknowledged with `commit` is there, and without it nothing is truncated, or served short."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faultproof.checks import faults_of, files_below, files_in, tags
from tests.faultproof.devices import Device, made
from tests.faultproof.powercut import MODELS, NoDataFlush, NoNameFlush, Recorder, Watched
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import BlobUnknown, NameUnknown, StorageError, ZotctlError
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver
from zotctl.storage.local.driver import LocalDriver

# -- every state that a log of calls allows -----------------------------------------------------


class Reservations:
    """What was acknowledged so far (I4)."""

    def __init__(self, *, commit: bool) -> None:
        self.commit = commit
        self.tags: dict[tuple[str, str], str] = {}
        self.blobs: set[str] = set()

    def broken(self, state: MemoryDriver) -> list[str]:
        files = files_in(state)
        faults = faults_of(files, whole=self.commit)
        if self.commit:
            faults += [f"I4 {blob} is gone" for blob in self.blobs if blob not in files]
            now = {(name, tag): tags(files, name).get(tag) for name, tag in self.tags}
            faults += [f"I4 {at} is gone" for at, digest in self.tags.items() if now[at] != digest]
        suspect = not self.commit and faults_of(files)
        return faults or (served_short(state) if suspect else [])


def served_short(state: MemoryDriver) -> list[str]:
    """I2 as a client sees it: a layer that a manifest names has its length, or is not there."""
    store, faults = store_over(state), []
    for name in ("a/b", "c"):
        with suppress(NameUnknown):
            for made in (images.image(seed, layers=1) for seed in ("one", "two", "three")):
                if str(made.digest) not in store.repository(name).index():
                    continue
                for body in made.blobs:
                    with suppress(BlobUnknown), store.repository(name).open_blob(digest_of(body)) as reader:
                        if reader.read_at(0, reader.size) != body:
                            faults.append(f"I2 {name}: {digest_of(body)} is served with {reader.size} bytes")
    return faults


def push_some(store: Store, reservations: Reservations, done: Callable[[], None] = lambda: None) -> None:
    """A new repository, a tag moved, content that is there already, a second repository, a mount, a deletion."""
    unused = push_blob(store.repository_for_push("a/b"), b"a layer that nothing needs")
    reservations.blobs.add(keys.blob("a/b", unused))
    for name, tag, seed in (("a/b", "v1", "one"), ("a/b", "v1", "two"), ("c", "v1", "one"), ("a/b", "v2", "three")):
        reservations.tags.pop((name, tag), None)
        reservations.tags[name, tag] = str(push_image(store, name, tag, seed=seed, layers=1))
        done()
    assert store.repository_for_push("c").mount_blob(store.repository("a/b"), unused)
    reservations.blobs.add(keys.blob("c", unused))
    done()
    reservations.blobs.discard(keys.blob("a/b", unused))
    store.repository_for_push("a/b").delete_blob(unused)
    reservations.tags.pop(("a/b", "v2"))
    store.repository_for_push("a/b").delete_manifest("v2")


def cut_everywhere(model: str, *, commit: bool, mutant: Callable[[Driver], Driver] = lambda driver: driver) -> Watched:
    reservations = Reservations(commit=commit)
    watched = Watched(reservations.broken, model)
    store = store_over(mutant(watched), commit=commit)
    watched.watching = True
    push_some(store, reservations, watched.seen.clear)
    return watched


@pytest.mark.parametrize("commit", [False, True], ids=["lazy", "commit"])
@pytest.mark.parametrize("model", MODELS)
def test_i3_i4_in_every_state_after_a_cut(model: str, commit: bool) -> None:
    if not commit and model != "journal":
        pytest.skip("without commit, the order of names is the file system's to keep")
    watched = cut_everywhere(model, commit=commit)
    assert watched.faults == []
    assert watched.looked > 200


@pytest.mark.parametrize("mutant", [NoDataFlush, NoNameFlush])
@pytest.mark.parametrize("model", MODELS)
def test_a_flush_left_out_is_caught(model: str, mutant: Callable[[Driver], Driver]) -> None:
    assert cut_everywhere(model, commit=True, mutant=mutant).faults


def test_a_data_flush_left_out_is_caught_without_commit() -> None:
    assert any("I3" in fault for fault in cut_everywhere("journal", commit=False, mutant=NoDataFlush).faults)


def test_i2_a_short_layer_heals() -> None:
    """Without commit: the layer that the cut made short is not served, and a push brings it back."""
    reservations = Reservations(commit=False)
    recorder = Recorder(MemoryDriver())
    push_image(store_over(recorder), "a/b", "v1", seed="one", layers=1)
    layer = images.image("one", layers=1).blobs[1]
    for state in recorder.world.states("journal"):
        store = store_over(state)
        if keys.blob("a/b", digest_of(layer)) not in files_in(state):
            continue
        push_blob(store.repository_for_push("a/b"), layer)
        assert files_in(state)[keys.blob("a/b", digest_of(layer))] == layer
        assert reservations.broken(state) == []


@pytest.mark.parametrize("failing", ["", "new", "new/one", "new/one/blobs", "new/one/blobs/sha256"])
def test_i4_a_failed_flush_of_names_is_done_again(failing: str) -> None:
    """Until it has succeeded, nobody may take a directory for flushed."""

    class FailsOnce(Recorder):
        left = 0

        def sync_dir(self, key: str) -> None:
            if key == failing and FailsOnce.left:
                FailsOnce.left -= 1
                raise StorageError("EIO")
            super().sync_dir(key)

    recorder = FailsOnce(MemoryDriver())
    store = store_over(recorder, commit=True)
    FailsOnce.left = 1
    with pytest.raises(StorageError):
        push_image(store, "new/one", "v1")
    digest = push_image(store, "new/one", "v1")
    for state in recorder.world.states("any"):
        assert tags(files_in(state), "new/one").get("v1") == digest


# -- a real one ---------------------------------------------------------------------------------


@pytest.fixture(params=["ext4", "xfs"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with made(request.param) as device:
        yield device


def push_until_cut(device: Device, root: Path, *, commit: bool, rounds: int = 3) -> dict[str, str]:
    """Two threads push; the power goes while they do. What they were told."""
    told: dict[str, str] = {}
    store = store_over(LocalDriver(str(root)), commit=commit)
    some = threading.Event()

    def pusher(number: int) -> None:
        for turn in range(1000):
            tag = f"t{number}-{turn}"
            try:
                told[tag] = str(push_image(store, "a/b", tag, seed=f"{root.name} {tag}", layers=1))
            except ZotctlError:
                return
            if turn == rounds:
                some.set()

    threads = [threading.Thread(target=pusher, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    some.wait(30)
    device.cut()
    for thread in threads:
        thread.join()
    with suppress(ZotctlError):
        store.close()
    return told


def test_i3_i4_a_real_power_cut(device: Device) -> None:
    for turn, commit in enumerate((True, False, True)):
        root = device.point / f"{turn}"
        root.mkdir()
        subprocess.run(["sync", "-f", str(device.point)], check=True)
        told = push_until_cut(device, root, commit=commit)
        device.mount_again()
        files = files_below(root)
        assert faults_of(files, whole=commit) == [], (device.kind, turn)
        assert len(told) > 3
        if commit:
            there = tags(files, "a/b")
            assert {tag: there.get(tag) for tag in told} == told, (device.kind, turn)
        store = store_over(LocalDriver(str(root)), commit=commit)
        push_image(store, "a/b", "after", seed=f"{turn} after")
        assert "after" in tags(files_below(root), "a/b")
        store.close()


def test_a_real_power_cut_finds_a_flush_left_out(device: Device) -> None:
    """The guard of the test above: the same without a flush of data loses it."""
    root = device.point / "mutant"
    root.mkdir()
    subprocess.run(["sync", "-f", str(device.point)], check=True)
    store = store_over(NoNameFlush(NoDataFlush(LocalDriver(str(root)))), commit=True)
    digest = push_image(store, "a/b", "v1")
    store.close()
    device.cut()
    device.mount_again()
    files = files_below(root)
    assert faults_of(files) or tags(files, "a/b").get("v1") != digest
