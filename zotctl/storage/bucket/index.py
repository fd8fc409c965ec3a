"""index.json on a bucket: read with revalidation, replaced by compare-and-swap (docs/design/bucket.md#indexjson).

Each state carries a fresh random generation, the first and empty one too, so equal content never has an equal ETag.
A PUT without an answer is looked up. It was done if exactly these bytes are there, or if another writer has built on
them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import NamedTuple

from zotctl.errors import Busy, Changed, LayoutInvalid, ManifestUnknown, NotFound, OutcomeUnknown, RequestRefused
from zotctl.oci.digest import digest_of
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.states import note_put, read_state
from zotctl.storage.cache import Lru
from zotctl.storage.index import Index, empty_index, index_missing, parse_index
from zotctl.storage.locks import ReadTurns
from zotctl.storage.protocol import Change, Outcome, Snapshot, Transaction, apply

GENERATIONS = "dev.zotctl.generations"
EPOCH = "dev.zotctl.epoch"
"""Changes when a blob of the repository was deleted: reservations from before are void."""
KEPT_GENERATIONS = 32
"""Generations that index.json lists, so that a writer finds its own among those of later writers."""
CACHED_INDEX_ROWS = 1_000_000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 0.5
KNOWN_NAMES = 100_000
KNOWN_GLANCES = 1000
GLANCE_LIFETIME_S = 0.005
"""How long a glance counts, or for three times what its request took, if that is longer: another one follows (P2)."""
ABSENT_FOR_S = 10.0
"""How long an index.json that was not there is created without another look."""
COMMIT_TIMEOUT_S = 30.0
CREATED_AT_ONCE = 16
"""Repositories that one process creates side by side, at the most."""

NO_ETAG = "no ETag"
"""The beginning of the generation of an index.json without an ETag, which can only be read."""

Heard = Callable[[str, str], None]


class _Sent(NamedTuple):
    """An attempt to replace an index.json."""

    generation: str
    body: bytes
    outcomes: list[Outcome]


class IndexObjects:
    """The index.json of every repository of a bucket, and the last parse of each. Safe between threads.

    `heard` is told the epoch of a repository whenever its index.json was read.
    """

    def __init__(self, context: BucketContext, heard: Heard) -> None:
        self._context, self._heard = context, heard
        self._cache: Lru[str, Snapshot] = Lru(CACHED_INDEX_ROWS)
        self._turns = ReadTurns(context.clock)
        self._known: Lru[str, bool] = Lru(KNOWN_NAMES)
        """Repositories whose index.json this process has seen."""
        self._glances: Lru[str, tuple[Snapshot, float]] = Lru(KNOWN_GLANCES)
        self._absent: Lru[str, float] = Lru(KNOWN_GLANCES)
        """When there was none. A hint: what was created since is not replaced."""
        self._creating = [threading.Lock() for _ in range(CREATED_AT_ONCE)] if context.threads is not None else []

    def read(self, name: str, *, wait: bool = True) -> Snapshot:
        """The index.json now: one request, without a body if this process knows it. Raises NotFound: there is no
        repository, which takes a second request; LayoutInvalid, and IndexMissing: there is one, without it."""
        try:
            return self.read_any(name)
        except NotFound:
            if self._is_lost(name):
                raise index_missing(name) from None
            raise

    def read_any(self, name: str) -> Snapshot:
        """As `read`, for a caller to whom a repository that has lost its index.json is one that has none."""
        known = self._cache.get(name)
        try:
            got = read_state(self._context.objects, keys.index(name), unless=_etag_of(known))
        except NotFound:
            self._cache.drop(name)
            self._known.drop(name)
            raise
        if got is None:
            assert known is not None
            return known
        found, body = got
        generation = found.etag or f"{NO_ETAG} {digest_of(body)}"
        with self._turns.of(name):
            if (known := self._cache.get(name)) is not None and known.generation == generation:
                return known
            return self._remember(name, parse_index(body, known.index if known else None), generation)

    def _is_lost(self, name: str) -> bool:
        """Is there a layout with content, and no index.json? We put it before all content, and never remove it, so
        that somebody else did (docs/design/bucket.md#a-missing-indexjson)."""
        if self._context.head(keys.layout(name)) is None or next(self._context.own_blobs(name), None) is None:
            return False
        return self._context.head(keys.index(name)) is None  # once more: it may have been made between the two looks

    def _refuse_lost(self, name: str) -> None:
        if self._is_lost(name):
            raise index_missing(name)

    def _remember(self, name: str, index: Index, etag: str) -> Snapshot:
        snapshot = Snapshot(index, etag)
        self._cache.put(name, snapshot, index.weight)
        self._heard(name, index.annotation(EPOCH))
        self._known.put(name, True)
        return snapshot

    def glance(self, name: str) -> None:
        """Read M1 early, beside other requests of a push: a commit that follows at once begins with it. Raises only
        what the commit would raise."""
        began = self._context.clock.elapsed()
        with suppress(NotFound, LayoutInvalid):
            seen, now = self.read_any(name), self._context.clock.elapsed()
            self._glances.put(name, (seen, now + max(3 * (now - began), GLANCE_LIFETIME_S)))

    def _glanced(self, name: str) -> Snapshot | None:
        """The result of a glance; None: there was none, or another process may have committed since."""
        found = self._glances.get(name)
        self._glances.drop(name)
        if found is None or self._cache.get(name) is not found[0] or self._context.clock.elapsed() > found[1]:
            return None
        return found[0]

    def commit(self, name: str, changes: Sequence[Change], tx: Transaction) -> list[Outcome]:
        """M1 and M4: apply all changes that are not refused by one PUT. Raises Busy if other writers win for
        `COMMIT_TIMEOUT_S`."""
        until, pause = self._context.clock.elapsed() + COMMIT_TIMEOUT_S, FIRST_PAUSE_S
        tried, unsure = list[_Sent](), False
        glanced = self._glanced(name)
        while True:
            before = glanced or self._before(name)
            if before is None:
                self._refuse_lost(name)
            if (done := _done(before, tried)) is not None:
                return done.outcomes
            draft = before.index.copy() if before else empty_index()
            outcomes = [apply(change, tx, draft) for change in changes]
            is_sure, glanced = glanced is None, None
            if not is_sure and not draft.dirty:
                continue  # without a swap, no answer may rest on a state that is older than its request
            if not draft.dirty:
                # It may be our own delete, done without an answer, after which there is nothing to delete.
                return [None if unsure and isinstance(outcome, ManifestUnknown) else outcome for outcome in outcomes]
            if before is None:
                self._create(name)
                continue
            tried.append(self._render(draft, outcomes))
            try:
                if self._swap(name, before, draft, tried[-1]):
                    return outcomes
                self._context.conflict()
            except OutcomeUnknown:
                unsure = True
            if self._context.clock.elapsed() >= until:
                raise Busy(f"{name}: other processes change its index.json faster than this one can; try again")
            self._context.clock.sleep(pause * self._context.clock.jitter())
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def known(self, name: str) -> Snapshot | None:
        """As it was read the last time, if that is remembered."""
        return self._cache.get(name)

    def knows(self, name: str) -> bool:
        """Has this process seen its index.json?"""
        return self._known.get(name) is not None

    def foresee(self, name: str) -> None:
        """Look for it beside another request, so that `ensure` need not. Raises only what that would raise."""
        now = self._context.clock.elapsed()
        if self._before(name) is None:
            self._absent.put(name, now)

    def ensure(self, name: str) -> None:
        """Before the first bytes of a repository, make sure that it has an index.json whose epoch this process knows.
        Costs no request afterwards. Of several threads one creates it, and the others wait."""
        if not self.knows(name):
            with self._creating[hash(name) % CREATED_AT_ONCE] if self._creating else nullcontext():
                seen = self._absent.get(name)
                self._absent.drop(name)
                absent = seen is not None and self._context.clock.elapsed() < seen + ABSENT_FOR_S
                while not self.knows(name) and (absent or self._before(name) is None):
                    self._create(name)
                    absent = False

    def _create(self, name: str) -> None:
        """Create an empty repository: a process that was frozen for a day, while the repository came and went, must not
        write what it knew before. index.json comes last, after what it stands for."""
        listed = partial(self._context.objects.put, keys.listed_name(name), b"")
        steps: list[Callable[[], object]] = [listed, partial(self._begin_layout, name)]
        self._context.each(steps)
        draft = empty_index()
        draft.annotate(EPOCH, self._context.clock.token())
        with suppress(OutcomeUnknown):  # it is read in any case
            self._swap(name, None, draft, self._render(draft))

    def _begin_layout(self, name: str) -> None:
        """A repository that has its `oci-layout` already may have lost its index.json. Raises IndexMissing then."""
        try:
            self._context.objects.put(keys.layout(name), LAYOUT_BYTES, absent=True)
        except (Changed, OutcomeUnknown):
            self._refuse_lost(name)

    def _before(self, name: str) -> Snapshot | None:
        try:
            return self.read_any(name)
        except NotFound:
            return None

    def _render(self, draft: Index, outcomes: Sequence[Outcome] = ()) -> _Sent:
        generation, kept = self._context.clock.token(), draft.annotation(GENERATIONS).split()[: KEPT_GENERATIONS - 1]
        draft.annotate(GENERATIONS, " ".join([generation, *kept]))
        return _Sent(generation, draft.render(), list(outcomes))

    def _swap(self, name: str, before: Snapshot | None, draft: Index, sent: _Sent) -> bool:
        """The linearisation point. False: another process was faster. Raises OutcomeUnknown."""
        match = _etag_of(before)
        if before is not None and not match:
            raise RequestRefused(
                f"{self._context.objects.label}/{keys.index(name)}: the object store has no ETag of it, so it can't "
                "be replaced only as it was read; a file that was copied into the store's own directory has none: copy "
                "it once more, by S3"
            )
        try:
            etag = self._context.objects.put(keys.index(name), sent.body, match=match, absent=before is None)
        except Changed:
            return False
        draft.dirty = False
        note_put(self._context.objects, etag, sent.body)
        self._remember(name, draft, etag)
        return True

    def touch(self, name: str, before: Snapshot) -> bool:
        """C4: the same content with another generation and epoch, if nothing has changed since `before`.
        A writer that was about to commit begins again, and sees the intent. Raises OutcomeUnknown after half a minute
        of attempts without an answer; LayoutInvalid."""
        until, tried = self._context.clock.elapsed() + COMMIT_TIMEOUT_S, list[_Sent]()
        while True:
            draft = before.index.copy()
            draft.annotate(EPOCH, self._context.clock.token())
            tried.append(self._render(draft))
            try:
                return self._swap(name, before, draft, tried[-1]) or _done(self._before(name), tried) is not None
            except OutcomeUnknown:
                if self._context.clock.elapsed() >= until:
                    raise
            if _done(self._before(name), tried) is not None:
                return True
            self._context.clock.sleep(FIRST_PAUSE_S * self._context.clock.jitter())


def _etag_of(snapshot: Snapshot | None) -> str:
    generation = str(snapshot.generation) if snapshot else ""
    return "" if generation.startswith(NO_ETAG) else generation


def _done(now: Snapshot | None, tried: Sequence[_Sent]) -> _Sent | None:
    """The attempt that was done, if any: its answer was lost, or a proxy has repeated it and told the second answer.
    It is what is there now, or other writers, who keep our generation behind theirs, have built on it."""
    generations = now.index.annotation(GENERATIONS).split() if now is not None and tried else []
    return next((sent for sent in tried if sent.generation in generations), None)
