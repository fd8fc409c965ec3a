"""What a configuration may ask for and this version must not ignore, with the way out."""

from __future__ import annotations

ACCESS_CONTROL = (
    "this version has no access control and would let everyone in; "
    "remove the key and put a proxy that authenticates in front, or listen on 127.0.0.1 only"
)
LOCAL_ONLY = "this version serves local directories; remove the key and name a directory"
OTHER_CLOUD = "only local directories can be served; copy the content to one first"

REFUSED = {"storage.s3": LOCAL_ONLY}
"""Keys of our own file."""
UNSAFE = {"http.auth": ACCESS_CONTROL, "http.access_control": ACCESS_CONTROL}
"""The same, for a server only: a job lets nobody in."""
