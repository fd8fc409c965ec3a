"""The list of the manifests of a repository that have no tag, a page at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from zotctl.storage import Repository
from zotctl.storage.cache import Lru
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

UNTAGGED_KEPT = 4
"""Repositories whose manifests without a tag are remembered, from one page to the next."""
MOST_ATTACHED = 20
"""Referrers that are listed under their subject."""

_untagged: Lru[tuple[str, Hashable], list[str]] = Lru(UNTAGGED_KEPT)


class UntaggedLine(NamedTuple):
    """A manifest without a tag, or what is about one, below it at `depth` 1. `about`: the digest of its subject, "" if
    it is the line above, or none. Else as in `TagLine`."""

    digest: str
    kind: str
    platforms: tuple[str, ...]
    size: int
    is_whole: bool
    pushed: float | None
    trouble: str
    about: str
    depth: int


@dataclass(frozen=True, slots=True)
class UntaggedPage:
    """A page of manifests without a tag. `total`: of all. `nested`: what is about another manifest is below that, and
    what an index lists or a tagged image has is left out; False: it would take too long to find that out. `after`: the
    parameter `last` of the next page, None if there is none."""

    lines: list[UntaggedLine]
    total: int
    nested: bool
    after: str | None


def untagged_of(repository: Repository) -> list[str]:
    """The digests that only rows without a tag have, sorted. Found once for each state of index.json."""
    index, key = repository.index(), (repository.name, repository.generation())
    if (known := _untagged.get(key)) is None:
        named = {row.digest for row in index.rows() if row.tag or row.alias}
        known = sorted(digest for digest in index.digests if digest not in named)
        _untagged.put(key, known)
    return known


def untagged_page(repository: Repository, last: str | None, count: int = PAGE_TAGS) -> UntaggedPage:
    """The manifests without a tag after the digest `last`. Raises NameUnknown."""
    digests = untagged_of(repository)
    start = bisect_right(digests, last) if last else 0
    index, times, damaged = repository.index(), times_of(repository), Damage(repository)
    with ExitStack() as stack:
        whole = repository.graph(MOST_UNREAD)
        if whole is not None:
            graph = stack.enter_context(whole)
            tops = list(islice(_on_their_own(graph, index, digests, start), count + 1))
            listed = [one for top in tops[:count] for one in _with_attached(graph, top)]
        else:
            tops = digests[start : start + count + 1]
            graph = graph_of_rows(repository, [row for top in tops[:count] for row in index.rows_of(top, 1)])
            listed = [(top, 0) for top in tops[:count]]
        lines = []
        for digest, depth in listed:
            closure, row = closure_of(graph, digest), index.find(digest)
            trouble, manifest = trouble_in(graph, closure, damaged), small_manifest(repository, digest, row)
            subject = manifest.subject.digest if manifest is not None and manifest.subject is not None else ""
            lines.append(
                UntaggedLine(
                    digest,
                    kind_of(manifest, row.media_type if row is not None else ""),
                    platforms_in(manifest),
                    sum(closure.values()),
                    not trouble,
                    times.of(None, digest),
                    trouble,
                    "" if depth else subject,
                    depth,
                )
            )
    after = tops[count - 1] if len(tops) > count else None
    return UntaggedPage(lines, len(digests), whole is not None, after)


def _on_their_own(graph: ManifestGraph, index: Index, digests: Sequence[str], start: int) -> Iterator[str]:
    """Those that no index lists, and that are about nothing that is here."""
    for digest in islice(digests, start, None):
        facts = graph.facts.get(digest)
        subjects = facts.subjects if facts is not None else ()
        if not graph.parents(digest) and not any(one.digest in graph.facts for one in subjects):
            yield digest


def _with_attached(graph: ManifestGraph, top: str) -> list[tuple[str, int]]:
    """A manifest, and what is about it or about that, as far as there is room."""
    found, todo = [(top, 0)], [*reversed(graph.referrers(top))]
    while todo and len(found) <= MOST_ATTACHED:
        one = todo.pop()
        found.append((one, 1))
        todo += reversed(graph.referrers(one))
    return found
