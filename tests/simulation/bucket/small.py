"""Every schedule of two actors on a bucket, but for those that switch more often than so many times, and every request
of theirs without an answer. A collector here is about a few blobs: little of C1, and all from C2 to C7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.simulation import actors as a
from tests.simulation.bucket.actors import Script
from tests.simulation.bucket.ending import look
from tests.simulation.bucket.machine import Late, Process
from tests.simulation.bucket.scheduler import Actor, Failure, Plan, run, tick
from tests.simulation.exhaustive import Guided, all_paths
from zotctl.jobs.bucket.deletion import Batches, Candidate
from zotctl.jobs.reachable import mark
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.protocol import bucket_of

_OWN = (keys.LEASES, keys.VERSION, keys.HISTORY, keys.COLLECTION, keys.CAPABILITIES)


def _is_own(process: Process | Late) -> bool:
    """Nobody else can see or disturb this request."""
    method, key, _ = process.next
    return method == "begin" or key.startswith(_OWN)


class OnBucket(Guided):
    own = staticmethod(_is_own)  # type: ignore[assignment]
    tick = staticmethod(tick)  # type: ignore[assignment]


def all_schedules(
    mode: str, actors: list[Actor], switches: int, jumps: tuple[float, ...] = ()
) -> Iterator[Failure | None]:
    """Depth first. `jumps`: of the clock, in seconds; each counts as a switch."""
    plan = Plan(-1, "exhaustive", mode, tuple(actors))
    for guided in all_paths(OnBucket, switches, jumps):
        yield run(plan, guided, at_the_end=look)


def each_fault(mode: str, actors: list[Actor], fault: str, every: int) -> Iterator[Failure | None]:
    """It befalls every request in turn; nobody is interrupted where he need not be."""
    for number in range(1, 60, every):
        plan = Plan(-1, "exhaustive", mode, tuple(actors), faults=((number, "", "", fault),))
        for guided in all_paths(OnBucket, 0, ()):
            yield run(plan, guided, at_the_end=look)


# -- a small collector ----------------------------------------------------------------------------


def batch_deleter(repo: str, *digests: str) -> Script:
    """The blobs are old, unreachable, and were seen to be so long ago, unless somebody was reserved them just now."""

    def work(client: a.Client, run: Run) -> None:
        root = run.roots[0]
        needed = mark(root, repo).reachable
        found = [
            _announced(bucket_of(root).context, client, repo, digest) for digest in digests if digest not in needed
        ]
        list(Batches(root, run.check).carry_out([one for one in found if one is not None]))

    return lambda client: client.job("gc", "gc", lambda run: work(client, run))


def _announced(context: BucketContext, client: Any, repo: str, digest: str) -> Candidate | None:
    known = parse_digest(digest)
    blob = context.head(keys.shared(known) if context.dedupe else keys.blob(repo, known))
    prefix = keys.reservations(known) if context.dedupe else keys.reservation(known, repo)
    reservations = {found.key: found for found in context.objects.list(prefix)}
    young = [reservation for reservation in reservations.values() if reservation.age < client.machine.delay]
    return Candidate(known, "" if context.dedupe else repo, reservations, blob) if blob and not young else None
