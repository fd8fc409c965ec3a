"""Deduplication of a store that is there already, written by any tool: each root by the steps of its kind."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of
from zotctl.storage.root import Root


@dataclass(frozen=True)
class DedupeOptions:
    """`undo`: give each repository its own copy again. `workers`: threads; one for each core by default."""

    undo: bool = False
    workers: int | None = None


def dedupe(run: Run, options: DedupeOptions | None = None) -> None:
    """Store each content once for each root. Raises HeldElsewhere while another run does, TimeUp; for `undo`
    NoSpace before anything is copied, where there is not the room for all."""
    options = options or DedupeOptions()
    run.refuse_read_only()
    with run.leases(), ExitStack() as stack:
        kinds = _by_kind(run)
        work = {
            kind: stack.enter_context(jobs_of(roots[0]).deduplicating(run, roots, options))
            for kind, roots in kinds.items()
        }
        for root, name in run.repositories():
            run.check()
            work[root.protocol.kind](root, name)


def _by_kind(run: Run) -> dict[str, list[Root]]:
    """Buckets first: they are done when the walk begins."""
    kinds: dict[str, list[Root]] = {}
    for root in sorted(run.roots, key=lambda root: root.protocol.kind):
        kinds.setdefault(root.protocol.kind, []).append(root)
    return kinds
