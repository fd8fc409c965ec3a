"""The storage of distribution (registry 2 and 3, Harbor) as a source: its tree, read as a tree of image layouts.

Below `docker/registry/v2`, `blobs/ALG/xx/HEX/data` has the content of all repositories. Below `repositories/NAME`,
`_layers/ALG/HEX/link` and `_manifests/revisions/ALG/HEX/link` say what the repository may read of it, and
`_manifests/tags/TAG/current/link` has the digest of a tag. Harbor keeps its tags in its database: they come in a file.
In a bucket the same names are keys, which are looked up in lists.
"""

from __future__ import annotations

import json
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from zotctl.errors import (
    DigestInvalid,
    LayoutInvalid,
    NameInvalid,
    NotFound,
    StorageError,
    TagInvalid,
    UsageError,
    ZotctlError,
    quoted,
)
from zotctl.jobs.imports.sources import KEPT_MANIFEST_BYTES, KEPT_MANIFESTS_BYTES
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Stored, jobs_of
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.layout import LAYOUT_BYTES, LAYOUT_FILE
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import REF_NAME, parse_name, parse_tag
from zotctl.storage.cache import Lru
from zotctl.storage.distribution import BLOBS, REPOSITORIES, ROOT, is_tree
from zotctl.storage.driver import BytesReader, Driver, Entry, Info, Reader, scan_or_empty
from zotctl.storage.facts import Content, Unusable, read_content, understand
from zotctl.storage.graph import Each
from zotctl.storage.history import Timeline
from zotctl.storage.opening import directory, open_file
from zotctl.storage.root import Root
from zotctl.storage.wrappers import WrappedDriver

INDEX_FILE = "index.json"
LINK_BYTES = 512
"""The largest link that is read; a digest is shorter."""

OnSkipped = Callable[[str, ZotctlError], None]
"""Called with what could not be read, or is left out, and the reason."""

KEPT_KEYS = 1_000_000
"""Keys of lists that are kept: of links for a repository or two, and of all blobs."""
_LINKS = ("_layers", "_manifests/revisions")
"""Where a repository says what it may read."""
_FOLDER = Info(0, 0, 0, 0, 1, stat.S_IFDIR | 0o755, 0, 0, 0)
_LISTED = re.compile(rf"{ROOT}/({BLOBS}/[^/]+/[^/]+|{REPOSITORIES}/.+?/(_layers|_manifests))/")
"""What is listed at once: blobs whose digests begin alike; of a repository, its layers, or its manifests and tags."""
_FORMER = re.compile("tags/[^/]+/index/.*")
"""Where a tag led before."""

Tags = dict[str, dict[str, tuple[Digest, float | None]]]
"""The digest of each tag, and when it was pushed (seconds since 1970; None: unknown), by repository."""


class DistributionTree(WrappedDriver):
    """Shows each repository as an image layout: `NAME/index.json` is made of its links, `NAME/blobs/ALG/HEX` is the
    content that it may read. Nothing is written. Used by one thread for indexes, by any for blobs.

    `tags`: the tags of a file, which come instead of those in the tree.
    """

    def __init__(
        self, inner: Driver, on_skipped: OnSkipped, tags: Tags | None = None, each: Each | None = None
    ) -> None:
        """`each`: makes many reads side by side, where a read takes its time."""
        super().__init__(inner)
        self._on_skipped, self._tags, self._each = on_skipped, tags, each or _one_by_one
        self._bodies: Lru[str, bytes] = Lru(KEPT_MANIFESTS_BYTES)
        self._times: dict[str, float] = {}
        self._last: tuple[str, bytes] = ("", b"")

    def names(self) -> list[str]:
        """The repositories, sorted. What can't be read, or is a symbolic link, is reported."""
        found, todo = [], [""]
        while todo:
            name = todo.pop()
            try:
                entries = self.inner.scan(f"{ROOT}/{REPOSITORIES}/{name}".rstrip("/"))
            except StorageError as error:
                self._on_skipped(name, error)
                continue
            if name and any(entry.name == "_manifests" for entry in entries):
                found.append(name)
            for entry in entries:
                below = f"{name}/{entry.name}".lstrip("/")
                if entry.is_dir and not entry.name.startswith("_"):
                    todo.append(below)
                elif not entry.is_dir and not entry.is_file:
                    self._on_skipped(below, LayoutInvalid(f"{below} is a symbolic link, and none is followed"))
        for name in sorted(set(self._tags or ()) - set(found)):
            self._on_skipped(name, LayoutInvalid(f"{name} has tags in the file of --tags, but is no repository here"))
        return sorted(found, key=lambda one: one.split("/"))

    def timeline(self, name: str) -> Timeline:
        """When the tags of the repository whose index was read last were pushed."""
        return Timeline(tagged=dict(self._times) if self._last[0] == name else {})

    # -- the driver -------------------------------------------------------------------------------

    def stat(self, key: str) -> Info:
        """Of a part of a layout: what it would be. Raises NotFound, StorageError."""
        if not key:
            return self.inner.stat(key)
        if (digest := _digest_in(key)) is not None:
            return self.inner.stat(self._data(key, digest))
        above, _, last = key.rpartition("/")
        if above.endswith("/blobs") and last not in (LAYOUT_FILE, INDEX_FILE):  # a repository may be called so
            return _FOLDER
        return self.open(key).info()

    def scan(self, key: str) -> Sequence[Entry]:
        """Of a folder of blobs: those that are there and may be read. Raises NotFound, StorageError."""
        layout, _, algorithm = key.rpartition("/blobs/")
        if not layout or "/" in algorithm:
            raise NotFound(f"{key}: no folder of blobs in an image layout")
        places = [f"{self._base(layout)}/{place}/{algorithm}" for place in _LINKS]
        found: list[Entry] = []
        for encoded in {entry.name for place in places for entry in scan_or_empty(self.inner, place)}:
            with suppress(NotFound):
                found.append(Entry(encoded, False, True, self.stat(f"{key}/{encoded}")))
        return found

    def open(self, key: str) -> Reader:
        """Open a blob, or a part of a layout that is made here. Raises NotFound, StorageError."""
        if (digest := _digest_in(key)) is not None:
            if (body := self._bodies.get(key)) is None:
                return self.inner.open(self._data(key, digest))
            self._bodies.drop(key)
            return BytesReader(body)
        name, _, part = key.rpartition("/")
        if part == LAYOUT_FILE:
            return BytesReader(LAYOUT_BYTES)
        if part == INDEX_FILE and name:
            return BytesReader(self._index(name))
        raise NotFound(f"{key}: no such part of an image layout")

    def _data(self, key: str, digest: Digest) -> str:
        """The key of a blob's content. Raises NotFound if the repository may not read it."""
        base = self._base(key.rsplit("/blobs/", 1)[0])
        path = f"{digest.algorithm}/{digest.encoded}/link"
        for place in _LINKS:
            with suppress(NotFound):
                if self.inner.stat(f"{base}/{place}/{path}").is_file:
                    return f"{ROOT}/{BLOBS}/{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}/data"
        raise NotFound(f"{key}: the repository has no link to it")

    def _base(self, name: str) -> str:
        return f"{ROOT}/{REPOSITORIES}/{name}"

    # -- index.json -------------------------------------------------------------------------------

    def _index(self, name: str) -> bytes:
        if self._last[0] != name:
            self._times = {}
            rows = list(self._rows(name))
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}
            self._last = (name, json.dumps(index).encode())
        return self._last[1]

    def _rows(self, name: str) -> Iterator[dict[str, object]]:
        """A row for each tag, and for each manifest that has none."""
        tags = self._tagged(name) if self._tags is None else self._tags.get(name, {})
        tagged = {digest for digest, _ in tags.values()}
        known: dict[Digest, dict[str, object]] = {digest: {} for digest in (*tagged, *self._revisions(name))}
        self._each([partial(self._describe, name, digest, known) for digest in known])
        for tag, (digest, at) in sorted(tags.items()):
            if at is not None:
                self._times[tag] = at
            yield known[digest] | {"annotations": {REF_NAME: tag}}
        yield from (row for digest, row in known.items() if digest not in tagged)

    def _tagged(self, name: str) -> dict[str, tuple[Digest, float | None]]:
        folder = f"{self._base(name)}/_manifests/tags"
        tags = [entry.name for entry in scan_or_empty(self.inner, folder)]
        found: dict[str, tuple[Digest, float | None] | ZotctlError] = {}
        self._each([partial(self._read_tag, name, tag, f"{folder}/{tag}/current/link", found) for tag in tags])
        for tag in tags:
            if isinstance(error := found.get(tag), ZotctlError):
                self._on_skipped(name, error)
        return {tag: read for tag, read in found.items() if not isinstance(read, ZotctlError)}

    def _read_tag(
        self, name: str, tag: str, key: str, found: dict[str, tuple[Digest, float | None] | ZotctlError]
    ) -> None:
        """Put the digest and the time of a tag into `found`, or why it is left out."""
        try:
            with self.inner.open(key) as reader:
                text = reader.read_at(0, LINK_BYTES).decode("ascii", "replace").strip()
                found[tag] = (parse_digest(text), reader.info().mtime_ns / 1e9)
        except NotFound:
            if self._is_there(key):  # a tag that was deleted may leave its folder
                reason = f"the tag {quoted(tag)} of {name} is left out: {key} is no regular file"
                found[tag] = LayoutInvalid(reason)
        except DigestInvalid:
            reason = f"the tag {quoted(tag)} of {name} names no digest in {key}, so it is left out"
            found[tag] = LayoutInvalid(reason)
        except StorageError as error:
            found[tag] = error

    def _is_there(self, key: str) -> bool:
        """Whether anything has this name."""
        with suppress(StorageError):
            self.inner.stat(key)
            return True
        return False

    def _revisions(self, name: str) -> Iterator[Digest]:
        """The manifests of a repository that were not deleted."""
        folder = f"{self._base(name)}/_manifests/revisions"
        for algorithm in sorted(entry.name for entry in scan_or_empty(self.inner, folder)):
            for entry in sorted(scan_or_empty(self.inner, f"{folder}/{algorithm}")):
                with suppress(DigestInvalid, NotFound):
                    digest = parse_digest(f"{algorithm}:{entry.name}")
                    if self.inner.stat(f"{folder}/{algorithm}/{entry.name}/link").is_file:
                        yield digest

    def _describe(self, name: str, digest: Digest, rows: dict[Digest, dict[str, object]]) -> None:
        """Put what a row says of a manifest into `rows`. Of one that can't be read it is a guess, and the import says
        why. Its bytes are kept until the import reads them."""
        media_type, size, key = OCI_MANIFEST, 0, f"{name}/blobs/{digest.algorithm}/{digest.encoded}"
        with suppress(ZotctlError, Unusable), self.inner.open(self._data(key, digest)) as reader:
            size = reader.size
            content = read_content(reader, digest, True)
            facts = understand(Content(size, content.body), digest).facts
            if facts and content.body is not None and size <= KEPT_MANIFEST_BYTES:
                self._bodies.put(key, content.body, size + 200)
            media_type = facts.media_type if facts else media_type
        rows[digest] = {"mediaType": media_type, "digest": str(digest), "size": size}


def tree_in(run: Run, source: str, tags: str | None) -> DistributionTree:
    """The storage of distribution in a directory. `tags`: a file with its tags. Raises UsageError for that."""
    return DistributionTree(directory(source), partial(run.error, root=None), read_tags(tags) if tags else None)


def tree_of_bucket(run: Run, root: Root, tags: str | None) -> DistributionTree | None:
    """The same in a bucket; None: something else is there."""
    if not is_tree((entry.name, entry.is_dir) for entry in scan_or_empty(root.driver, ROOT)):
        return None
    listed = ListedTree(root.driver, partial(jobs_of(root).stored, run))
    known = read_tags(tags) if tags else None
    return DistributionTree(listed, partial(run.error, root=None), known, root.protocol.each)


def _one_by_one(calls: Sequence[Callable[[], None]]) -> None:
    for call in calls:
        call()


class ListedTree(WrappedDriver):
    """The tree in a bucket: what lies in it is looked up in lists, each of a thousand keys, instead of by a request for
    each key. Safe between threads."""

    def __init__(self, inner: Driver, everything: Callable[[str], Iterable[Stored]]) -> None:
        """`everything`: lists all keys below a folder."""
        super().__init__(inner)
        self._everything = everything
        self._listed: Lru[str, dict[str, int]] = Lru(KEPT_KEYS)
        self._mutex = threading.Lock()

    def stat(self, key: str) -> Info:
        """What the list says of a key, or of a folder. Raises NotFound, StorageError."""
        if (folder := _listed_with(key)) is None:
            return self.inner.stat(key)
        listed, inside = self._list(folder), key.removeprefix(folder).lstrip("/")
        if (size := listed.get(inside)) is None:
            if any(other.startswith(f"{inside}/".lstrip("/")) for other in listed):
                return _FOLDER
            raise NotFound(f"{self.label}/{key}: no such object")
        return Info(0, size, 0, 0, 1, stat.S_IFREG | 0o444, 0, 0, 0)

    def scan(self, key: str) -> Sequence[Entry]:
        """The names in a folder, by the list."""
        if (folder := _listed_with(key)) is None:
            return self.inner.scan(key)
        below = f"{key.removeprefix(folder)}/".lstrip("/")
        rest = (inside.removeprefix(below) for inside in self._list(folder) if inside.startswith(below))
        names = dict(name.partition("/")[:2] for name in rest)
        return [Entry(name, bool(slash), not slash) for name, slash in names.items()]

    def _list(self, folder: str) -> dict[str, int]:
        with self._mutex:
            if (found := self._listed.get(folder)) is None:
                keys = ((one.key.removeprefix(f"{folder}/"), one.size) for one in self._everything(folder))
                found = {key: size for key, size in keys if not _FORMER.fullmatch(key)}
                self._listed.put(folder, found, len(found) + 1)
            return found


def _listed_with(key: str) -> str | None:
    """The folder whose list tells of this key; None: none does."""
    if (found := _LISTED.match(f"{key}/")) is not None:
        return found[0].removesuffix("/")
    return None


def _digest_in(key: str) -> Digest | None:
    """The digest of a key of a blob."""
    parts = key.split("/")
    if len(parts) > 3 and parts[-3] == "blobs":
        with suppress(DigestInvalid):
            return parse_digest(f"{parts[-2]}:{parts[-1]}")
    return None


# -- a file of tags -------------------------------------------------------------------------------


def read_tags(path: str) -> Tags:
    """A file with the tags of a registry that keeps them elsewhere: `REPOSITORY:TAG DIGEST [TIME]` on each line, the
    time as in RFC 3339. Empty lines, and those that begin with #, count for nothing. Raises UsageError, which names the
    line."""
    found: Tags = {}
    try:
        with open_file(path) as file:
            lines = file.readall().decode().splitlines()
    except StorageError as error:
        raise UsageError(f"--tags: {error.message}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--tags: {path} is no text") from None
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                _enter(found, line.split())
            except (ValueError, NameInvalid, TagInvalid, DigestInvalid) as error:
                reason = getattr(error, "message", None) or str(error)
                raise UsageError(f"--tags: {path}, line {number}: {reason}") from None
    return found


def _enter(found: Tags, words: list[str]) -> None:
    if not 2 <= len(words) <= 3:
        raise ValueError("a line is `REPOSITORY:TAG DIGEST`, and may end with the time of the push")
    name, colon, tag = words[0].rpartition(":")
    if not colon:
        raise ValueError(f"{quoted(words[0])} has no tag")
    at = datetime.fromisoformat(words[2]) if len(words) == 3 else None
    if at is not None:
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    tags, digest = found.setdefault(parse_name(name), {}), parse_digest(words[1])
    if tags.setdefault(parse_tag(tag), (digest, at.timestamp() if at else None))[0] != digest:
        raise ValueError(f"an earlier line has {words[0]} with another digest")
