"""The repository suite on each kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.conformance.media import Medium, OnObjects
from tests.conformance.repository_suite import FileRepositorySuite, RepositorySuite
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from zotctl.storage.driver import Driver
from zotctl.storage.local.driver import LocalDriver


class TestMemory(FileRepositorySuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return MemoryDriver()


class TestMemoryWithoutLinks(FileRepositorySuite):
    @pytest.fixture
    def driver(self) -> Driver:
        return MemoryDriver(links=False)


class TestLocal(FileRepositorySuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> Driver:
        return LocalDriver(str(tmp_path))


@pytest.mark.parametrize("dedupe", [False, True], ids=["own", "pool"])
class TestMemoryObjects(RepositorySuite):
    @pytest.fixture
    def medium(self, dedupe: bool) -> Medium:
        return OnObjects(MemoryObjects(), dedupe=dedupe)


@pytest.mark.parametrize("dedupe", [False, True], ids=["own", "pool"])
class TestBucket(RepositorySuite):
    @pytest.fixture
    def medium(self, bucket: Bucket, dedupe: bool) -> Medium:  # noqa: F811
        return OnObjects(bucket.client(), dedupe=dedupe)
