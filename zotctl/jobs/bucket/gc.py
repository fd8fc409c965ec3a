"""Collection of one bucket: each repository by itself, then what they share, then what crashes have left behind
(docs/design/bucket.md#c1).

Plain reads, without a lock or a reservation, so that what it finds is a plan: `deletion` looks at everything again.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

from zotctl.errors import ConfigError, NotFound, StorageError, Unsupported, ZotctlError
from zotctl.jobs.ages import JUST_BEGUN_S
from zotctl.jobs.bucket.deletion import Batches, Candidate
from zotctl.jobs.bucket.eligibility import ROUNDING_S, SHARED_BY_ZOT, Ahead, Eligibility, FirstUnreachable, Reached
from zotctl.jobs.bucket.looks import look_at
from zotctl.jobs.bucket.pool import Shared
from zotctl.jobs.gc import GcOptions, Planner, note_purged
from zotctl.jobs.reachable import Reachable
from zotctl.jobs.retention import Drop
from zotctl.jobs.run import Run
from zotctl.jobs.staging import STAGING, discard_staged, kept
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, check_digest, is_stub
from zotctl.storage import keys
from zotctl.storage.bucket.context import Halted
from zotctl.storage.bucket.history import FLUSH_INTERVAL_S
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.digests import Digests
from zotctl.storage.history import Timeline
from zotctl.storage.root import Root

REPOSITORIES_AT_ONCE = 8
"""Repositories that are collected side by side: a small one is some requests that wait for each other."""
SETTLING_S = 2 * FLUSH_INTERVAL_S
"""Seconds after which every server has written down what it knew when a run first saw that a row may go."""
UNREACHABLE = "gc: no manifest reached it for the grace period"
"""Reason in the log."""
CHECKPOINT_EVERY_S = 60.0
"""Seconds after which is written down how far a run has come."""


class Progress:
    """How far a run has come in the order in which it begins repositories. Safe between threads."""

    def __init__(self) -> None:
        self.last = ""
        """All up to this one are done."""
        self._begun = deque[str]()
        self._ended = set[str]()
        self._mutex = threading.Lock()

    def begin(self, name: str) -> None:
        """A repository is begun; call in the order of names."""
        with self._mutex:
            self._begun.append(name)

    def end(self, name: str) -> None:
        """It is done, before or after others that were begun earlier."""
        with self._mutex:
            self._ended.add(name)
            while self._begun and self._begun[0] in self._ended:
                self.last = self._begun.popleft()
                self._ended.discard(self.last)


class BucketCollector:
    """Collects one root in one run. See `jobs.stores.Collector`; `collect` may be called by `parallel` threads."""

    def __init__(self, run: Run, root: Root, options: GcOptions) -> None:
        self._run, self._root, self._options = run, root, options
        self._context, self._dry = bucket_of(root).context, run.dry_run or options.dry_run
        self._known, self._eligibility = Reached(), Eligibility(run, self._context, options.delay)
        self.parallel = 1 if self._context.threads is None else REPOSITORIES_AT_ONCE
        self.halted = self._context.halted
        self._batches = Batches(root, self._check, self._eligibility.now)
        self._deleting = threading.Lock()
        """One batch at a time, however many repositories are looked at: it goes by the clock."""
        self._mutex = threading.Lock()
        self._stubs: bool | None = None
        self._refused = False
        """Its object store is none to delete on. Told once, and the rest of the run goes on."""
        self._progress, self._noted = Progress(), self._context.clock.elapsed()
        self._seen = set[str]()
        """What an earlier run has left of when it has seen what."""

    def begin(self) -> None:
        """Lists which copies are damaged, and what earlier runs have noted."""
        bucket_of(self._root).damaged.refresh(now=True)
        self._seen = {found.key for found in self._context.objects.list(keys.below(keys.FIRST_SEEN))}

    def _check(self) -> None:
        if self.halted.is_set():
            raise Halted
        self._run.check()

    # -- how far it came ------------------------------------------------------------------------

    def order(self, names: Iterator[str]) -> Iterator[str]:
        """Those first that the last run did not come to, because it was cut short."""
        listed, after = list(names), self._checkpoint().split("/")
        for name in sorted(listed, key=lambda name: name.split("/") <= after):
            self._progress.begin(name)
            yield name

    def stopped(self) -> None:
        """Writes down how far the run came, for the next one."""
        self._note(self._progress.last)
        if not self._dry:
            self._eligibility.ahead.save()
            bucket_of(self._root).history.flush()

    def _note(self, after: str) -> None:
        self._noted = self._context.clock.elapsed()
        if self._dry or not self._run.whole:
            return
        with suppress(StorageError):
            if after:
                self._context.objects.put(keys.checkpoint(), json.dumps({"after": after}).encode())
            elif self._checkpoint():
                self._context.objects.delete(keys.checkpoint())

    def _checkpoint(self) -> str:
        with suppress(NotFound, ValueError, KeyError, TypeError):
            got = self._context.objects.get(keys.checkpoint())
            return str(load_json(got[1])["after"]) if got else ""
        return ""

    # -- a repository ---------------------------------------------------------------------------

    def collect(self, name: str) -> None:
        """Deletes what has been unreachable for the grace period, and notes what has become so."""
        self._known.left_alone.add(name)
        try:
            self._collect_one(name)
        except ZotctlError:
            self._progress.end(name)
            raise
        self._progress.end(name)
        with self._mutex:
            is_due = self._context.clock.elapsed() - self._noted >= CHECKPOINT_EVERY_S
            if is_due:
                self._note(self._progress.last)

    def _collect_one(self, name: str) -> None:
        """Whatever ends this before its end: the repository then keeps all that it holds in the pool (I5)."""
        planner = Planner(self._run, self._root, name, self._options, self._eligibility.now)
        seen = FirstUnreachable(self._context, name, there=keys.first_seen(name) in self._seen)
        try:
            plan = planner.plan(partial(self._settle, name, seen))
        except NotFound:
            return  # its index.json is gone, or was not there yet
        if plan is None:
            return
        if not self._dry:
            planner.drop_rows(plan.drops)
            tags = set(plan.rest.index.tags())
            bucket_of(self._root).history.compact(name, plan.rest.reachable, tags, self._eligibility.now)
        self._collect(name, seen, plan.rest)

    def _settle(self, name: str, seen: FirstUnreachable, drops: list[Drop], past: Timeline) -> list[Drop]:
        """What servers have not written into the history yet, because they do that once a minute, is not to be
        decided by what was there before: a tag that was pushed anew, a manifest that has just lost its tag."""
        return [drop for drop in drops if not self._is_pushed_anew(name, drop, past) and self._is_settled(seen, drop)]

    def _is_pushed_anew(self, name: str, drop: Drop, past: Timeline) -> bool:
        known = past.pushed.get(drop.digest) if drop.tag is None else past.entered.get(drop.tag)
        if known is None:
            return False
        found = self._context.head(keys.blob(name, check_digest(drop.digest)))
        if found is None:
            return False
        written = self._eligibility.ahead.modified(found)
        if found.is_ahead and written + self._settling <= self._eligibility.now:
            return False  # since it was seen to be, every server has written down what it knew
        return written > known + self._eligibility.window + ROUNDING_S

    def _is_settled(self, seen: FirstUnreachable, drop: Drop) -> bool:
        row = f"row {drop.digest}"
        return drop.tag is not None or seen.note(row, self._eligibility.now) + self._settling <= self._eligibility.now

    @property
    def _settling(self) -> float:
        return min(self._options.delay, SETTLING_S)

    def _collect(self, name: str, seen: FirstUnreachable, marks: Reachable) -> None:
        own, garbage = Digests(), list[tuple[Digest, Object]]()
        for digest, blob in self._context.own_blobs(name):
            if self._is_whole(digest, blob):
                own.add(digest)
            if digest not in marks.reachable:
                garbage.append((digest, blob))
        self._known.enter(name, marks.reachable, own, shared=self._context.dedupe)
        due = [(digest, found) for digest, found in garbage if self._is_due(name, seen, digest, found)]
        reservations = look_at(self._context, [(keys.reservation(digest, name), digest) for digest, _ in due])
        found = [self._candidate(name, seen, digest, blob, reservations) for digest, blob in due]
        self._take(seen, [one for one in found if one is not None])

    def _is_whole(self, digest: Digest, found: Object) -> bool:
        """Is it good enough for its repository, so that no other copy is needed to heal it?"""
        return not (is_stub(digest, found.size) or bucket_of(self._root).damaged.has(digest, found))

    def _is_due(self, name: str, seen: FirstUnreachable, digest: Digest, blob: Object) -> bool:
        """False: not yet."""
        if not self._eligibility.is_old(name, blob):
            return False
        self._eligibility.tell(name, seen, digest, blob)
        return self._eligibility.is_due(seen, blob.key) and not self._is_shared_by_zot()

    def _candidate(
        self, name: str, seen: FirstUnreachable, digest: Digest, blob: Object, reservations: Mapping[str, Object]
    ) -> Candidate | None:
        """None: it may have been reserved since."""
        reservation = reservations.get(keys.reservation(digest, name))
        found = [blob, reservation] if reservation else [blob]
        old = all(self._eligibility.is_old(name, one) for one in found)
        if old and self._eligibility.is_unasked(seen, blob.key, found):
            return Candidate(digest, name, {reservation.key: reservation} if reservation else {}, blob)
        return None

    def _is_shared_by_zot(self) -> bool:
        """Is there a repository whose content may lie in this one? Looked up when something is to go."""
        with self._mutex:
            if self._stubs is None:
                self._stubs = bucket_of(self._root).stubs.remain()
                if self._stubs:
                    self._run.error(self._root.label, Unsupported(SHARED_BY_ZOT), self._root)
            return self._stubs

    def _take(self, seen: FirstUnreachable, candidates: list[Candidate]) -> None:
        """C2 to C7, after it is written down what was seen."""
        if self._dry:
            return
        if self._options.delay:
            seen.save()
        if not candidates:
            return
        with self._deleting:
            if self._refused:
                return
            purged = dict[str, list[Digest]]()
            try:
                for gone in self._batches.carry_out(candidates):
                    if gone.blob is not None:
                        purged.setdefault(gone.name, []).append(gone.digest)
                        self._run.item(action="purge", repository=gone.name, digest=str(gone.digest),
                                       size_bytes=gone.blob.size)  # fmt: skip
                        self._run.add("purged")
                        self._run.add("purged_bytes", gone.blob.size)
                        self._run.changed("purge", gone.name, UNREACHABLE, before=gone.digest)
            except ConfigError as refusal:
                self._refused = True
                self._run.refuse(self._root, refusal)
            finally:
                for name, digests in purged.items():
                    if name:
                        note_purged(self._root, name, digests)

    # -- what they share ------------------------------------------------------------------------

    def end(self) -> None:
        """Collects what repositories share, which is known when all were looked at, and removes leftovers."""
        self._note("")
        if not self._dry:
            bucket_of(self._root).history.flush()  # of the tags that were dropped
        if self._run.whole and self._root.label not in self._run.unlisted:
            with self._run.guarded(self._root.label, self._root):
                shared = Shared(self._root, self._eligibility, self._known)
                candidates = shared.candidates()
                self._take(shared.seen, candidates)
        if not self._dry:
            with self._run.guarded(self._root.label, self._root):
                sweep(self._run, self._root, self._options.delay, self._known, self._eligibility.ahead)
            self._eligibility.ahead.save()


# -- leftovers ----------------------------------------------------------------------------------


def sweep(run: Run, root: Root, delay: float, known: Reached, ahead: Ahead) -> None:
    """Everything that is older than the grace period and that no client continues."""
    for purged in bucket_of(root).uploads.purge(max(delay, JUST_BEGUN_S), ahead.age):
        run.item(action="purge_upload", upload=purged.id, size_bytes=purged.size)
        run.add("uploads")
        run.add("purged_bytes", purged.size)
        run.check()
    # Of collectors that have died, and of trials of the server. Twice as old as an intent that counts, so that no
    # collector is in the middle of it.
    objects = bucket_of(root).context.objects
    for directory in (keys.INTENTS, keys.TMP):
        for found in objects.list(f"{directory}/"):
            if found.key.startswith(keys.below(STAGING)):
                continue
            if ahead.age(found) > 2 * INTENT_LIFETIME_S and not (found.is_ahead and not delay):
                objects.delete(found.key)
    staged = list(objects.list(keys.below(STAGING)))
    if staged and all(ahead.age(found) >= kept(delay) for found in staged):
        discard_staged(run, root, sum(found.size for found in staged))
    if run.whole:
        _sweep_names(root, delay, known, ahead)


def _sweep_names(root: Root, delay: float, known: Reached, ahead: Ahead) -> None:
    """Of repositories without an index.json and without content. A push that creates one writes its name first; if that
    is removed here, the repository is missing in lists until the next run of a job (`storage.bucket.catalog`)."""
    context = bucket_of(root).context
    for found in context.objects.list(keys.below(keys.NAMES)):
        name = keys.name_listed(found.key)
        if not name or name in known.walked or ahead.age(found) < delay:
            continue
        with suppress(StorageError):
            if context.head(keys.index(name)) is None and next(context.own_blobs(name), None) is None:
                context.objects.delete(found.key)
                context.objects.delete(keys.first_seen(name))
                context.objects.delete(keys.facts(name))
                for event in context.objects.list(f"{keys.history(name)}/"):
                    context.objects.delete(event.key)
