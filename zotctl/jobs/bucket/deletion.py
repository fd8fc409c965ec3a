"""One batch of what a collector takes from a bucket, by the steps C2 to C7 of docs/design/bucket.md.

Nothing that was found in C1 is trusted: each repository is marked again on the very index.json that is fenced (C4), and
each reservation and each object must still be what it was (C5). What is not, is spared, and another run looks at it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from zotctl.errors import (
    ClockDoubtful,
    DoneUnanswered,
    Expired,
    LayoutInvalid,
    NotFound,
    OutcomeUnknown,
    StorageError,
)
from zotctl.jobs.bucket.looks import look_at
from zotctl.jobs.reachable import ReachableBlobs
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S
from zotctl.storage.bucket.objects.seam import Object, PresignedDelete
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.clock import is_ahead
from zotctl.storage.protocol import Snapshot
from zotctl.storage.root import Root

FENCE_ATTEMPTS = 3
"""How often an index.json that is being written is marked and fenced again, before its content is spared."""


@dataclass(frozen=True)
class Candidate:
    """What is to be deleted of one digest. `name`: the repository in which it lies, "" for the pool.

    `reservations` by key, as they were: those that go, and with them the rights of their repositories. `blob`: the
    object, as it was; None: it stays, or there is none. `kept`: reservations that stay, of repositories with a copy
    of their own.
    """

    digest: Digest
    name: str
    reservations: Mapping[str, Object]
    blob: Object | None
    kept: Mapping[str, Object] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Repositories that can use it no more: each must know before (C4)."""
        return {keys.reserved_for(reservation) for reservation in self.reservations} | (
            {self.name} if self.name else set()
        )

    @property
    def places(self) -> set[str]:
        """Where a push that wants it would look it up among the intents (P2)."""
        found = {keys.blob(name, self.digest) for name in self.names}
        return found | ({self.blob.key} if self.blob else set())

    def without(self, name: str) -> Candidate | None:
        """One of its repositories needs it after all. None: nothing is left to go."""
        if name == self.name:
            return None
        reservations = {
            key: reservation for key, reservation in self.reservations.items() if keys.reserved_for(key) != name
        }
        return replace(self, reservations=reservations, blob=None) if reservations else None


class Deletion:
    """One batch, by one thread. Its methods are the steps, and `carry_out` calls them in order."""

    def __init__(self, root: Root, candidates: Sequence[Candidate], began: float = 0.0) -> None:
        """`began`: as for `Batches`."""
        self._root, self._protocol, self._context = root, bucket_of(root), bucket_of(root).context
        self._objects, self._began = self._context.objects, began
        self._left = list(candidates)
        self._markers: dict[str, ReachableBlobs] = {}
        self.took = 0.0
        """Seconds that C6 took."""
        self.over = True
        """Nothing that was asked for in C6 can still be carried out, once more: else the intent stays (C7)."""

    def carry_out(self) -> list[Candidate]:
        """What is gone. Raises Expired (nothing is, or not all), OutcomeUnknown, ClockDoubtful (nothing is)."""
        self.look()
        dated = self.date()
        intent = self.announce()
        try:
            self.fence()
            self.recheck()
            self.execute(dated)
        finally:
            if self.over:
                self.withdraw(intent)
        return self._left

    def look(self) -> None:
        """C1 once more, by bytes that this process has read: that takes its time, and what follows goes by the clock.
        What can't be read now is spared by the fence."""

        def look_at(name: str) -> None:
            with suppress(NotFound, LayoutInvalid):
                self._marker(name).now()

        self._context.each([partial(look_at, name) for name in self._names()])

    def _names(self) -> list[str]:
        return sorted({name for each in self._left for name in each.names})

    def _marker(self, name: str) -> ReachableBlobs:
        return self._markers.setdefault(name, ReachableBlobs(self._root, name, certain=True))

    def date(self) -> float:
        """C2. The deletes are signed with this time, whenever that is done: they are void before another run takes the
        intent for dead, for it is younger. By the server's clock.

        Raises ClockDoubtful if that was put back since the run began: an old reservation counts as young now, and
        nobody writes it anew (P1)."""
        dated = self._objects.date()
        if is_ahead(self._began, dated):
            raise ClockDoubtful(
                f"{self._objects.label}: the object store's clock was put back while this run looked at its content, "
                "so nothing more is deleted; run it again"
            )
        return dated

    def announce(self) -> str:
        """C3."""
        return self._protocol.intents.announce({place for each in self._left for place in each.places})

    def fence(self) -> None:
        """C4. A push that has read index.json before begins again, with reservations that it makes anew."""
        names = self._names()
        for name, needed in zip(names, self._context.each([partial(self._fence, name) for name in names]), strict=True):
            self._spare(name, needed)

    def _spare(self, name: str, needed: Container[str] | None) -> None:
        """`needed` None: everything."""
        spared = [e for e in self._left if name in e.names and (needed is None or e.digest in needed)]
        kept = [each for each in self._left if each not in spared]
        self._left = kept + [rest for each in spared if (rest := each.without(name)) is not None]

    def _fence(self, name: str) -> Container[str] | None:
        """What the repository needs as it stands now, and until it is reserved again. None: not to be
        known."""
        marker = self._marker(name)
        for _ in range(FENCE_ATTEMPTS):
            try:
                marks = marker.now()
            except NotFound:
                return set()  # it is made empty, with an epoch of its own
            except LayoutInvalid:
                return None
            if marks.faults:
                return None
            with suppress(OutcomeUnknown, LayoutInvalid):
                if self._protocol.indexes.touch(name, Snapshot(marks.index, str(marks.generation))):
                    return marks.reachable
        return None

    def recheck(self) -> None:
        """C5. A push that reserved it since C1 has written a reservation; a later one sees the intent."""
        own = [each for each in self._left if each.name]
        seen = look_at(
            self._context,
            [(keys.reservation(each.digest, each.name), each.digest) for each in own]
            + [(each.blob.key, each.digest) for each in own if each.blob is not None],
        )
        if any(each.kept for each in self._left):
            self._protocol.damaged.refresh(now=True)
        looks = self._context.each([partial(self._is_as_it_was, each, seen) for each in self._left])
        self._left = [each for each, same in zip(self._left, looks, strict=True) if same]

    def _is_as_it_was(self, each: Candidate, seen: Mapping[str, Object]) -> bool:
        """`seen`: what was found of those that lie in repositories."""
        if each.name:
            held = keys.reservation(each.digest, each.name)
            now = {held: seen[held]} if held in seen else {}
        else:
            now = {found.key: found for found in self._objects.list(keys.reservations(each.digest))}
        then = {**each.reservations, **each.kept}
        if any(not _same(now.get(key), reservation) for key, reservation in then.items()):
            return False
        if each.blob is None:
            return True
        copies = (keys.blob(keys.reserved_for(reservation), each.digest) for reservation in each.kept)
        return (
            now.keys() == then.keys()
            and _same(seen.get(each.blob.key) if each.name else self._context.head(each.blob.key), each.blob)
            and all(self._is_whole(copy, each.digest) for copy in copies)
        )

    def _is_whole(self, key: str, digest: Digest) -> bool:
        """Is there a copy that can do without the pool's?"""
        found = self._context.head(key)
        return found is not None and not (is_stub(digest, found.size) or self._protocol.damaged.has(digest, found))

    def execute(self, dated: float) -> None:
        """C6. Deletes reservations first: a crash then leaves an unreferenced blob, never a reservation that points
        nowhere."""
        began = self._context.clock.elapsed()
        for doomed in self._doomed():
            if doomed:
                self._delete(self._objects.sign_deletes(doomed, DELETES_SIGNED_FOR_S, at=dated))
        self.took = self._context.clock.elapsed() - began

    def _delete(self, presigned: PresignedDelete) -> None:
        """Whatever ends this without an answer, the intent stays until nothing of it can happen any more."""
        before, self.over = self.over, False
        try:
            self._context.carry_out(presigned)
        except DoneUnanswered:
            return
        except OutcomeUnknown:
            raise
        except StorageError:
            self.over = before
            raise
        self.over = before

    def _doomed(self) -> Iterator[list[str]]:
        yield [reservation for each in self._left for reservation in each.reservations]
        yield [each.blob.key for each in self._left if each.blob is not None]

    def withdraw(self, intent: str) -> None:
        """C7. An intent that can't be taken away is dead after a while."""
        with suppress(StorageError):
            self._protocol.intents.withdraw(intent)


def _same(now: Object | None, then: Object) -> bool:
    return now is not None and (now.etag, now.size, int(now.modified)) == (then.etag, then.size, int(then.modified))


class Batches:
    """Carries out deletions batch by batch, each as large as the server can delete in time."""

    MOST_DELETES = 1000
    MOST_FENCES = 64
    """Repositories of one batch: each costs a PUT of its index.json while the deletes grow old."""
    SLOW_S = 5.0
    """Seconds: the second request of a C6 that takes longer might be too late."""

    def __init__(self, root: Root, check: Callable[[], None], began: float = 0.0) -> None:
        """`check` is called between two of them. `began`: when the run did that has found the candidates, by the
        server's clock in seconds since 1970."""
        self._root, self._check, self._size, self._began = root, check, self.MOST_DELETES, began
        self._allowed = False

    def carry_out(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """What is gone. A batch whose outcome is unknown, or that was too late, is left to another run.
        Raises ConfigError before the first one, where no late delete is refused (`s3.probe`); ClockDoubtful."""
        todo = [part for each in candidates for part in split(each, self.MOST_DELETES)]
        if todo and not self._allowed:
            bucket_of(self._root).maintenance.require_collection()
            self._allowed = True
        while todo:
            self._check()
            batch, todo = self._cut(todo)
            deletion = Deletion(self._root, batch, self._began)
            try:
                yield from deletion.carry_out()
            except Expired:
                self._size = max(1, self._size // 2)
            if deletion.took > self.SLOW_S:
                self._size = max(1, self._size // 2)

    def _cut(self, todo: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
        count, names = 0, set[str]()
        for at, each in enumerate(todo):
            count += max(1, len(each.reservations))
            names |= each.names
            if at and (count > self._size or len(names) > self.MOST_FENCES):
                return todo[:at], todo[at:]
        return todo, []


def split(each: Candidate, most: int) -> Iterator[Candidate]:
    """What thousands of repositories have held loses its reservations first, and goes with the last of them."""
    reservations = list(each.reservations.items())
    most = min(most, Batches.MOST_FENCES)
    while len(reservations) > most:
        yield replace(each, reservations=dict(reservations[:most]), blob=None)
        reservations = reservations[most:]
    yield replace(each, reservations=dict(reservations))
