"""Settings that this version lacks and must not ignore, each with the way out."""

from __future__ import annotations

ACCESS_CONTROL = (
    "this version has no access control and would let everyone in; "
    "remove the key and put a proxy that authenticates in front, or listen on 127.0.0.1 only"
)
OTHER_CLOUD = "only directories and S3 can be served; copy the content to one of them first"

UNSAFE = {"http.auth": ACCESS_CONTROL, "http.access_control": ACCESS_CONTROL}
"""Keys of our own file that a server refuses. A job ignores them, since it lets no clients in."""
