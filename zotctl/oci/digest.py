"""Digests: image-spec, descriptor.md, section "Digests"."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Never, Protocol, Self

from zotctl.errors import DigestInvalid, quoted


class Hash(Protocol):
    """What `new_hash` returns."""

    def update(self, data: Any, /) -> object:
        """Append the bytes of any buffer."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far, in lower case."""
        ...

    def copy(self) -> Hash:
        """One that goes on from here by itself."""
        ...


def _blake3() -> Hash:
    made: Hash = import_module("blake3").blake3()  # which few need, and is half a MiB
    return made


_HASHES: dict[str, Callable[[], Hash]] = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
if find_spec("blake3"):
    _HASHES["blake3"] = _blake3

ALGORITHMS: tuple[str, ...] = tuple(_HASHES)
"""The algorithms that can be computed here: sha256, sha512, and blake3 if its module is installed."""

CANONICAL = "sha256"
"""The algorithm of a digest that we choose (image-spec, descriptor.md, "Digests")."""

_is_sha256 = re.compile(r"sha256:[a-f0-9]{64}").fullmatch
_is_digest = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+").fullmatch
_REGISTERED_LENGTHS = {"sha256": 64, "sha512": 128, "blake3": 64}
_is_hex = re.compile(r"[a-f0-9]+").fullmatch


class Digest(str):
    """A digest in its text form, for example `sha256:e3b0...`; equal to that text, and hashed like it.

    Every instance follows the grammar, so it is safe in a path: it comes from a parser (`parse_digest`,
    `check_digest`, `digest_named`) or from a hash (`digest_of`, `digest_of_hash`). The constructor raises TypeError.
    """

    __slots__ = ()

    def __new__(cls, _: Never) -> Self:
        """Raises TypeError: a text is no digest before it was parsed."""
        raise TypeError("a Digest comes from parse_digest, check_digest, digest_named, digest_of or digest_of_hash")

    def __reduce__(self) -> tuple[Callable[[str], Digest], tuple[str]]:
        return check_digest, (str(self),)

    @property
    def algorithm(self) -> str:
        """What stands before the colon: `sha256`."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """What stands after the colon: hexadecimal digits, for every algorithm that we compute."""
        return self.partition(":")[2]


def parse_digest(text: str) -> Digest:
    """`text` as a digest that can be computed here; raises DigestInvalid."""
    if _is_sha256(text):
        return _make(text)
    digest = check_digest(text)
    if digest.algorithm not in _HASHES:
        raise _unsupported(digest.algorithm)
    return digest


def check_digest(text: str) -> Digest:
    """`text` as a digest of any algorithm, even one that can't be computed here; raises DigestInvalid."""
    if _is_sha256(text):
        return _make(text)
    # "A digest string MUST match the following grammar"
    if not _is_digest(text):
        raise DigestInvalid(f"{quoted(text)} is not a digest of the form algorithm:encoded")
    # "When the algorithm identifier is sha256, the encoded portion MUST match /[a-f0-9]{64}/." And so on.
    algorithm, _, encoded = text.partition(":")
    length = _REGISTERED_LENGTHS.get(algorithm)
    if length and not (len(encoded) == length and _is_hex(encoded)):
        raise DigestInvalid(
            f"{quoted(text)} is not a digest: {algorithm} takes {length} hexadecimal digits in lower case"
        )
    return _make(text)


def digest_named(algorithm: str, encoded: str) -> Digest | None:
    """The digest of a blob's file `encoded` in the directory `algorithm`. None: the name is no digest's, so the file is
    no blob."""
    try:
        return check_digest(f"{algorithm}:{encoded}")
    except DigestInvalid:
        return None


def _make(text: str) -> Digest:
    return str.__new__(Digest, text)


def new_hash(algorithm: str) -> Hash:
    """A fresh hash with `update(buffer)` and `hexdigest()`; raises DigestInvalid if it is not supported."""
    try:
        return _HASHES[algorithm]()
    except KeyError:
        raise _unsupported(algorithm) from None


def digest_of(data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
    """The digest of `data`; raises DigestInvalid if the algorithm is not supported."""
    state = new_hash(algorithm)
    state.update(data)
    return digest_of_hash(algorithm, state)


def digest_of_hash(algorithm: str, state: Hash) -> Digest:
    """The digest of all bytes that `state`, a hash of this algorithm, has seen."""
    return _make(f"{algorithm}:{state.hexdigest()}")


def _unsupported(algorithm: str) -> DigestInvalid:
    return DigestInvalid(f"unsupported digest algorithm {quoted(algorithm)}; supported are {', '.join(ALGORITHMS)}")


def is_stub(digest: Digest, size: int) -> bool:
    """Whether a blob of `size` bytes is a stub: empty, though its digest is not that of empty content. zot on S3 leaves
    stubs where another repository has the content."""
    return size == 0 and digest != digest_of(b"", digest.algorithm)
