"""The address of a bucket: s3://BUCKET/PREFIX. Anything without a scheme is the path of a directory."""

from __future__ import annotations

import re
from typing import NamedTuple

SCHEME = "s3://"
FORM = "write s3://BUCKET or s3://BUCKET/PREFIX"

_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match
_is_bucket_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}[A-Za-z0-9_]", re.ASCII).fullmatch
"""Wider than S3's rules today: some object stores, and Amazon's oldest buckets, have such names. The object store
decides."""
_colon_between = re.compile(r"(?<!s3):|:(?!//)")
LONGEST_PREFIX_BYTES = 512
"""A key has 1024 bytes, and the name of a repository and a digest must fit behind the prefix."""


class Address(NamedTuple):
    """A bucket, or the part of one below a prefix. `prefix` has no slash at either end; "" is the whole bucket."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def overlaps(self, other: Address) -> bool:
        """Whether the two are equal, or one lies within the other."""
        one, two = (f"{address}/" for address in (self, other))
        return one.startswith(two) or two.startswith(one)


def is_bucket(path: str) -> bool:
    """Whether a root, as `read_root` returns it, is the address of a bucket."""
    return path.startswith(SCHEME)


def parse_address(text: str) -> Address:
    """Read `s3://BUCKET` or `s3://BUCKET/PREFIX`. Raises ValueError, which says what to write instead."""
    bucket, _, prefix = text.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise ValueError(f"{text!r} names no bucket; {FORM}")
    if not _is_bucket_name(bucket) or ".." in bucket:
        raise ValueError(
            f"{bucket!r} can't be a bucket: its name has letters and digits, and between them '-', '_' and '.'; {FORM}"
        )
    return Address(bucket, _prefix(text, prefix.strip("/")))


def _prefix(text: str, prefix: str) -> str:
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise ValueError(f"{text!r} has an empty component, '.' or '..' in its prefix; {FORM}")
    if found := re.search(r"[?#\\\x00-\x1f\x7f]|[^\S ]", prefix):
        raise ValueError(f"{text!r} has {found[0]!r} in its prefix: options stand in [storage.s3]; {FORM}")
    if len(prefix.encode()) > LONGEST_PREFIX_BYTES:
        raise ValueError(f"the prefix of s3://{text[5:40]}... is longer than {LONGEST_PREFIX_BYTES} bytes")
    return prefix


def read_root(path: str) -> str:
    """Read a root: the path of a directory is returned as it is, an address in its normal form. Raises ValueError."""
    if not (found := _scheme(path)):
        return path
    if found[0] != SCHEME:
        raise ValueError(f"{path!r} is neither a directory nor a bucket; {FORM}")
    return str(parse_address(path))


def split_roots(text: str) -> list[str]:
    """Split the roots in an environment variable: they are separated by colons, as in PATH. The colon of s3://
    separates nothing."""
    return [root for root in _colon_between.split(text) if root]
