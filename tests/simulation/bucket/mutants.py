"""Each safeguard of the protocol of buckets (docs/design/bucket.md) switched off, in tests only: what is put in the
place of a method. `limit`: within so many schedules of its scenarios the simulation has to see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from tests.simulation.content import BODIES, MANIFESTS
from tests.simulation.playing import Off
from zotctl.errors import DoneUnanswered, Expired, NotFound, OutcomeUnknown, StorageError
from zotctl.jobs.bucket import deletion as deletion_module
from zotctl.jobs.bucket.deletion import Deletion
from zotctl.jobs.bucket.eligibility import Eligibility
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket import blobs as blobs_module
from zotctl.storage.bucket import index
from zotctl.storage.bucket.blobs import BucketBlobs
from zotctl.storage.bucket.index import GENERATIONS, IndexObjects
from zotctl.storage.bucket.intents import DELETES_SIGNED_FOR_S, INTENT_LIFETIME_S, DeletionIntents
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import Object, PresignedDelete
from zotctl.storage.bucket.protocol import BucketProtocol, BucketTransaction
from zotctl.storage.bucket.reservations import Look, Reservation, Reservations, Since
from zotctl.storage.protocol import Change


def _nothing(*arguments: Any, **more: Any) -> None:
    return None


# -- the collector --------------------------------------------------------------------------------


def _sign_when_deleting(self: Deletion, dated: float) -> None:
    for doomed in self._doomed():
        if doomed:
            self._objects.execute(self._objects.sign_deletes(doomed, DELETES_SIGNED_FOR_S))


def _unspoken(self: DeletionIntents, announced: Iterable[str]) -> str:
    return keys.intent("none")


def _over_whatever_happens(self: Deletion, presigned: PresignedDelete) -> None:
    """As if no answer meant that nothing can happen any more."""
    with suppress(DoneUnanswered):
        self._objects.execute(presigned)


def _intent_after_the_holds(self: Deletion) -> list[Any]:
    """C3 behind C5."""
    dated = self.date()
    self.fence()
    self.recheck()
    intent = self.announce()
    self.execute(dated)
    self.withdraw(intent)
    return self._left


# -- reservations -------------------------------------------------------------------------------------


def _fresh_needs_no_p2(self: Reservations, name: str, digest: Digest) -> Object:
    if (known := self.confirmed(name, digest)) is not None:
        return known
    found = self._context.head(keys.reservation(digest, name))
    if found is not None and found.age < self._context.window:
        return self._check(name, digest, self.now(name)._replace(at=self.now(name).at - found.age))
    return _reserve(self, name, digest)


_reserve, _reservation_all, _publish = Reservations.reserve, Reservations.reserve_all, Reservations.publish


def _all_fresh_need_no_p2(
    self: Reservations, name: str, digests: Iterable[Digest], *, fresh: bool = False
) -> dict[Digest, Object]:
    done = {}
    for digest in digests:
        try:
            done[digest] = _fresh_needs_no_p2(self, name, digest)
        except NotFound:
            done |= _reservation_all(self, name, [digest], fresh=fresh)
    return done


def _publish_without_p2(
    self: Reservations, name: str, digest: Digest, place: str, make: Any, *, new: bool = False
) -> Object:
    found = self._context.head(keys.reservation(digest, name))
    if found is None or found.age >= self._context.window:
        return _publish(self, name, digest, place, make, new=new)
    looked, done = self.begin_look(digest), make()
    self.confirm(name, digest, done, self.now(name)._replace(at=self.now(name).at - found.age), looked)
    return done


def _unseen(self: Reservations, name: str, digest: Digest, since: Since) -> Object:
    """P3 from memory."""
    size = len(BODIES[digest]) if digest in BODIES else len(MANIFESTS[digest].body)
    found = Object(self._context.places(name, digest)[0], size, "", 0.0, 0.0)
    self.confirm(name, digest, found, since, self.begin_look(digest))
    return found


_renew = Reservations.renew


def _write_once(self: Reservations, name: str, digest: Digest) -> Since:
    """A reservation is left as it is, however old."""
    if self._context.head(keys.reservation(digest, name)) is None:
        return _renew(self, name, digest)
    return self.now(name)


def _for_ever(self: Reservations, name: str, digest: Digest, found: Object, since: Since, looked: Look) -> None:
    for_ever = Reservation(found, since, float("inf"), looked._replace(at=float("inf")))
    self._confirmed.put((name, since.epoch, digest), for_ever)


def _whatever_the_time(self: Reservations, since: Since) -> bool:
    return True


_reserve_bytes = Reservations._reserve_bytes


def _as_if_new(self: Reservations, name: str, digest: Digest, new: bool) -> tuple[Since, bool]:
    """No look after P2 whether the reservation is still there."""
    return _reserve_bytes(self, name, digest, new)[0], False


_wait_out = DeletionIntents.wait_out


def _wait_and_forget(self: DeletionIntents, wanted: Iterable[str]) -> bool:
    _wait_out(self, wanted)
    return False


def _publish_manifest_blindly(self: BucketBlobs, name: str, digest: Digest, body: bytes) -> None:
    if self._reservations.confirmed(name, digest) is None:
        place, since, looked = (
            keys.blob(name, digest),
            self._reservations.now(name),
            self._reservations.begin_look(digest),
        )
        etag = self._context.objects.put(place, body)
        self._reservations.confirm(name, digest, Object(place, len(body), etag, 0.0, 0.0), since, looked)


# -- index.json -----------------------------------------------------------------------------------

_swap = IndexObjects._swap


def _any_is_ours(now: Any, tried: Sequence[Any]) -> Any:
    """As if all commits had one generation."""
    return tried[0] if tried and now is not None and now.index.annotation(GENERATIONS) else None


def _unchanged(self: IndexObjects, name: str, before: Any) -> bool:
    """C4 that leaves the same bytes, and so the same ETag."""
    try:
        found = self._context.objects.get(keys.index(name))
        assert found is not None
        self._context.objects.put(keys.index(name), found[1], match=str(before.generation))
    except StorageError:
        return False
    return True


def _unknown_is_failure(self: IndexObjects, name: str, before: Any, draft: Any, sent: Any) -> bool:
    try:
        return _swap(self, name, before, draft, sent)
    except OutcomeUnknown:
        return False


def _none_is_ours(now: Any, tried: Sequence[Any]) -> Any:
    return None


def _unknown_is_success(self: IndexObjects, name: str, before: Any, draft: Any, sent: Any) -> bool:
    try:
        return _swap(self, name, before, draft, sent)
    except OutcomeUnknown:
        return True


# -- deletes by clients ---------------------------------------------------------------------------


def _delete_unspoken(self: BucketBlobs, name: str, digest: Digest, void: Callable[[], None]) -> None:
    """BucketBlobs.delete without an intent."""
    own = keys.blob(name, digest)
    if self._context.head(own) is None and not self._may(name, digest):
        raise NotFound(f"no {digest} in {name}")
    presigned = self._context.objects.sign_deletes([keys.reservation(digest, name), own], DELETES_SIGNED_FOR_S)
    try:
        void()
        self._context.objects.execute(presigned)
    except Expired as error:
        raise OutcomeUnknown("too late") from error
    finally:
        self._context.deletions.change()


def _only_check(self: BucketProtocol, name: str, check: Change) -> None:
    check(BucketTransaction(self, name), self.indexes.read(name).index)


def _execute_and_forget(self: Retrying, presigned: PresignedDelete) -> None:
    """An attempt without an answer is over when another one has had an answer."""
    self._writes.make(partial(self.inner.execute, presigned))


OFF: dict[str, Off] = {
    "C2: deletes that expire": Off([(deletion_module, "DELETES_SIGNED_FOR_S", 10**9)], ("bucket stopped gc",), 3000),
    "C2: signed before the intent": Off(
        [(Deletion, "execute", _sign_when_deleting)],
        ("bucket stopped gc",),
        3000,
    ),
    "C3: an intent": Off(
        [(Deletion, "announce", lambda self: keys.intent("none"))],
        ("bucket push gc gc", "bucket wait", "bucket upload head gc"),
        3000,
    ),
    "C3 before C5": Off(
        [(Deletion, "carry_out", _intent_after_the_holds)],
        ("bucket push gc gc", "bucket wait", "bucket upload head gc"),
        3000,
    ),
    "C4: the fence": Off([(Deletion, "fence", _nothing)], ("bucket sleeper",), 3000),
    "C5: reservations are looked at again": Off(
        [(Deletion, "recheck", _nothing)], ("bucket push gc gc", "bucket wait"), 3000
    ),
    "P2: an intent counts when the clock is put back": Off(
        [(DeletionIntents, "_counts", lambda self, intent: intent.is_younger(INTENT_LIFETIME_S))],
        ("bucket clock back",),
        1000,
    ),
    "C7: not while an outcome is unknown": Off(
        [(Deletion, "_delete", _over_whatever_happens)],
        ("bucket late delete",),
        3000,
    ),
    "first seen unreachable": Off(
        [(Eligibility, "is_due", lambda self, seen, key: True), (Eligibility, "is_unasked", lambda *arguments: True)],
        ("bucket remembered", "bucket pull", "bucket wait"),
        3000,
    ),
    "first seen, but unasked": Off(
        [(Eligibility, "is_due", lambda self, seen, key: True)],
        ("bucket remembered", "bucket pull", "bucket wait"),
        3000,
    ),
    "the window in the collector's delay": Off([(Eligibility, "window", 0.0)], ("bucket remembered",), 3000),
    "unasked since first seen": Off(
        [(Eligibility, "is_unasked", lambda *arguments: True)], ("bucket remembered", "bucket wait"), 3000
    ),
    "P1: reservations are written again": Off(
        [(Reservations, "renew", _write_once)], ("bucket push gc gc", "bucket wait"), 3000
    ),
    "P2 for a fresh reservation, too": Off(
        [
            (Reservations, "reserve", _fresh_needs_no_p2),
            (Reservations, "reserve_all", _all_fresh_need_no_p2),
            (Reservations, "publish", _publish_without_p2),
        ],
        ("bucket wait", "bucket upload head gc"),
        3000,
    ),
    "P3": Off([(Reservations, "_check", _unseen)], ("bucket push gc gc", "bucket wait"), 3000),
    "P1 again after an intent": Off(
        [(DeletionIntents, "wait_out", _wait_and_forget), (Reservations, "_reserve_bytes", _as_if_new)],
        ("bucket push gc gc", "bucket upload head gc", "bucket mount gc"),
        3000,
    ),
    "P1 again when it took too long": Off([(Reservations, "_covers", _whatever_the_time)], ("bucket slow head",), 3000),
    "confirmed no longer than a window": Off([(Reservations, "confirm", _for_ever)], ("bucket remembered",), 3000),
    "epoch": Off([(Reservations, "note_epoch", _nothing)], ("bucket delete blob", "bucket sleeper"), 3000),
    "M3: intents are looked at": Off(
        [(BucketBlobs, "publish_manifest", _publish_manifest_blindly)], ("bucket manifest again",), 3000
    ),
    "generation of a commit": Off([(index, "_done", _any_is_ours)], ("bucket unanswered",), 3000),
    "another ETag after C4": Off([(IndexObjects, "touch", _unchanged)], ("bucket sleeper",), 3000),
    "no answer is no failure": Off(
        [(IndexObjects, "_swap", _unknown_is_failure), (index, "_done", _none_is_ours)], ("bucket unanswered",), 3000
    ),
    "no answer is no success": Off([(IndexObjects, "_swap", _unknown_is_success)], ("bucket unanswered",), 3000),
    "a delete without an answer is never over": Off(
        [(Retrying, "execute", _execute_and_forget)], ("bucket late delete",), 3000
    ),
    "DELETE: an intent": Off([(BucketBlobs, "delete", _delete_unspoken)], ("bucket delete blob",), 3000),
    "DELETE: the fence": Off([(BucketProtocol, "_void_reservations", _only_check)], ("bucket delete blob",), 3000),
    "DELETE: deletes that expire": Off([(blobs_module, "DELETES_SIGNED_FOR_S", 10**9)], ("bucket stopped gc",), 3000),
}
"""By the steps of docs/design/bucket.md."""
