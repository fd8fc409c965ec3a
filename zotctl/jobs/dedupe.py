"""Deduplication of an existing store, whichever tool wrote it: each root by the steps of its kind of store."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of
from zotctl.storage.root import Root


@dataclass(frozen=True)
class DedupeOptions:
    """Options of `dedupe`. `undo`: give each repository its own copy again. `workers`: threads; by default one per
    core. `measure`: add up the sizes first, for a total of the progress."""

    undo: bool = False
    workers: int | None = None
    measure: bool = False


def dedupe(run: Run, options: DedupeOptions | None = None) -> None:
    """Store each content once per root, or with `undo` once per repository.

    Raises HeldElsewhere while another run holds the lease, TimeUp, Stopped; with `undo` NoSpace before anything is
    copied, if there is no room for all copies. An error in one repository is reported, and the rest goes on.
    """
    options = options or DedupeOptions()
    run.refuse_read_only()
    with run.leases(), ExitStack() as stack:
        kinds: dict[str, list[Root]] = {}
        for root in sorted(run.roots, key=lambda root: not jobs_of(root).dedupes_on_entry):
            kinds.setdefault(root.protocol.kind, []).append(root)
        work = {
            kind: stack.enter_context(jobs_of(roots[0]).deduplicating(run, roots, options))
            for kind, roots in kinds.items()
        }
        for root, name in run.repositories():
            run.check()
            run.begins(name)
            work[root.protocol.kind](root, name)
