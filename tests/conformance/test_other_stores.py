"""Object stores of other makers, as far as they are installed within seconds: what is relied on, and what is missed.

`moto` is a store for tests, in Python. Its deletes don't expire and it verifies no checksum, which has to be noticed.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.buckets import ACCESS, SECRET, free_port, make
from tests.images import image
from tests.jobs.test_gc import collect
from tests.stores import push_image
from tests.tools import need
from zotctl.config import RootConfig, S3Config, StorageConfig
from zotctl.errors import ConfigError
from zotctl.jobs.check.verify import VerifyOptions, probe, verify
from zotctl.jobs.run import Run
from zotctl.storage import Store, open_store
from zotctl.storage.bucket.objects.client import BucketSettings


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    need("moto", "flask_cors")
    port = free_port()
    # One request at a time: two conditional writes at once both win now and then.
    code = (
        "from moto.server import DomainDispatcherApplication, create_backend_app\n"
        "from werkzeug.serving import run_simple\n"
        f"run_simple('127.0.0.1', {port}, DomainDispatcherApplication(create_backend_app), threaded=False)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        make(BucketSettings("images", "", f"http://127.0.0.1:{port}", "us-east-1", ACCESS, SECRET))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def store(moto: str) -> Iterator[Store]:
    s3 = S3Config(endpoint=moto, region="us-east-1", access_key=ACCESS, secret_key=SECRET)
    config = StorageConfig(roots=(RootConfig(path="s3://images/registry", s3=s3, create=True, gc_delay=10.0),))
    made = open_store(config)
    yield made
    made.close()


def test_moto(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        push_image(store, "app", "1.0")
    assert "verifies neither x-amz-checksum-sha256 nor Content-MD5" in caplog.text
    assert store.repository("app").manifest("1.0").body == image().manifest
    run = Run("verify", store, dry_run=True)
    report = run.finish(lambda: probe(run))
    found = {item["ability"]: item["answer"] for item in report.items}
    assert [found[name] for name in ("creates_once", "swaps", "one_winner")] == [True, True, True]
    assert (found["signed_deletes"], found["keeps_halves"]) == (False, False)
    assert "gc and dedupe need single_writer" in found["verdict"]
    store.repository("app").delete_manifest(image().digest)
    refused = collect(store, 0.0)
    assert refused.exit_code == ConfigError.exit_code
    assert "single_writer" in refused.errors[0]["reason"]
    push_image(store, "app", "1.0")
    run = Run("verify", store, dry_run=True)
    assert run.finish(lambda: verify(run, VerifyOptions(deep=True))).exit_code == 0
