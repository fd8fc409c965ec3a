"""Translates what an object store or the network reports into errors of the registry.

For a write, `Unavailable` itself means that it was certainly not done, `OutcomeUnknown` that it may have been.
"""

from __future__ import annotations

from typing import NamedTuple

from urllib3 import exceptions as wire

from zotctl.errors import (
    Changed,
    Expired,
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
from zotctl.storage.bucket.objects.replies import ErrorReply

ABSENT_CODES = {"NoSuchKey", "NoSuchUpload", "NoSuchVersion"}
SLOW_CODES = {
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "429",
}
FULL_CODES = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "507"}
OTHER_BYTES_CODES = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest"}
HALF_HEARD_CODES = {"RequestTimeout", "IncompleteBody"}
"""Codes of a request that ended early: a store that keeps what has arrived may have done it, or half of it."""
GIVEN_UP_CODES = {"ConditionalRequestConflict", "InvalidPart"}
"""Codes of a Complete that no repetition can help. A part is not what was sent if a store that keeps what has arrived
did so late, of a request that was cut and repeated meanwhile."""
REFUSED_CODES = {
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
WRONG_REGION_CODES = {"AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "PermanentRedirect"}
NOT_BEGUN = (wire.NewConnectionError, wire.ConnectTimeoutError)


class Where(NamedTuple):
    """Whom messages are about. `identity`: the access key's id, never its secret."""

    label: str
    bucket: str
    endpoint: str
    identity: str
    region: str = ""

    def named(self, key: str) -> str:
        """The address of an object; "": of the bucket."""
        return f"{self.label}/{key}" if key else self.label


def refused(where: Where, key: str, operation: str, reply: ErrorReply, *, write: bool) -> StorageError:
    """The StorageError for an error reply. `operation` as S3 calls it. A HEAD has no code but its status."""
    status, code, text = reply.status, reply.code, reply.message
    what = f"{where.named(key)}: {operation}"
    if code == "NoSuchBucket":
        return NoBucket(f"the bucket {where.bucket} does not exist at {where.endpoint}: make it, or correct the name")
    if code in ABSENT_CODES or (status == 404 and operation == "HeadObject"):
        # A 404 that no object store wrote must not pass for this: a collector would believe it.
        return NotFound(f"{where.named(key)}: no such object or upload")
    if code in GIVEN_UP_CODES and operation == "CompleteMultipartUpload":
        return NotFound(f"{what}: {where.endpoint} has given this upload up; it is to be begun again")
    if code in {"PreconditionFailed", "ConditionalRequestConflict"} or status == 412:
        return Changed(f"{where.named(key)}: it is not what it was")
    if code in FULL_CODES or status == 507:
        return NoSpace(f"{what}: the object store has no room left: {text}")
    if code in SLOW_CODES or status == 429 or code == "OperationAborted":
        return SlowDown(f"{what}: the object store wants fewer requests ({code})")
    if code == "ExistingObjectIsDirectory":
        # A store of files removes a directory with its last object, also under a PUT that is just coming.
        return Unavailable(f"{what}: {where.endpoint} had something else in its place ({code}: {text})")
    if code == "RequestTimeTooSkewed":
        return StorageError(f"{what}: this machine's clock is wrong, {where.endpoint} says; set it (NTP): {text}")
    if code in WRONG_REGION_CODES or (status in (301, 307, 400, 403) and "region" in text.lower()):
        return RequestRefused(
            f"{what}: the bucket is not in the region {where.region!r}, {where.endpoint} says ({code}: {text}); set "
            "AWS_REGION, or region in the configuration"
        )
    if code in REFUSED_CODES or status in (401, 403):
        return PermissionRefused(
            f"{what} was refused to {where.identity} by {where.endpoint} ({code}: {text}); give it the right, or "
            "another identity"
        )
    if code in OTHER_BYTES_CODES:
        return IoFailed(f"{what}: the bytes that arrived are not those that were sent: {text}")
    if code in HALF_HEARD_CODES or status == 408:
        return _failed(f"{what}: {where.endpoint} did not get all of it ({reply})", write)
    if status >= 500 and status != 501:
        return _failed(f"{what}: {where.endpoint} failed with {reply}", write)
    if status == 404:
        return Unavailable(f"{what}: {where.endpoint} answers 404, but not as an object store: is it one?")
    return RequestRefused(f"{what}: {where.endpoint} does not take it: {reply}")


def not_deleted(where: Where, key: str, reply: ErrorReply, *, late: bool) -> StorageError:
    """The error for a key that a presigned delete did not delete, or perhaps did not. `late`: the signature has expired
    by the server's clock."""
    status, code, text = reply.status, reply.code, reply.message
    denied = (status in (400, 401, 403) and code not in HALF_HEARD_CODES) or code in (
        "AccessDenied",
        "ExpiredPresignRequest",
        "ExpiredToken",
    )
    if denied and (late or "expire" in f"{code} {text}".lower()):
        return Expired(f"{where.label}: deletes were signed too long ago: {code} {text}")
    if status == 200 and code not in ("AccessDenied", "SlowDown"):
        return OutcomeUnknown(f"{where.named(key)}: not deleted, or perhaps: {code} {text}")
    return refused(where, key, "DeleteObjects", reply, write=True)


def broken(where: Where, key: str, operation: str, error: Exception, *, write: bool) -> StorageError:
    """The error where no whole answer came: for what urllib3 or botocore raises, or HTTPException."""
    what = f"{where.named(key)}: {operation}"
    if isinstance(error, wire.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StorageError(f"{what}: {where.endpoint} has a certificate that is not trusted here ({error})")
    if _not_begun(error):
        return Unavailable(f"{what}: {where.endpoint} can't be reached ({_said_by_system(error)})")
    return _failed(f"{what}: no whole answer from {where.endpoint} ({error})", write)


def _said_by_system(error: Exception) -> str:
    """`connection refused`, without the name of a class and a number; or all that the library says."""
    cause = error.__cause__
    said = cause.strerror if isinstance(cause, OSError) else None
    return said[:1].lower() + said[1:] if said else str(error)


def _failed(text: str, write: bool) -> StorageError:
    return OutcomeUnknown(f"{text}; it may have been done") if write else Unavailable(text)


def _not_begun(error: BaseException) -> bool:
    """Was no request sent? urllib3 raises ProxyError also for a connection that broke during a request."""
    if isinstance(error, wire.ProxyError):
        error = error.original_error
        if type(error) is OSError:  # the proxy has refused the tunnel
            return True
    return isinstance(error, NOT_BEGUN)
