"""A registry of two workers on each storage, one for each test process; every test has a repository of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets import make_bucket
from tests.clients.peers import Peer
from tests.http.serving import Server, serving


@pytest.fixture(scope="session", params=["directory", "bucket"])
def registry(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    on_bucket = request.param == "bucket"
    options = ["--dedupe"] if on_bucket else []
    home, bucket = tmp_path_factory.mktemp("registry"), make_bucket() if on_bucket else None
    with serving(home, *options, workers=2, bucket=bucket) as made:
        yield made
        assert "traceback" not in made.log()


@pytest.fixture
def peer(registry: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Peer]:
    test = f"{request.module.__name__.rpartition('test_')[2]}/{request.node.name.removeprefix('test_')}"
    name = re.sub("[^a-z0-9/]+", "-", test.lower()).strip("-")
    with registry.client() as client:
        yield Peer(registry, client, tmp_path, name)
