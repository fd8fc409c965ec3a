"""A bucket becomes a root."""

from __future__ import annotations

from zotctl.config import RootConfig, Route
from zotctl.errors import Unsupported
from zotctl.storage.clock import Clock
from zotctl.storage.root import Root


def open_bucket(settings: RootConfig, clock: Clock, *, read_only: bool = False, route: Route | None = None) -> Root:
    """Not yet."""
    raise Unsupported(f"{settings.path}: buckets can't be opened yet")
