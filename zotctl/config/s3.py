"""How a bucket is reached and treated: the keys of [storage.s3], and of the table s3 of a root.

Settings that are absent here come from where boto3 finds them: AWS_* variables, ~/.aws, the role of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from zotctl.config.schema import Key
from zotctl.config.values import BOOLEAN, PATH, SECRET, SIZE, TEXT, URL, Kind, choice, integer, parse_duration

LONGEST_URL = 7 * 86400
"""Seconds; AWS signs for no longer."""
LEAST_MEMORY = 64 << 20
CANNED = (
    "private", "public-read", "public-read-write", "aws-exec-read", "authenticated-read", "bucket-owner-read",
    "bucket-owner-full-control",
)  # fmt: skip
"""The canned ACLs of S3."""


def _lifetime(value: object) -> float:
    if not 1 <= (seconds := parse_duration(value)) <= LONGEST_URL:
        raise ValueError(f"{value!r} is outside of '1s' to '7d', for which a URL can be signed")
    return seconds


def _memory(value: object) -> int:
    size: int = SIZE.read(value)
    if size < LEAST_MEMORY:
        raise ValueError(f"{value!r} is less than {SIZE.show(LEAST_MEMORY)}, which two uploads need")
    return size


LIFETIME = Kind("duration", _lifetime, show=lambda seconds: f"{seconds:g}s")
MEMORY = Kind("size", _memory, show=SIZE.show)


@dataclass(frozen=True, slots=True)
class S3Config:
    """One object store."""

    endpoint: Annotated[
        str | None,
        Key(URL, "The server, if it is not AWS: http://HOST:PORT.", "AWS_ENDPOINT_URL_S3, or else AWS"),
    ] = None
    region: Annotated[str | None, Key(TEXT, "The region.", "AWS_REGION, the profile, or else us-east-1")] = None
    access_key: Annotated[
        str | None, Key(TEXT, "The access key. Without it: AWS_ACCESS_KEY_ID, ~/.aws, or the role.")
    ] = None
    secret_key: Annotated[
        str | None, Key(SECRET, "The secret key. It is never shown; prefer AWS_SECRET_ACCESS_KEY or ~/.aws.")
    ] = field(default=None, repr=False)
    session_token: Annotated[str | None, Key(SECRET, "The session token of temporary keys.")] = field(
        default=None, repr=False
    )
    profile: Annotated[str | None, Key(TEXT, "The profile in ~/.aws.", "AWS_PROFILE")] = None
    addressing: Annotated[
        str,
        Key(
            choice("auto", "path", "virtual"),
            "Where a URL names the bucket: in the path or in the host name. auto: in the path if an endpoint is set.",
        ),
    ] = "auto"
    dual_stack: Annotated[
        bool, Key(BOOLEAN, "Use the dual-stack endpoint of AWS, which supports IPv6.", "AWS_USE_DUALSTACK_ENDPOINT")
    ] = False
    accelerate: Annotated[
        bool, Key(BOOLEAN, "Use Transfer Acceleration of AWS, which must be enabled for the bucket.")
    ] = False
    ca: Annotated[
        str | None,
        Key(
            PATH,
            "Certificate authorities, PEM, that the endpoint is checked against.",
            "AWS_CA_BUNDLE, or else the system's",
        ),
    ] = None
    insecure: Annotated[bool, Key(BOOLEAN, "Accept any certificate of the endpoint.")] = False
    storage_class: Annotated[
        str | None, Key(TEXT, "Storage class of new objects, such as STANDARD_IA.", "the bucket's")
    ] = None
    encryption: Annotated[
        str | None,
        Key(choice("AES256", "aws:kms", "aws:kms:dsse"), "Encryption by the object store.", "the bucket's"),
    ] = None
    kms_key: Annotated[str | None, Key(TEXT, "The key for aws:kms.", "the account's")] = None
    acl: Annotated[
        str | None,
        Key(choice(*CANNED), "Canned ACL of new objects.", "the bucket's"),
    ] = None
    redirect: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Answer a GET of a blob of 64 KiB or more with a signed URL of the bucket, so that its bytes do not pass "
            "through this server. Clients must be able to reach the endpoint.",
        ),
    ] = False
    redirect_lifetime: Annotated[float, Key(LIFETIME, "How long such a URL is valid.")] = 600.0
    single_writer: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Only one process writes to this bucket: for object stores without conditional writes, on which two "
            "writers would lose each other's pushes. The server then has one worker, and jobs that write run only "
            "while no server does. ZOTCTL_SINGLE_WRITER sets it too.",
        ),
    ] = False
    upload_memory: Annotated[int, Key(MEMORY, "Memory of each process for uploads in progress.")] = 256 << 20
    max_connections: Annotated[int, Key(integer(1, 10_000), "Connections of each process to the object store.")] = 64
