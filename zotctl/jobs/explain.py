"""`gc --explain`: one verdict for each digest that is named: the chain of references that keeps it, or the rule by
which and the times after which it goes, or where it lies in the trash, or what has become of it.

What the rules will do is foretold by `jobs.forecast`; when the bytes go then, each kind of store knows
(`StoreJobs.explain`). Every time is one before which nothing happens; a run from then on does it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from zotctl.errors import ClockDoubtful, NotFound, StorageError
from zotctl.jobs.clock_check import require_clock
from zotctl.jobs.forecast import Forecast
from zotctl.jobs.gc import GcOptions, Settings
from zotctl.jobs.naming import Named, parse_named
from zotctl.jobs.past import PastChange, changes, former_tags, formerly, last_end
from zotctl.jobs.reachable import Reachable, mark
from zotctl.jobs.report import time_of
from zotctl.jobs.retention import why_kept
from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of
from zotctl.oci.digest import Digest, parse_digest
from zotctl.storage.root import Root

AHEAD = "; a push is dated ahead of the clock, which may keep it for as much longer"
DRY = "retention.dry_run is set, so nothing is deleted in this root"


def explain(run: Run, what: str, settings: Settings) -> None:
    """Report an item for each repository that has, or had, what `what` names: NAME, NAME:TAG, NAME@DIGEST or DIGEST.
    Raises NotFound (exit 10) if none has."""
    named, found = parse_named(what), False
    for root in run.roots:
        options, told = settings(root) or GcOptions(), False
        for name in _names(run, root, named):
            run.check()
            with run.guarded(name, root):
                for item in _Explanation(run, root, name, options).of(named):
                    found = told = True
                    run.item(**{"repository": name, **item})
        if told and options.compares_clock:
            _doubt_clock(run, root, options)
    run.walked()
    if not found and not run.report.errors:  # else it may be where this run could not look
        raise NotFound(f"nothing here is called {what}: neither in a repository nor in the trash or the history")


def _names(run: Run, root: Root, named: Named) -> Iterator[str]:
    """The repositories of the run, and one that is gone, if it is named."""
    met = False
    for name in run.repositories_of(root):
        if named.name in (None, name):
            met = True
            yield name
    if named.name and not met and root.label not in run.away | run.unlisted and run.covers(named.name):
        yield named.name


def _doubt_clock(run: Run, root: Root, options: GcOptions) -> None:
    """By a clock that is not believed nothing goes, whatever was said."""
    try:
        require_clock(root, run.clock, trusted=options.trusts_clock, dry_run=True)
    except ClockDoubtful as error:
        run.refuse(root, error)
    except StorageError:
        pass  # each repository has said so


class _Explanation:
    """Of one repository."""

    def __init__(self, run: Run, root: Root, name: str, options: GcOptions) -> None:
        self._run, self._root, self._name, self._options = run, root, name, options
        self._jobs, self._now = jobs_of(root), root.protocol.now()
        self._every = list(changes(root.history.events(name)))

    def of(self, named: Named) -> Iterator[dict[str, Any]]:
        """The items."""
        try:
            marks = mark(self._root, self._name)
        except NotFound:
            yield from self._in_no_repository(named)
            return
        if marks.faults:
            reasons = "; ".join(f.reason if f.digest in f.reason else f"{f.digest}: {f.reason}" for f in marks.faults)
            yield {"verdict": "kept", "why": f"nothing is collected in this repository: {reasons}", "chain": []}
            return
        past = self._root.history.timeline(self._name)
        forecast = Forecast(self._name, marks, past, self._options.rules, self._now)
        for digest, lost in self._wanted(named, marks):
            item = self._digest(digest, marks, forecast, lost)
            if item is not None:
                yield item

    def _wanted(self, named: Named, marks: Reachable) -> Iterator[tuple[Digest, str | None]]:
        """The digests that are named, each with the tag by which it was, if it has that no more."""
        if named.digest is not None:
            yield named.digest, None
        elif named.tag is not None:
            row = marks.index.find(named.tag)
            if row is not None and row.digest is not None:
                yield row.digest, None
            else:
                yield from self._formerly(named.tag)
        else:
            for digest in dict.fromkeys(row.digest for row in marks.index.rows() if row.digest):
                yield digest, None

    def _formerly(self, tag: str) -> Iterator[tuple[Digest, str | None]]:
        for text in formerly(self._every, tag, None)[:1]:
            yield parse_digest(text), tag

    def _in_no_repository(self, named: Named) -> Iterator[dict[str, Any]]:
        """It is gone, or was never there: what lies in its trash, and what its history tells."""
        if named.digest is not None:
            wanted: list[tuple[Digest, str | None]] = [(named.digest, None)]
        elif named.tag is not None:
            wanted = list(self._formerly(named.tag))
        else:
            wanted = [(parse_digest(text), None) for text in dict.fromkeys(c.digest for c in self._every if c.digest)]
        for digest, lost in wanted:
            if (item := self._elsewhere(digest, lost)) is not None:
                yield item

    # -- one digest -----------------------------------------------------------------------------

    def _digest(
        self, digest: Digest, marks: Reachable, forecast: Forecast, lost: str | None
    ) -> dict[str, Any] | None:  # fmt: skip
        if digest not in marks.reachable:
            return self._unreachable(digest, lost)
        place = self._jobs.explain(self._run, self._name, digest, self._options, None)
        chain = chain_to(digest, marks)
        if place is not None and place.verdict == "in trash" and place.deleted:
            # A client has deleted it; a referrer that names it as its subject does not need it.
            why = f"a client deleted it; {_named_by(chain)} still names it as its subject, and does not need it"
            return self._base(digest, lost) | place.fields() | {"why": f"{why}; {place.why}"}
        if place is None and digest not in marks.index:
            why = f"its content is not here; {_named_by(chain)} names it"
            return self._base(digest, lost) | {"verdict": "gone", "why": why} | self._end(digest)
        if self._options.dry_run:
            return self._base(digest, lost) | {"verdict": "kept", "why": DRY, "chain": chain}
        if place is not None and place.verdict == "kept":
            return self._base(digest, lost) | place.fields() | {"chain": chain}
        loss = forecast.of(digest)
        base = self._base(digest, lost)
        if loss.tags:
            base["tags_going"] = [
                {"tag": tag, "removed_after_at": time_of(at), "why": why} for tag, (at, why) in loss.tags.items()
            ]  # fmt: skip
        if loss.at is None:
            chain = chain_to(digest, loss.marks)
            why = " <- ".join(reversed(chain))
            if len(chain) == 1 and (tags := loss.marks.index.tags_of(digest)):
                why = f"the tag {tags[0]} leads to it" if len(tags) == 1 else f"the tags {', '.join(tags)} lead to it"
            elif not any("(tags " in link for link in chain):
                row = chain[0]
                rule = why_kept(self._name, loss.marks, self._options.rules, row)
                why = rule if len(chain) == 1 else f"{why}; and of that: {rule}"
            return base | {"verdict": "kept", "why": why, "chain": chain}
        base |= {"verdict": "goes", "why": loss.reason, "chain": chain}
        if forecast.unnoted:
            base["noted_after_at"] = time_of(self._now)
        if forecast.ahead:
            base["why"] += AHEAD
        after = self._jobs.explain(self._run, self._name, digest, self._options, loss.at, loss.rows)
        return base | {"removed_after_at": time_of(loss.at)} | (dict(after.times) if after is not None else {})

    def _unreachable(self, digest: Digest, lost: str | None) -> dict[str, Any] | None:
        place = self._jobs.explain(self._run, self._name, digest, self._options, self._now)
        if place is None:
            return self._elsewhere(digest, lost)
        base = self._base(digest, lost) | self._end(digest)
        if place.verdict == "goes" and self._options.dry_run:
            return base | {"verdict": "kept", "why": DRY}
        return base | place.fields()

    def _elsewhere(self, digest: Digest, lost: str | None) -> dict[str, Any] | None:
        """It is not in the repository. None: and nothing is known of it."""
        place = self._jobs.explain(self._run, self._name, digest, self._options, self._now)
        base = self._base(digest, lost) | self._end(digest)
        if place is not None:
            return base | place.fields()
        known = any(digest in (change.before, change.after) for change in self._every)
        return base | {"verdict": "gone", "why": "its content is not here any more"} if known else None

    def _base(self, digest: Digest, lost: str | None) -> dict[str, Any]:
        base: dict[str, Any] = {"digest": str(digest)}
        if lost is not None:
            base["tag"] = lost
        former = former_tags(self._every, digest)
        if former:
            base["former_tags"] = [
                {"tag": tag, "until_at": time_of(change.at), "by": change.by, "now": change.after}
                for tag, change in former.items()
            ]  # fmt: skip
        return base

    def _end(self, digest: Digest) -> dict[str, Any]:
        """Since when it is unreachable, if it was removed by itself, and when it was deleted for good."""
        fields: dict[str, Any] = {}
        end: PastChange | None = last_end(self._every, digest)
        if end is not None and end.action == "removed":
            fields = {"unreachable_since_at": time_of(end.at), "by": end.by}
        if (at := next((c.at for c in reversed(self._every) if _is_purge(c, digest)), None)) is not None:
            fields["purged_at"] = time_of(at)
        return fields


def _is_purge(change: PastChange, digest: str) -> bool:
    return change.action == "purged" and change.before == digest


def _named_by(chain: list[str]) -> str:
    return chain[-2] if len(chain) > 1 else "a row of index.json"


# -- the chain ------------------------------------------------------------------------------------


def chain_to(digest: str, marks: Reachable) -> list[str]:
    """A shortest chain of references from a row down to the digest; from a row with a tag, if there is one."""
    tagged = [row for row in marks.index.digests if marks.index.tags_of(row)]
    above = _above(tagged, digest, marks)
    if digest not in above:
        above = _above(list(marks.index.digests), digest, marks)
    chain: list[str] = []
    step: str | None = digest
    while step is not None:
        tags = marks.index.tags_of(step)
        chain.append(f"{step} (tags {', '.join(tags)})" if tags else step)
        step = above.get(step)
    return chain[::-1]


def _above(rows: list[str], digest: str, marks: Reachable) -> dict[str, str | None]:
    """For each digest that a breadth-first search from `rows` meets, the digest that references it; None for a row."""
    above: dict[str, str | None] = dict.fromkeys(rows)
    todo = deque(rows)
    while todo and digest not in above:
        at = todo.popleft()
        if (facts := marks.facts.get(at)) is None:
            continue
        for reference in facts.digests():
            # Of the millions that lead nowhere only the wanted one matters.
            if reference not in above and (reference == digest or reference in marks.facts):
                above[reference] = at
                todo.append(reference)
    return above
