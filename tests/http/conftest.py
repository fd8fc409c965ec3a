"""One server a module, and another whose patience is short."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.buckets import bucket, make_bucket, own_server  # noqa: F401 - fixtures
from tests.http.serving import Server, serving

HASTY = """
[http]
header_timeout = "1s"
body_timeout = "2s"
write_timeout = "2s"
idle_timeout = "3s"
"""


ON_BUCKETS = ("blobs", "conditions", "lists", "manifests", "uploads")
"""Modules whose tests run on a bucket, too: what is said over the wire is the same."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        subject = metafunc.module.__name__.rpartition("test_http_")[2]
        storages = ["directory", "bucket"] if subject in ON_BUCKETS else ["directory"]
        metafunc.parametrize("server", storages, indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    own = make_bucket() if request.param == "bucket" else None
    with serving(tmp_path_factory.mktemp("server"), bucket=own) as made:
        yield made
        assert "traceback" not in made.log()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hasty"), config=HASTY) as made:
        yield made
        assert "traceback" not in made.log()
