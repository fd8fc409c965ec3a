"""Uploads that a client still continues: what their push has sent before is left for it (I6)."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import BlobUploadUnknown, NotFound
from zotctl.jobs.bucket.ahead import Ahead
from zotctl.jobs.uploads import GREATEST_AGE, JUST_BEGUN
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.uploads.state import read_head
from zotctl.storage.keys import parse_upload_id


class ActiveBucketUploads:
    """As they were when a run began. A session was renewed by the server's clock, and begun by that of the host that
    took it, which only says how far back to spare."""

    def __init__(self, context: BucketContext, delay: float, ahead: Ahead | None = None) -> None:
        """`ahead` None: only to look."""
        ahead = ahead or Ahead(context, context.objects.date(), at_once=not delay)
        self._context, self._ahead = context, ahead
        self._began: dict[str, float] = {}
        for found in context.objects.list(f"{keys.UPLOADS}/"):
            if ahead.age(found) < max(delay, JUST_BEGUN):
                self._learn(found.key)

    def _learn(self, key: str) -> None:
        with suppress(NotFound, BlobUploadUnknown, ValueError):
            session = read_head(found := self._context.objects.head(key))
            started = min(parse_upload_id(session.id).started, self._ahead.modified(found))
            if self._ahead.now - started < GREATEST_AGE:
                self._began[session.name] = min(started, self._began.get(session.name, float("inf")))

    def since(self, name: str) -> float:
        """When the oldest one of a repository began; infinity without one."""
        return self._began.get(name, float("inf"))
