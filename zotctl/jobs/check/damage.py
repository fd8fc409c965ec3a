"""What the bytes of a blob say about its name, and what is done about it.

A result is about one content of one file under one digest, so names that share it share the result. Before anything
is done to a file, it is held and compared, and read again if anything at all has happened to it (I15, I10).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from zotctl.errors import Changed, NotFound, StorageError
from zotctl.jobs.check.hashing import Hasher
from zotctl.jobs.report import Kind
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import FileIdentity, HeldFile
from zotctl.storage.root import Root

SETTLED = 2.0
"""Seconds since the last write after which a file is no longer being written in place, as zot writes manifests."""
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class HashResult:
    """`info`: the inode that was read, None if the name was gone; `found`: what its bytes hash to, None if
    they were not read; `error`: why they could not be."""

    digest: Digest
    info: Info | None = None
    found: Digest | None = None
    error: StorageError | None = None

    @property
    def gone(self) -> bool:
        return self.info is None and self.error is None

    @property
    def good(self) -> bool:
        return self.found == self.digest

    def is_about(self, info: Info | None) -> bool:
        """The same content of the same file, as far as its stamps tell: enough to speak of it, or to leave it alone."""
        return self.info is not None and info is not None and _content(self.info) == _content(info)


def _content(info: Info) -> FileIdentity:
    return FileIdentity.of(info).content


class Looked(NamedTuple):
    """A result, and the file that it is about, held. None: nothing is held, for there is nothing to be done."""

    result: HashResult
    held: HeldFile | None = None


class Inspector:
    """Reads blobs, from any thread. `quick`: looks at sizes and known damage only."""

    def __init__(self, run: Run, hasher: Hasher, *, quick: bool = False) -> None:
        self._run, self._clock, self._hasher, self._quick = run, run.clock, hasher, quick
        self._requests = run.requests

    def blob(self, root: Root, name: str, digest: Digest) -> HashResult:
        """Of a repository."""
        return self.look(root, keys.blob(name, digest), digest, name)

    def look(self, root: Root, key: str, digest: Digest, name: str = "") -> HashResult:
        """Hash always: rot leaves the time stamp alone. What is still being written is looked at again."""
        with self.held(root, key, digest, name) as looked:
            return looked.result

    @contextmanager
    def held(self, root: Root, key: str, digest: Digest, name: str = "") -> Iterator[Looked]:
        """The same, and the file is held as long as the block runs."""
        for _ in range(ATTEMPTS):
            with ExitStack() as stack:
                looked, now = self._once(root, key, digest, name, stack)
                age = self._age(looked.result, now)
                if age is None:
                    yield looked
                    return
            self._clock.sleep(max(0.0, min(SETTLED, SETTLED - age)))
        yield Looked(HashResult(digest))

    def _age(self, result: HashResult, now: Info | None) -> float | None:
        """Seconds since the last write to a file that may still be being written; None: the result stands."""
        if result.good or result.info is None or now is None or self._quick:
            return None
        age = self._clock.now() - now.mtime_ns / 1e9
        return age if _content(now) != _content(result.info) or 0 <= age < SETTLED else None

    def _once(self, root: Root, key: str, digest: Digest, name: str, stack: ExitStack) -> tuple[Looked, Info | None]:
        """The result on the file as it was when it was opened, and what it is afterwards."""
        self._requests.take(1)
        try:
            reader = stack.enter_context(root.driver.open(key))
            held = HeldFile(reader)
            return Looked(self._read(held, reader, root, name, digest), held), reader.info()
        except (NotFound, Changed):  # or replaced while it was read, by bytes that were verified
            return Looked(HashResult(digest)), None
        except StorageError as error:
            if self._run.is_lost(root, error):
                raise  # which says nothing of this blob
            return self._unreadable(root, key, digest, error), None

    def _unreadable(self, root: Root, key: str, digest: Digest, error: StorageError) -> Looked:
        info = _info(root, key)
        return Looked(HashResult(digest, info, None, error), HeldFile.unopened(info) if info is not None else None)

    def _read(self, held: HeldFile, reader: Reader, root: Root, name: str, digest: Digest) -> HashResult:
        info = held.info
        if not self._quick:
            return HashResult(digest, info, self._hasher.digest(reader, digest.algorithm))
        known_damaged = is_stub(digest, info.size) or root.maintenance.is_marked(name, digest, info)
        return HashResult(digest, info, None if known_damaged else digest)

    @contextmanager
    def again(self, root: Root, name: str, result: HashResult) -> Iterator[Looked]:
        """The file that a result is about, held, before something is done to it. If anything has happened to the file
        since, and no mark has held it, the result is void, and it is read again. Gone: the name leads elsewhere."""
        key = keys.blob(name, result.digest)
        with ExitStack() as stack:
            held = self._take(root, key, stack)
            if held is None or not result.is_about(held.info):
                yield Looked(HashResult(result.digest))
            elif self._stands(root, name, result, held.info):
                yield Looked(result, held)
            else:
                with self.held(root, key, result.digest, name) as looked:
                    yield looked

    def _stands(self, root: Root, name: str, result: HashResult, now: Info) -> bool:
        if result.info is not None and FileIdentity.of(result.info).is_untouched(now):
            return True
        return not result.good and root.maintenance.is_marked(name, result.digest, now)

    def _take(self, root: Root, key: str, stack: ExitStack) -> HeldFile | None:
        """None: there is nothing under this name. Raises StorageError where not even that can be told."""
        try:
            return HeldFile(stack.enter_context(root.driver.open(key)))
        except (NotFound, Changed):
            return None
        except StorageError as error:
            if self._run.is_lost(root, error):
                raise
            info = root.stat(key)
            return HeldFile.unopened(info) if info is not None else None


def _info(root: Root, key: str) -> Info | None:
    try:
        return root.driver.stat(key)
    except StorageError:
        return None


def judge(result: HashResult, sizes: set[int]) -> tuple[Kind, str, dict[str, Any]]:
    """The kind of damage, in words, and the figures. `sizes`: what the manifests say."""
    size = result.info.size if result.info else 0
    found: dict[str, Any] = {"expected_digest": result.digest, "found_digest": result.found, "found_bytes": size}
    if result.error is not None:
        return "unreadable", f"can't be read: {result.error.message}", {}
    if is_stub(result.digest, size):
        return "stub", "the file is empty", found | _expected(sizes)
    if sizes and size not in sizes:
        expected = " or ".join(map(str, sorted(sizes)))
        return "size_mismatch", f"the file has {size} bytes, its manifests say {expected}", found | _expected(sizes)
    if result.found is None:
        return "digest_mismatch", "the content was found damaged by an earlier run", found
    return "digest_mismatch", f"the content has the digest {result.found}", found | _expected(sizes)


def _expected(sizes: set[int]) -> dict[str, Any]:
    return {"expected_bytes": min(sizes)} if sizes else {}
