"""What an object store or botocore reports, as errors of the registry: the one place that knows both.

For a write, `Unavailable` itself means that it was certainly not done, `OutcomeUnknown` that it may have been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any, NamedTuple

from botocore import exceptions as boto  # type: ignore[import-untyped]
from urllib3 import exceptions as wire

from zotctl.errors import (
    Changed,
    IoFailed,
    NoBucket,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    PermissionRefused,
    RequestRefused,
    SlowDown,
    StorageError,
    Unavailable,
)

ABSENT = {"NoSuchKey", "NoSuchUpload", "NoSuchVersion"}
SLOW = {
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "429",
}
FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
DAMAGED = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"}
HALF_HEARD = {"RequestTimeout", "IncompleteBody"}
"""Of a request that ended early: a store that keeps what has arrived has perhaps done it, or half of it."""
REFUSED = {
    "AccessDenied",
    "ExpiredToken",
    "TokenRefreshRequired",
    "InvalidToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",  # versitygw, with a status of 404
    "401",
    "403",
}
WRONG_REGION = {"AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "PermanentRedirect"}
NOT_BEGUN = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    wire.NewConnectionError,
    wire.ConnectTimeoutError,
)
NO_IDENTITY = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)
WAY_OUT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or access_key and secret_key in the configuration"
)


class Where(NamedTuple):
    """Whom messages are about. `identity`: the access key's id, never its secret."""

    label: str
    bucket: str
    endpoint: str
    identity: str
    region: str = ""

    def named(self, key: str) -> str:
        return f"{self.label}/{key}" if key else self.label


@contextmanager
def translated(
    where: Callable[[], Where], key: str, operation: str, *, write: bool, match: str, absent: bool
) -> Iterator[None]:
    """`operation`, as S3 calls it, on one object. Raises a StorageError for whatever went wrong.
    `match`: there must be an object with this ETag. `absent`: that there is none is no error."""
    try:
        yield
    except boto.ClientError as error:
        said = refused(where(), key, operation, error.response, write=write)
        if not isinstance(said, NotFound):
            raise said from error
        if match:
            raise Changed(said.message) from error
        if not absent:
            raise said from error
    except (boto.BotoCoreError, wire.HTTPError, HTTPException, OSError) as error:
        raise broken(where(), key, operation, error, write=write) from error


def refused(where: Where, key: str, operation: str, reply: Mapping[str, Any], *, write: bool) -> StorageError:
    """A reply that is an error. A HEAD has no code but its status."""
    said = reply.get("Error", {})
    code, text = str(said.get("Code", "")), str(said.get("Message", ""))
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    what = f"{where.named(key)}: {operation}"
    if code == "NoSuchBucket":
        return NoBucket(f"the bucket {where.bucket} does not exist at {where.endpoint}: make it, or correct the name")
    if _absent(code, status, operation):
        return NotFound(f"{where.named(key)}: no such object or upload")
    if code == "ConditionalRequestConflict" and operation == "CompleteMultipartUpload":
        return NotFound(f"{what}: {where.endpoint} has given this upload up; it is to be begun again")
    if code in {"PreconditionFailed", "ConditionalRequestConflict"} or status == 412:
        return Changed(f"{where.named(key)}: it is not what it was")
    if code in FULL or status == 507:
        return NoSpace(f"{what}: the object store has no room left: {text}")
    if code in SLOW or status == 429 or code == "OperationAborted":
        return SlowDown(f"{what}: the object store wants fewer requests ({code})")
    if code == "ExistingObjectIsDirectory":
        # A store of files removes a directory with its last object, also under a PUT that is just coming.
        return Unavailable(f"{what}: {where.endpoint} had something else in its place ({code}: {text})")
    if code == "RequestTimeTooSkewed":
        return StorageError(f"{what}: this machine's clock is wrong, {where.endpoint} says; set it (NTP): {text}")
    if code in WRONG_REGION or (status in (301, 307, 400, 403) and "region" in text.lower()):
        return RequestRefused(
            f"{what}: the bucket is not in the region {where.region!r}, {where.endpoint} says ({code}: {text}); set "
            "AWS_REGION, or region in the configuration"
        )
    if code in REFUSED or status in (401, 403):
        return PermissionRefused(
            f"{what} was refused to {where.identity} by {where.endpoint} ({code}: {text}); give it the right, or "
            "another identity"
        )
    if code in DAMAGED:
        return IoFailed(f"{what}: the bytes that arrived are not those that were sent: {text}")
    if code in HALF_HEARD or status == 408:
        return _failed(f"{what}: {where.endpoint} did not get all of it ({status} {code}: {text})", write)
    if status >= 500 and status != 501:
        return _failed(f"{what}: {where.endpoint} failed with {status} {code}: {text}", write)
    if status == 404:
        return Unavailable(f"{what}: {where.endpoint} answers 404, but not as an object store: is it one?")
    return RequestRefused(f"{what}: {where.endpoint} does not take it: {status} {code}: {text}")


def _absent(code: str, status: int, operation: str) -> bool:
    """A 404 that no object store wrote must not pass for "no such object": a collector would believe it."""
    return code in ABSENT or (status == 404 and operation == "HeadObject")


def _failed(text: str, write: bool) -> StorageError:
    return OutcomeUnknown(f"{text}; it may have been done") if write else Unavailable(text)


def broken(where: Where, key: str, operation: str, error: Exception, *, write: bool) -> StorageError:
    """No reply, or half of one."""
    what = f"{where.named(key)}: {operation}"
    if isinstance(error, NO_IDENTITY):
        return PermissionRefused(f"{what}: no credentials for {where.endpoint} ({error}); {WAY_OUT}")
    if isinstance(error, (boto.SSLError, wire.SSLError)) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StorageError(f"{what}: {where.endpoint} has a certificate that is not trusted here ({error})")
    if _not_begun(error):
        return Unavailable(f"{what}: {where.endpoint} can't be reached ({error})")
    return _failed(f"{what}: no whole answer from {where.endpoint} ({error})", write)


def _not_begun(error: BaseException) -> bool:
    """urllib3 says ProxyError of a connection that broke under a request, too, for it is closed by then."""
    if isinstance(error, boto.ProxyConnectionError):
        error = error.kwargs["error"]
    if isinstance(error, wire.ProxyError):
        error = error.original_error
        if type(error) is OSError:  # the proxy has refused the tunnel
            return True
    return isinstance(error, NOT_BEGUN)
