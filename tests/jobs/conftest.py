"""What most tests of imports begin with: an empty store on a directory, and an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.images import Image, image
from tests.jobs.importing import local_store
from zotctl.jobs.imports import job
from zotctl.storage import Store
from zotctl.storage.root import Root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return local_store(tmp_path / "store")


@pytest.fixture
def made() -> Image:
    return image("busybox")


@pytest.fixture
def from_place(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """What an s3:// source is, without a configuration."""
    stores: list[Store] = []

    @contextmanager
    def bucket_root(store: Store, source: str) -> Iterator[Root]:
        yield stores[-1].roots[0]

    monkeypatch.setattr(job, "bucket_root", bucket_root)
    return stores
