"""The suites of drivers and repositories on NFS; run inside, by `test_nfs.py`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.conformance.driver_suite import FileSystemSuite
from tests.conformance.repository_suite import FileRepositorySuite
from tests.faultproof.checks import REF_NAME
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import NotFound
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage.driver import Driver
from zotctl.storage.local.network import NetworkDriver, detect, filesystem, probe

MOUNTS = [Path(mount) for mount in os.environ["NFS_MOUNTS"].split(":")]


@pytest.fixture
def name() -> Iterator[str]:
    """Of a directory that both hosts see."""
    made = uuid.uuid4().hex
    (MOUNTS[0] / made).mkdir()
    yield made
    shutil.rmtree(MOUNTS[0] / made, ignore_errors=True)


HOSTS = pytest.mark.parametrize("mount", MOUNTS, ids=["4.1", "4.2"])


class TestDriver(FileSystemSuite):
    """On 4.2, which can do more."""

    sees_gaps = NotFound
    """The client gives a file that is open on its host another name first; who reads index.json looks again."""

    @pytest.fixture
    def driver(self, name: str) -> Driver:
        return detect(str(MOUNTS[1] / name))


class TestRepository(FileRepositorySuite):
    """On 4.1."""

    @pytest.fixture
    def driver(self, name: str) -> Driver:
        return detect(str(MOUNTS[0] / name))


@HOSTS
def test_it_is_nfs(mount: Path, name: str) -> None:
    driver = detect(str(mount / name))
    assert filesystem(driver.label) == "nfs4"
    assert isinstance(driver, NetworkDriver)
    found = probe(driver, "")
    assert found.links and found.locks and not found.local


def test_what_one_host_has_pushed_the_other_has(name: str) -> None:
    one, two = (store_over(detect(str(mount / name))) for mount in MOUNTS)
    for turn in range(20):
        writer, reader = (one, two) if turn % 2 else (two, one)
        digest = push_image(writer, "a/b", f"t{turn}", seed=f"{turn}")
        found = reader.repository("a/b").manifest(f"t{turn}")
        assert (found.digest, found.body) == (digest, images.image(f"{turn}").manifest)
    assert len(one.repository("a/b").tags()) == len(two.repository("a/b").tags()) == 20


def test_two_hosts_that_write_in_turn_lose_nothing(name: str) -> None:
    """Neither reads in between: a commit sees what the other host has committed, under its lock."""
    stores = [store_over(detect(str(mount / name))) for mount in MOUNTS]
    for turn in range(20):
        push_image(stores[turn % 2], "a/b", f"t{turn}", seed=f"{turn}")
    rows = json.loads(Path("/run/disk", name, "a/b/index.json").read_bytes())["manifests"]
    assert sorted(row["annotations"][REF_NAME] for row in rows) == sorted(f"t{turn}" for turn in range(20))


def test_two_hosts_commit_in_turn(name: str) -> None:
    """A lock of one host holds off the other."""
    one, two = (detect(str(mount / name)) for mount in MOUNTS)
    held = one.lock("lock", 7)
    assert held is not None
    assert two.lock("lock", 7) is None
    other = two.lock("lock", 8)
    assert other is not None
    held.release()
    again = two.lock("lock", 7)
    assert again is not None
    for lock in (other, again):
        lock.release()


def test_a_blob_is_linked_by_the_other_host(name: str) -> None:
    one, two = (store_over(detect(str(mount / name))) for mount in MOUNTS)
    body = b"x" * 70_000
    digest = push_blob(one.repository_for_push("a"), body)
    assert two.repository_for_push("b").mount_blob(two.repository("a"), digest)
    with one.repository("b").open_blob(digest) as reader:
        assert reader.read_at(0, reader.size) == body


KILLED = """
import os, sys, threading
from tests.stores import push_image, store_over
from zotctl.storage.local.network import detect

root, name = sys.argv[1:]
server = os.path.join("/run/disk", os.path.basename(root), name, "index.json")

def die():
    while os.path.exists(server):
        pass
    os._exit(9)

store = store_over(detect(root))
push_image(store, name, "first")
threading.Thread(target=die, daemon=True).start()
for turn in range(20_000):
    with open(os.path.join(root, name, "index.json"), "rb"):
        push_image(store, name, "last", seed=str(turn % 7))
    print("answered", flush=True)
"""


def test_a_commit_that_was_killed_between_the_two_requests_is_finished(name: str) -> None:
    """Whether it died between them, as every second does, or after them, nothing that was answered is gone."""
    expected = dict[str, set[str]]()
    for one in (f"a{turn}" for turn in range(4)):
        command = (sys.executable, "-c", KILLED, str(MOUNTS[0] / name), one)
        killed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        assert killed.returncode == 9
        expected[one] = {"first", "last"} if killed.stdout else {"first"}
    store = store_over(detect(str(MOUNTS[1] / name)))
    run = Run("gc", store)
    report = run.finish(lambda: gc(run, lambda root: GcOptions(delay=3600.0)))
    assert (report.errors, report.findings) == ([], [])
    for mount in MOUNTS:
        found = store_over(detect(str(mount / name)))
        for one, tags in expected.items():
            assert tags <= set(found.repository(one).tags()) <= {"first", "last"}


KILLED_DEDUPE = """
import os, sys, threading
from tests.jobs.test_dedupe_shares import run_dedupe
from tests.stores import store_over
from zotctl.storage.local.network import detect

root, name = sys.argv[1:]
server = os.path.join("/run/disk", os.path.basename(root), name, "blobs/sha256")
blobs = [os.path.join(server, blob) for blob in os.listdir(server)]

def die():
    while all(map(os.path.exists, blobs)):
        pass
    os._exit(9)

threading.Thread(target=die, daemon=True).start()
run_dedupe(store_over(detect(root)), repos=["a", name], workers=1)
"""


def test_a_blob_that_was_to_be_replaced_survives_a_kill_between_the_two_requests(name: str) -> None:
    """The client replaces what is open on its host by two. Each blob is there whenever the process died."""
    names = ["a", *(f"b{turn}" for turn in range(6))]
    store = store_over(detect(str(MOUNTS[0] / name)), dedupe=False)
    for one in names:
        push_image(store, one, "v1", layers=4)
    image, codes = images.image("x", layers=4), list[int]()
    for one in names[1:]:
        command = (sys.executable, "-c", KILLED_DEDUPE, str(MOUNTS[0] / name), one)
        codes.append(subprocess.run(command, check=False).returncode)
    assert set(codes) <= {0, 9}
    far = store_over(detect(str(MOUNTS[1] / name)))
    for one in names:
        for body in (*image.blobs, image.manifest):
            with far.repository(one).open_blob(digest_of(body)) as reader:
                assert reader.read_at(0, reader.size) == body
