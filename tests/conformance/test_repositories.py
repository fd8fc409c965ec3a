"""The repository suite on the drivers that need nothing but this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.repository_suite import RepositorySuite
from zotctl.storage.driver import Driver
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.memory import MemoryDriver


class TestMemory(RepositorySuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return MemoryDriver()


class TestMemoryWithoutLinks(RepositorySuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return MemoryDriver(links=False)


class TestLocal(RepositorySuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Driver:
        return LocalDriver(str(tmp_path))
