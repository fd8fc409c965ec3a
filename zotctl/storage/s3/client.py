"""A bucket over the wire: `Objects` with boto3, one request to a call (s3.md 8). No retries: see `retrying`."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from zotctl.errors import NotFound, PermissionRefused
from zotctl.storage import keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer, Reader
from zotctl.storage.objects import LISTED, Object, Warrant
from zotctl.storage.s3 import copying, warrants
from zotctl.storage.s3.settings import BucketSettings
from zotctl.storage.s3.signing import signed

if TYPE_CHECKING:
    from zotctl.storage.s3.connection import Connection


class Client:
    """Made before the threads that share it. boto3 is imported when the first one is made."""

    def __init__(self, settings: BucketSettings, clock: Clock | None = None) -> None:
        from zotctl.storage.s3.connection import Connection

        self.settings = settings
        self.connection: Connection = Connection(settings, clock or Clock())
        self._s3 = self.connection.s3
        self._written = settings.written()
        self._base = f"{settings.prefix}/" if settings.prefix else ""

    @property
    def label(self) -> str:
        return self.settings.label

    @property
    def endpoint(self) -> str:
        return self.connection.endpoint

    def place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.settings.bucket, "Key": self._base + key}

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
            return self._object(key, self._s3.head_object(**self.place(key)))

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        condition = {"IfNoneMatch": unless} if unless else {}
        with self.connection.translated(key, "GetObject"):
            try:
                reply = self._s3.get_object(**self.place(key), **condition)
            except self._s3.exceptions.ClientError as error:
                if unless and error.response["ResponseMetadata"]["HTTPStatusCode"] == 304:
                    return None
                raise
            with reply["Body"] as body:
                return self._object(key, reply), body.read()

    def open(self, key: str) -> Reader:
        from zotctl.storage.s3.reading import ObjectReader

        with self.connection.translated(key, "GetObject"):
            reply = self._s3.get_object(**self.place(key))
        return ObjectReader(self.connection, self.place(key), self._object(key, reply), reply["Body"])

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        start = {"StartAfter": self._base + after} if after else {}
        for page in self._pages(prefix, start):
            date = _date(page)
            for row in page.get("Contents", ()):
                modified = row["LastModified"].timestamp()
                key = row["Key"].removeprefix(self._base)
                yield Object(key, row["Size"], row["ETag"], modified, date - modified)

    def names(self, directory: str, *, after: str = "") -> Iterator[tuple[str, bool]]:
        prefix = f"{directory}/" if directory else ""
        skipped = len(self._base) + len(prefix)
        start = {"StartAfter": self._base + prefix + after} if after else {}
        for page in self._pages(prefix, {"Delimiter": "/", **start}):
            below = [row["Prefix"][skipped:] for row in page.get("CommonPrefixes", ())]
            here = [row["Key"][skipped:] for row in page.get("Contents", ())]
            for name in sorted(below + here, key=str.encode):
                # A directory that was told comes again, for the keys in it are after its name.
                if name.encode() > after.encode():
                    yield name.removesuffix("/"), name.endswith("/")

    def _pages(self, prefix: str, options: Mapping[str, str]) -> Iterator[Any]:
        asked = {"Bucket": self.settings.bucket, "Prefix": self._base + prefix, "MaxKeys": LISTED, **options}
        while True:
            with self.connection.translated(prefix, "ListObjectsV2"):
                page = self._s3.list_objects_v2(**asked)
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _object(self, key: str, reply: Any) -> Object:
        modified = reply["LastModified"].timestamp()
        size, etag, metadata = reply["ContentLength"], reply["ETag"], reply.get("Metadata", {})
        return Object(key, size, etag, modified, _date(reply) - modified, metadata)

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
        asked = self._condition(match, absent) | self._written
        if metadata:
            asked["Metadata"] = dict(metadata)
        if sha256:
            asked["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(sha256)).decode()
        with self.connection.translated(key, "PutObject", write=True, match=match):
            return str(self._s3.put_object(**self.place(key), Body=body, **asked)["ETag"])

    def _condition(self, match: str, absent: bool) -> dict[str, Any]:
        if absent:
            return {"IfNoneMatch": "*"}
        return {"IfMatch": match} if match else {}

    def delete(self, key: str) -> None:
        with self.connection.translated(key, "DeleteObject", write=True, absent=True):
            self._s3.delete_object(**self.place(key))

    def copy(self, source: str, target: str) -> Object:
        return copying.copy(self, source, target)

    def copied(self, key: str) -> Object:
        """The head of a copy, with the SHA-256 that the server made of it."""
        with self.connection.translated(key, "HeadObject"):
            reply = self._s3.head_object(**self.place(key), ChecksumMode="ENABLED")
        sha256 = reply.get("ChecksumSHA256", "")
        whole = bool(sha256) and "-" not in sha256 and reply.get("ChecksumType") != "COMPOSITE"
        return self._object(key, reply)._replace(metadata={"sha256": sha256} if whole else {})

    # -- parts ----------------------------------------------------------------------------------

    def start_parts(self, key: str) -> str:
        with self.connection.translated(key, "CreateMultipartUpload", write=True):
            return str(self._s3.create_multipart_upload(**self.place(key), **self._written)["UploadId"])

    def put_part(self, key: str, upload: str, number: int, body: Buffer) -> str:
        part = {"UploadId": upload, "PartNumber": number}
        with self.connection.translated(key, "UploadPart", write=True):
            return str(self._s3.upload_part(**self.place(key), **part, Body=body)["ETag"])

    def complete_parts(self, key: str, upload: str, etags: Sequence[str]) -> str:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        done = self.connection.patient.complete_multipart_upload
        with self.connection.translated(key, "CompleteMultipartUpload", write=True):
            return str(done(**self.place(key), UploadId=upload, MultipartUpload={"Parts": parts})["ETag"])

    def abort_parts(self, key: str, upload: str) -> None:
        with self.connection.translated(key, "AbortMultipartUpload", write=True, absent=True):
            self._s3.abort_multipart_upload(**self.place(key), UploadId=upload)

    # -- signed requests ------------------------------------------------------------------------

    def url(self, key: str) -> str:
        return f"{self.connection.url}/{quote(self._base + key, safe='/-_.~')}"

    def presign_get(self, key: str, seconds: int) -> str:
        return signed("GET", self.url(key), {}, {}, self.connection.identity(), self.date(), seconds)

    def sign_deletes(self, keys: Sequence[str], seconds: int, *, at: float | None = None) -> Warrant:
        return warrants.sign(self, keys, seconds, self.date() if at is None else at)

    def execute(self, warrant: Warrant) -> None:
        warrants.execute(self.connection, warrant)

    def date(self) -> float:
        return self.connection.date()

    def close(self) -> None:
        self.connection.close()


def _date(reply: Any) -> float:
    """The server's clock when it answered; to the whole second."""
    from zotctl.storage.s3.connection import moment

    return moment(reply["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
