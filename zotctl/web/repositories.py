"""The list of repositories, a page at a time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from zotctl.errors import LayoutInvalid, NameUnknown, StorageError, ZotctlError
from zotctl.storage import Store, keys
from zotctl.storage.cache import Lru
from zotctl.web.manifests import MOST_READ

COUNTED_INDEX_BYTES = 1 << 20
"""On a bucket: an index.json up to this size is read to count its tags."""
SIZES_KEPT = 10_000
"""Repositories whose size is remembered."""

_sizes: Lru[tuple[str, Hashable], int] = Lru(SIZES_KEPT)


class RepositoryLine(NamedTuple):
    """A repository in the list. `tags`: None if they are too many to be counted. `size`: bytes of all that it needs,
    None if it would take too long to find out. `changed`: seconds since 1970, None if not known. `trouble`: why it
    can't be looked at."""

    name: str
    tags: int | None = None
    size: int | None = None
    changed: float | None = None
    trouble: str = ""


def repository_lines(store: Store, names: Sequence[str]) -> list[RepositoryLine]:
    """One line for each of these names; those that are gone by now are left out."""
    distant = next((root for root in store.roots if root.by_requests), store.roots[0])
    found = distant.protocol.each([partial(_repository_line, store, name) for name in names])
    left = MOST_READ
    lines = []
    for line in found:
        if line is not None:
            size, read = _size_of(store, line, left)
            left -= read
            lines.append(line._replace(size=size))
    return lines


def _repository_line(store: Store, name: str) -> RepositoryLine | None:
    try:
        repository = store.repository(name)
        info = repository.root.stat(keys.index(name))
        is_large = info is not None and repository.root.by_requests and info.size > COUNTED_INDEX_BYTES
        tags = None if is_large else len(repository.tags())
        return RepositoryLine(name, tags, None, info.mtime_ns / 1e9) if info is not None else None
    except NameUnknown:
        return None
    except LayoutInvalid:  # of a bucket, where everything is listed
        return RepositoryLine(name, trouble="its index.json is missing or damaged")
    except StorageError:
        return RepositoryLine(name, trouble="its storage does not answer")


def _size_of(store: Store, line: RepositoryLine, most: int) -> tuple[int | None, int]:
    """The size of a repository, if no more than `most` manifests have to be read for it; and how many that were. Added
    up once for each state of its index.json."""
    if line.trouble or line.tags is None:
        return None, 0
    with suppress(ZotctlError):
        repository = store.repository(line.name)
        key = (line.name, repository.generation())
        if (known := _sizes.get(key)) is not None:
            return known, 0
        unread = repository.root.graphs.of(line.name).unread(repository.index())
        if unread > most:
            return None, 0
        size = sum(repository.usage().values())
        _sizes.put(key, size)
        return size, unread
    return None, 0
