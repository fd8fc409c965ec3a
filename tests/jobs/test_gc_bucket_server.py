"""Collection on a real object store, with its clock and its signatures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests import images
from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.cli.running import PATIENCE_S
from tests.jobs.test_gc import collect
from tests.stores import bucket_store, push_blob, push_image
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.retry import Retrying


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def store(request: pytest.FixtureRequest, bucket: Bucket) -> Iterator[Store]:  # noqa: F811
    made = bucket_store(Retrying(bucket.client()), dedupe=request.param, delay=2.0)
    yield made
    made.close()


def blobs_of(bucket: Bucket) -> set[str]:  # noqa: F811
    return {found.key.rpartition("/")[2] for found in bucket.client().list("") if "blobs/" in found.key}


def test_what_nothing_reaches_goes_and_the_rest_stays(store: Store, bucket: Bucket) -> None:  # noqa: F811
    kept = push_image(store, "a", "v1")
    gone = push_image(store, "a", "v2", seed="gone")
    stray = push_blob(store.repository_for_push("b"), b"stray")
    store.repository_for_push("a").delete_manifest(gone)
    assert collect(store, 3600.0).summary["unreachable"] == 0
    for expected in ("unreachable", "purged"):
        time.sleep(4.1)
        report = collect(store, 2.0)
        assert report.errors == []
        assert report.summary[expected] == len(images.image().blobs) + 1
    wanted = {kept.encoded, *(digest_of(blob).encoded for blob in images.image().blobs)}
    assert stray.encoded not in wanted
    assert blobs_of(bucket) == wanted
    assert not list(bucket.client().list(f"{keys.INTENTS}/"))


def test_requests_of_a_run_that_finds_nothing(store: Store, bucket: Bucket) -> None:  # noqa: F811
    """A few, and a few for each repository, however many blobs it has."""
    for number in range(3):
        push_image(store, f"r{number}", "v1", layers=5)
    collect(store, 2.0)
    bucket.requests()
    three = len(collect(store, 2.0).errors) + len(bucket.requests())
    for number in range(3, 6):
        push_image(store, f"r{number}", "v1", layers=5)
    collect(store, 2.0)
    bucket.requests()
    collect(store, 2.0)
    six = len(bucket.requests())
    assert (six - three) / 3 <= 8
    assert three <= 50


def test_the_command(store: Store, bucket: Bucket) -> None:  # noqa: F811
    push_image(store, "a", "v1")
    push_blob(store.repository_for_push("a"), b"stray")
    store.close()
    time.sleep(1.1)  # a server's times have whole seconds
    command = [sys.executable, "-m", "zotctl.cli", "gc", "--root", bucket.url, "--json"]
    environment = os.environ | bucket.environment

    def run(*options: str) -> dict[str, object]:
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, check=False, timeout=PATIENCE_S
        )
        told = json.loads(done.stdout)
        assert isinstance(told, dict) and told["exit_code"] == done.returncode
        return told

    assert run("--explain", "a:v1")["items"]
    told = run("--delay", "0s")
    assert told["exit_code"] == 0 and told["summary"]["purged"] == 1  # type: ignore[index]
    assert run("--list-trash")["exit_code"] == 1
