"""What an archive has, by path, after it was read once: small texts in memory, blobs by their digests, and links.

A link is followed within the archive only (I14): what it leads to must have been read as a member, and the bytes of a
blob must match its name wherever they were found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from zotctl.errors import DigestInvalid, quoted
from zotctl.oci.digest import ALGORITHMS, Digest, parse_digest
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage import keys
from zotctl.storage.tar import MOST_HOPS, OUTSIDE, Tar, Unpacked

INDEX_FILE, DOCKER_FILE = "index.json", "manifest.json"
TEXT_BYTES = 64 << 20
"""The largest index.json and manifest.json."""
LIMITS = {LAYOUT_FILE: 4096, INDEX_FILE: TEXT_BYTES, DOCKER_FILE: TEXT_BYTES}
OTHER_TEXT_BYTES, OTHER_TEXTS_BYTES = 4 << 20, 64 << 20
"""The largest other JSON file, and the most bytes of them, that are kept since they may be the configs of images."""
TEXTS_BYTES = 256 << 20
"""The most bytes of index.json and manifest.json files together."""
PATHS_BYTES = 256 << 20
"""The most bytes of paths."""
LONGEST_PATH = 4096
MOST_STEPS = 10_000_000
"""Parts of paths that are looked at for links."""

_BLOB = re.compile(r"(?:(?P<above>.+)/)?blobs/(?P<alg>[^/]+)/(?P<enc>[^/]+)").fullmatch
_HIDDEN = re.compile(
    rf"(?:.+/)?{re.escape(keys.HIDDEN)}/.+/(?P<alg>{'|'.join(ALGORITHMS)})/"
    r"(?:[^/]{2}/)?(?P<enc>[a-f0-9]{64,128})(?:/[^/]+)?"
).fullmatch
"""Content in the hidden directory of a store of ours. `tar` writes the first name of a file, which may be this one, and
the others as links to it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file that may be a blob. `digest`: that of its name, or, if `fault` is empty, of its bytes."""

    digest: Digest
    size: int
    fault: str = ""
    """Why its bytes are not what they should be."""
    found: Digest | None = None
    """The digest of damaged bytes, if it is known."""
    packing: str = ""
    """"gzip" or "zstd", if it was looked at as a layer."""
    unpacked: Digest | None = None
    """The digest of the unpacked bytes; None: unknown, for the reason `why_not`."""
    why_not: str = ""

    def looked_into(self, packed_with: str, unpacked: Unpacked) -> Blob:
        """The same, with what was found by unpacking all of it."""
        plain = unpacked.digest()
        fault, why_not = (unpacked.fault, "") if unpacked.is_damaged else ("", unpacked.fault)
        return replace(self, fault=fault, packing=packed_with, unpacked=plain, why_not=why_not)


@dataclass
class LayoutBlobs:
    """The blobs of one layout in an archive."""

    present: dict[Digest, Blob] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """What is named and leads nowhere, and why."""


def named_blob(path: str) -> Digest | None:
    """The digest that a path says of its content; None: it is no path of a blob."""
    match = _BLOB(path) or _HIDDEN(path)
    with suppress(DigestInvalid):
        return parse_digest(f"{match['alg']}:{match['enc']}") if match else None
    return None


def is_hidden(path: str) -> bool:
    """Whether it lies in the hidden directory of a store of ours."""
    return keys.HIDDEN in path.split("/")


class Members:
    """What was found in an archive, by path. Used by one thread."""

    def __init__(self, tar: Tar) -> None:
        self._tar = tar
        self.texts: dict[str, bytes] = {}
        self.blobs: dict[str, Blob] = {}
        self.links: dict[str, str] = {}
        self.stores: set[str] = set()
        """The directories that are stores of ours."""
        self._too_large: dict[str, int] = {}
        self._folders: dict[str, list[Digest]] = {}
        self._room = {True: TEXTS_BYTES, False: OTHER_TEXTS_BYTES}
        self._paths_left, self._steps_left = PATHS_BYTES, MOST_STEPS

    def __contains__(self, path: str) -> bool:
        return path in self.blobs or path in self.texts or path in self.links or path in self._too_large

    # -- while it is read -------------------------------------------------------------------------

    def add_blob(self, path: str, blob: Blob) -> None:
        """Note a file whose content was taken."""
        self._charge(path)
        self.blobs[path] = blob
        self._note_folder(path)

    def add_link(self, path: str, target: str) -> None:
        """Note a link, unless it is too long to be followed."""
        self._charge(f"{path}{target}")
        self.links[path] = target if len(target) <= LONGEST_PATH else OUTSIDE
        self._note_folder(path)

    def add_text(self, path: str, size: int) -> bool:
        """Keep the current member as a text, if there is room for it. False: it was not read."""
        name = path.rpartition("/")[2]
        is_known = name in LIMITS
        if size > min(LIMITS.get(name, OTHER_TEXT_BYTES), self._room[is_known]):
            if is_known:
                self._charge(path)
                self._too_large[path] = size
            return False
        self._charge(path)
        self._room[is_known] -= size
        self.texts[path] = b"".join(self._tar.chunks())
        return True

    def _note_folder(self, path: str) -> None:
        if (match := _BLOB(path)) is not None and (digest := named_blob(path)) is not None:
            self._folders.setdefault(path[: match.start("enc") - 1], []).append(digest)

    def _charge(self, path: str) -> None:
        self._paths_left -= len(path)
        if self._paths_left < 0:
            raise self._tar.refusal(f"its paths have more than {PATHS_BYTES} bytes")

    # -- looking ----------------------------------------------------------------------------------

    def places(self, name: str) -> set[str]:
        """The directories that have a file or a link of this name."""
        found = (*self.texts, *self.links, *self._too_large)
        return {path.rpartition("/")[0] for path in found if path.rpartition("/")[2] == name}

    def text(self, path: str) -> bytes | None:
        """A file of a layout, also by a link; None: there is none. Raises LayoutInvalid."""
        real, name = self.real(path), path.rpartition("/")[2]
        if real is None and path in self.links:
            raise self._tar.refusal(f"{quoted(path)} is a link to nothing in it; pack it with tar --dereference")
        if real is None or (real not in self.texts and real not in self._too_large):
            return None
        limit = LIMITS.get(name, OTHER_TEXT_BYTES)
        size = self._too_large[real] if real in self._too_large else len(self.texts[real])
        if size > limit:
            raise self._tar.refusal(f"{name} has {size} bytes, more than {limit}")
        if real in self._too_large:
            raise self._tar.refusal(f"its files of the kind of {name} have more than {TEXTS_BYTES} bytes")
        return self.texts[real]

    def blob(self, path: str) -> Blob | None:
        """A file whose content was taken, also by links; None: there is none."""
        return self.blobs.get(self.real(path) or "")

    def of_layout(self, place: str) -> LayoutBlobs:
        """The blobs of the layout in this directory."""
        found = LayoutBlobs()
        for folder in (below(place, f"blobs/{algorithm}") for algorithm in ALGORITHMS):
            real = folder if folder in self._folders else self.real(folder)
            for digest in self._folders.get(real or "", ()):
                self._add(found, digest, f"{real}/{digest.encoded}")
        return found

    def _add(self, found: LayoutBlobs, digest: Digest, path: str) -> None:
        blob = self.blob(path)
        if blob is None:
            found.absent[digest] = f"{digest} is a link that leads to nothing in {self._tar.label}"
            return
        found.present[digest] = blob
        if blob.fault:
            found.damaged[digest] = blob.fault
        elif blob.digest != digest:
            found.damaged[digest] = f"the content has the digest {blob.digest}, not {digest}"

    def real(self, path: str) -> str | None:
        """The path of a member that is no link, to which `path` leads; None: it leads to nothing, or outside."""
        for _ in range(MOST_HOPS):
            if path in self.blobs or path in self.texts or path in self._too_large or path in self._folders:
                return path
            link = next((prefix for prefix in self._prefixes(path) if prefix in self.links), None)
            if link is None or self.links[link] == OUTSIDE:
                return None
            path = f"{self.links[link]}{path[len(link) :]}".strip("/")
            if len(path) > LONGEST_PATH:
                return None
        return None

    def _prefixes(self, path: str) -> Iterator[str]:
        end = 0
        while end != len(path) and self.links:
            self._steps_left -= 1
            if self._steps_left < 0:
                raise self._tar.refusal("its links lead through too many others")
            after = path.find("/", end + 1)
            end = after if after >= 0 else len(path)
            yield path[:end]


def below(place: str, path: str) -> str:
    """A path below a directory of the archive, which is "" for its top."""
    return f"{place}/{path}" if place else path
