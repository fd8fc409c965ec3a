"""An archive of a layout as a root that can be checked. It is read once, from front to end, and hashed on the
way; nothing is extracted. What may be a manifest is kept in memory, of everything else the size.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.doubles.filesystem import MemoryDriver
from zotctl.errors import Damaged, Unavailable
from zotctl.jobs.check.damage import HashResult
from zotctl.jobs.check.repository import RepositoryCheck
from zotctl.jobs.imports.archives import LARGEST_LISTED, MOST_LISTED, read_archive
from zotctl.jobs.imports.sources import THE_LAYOUT, opened
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of_hash, new_hash
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Info, Reader
from zotctl.storage.facts import BEGINNING_BYTES, Content, is_like_json, read_content
from zotctl.storage.index import Index
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.protocol import LocalProtocol
from zotctl.storage.locks import Locks
from zotctl.storage.root import Root
from zotctl.storage.wrappers import ReadOnlyDriver


class _Members(ReadOnlyDriver):
    """The members of an archive under their keys; `sizes` are of those whose bytes are not kept."""

    def __init__(self, inner: MemoryDriver, label: str, sizes: dict[str, int]) -> None:
        super().__init__(inner)
        self._label, self._sizes = label, sizes

    @property
    def label(self) -> str:
        return self._label

    def stat(self, key: str) -> Info:
        info = self.inner.stat(key)
        return info._replace(size=self._sizes[key]) if key in self._sizes else info

    def open(self, key: str) -> Reader:
        if key in self._sizes:
            raise Unavailable(f"{self._label}: {key} is too large to be kept, or does not look like a manifest")
        return self.inner.open(key)


class Archive:
    """A stage for `read_archive`, and then what was found: `root` with one layout, THE_LAYOUT."""

    def __init__(self, run: Run, label: str) -> None:
        self._run, self._label, self._held = run, label, 0
        self._driver = MemoryDriver()
        self._sizes: dict[str, int] = {}
        self._found: dict[str, Digest] = {}
        self._texts: set[str] = set()
        """What may be a manifest."""
        for folder in (THE_LAYOUT, keys.blobs(THE_LAYOUT)):
            self._driver.mkdir(folder)
        self._folders: set[str] = set()

    def has(self, digest: Digest, size: int) -> bool:
        return False

    def take(self, digest: Digest, size: int, chunks: Iterator[bytes]) -> None:
        state, kept, beginning = new_hash(digest.algorithm), list[bytes](), b""
        for data in chunks:
            state.update(data)
            beginning = beginning or bytes(data[:BEGINNING_BYTES])
            self._run.add("hashed_bytes", len(data))
            if size <= LARGEST_LISTED and self._held + size <= MOST_LISTED:
                kept.append(data)
        found = digest_of_hash(digest.algorithm, state)
        if found != digest:
            self._found[digest] = found
        if is_like_json(beginning):
            self._texts.add(digest)
        self._keep(digest, size, b"".join(kept))
        self._run.progress(self._run.report.summary.get("hashed_bytes", 0), None, "bytes", self._label)

    def _keep(self, digest: Digest, size: int, body: bytes) -> None:
        folder, key = keys.blobs_of(THE_LAYOUT, digest.algorithm), keys.blob(THE_LAYOUT, digest)
        if folder not in self._folders:
            self._folders.add(folder)
            self._driver.mkdir(folder)
        is_kept = len(body) == size and digest in self._texts
        self._write(key, body if is_kept else b"")
        if is_kept:
            self._held += size
        else:
            self._sizes[key] = size

    def _write(self, key: str, body: bytes) -> None:
        with self._driver.create(key) as writer:
            writer.write([body])

    def layout(self, label: str, index: Index, names: dict[str, list[str]], damaged: dict[str, str]) -> Archive:
        self._write(keys.layout(THE_LAYOUT), LAYOUT_BYTES)
        self._write(keys.index(THE_LAYOUT), index.render())
        return self

    @property
    def root(self) -> Root:
        driver, clock = _Members(self._driver, self._label, self._sizes), Clock()
        context = LocalContext(driver, clock, Locks(driver, clock), commit=False, dedupe=False)
        return Root(LocalProtocol(context, marker=""), read_only=True)

    # -- as `Blobs` -----------------------------------------------------------------------------

    def look(self, repo: RepositoryCheck, digest: Digest, info: Info) -> None:
        """Its bytes have passed by already."""
        if digest in self._found:
            repo.damaged.append(HashResult(digest, info, self._found[digest]))

    def drain(self) -> None:
        pass

    def content(self, repo: RepositoryCheck, digest: Digest, whole: bool) -> Content:
        key = keys.blob(repo.name, digest)
        if digest in self._found:
            raise Damaged(f"{digest} is damaged")
        if key in self._sizes and digest not in self._texts:
            return Content(self._sizes[key], None)
        with repo.root.driver.open(key) as reader:
            return read_content(reader, digest, whole)


def read_whole(run: Run, source: str) -> Archive:
    """The layout in an archive, a file or a pipe ("-"). Raises LayoutInvalid: none, cut short, hostile."""
    label = "standard input" if source == "-" else source
    with opened(source) as stream:
        archive: Archive = read_archive(run, stream, label, Archive(run, label))
    return archive
