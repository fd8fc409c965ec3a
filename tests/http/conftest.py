"""One server a module, and another whose patience is short."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.http.serving import Server, serving

HASTY = """
[http]
header_timeout = "1s"
body_timeout = "2s"
write_timeout = "2s"
idle_timeout = "3s"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as made:
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
