"""C1 for what repositories share: the objects of the pool, and the reservations, which are rights to it.

One pass over two sorted lists. A reservation goes when its repository does not reach the digest any more, in a store
without a pool, too; an object of the pool when no repository reaches it and its last reservation goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import groupby

from zotctl.errors import DigestInvalid, LayoutInvalid, NotFound, StorageError
from zotctl.jobs.bucket.deletion import Candidate
from zotctl.jobs.bucket.eligibility import Eligibility, FirstUnreachable, Reached
from zotctl.jobs.reachable import mark
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.root import Root


class Shared:
    """What may go of one root: objects of the pool, and reservations. Used by one thread, after all repositories."""

    def __init__(self, root: Root, eligibility: Eligibility, known: Reached) -> None:
        self._root, self._context, self._eligibility, self._known = root, bucket_of(root).context, eligibility, known
        self.seen = FirstUnreachable(self._context, keys.SHARED)
        self._unreachable: list[tuple[Digest, Object]] = []
        """To be told when all is known."""

    @cached_property
    def _since(self) -> float:
        """Since when there is the hidden directory: it may have been wiped, and the reservations with it."""
        found = self._context.head(keys.VERSION)
        return found.modified if found else float("inf")

    def candidates(self) -> list[Candidate]:
        """What may go, as far as plain reads tell. Raises StorageError."""
        before = self._known.walked | self._known.left_alone
        found = list(self._look())
        if self._known.walked | self._known.left_alone != before:
            # There are reservations of repositories that are in no list: what they need is known by now, so once more.
            self.seen = FirstUnreachable(self._context, keys.SHARED)
            self._unreachable.clear()
            found = list(self._look())
        for digest, blob in self._unreachable:
            self._eligibility.tell("", self.seen, digest, blob)
        return found

    def _look(self) -> Iterator[Candidate]:
        for digest, blob, reservations in self._everything():
            if (found := self._candidate(digest, blob, reservations)) is not None:
                yield found

    def _everything(self) -> Iterator[tuple[Digest, Object | None, list[Object]]]:
        """Each digest that is in the pool or held, in order."""
        pool = _grouped(self._context.objects.list(keys.below(keys.SHARED)), keys.SHARED, 0)
        named = (
            reservation
            for reservation in self._context.objects.list(keys.below(keys.RESERVATIONS))
            if keys.reserved_for(reservation.key)
        )
        reservations = _grouped(named, keys.RESERVATIONS, 1)
        one, other = next(pool, None), next(reservations, None)
        while one is not None or other is not None:
            text = min(each[0] for each in (one, other) if each is not None)
            blob = one[1][0] if one is not None and one[0] == text else None
            held = other[1] if other is not None and other[0] == text else []
            with suppress(DigestInvalid):
                yield parse_digest(text.replace("/", ":", 1)), blob, held
            one = next(pool, None) if blob is not None else one
            other = next(reservations, None) if held else other

    def _candidate(self, digest: Digest, blob: Object | None, reservations: list[Object]) -> Candidate | None:
        """None: nothing goes, or not yet."""
        going = {reservation.key: reservation for reservation in reservations if self._is_useless(digest, reservation)}
        staying = {reservation.key: reservation for reservation in reservations if reservation.key not in going}
        if blob is not None and self._may_go(digest, blob, reservations, staying):
            self._unreachable.append((digest, blob))
            asked = [blob, *reservations]
            due = self._eligibility.is_due(self.seen, blob.key)
            if due and self._eligibility.is_unasked(self.seen, blob.key, asked):
                return Candidate(digest, "", going, blob, staying)
        due_reservations = {key: reservation for key, reservation in going.items() if self._is_due(reservation)}
        return Candidate(digest, "", due_reservations, None) if due_reservations else None

    def _may_go(self, digest: Digest, blob: Object, reservations: list[Object], staying: dict[str, Object]) -> bool:
        """No repository reaches it but those with a copy of their own; and none that may need it was left alone."""
        if self._known.needs(digest) or any(not self._is_own(digest, reservation) for reservation in staying.values()):
            return False
        if self._known.left_alone and (not reservations or blob.modified < self._since):
            return False  # whose it was is not known any more
        old = [
            self._eligibility.is_old(keys.reserved_for(reservation.key), one)
            for reservation in reservations
            for one in (blob, reservation)
        ]
        return self._eligibility.is_old("", blob) and all(old)

    def _is_own(self, digest: Digest, reservation: Object) -> bool:
        name = keys.reserved_for(reservation.key)
        return name not in self._known.left_alone and self._known.has_own(name, digest)

    def _is_useless(self, digest: Digest, reservation: Object) -> bool:
        """Its repository does not reach the digest. What lies in the repository itself goes with that."""
        name = keys.reserved_for(reservation.key)
        if name not in self._known.walked | self._known.left_alone:
            self._walk(name)
        if name in self._known.left_alone or self._known.reaches(name, digest):
            return False
        return not self._known.has_own(name, digest) and self._eligibility.is_old(name, reservation)

    def _walk(self, name: str) -> None:
        """A repository that no list has: it is gone, or it has lost its `oci-layout`."""
        try:
            marks = mark(self._root, name)
        except NotFound:
            self._known.enter(name, (), set(), shared=True)
        except (LayoutInvalid, StorageError):
            self._known.left_alone.add(name)
        else:
            if marks.faults:
                self._known.left_alone.add(name)
            else:
                self._known.enter(name, marks.reachable, set(), shared=True)

    def _is_due(self, reservation: Object) -> bool:
        """A right is not worth a line in a report, but it has its delay, too."""
        self.seen.note(reservation.key, self._eligibility.now)
        due = self._eligibility.is_due(self.seen, reservation.key)
        return due and self._eligibility.is_unasked(self.seen, reservation.key, [reservation])


def _grouped(found: Iterator[Object], prefix: str, deeper: int) -> Iterator[tuple[str, list[Object]]]:
    """By ALG/ENC."""

    def text(one: Object) -> str:
        return one.key.removeprefix(f"{prefix}/").rsplit("/", deeper)[0]

    return ((key, list(group)) for key, group in groupby(found, text))
