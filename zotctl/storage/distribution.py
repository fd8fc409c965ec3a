"""The storage of distribution (registry 2, 3, Harbor): where its tree begins, and what is said of it."""

from __future__ import annotations

import os

ROOT = "docker/registry/v2"
"""Where the tree begins, below the directory that the registry is configured with."""
REPOSITORIES = "repositories"
BLOBS = "blobs"


def is_distribution(path: str) -> bool:
    """Whether a directory is the storage of distribution. A layout of ours may have the same name, but has an
    index.json."""
    base = os.path.join(path, ROOT)
    parts = [os.path.join(base, part) for part in (REPOSITORIES, BLOBS)]
    return all(map(os.path.isdir, parts)) and not os.path.lexists(os.path.join(base, "index.json"))


def way_over(path: str) -> str:
    """What to do with such a directory, for a message."""
    return (
        f"{path} is the storage of distribution (registry:2, registry:3 or Harbor), which has no image layouts: "
        f"`zotctl import-layout {path} --root DIR` takes all of it over, with --link without copying"
    )
