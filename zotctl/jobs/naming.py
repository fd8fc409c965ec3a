"""What an operator names on the command line: a repository, one of its tags, or a digest, everywhere or in one
repository."""

from __future__ import annotations

from typing import NamedTuple

from zotctl.errors import DigestInvalid, NameInvalid, UsageError
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.reference import is_tag, parse_name


class Named(NamedTuple):
    """The parts of NAME, NAME:TAG, NAME@DIGEST, NAME:TAG@DIGEST or DIGEST; None where one is not given."""

    name: str | None = None
    tag: str | None = None
    digest: Digest | None = None


def parse_named(what: str) -> Named:
    """Raises UsageError for what is none of them."""
    name, at, text = what.rpartition("@")
    try:
        digest = parse_digest(text)
    except DigestInvalid as error:
        if at:
            raise UsageError(f"{what}: {error.message}") from None
        return _with_tag(what, what, None)
    return _with_tag(what, name, digest) if at else Named(digest=digest)


def _with_tag(what: str, text: str, digest: Digest | None) -> Named:
    name, colon, tag = text.rpartition(":")
    try:
        if colon and is_tag(tag):
            return Named(parse_name(name), tag, digest)
        return Named(parse_name(text), None, digest)
    except NameInvalid as error:
        raise UsageError(f"{what} is neither a digest nor NAME, NAME:TAG or NAME@DIGEST: {error.message}") from error
