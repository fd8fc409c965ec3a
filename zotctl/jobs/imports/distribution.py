"""The storage of distribution (registry 2 and 3, Harbor) as a source: its tree, read as a tree of image layouts.

Below `docker/registry/v2`, `blobs/ALG/xx/HEX/data` has the content of all repositories. Below `repositories/NAME`,
`_layers/ALG/HEX/link` and `_manifests/revisions/ALG/HEX/link` say what the repository may read of it, and
`_manifests/tags/TAG/current/link` has the digest of a tag. Harbor keeps its tags in its database: they come in a file.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

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
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.layout import LAYOUT_BYTES, LAYOUT_FILE
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import REF_NAME, parse_name, parse_tag
from zotctl.storage.distribution import BLOBS, REPOSITORIES, ROOT
from zotctl.storage.driver import BytesReader, Driver, Info, Reader, read, scan_or_empty
from zotctl.storage.facts import Content, Unusable, read_content, understand
from zotctl.storage.history import Timeline
from zotctl.storage.opening import open_file
from zotctl.storage.wrappers import WrappedDriver

INDEX_FILE = "index.json"
LINK_BYTES = 512
"""The largest link that is read; a digest is shorter."""

OnSkipped = Callable[[str, ZotctlError], None]
"""Called with what could not be read, or is left out, and the reason."""

Tags = dict[str, dict[str, tuple[Digest, float | None]]]
"""The digest of each tag, and when it was pushed (seconds since 1970; None: unknown), by repository."""


class DistributionTree(WrappedDriver):
    """Shows each repository as an image layout: `NAME/index.json` is made of its links, `NAME/blobs/ALG/HEX` is the
    content that it may read. Nothing is written. Used by one thread for indexes, by any for blobs.

    `tags`: the tags of a file, which come instead of those in the tree.
    """

    def __init__(self, inner: Driver, on_skipped: OnSkipped, tags: Tags | None = None) -> None:
        super().__init__(inner)
        self._on_skipped, self._tags = on_skipped, tags
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
            return Info(0, 0, 0, 0, 1, stat.S_IFDIR | 0o755, 0, 0, 0)
        return self.open(key).info()

    def open(self, key: str) -> Reader:
        """Open a blob, or a part of a layout that is made here. Raises NotFound, StorageError."""
        if (digest := _digest_in(key)) is not None:
            return self.inner.open(self._data(key, digest))
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
        for place in ("_layers", "_manifests/revisions"):
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
        known: dict[Digest, dict[str, object]] = {}
        tags = self._tagged(name) if self._tags is None else self._tags.get(name, {})
        for tag, (digest, at) in sorted(tags.items()):
            known.setdefault(digest, self._descriptor(name, digest))
            if at is not None:
                self._times[tag] = at
            yield known[digest] | {"annotations": {REF_NAME: tag}}
        for digest in self._revisions(name):
            if digest not in known:
                yield self._descriptor(name, digest)

    def _tagged(self, name: str) -> dict[str, tuple[Digest, float | None]]:
        found: dict[str, tuple[Digest, float | None]] = {}
        folder = f"{self._base(name)}/_manifests/tags"
        for entry in scan_or_empty(self.inner, folder):
            key = f"{folder}/{entry.name}/current/link"
            try:
                text = read(self.inner, key, LINK_BYTES).decode("ascii", "replace").strip()
                found[entry.name] = (parse_digest(text), self.inner.stat(key).mtime_ns / 1e9)
            except NotFound:
                if self._is_there(key):  # a tag that was deleted may leave its folder
                    reason = f"the tag {quoted(entry.name)} of {name} is left out: {key} is no regular file"
                    self._on_skipped(name, LayoutInvalid(reason))
            except DigestInvalid:
                reason = f"the tag {quoted(entry.name)} of {name} names no digest in {key}, so it is left out"
                self._on_skipped(name, LayoutInvalid(reason))
            except StorageError as error:
                self._on_skipped(name, error)
        return found

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

    def _descriptor(self, name: str, digest: Digest) -> dict[str, object]:
        """What a row says of a manifest. Of one that can't be read it is a guess, and the import says why."""
        media_type, size = OCI_MANIFEST, 0
        with suppress(ZotctlError, Unusable), self.open(f"{name}/blobs/{digest.algorithm}/{digest.encoded}") as reader:
            size = reader.size
            content = read_content(reader, digest, True)
            facts = understand(Content(size, content.body), digest).facts
            media_type = facts.media_type if facts else media_type
        return {"mediaType": media_type, "digest": str(digest), "size": size}


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
