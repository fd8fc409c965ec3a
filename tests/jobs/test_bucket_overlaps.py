"""Stores on one bucket that lie within each other, and addresses at which nothing is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.cli.running import REPOSITORY
from tests.stores import bucket_store, push_image


def zotctl(bucket: Bucket, *words: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    command = [sys.executable, "-m", "zotctl", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, env={"PATH": "/usr/bin:/bin", **bucket.environment}, capture_output=True, text=True
    )


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:  # noqa: F811
    push_image(bucket_store(bucket.client()), "a", "v1")
    assert zotctl(bucket, "gc", "--root", bucket.url).returncode == 0
    return bucket


def above(bucket: Bucket) -> str:  # noqa: F811
    return f"s3://{bucket.settings.bucket}"


def test_a_store_below_is_left_out(filled: Bucket) -> None:
    outer = bucket_store(filled.client(prefix=""))
    push_image(outer, "other", "v1")
    done = zotctl(filled, "gc", "--root", above(filled), "--delay", "0s", "--untagged", "all")
    assert (done.returncode, "is a store of its own" in done.stderr) == (0, True), done.stderr
    assert bucket_store(filled.client()).repository("a").manifest("v1").body
    assert "Collected 1 repository: " in done.stdout


def test_a_store_above_is_named_and_nothing_is_written(filled: Bucket) -> None:
    inside = replace(filled.settings, prefix="root/a")
    before = sorted(found.key for found in filled.client(prefix="").list(""))
    done = zotctl(filled, "gc", "--root", inside.label)
    assert done.returncode == 3 and f"lies in the store {filled.url}" in done.stderr
    assert sorted(found.key for found in filled.client(prefix="").list("")) == before


@pytest.mark.parametrize("job", ["gc", "scrub", "dedupe"])
def test_a_mistyped_prefix_is_no_store(filled: Bucket, job: str) -> None:
    wrong = replace(filled.settings, prefix="rot").label
    done = zotctl(filled, job, "--root", wrong)
    assert (done.returncode, "is that the right bucket and prefix" in done.stderr) == (10, True), done.stderr
    assert not list(filled.client(prefix="").list("rot/"))
