"""What tests of several jobs begin with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.images import Image, image
from tests.jobs.importing import local_store
from tests.jobs.mirroring import KINDS, Target, fill
from zotctl import logs
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
def audit(tmp_path: Path) -> Iterator[Path]:
    """The audit file of this process."""
    logger = logging.getLogger(logs.AUDIT)
    logs.setup_audit(str(tmp_path / "audit"))
    yield tmp_path / "audit"
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Of a mirror, of each kind."""
    made = Target(request.param)
    yield made
    made.store.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Of a mirror."""
    return fill(tmp_path / "source")


@pytest.fixture
def from_place(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """What an s3:// source is, without a configuration."""
    stores: list[Store] = []

    @contextmanager
    def bucket_root(store: Store, source: str) -> Iterator[Root]:
        yield stores[-1].roots[0]

    monkeypatch.setattr(job, "bucket_root", bucket_root)
    return stores
