"""A bucket over the wire: `Objects`, one request to a call. No retries: see `retrying`.

What a push or a pull asks goes by `BucketConnection.ask`, the rest by botocore's own methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from zotctl.errors import Changed, NotFound, PermissionRefused
from zotctl.storage import keys
from zotctl.storage.bucket.objects import checksums, copying, listing, presigning
from zotctl.storage.bucket.objects.checksums import Cut
from zotctl.storage.bucket.objects.listing import ListingPage
from zotctl.storage.bucket.objects.replies import METADATA, dated, etag, found, told
from zotctl.storage.bucket.objects.seam import LISTED, SHA256, Object, PresignedDelete
from zotctl.storage.bucket.objects.settings import BucketSettings
from zotctl.storage.bucket.objects.signing import signed
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Reader

if TYPE_CHECKING:
    from zotctl.storage.bucket.objects.connection import BucketConnection

HEADERS = {
    "StorageClass": "x-amz-storage-class",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "ACL": "x-amz-acl",
}
"""botocore's names of what an object is written with, on the wire."""
LIST = {"list-type": "2", "max-keys": str(LISTED), "encoding-type": "url"}


class Client:
    """Made before the threads that share it. boto3 is imported when the first one is made."""

    def __init__(self, settings: BucketSettings, clock: Clock | None = None) -> None:
        from zotctl.storage.bucket.objects.connection import BucketConnection

        self.settings = settings
        self.connection: BucketConnection = BucketConnection(settings, clock or Clock())
        self._written = settings.written()
        self._headers = {HEADERS[name]: value for name, value in self._written.items()}
        self._base = f"{settings.prefix}/" if settings.prefix else ""
        self._checksum, self._conditions = SHA256, True

    @property
    def label(self) -> str:
        return self.settings.label

    @property
    def endpoint(self) -> str:
        return self.connection.endpoint

    def place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.settings.bucket, "Key": self._base + key}

    @property
    def _s3(self) -> Any:
        return self.connection.s3

    def quoted(self, key: str) -> str:
        """As it is in an address."""
        return quote(self._base + key, safe="/-_.~")

    # -- reading --------------------------------------------------------------------------------

    def store_above(self) -> str | None:
        """The address of a store that this prefix lies in. Who may not look above is told of none."""
        above = self.settings.prefix
        while above:
            above = above.rpartition("/")[0]
            with suppress(NotFound, PermissionRefused), self.connection.translated(above, "HeadObject"):
                key = f"{above}/{keys.VERSION}" if above else keys.VERSION
                self._s3.head_object(Bucket=self.settings.bucket, Key=key)
                return f"s3://{self.settings.bucket}/{above}".rstrip("/")
        return None

    def head(self, key: str) -> Object:
        with self.connection.translated(key, "HeadObject"):
            return found(key, self.connection.ask("HEAD", self.quoted(key), "HeadObject").headers)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        condition = {"if-none-match": unless} if unless else {}
        with self.connection.translated(key, "GetObject"):
            answer = self.connection.ask("GET", self.quoted(key), "GetObject", headers=condition)
            return None if answer.status == 304 else (found(key, answer.headers), answer.body)

    def open(self, key: str) -> Reader:
        from zotctl.storage.bucket.objects.reading import ObjectReader

        with self.connection.translated(key, "GetObject"):
            answer = self.connection.ask("GET", self.quoted(key), "GetObject", stream=True)
            try:
                return ObjectReader(self.connection, self.quoted(key), found(key, answer.headers), answer.response)
            except BaseException:
                answer.response.close()
                raise

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        start = {"start-after": self._base + after} if after else {}
        for page, date in self._pages(prefix, start):
            for row in page.rows:
                key = row.key.removeprefix(self._base)
                yield Object(key, row.size, row.etag, row.modified, date - row.modified)

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
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
                answer = self.connection.ask("GET", "", "ListObjectsV2", query=asked)
                page, date = listing.read(answer.body), dated(answer.headers)
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
        if not self._conditions and (match or absent):
            self._look_before(key, match, absent)
            match, absent = "", False
        headers = {**self._headers, **_condition(match, absent)}
        headers |= {f"{METADATA}{name}": value for name, value in (metadata or {}).items()}
        sent = checksums.whole(body, self._checksum, sha256)
        with self.connection.translated(key, "PutObject", write=True, match=match):
            answer = self.connection.ask("PUT", self.quoted(key), "PutObject", headers=headers, sent=sent)
            return etag(answer.headers)

    def _look_before(self, key: str, match: str, absent: bool) -> None:
        """What a condition asks for, of a store that knows none."""
        there: str | None = None
        with suppress(NotFound):
            there = self.head(key).etag
        if there != match if match else absent and there is not None:
            raise Changed(f"{self.connection.where().named(key)}: it is not what it was")

    def adapt(self, *, checksum: str, conditions: bool) -> None:
        self._checksum, self._conditions = checksum, conditions

    def trial(
        self, key: str, body: Buffer, *, checksum: str, wrong: bool = False, cut: bool = False, match: str = ""
    ) -> None:
        sent = checksums.whole(b"other bytes" if wrong else body, checksum)._replace(body=body)
        headers = {**self._headers, **_condition(match, False)}
        with suppress(Cut), self.connection.translated(key, "PutObject", write=True, match=match):
            self.connection.ask("PUT", self.quoted(key), "PutObject", headers=headers, sent=sent, cut=cut)

    def delete(self, key: str) -> None:
        with self.connection.translated(key, "DeleteObject", write=True, absent=True):
            self.connection.ask("DELETE", self.quoted(key), "DeleteObject")

    def copy(self, source: str, target: str) -> Object:
        return copying.copy(self, source, target)

    def copied(self, key: str) -> Object:
        """The head of a copy, with the SHA-256 that the server made of it."""
        with self.connection.translated(key, "HeadObject"):
            reply = self._s3.head_object(**self.place(key), ChecksumMode="ENABLED")
            copy = found(key, reply["ResponseMetadata"]["HTTPHeaders"])
        sha256 = reply.get("ChecksumSHA256", "")
        whole = bool(sha256) and "-" not in sha256 and reply.get("ChecksumType") != "COMPOSITE"
        return copy._replace(metadata={"sha256": sha256} if whole else {})

    # -- parts ----------------------------------------------------------------------------------

    def start_parts(self, key: str) -> str:
        with self.connection.translated(key, "CreateMultipartUpload", write=True):
            return told(self._s3.create_multipart_upload(**self.place(key), **self._written), "UploadId")

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        part = {"uploadId": upload, "partNumber": str(number)}
        with self.connection.translated(key, "UploadPart", write=True):
            sent = checksums.part(body)
            return etag(self.connection.ask("PUT", self.quoted(key), "UploadPart", query=part, sent=sent).headers)

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        done = self.connection.patient.complete_multipart_upload
        with self.connection.translated(key, "CompleteMultipartUpload", write=True):
            return told(done(**self.place(key), UploadId=upload, MultipartUpload={"Parts": parts}), "ETag")

    def abort_parts(self, key: str, upload: str) -> None:
        with self.connection.translated(key, "AbortMultipartUpload", write=True, absent=True):
            self._s3.abort_multipart_upload(**self.place(key), UploadId=upload)

    # -- signed requests ------------------------------------------------------------------------

    def url(self, key: str) -> str:
        return f"{self.connection.url}/{self.quoted(key)}"

    def presign_get(self, key: str, seconds: int) -> str:
        return signed("GET", self.url(key), {}, {}, self.connection.identity(), self.date(), seconds)

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> PresignedDelete:
        return presigning.sign(self, keys, seconds, self.date() if at is None else at)

    def execute(self, presigned: PresignedDelete) -> None:
        presigning.execute(self.connection, presigned)

    def date(self) -> float:
        return self.connection.date()

    def close(self) -> None:
        self.connection.close()


def _condition(match: str, absent: bool) -> dict[str, str]:
    if absent:
        return {"if-none-match": "*"}
    return {"if-match": match} if match else {}
