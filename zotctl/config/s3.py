"""How a bucket is reached and treated: the keys of [storage.s3], and of the table s3 of a root.

What isn't said here is found as boto3 finds it: AWS_* variables, ~/.aws, the role of the machine.
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
"""ACLs of objects that S3 has names for."""


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
        Key(URL, "Where the server is, if it isn't AWS: http://HOST:PORT.", "AWS_ENDPOINT_URL_S3, else AWS"),
    ] = None
    region: Annotated[str | None, Key(TEXT, "The region.", "AWS_REGION, the profile, else us-east-1")] = None
    access_key: Annotated[
        str | None, Key(TEXT, "The access key. Without one: AWS_ACCESS_KEY_ID, ~/.aws, the role.")
    ] = None
    secret_key: Annotated[
        str | None, Key(SECRET, "Its secret. It is shown nowhere; better in AWS_SECRET_ACCESS_KEY or ~/.aws.")
    ] = field(default=None, repr=False)
    session_token: Annotated[str | None, Key(SECRET, "The session of temporary keys.")] = field(
        default=None, repr=False
    )
    profile: Annotated[str | None, Key(TEXT, "The profile in ~/.aws.", "AWS_PROFILE")] = None
    addressing: Annotated[
        str,
        Key(
            choice("auto", "path", "virtual"),
            "Where the bucket is named: in the path or in the name of the host. auto: in the path where there is an "
            "endpoint.",
        ),
    ] = "auto"
    dual_stack: Annotated[
        bool, Key(BOOLEAN, "Reach AWS at its dual-stack endpoint, by IPv6 too.", "AWS_USE_DUALSTACK_ENDPOINT")
    ] = False
    accelerate: Annotated[
        bool, Key(BOOLEAN, "Reach AWS by Transfer Acceleration, which the bucket has to have enabled.")
    ] = False
    ca: Annotated[
        str | None, Key(PATH, "Authorities, PEM, that vouch for the endpoint.", "AWS_CA_BUNDLE, the system's")
    ] = None
    insecure: Annotated[bool, Key(BOOLEAN, "Take any certificate of the endpoint.")] = False
    storage_class: Annotated[
        str | None, Key(TEXT, "Storage class of what is written, such as STANDARD_IA.", "the bucket's")
    ] = None
    encryption: Annotated[
        str | None,
        Key(choice("AES256", "aws:kms", "aws:kms:dsse"), "Encryption by the server.", "the bucket's"),
    ] = None
    kms_key: Annotated[str | None, Key(TEXT, "Key for aws:kms.", "the account's")] = None
    acl: Annotated[
        str | None,
        Key(choice(*CANNED), "Who may reach what is written beside its owner: a canned ACL.", "the bucket's"),
    ] = None
    redirect: Annotated[
        bool,
        Key(
            BOOLEAN,
            "Answer a GET of a blob of 64 KiB or more with a signed URL of the bucket, so that its bytes don't pass "
            "this server. Clients must be able to reach the endpoint.",
        ),
    ] = False
    redirect_lifetime: Annotated[float, Key(LIFETIME, "How long such a URL holds.")] = 600.0
    single_writer: Annotated[
        bool,
        Key(
            BOOLEAN,
            "One process alone writes to this bucket: for object stores without conditional writes, which would lose "
            "pushes of two. There is one worker then, and jobs that write run only while no server does. "
            "ZOTCTL_SINGLE_WRITER sets it too.",
        ),
    ] = False
    upload_memory: Annotated[int, Key(MEMORY, "Memory for uploads under way, of each process.")] = 256 << 20
    max_connections: Annotated[int, Key(integer(1, 10_000), "Connections of each process to the bucket.")] = 64
