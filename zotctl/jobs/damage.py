"""What the bytes of a blob say about its name, and what is done about it.

A verdict is about one inode under one digest, so names that share it share the verdict; before anything is
done to a name, it is looked at again (I15, I10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zotctl.errors import Changed, NotFound, StorageError
from zotctl.jobs.hashing import Hasher
from zotctl.jobs.report import Kind
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.driver import Info, Reader
from zotctl.storage.root import Root

SETTLED = 2.0
"""Seconds since the last write after which nobody is still writing a file in place, as zot writes manifests."""
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
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
        mine = self.info
        return mine is not None and info is not None and (mine.ino, mine.dev) == (info.ino, info.dev)


class Inspector:
    """Reads blobs, from any thread. `quick`: looks at sizes and known damage only."""

    def __init__(self, run: Run, hasher: Hasher, *, quick: bool = False) -> None:
        self._clock, self._hasher, self._quick = run.clock, hasher, quick
        self._requests = run.requests

    def blob(self, root: Root, name: str, digest: Digest) -> Verdict:
        """Of a repository."""
        return self.look(root, keys.blob(name, digest), digest, name)

    def look(self, root: Root, key: str, digest: Digest, name: str = "") -> Verdict:
        """Hash always: rot leaves the time stamp alone. What is still being written is looked at again."""
        for _ in range(ATTEMPTS):
            verdict, now = self._once(root, key, digest, name)
            if verdict.good or verdict.info is None or now is None or self._quick:
                return verdict
            age = self._clock.now() - now.mtime_ns / 1e9
            if now.generation == verdict.info.generation and not 0 <= age < SETTLED:
                return verdict
            self._clock.sleep(max(0.0, min(SETTLED, SETTLED - age)))
        return Verdict(digest)

    def _once(self, root: Root, key: str, digest: Digest, name: str) -> tuple[Verdict, Info | None]:
        """The verdict on the file as it was when it was opened, and what it is afterwards."""
        self._requests.take(1)
        try:
            with root.driver.open(key) as reader:
                return self._read(reader, root, name, digest), reader.info()
        except (NotFound, Changed):  # or replaced while it was read, by bytes that were verified
            return Verdict(digest), None
        except StorageError as error:
            return Verdict(digest, _info(root, key), None, error), None

    def _read(self, reader: Reader, root: Root, name: str, digest: Digest) -> Verdict:
        info = reader.info()
        if not self._quick:
            return Verdict(digest, info, self._hasher.digest(reader, digest.algorithm))
        known_bad = is_stub(digest, info.size) or root.upkeep.is_marked(name, digest, info)
        return Verdict(digest, info, None if known_bad else digest)


def _info(root: Root, key: str) -> Info | None:
    try:
        return root.driver.stat(key)
    except StorageError:
        return None


def judge(verdict: Verdict, sizes: set[int]) -> tuple[Kind, str, dict[str, Any]]:
    """The kind of damage, in words, and the figures. `sizes`: what the manifests say."""
    size = verdict.info.size if verdict.info else 0
    found: dict[str, Any] = {"expected_digest": verdict.digest, "found_digest": verdict.found, "found_bytes": size}
    if verdict.error is not None:
        return "unreadable", f"can't be read: {verdict.error.message}", {}
    if is_stub(verdict.digest, size):
        return "stub", "the file is empty", found | _expected(sizes)
    if sizes and size not in sizes:
        expected = " or ".join(map(str, sorted(sizes)))
        return "size_mismatch", f"the file has {size} bytes, its manifests say {expected}", found | _expected(sizes)
    if verdict.found is None:
        return "digest_mismatch", "the content was found damaged by an earlier run", found
    return "digest_mismatch", f"the content has the digest {verdict.found}", found | _expected(sizes)


def _expected(sizes: set[int]) -> dict[str, Any]:
    return {"expected_bytes": min(sizes)} if sizes else {}


def mark(root: Root, name: str, verdict: Verdict) -> bool:
    """HEAD and GET answer 404 from now on, and a push heals it. False: the name leads to something else by now."""
    return verdict.info is not None and root.upkeep.mark(name, verdict.digest, verdict.info)
