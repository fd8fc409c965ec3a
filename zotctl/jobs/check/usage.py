"""`verify --usage`: what takes the space, by repository and tag, and what would be free if one went.

Sizes come from one walk over everything that lies in a root, and who needs what from the manifest graph: no blob is
read. What the disk has once (hard links, reflinks, the pool of a bucket) is counted once, and each byte has one place,
so that the places add up to what the disk says.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from zotctl.errors import Damaged
from zotctl.jobs.reachable import Attachments, Reachable, mark
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Stored, jobs_of
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.storage import keys
from zotctl.storage.root import Root

OWN, SHARED, UNREACHABLE, UNCLEAR = "one repository", "several repositories", "unreachable", "unclear"
"""Places of blobs in repositories. Unclear: what their repository needs can't be known."""
_HIDDEN_PLACES = {
    keys.TRASH: "trash", keys.UPLOADS: "uploads", keys.STAGED: "uploads", keys.POOL: "pool", keys.SHARED: "pool",
    keys.DAMAGED: "damaged", keys.TMP: "temporary files", keys.RESERVE: "reserve", keys.SPARE: "reserve",
}  # fmt: skip
_PLACES = ("trash", "damaged", "uploads", "pool", "temporary files", "reserve", "indexes", "records", "other files")
"""All others. What has several names is counted at the first of these that it has."""
_HOLDING = ("trash", "damaged")
"""Where a name keeps the bytes although the repository goes, until gc or scrub removes it."""


def usage(run: Run) -> None:
    """Report an item for each repository and tag of the run, and for each place of each root, the largest first.

    The whole root is looked at, whatever the run covers: what is shared is shared with all. A repository whose
    manifests can't be read is an error (exit 5), and what of it is needed is unclear. Raises TimeUp.
    """
    for root in run.roots:
        with run.guarded(root.label, root):
            root.require()
            _Usage(run, root).tell()
    run.walked()


@dataclass
class _Share:
    """What one tag of a repository, or all its manifests without a tag, lead to. `own`: content to which nothing else
    in the repository leads."""

    tag: str | None
    digests: list[str]
    size: int = 0
    own: array[int] = field(default_factory=lambda: array("L"))


@dataclass
class _Repository:
    name: str
    contents: set[int]
    shares: list[_Share] = field(default_factory=list)
    unreachable: int = 0
    """Bytes that no manifest reaches."""


class _Contents:
    """What the disk has, each once, by a number. Used by one thread."""

    def __init__(self) -> None:
        self._ids: dict[Hashable, int] = {}
        self.size, self.disk = array("q"), 0
        self.places = bytearray()
        """The first of `_PLACES` that it has, from 1; 0: it lies in repositories only."""
        self.held = bytearray()
        self.users = array("L")
        """The number of repositories that have it."""
        self.reached, self.unclear = bytearray(), bytearray()

    def add(self, found: Stored, place: str) -> int:
        """Note one name. `place`: one of `_PLACES`, or "" for a blob of a repository."""
        number = self._ids.setdefault(found.content, len(self.size))
        if number == len(self.size):
            self.size.append(found.size)
            self.users.append(0)
            for flags in (self.places, self.held, self.reached, self.unclear):
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


class _Usage:
    def __init__(self, run: Run, root: Root) -> None:
        self._run, self._root = run, root
        self._contents = _Contents()
        self._blobs: dict[str, dict[str, int]] = {}
        self._pool: dict[str, int] = {}
        """Of a bucket, what repositories have by what their manifests say."""
        self._found: list[_Repository] = []

    def tell(self) -> None:
        run, root, only = self._run, self._root, self._run.store.only
        names = [only] if only else list(root.catalog.everything(lambda name, error: run.error(name, error, root)))
        self._blobs = {name: {} for name in names}
        for found in jobs_of(root).stored(run, only or ""):
            self._place(found)
        for number, name in enumerate(names):
            run.check()
            run.progress(number, len(names), "repositories", name)
            with run.guarded(name, root):
                self._look_into(name)
        self._tell_repositories()
        self._tell_places()

    # -- looking --------------------------------------------------------------------------------

    def _place(self, found: Stored) -> None:
        folder, _, encoded = found.key.rpartition("/")
        above, _, algorithm = folder.rpartition("/")
        name = above.removesuffix("/blobs")
        if name != above and name in self._blobs:
            self._blobs[name][f"{algorithm}:{encoded}"] = self._contents.add(found, "")
        elif above == keys.SHARED:
            self._pool[f"{algorithm}:{encoded}"] = self._contents.add(found, "pool")
        else:
            self._contents.add(found, self._other_place(found.key, folder, encoded))

    def _other_place(self, key: str, folder: str, file: str) -> str:
        first, _, rest = key.partition("/")
        if first == keys.HIDDEN:
            return _HIDDEN_PLACES.get(f"{first}/{rest.partition('/')[0]}", "records")
        is_index = file in ("index.json", LAYOUT_FILE) or file.startswith(keys.INDEX_TEMP_PREFIX)
        return "indexes" if folder in self._blobs and is_index else "other files"

    def _look_into(self, name: str) -> None:
        blobs = self._blobs.pop(name)
        repository = _Repository(name, set(blobs.values()))
        try:
            marks = mark(self._root, name)
            if self._pool:
                blobs |= {one: self._pool[one] for one in marks.reachable if one in self._pool and one not in blobs}
                repository.contents = set(blobs.values())
            reached = {blobs[one] for one in marks.reachable if one in blobs}
            if marks.faults:
                raise Damaged(f"what it needs can't be known: {marks.faults[0].reason}; `zotctl verify` tells all")
            repository.unreachable = self._contents.sum(repository.contents - reached)
            self._note(self._contents.reached, reached)
            if self._run.covers(name):
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

    def _shares(self, marks: Reachable, blobs: dict[str, int]) -> list[_Share]:
        found, leading = list[_Share](), Counter[int]()
        contents = dict[int, set[int]]()
        for tag, digests, reached in _parts(marks):
            numbers = {blobs[one] for one in reached if one in blobs}
            leading.update(numbers)
            share = _Share(tag, digests, self._contents.sum(numbers))
            contents[id(share)] = numbers
            found.append(share)
        for share in found:
            share.own = array("L", (number for number in contents[id(share)] if leading[number] == 1))
        return found

    # -- telling --------------------------------------------------------------------------------

    def _tell_repositories(self) -> None:
        contents = self._contents
        freed = {one.name: contents.freed(one.contents) for one in self._found}
        for one in sorted(self._found, key=lambda one: (-freed[one.name], one.name)):
            size = contents.sum(one.contents)
            own = contents.sum(number for number in one.contents if contents.users[number] == 1)
            self._run.item(what="repository", root=self._root.label, repository=one.name,
                           **_sizes(size, own, freed[one.name]), unreachable_bytes=one.unreachable)  # fmt: skip
            shares = [(share, contents.freed(share.own)) for share in one.shares]
            for share, free in sorted(shares, key=lambda pair: (-pair[1], pair[0].tag or "~")):
                said = {"tag": share.tag, "digest": share.digests[0]} if share.tag else {"digests": share.digests}
                self._run.item(what="tag" if share.tag else "untagged", root=self._root.label, repository=one.name,
                               **said, **_sizes(share.size, contents.sum(share.own), free))  # fmt: skip
            self._run.add("repositories")
            self._run.add("tags", sum(share.tag is not None for share in one.shares))

    def _tell_places(self) -> None:
        contents, sums = self._contents, Counter[str]()
        for number, size in enumerate(contents.size):
            sums[contents.place(number)] += size
        sums["directories and blocks"] = contents.disk - sum(contents.size)
        for place, size in sums.most_common():
            if size:
                self._run.item(what="place", root=self._root.label, place=place, size_bytes=size)
        saved = sum(size * (users - 1) for size, users in zip(contents.size, contents.users, strict=True) if users)
        self._run.item(what="disk", root=self._root.label, size_bytes=contents.disk, saved_bytes=saved)
        self._run.add("disk_bytes", contents.disk)


def _sizes(size: int, own: int, freed: int) -> dict[str, int]:
    return {"size_bytes": size, "own_bytes": own, "shared_bytes": size - own, "freed_bytes": freed}


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
            if digest not in reach:
                reach[digest] = attachments.reach([digest])[0]
            covered |= reach[digest]
            yield tag, [digest], reach[digest]
    rest = sorted(str(digest) for digest in marks.index.digests if digest not in covered)
    if rest:
        yield None, rest, attachments.reach(rest)[0]
