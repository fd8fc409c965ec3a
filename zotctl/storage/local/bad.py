"""Known damage: `bad/ALG/ENC/N` is one more hard link of each damaged inode (local.md, "Deduplication").

The link keeps the inode number taken, so that a good file never inherits it, and the bytes for a look.
"""

from __future__ import annotations

from zotctl.errors import CannotLink, Exists, NotFound
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.driver import Info
from zotctl.storage.local.site import Site


class Bad:
    def __init__(self, site: Site) -> None:
        self._site = site

    def holds(self, digest: Digest, info: Info) -> bool:
        """Is this inode known to be damaged? One `stat` where nothing is, which is nearly always."""
        directory = keys.bad(digest)
        if self._site.stat(directory) is None:
            return False
        inodes = (self._site.stat(f"{directory}/{e.name}") for e in self._site.driver.scan(directory))
        return any(known is not None and known.ino == info.ino for known in inodes)

    def add(self, digest: Digest, key: str) -> None:
        """Mark the inode behind a name; where links don't work, move the file aside instead."""
        site, token = self._site, self._site.clock.token()
        try:
            site.link_into(key, f"{keys.bad(digest)}/{token}")
        except CannotLink:
            site.make_dirs(keys.QUARANTINE)
            site.driver.rename(key, f"{keys.QUARANTINE}/{digest.encoded}.{token}")
        except (Exists, NotFound):
            pass

    def forget(self, digest: Digest) -> None:
        """Let go of all damaged copies of a digest, when no name leads to them any more."""
        directory = keys.bad(digest)
        if self._site.stat(directory) is None:
            return
        for entry in self._site.driver.scan(directory):
            self._site.discard(f"{directory}/{entry.name}")
        self._site.driver.rmdir(directory)
