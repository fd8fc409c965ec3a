"""The same rows on a bucket: an S3 server for a run, and what is wanted there.

It is versitygw with a directory of its own; its CPU is nobody's. Another one: AWS_ENDPOINT_URL_S3 and the usual
variables for its credentials, and a bucket called `bench`.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import Row, Target, all_rows
from benchmarks.servers import BUCKET, LOOPBACK, free_port

_SPEED, _CPU = Target("speed", ">=", 1, "best"), Target("cpu", "<=", 0.7, "best")
_WANTED: dict[str, tuple[Target, ...]] = {
    "manifest-push-1000-c1": (Target("speed", ">=", 1.5, "zot"),),
    "manifest-push-1000-c16": (Target("speed", ">=", 5, "zot"), Target("speed", ">=", 1, "distribution")),
    "push-2k-c1": (),
    "push-2k-c16": (),
    "push-64m-c4": (_SPEED, _CPU),
    "push-64m-c4-patch": (_SPEED, Target("cpu", "<=", 0.65, "best")),
    "pull-1m-c8": (_SPEED, _CPU),
    "pull-1g-c1": (_SPEED, _CPU),
    "get-tag-1-c1": (),
    "memory-empty": (Target("value", "<=", 90),),
}


def bucket_rows() -> dict[str, Row]:
    """Those that mean something on a bucket. The bytes do not end on this machine, so it sets no limit."""
    known = all_rows()
    return {name: replace(known[name], targets=targets, limit=None) for name, targets in _WANTED.items()}


@contextmanager
def object_store(folder: Path) -> Iterator[None]:
    """While this lasts, the environment says where the bucket is."""
    if os.environ.get("AWS_ENDPOINT_URL_S3"):
        yield
        return
    (folder / "s3" / BUCKET).mkdir(parents=True)
    port = free_port()
    os.environ.update(
        AWS_ENDPOINT_URL_S3=f"http://{LOOPBACK}:{port}", AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="benchsecret",
        AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true",
    )  # fmt: skip
    command = ["versitygw", "--port", f"{LOOPBACK}:{port}", "--access", "bench", "--secret", "benchsecret"]
    command += ["--quiet", "--keep-alive", "posix", str(folder / "s3")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
    finally:
        process.kill()
        process.wait()
