"""The address of a bucket: s3://BUCKET/PREFIX. Anything without a scheme is the path of a directory."""

from __future__ import annotations

import re
from typing import NamedTuple

SCHEME = "s3://"
FORM = "write s3://BUCKET or s3://BUCKET/PREFIX"

_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match
_is_bucket_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,253}[A-Za-z0-9_]", re.ASCII).fullmatch
"""Names that some object stores, and Amazon's oldest buckets, have. The object store decides what it allows."""
_colon_between = re.compile(r"(?<!s3):|:(?!//)")
LONGEST_PREFIX = 512
"""Bytes; a key has 1024, and the name of a repository and a digest must fit behind it."""


class Address(NamedTuple):
    """`prefix` has no slash at either end; "" is the whole bucket."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def overlaps(self, other: Address) -> bool:
        """Are they one, or one within the other?"""
        one, two = (f"{address}/" for address in (self, other))
        return one.startswith(two) or two.startswith(one)


def is_bucket(path: str) -> bool:
    """Whether a root, as `read_root` returns it, is the address of a bucket."""
    return path.startswith(SCHEME)


def parse_address(text: str) -> Address:
    """Raises ValueError with the way out."""
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
    if len(prefix.encode()) > LONGEST_PREFIX:
        raise ValueError(f"the prefix of s3://{text[5:40]}... is longer than {LONGEST_PREFIX} bytes")
    return prefix


def read_root(path: str) -> str:
    """A root as it was written: the path of a directory, or an address in its one spelling. Raises ValueError."""
    if not (found := _scheme(path)):
        return path
    if found[0] != SCHEME:
        raise ValueError(f"{path!r} is neither a directory nor a bucket; {FORM}")
    return str(parse_address(path))


def split_roots(text: str) -> list[str]:
    """Several roots in one variable: separated by colons, as in PATH; the colon of s3:// is none."""
    return [root for root in _colon_between.split(text) if root]
