"""What is known of an upload between two requests: the object `uploads/ID` (docs/design/bucket.md#uploads).

Its metadata say what HEAD has to tell. Its body is the tail, then a trailer of lines: the ETags of the parts that were
sent (thousands don't fit into 2 KB of metadata), and a random token, for an ETag may be a digest of the body alone,
and two states must never have the same. It is replaced by If-Match only, so that two requests never write one session.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from zotctl.errors import BlobUploadUnknown, Changed, NotFound
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.driver import Buffer


@dataclass(frozen=True, slots=True)
class UploadSessionState:
    """`offset`, `tail`, `part` in bytes. `digest`: of all bytes up to `offset`, "" if unknown.
    `multipart`: the id of the multipart upload of `target`, "" if there is none. `etag` "": not stored yet."""

    id: str
    name: str
    offset: int = 0
    digest: str = ""
    tail: int = 0
    target: str = ""
    multipart: str = ""
    part: int = 0
    etags: tuple[str, ...] = field(default=(), repr=False)
    token: str = ""
    etag: str = ""

    @property
    def direct(self) -> bool:
        """Its parts will be the blob itself, and not an object to be copied."""
        return bool(self.multipart) and self.target != keys.staged(self.id)

    def moved(self, **changes: Any) -> UploadSessionState:
        return replace(self, **changes)

    def metadata(self) -> dict[str, str]:
        numbers = {"offset": self.offset, "tail": self.tail, "part": self.part}
        words = {"name": self.name, "digest": self.digest, "target": self.target, "multipart": self.multipart}
        return {k: str(v) for k, v in (numbers | words | {"token": self.token}).items() if v}


def unknown(upload_id: str) -> BlobUploadUnknown:
    shown = upload_id[:64]
    return BlobUploadUnknown(f"no upload {shown} here: it was finished, cancelled, or never begun", shown)


def head(objects: Objects, name: str, upload_id: str) -> UploadSessionState:
    """Without its ETags. Raises BlobUploadUnknown."""
    try:
        found = objects.head(keys.session(upload_id))
    except NotFound as error:
        raise unknown(upload_id) from error
    return _owned(read_head(found), name)


def load(objects: Objects, name: str, upload_id: str) -> tuple[UploadSessionState, memoryview]:
    """And its tail. Raises BlobUploadUnknown."""
    try:
        got = objects.get(keys.session(upload_id))
    except NotFound as error:
        raise unknown(upload_id) from error
    assert got is not None
    found, body = got
    session = _owned(read_head(found), name)
    *etags, _ = body[session.tail :].decode().split("\n")
    return replace(session, etags=tuple(etags)), memoryview(body)[: session.tail]


def read_head(found: Object) -> UploadSessionState:
    """Raises BlobUploadUnknown if it is nothing that we have written."""
    about, upload_id = found.metadata, found.key.rpartition("/")[2]
    try:
        offset, tail, part = (int(about.get(key, "0")) for key in ("offset", "tail", "part"))
    except ValueError as error:
        raise unknown(upload_id) from error
    words = [about.get(key, "") for key in ("target", "multipart")]
    return UploadSessionState(
        upload_id, about.get("name", ""), offset, about.get("digest", ""), tail, words[0], words[1], part,
        token=about.get("token", ""), etag=found.etag,
    )  # fmt: skip


def _owned(session: UploadSessionState, name: str) -> UploadSessionState:
    """A session is found through its own repository only (I7)."""
    if session.name != name:
        raise unknown(session.id)
    return session


def trailer(session: UploadSessionState, token: str) -> bytes:
    """What follows the tail in the body."""
    return "\n".join((*session.etags, token)).encode()


def store(objects: Objects, session: UploadSessionState, body: Buffer) -> UploadSessionState:
    """Replace what is there, which must be what `session` was read from. Raises Changed, Unavailable."""
    key, match = keys.session(session.id), session.etag
    try:
        etag = objects.put(key, body, match=match, absent=not match, metadata=session.metadata())
    except Changed:
        if not match:  # no other request knows its id: it was stored, and purged while this process was frozen
            raise unknown(session.id) from None
        raise
    return replace(session, etag=etag)
