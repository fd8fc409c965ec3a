"""Reads archives of images: a layout, a tree of layouts, or what `docker save` and its kin write.

Archives are untrusted (I14). Nothing is extracted by its path: the bytes of regular members that may be blobs are
verified like an upload, everything else is passed over or refused, and nothing of a refused archive stays. What an
archive is, is often said at its end, so all blobs are staged in one place of their own in the hidden directory, which
no collector looks at. From there each repository gets them by one link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Generic, Protocol, TypeVar

from zotctl.errors import (
    ArchiveDamaged,
    Damaged,
    DigestInvalid,
    LayoutInvalid,
    ManifestInvalid,
    NotFound,
    ZotctlError,
    quoted,
)
from zotctl.jobs.finding import Finding
from zotctl.jobs.imports.docker import DockerImage, docker_images, docker_layout, docker_names
from zotctl.jobs.imports.members import (
    DOCKER_FILE,
    INDEX_FILE,
    LIMITS,
    OTHER_TEXT_BYTES,
    Blob,
    LayoutBlobs,
    Members,
    below,
    is_hidden,
    named_blob,
)
from zotctl.jobs.imports.sources import Layout, StoredLayout
from zotctl.jobs.run import Run
from zotctl.jobs.staging import STAGING
from zotctl.oci.digest import CANONICAL, Digest, digest_of_hash, new_hash
from zotctl.oci.layout import LAYOUT_FILE, check_layout
from zotctl.storage import keys
from zotctl.storage.digests import Digests
from zotctl.storage.driver import Reader, chunks_of, hash_of
from zotctl.storage.facts import BEGINNING_BYTES, Content, Unusable, is_like_json
from zotctl.storage.index import Index, parse_index
from zotctl.storage.root import Root
from zotctl.storage.tar import Growth, Member, Tar, TarBytes, Unpacked, is_like_tar, packing

L = TypeVar("L", bound=Layout)
L_co = TypeVar("L_co", bound=Layout, covariant=True)

LISTED_BODY_BYTES, LISTED_BODIES_BYTES = 4 << 20, 256 << 20
"""The largest manifest, and the most bytes of manifests, that are kept in memory of an archive that is only listed."""
TAR_SPEC = 'POSIX, pax, "ustar Interchange Format"'


class ArchiveStage(Protocol[L_co]):
    """Takes the blobs of an archive until it is known what it is. `L_co`: the layouts that it then makes of them."""

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob need not be taken."""

    def take(self, digest: Digest | None, size: int, chunks: Iterable[bytes]) -> Digest:
        """Take a blob, and return the digest of its bytes. Raises DigestInvalid if it is not `digest`; nothing is kept
        then. None: it is not known yet."""

    def read(self, digest: Digest) -> bytes | None:
        """A small JSON file that was taken; None: it was not, or is something else."""

    def unpack(self, digest: Digest, blob: Blob) -> Blob:
        """Look at a blob that was taken as a layer: how it is packed, and the digest of its unpacked bytes."""

    def layout(self, label: str, index: Index, blobs: LayoutBlobs) -> L_co:
        """A layout of blobs that were taken."""


@dataclass
class ArchiveContent(Generic[L]):
    """The layouts in an archive, each with its directory, which is "" at the top."""

    layouts: dict[str, L] = field(default_factory=dict)
    problems: dict[str, ZotctlError] = field(default_factory=dict)
    """What was left out of several layouts, and why."""
    findings: list[Finding] = field(default_factory=list)
    """What is wrong with the archive itself, although its layouts could be read."""
    paths: dict[Digest, str] = field(default_factory=dict)
    """A member that has each blob."""
    is_tree: bool = False
    """Whether paths name the repositories: there are several, or it is a store of ours."""


def read_archive(run: Run, stream: BinaryIO, label: str, stage: ArchiveStage[L]) -> ArchiveContent[L]:
    """Read a whole archive into `stage`, and return its layouts. Raises LayoutInvalid, which says why it is
    refused."""
    tar = Tar(TarBytes(stream, label))
    reader = _Reader(run, tar, stage)
    for member in tar:
        run.check()
        reader.take(member)
    return _Assembly(tar, reader.members, stage).content()


# -- members ------------------------------------------------------------------------------------


class _Reader:
    """Sorts the members of one archive."""

    def __init__(self, run: Run, tar: Tar, stage: ArchiveStage[Layout]) -> None:
        self._run, self._tar, self._stage, self._growth = run, tar, stage, Growth()
        self.members = Members(tar)

    def take(self, member: Member) -> None:
        """Take the current member, or pass over it. Raises LayoutInvalid for what no archive of images has."""
        path, digest = member.path, named_blob(member.path)
        hidden = is_hidden(path)
        if hidden:
            self.members.stores.add(path.partition(f"{keys.HIDDEN}/")[0].rstrip("/"))
        if member.target is not None:
            self._refuse_twice(path)
            self.members.add_link(path, member.target)
        elif digest is not None:
            self._refuse_twice(path)
            self.members.add_blob(path, self._named(member, digest))
        elif not hidden:
            self._other(member)

    def _refuse_twice(self, path: str) -> None:
        if path in self.members:
            raise self._tar.refusal(f"{quoted(path)} is in it twice")

    def _named(self, member: Member, digest: Digest) -> Blob:
        """A blob by its name."""
        if self._stage.has(digest, member.size):
            return Blob(digest, member.size)
        try:
            found = self._stage.take(digest, member.size, self._paced())
        except DigestInvalid as error:
            return Blob(digest, member.size, error.message)
        fault = "" if found == digest else f"the content has the digest {found}, not {digest}"
        return Blob(digest, member.size, fault, None if found == digest else found)

    def _other(self, member: Member) -> None:
        """What may be the index of a layout, or the config or a layer of `docker save`, whose names vary."""
        beginning = self._tar.beginning()
        if member.path.rpartition("/")[2] in LIMITS:
            self._refuse_twice(member.path)
            self.members.add_text(member.path, member.size)
        elif is_like_tar(beginning):
            self._add_layer(member, packing(beginning))
        elif is_like_json(beginning) and beginning:
            self._refuse_twice(member.path)
            self.members.add_text(member.path, member.size)

    def _add_layer(self, member: Member, packed_with: str) -> None:
        unpacked = Unpacked(packed_with, self._growth) if packed_with else None
        digest = self._stage.take(None, member.size, self._paced(unpacked))
        blob = Blob(digest, member.size, unpacked=digest)
        if unpacked is not None:
            blob = blob.looked_into(packed_with, unpacked)
        if member.path in self.members and self.members.blobs.get(member.path) != blob:
            self._refuse_twice(member.path)
        self.members.add_blob(member.path, blob)

    def _paced(self, unpacked: Unpacked | None = None) -> Iterator[bytes]:
        for data in self._tar.chunks():
            self._run.throttle.take(len(data))
            if unpacked is not None:
                unpacked.update(data)
            yield data


# -- layouts ------------------------------------------------------------------------------------


class _Assembly(Generic[L]):
    """Makes layouts of what was read."""

    def __init__(self, tar: Tar, members: Members, stage: ArchiveStage[L]) -> None:
        self._label, self._has_end, self._members, self._stage = tar.label, tar.has_end, members, stage
        self._has_more = tar.has_more

    def content(self) -> ArchiveContent[L]:
        """All layouts. Raises LayoutInvalid if there is none, or one that can't be read."""
        markers, indexes = self._members.places(LAYOUT_FILE), self._members.places(INDEX_FILE)
        images = {place: docker_images(self._docker(place)) for place in self._members.places(DOCKER_FILE) - indexes}
        saved = {place: found for place, found in images.items() if found}
        places = markers | saved.keys()
        shown = {place for place in places if not _is_for_a_registry(place)} or places
        if not shown:
            raise self._incomplete("", INDEX_FILE if not indexes else LAYOUT_FILE)
        found: ArchiveContent[L] = ArchiveContent()
        found.is_tree = len(shown) > 1 or bool(self._members.stores)
        for place in sorted(shown, key=lambda name: name.split("/")):
            name = self._name(place)
            try:
                found.layouts[name] = self._saved(place, saved[place]) if place in saved else self._layout(place)
            except LayoutInvalid as error:
                if len(shown) == 1:
                    raise
                found.problems[name] = error
        if not self._has_end:
            reason = f"{self._label} does not end as a tar does: it may have been cut between two members"
            found.findings.append(Finding("", None, "invalid_layout", reason, spec=TAR_SPEC))
        if self._has_more:
            reason = f"another archive follows the end of {self._label}, and is not read: give it in a file of its own"
            found.findings.append(Finding("", None, "invalid_layout", reason, spec=TAR_SPEC))
        if found.is_tree:
            found.problems |= self._linked(shown)
        found.paths = {blob.digest: path for path, blob in self._members.blobs.items() if not blob.fault}
        return found

    def _name(self, place: str) -> str:
        """The path within the store of ours that it lies in, which may have been packed with the directories above."""
        root = next(iter(self._members.stores)) if len(self._members.stores) == 1 else ""
        return place.removeprefix(f"{root}/")

    def _docker(self, place: str) -> bytes | None:
        with suppress(LayoutInvalid):  # a link, or too large: it may belong to anything
            return self._members.text(below(place, DOCKER_FILE))
        return None

    def _linked(self, shown: set[str]) -> dict[str, ZotctlError]:
        """Links to layouts: each has its own path already."""
        links = self._members.links.items()
        reason = "it is a link to {}, which is taken by its own path"
        return {path: LayoutInvalid(f"{path}: {reason.format(to)}") for path, to in links if to in shown and to}

    def _labelled(self, place: str) -> str:
        return f"{self._label}/{place}" if place else self._label

    def _incomplete(self, place: str, missing: str) -> LayoutInvalid:
        reason = f"holds no image layout: {missing} is missing (image-spec, image-layout.md), or it was cut short"
        return (LayoutInvalid if self._has_end else ArchiveDamaged)(f"{self._labelled(place)} {reason}")

    def _layout(self, place: str) -> L:
        marker, index = (self._members.text(below(place, name)) for name in (LAYOUT_FILE, INDEX_FILE))
        if marker is None or index is None:
            raise self._incomplete(place, INDEX_FILE if index is None else LAYOUT_FILE)
        check_layout(marker)
        blobs = self._members.of_layout(place)
        layout = self._stage.layout(self._labelled(place), parse_index(index), blobs)
        layout.names = docker_names(self._docker(place))
        return layout

    def _saved(self, place: str, images: list[DockerImage]) -> L:
        made = docker_layout(self._members, place, images, self._take, self._stage.read, self._stage.unpack)
        layout = self._stage.layout(self._labelled(place), parse_index(made.index), made.blobs)
        layout.names, layout.findings = made.names, made.findings
        return layout

    def _take(self, body: bytes) -> Blob:
        return Blob(self._stage.take(None, len(body), [body]), len(body))


def _is_for_a_registry(place: str) -> bool:
    """As in a directory (`jobs.layouts`): such names belong to uploads, caches, and our own hidden directory."""
    return any(part.startswith((".", "_")) for part in place.split("/"))


# -- in a root ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class StagedLayout(StoredLayout):
    """A layout whose blobs were staged, beside those of others in the same archive."""

    blobs: LayoutBlobs

    def size(self, digest: Digest) -> int | None:
        """The size of a staged blob that this layout has."""
        is_own = digest in self.blobs.present and digest not in self.damaged
        return super().size(digest) if is_own else None

    def absence(self, digest: Digest) -> Unusable:
        """Why a blob is absent: a link in the archive may lead to nothing."""
        return _absence(self.blobs, digest) or super().absence(digest)


class Staging:
    """Stages blobs in the hidden directory of a root.

    What a killed run has staged is used. `repository`: the target, if it is known: a layer that it has is not staged.
    """

    def __init__(self, root: Root, repository: str | None) -> None:
        self._root, self._repository, self._growth = root, repository, Growth()
        self._good = Digests()
        """What was staged or hashed in this run."""

    def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob is staged already, or is a large one that the repository has."""
        if self._holds(STAGING, digest, size) and (digest in self._good or self._is_sound(digest)):
            return True
        return bool(self._repository and size > LISTED_BODY_BYTES and self._holds(self._repository, digest, size))

    def _holds(self, name: str, digest: Digest, size: int) -> bool:
        try:
            return self._root.maintenance.look(name, digest).size == size
        except (NotFound, Damaged):
            return False

    def _is_sound(self, digest: Digest) -> bool:
        """Whether what an earlier run has staged has the right bytes. It was not flushed, so after a power cut its size
        says nothing. What has not is removed. A bucket has hashed it, and takes a blob as a whole or not at all."""
        if not self._root.by_requests:
            with self._root.driver.open(keys.blob(STAGING, digest)) as reader:
                found = digest_of_hash(digest.algorithm, hash_of(reader, digest.algorithm))
            if found != digest:
                self._root.driver.unlink(keys.blob(STAGING, digest))
                return False
        self._good.add(digest)
        return True

    def take(self, digest: Digest | None, size: int, chunks: Iterable[bytes]) -> Digest:
        """Write the blob where blobs are staged. Raises DigestInvalid."""
        found = self._root.maintenance.take(STAGING, digest, chunks)
        self._good.add(found)
        return found

    def read(self, digest: Digest) -> bytes | None:
        """A small file that was staged."""
        with suppress(NotFound), self._open(digest) as reader:
            is_small = reader.size <= OTHER_TEXT_BYTES and is_like_json(reader.read_at(0, BEGINNING_BYTES))
            return reader.read_at(0, reader.size) if is_small else None
        return None

    def unpack(self, digest: Digest, blob: Blob) -> Blob:
        """Read it again. It may be in the repository only."""
        with self._open(digest) as reader:
            packed_with = packing(reader.read_at(0, BEGINNING_BYTES))
            if not packed_with:
                return replace(blob, unpacked=digest)
            unpacked = Unpacked(packed_with, self._growth)
            for data in chunks_of(reader):
                unpacked.update(data)
        return blob.looked_into(packed_with, unpacked)

    def _open(self, digest: Digest) -> Reader:
        try:
            return self._root.driver.open(keys.blob(STAGING, digest))
        except NotFound:
            if self._repository is None:
                raise
            return self._root.protocol.blobs.open(self._repository, digest)

    def layout(self, label: str, index: Index, blobs: LayoutBlobs) -> StagedLayout:
        """A layout of staged blobs."""
        return StagedLayout(
            driver=self._root.driver, name=STAGING, label=label, index=index, damaged=blobs.damaged, blobs=blobs
        )


@contextmanager
def staged(
    run: Run, root: Root, stream: BinaryIO, label: str, repository: str | None = None
) -> Iterator[ArchiveContent[StagedLayout]]:
    """Stage an archive in `root`, for the block. After a kill or --max-duration it stays, for the next run to
    continue."""
    try:
        yield read_archive(run, stream, label, Staging(root, repository))
    except ZotctlError:
        root.maintenance.discard(STAGING)
        raise
    root.maintenance.discard(STAGING)


# -- in memory: nothing is written -----------------------------------------------------------------


class ArchiveListing:
    """The sizes of all blobs of an archive, and the bytes of those that may be manifests.

    It is a stage of what a dry run imports and `verify` checks. `took` is called with the size of each blob.
    """

    def __init__(self, took: Callable[[int], object] = lambda size: None) -> None:
        self._took = took
        self.sizes: dict[str, int] = {}
        """By the digests of the bytes."""
        self.bodies: dict[str, bytes] = {}
        self.not_kept: set[str] = set()
        """What may be a manifest, but is too large to be kept."""
        self._held = 0

    def has(self, digest: Digest, size: int) -> bool:
        """False: every blob is read."""
        return False

    def take(self, digest: Digest | None, size: int, chunks: Iterable[bytes]) -> Digest:
        """Hash the blob, and keep it if it may be a manifest."""
        state, kept, beginning = new_hash(digest.algorithm if digest else CANONICAL), list[bytes](), b""
        is_kept = size <= LISTED_BODY_BYTES and self._held + size <= LISTED_BODIES_BYTES
        for data in chunks:
            state.update(data)
            beginning = beginning or bytes(data[:BEGINNING_BYTES])
            if is_kept:
                kept.append(data)
        found = digest_of_hash(digest.algorithm if digest else CANONICAL, state)
        if is_like_json(beginning) and found not in self.sizes:
            if is_kept:
                self.bodies[found] = b"".join(kept)
                self._held += size
            else:
                self.not_kept.add(found)
        self.sizes[found] = size
        self._took(size)
        return found

    def read(self, digest: Digest) -> bytes | None:
        """A small JSON file that was taken."""
        return self.bodies.get(digest)

    def unpack(self, digest: Digest, blob: Blob) -> Blob:
        """It was not kept, so it can't be looked at."""
        return replace(blob, why_not="it is named by its digest, so that only an import unpacks it")

    def layout(self, label: str, index: Index, blobs: LayoutBlobs) -> ListedLayout:
        """A layout of what was listed."""
        return ListedLayout(label=label, index=index, damaged=blobs.damaged, blobs=blobs, listing=self)


@dataclass(kw_only=True)
class ListedLayout(Layout):
    """A layout of which the sizes of blobs and the bytes of manifests are known."""

    blobs: LayoutBlobs
    listing: ArchiveListing

    def size(self, digest: Digest) -> int | None:
        """The size of a blob; None if it is damaged or absent."""
        return self.blobs.present[digest].size if self._has(digest) else None

    def absence(self, digest: Digest) -> Unusable:
        """Why a blob is absent: a link in the archive may lead to nothing."""
        return _absence(self.blobs, digest) or super().absence(digest)

    def open(self, digest: Digest) -> Reader:
        """Raises NotFound: nothing is copied from a list, and manifests come by `content`."""
        raise NotFound(f"{digest} is not kept in a dry run")

    def content(self, digest: Digest, whole: bool) -> Content:
        """The content as it was hashed. Raises NotFound, and ManifestInvalid if it was too large to be kept."""
        if not self._has(digest):
            raise NotFound(f"{digest} is not in {self.label}")
        size = self.blobs.present[digest].size
        if digest in self.listing.not_kept:
            raise ManifestInvalid(f"{digest} has {size} bytes, too many to be looked at in a dry run")
        return Content(size, self.listing.bodies.get(digest))

    def _has(self, digest: Digest) -> bool:
        return digest in self.blobs.present and digest not in self.damaged


def _absence(blobs: LayoutBlobs, digest: Digest) -> Unusable | None:
    reason = blobs.absent.get(digest)
    return Unusable("missing_blob", reason) if reason else None
