"""An object store of a test's own."""

from __future__ import annotations

from tests.buckets import own_server as own_server
