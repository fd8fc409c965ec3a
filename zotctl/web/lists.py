"""The lists of repositories, of tags and of manifests without a tag, a page at a time. What a page costs hardly depends
on how many there are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from zotctl.errors import (
    DigestInvalid,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    StorageError,
    ZotctlError,
)
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.manifest import Manifest, read_manifest
from zotctl.storage import Repository, Store, keys
from zotctl.storage.cache import Lru
from zotctl.storage.facts import Content, Reference, Unusable
from zotctl.storage.graph import ManifestGraph, reader_of
from zotctl.storage.history import Timeline
from zotctl.storage.index import Index, Row
from zotctl.web import words
from zotctl.web.platforms import platform_of

PAGE_TAGS = 50
COUNTED_INDEX_BYTES = 1 << 20
"""On a bucket: an index.json up to this size is read to count its tags."""
MOST_UNREAD = 2000
"""Manifests that are read at once to learn which content tags share. In a repository with more, a page says what an
image has, and not what it shares, until something else has read them."""
MOST_READ = 1000
"""Manifests that are read for one page, where not all of a repository are."""
SIZES_KEPT = 10_000
"""Repositories whose size is remembered."""
UNTAGGED_KEPT = 4
"""Repositories whose manifests without a tag are remembered, from one page to the next."""
MOST_ATTACHED = 20
"""Referrers that are listed under their subject."""
MOST_PLATFORMS = 100
"""Platforms of an index that are looked at for a line."""
MOST_MANIFEST_BYTES = 256 << 10
"""Of a manifest that is read for a line: of a larger one it says what its row does."""
MOST_HISTORY_BYTES = 4 << 20
"""Of a history that is read for the times of one page; with more, the files' own times are shown."""
FEW_ROWS = 8
"""A manifest with more rows than this has other tags."""
MOST_LOOKED_AT = 2000
"""Blobs of one page whose links are counted, to see whether another repository has them."""


_sizes: Lru[tuple[str, Hashable], int] = Lru(SIZES_KEPT)
_untagged: Lru[tuple[str, Hashable], list[str]] = Lru(UNTAGGED_KEPT)

# -- repositories --------------------------------------------------------------------------------


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
        if info is None:
            return None
        is_large = repository.root.by_requests and info.size > COUNTED_INDEX_BYTES
        return RepositoryLine(name, None if is_large else len(repository.tags()), None, info.mtime_ns / 1e9)
    except NameUnknown:
        return None
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


# -- tags ----------------------------------------------------------------------------------------


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
    times = _times(repository)
    with ExitStack() as stack:
        whole = repository.graph(MOST_UNREAD)
        graph = stack.enter_context(whole) if whole is not None else _of_rows(repository, [*rows.values()])
        damaged, sharing = Damage(repository), _Sharing(repository, across)
        lines = []
        for tag, row in rows.items():
            digest = str(row.digest)
            closure = closure_of(graph, digest)
            own = _own(graph, index, tag, digest, closure, sharing) if whole is not None else None
            trouble = trouble_in(graph, closure, damaged)
            manifest = _small_manifest(repository, digest, row)
            lines.append(
                TagLine(
                    tag,
                    digest,
                    kind_of(manifest, row.media_type),
                    _platforms(manifest),
                    sum(closure.values()),
                    own,
                    not trouble,
                    times.of(tag, digest),
                    trouble,
                    len(graph.referrers(digest)) if whole is not None else 0,
                )
            )
    return lines


def closure_of(graph: ManifestGraph, digest: str) -> dict[str, int]:
    """What a manifest needs, itself included, with sizes. Its subject is not part of it."""
    found: dict[str, int] = {}
    todo = [digest]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found[one] = max(graph.sizes(one), default=0)
        if (facts := graph.facts.get(one)) is not None:
            todo += [reference.digest for reference in (*facts.blobs, *facts.children)]
    return found


def trouble_in(graph: ManifestGraph, closure: dict[str, int], damaged: Damage) -> str:
    """What is wrong with the content of an image, in a word; "" if nothing is known to be."""
    faults = [graph.faults[digest] for digest in closure if digest in graph.faults]
    if any(fault.kind == "digest_mismatch" for fault in faults) or any(digest in damaged for digest in closure):
        return "damaged"
    if any(fault.kind == "missing_manifest" for fault in faults):
        return "incomplete"
    return "unclear" if faults else ""


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


def _of_rows(repository: Repository, rows: Sequence[Row]) -> ManifestGraph:
    """What these rows lead to and nothing else, of at most `MOST_READ` manifests."""
    read, left = reader_of(repository.root.protocol, repository.name), [MOST_READ]

    def bounded(digest: Digest, whole: bool) -> Content:
        left[0] -= 1
        if left[0] < 0:
            raise Unusable("unreadable", "it was not looked at, since a page shows only so much")
        return read(digest, whole)

    protocol = repository.root.protocol
    graph = ManifestGraph(bounded, each=protocol.each if protocol.index_costs_request else None)
    graph.add(Reference(str(row.digest), row.size, row.media_type) for row in rows)
    return graph


class Damage:
    """The digests of which the repository has a copy that is known to be damaged. Only what is asked for, and has a
    mark in the root, is looked at."""

    def __init__(self, repository: Repository) -> None:
        self._repository, self._marked = repository, dict[str, Digest]()
        with suppress(StorageError):
            self._marked = {str(digest): digest for digest in repository.root.maintenance.damaged()}

    def __contains__(self, digest: str) -> bool:
        return digest in self._marked and _is_damaged(self._repository, self._marked[digest])


def _is_damaged(repository: Repository, digest: Digest) -> bool:
    """Is the repository's own copy known to be damaged?"""
    root = repository.root
    with suppress(StorageError):
        if root.by_requests:
            try:
                root.maintenance.look(repository.name, digest)
            except NotFound:
                return False
            except StorageError:
                return True
            return False
        info = root.stat(keys.blob(repository.name, digest))
        return info is not None and root.maintenance.is_marked(repository.name, digest, info)
    return False


def manifest_of(repository: Repository, reference: str) -> Manifest | None:
    """What a manifest says; None if it can't be read, or is none."""
    with suppress(ManifestUnknown, ManifestInvalid, StorageError):
        stored = repository.manifest(reference)
        return read_manifest(stored.body, stored.digest)
    return None


def _small_manifest(repository: Repository, digest: str, row: Row | None) -> Manifest | None:
    return manifest_of(repository, digest) if row is not None and row.size <= MOST_MANIFEST_BYTES else None


def kind_of(manifest: Manifest | None, media_type: str) -> str:
    """What it is, in a word or two."""
    if manifest is None:
        return words.kind(media_type, None)
    config = manifest.config.media_type if manifest.config else ""
    return words.kind(manifest.media_type, manifest.artifact_type, config)


def _platforms(manifest: Manifest | None) -> tuple[str, ...]:
    found = [platform_of(one) for one in manifest.manifests[:MOST_PLATFORMS]] if manifest is not None else []
    return tuple(dict.fromkeys(platform for platform in found if platform))


# -- manifests without a tag ----------------------------------------------------------------------


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
    index, times, damaged = repository.index(), _times(repository), Damage(repository)
    with ExitStack() as stack:
        whole = repository.graph(MOST_UNREAD)
        if whole is not None:
            graph = stack.enter_context(whole)
            tops = list(islice(_on_their_own(graph, index, digests, start), count + 1))
            listed = [one for top in tops[:count] for one in _with_attached(graph, top)]
        else:
            tops = digests[start : start + count + 1]
            graph = _of_rows(repository, [row for top in tops[:count] for row in index.rows_of(top, 1)])
            listed = [(top, 0) for top in tops[:count]]
        lines = []
        for digest, depth in listed:
            closure, row = closure_of(graph, digest), index.find(digest)
            trouble, manifest = trouble_in(graph, closure, damaged), _small_manifest(repository, digest, row)
            subject = manifest.subject.digest if manifest is not None and manifest.subject is not None else ""
            lines.append(
                UntaggedLine(
                    digest,
                    kind_of(manifest, row.media_type if row is not None else ""),
                    _platforms(manifest),
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


# -- times ---------------------------------------------------------------------------------------


class _Times:
    """When tags were pushed: as the history says or, where that is long, when their manifests were written."""

    def __init__(self, repository: Repository, past: Timeline | None) -> None:
        self._repository, self._past = repository, past

    def of(self, tag: str | None, digest: str) -> float | None:
        """Seconds since 1970. `tag` None: of a manifest without one."""
        if self._past is not None:
            known = self._past.pushed.get(digest) if tag is None else self._past.tagged.get(tag)
            if known:
                return known
        root = self._repository.root
        if root.by_requests:
            return None
        with suppress(StorageError, DigestInvalid):
            info = root.stat(keys.blob(self._repository.name, parse_digest(digest)))
            return info.mtime_ns / 1e9 if info is not None else None
        return None


def _times(repository: Repository) -> _Times:
    root, name = repository.root, repository.name
    with suppress(StorageError):
        info = None if root.by_requests else root.stat(keys.history(name))
        if info is None or info.size <= MOST_HISTORY_BYTES:
            return _Times(repository, root.history.written(name))
    return _Times(repository, None)
