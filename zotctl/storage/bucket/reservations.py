"""Reservations: when a client is told that a blob is there, a manifest may use it for the grace period from then (I6).

The order is the protocol (docs/design/bucket.md#reservations): P1 a reservation that is young enough, P2 no intent,
P3 the blob itself. The caller that reserves writes and then reads intents, a collector writes its intent and then reads
reservations: at least one of them sees the other, without a clock or a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from zotctl.errors import Changed, NotFound, OutcomeUnknown
from zotctl.oci.digest import Digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.intents import DeletionIntents
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.cache import Lru

T = TypeVar("T")

KNOWN_RESERVATIONS = 100_000
KNOWN_EPOCHS = 100_000
KNOWN_LACKING = 10_000
BELIEVED_FOR_S = 30.0
"""How long an object counts as there without another look. A reservation lasts longer; but what another program removed
must be pushed again, and marks of damage are read as often."""


class Since(NamedTuple):
    """The start of a reservation, by `clock.boottime`, and the epoch of its repository then: a deletion since voids
    it."""

    at: float
    epoch: str


class Look(NamedTuple):
    """When the request began that showed or made an object, and the value of `context.lost` then."""

    at: float
    lost: bytes


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation that this process knows: good until it is a window old. It is answered from memory while `looked`
    is believed; after that one look at the object is enough."""

    object: Object
    since: Since
    until: float
    looked: Look


Right = Callable[[str, Digest], bool]
"""May a repository without a reservation read this digest? (It is reachable there.)"""


class Reservations:
    """P1 to P3, and the reservations that this process knows of. Safe between threads; each method that asks the bucket
    may raise what a request raises. `right` is asked where there is no reservation."""

    def __init__(self, context: BucketContext, intents: DeletionIntents, right: Right) -> None:
        self._context, self._intents, self.right = context, intents, right
        self._confirmed: Lru[tuple[str, str, Digest], Reservation] = Lru(KNOWN_RESERVATIONS)
        self._epochs: Lru[str, str] = Lru(KNOWN_EPOCHS)
        self._lacking: Lru[tuple[str, Digest], bool] = Lru(KNOWN_LACKING)
        """Digests without a reservation when a client asked, so that the push that follows writes it without a HEAD. A
        hint only: a reservation that exists by now is not replaced."""

    # -- what this process knows ----------------------------------------------------------------

    def note_epoch(self, name: str, epoch: str) -> None:
        """Something was deleted in this repository when its epoch changed: older reservations are void."""
        if self._epochs.get(name) != epoch:
            self._epochs.put(name, epoch)

    def confirmed(self, name: str, digest: Digest) -> Object | None:
        """The object, if it is reserved and was seen a moment ago. None also if a copy of the digest is damaged."""
        known = self._known(name, digest)
        return known.object if known is not None and self.believes(digest, known.looked) else None

    def begin_look(self, digest: Digest) -> Look:
        """To be called before the request that looks."""
        return Look(self._context.clock.boottime(), self._context.lost.seen(digest))

    def believes(self, digest: Digest, looked: Look) -> bool:
        """Does the object that this look has shown still count as there?"""
        if self._context.clock.boottime() >= looked.at + BELIEVED_FOR_S or digest in self._context.damaged:
            return False
        return self._context.lost.seen(digest) == looked.lost

    def since(self, name: str, digest: Digest) -> Since | None:
        """The start of a reservation that still counts; None: there is none."""
        known = self._known(name, digest)
        return known.since if known else None

    def _known(self, name: str, digest: Digest) -> Reservation | None:
        known = self._confirmed.get((name, self._epoch(name), digest))
        return known if known is not None and self._context.clock.boottime() < known.until else None

    def now(self, name: str) -> Since:
        """The start of a P1 that begins now."""
        return Since(self._context.clock.boottime(), self._epoch(name))

    def confirm(self, name: str, digest: Digest, found: Object, since: Since, looked: Look) -> None:
        """Remember a reservation of which all steps are done. `looked`: that which has shown or made the object."""
        known = Reservation(found, since, since.at + self._context.window, looked)
        self._confirmed.put((name, since.epoch, digest), known)

    def forget(self, name: str, digest: Digest) -> None:
        """Note that it was found missing or damaged: no worker of this server believes an older look."""
        self._context.lost.change(digest)
        self._confirmed.drop((name, self._epoch(name), digest))

    def _epoch(self, name: str) -> str:
        return f"{self._epochs.get(name) or ''} {self._context.deletions.seen().hex()}"

    # -- the protocol ---------------------------------------------------------------------------

    def reserve(self, name: str, digest: Digest) -> Object:
        """P1 to P3 for what a client asked for. NotFound: absent, no right to it, or being collected."""
        # The right can be asked for beside the reservation if it is one request and there are threads.
        ahead = self._context.threads is not None and not (self._context.dedupe or self._context.pooled)
        while (known := self.confirmed(name, digest)) is None:
            since = self.since(name, digest)
            if since is None:
                since = self._ensure_entitled(name, digest, ahead=ahead)
                announced, withdrawn = self._intents.look()
                if announced & set(self._context.places(name, digest)):
                    raise NotFound(f"{digest} is being collected just now")
                if withdrawn:
                    continue
            found = self._check(name, digest, since)
            if self._covers(since):
                return found
            # This process was frozen since P1: its reservation covers nothing any more.
        return known

    def reserve_all(self, name: str, digests: Iterable[Digest], *, fresh: bool = False) -> dict[Digest, Object]:
        """P1 to P3 for everything that a manifest names, with one look at the intents, which it waits out. `fresh`:
        look at each object, whatever was seen before.

        Returns what was reserved; the rest is absent. It holds for a change of an index.json that was read before this
        call, even if this process forgets it by then: the change fails as well.
        """
        reserved = {digest: None if fresh else self.confirmed(name, digest) for digest in digests}
        covered = {digest: self.since(name, digest) for digest, known in reserved.items() if known is None}
        wanted = [digest for digest, since in covered.items() if since is None]
        while True:
            begun = self._context.each([partial(self._try, self._ensure_entitled, name, digest) for digest in wanted])
            there = [(digest, since) for digest, since in zip(wanted, begun, strict=True) if since is not None]
            places = [place for digest, _ in there for place in self._context.places(name, digest)]
            if not (places and self._intents.wait_out(places)):
                break
        there += [(digest, since) for digest, since in covered.items() if since is not None]
        found = self._context.each([partial(self._try, self._check, name, digest, since) for digest, since in there])
        reserved |= dict(zip((digest for digest, _ in there), found, strict=True))
        return {digest: known for digest, known in reserved.items() if known is not None}

    def publish(
        self, name: str, digest: Digest, place: str, make: Callable[[], Object], *, new: bool = False
    ) -> Object:
        """P1 and P2 for bytes that come with a push, and their name. `make` may be called again. Raises Busy.
        `new`: a reservation is unlikely to exist, so it is written without a HEAD."""
        new = new or self._lacking.get((name, digest)) is not None
        self._lacking.drop((name, digest))
        while True:
            since, was_there = self._reserve_bytes(name, digest, new)
            new = False
            if self._intents.wait_out(self._context.places(name, digest)) or not self._covers(since):
                continue
            if (
                was_there
                and place == keys.shared(digest)
                and self._context.head(keys.reservation(digest, name)) is None
            ):
                continue  # it was deleted under an intent that was withdrawn before P2
            looked = self.begin_look(digest)
            found = make()
            if self._covers(since):
                self.confirm(name, digest, found, since, looked)
                return found
            # It took so long that a collector may have begun meanwhile: look whether it is there, and reserve again.
            with suppress(NotFound):
                return self.reserve(name, digest)

    def ensure(self, name: str, digest: Digest) -> Since:
        """P1 of a repository that has the right."""
        return self._reserve_bytes(name, digest, False)[0]

    def _reserve_bytes(self, name: str, digest: Digest, new: bool) -> tuple[Since, bool]:
        """P1, and whether a reservation existed. A collector may be deleting that one: it looked at it before it was
        written again, and may withdraw its intent before this process looks at the intents."""
        now, key = self.now(name), keys.reservation(digest, name)
        if new:
            with suppress(Changed, OutcomeUnknown):
                self._context.objects.put(key, self._context.clock.token().encode(), absent=True)
                return now, False
        found = self._context.head(key)
        if found is not None and found.is_younger(self._context.window):
            return now._replace(at=now.at - max(0.0, found.age)), True
        return self.renew(name, digest), found is not None

    def _ensure_entitled(self, name: str, digest: Digest, *, ahead: bool = False) -> Since:
        """P1 of a repository that may have no right to the digest. `ahead`: ask for the right beside the look at the
        reservation, since a client mostly asks for what it will push. Raises NotFound."""
        now, rights = self.now(name), list[bool]()
        found = self._look(name, digest, rights) if ahead else self._context.head(keys.reservation(digest, name))
        if found is not None and found.is_younger(self._context.window):
            return now._replace(at=now.at - max(0.0, found.age))
        if found is None and not any(rights or [self.right(name, digest)]):
            self._lacking.put((name, digest), True)
            raise NotFound(f"no {digest} in {name}")
        if self._context.read_only:
            return now  # a repository that can't push needs no reservation
        return self.renew(name, digest)

    def _look(self, name: str, digest: Digest, rights: list[bool]) -> Object | None:
        """Look at the reservation, and beside that for the right, which is added to `rights`."""
        found: list[Object | None] = []
        looks: list[Callable[[], None]] = [
            lambda: found.append(self._context.head(keys.reservation(digest, name))),
            lambda: rights.append(self.right(name, digest)),
        ]
        self._context.each(looks)
        return found[0]

    def renew(self, name: str, digest: Digest) -> Since:
        """P1 of a repository that has the right, unconditionally. Always other bytes, so that a collector sees that it
        was written anew whatever the clock says."""
        now = self.now(name)
        self._context.objects.put(keys.reservation(digest, name), self._context.clock.token().encode())
        return now

    def _check(self, name: str, digest: Digest, since: Since) -> Object:
        """P3. If the blob is absent, what was remembered is void. Raises NotFound."""
        looked = self.begin_look(digest)
        for place in self._context.places(name, digest):
            found = self._context.head(place)
            if found is not None and not is_stub(digest, found.size):
                self.confirm(name, digest, found, since, looked)
                return found
        self.forget(name, digest)
        raise NotFound(f"no {digest} in {name}")

    def _covers(self, since: Since) -> bool:
        return self._context.clock.boottime() - since.at < self._context.window

    def _try(self, step: Callable[..., T], *args: Any) -> T | None:
        try:
            return step(*args)
        except NotFound:
            return None
