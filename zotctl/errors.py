"""Every error a user can meet, in one tree: its OCI code, its HTTP status and its exit code.

    ZotctlError                 1
    ├── UsageError              2   wrong usage of the command line
    ├── ConfigError             3   a configuration that is refused
    ├── Interrupted           130   SIGINT (129: SIGHUP, 143: SIGTERM), after a clean stop
    ├── OciError                    what a client is told: code + status
    │   ├── BlobUnknown         404 BLOB_UNKNOWN
    │   ├── BlobUploadInvalid   400 BLOB_UPLOAD_INVALID
    │   ├── BlobUploadUnknown   404 BLOB_UPLOAD_UNKNOWN
    │   ├── DigestInvalid       400 DIGEST_INVALID
    │   ├── ManifestBlobUnknown 404 MANIFEST_BLOB_UNKNOWN
    │   ├── ManifestInvalid     400 MANIFEST_INVALID
    │   │   ├── TagInvalid      400
    │   │   ├── LayoutInvalid   503 UNAVAILABLE, a directory that is not a valid layout: no client's fault
    │   │   │   ├── IndexMissing    503 content without an index.json, whose tags are not known
    │   │   │   └── ArchiveDamaged  503 an archive that is cut short or damaged, exit 4
    │   │   ├── ManifestTooLarge 413
    │   │   └── MediaTypeUnknown 400 of a type, or a shape, of which it is not known what it references
    │   ├── TooManyTags         414 MANIFEST_INVALID
    │   ├── ManifestUnknown     404 MANIFEST_UNKNOWN
    │   ├── NameInvalid         400 NAME_INVALID
    │   ├── NameUnknown         404 NAME_UNKNOWN, exit 10
    │   ├── SizeInvalid         400 SIZE_INVALID
    │   ├── PageInvalid         400 UNSUPPORTED, a bad `n`, `last` or continuation
    │   ├── RangeInvalid        416 BLOB_UPLOAD_INVALID, a chunk out of order
    │   ├── RangeUnsatisfiable  416 BLOB_UNKNOWN, a Range outside of the blob
    │   ├── TooManyRanges       400 UNSUPPORTED, more ranges than one answer may have
    │   ├── UploadConflict      409 BLOB_UPLOAD_INVALID, another request is writing it
    │   ├── Unauthorized        401 UNAUTHORIZED
    │   ├── Denied              403 DENIED
    │   │   ├── AccessDenied    403 a policy does not allow it
    │   │   ├── Referenced      405 still needed by a manifest
    │   │   ├── QuotaExceeded   403 a limit on repositories or bytes
    │   │   ├── TagsCollide     409 several tags would go with a manifest
    │   │   └── ReadOnly        405 this repository or root takes no writes, exit 12
    │   ├── Unsupported         405 UNSUPPORTED
    │   ├── PreconditionFailed  412 DENIED, If-Match or If-None-Match does not hold
    │   ├── LengthRequired      411 SIZE_INVALID
    │   ├── BodyTimeout         408 BLOB_UPLOAD_INVALID, a body that stopped moving
    │   └── TooManyRequests     429 TOOMANYREQUESTS
    ├── StorageError                the storage could not do it. Five kinds, none of which includes another:
    │   ├── NotFound            404 missing: it is not there (storage only, never on the wire)
    │   ├── Damaged             404 damaged: it is there with other bytes; a push heals it. Exit 4
    │   ├── Unavailable         503 away: the storage does not answer. UNAVAILABLE, exit 14
    │   │   ├── Busy            503 a lock was not free in time
    │   │   ├── IoFailed        503 the device reported an error
    │   │   ├── NoBucket        503 the bucket does not exist: retrying is no use
    │   │   ├── SlowDown        503 an object store that wants fewer requests; not done
    │   │   └── OutcomeUnknown  503 a write without an answer: it may have been done
    │   │       └── DoneUnanswered  503 done, but an attempt without an answer may be carried out once more
    │   ├── NotYetReadable      503 not yet readable: in use, or half written; a moment later it is. Exit 14
    │   ├── PermissionRefused   503 refused: it is there, but access is denied. DENIED, exit 12
    │   ├── RequestRefused      500 refused to every caller: an object store does not support such a request. Exit 1
    │   ├── Exists              409 the object is there already: a client may have named one that no repository can have
    │   ├── CannotLink          503 no hard link between the two (storage only)
    │   ├── CannotExchange      503 two names can't swap what they lead to in one step (storage only)
    │   ├── NotEmpty            503 a directory with content (storage only)
    │   ├── NoSpace             507 DENIED, exit 13
    │   ├── ReadOnlyStorage     503 DENIED, exit 12
    │   ├── Changed             503 another writer was faster (storage only)
    │   ├── Expired             503 a request that was signed too long ago (storage only)
    │   └── NoLocks             503 the file system has no locks, exit 14
    ├── NoSuchStore            10   no directory there
    ├── HeldElsewhere          11   another run, or zot, holds it
    └── ClockDoubtful          15   the clock is far from where it should be, so nothing expires

Exit codes that are no exception: 0 done, 4 damage found, 5 done but some repositories could not be
looked at, 16 stopped at --max-duration, 70 a bug in zotctl.
"""

from __future__ import annotations

from typing import Any

EXIT_CODES: dict[int, str] = {
    0: "done, nothing found",
    1: "failed, for none of the reasons below",
    2: "wrong usage",
    3: "configuration refused",
    4: "damage found (scrub, dedupe, verify, import-layout)",
    5: "done, but some repositories could not be looked at, or images were left out of an import that may be whole",
    10: "no such store or repository",
    11: "another run of the job, or zot, holds the store",
    12: "permission or credentials",
    13: "storage full, or below min_free",
    14: "storage unreachable, or a time-out",
    15: "the clock is far from where it should be (gc)",
    16: "stopped at --max-duration; run it again to go on",
    70: "a bug in zotctl",
    129: "SIGHUP, after a clean stop of a job",
    130: "SIGINT, after a clean stop",
    143: "SIGTERM, after a clean stop",
}


_QUOTED_CHARACTERS = 100


def quoted(text: str) -> str:
    """An untrusted `text` inside a message: a Python literal, cut to 100 characters.

    No control character reaches a terminal or a log.
    """
    if len(text) <= _QUOTED_CHARACTERS:
        return repr(text)
    return f"{text[:_QUOTED_CHARACTERS]!r}... ({len(text)} characters)"


def printable(text: str) -> str:
    """One line without what a terminal obeys or an encoder does not take, as a name in an archive may have it: instead,
    how Python writes it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def about_file(path: str, error: OSError) -> str:
    """What to say of a file that can't be used: what it is, or else what the system says."""
    if isinstance(error, IsADirectoryError):
        return f"{path} is a directory, not a file"
    if isinstance(error, NotADirectoryError):
        return f"{path}: what should be a directory on the way there is a file, not a directory"
    return f"{path}: {error.strerror or error}"


class ZotctlError(Exception):
    """The root of the tree. `message` names the thing and the way out; `detail` is any JSON value.

    `warnings`: what else was found on the way, to be told with the error.
    """

    code = "UNKNOWN"
    status = 500
    exit_code = 1
    warnings: tuple[str, ...] = ()

    def __init__(self, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class UsageError(ZotctlError):
    """The command line is wrong: unknown options, values that they can't have, or options that exclude each other."""

    exit_code = 2


class ConfigError(ZotctlError):
    """The configuration is refused; the message names each problem, its place and the way out."""

    exit_code = 3


class Interrupted(ZotctlError):
    """SIGINT or SIGTERM came; what was begun has been finished or undone."""

    exit_code = 130


class NoSuchStore(ZotctlError):
    """The directory is missing or is none, or it has never been a store and has no image layout in it."""

    exit_code = 10


class HeldElsewhere(ZotctlError):
    """Another run of the job has the lease, or another process (zot, too) owns the store."""

    exit_code = 11


class ClockDoubtful(ZotctlError):
    """The host's clock is far from the storage's, or has jumped, so nothing may expire by it."""

    exit_code = 15


class OciError(ZotctlError):
    """What a client is told, with a code of distribution-spec, section "Error Codes"."""


class BlobUnknown(OciError):
    """The repository does not have this blob, or its copy is damaged; a push brings it."""

    code, status = "BLOB_UNKNOWN", 404


class BlobUploadInvalid(OciError):
    """The upload cannot be continued with this request."""

    code, status = "BLOB_UPLOAD_INVALID", 400


class BlobUploadUnknown(OciError):
    """No upload has this id: it never existed, was finished, or expired."""

    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class DigestInvalid(OciError):
    """Not a digest, an algorithm that is not computed here, or bytes that have another digest."""

    code, status = "DIGEST_INVALID", 400


class ManifestBlobUnknown(OciError):
    """A manifest references something that is missing, damaged or of another size; `detail` lists the digests."""

    code, status = "MANIFEST_BLOB_UNKNOWN", 404


class ManifestInvalid(OciError):
    """The body is not a manifest by image-spec, or contradicts what it is called."""

    code, status = "MANIFEST_INVALID", 400


class TagInvalid(ManifestInvalid):
    """The tag is not one by distribution-spec, section "Pulling manifests"."""


class LayoutInvalid(ManifestInvalid):
    """A directory on the server is not a valid image layout, which is no fault of the client."""

    code, status = "UNAVAILABLE", 503


class IndexMissing(LayoutInvalid):
    """A layout has content and no index.json, so what its tags were is not known."""


class ArchiveDamaged(LayoutInvalid):
    """An archive is cut short, or its bytes are not what was written."""

    exit_code = 4


class ManifestTooLarge(ManifestInvalid):
    """The body has more bytes than a manifest may have."""

    status = 413


class MediaTypeUnknown(ManifestInvalid):
    """The type or shape of a manifest is unknown, so it cannot be told what it references."""


class TooManyTags(OciError):
    """One push names more tags than are accepted at once."""

    code, status = "MANIFEST_INVALID", 414


class ManifestUnknown(OciError):
    """No manifest has this tag or digest, or its bytes are missing or damaged."""

    code, status = "MANIFEST_UNKNOWN", 404


class NameInvalid(OciError):
    """The repository's name is not one by distribution-spec."""

    code, status = "NAME_INVALID", 400


class NameUnknown(OciError):
    """There is no repository of this name, or none that may be served."""

    code, status, exit_code = "NAME_UNKNOWN", 404, 10


class SizeInvalid(OciError):
    """The length of a body is not the announced one, or not a number."""

    code, status = "SIZE_INVALID", 400


class PageInvalid(OciError):
    """`n`, `last` or the continuation of a list cannot be used."""

    code, status = "UNSUPPORTED", 400


class RangeInvalid(OciError):
    """A chunk does not begin where the upload ends."""

    code, status = "BLOB_UPLOAD_INVALID", 416


class RangeUnsatisfiable(OciError):
    """The `Range` of a GET lies outside of the blob."""

    code, status = "BLOB_UNKNOWN", 416


class TooManyRanges(OciError):
    """A `Range` asks for more parts than one answer may have; the same bytes in fewer are answered."""

    code, status = "UNSUPPORTED", 400


class UploadConflict(OciError):
    """Another request is writing this upload."""

    code, status = "BLOB_UPLOAD_INVALID", 409


class Unauthorized(OciError):
    """Credentials are missing or wrong."""

    code, status, exit_code = "UNAUTHORIZED", 401, 12


class Denied(OciError):
    """The client may not do this, or no route leads the name anywhere."""

    code, status, exit_code = "DENIED", 403, 12


class AccessDenied(Denied):
    """The policies of the configuration do not allow this to this client."""


class QuotaExceeded(Denied):
    """A push would exceed a limit of the configuration."""


class TagsCollide(Denied):
    """A manifest is to be deleted that has several tags, by a client whose policy forbids that."""

    status = 409


class Referenced(Denied):
    """What is to be deleted is still needed; `detail` lists the manifests that need it."""

    status = 405


class ReadOnly(Denied):
    """The repository or its root takes no writes."""

    status = 405


class Unsupported(OciError):
    """This server, or this kind of store, does not do that."""

    code, status = "UNSUPPORTED", 405


class PreconditionFailed(OciError):
    """`If-Match` or `If-None-Match` does not hold."""

    code, status = "DENIED", 412


class LengthRequired(OciError):
    """The request has a body of unknown length where the length is needed."""

    code, status = "SIZE_INVALID", 411


class BodyTimeout(OciError):
    """A body stopped moving for too long."""

    code, status = "BLOB_UPLOAD_INVALID", 408


class TooManyRequests(OciError):
    """The server is at its limit; the client is asked to come back later."""

    code, status = "TOOMANYREQUESTS", 429


class StorageError(ZotctlError):
    """The storage could not do it. Drivers translate what the system reports into these, nowhere else."""

    code, status, exit_code = "UNAVAILABLE", 503, 14


class NotFound(StorageError):
    """The key, or the directory above it, is missing. Storage only: the layer above says what is missing."""

    code, status, exit_code = "BLOB_UNKNOWN", 404, 10


class Damaged(StorageError):
    """Not a `NotFound`: what is damaged may have kept other content alive, so a collector must not take it for
    absent (I5). Only where a client is answered, or bytes are brought anew, do the two come to the same."""

    code, status, exit_code = "BLOB_UNKNOWN", 404, 4


class Exists(StorageError):
    """The name is taken by another object."""

    status = 409


class CannotLink(StorageError):
    """EXDEV, EMLINK, EPERM, EOPNOTSUPP: the two names can't share an inode."""


class CannotExchange(StorageError):
    """EINVAL, ENOSYS and the like: this file system, kernel or container has no RENAME_EXCHANGE."""


class NotEmpty(StorageError):
    """A directory that is to be removed has something in it."""


class PermissionRefused(StorageError):
    """It is there, but the system or the object store denies access."""

    code, exit_code = "DENIED", 12


class NoSpace(StorageError):
    """No bytes or inodes are left, a quota is reached, or `min_free` would be undercut."""

    code, status, exit_code = "DENIED", 507, 13


class ReadOnlyStorage(StorageError):
    """The file system is mounted read-only, or the store was opened so."""

    code, exit_code = "DENIED", 12


class RequestRefused(StorageError):
    """The object store refuses such a request to every caller; trying again is no use."""

    status, exit_code = 500, 1


class Unavailable(StorageError):
    """The storage does not answer: not mounted, unreachable, or out of order."""


class NotYetReadable(StorageError):
    """It is in use or half written; a moment later it can be read."""


class Busy(Unavailable):
    """A lock was not free in time."""


class IoFailed(Unavailable):
    """The device reported an error."""


class NoBucket(Unavailable):
    """The bucket does not exist; trying again is no use."""


class SlowDown(Unavailable):
    """The object store wants fewer requests; this one was not carried out."""


class OutcomeUnknown(Unavailable):
    """A write had no answer: it may have been carried out, or may still be."""


class DoneUnanswered(OutcomeUnknown):
    """The write is done, but an attempt without an answer may be carried out once more."""


class Changed(StorageError):
    """A conditional write found another object than expected: another writer was faster."""


class Expired(StorageError):
    """The server refused a request that was signed too long ago."""


class NoLocks(StorageError):
    """The file system has no locks, so two processes cannot write there."""
