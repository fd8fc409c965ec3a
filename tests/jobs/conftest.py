"""What most tests of imports begin with: an empty store on a directory, and an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images import Image, image
from tests.jobs.importing import local_store
from zotctl.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return local_store(tmp_path / "store")


@pytest.fixture
def made() -> Image:
    return image("busybox")
