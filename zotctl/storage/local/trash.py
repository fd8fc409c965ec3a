"""The trash is the delay: what was condemned lies here, and whoever asks for it gets it back by one link.

`trash/RUN/NAME/blobs/ALG/ENC`, a folder for each run. Folders `deleted-...` hold what a client deleted
on purpose; reads don't look into these (local.md, "Reading, and what a promise is").
"""

from __future__ import annotations

from zotctl.errors import CannotLink, Exists, NoSpace, NotFound, PermissionRefused, ReadOnlyStorage
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Generation
from zotctl.storage.local.site import Site
from zotctl.storage.locks import Held


class Trash:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._runs: tuple[Generation | None, list[str]] = (None, [])

    def runs(self, *, fresh: bool = False) -> list[str]:
        """The runs that reads look into; listed again when the folder's time stamp moved, or always."""
        info = self._site.stat(keys.TRASH)
        if info is None:
            return []
        if fresh or self._runs[0] != info.generation:
            names = (entry.name for entry in self._site.driver.scan(keys.TRASH) if entry.is_dir)
            self._runs = (info.generation, sorted(n for n in names if not n.startswith(keys.DELETED_PREFIX)))
        return self._runs[1]

    def restore(self, name: str, digest: Digest, *, fresh: bool = False) -> bool:
        """Link condemned content back into its place. True: it is there now. Needs no lock."""
        return any(self.restore_from(run, name, digest) for run in self.runs(fresh=fresh))

    def restore_from(self, run: str, name: str, digest: Digest) -> bool:
        source, blob = keys.condemned(run, name, digest), keys.blob(name, digest)
        try:
            self._site.link_into(source, blob)
        except Exists:
            return True
        except CannotLink:
            self._site.driver.rename(source, blob)
        except (NotFound, ReadOnlyStorage, PermissionRefused):
            return False
        return True

    def delete(self, held: Held, digest: Digest) -> None:
        """Take a blob away on purpose: from each trash folder first, so that no read can restore it."""
        for run in self.runs(fresh=True):
            self._site.discard(keys.condemned(run, held.name, digest))
        blob = keys.blob(held.name, digest)
        kept = keys.condemned(self._deleted_run(), held.name, digest)
        try:
            self._site.make_dirs(keys.parent(kept))
            self._site.driver.rename(blob, kept)
        except NoSpace:
            # A full disk is why people delete: the folder in the trash is worth less than the bytes.
            self._site.driver.unlink(blob)

    def _deleted_run(self) -> str:
        """One folder an hour: it can be purged when its last deletion is older than the delay."""
        return f"{keys.DELETED_PREFIX}{int(self._site.clock.now() // 3600):08x}"
