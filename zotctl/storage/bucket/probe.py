"""What an object store can be relied on for, tried before the first write (docs/design/bucket.md).

A server that doesn't know a condition answers 200, so each try must be refused once to be believed. Ignored headers
and gross races are found; that a server is atomic can't be proved by trying.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier
from typing import NamedTuple, TypeVar

from zotctl.errors import (
    Changed,
    ConfigError,
    DoneUnanswered,
    Expired,
    IoFailed,
    NotFound,
    OutcomeUnknown,
    RequestRefused,
    Unavailable,
)
from zotctl.oci.codec import load_json
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import MD5, SHA256, UNCHECKED, Object, Objects
from zotctl.storage.clock import Clock

T = TypeVar("T")

log = logging.getLogger("zotctl.storage")

PROBE_KEPT_S = 24 * 3600
"""Seconds for which a result is believed, by the server's clock."""
RACE_ROUNDS, RACING_WRITERS = 5, 8
READ_ROUNDS, RACING_READERS = 8, 4
SHOWN_ROUNDS = 4
MIXED_READS = 2
"""How many of these reads may mix two states: versitygw does so with one in thousands, others with every third."""
TRIAL_SIGNED_FOR_S = 1
STEP_TRIES = 5
"""How often a step is tried whose outcome is unknown."""
CLOCK_WAIT_S = 60.0
"""Seconds to wait for a server's clock. One that stands still lets no signature expire."""
CUT_PUT_BYTES = 128 << 10
"""The size of a put that is cut: some servers read a smaller one whole before they look at it."""
HALF_APPEARS_S = 0.3
"""Seconds that half an object may take to appear."""
CHECKSUM_HEADERS = {SHA256: "x-amz-checksum-sha256", MD5: "Content-MD5"}


class Abilities(NamedTuple):
    """What the trials have shown; kept as JSON in `.zotctl/capabilities`.

    `reads_shown`, `lists_shown`: each read, and each list, shows the last write that was answered before it.
    `checksum`: that which is verified at each put, or `UNCHECKED`. `keeps_halves`: with it, of a put whose connection
    ended early. `signed_deletes`: they are carried out, and refused when they are late; None: not tried yet.
    """

    creates_once: bool
    swaps: bool
    one_winner: bool
    reads_shown: bool
    lists_shown: bool
    checksum: str
    keeps_halves: bool
    signed_deletes: bool | None = None

    @property
    def missing(self) -> list[str]:
        """The abilities that servers that share a bucket need and the store lacks, for messages."""
        wanted = {
            "PUT If-None-Match: * (creating an object once)": self.creates_once,
            "PUT If-Match (replacing an object only as it was read)": self.swaps,
            "one winner of several conditional PUTs at once (and reads of one state)": self.one_winner,
            "lists that show each write at once": self.lists_shown,
        }
        return [name for name, there in wanted.items() if not there]


def require_whole(label: str, abilities: Abilities) -> None:
    """Raises ConfigError: half an index.json, or an old one, would take the place of a whole one, even with one writer.
    Warns of a store that verifies nothing."""
    if not abilities.reads_shown:
        raise ConfigError(
            f"{label}: the object store, or a cache before it, answers reads with what was there before a write; an "
            "index.json that is out of date would lose tags. Use another object store, or take the cache away"
        )
    unchecked = f"{label}: the object store verifies neither {' nor '.join(CHECKSUM_HEADERS.values())}"
    if abilities.keeps_halves:
        reason = "it keeps half of an object when a connection ends in the middle of a put"
        raise ConfigError(
            f"{f'{label}: {reason}' if abilities.checksum else f'{unchecked}, and {reason}'}; half an index.json would "
            "lose all images of its repository. Use another object store, or put a proxy before it that passes on "
            "requests only when they have arrived whole"
        )
    if not abilities.checksum:
        log.warning(f"{unchecked}: what is damaged on its way there is found by scrub only")


def require_shared(label: str, abilities: Abilities, *, single_writer: bool) -> None:
    """Raises ConfigError: several servers on this bucket would lose each other's tags."""
    if abilities.missing and not single_writer:
        raise ConfigError(
            f"{label}: the object store lacks {', '.join(abilities.missing)}; without it, servers that share the "
            "bucket lose tags. If exactly one zotctl process ever writes to it, say so: single_writer = true, or "
            "ZOTCTL_SINGLE_WRITER=true"
        )


def require_collection(label: str, abilities: Abilities, *, single_writer: bool) -> None:
    """Raises ConfigError: nothing may be deleted beside a writer there."""
    require_shared(label, abilities, single_writer=single_writer)
    if abilities.signed_deletes is False and not single_writer:
        raise ConfigError(
            f"{label}: nothing was deleted, for the object store lacks signed deletes (which it carries out in time, "
            "and refuses when they were signed too long ago); without them, gc or dedupe beside other servers could "
            "delete what is pushed meanwhile. Stop all servers and jobs on this bucket and run it as the only writer: "
            "single_writer = true, or ZOTCTL_SINGLE_WRITER=true"
        )


def known(objects: Objects, server: str) -> Abilities | None:
    """What was found in the last 24 hours, of this server, as far as nothing is missing."""
    try:
        got = objects.get(keys.CAPABILITIES)
        assert got is not None
        said = load_json(got[1])
        fresh = got[0].is_younger(PROBE_KEPT_S) and said.pop("server") == server
        return Abilities(**said) if fresh else None
    except (NotFound, ValueError, TypeError, KeyError, AttributeError):
        return None


def probe(objects: Objects, clock: Clock, server: str = "") -> Abilities:
    """From the last 24 hours, or tried now: some 200 small requests. What is missing is tried again each time.
    From now on, `objects` are put with the checksum that was found."""
    found = known(objects, server)
    if found is None:
        found = Probe(objects, clock).abilities()
        _keep(objects, server, found)
    objects.adapt(checksum=found.checksum, conditions=found.creates_once and found.swaps)
    return found


def probe_deletes(objects: Objects, clock: Clock, server: str = "") -> Abilities:
    """With `signed_deletes`, which takes seconds: before the first collection."""
    found = probe(objects, clock, server)
    if found.signed_deletes is None:
        found = found._replace(signed_deletes=Probe(objects, clock).signed_deletes())
        _keep(objects, server, found)
    return found


def _keep(objects: Objects, server: str, found: Abilities) -> None:
    if not (found.missing or not found.reads_shown or found.keeps_halves or found.signed_deletes is False):
        objects.put(keys.CAPABILITIES, json.dumps({"server": server, **found._asdict()}).encode())


class Probe:
    """The trials of one object store. Each step works on objects of its own, and removes them."""

    def __init__(self, objects: Objects, clock: Clock) -> None:
        self._objects, self._clock = objects, clock

    def abilities(self) -> Abilities:
        """All but signed deletes: some 200 small requests. The checksum first, for a store that refuses one takes
        nothing with it."""
        checksum = next((each for each in CHECKSUM_HEADERS if self._settled(partial(self._verifies, each))), UNCHECKED)
        self._objects.adapt(checksum=checksum, conditions=True)
        cut = {keys.tmp(f"probe-{self._clock.token()}"): conditional for conditional in (False, True)}
        try:
            etags = {key: self._cut(checksum, conditional, key) for key, conditional in cut.items()}
            until = self._clock.elapsed() + HALF_APPEARS_S
            creates_once, swaps = self._settled(self._creates_once), self._settled(self._swaps)
            one_winner = creates_once and swaps and self._one_winner()
            reads_shown, lists_shown = self._shows_writes()
            halves = [self._is_replaced(key, etag, until) for key, etag in etags.items()]
        finally:
            for key in cut:
                self._objects.delete(key)
        return Abilities(creates_once, swaps, one_winner, reads_shown, lists_shown, checksum, any(halves))

    def _settled(self, step: Callable[[str], T]) -> T:
        """With another key, as long as an answer got lost, or what is new was there: a proxy may repeat a write."""
        for _ in range(STEP_TRIES - 1):
            try:
                return self._cleaned(step)
            except (OutcomeUnknown, Changed):
                continue
        return self._cleaned(step)

    def _cleaned(self, step: Callable[[str], T]) -> T:
        key = keys.tmp(f"probe-{self._clock.token()}")
        try:
            return step(key)
        finally:
            self._objects.delete(key)

    def _creates_once(self, key: str) -> bool:
        with suppress(RequestRefused):
            self._objects.put(key, b"one", absent=True)
            return self._is_refused(key, b"two", absent=True)
        return False

    def _swaps(self, key: str) -> bool:
        """A stale ETag is refused, and one of an object that is no more."""
        first = self._objects.put(key, b"one")
        with suppress(RequestRefused):
            second = self._objects.put(key, b"two", match=first)
            if not self._is_refused(key, b"three", match=first):
                return False
            self._objects.delete(key)
            return self._is_refused(key, b"four", match=second)
        return False

    def _is_refused(self, key: str, body: bytes, *, match: str = "", absent: bool = False) -> bool:
        try:
            self._objects.put(key, body, match=match, absent=absent)
        except Changed:
            return True
        return False

    def _one_winner(self) -> bool:
        with ThreadPoolExecutor(RACING_WRITERS) as pool:
            return all(self._settled(partial(self._race, pool)) for _ in range(RACE_ROUNDS)) and self._settled(
                partial(self._reads_one_state, pool)
            )

    def _race(self, pool: ThreadPoolExecutor, key: str) -> bool:
        """Creation, and then a swap, by eight at once."""
        if self._winners(pool, lambda number: self._objects.put(key, f"{number}".encode(), absent=True)) > 1:
            return False
        try:
            etag = self._objects.head(key).etag
        except NotFound:
            raise OutcomeUnknown(f"{key}: none of the writers won, and some outcomes are unknown") from None
        return self._winners(pool, lambda number: self._objects.put(key, f"-{number}".encode(), match=etag)) <= 1

    def _reads_one_state(self, pool: ThreadPoolExecutor, key: str) -> bool:
        """Have reads beside a writer the bytes and the ETag of one write? Else a swap by that ETag replaces what was
        never read. Only gross faults are found."""
        written: dict[str, bytes] = {}
        reads: list[Future[tuple[Object, bytes] | None]] = []
        for number in range(READ_ROUNDS):
            body = f"{number}".encode()
            written[self._objects.put(key, body)] = body
            reads += [pool.submit(self._read, key) for _ in range(RACING_READERS)]
        found = [got for read in reads if (got := read.result()) is not None]
        return sum(written.get(one.etag, body) != body for one, body in found) <= MIXED_READS

    def _read(self, key: str) -> tuple[Object, bytes] | None:
        with suppress(NotFound, Unavailable):
            return self._objects.get(key)
        return None

    def _shows_writes(self) -> tuple[bool, bool]:
        """Do reads and lists show each write at once? Not where copies follow later, or a cache answers."""
        with ThreadPoolExecutor(SHOWN_ROUNDS) as pool:
            rounds = list(pool.map(lambda _: self._settled(self._is_shown), range(SHOWN_ROUNDS)))
        return all(read for read, _ in rounds), all(listed for _, listed in rounds)

    def _is_shown(self, key: str) -> tuple[bool, bool]:
        """It is asked for before it is there, for some remember a "no"."""
        reads, lists = [self._body(key) is None], [self._listed(key) is None]
        for body in (b"first", b"second one", None):
            self._objects.delete(key) if body is None else self._objects.put(key, body)
            reads.append(self._body(key) == body)
            lists.append(self._listed(key) == (None if body is None else len(body)))
        return all(reads), all(lists)

    def _body(self, key: str) -> bytes | None:
        with suppress(NotFound):
            got = self._objects.get(key)
            return got[1] if got else None
        return None

    def _listed(self, key: str) -> int | None:
        """Its size, as a list tells it."""
        return next((found.size for found in self._objects.list(key) if found.key == key), None)

    def _winners(self, pool: ThreadPoolExecutor, put: Callable[[int], str]) -> int:
        gate = Barrier(RACING_WRITERS)

        def run(number: int) -> bool:
            gate.wait()
            try:
                put(number)
            except (Changed, OutcomeUnknown):
                return False
            return True

        return sum(pool.map(run, range(RACING_WRITERS)))

    def _verifies(self, checksum: str, key: str) -> bool:
        """Bytes with the right one are taken, and with a wrong one refused."""
        try:
            self._objects.trial(key, b"right", checksum=checksum)
        except (RequestRefused, IoFailed):
            return False
        try:
            self._objects.trial(key, b"right", checksum=checksum, wrong=True)
        except (RequestRefused, IoFailed):
            return True
        return False

    def _cut(self, checksum: str, conditional: bool, key: str) -> str:
        """Its ETag before a put whose connection ends in the middle."""
        etag = self._objects.put(key, b"whole")
        with suppress(OutcomeUnknown, RequestRefused):
            self._objects.trial(
                key, bytes(CUT_PUT_BYTES), checksum=checksum, cut=True, match=etag if conditional else ""
            )
        return etag

    def _is_replaced(self, key: str, etag: str, until: float) -> bool:
        while self._objects.head(key).etag == etag:
            if self._clock.elapsed() >= until:
                return False
            self._clock.sleep(HALF_APPEARS_S / 10)
        return True

    def signed_deletes(self) -> bool:
        """They are carried out in time, and never later, one key or several."""
        return self._settled(self._signed_deletes)

    def _signed_deletes(self, key: str) -> bool:
        several = [f"{key}-{number}" for number in range(3)]
        try:
            return self._carries_out([key], several)
        finally:
            for each in several:
                self._objects.delete(each)

    def _carries_out(self, one: list[str], several: list[str]) -> bool:
        for key in one + several:
            self._objects.put(key, b"x")
        for batch in (one, several):
            with suppress(DoneUnanswered):
                self._objects.execute(self._objects.sign_deletes(batch, 60))
            if self._there(batch):
                return False
            for key in batch:
                self._objects.put(key, b"x")
        return self._refuses_late(one, several)

    def _refuses_late(self, one: list[str], several: list[str]) -> bool:
        presigned_deletes = [self._objects.sign_deletes(batch, TRIAL_SIGNED_FOR_S) for batch in (one, several)]
        self._wait(one[0], TRIAL_SIGNED_FOR_S + 2)
        for presigned in presigned_deletes:
            try:
                self._objects.execute(presigned)
                return False
            except DoneUnanswered:
                return False
            except Expired:
                continue
        return self._there(one + several)

    def _wait(self, key: str, seconds: int) -> None:
        """By the server's clock, which an object's age tells."""
        late, until = self._objects.head(key).age + seconds, self._clock.elapsed() + CLOCK_WAIT_S
        while self._objects.head(key).age < late and self._clock.elapsed() < until:
            self._clock.sleep(0.5)

    def _there(self, places: list[str]) -> bool:
        """Is any of these keys there?"""
        for key in places:
            try:
                self._objects.head(key)
            except NotFound:
                continue
            return True
        return False
