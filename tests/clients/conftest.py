"""A registry of two workers, one for each test process; every test has a repository of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.peers import Peer
from tests.http.serving import Server, serving


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("registry"), workers=2) as made:
        yield made
        assert "traceback" not in made.log()


@pytest.fixture
def peer(registry: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Peer]:
    test = f"{request.module.__name__.rpartition('test_')[2]}/{request.node.name.removeprefix('test_')}"
    name = re.sub("[^a-z0-9/]+", "-", test.lower()).strip("-")
    with registry.client() as client:
        yield Peer(registry, client, tmp_path, name)
