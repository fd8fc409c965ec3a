"""The uploads that a root knows of, whatever it lies on: sessions are entries of one directory, named by their id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import NotFound
from zotctl.jobs.ages import Ages
from zotctl.storage import keys
from zotctl.storage.keys import parse_upload_id
from zotctl.storage.root import Root

GREATEST_AGE = 86400.0
"""Seconds: an upload that lasts longer than a day no longer holds collection back."""
JUST_BEGUN = 1.0
"""Seconds in which a session counts as active even when the grace period is zero."""


class UploadState(NamedTuple):
    """`key` names the file, `owner` stands for the repository. Seconds since 1970."""

    id: str
    key: str
    owner: str
    started: float
    moved: float
    size: int


def uploads(root: Root, ages: Ages) -> Iterator[UploadState]:
    """The sessions of one root. Times by the storage, but for the start, which the server wrote; it can't have begun
    after it moved."""
    files = list[str]()
    with suppress(NotFound):
        files = [entry.name for entry in root.driver.scan(keys.UPLOADS)]
    for file in files:
        upload_id, _, owner = file.partition(".")
        info = root.stat(key := f"{keys.UPLOADS}/{file}")
        with suppress(ValueError):
            if info is not None:
                started, moved = parse_upload_id(upload_id).started, ages.written(key, info)
                yield UploadState(upload_id, key, owner, min(started, moved), moved, info.size)
