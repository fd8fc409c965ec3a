"""The storage of distribution (registry 2, 3, Harbor), in a directory or a bucket: where its tree begins, and what is
said of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from zotctl.config import is_bucket

ROOT = "docker/registry/v2"
"""Where the tree begins, below the directory or prefix that the registry is configured with."""
REPOSITORIES = "repositories"
BLOBS = "blobs"


def is_distribution(path: str) -> bool:
    """Whether a directory is the storage of distribution. A layout of ours may have the same name, but has an
    index.json."""
    base = os.path.join(path, ROOT)
    parts = [os.path.join(base, part) for part in (REPOSITORIES, BLOBS)]
    return all(map(os.path.isdir, parts)) and not os.path.lexists(os.path.join(base, "index.json"))


def is_tree(listed: Iterable[tuple[str, bool]]) -> bool:
    """The same by what lies at `ROOT` in a bucket: names, and whether something is below them."""
    found = dict(listed)
    return bool(found.get(REPOSITORIES) and found.get(BLOBS)) and "index.json" not in found


def way_over(path: str) -> str:
    """What to do with such a directory or bucket, for a message."""
    linked = "" if is_bucket(path) else ", with --link without copying"
    return (
        f"{path} is the storage of distribution (registry:2, registry:3 or Harbor), which has no image layouts: "
        f"`zotctl import-layout {path} --root DIR` takes all of it over{linked}"
    )
