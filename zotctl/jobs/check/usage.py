"""What takes the space of a root, by repository and tag, and what would be free if one went: for `verify --usage` and
for the map in the file of `--report`.

Sizes come from one walk over everything that lies in a root, and who needs what from the manifest graph: no blob is
read. What the disk has once (hard links, reflinks, the pool of a bucket) is counted once, and each byte has one place,
so that the places add up to what the disk says.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from zotctl.errors import Damaged
from zotctl.jobs.reachable import Attachments, Reachable, mark
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Stored, jobs_of
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage import keys
from zotctl.storage.digests import DigestMap
from zotctl.storage.root import Root

OWN, SHARED, UNREACHABLE, UNCLEAR = "one repository", "several repositories", "unreachable", "unclear"
"""Places of blobs in repositories. Unclear: what their repository needs can't be known."""
OF_REPOSITORIES = (OWN, SHARED, UNREACHABLE, UNCLEAR)
_HIDDEN_PLACES = {
    keys.TRASH: "trash", keys.UPLOADS: "uploads", keys.STAGED: "uploads", keys.POOL: "pool", keys.SHARED: "pool",
    keys.DAMAGED: "damaged", keys.TMP: "temporary files", keys.RESERVE: "reserve", keys.SPARE: "reserve",
}  # fmt: skip
_PLACES = ("trash", "damaged", "uploads", "pool", "temporary files", "reserve", "indexes", "records", "other files")
"""All others. What has several names is counted at the first of these that it has."""
PLACES = {
    "one repository": "blobs that one repository needs",
    "several repositories": "blobs that several repositories share",
    "unreachable": "blobs that no manifest reaches, for gc to collect",
    "unclear": "blobs of repositories whose needs can't be known",
    "trash": "the trash, until gc purges it",
    "uploads": "uploads that are not finished",
    "pool": "the pool: content that no repository has any more",
    "damaged": "damaged content, kept for inspection",
    "temporary files": "temporary files",
    "reserve": "the reserve for a full disk",
    "indexes": "index.json and oci-layout of the repositories",
    "records": "histories and records of jobs",
    "other files": "other files, not of the store",
    "directories and blocks": "directories, and blocks that are not full",
}
"""What each place is, for people."""
_HOLDING = ("trash", "damaged")
"""Where a name keeps the bytes although the repository goes, until gc or scrub removes it."""


class Sizes(NamedTuple):
    """Of a repository or a part of one, in bytes. `own`: what no other repository needs or, of a part, no other part.
    `freed`: what the disk gains if it goes."""

    size: int
    own: int
    freed: int

    @property
    def shared(self) -> int:
        """In bytes."""
        return self.size - self.own

    def fields(self) -> dict[str, int]:
        """The fields of an item."""
        return {"size_bytes": self.size, "own_bytes": self.own, "shared_bytes": self.shared, "freed_bytes": self.freed}


class PartUsage(NamedTuple):
    """What one tag of a repository leads to, or what all `digests` without a tag do."""

    tag: str | None
    digests: list[str]
    sizes: Sizes


class RepositoryUsage(NamedTuple):
    """A repository with its parts, that which frees most first. `unreachable`: bytes that no manifest reaches."""

    name: str
    sizes: Sizes
    unreachable: int
    parts: list[PartUsage]


class RootUsage(NamedTuple):
    """A root. All in bytes, but for `repositories`: those that the run covers, that which frees most first.

    `places` add up to `disk`, and so do `own` of these repositories, `others`, `shared` and `places` but for those of
    repositories. `others`: what other repositories alone need. `shared`: what several have. `saved`: what the disk need
    not have several times.
    """

    root: str
    repositories: list[RepositoryUsage]
    places: dict[str, int]
    others: int
    shared: int
    saved: int
    disk: int


def usage(run: Run) -> None:
    """Report an item for each repository and tag of the run, and for each place of each root, the largest first.

    A repository whose manifests can't be read is an error (exit 5), and what of it is needed is unclear. Raises TimeUp.
    """
    for root in run.roots:
        with run.guarded(root.label, root):
            _tell(run, measure(run, root))
    run.walked()


def measure(run: Run, root: Root, *, parts: bool = True) -> RootUsage:
    """The space of one root, with the repositories that the run covers; without their tags, unless `parts`.

    The whole root is looked at, whatever the run covers: what is shared is shared with all. Errors of repositories are
    reported. Raises StorageError if the root can't be looked at, and TimeUp.
    """
    root.require()
    return _Measure(run, root, parts).measured()


@dataclass
class _Share:
    """What one tag of a repository, or all its manifests without a tag, lead to. `own`: content to which nothing else
    in the repository leads."""

    tag: str | None
    digests: list[str]
    size: int
    own: array[int]


@dataclass
class _Repository:
    name: str
    contents: array[int]
    shares: list[_Share] = field(default_factory=list)
    unreachable: int = 0
    """Bytes that no manifest reaches."""


class _Contents:
    """What the disk has, each once, by its number in `Stored`. Used by one thread."""

    def __init__(self) -> None:
        self.size, self.disk = array("q"), 0
        self.places = bytearray()
        """The first of `_PLACES` that it has, from 1; 0: it lies in repositories only."""
        self.held = bytearray()
        self.users = array("I")
        """The number of repositories that have it."""
        self.reached, self.unclear = bytearray(), bytearray()
        self.led = bytearray()
        """How many parts of the repository that is being looked into lead to it, two at most."""

    def add(self, found: Stored, place: str) -> int:
        """Note one name. `place`: one of `_PLACES`, or "" for a blob of a repository."""
        number = found.content
        if number == len(self.size):
            self.size.append(found.size)
            self.users.append(0)
            for flags in (self.places, self.held, self.reached, self.unclear, self.led):
                flags.append(0)
            self.disk += found.disk
        if place:
            rank = _PLACES.index(place) + 1
            self.places[number] = min(rank, self.places[number] or rank)
            self.held[number] |= place in _HOLDING
        return number

    def sum(self, some: Iterable[int]) -> int:
        return sum(self.size[number] for number in some)

    def freed(self, some: Iterable[int]) -> int:
        """What of it only one repository has, and no name elsewhere keeps."""
        return self.sum(number for number in some if self.users[number] == 1 and not self.held[number])

    def place(self, number: int) -> str:
        if self.users[number]:
            if self.reached[number]:
                return SHARED if self.users[number] > 1 else OWN
            return UNCLEAR if self.unclear[number] else UNREACHABLE
        return _PLACES[self.places[number] - 1]


class _Measure:
    """Used by one thread."""

    def __init__(self, run: Run, root: Root, parts: bool) -> None:
        self._run, self._root, self._parts = run, root, parts
        self._contents = _Contents()
        self._all = frozenset[str]()
        self._left: dict[str, None] = {}
        """Repositories that were not looked into yet."""
        self._blobs = ("", DigestMap())
        """The numbers of the blobs of the repository whose blobs are being listed. All of a repository come one after
        the other, so that no other's have to be kept."""
        self._pool = DigestMap()
        """Of a bucket, what repositories have by what their manifests say."""
        self._found: list[_Repository] = []

    def measured(self) -> RootUsage:
        run, root, only = self._run, self._root, self._run.store.only
        names = [only] if only else list(root.catalog.everything(lambda name, error: run.error(name, error, root)))
        self._all, self._left = frozenset(names), dict.fromkeys(names)
        for found in jobs_of(root).stored(run, only or ""):
            self._place(found)
        self._end_repository()
        for name in list(self._left):
            self._look(name, DigestMap())
        return self._figures()

    def _place(self, found: Stored) -> None:
        folder, _, encoded = found.key.rpartition("/")
        above, _, algorithm = folder.rpartition("/")
        name = above.removesuffix("/blobs")
        if name != above and name in self._all:
            if name != self._blobs[0]:
                self._end_repository()
                self._blobs = (name, DigestMap())
            self._blobs[1][f"{algorithm}:{encoded}"] = self._contents.add(found, "")
        elif above == keys.SHARED:
            self._pool[f"{algorithm}:{encoded}"] = self._contents.add(found, "pool")
        else:
            self._contents.add(found, self._other_place(found.key, folder, encoded))

    def _other_place(self, key: str, folder: str, file: str) -> str:
        first, _, rest = key.partition("/")
        if first == keys.HIDDEN:
            return _HIDDEN_PLACES.get(f"{first}/{rest.partition('/')[0]}", "records")
        is_index = file in ("index.json", LAYOUT_FILE) or file.startswith(keys.INDEX_TEMP_PREFIX)
        return "indexes" if folder in self._all and is_index else "other files"

    def _end_repository(self) -> None:
        """All blobs of a repository are known."""
        (name, blobs), self._blobs = self._blobs, ("", DigestMap())
        if name:
            self._look(name, blobs)

    def _look(self, name: str, blobs: DigestMap) -> None:
        self._run.check()
        self._run.begins(name)
        self._run.progress(len(self._all) - len(self._left), len(self._all), "repositories", name)
        self._left.pop(name, None)
        with self._run.guarded(name, self._root):
            self._look_into(name, blobs)

    def _look_into(self, name: str, blobs: DigestMap) -> None:
        repository = _Repository(name, _each_once(number for _, number in blobs.pairs()))
        try:
            marks = mark(self._root, name)
            if self._pool:
                for one in marks.reachable:
                    if one in self._pool and one not in blobs:
                        blobs[one] = self._pool[one]
                repository.contents = _each_once(number for _, number in blobs.pairs())
            if marks.faults:
                raise Damaged(f"what it needs can't be known: {marks.faults[0].reason}; `zotctl verify` tells all")
            reached = _each_once(number for one, number in blobs.pairs() if one in marks.reachable)
            repository.unreachable = self._contents.sum(repository.contents) - self._contents.sum(reached)
            self._note(self._contents.reached, reached)
            if self._parts and self._run.covers(name):
                repository.shares = self._shares(marks, blobs)
        except Exception:
            self._note(self._contents.unclear, repository.contents)
            raise
        finally:
            for number in repository.contents:
                self._contents.users[number] += 1
            if self._run.covers(name):
                self._found.append(repository)

    @staticmethod
    def _note(flags: bytearray, some: Iterable[int]) -> None:
        for number in some:
            flags[number] = 1

    def _shares(self, marks: Reachable, blobs: DigestMap) -> list[_Share]:
        found, led = list[_Share](), self._contents.led
        for tag, digests, reached in _parts(marks):
            numbers = _each_once(number for one in reached if (number := blobs.get(one)) is not None)
            for number in numbers:
                led[number] = min(led[number] + 1, 2)
            found.append(_Share(tag, digests, self._contents.sum(numbers), numbers))
        for share in found:
            share.own = array("I", (number for number in share.own if led[number] == 1))
        for _, number in blobs.pairs():
            led[number] = 0
        return found

    def _figures(self) -> RootUsage:
        contents, places = self._contents, Counter[str]()
        for number, size in enumerate(contents.size):
            places[contents.place(number)] += size
        places["directories and blocks"] = contents.disk - sum(contents.size)
        users = list(zip(contents.size, contents.users, strict=True))
        repositories = sorted(map(self._of_repository, self._found), key=lambda one: (-one.sizes.freed, one.name))
        return RootUsage(
            self._root.label,
            repositories,
            {place: size for place, size in places.most_common() if size},
            others=sum(size for size, count in users if count == 1) - sum(one.sizes.own for one in repositories),
            shared=sum(size for size, count in users if count > 1),
            saved=sum(size * (count - 1) for size, count in users if count),
            disk=contents.disk,
        )

    def _of_repository(self, one: _Repository) -> RepositoryUsage:
        contents = self._contents
        parts = [
            PartUsage(share.tag, share.digests, Sizes(share.size, contents.sum(share.own), contents.freed(share.own)))
            for share in one.shares
        ]
        parts.sort(key=lambda part: (-part.sizes.freed, part.tag or "~"))
        own = contents.sum(number for number in one.contents if contents.users[number] == 1)
        sizes = Sizes(contents.sum(one.contents), own, contents.freed(one.contents))
        return RepositoryUsage(one.name, sizes, one.unreachable, parts)


def _tell(run: Run, found: RootUsage) -> None:
    for one in found.repositories:
        run.item(what="repository", root=found.root, repository=one.name, **one.sizes.fields(),
                 unreachable_bytes=one.unreachable)  # fmt: skip
        for part in one.parts:
            said = {"tag": part.tag, "digest": part.digests[0]} if part.tag else {"digests": part.digests}
            run.item(what="tag" if part.tag else "untagged", root=found.root, repository=one.name, **said,
                     **part.sizes.fields())  # fmt: skip
        run.add("repositories")
        run.add("tags", sum(part.tag is not None for part in one.parts))
    for place, size in found.places.items():
        run.item(what="place", root=found.root, place=place, size_bytes=size)
    run.item(what="disk", root=found.root, size_bytes=found.disk, saved_bytes=found.saved)
    run.add("disk_bytes", found.disk)


def _each_once(numbers: Iterable[int]) -> array[int]:
    """Sorted."""
    return array("I", (number for number, _ in groupby(sorted(array("I", numbers)))))


def _parts(marks: Reachable) -> Iterator[tuple[str | None, list[str], set[str]]]:
    """The tags of a repository, each with its digest and all that it leads to, attachments included; then what is left,
    as None. A tag that is an attachment belongs to its image, as long as that is here."""
    attachments, covered = Attachments(marks), set[str]()
    reach = dict[str, set[str]]()
    tags = marks.index.tags()
    for attached in (False, True):
        for tag in tags:
            row = marks.index.find(tag)
            digest = str(row.digest) if row is not None and row.digest else None
            if digest is None or (tag in attachments.tags) is not attached or (attached and digest in covered):
                continue
            reached = reach.pop(digest, None) or attachments.reach([digest])[0]
            if len(marks.index.rows_of(digest, 2)) > 1:  # else no other tag asks again
                reach[digest] = reached
            covered.update(one for one in reached if one in marks.index)
            yield tag, [digest], reached
    rest = sorted(str(digest) for digest in marks.index.digests if digest not in covered)
    if rest:
        yield None, rest, attachments.reach(rest)[0]
