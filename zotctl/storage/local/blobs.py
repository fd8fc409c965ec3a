"""LocalBlobs: find, open, publish, mount, delete by the steps of docs/design/local.md#reading and #upload."""

from __future__ import annotations

from collections.abc import Collection

from zotctl.errors import CannotLink, Changed, Damaged, Exists, NotFound, PermissionRefused
from zotctl.oci.digest import Digest, is_stub, new_hash
from zotctl.storage import keys
from zotctl.storage.driver import Info, Reader
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.damage import DamagedFiles
from zotctl.storage.local.heal import Healing
from zotctl.storage.local.layouts import LocalLayouts
from zotctl.storage.local.naming import own_name
from zotctl.storage.local.pool import Copy, Pool
from zotctl.storage.local.trash import Trash
from zotctl.storage.locks import Held

HASH_BLOCK = 1 << 20


class LocalBlobs:
    def __init__(
        self, context: LocalContext, layouts: LocalLayouts, trash: Trash, pool: Pool, damaged: DamagedFiles
    ) -> None:
        self._context, self._layouts, self._trash, self._pool, self._damaged = context, layouts, trash, pool, damaged
        self.healing = Healing(context, damaged)

    # -- reading: no lock, no write -------------------------------------------------------------

    def find(self, name: str, digest: Digest, *, fresh: bool = False) -> Info:
        """A blob's name, taken back from the trash if need be. NotFound: absent. Damaged: known to be damaged, or a
        stub."""
        key = keys.blob(name, digest)
        try:
            info = self._context.driver.stat(key)
        except NotFound:
            if not self._trash.restore(name, digest, fresh=fresh):
                raise
            info = self._context.driver.stat(key)
        return self._sound(digest, info)

    def open(self, name: str, digest: Digest) -> Reader:
        key = keys.blob(name, digest)
        try:
            reader = self._context.driver.open(key)
        except NotFound:
            if not self._trash.restore(name, digest):
                self._sound(digest, self._context.driver.stat(key))  # a link, a directory: there, and damaged
                raise
            reader = self._context.driver.open(key)
        try:
            self._sound(digest, reader.info())
        except BaseException:
            reader.close()
            raise
        return reader

    def _sound(self, digest: Digest, info: Info) -> Info:
        if not info.is_file or is_stub(digest, info.size) or self._damaged.has(digest, info):
            raise Damaged(f"{digest} is damaged here; push it again to heal it")
        return info

    # -- publishing: no lock, `link` never replaces ----------------------------------------------

    def publish(
        self, name: str, digest: Digest, staged: str, held: Held | None = None, *, manifest: bool = False
    ) -> None:
        """Give verified bytes their name. The staged name may be left over: the caller removes it. What is published
        under a lock, or as a manifest, is flushed even without `commit`: an index.json is about to lead there (I3)."""
        gathering = self._context.durable.gathering
        if gathering is not None and (manifest or self._context.commit):
            return gathering.add(name, digest, staged)
        if self._context.stat(keys.layout(name)) is None:
            self._layouts.make(name, digest.algorithm, held)
        flush = manifest or held is not None or self._context.commit
        while not (self._publish_once(name, digest, staged, flush) and self._flush_names(name, digest, staged)):
            self._layouts.make(name, digest.algorithm, held)  # a collector may have removed an empty one
        if held is None:
            self.healing.pay()
        return None

    def _flush_names(self, name: str, digest: Digest, staged: str) -> bool:
        """[commit] False: a collector took the blob away meanwhile, begin again."""
        try:
            self._context.flush_names(keys.blobs_of(name, digest.algorithm))
        except NotFound:
            if self._context.stat(staged) is not None:
                return False
            self.flush(name, [digest])  # it was renamed into its place, and is in the trash, if anywhere
        return True

    def _flush(self, blob: str) -> None:
        self._context.durable.flushed(blob)

    def flush(self, name: str, digests: Collection[Digest]) -> None:
        """See blobs of a repository to the device, bytes and names, also those of other processes, with `commit` and
        without.

        What was trashed meanwhile is taken back from the trash. Raises NotFound: a client or `gc --delay 0s` removed
        one.
        """
        if not digests or self._context.durable.everything(len(digests)):
            return
        for digest in digests:
            self._flush_found(name, digest)
        for algorithm in sorted({digest.algorithm for digest in digests}):
            self._context.durable.names(keys.blobs_of(name, algorithm))

    def _flush_found(self, name: str, digest: Digest) -> None:
        while True:
            try:
                self._flush(keys.blob(name, digest))
            except NotFound:
                if not self._trash.restore(name, digest, fresh=True):
                    raise
            else:
                return

    def distrust(self, name: str, digest: Digest) -> bool:
        """A manifest says another length: hash the blob, and mark it if it is wrong. True: it is right.

        A power cut may have cut it short before any manifest could tell; until it is marked, HEAD says that
        it is there and no client sends it again.
        """
        with self._context.driver.open(keys.blob(name, digest)) as reader:
            held, hasher = HeldFile(reader), new_hash(digest.algorithm)
            for at in range(0, reader.size, HASH_BLOCK):
                hasher.update(reader.read_at(at, HASH_BLOCK))
            right = hasher.hexdigest() == digest.encoded
            if not right:
                self._damaged.mark(digest, keys.blob(name, digest), held)
        return right

    def _publish_once(self, name: str, digest: Digest, staged: str, flush: bool) -> bool:
        """One round; False: the world moved, begin again at stat(blob).

        `flush`: what gets or has the name is flushed. The staged file is, but the one that is there, or in the pool,
        may have come by a push without `commit`.
        """
        blob = keys.blob(name, digest)
        if (there := self._context.stat(blob)) is not None:
            return self._keep_or_heal(name, digest, staged, there, flush)
        with self._pool.look(digest, staged) as pooled:
            try:
                if self._pool.link(digest, pooled, blob, flush=flush):
                    return True
                self._context.driver.link(staged, blob)
            except Exists:
                return False
            except NotFound:
                self._context.driver.stat(staged)  # raises if it is ours that went, not the layout
                return False
            except CannotLink:
                self._context.durable.replace(self._context.durable.flushed(staged), blob)
                return True
            self._pool.offer(digest, staged, pooled)
            if pooled.copy is Copy.DAMAGED:
                self.healing.owe(digest, staged)
        return True

    def _keep_or_heal(self, name: str, digest: Digest, staged: str, there: Info, flush: bool) -> bool:
        blob = keys.blob(name, digest)
        if not there.is_file:
            self._damaged.set_aside(digest, blob, HeldFile.unopened(there))
            return False
        try:
            reader = self._context.driver.open(blob)
        except NotFound:
            return False
        with reader:
            held = HeldFile(reader)
            good = not self._damaged.has(digest, held.info) and self._context.same_bytes(reader, staged)
            if good:
                return self._keep(blob, held, flush)
            self._context.driver.stat(staged)  # raises if it is ours that went: then the other may well be good
            return self._heal(name, digest, staged, held)

    def _keep(self, blob: str, held: HeldFile, flush: bool) -> bool:
        """False: the name leads elsewhere by now."""
        try:
            if flush:
                self._flush(blob)
        except NotFound:
            return False
        return held.is_at(self._context.stat(blob))

    def _heal(self, name: str, digest: Digest, staged: str, damaged: HeldFile) -> bool:
        """Ours replaces a damaged file; the damaged inode stays known, and the pool and the other
        repositories that have it get good bytes. False: another process was faster."""
        blob = keys.blob(name, digest)
        if not self._damaged.mark(digest, blob, damaged):
            return False
        with self._pool.look(digest, staged) as pooled:
            self._pool.offer(digest, staged, pooled)
        self.healing.owe(digest, staged)
        self._context.durable.replace(self._context.durable.flushed(staged), blob)
        return True

    def mount(self, source: str, name: str, digest: Digest) -> bool:
        """A blob of one repository for another, by one link. No lock."""
        if not self._context.driver.capabilities.links:
            return False
        try:
            with self.open(source, digest) as reader:
                needed = (keys.layout(name), keys.blobs_of(name, digest.algorithm))
                if any(self._context.stat(key) is None for key in needed):
                    self._layouts.make(name, digest.algorithm, None)
                self._link(keys.blob(source, digest), keys.blob(name, digest), HeldFile(reader))
        except Exists:
            return self._is_sound(name, digest) and self._keep_mounted(name, digest, flushed=False)
        except (NotFound, Damaged, Changed, CannotLink, PermissionRefused):
            return False
        return self._keep_mounted(name, digest, flushed=True)

    def _keep_mounted(self, name: str, digest: Digest, *, flushed: bool) -> bool:
        """[commit] `flushed`: its bytes are on the device. False: it was deleted meanwhile."""
        try:
            if not flushed and self._context.durable.waits:
                self._flush(keys.blob(name, digest))
            self._context.flush_names(keys.blobs_of(name, digest.algorithm))
        except NotFound:
            return self._trash.restore(name, digest, fresh=True) and self._keep_mounted(name, digest, flushed=flushed)
        return True

    def _link(self, source: str, target: str, held: HeldFile) -> None:
        """The file that was looked at, flushed [commit] before it is seen."""
        with own_name(self._context, source, held) as name:
            if self._context.commit:
                self._flush(name)
            self._context.driver.link(name, target)

    def _is_sound(self, name: str, digest: Digest) -> bool:
        try:
            self.find(name, digest)
        except (NotFound, Damaged):
            return False
        return True
