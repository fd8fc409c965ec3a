"""The list of the tags of a repository, a page at a time. What a page costs hardly depends on how many there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NamedTuple

from zotctl.errors import DigestInvalid, StorageError
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import Repository, keys
from zotctl.storage.graph import ManifestGraph
from zotctl.storage.index import Index
from zotctl.web.manifests import (
    MOST_UNREAD,
    PAGE_TAGS,
    Damage,
    closure_of,
    graph_of_rows,
    kind_of,
    platforms_in,
    small_manifest,
    times_of,
    trouble_in,
)
from zotctl.web.untagged import untagged_of

FEW_ROWS = 8
"""A manifest with more rows than this has other tags."""
MOST_LOOKED_AT = 2000
"""Blobs of one page whose links are counted, to see whether another repository has them."""


class TagLine(NamedTuple):
    """A tag in the list. `own`: bytes that only this tag needs; None: not known. `is_whole`: everything was looked at,
    so `size` is all of it. `trouble`: what is wrong with its content. `attached`: how many manifests are about it, as
    far as that is known."""

    tag: str
    digest: str
    kind: str
    platforms: tuple[str, ...]
    size: int
    own: int | None
    is_whole: bool
    pushed: float | None
    trouble: str
    attached: int

    @property
    def shared(self) -> int | None:
        """Bytes that something else needs, too."""
        return None if self.own is None else self.size - self.own


@dataclass(frozen=True, slots=True)
class TagPage:
    """A page of tags. `first`: the number of its first one, from 1. `before`, `after`: the parameter `last` of the
    neighbouring pages, None if there is none. `untagged`: how many manifests have no tag. `across`: whether what
    another repository has counts as shared."""

    lines: list[TagLine]
    first: int
    total: int
    before: str | None
    after: str | None
    untagged: int
    across: bool


def tag_page(
    repository: Repository, last: str | None, wanted: str, *, count: int = PAGE_TAGS, across: bool = False
) -> TagPage:
    """The tags after `last` that contain `wanted`. Raises NameUnknown.

    `across`: what another repository has counts as shared. It is told only to those who may see figures of the whole
    store: else a client that pushes something would learn from it whether a repository that is hidden from it has it.
    """
    tags = repository.tags()
    if wanted:
        tags = [tag for tag in tags if wanted in tag]
    start = bisect_right(tags, last) if last else 0
    shown = tags[start : start + count]
    before = None if start == 0 else "" if start <= count else tags[start - count - 1]
    after = shown[-1] if shown and start + len(shown) < len(tags) else None
    lines = _tag_lines(repository, shown, across)
    return TagPage(lines, start + 1, len(tags), before, after, len(untagged_of(repository)), across)


def attached_tags(repository: Repository, digest: Digest) -> list[tuple[str, str]]:
    """The tags that name this digest, as cosign makes them, each with what is behind the digest (`.sig`)."""
    start = f"{digest.algorithm}-{digest.encoded}"
    tags = repository.tags()
    found = tags[bisect_left(tags, start) : bisect_right(tags, f"{start}\x7f")]
    return [(tag, tag.removeprefix(start)) for tag in found]


def _tag_lines(repository: Repository, tags: Sequence[str], across: bool) -> list[TagLine]:
    index = repository.index()
    rows = {tag: row for tag in tags if (row := index.find(tag)) is not None and row.digest is not None}
    times = times_of(repository)
    with ExitStack() as stack:
        whole = repository.graph(MOST_UNREAD)
        graph = stack.enter_context(whole) if whole is not None else graph_of_rows(repository, [*rows.values()])
        damaged, sharing = Damage(repository), _Sharing(repository, across)
        lines = []
        for tag, row in rows.items():
            digest = str(row.digest)
            closure = closure_of(graph, digest)
            own = _own(graph, index, tag, digest, closure, sharing) if whole is not None else None
            trouble = trouble_in(graph, closure, damaged)
            manifest = small_manifest(repository, digest, row)
            lines.append(
                TagLine(
                    tag,
                    digest,
                    kind_of(manifest, row.media_type),
                    platforms_in(manifest),
                    sum(closure.values()),
                    own,
                    not trouble,
                    times.of(tag, digest),
                    trouble,
                    len(graph.referrers(digest)) if whole is not None else 0,
                )
            )
    return lines


def _own(graph: ManifestGraph, index: Index, tag: str, digest: str, closure: dict[str, int], sharing: _Sharing) -> int:
    """The bytes that nothing but this tag needs: not another tag, not a manifest that something else leads to, not
    another repository by the same file."""
    own, todo = set(closure), list(closure)
    while todo:
        one = todo.pop()
        if one in own and not _is_own(graph, index, tag, digest, one, own):
            own.discard(one)
            if (facts := graph.facts.get(one)) is not None:
                todo += [reference.digest for reference in (*facts.blobs, *facts.children)]
    return sum(closure[one] for one in own if not sharing.elsewhere(one))


def _is_own(graph: ManifestGraph, index: Index, tag: str, digest: str, one: str, own: set[str]) -> bool:
    rows = index.rows_of(one, FEW_ROWS + 1)
    if len(rows) > FEW_ROWS or any((row.tag or row.alias) not in (None, tag) for row in rows):
        return False
    if graph.is_used_beside(one, own):
        return False
    return one == digest or bool(graph.parents(one))


class _Sharing:
    """Which content another repository of the root has by the same file. Without a look where that is a request, and if
    it is not to be told."""

    def __init__(self, repository: Repository, across: bool) -> None:
        self._root, self._name = repository.root, repository.name
        self._looks = MOST_LOOKED_AT if across and not self._root.by_requests else 0
        self._known: dict[str, bool] = {}

    def elsewhere(self, digest: str) -> bool:
        """Does another repository have it?"""
        if digest not in self._known:
            self._known[digest] = self._look(digest)
        return self._known[digest]

    def _look(self, text: str) -> bool:
        if self._looks <= 0:
            return False
        self._looks -= 1
        with suppress(StorageError, DigestInvalid):
            digest = parse_digest(text)
            info = self._root.stat(keys.blob(self._name, digest))
            return info is not None and self._root.maintenance.readers(digest, info) > 1
        return False
