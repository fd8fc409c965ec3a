"""Jobs beside the one server of a bucket that takes a single writer (`single_writer`,
docs/design/bucket.md#indexjson)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.cli.running import PATIENCE_S
from tests.http.serving import push_blob, serving
from tests.images import image, lay_out
from tests.object_proxy import Proxy
from zotctl.storage import keys

ALONE = "[storage.s3]\nsingle_writer = true\n"


@pytest.fixture(params=[True, False, None], ids=["conditions", "ignored", "refused"])
def served(request: pytest.FixtureRequest, tmp_path: Path, bucket: Bucket) -> Iterator[Bucket]:  # noqa: F811
    """A bucket with its one server, on an object store with conditional writes, and on those that ignore or refuse
    them."""
    with ExitStack() as stack:
        proxy = stack.enter_context(closing(Proxy(bucket.server.endpoint, conditions=request.param)))
        unfit = Bucket(replace(bucket.settings, endpoint=proxy.endpoint), bucket.server)
        server = stack.enter_context(serving(tmp_path / "home", config=ALONE, bucket=unfit))
        client = stack.enter_context(server.client())
        push_blob(client, "a", b"something")
        yield unfit


def jobs(source: Path) -> list[list[str]]:
    lay_out(source, image("x"))
    return [["gc"], ["scrub"], ["dedupe"], ["dedupe", "--undo"], ["import-layout", str(source), "--repo", "b"]]


def zotctl(at: Bucket, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zotctl.cli", *words, "--root", at.url],
        env=os.environ | at.environment | environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("said", ["true", "false"])
def test_jobs_that_write_are_refused_beside_it(served: Bucket, tmp_path: Path, said: str) -> None:
    before = sorted(entry.key for entry in served.client().list(""))
    for words in jobs(tmp_path / "source"):
        done = zotctl(served, *words, ZOTCTL_SINGLE_WRITER=said)
        assert done.returncode == 11, (words, done.stdout, done.stderr)
        assert "has a single writer" in done.stderr
    assert sorted(entry.key for entry in served.client().list("")) == before


def test_jobs_that_only_read_are_not(served: Bucket, tmp_path: Path) -> None:
    before = sorted(entry.key for entry in served.client().list(""))
    for words in (["verify"], *([*words, "--dry-run"] for words in jobs(tmp_path / "source"))):
        done = zotctl(served, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert sorted(entry.key for entry in served.client().list("")) == before


def test_a_job_may_run_when_it_has_stopped(tmp_path: Path, bucket: Bucket) -> None:  # noqa: F811
    """At once, on any host, for a server that ends takes its sign away; so does a job."""
    with serving(tmp_path / "home", config=ALONE, bucket=bucket):
        assert bucket.path(keys.lease("writer")).exists()
    assert not bucket.path(keys.lease("writer")).exists()
    done = zotctl(bucket, "gc", ZOTCTL_SINGLE_WRITER="true")
    assert done.returncode == 0, done.stderr
    assert not bucket.path(keys.lease("writer")).exists()
