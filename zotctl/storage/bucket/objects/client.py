"""`Objects` over the wire: one signed request per call, without retries (see `retry`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

from zotctl.errors import Changed, NotFound, OutcomeUnknown, PermissionRefused, RequestRefused
from zotctl.storage import keys
from zotctl.storage.bucket.objects.errors import not_deleted
from zotctl.storage.bucket.objects.reading import ObjectReader
from zotctl.storage.bucket.objects.replies import (
    METADATA,
    ErrorReply,
    ListingPage,
    date_of,
    etag_of,
    object_of,
    page_of,
    result_of,
    undeleted,
)
from zotctl.storage.bucket.objects.requests import Cut, Reply, Sent, content_md5, with_checksum
from zotctl.storage.bucket.objects.seam import PAGE_KEYS, SHA256, Object, PresignedDelete
from zotctl.storage.bucket.objects.signing import presigned_url
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Reader

if TYPE_CHECKING:
    from zotctl.storage.bucket.objects.connection import BucketConnection

COPY_OBJECT_BYTES = 5 << 30
"""The largest object that CopyObject takes (AWS, "CopyObject")."""
COPY_PART_BYTES = 1 << 30
LIST = {"list-type": "2", "max-keys": str(PAGE_KEYS), "encoding-type": "url"}
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass(frozen=True)
class BucketSettings:
    """Which bucket, and how it is reached. None: as botocore finds it by itself (environment, profile, role,
    AWS_ENDPOINT_URL_S3, AWS_CA_BUNDLE).

    `prefix`: the root within the bucket, "" for all of it. `addressing`: "path", "virtual", or "auto", which
    is "path" for every endpoint but Amazon's. `verify`: a file of certificates, or False for no check at all.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    profile: str | None = None
    addressing: str = "auto"
    dual_stack: bool = False
    accelerate: bool = False
    verify: bool | str = True
    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    acl: str | None = None
    max_connections: int = 64

    @property
    def label(self) -> str:
        """s3://BUCKET/PREFIX"""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def __repr__(self) -> str:
        """No secrets, wherever it is printed."""
        return f"BucketSettings({self.label}, endpoint={self.endpoint}, access_key={self.access_key})"

    def headers(self) -> dict[str, str]:
        """What each request that makes an object says beside its key and bytes."""
        wanted = {
            "x-amz-storage-class": self.storage_class,
            "x-amz-server-side-encryption": self.encryption,
            "x-amz-server-side-encryption-aws-kms-key-id": self.kms_key,
            "x-amz-acl": self.acl,
        }
        return {name: value for name, value in wanted.items() if value}


class SignedRequest(NamedTuple):
    """What a presigned delete sends. `target`: path and query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Client:
    """For threads that share it. botocore is imported when the first one is made."""

    def __init__(self, settings: BucketSettings, clock: Clock | None = None) -> None:
        """Asks nothing of the bucket. Raises ConfigError: it can't be reached like this."""
        from zotctl.storage.bucket.objects.connection import BucketConnection

        self.settings = settings
        self.connection: BucketConnection = BucketConnection(settings, clock or Clock())
        self._headers = settings.headers()
        self._base = f"{settings.prefix}/" if settings.prefix else ""
        self._checksum, self._conditions = SHA256, True

    @property
    def label(self) -> str:
        """s3://BUCKET/PREFIX"""
        return self.settings.label

    @property
    def endpoint(self) -> str:
        """The address of the server, for what is remembered of its abilities."""
        return self.connection.endpoint

    def path(self, key: str) -> str:
        """The quoted key, as it stands in a URL after the bucket's."""
        return quote(self._base + key, safe="/-_.~")

    @contextmanager
    def _asked(
        self, method: str, key: str, operation: str, *, write: bool = False, match: str = "", **asked: Any
    ) -> Iterator[Reply]:
        """Make one request, whose answer the block reads. An error of either is raised as a StorageError."""
        with self.connection.translated(key, operation, write=write, match=match):
            yield self.connection.ask(method, self.path(key), **asked)

    # -- reading --------------------------------------------------------------------------------

    def store_above(self) -> str | None:
        """The address of a store that this prefix lies in, by one HEAD for each of its directories. None also if we
        may not look there."""
        above = self.settings.prefix
        while above:
            above = above.rpartition("/")[0]
            key = keys.within(above, keys.VERSION)
            with suppress(NotFound, PermissionRefused), self.connection.translated(above, "HeadObject"):
                self.connection.ask("HEAD", quote(key, safe="/-_.~"))
                return f"s3://{self.settings.bucket}/{above}".rstrip("/")
        return None

    def head(self, key: str) -> Object:
        """HeadObject. A bucket that isn't there is NotFound, too, for a HEAD has no code but its status."""
        with self._asked("HEAD", key, "HeadObject") as reply:
            return object_of(key, reply.headers)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        """GetObject, with If-None-Match."""
        condition = {"if-none-match": unless} if unless else {}
        with self._asked("GET", key, "GetObject", headers=condition, stream=True) as reply:
            if reply.status == 304 and unless:
                return None
            _require_whole(reply)
            body = reply.response.read()
            return object_of(key, reply.headers), body

    def open(self, key: str) -> Reader:
        """GetObject for all of it, which tells its size, too."""
        with self._asked("GET", key, "GetObject", stream=True) as reply:
            try:
                _require_whole(reply)
                return ObjectReader(self.connection, self.path(key), object_of(key, reply.headers), reply.response)
            except BaseException:
                reply.response.close()
                raise

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        """ListObjectsV2."""
        start = {"start-after": self._base + after} if after else {}
        for page, date in self._pages(prefix, start):
            for row in page.rows:
                key = row.key.removeprefix(self._base)
                yield Object(key, row.size, row.etag, row.modified, date - row.modified)

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        """ListObjectsV2 with a delimiter."""
        prefix = f"{directory}/" if directory else ""
        skipped = len(self._base) + len(prefix)
        start = {"start-after": self._base + prefix + after} if after else {}
        for page, _ in self._pages(prefix, {"delimiter": "/", **start}):
            told = [*page.below, *(row.key for row in page.rows)]
            for name in sorted((key[skipped:] for key in told), key=str.encode):
                # A directory that was told comes again, for the keys in it are after its name.
                if name.encode() > after.encode():
                    yield name.removesuffix("/"), name.endswith("/")

    def _pages(self, prefix: str, options: Mapping[str, str]) -> Iterator[tuple[ListingPage, float]]:
        """Each with the server's clock."""
        asked = {**LIST, "prefix": self._base + prefix, **options}
        while True:
            with self.connection.translated(prefix, "ListObjectsV2"):
                reply = self.connection.ask("GET", "", query=asked)
                page, date = page_of(reply.body), date_of(reply.headers)
                if page.token and page.token == asked.get("continuation-token"):
                    raise HTTPException("the same page of a list again")
            yield page, date
            if not page.token:
                return
            asked["continuation-token"] = page.token

    # -- writing --------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        body: Buffer,
        *,
        match: str = "",
        absent: bool = False,
        metadata: Mapping[str, str] | None = None,
        sha256: str = "",
    ) -> str:
        """PutObject, with If-Match or If-None-Match where the store knows them, else after a HEAD."""
        if not self._conditions and (match or absent):
            self._look_before(key, match, absent)
            match, absent = "", False
        headers = {**self._headers, **_condition(match, absent)}
        headers |= {f"{METADATA}{name}": value for name, value in (metadata or {}).items()}
        sent = with_checksum(body, self._checksum, sha256)
        with self._asked("PUT", key, "PutObject", write=True, match=match, headers=headers, sent=sent) as reply:
            return etag_of(reply.headers)

    def _look_before(self, key: str, match: str, absent: bool) -> None:
        """Check a condition by a HEAD, for a store that knows no conditions. Raises Changed."""
        there: str | None = None
        with suppress(NotFound):
            there = self.head(key).etag
        if there != match if match else absent and there is not None:
            raise Changed(f"{self.label}/{key}: it is not what it was")

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        """For each `put` from now on, by any thread."""
        self._checksum, self._conditions = checksum, conditions

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        """PutObject as it should not be."""
        sent = with_checksum(b"other bytes" if wrong else body, checksum)._replace(body=body)
        headers = {**self._headers, **_condition(match, False)}
        asked = self._asked("PUT", key, "PutObject", write=True, match=match, headers=headers, sent=sent, cut=cut)
        with suppress(Cut), asked:
            pass

    def delete(self, key: str) -> None:
        """DeleteObject."""
        with suppress(NotFound), self._asked("DELETE", key, "DeleteObject", write=True):
            pass

    # -- copies ---------------------------------------------------------------------------------

    def copy(self, source: str, target: str) -> Object:
        """CopyObject, or UploadPartCopy where the object is larger than that takes. The store is asked for a SHA-256,
        which not every one makes."""
        try:
            self._copy_whole(source, target)
        except RequestRefused:  # too large is told as a mistake like any other
            whole = self.head(source)
            if whole.size <= COPY_OBJECT_BYTES:
                raise
            self.copy_in_parts(whole, target)
        return self._copied(target)

    def _copy_whole(self, source: str, target: str) -> None:
        headers = {**self._headers, "x-amz-copy-source": self._source(source)}
        headers |= {"x-amz-metadata-directive": "REPLACE", "x-amz-checksum-algorithm": "SHA256"}
        with self.connection.translated(source, "CopyObject", write=True):
            reply = self.connection.ask("PUT", self.path(target), headers=headers, silent=True)
            result_of(reply.headers, reply.body, "ETag", "LastModified")

    def copy_in_parts(self, source: Object, target: str, part: int = COPY_PART_BYTES) -> None:
        """A copy of the very object that was found: `Changed` if it is another one meanwhile. `part`: bytes of each."""
        upload = self.start_parts(target)
        try:
            starts = enumerate(range(0, source.size, part), 1)
            etags = [self._copy_part(source, target, upload, number, at, part) for number, at in starts]
            self.complete_parts(target, upload, etags)
        except BaseException:
            self.abort_parts(target, upload)
            raise

    def _copy_part(self, source: Object, target: str, upload: str, number: int, start: int, part: int) -> str:
        headers = {"x-amz-copy-source": self._source(source.key)}
        headers["x-amz-copy-source-range"] = f"bytes={start}-{min(start + part, source.size) - 1}"
        if source.etag:
            headers["x-amz-copy-source-if-match"] = source.etag
        query = {"uploadId": upload, "partNumber": str(number)}
        with self.connection.translated(source.key, "UploadPartCopy", write=True):
            reply = self.connection.ask("PUT", self.path(target), query=query, headers=headers, silent=True)
            return result_of(reply.headers, reply.body, "ETag")

    def _source(self, key: str) -> str:
        return f"{quote(self.settings.bucket, safe='-_.~')}/{self.path(key)}"

    def _copied(self, key: str) -> Object:
        """The head of a copy, with the SHA-256 that the server made of it."""
        with self._asked("HEAD", key, "HeadObject", headers={"x-amz-checksum-mode": "ENABLED"}) as reply:
            copy = object_of(key, reply.headers)
        sha256 = reply.headers.get("x-amz-checksum-sha256", "")
        whole = bool(sha256) and "-" not in sha256 and reply.headers.get("x-amz-checksum-type") != "COMPOSITE"
        return copy._replace(metadata={"sha256": sha256} if whole else {})

    # -- parts ----------------------------------------------------------------------------------

    def start_parts(self, key: str) -> str:
        """CreateMultipartUpload."""
        asked = self._asked(
            "POST", key, "CreateMultipartUpload", write=True, query={"uploads": ""}, headers=self._headers
        )
        with asked as reply:
            return result_of(reply.headers, reply.body, "UploadId")

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        """UploadPart."""
        query = {"uploadId": upload, "partNumber": str(number)}
        with self._asked("PUT", key, "UploadPart", write=True, query=query, sent=Sent(body)) as reply:
            return etag_of(reply.headers)

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        """CompleteMultipartUpload."""
        rows = (
            f"<Part><PartNumber>{at}</PartNumber><ETag>{escape(tag)}</ETag></Part>" for at, tag in enumerate(etags, 1)
        )
        sent = Sent(f"<CompleteMultipartUpload {NAMESPACE}>{''.join(rows)}</CompleteMultipartUpload>".encode())
        asked = self._asked(
            "POST", key, "CompleteMultipartUpload", write=True, query={"uploadId": upload}, sent=sent, silent=True
        )
        with asked as reply:
            return result_of(reply.headers, reply.body, "ETag")

    def abort_parts(self, key: str, upload: str) -> None:
        """AbortMultipartUpload."""
        asked = self._asked("DELETE", key, "AbortMultipartUpload", write=True, query={"uploadId": upload})
        with suppress(NotFound), asked:
            pass

    # -- signed requests ------------------------------------------------------------------------

    def url(self, key: str) -> str:
        """The address of an object."""
        return f"{self.connection.wire.url}/{self.path(key)}"

    def presign_get(self, key: str, seconds: int) -> str:
        """Signed with the server's time, and with the identity of now, which may be gone earlier."""
        return self._signed("GET", self.url(key), {}, {}, self.date(), seconds)

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        """A DeleteObject for one key, a DeleteObjects for more. Both times are the server's: it refuses a request that
        is late, even if its sender was frozen, and our clock doesn't count (docs/design/bucket.md#c6)."""
        if not 0 < len(keys) <= PAGE_KEYS:
            raise ValueError(f"a presigned delete is for 1 to {PAGE_KEYS} keys, not {len(keys)}")
        at = self.date() if at is None else at
        if len(keys) == 1:
            method, headers, body = "DELETE", dict[str, str](), b""
            url = self._signed(method, self.url(keys[0]), {}, headers, at, seconds)
        else:
            method, body = "POST", _document(self._base + key for key in keys)
            headers = content_md5(body)
            url = self._signed(method, self.connection.wire.url, {"delete": ""}, headers, at, seconds)
        target = url[url.index("/", url.index("//") + 2) :]
        request = SignedRequest(method, target, headers, body)
        return PresignedDelete(tuple(keys), request, at, at + seconds)

    def _signed(
        self, method: str, url: str, query: Mapping[str, str], headers: Mapping[str, str], at: float, seconds: int
    ) -> str:
        who, region = self.connection.identity(), self.connection.wire.region
        return presigned_url(method, url, query, headers, who, region, at, seconds)

    def execute(self, presigned: PresignedDelete) -> None:
        """Sent as it was signed. Of several keys with errors, that of one that was perhaps deleted is raised before
        those of others that certainly were not."""
        request = presigned.request
        assert isinstance(request, SignedRequest)
        with self.connection.translated("", "DeleteObjects", write=True):
            reply = self.connection.wire.send(request.method, request.target, request.headers, request.body)
        left = undeleted(reply.status, reply.body)
        if left:
            late, where = self.date() >= presigned.ends, self.connection.where()
            errors = [
                not_deleted(where, key, ErrorReply(reply.status, code, text), late=late) for key, code, text in left
            ]
            raise next((error for error in errors if isinstance(error, OutcomeUnknown)), errors[0])

    def date(self) -> float:
        """From the Date of the last reply; a HeadBucket before there is one."""
        return self.connection.date()

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.connection.close()


def _require_whole(reply: Reply) -> None:
    """Raise HTTPException for a part of an object, or for none: its size would be believed."""
    if reply.status != 200:
        raise HTTPException(f"a whole object was asked for, and the answer is one of status {reply.status}")


def _condition(match: str, absent: bool) -> dict[str, str]:
    if absent:
        return {"if-none-match": "*"}
    return {"if-match": match} if match else {}


def _document(keys: Iterable[str]) -> bytes:
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete {NAMESPACE}><Quiet>true</Quiet>{objects}</Delete>".encode()
