"""`gc --history`: what was pushed, moved, removed, purged and restored; and what is known of one tag or digest.

The rows come from `storage.history`, so that they go back as far as that: at least the last thousand changes of each
repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from zotctl.errors import NotFound
from zotctl.jobs.naming import Named, parse_named
from zotctl.jobs.report import time_of
from zotctl.jobs.run import Run
from zotctl.storage.history import Event, moment_of
from zotctl.storage.root import Root

RESTORED_BY = "gc --restore"
"""By what a restored manifest was pushed, in its event."""
MIRRORED_BY = "import-layout --mirror"
"""By what a row was removed that the source of a mirror has no more."""


@dataclass(frozen=True)
class PastChange:
    """One change of a tag or a manifest. `at`: seconds since 1970. `tag`: None if it is about the manifest itself.

    `before`, `after`: the digests that the tag, or the repository, had; None: none. `by`: the user, the job or the
    policy; "a client" for one without a login.
    """

    at: float
    action: str
    repository: str
    tag: str | None
    before: str | None
    after: str | None
    user: str
    by: str

    def as_fields(self) -> dict[str, Any]:
        """The fields that a report has for it."""
        return {
            "at": time_of(self.at), "action": self.action, "repository": self.repository, "tag": self.tag,
            "before": self.before, "after": self.after, "user": self.user or None, "by": self.by,
        }  # fmt: skip

    @property
    def digest(self) -> str:
        """The digest that it is about."""
        return self.after or self.before or ""


def changes(events: Iterable[Event]) -> Iterator[PastChange]:
    """What these events, which are in order, changed; a line for each tag."""
    for event in events:
        yield from _changes_of(event)


def _changes_of(event: Event) -> Iterator[PastChange]:
    action, digest, name = str(event.get("a")), str(event.get("d", "")), str(event.get("r", ""))
    tags: dict[str, str | None] = event.get("tags") or {}
    user = str(event.get("u") or "")
    by = str(event.get("by") or "") or user or "a client"
    at = moment_of(event)

    def change(what: str, tag: str | None, before: str | None, after: str | None) -> PastChange:
        return PastChange(at, what, name, tag, before, after, user, by)

    if action in ("push", "move"):
        done = "restored" if by == RESTORED_BY else "pushed"
        for tag, before in tags.items():
            yield change("moved" if before not in (None, digest) and done == "pushed" else done, tag, before, digest)
        if not tags:
            yield change(done, None, None, digest)
    elif action == "untag":
        for tag, before in tags.items():
            yield change("removed", tag, before or digest, None)
    elif action in ("delete", "drop"):
        yield change("removed", None, digest, None)
    elif action == "purge":
        yield change("purged", None, digest, None)


def history(run: Run, what: str | None) -> None:
    """Report an item for each change that the history knows, oldest first: of everything, or of what `what` names.

    `what`: NAME, NAME:TAG, NAME@DIGEST or DIGEST. Raises NotFound (exit 10) if nothing is known of it.
    """
    named, told = parse_named(what) if what else Named(), 0
    for root in run.roots:
        with run.guarded(root.label, root):
            root.require()
            for name in sorted(_names(run, root, named)):
                run.check()
                with run.guarded(name, root):
                    for change in _about(list(changes(root.history.events(name))), named):
                        told += 1
                        run.item(**change.as_fields())
    run.walked()
    if not told and what and not run.report.errors:
        raise NotFound(f"the history knows nothing of {what}")


def _names(run: Run, root: Root, named: Named) -> Iterable[str]:
    names = {named.name} if named.name else root.history.names()
    return [name for name in names if run.covers(name)]


def _about(every: list[PastChange], named: Named) -> Iterator[PastChange]:
    """The changes of a tag, with what then became of the manifests that it led to; or of a digest."""
    wanted = {str(named.digest)} if named.digest else set[str]()
    if named.tag:
        mine = [change for change in every if change.tag == named.tag]
        wanted |= {digest for change in mine for digest in (change.before, change.after) if digest}
    for change in every:
        if named.tag and change.tag is not None:
            if change.tag == named.tag:
                yield change
        elif not (named.tag or named.digest) or {change.before, change.after} & wanted:
            yield change


# -- what is known of one thing -------------------------------------------------------------------


def former_tags(every: Iterable[PastChange], digest: str) -> dict[str, PastChange]:
    """The tags that a manifest had and has not any more, each with the change that took it away last."""
    lost: dict[str, PastChange] = {}
    for change in every:
        if change.tag is not None and change.after == digest:
            lost.pop(change.tag, None)
        elif change.tag is not None and change.before == digest:
            lost[change.tag] = change
    return lost


def formerly(every: Iterable[PastChange], tag: str, now: str | None) -> list[str]:
    """The digests that a tag had before the one that it has `now` (None: it has none), latest first."""
    mine = [change for change in every if change.tag == tag]
    digests = [digest for change in reversed(mine) for digest in (change.after, change.before)]
    return [digest for digest in dict.fromkeys(digests) if digest is not None and digest != now]


def last_end(every: Iterable[PastChange], digest: str) -> PastChange | None:
    """The change by which a manifest was removed or purged, if it was not pushed again since."""
    end: PastChange | None = None
    for change in every:
        if change.after == digest:
            end = None
        elif change.tag is None and change.before == digest and (end is None or change.action == "removed"):
            end = change
    return end
