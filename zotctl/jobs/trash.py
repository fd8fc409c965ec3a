"""`gc --restore RUN|DIGEST|NAME@DIGEST` and `gc --list-trash`: out of the trash, deletions by clients too."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import DigestInvalid, NotFound, Unsupported
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Trash, jobs_of
from zotctl.oci.digest import Digest, parse_digest


def restore(run: Run, what: str) -> None:
    """Link back what `what` names; a manifest gets its row again, without the tags that it had.

    Raises NotFound (exit 10) when nothing in the trash answers to it.
    """
    name, _, text = what.rpartition("@")
    digest: Digest | None = None
    with suppress(DigestInvalid):
        digest = parse_digest(text)
    found = [trash.restore(run, what, name, digest) for trash in _all(run)]
    if not any(found):
        raise NotFound(f"nothing in the trash answers to {what}; `zotctl gc --list-trash` shows what lies there")


def list_trash(run: Run) -> None:
    """What lies in the trash, by run and repository."""
    for trash in _all(run):
        trash.list(run)


def _all(run: Run) -> list[Trash]:
    """Raises Unsupported if there is none: what was deleted on a bucket is gone."""
    found = [trash for root in run.store.roots if (trash := jobs_of(root).trash()) is not None]
    if not found:
        label = run.store.roots[0].label
        raise Unsupported(f"{label}: there is no trash on a bucket: what `gc` has deleted there is gone")
    return found
