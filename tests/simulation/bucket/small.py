"""Every request of two actors on a bucket without an answer. A collector here is about a few blobs: little of C1, and
all from C2 to C7."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.simulation import actors as a
from tests.simulation.bucket.plan import Plan
from tests.simulation.exhaustive import all_schedules
from tests.simulation.scheduler import Actor, Failure, Script
from zotctl.jobs.bucket.deletion import Batches, Candidate
from zotctl.jobs.reachable import mark
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.protocol import bucket_of


def each_fault(world: str, actors: list[Actor], fault: str, every: int) -> Iterator[Failure | None]:
    """It befalls every request in turn, and no process is interrupted that need not be."""
    for number in range(1, 60, every):
        plan = Plan(-1, "exhaustive", world, tuple(actors), faults=((number, "", "", fault),))
        yield from all_schedules(plan, 0)


# -- a small collector ----------------------------------------------------------------------------


def batch_deleter(repo: str, *digests: str) -> Script:
    """The blobs are old, unreachable, and were seen to be so long ago, unless they were reserved just now."""

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
