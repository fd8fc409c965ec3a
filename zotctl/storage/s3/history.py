"""What was pushed and pulled on a bucket (storage.history)."""

from __future__ import annotations

from zotctl.storage.history import Past
from zotctl.storage.s3.site import Site


class BucketHistory:
    def __init__(self, site: Site) -> None:
        self._site = site

    def note(self, name: str, action: str, digest: str, tags: dict[str, str | None] | None = None) -> None:
        """Nothing yet."""

    def note_pull(self, name: str, digest: str) -> None:
        """Nothing yet."""

    def past(self, name: str) -> Past:
        return Past()
