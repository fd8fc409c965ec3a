"""`gc --restore` and `gc --list-trash`: back from the trash, and tags back to what they led to.

A manifest gets its row again by an ordinary commit, after everything that it needs was required, as for a push. So a
tag comes back in a bucket, too, while its content is still there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from zotctl.errors import Damaged, LayoutInvalid, NotFound, ReadOnly, Unsupported, UsageError, ZotctlError
from zotctl.jobs.forecast import Forecast
from zotctl.jobs.gc import GcOptions, Settings
from zotctl.jobs.naming import parse_named
from zotctl.jobs.past import MIRRORED_BY, RESTORED_BY, PastChange, changes, former_tags, formerly, last_end
from zotctl.jobs.reachable import mark
from zotctl.jobs.report import local_time, time_of
from zotctl.jobs.run import Run
from zotctl.jobs.stores import TrashedBlob, TrashJobs, jobs_of
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.media_types import is_nondistributable
from zotctl.storage import keys
from zotctl.storage.facts import Content, ManifestFacts, understand
from zotctl.storage.graph import ManifestGraph, reader_of
from zotctl.storage.index import Index
from zotctl.storage.protocol import Change, Transaction
from zotctl.storage.references import Reference
from zotctl.storage.root import Root

BY_THEMSELVES = ("retention: ", MIRRORED_BY)
"""How the names of what removes tags by itself begin: of policies (`retention.Rules.called`), and of a mirror."""


def list_trash(run: Run) -> None:
    """Report an item for each run and repository that has something in the trash. Raises Unsupported if no root of the
    store has one."""
    for _, trash in _trashes(run):
        trash.list(run)


def _trashes(run: Run) -> list[tuple[Root, TrashJobs]]:
    found = [(root, trash) for root in run.store.roots if (trash := jobs_of(root).trash()) is not None]
    if not found:
        raise Unsupported(
            f"{run.store.roots[0].label}: there is no trash on a bucket: what `gc` has deleted there is gone. "
            "`gc --restore NAME:TAG` brings a tag back while its content is still there"
        )
    return found


def restore(run: Run, what: str, settings: Settings = lambda _: None) -> None:
    """Bring back what `what` names, and report what the rules would soon take again.

    `what`: NAME:TAG (what the tag led to before it was moved or removed; NAME:TAG@DIGEST chooses), a run of the trash,
    a digest, NAME@DIGEST, or NAME. A manifest from the trash gets its row again, with the tags that were taken from it
    last and that no other manifest has by now; NAME also brings back the tags that a policy or a mirror removed.
    `settings`: by which the next run collects. Raises NotFound (exit 10) if there is no such thing.
    """
    named, trashed = None, [one for one in _all_trashed(run) if one[1].run == what]
    if not trashed:
        with suppress(UsageError):  # it may be the name of a run that is gone
            named = parse_named(what)
    if named is not None and named.tag is not None and named.name is not None:
        return _restore_tag(run, named.name, named.tag, named.digest, settings)
    if named is not None:
        trashed = [
            (root, one) for root, one in _all_trashed(run)
            if named.name in (None, one.repository) and named.digest in (None, one.digest)
        ]  # fmt: skip
    trashed = [(root, one) for root, one in trashed if run.covers(one.repository)]
    tags = _removed_by_jobs(run, named.name) if named is not None and named.name and not named.digest else {}
    if not trashed and not tags:
        _trashes(run)  # raises Unsupported
        raise NotFound(f"nothing in the trash answers to {what}; `zotctl gc --list-trash` shows what lies there")
    for root, one in trashed:
        with run.guarded(one.repository, root):
            _bring_back(run, root, one)
    if not run.dry_run:
        for root in run.store.roots:
            mine = [one for at, one in trashed if at is root]
            for name in dict.fromkeys(one.repository for one in mine):
                digests = [one.digest for one in mine if one.repository == name]
                _give_rows(run, root, name, digests)
                _tell_what_goes(run, root, name, digests, settings)
    for tag, digest in tags.items():
        with run.guarded(what, None):
            if _tag_now(run.store.repository_for_push(what).root, what, tag) is None:
                _restore_tag(run, what, tag, digest, settings)
    return None


def _planned(run: Run) -> dict[str, bool]:
    return {"planned": True} if run.dry_run else {}


def _all_trashed(run: Run) -> Iterator[tuple[Root, TrashedBlob]]:
    for root in run.store.roots:
        if (trash := jobs_of(root).trash()) is not None:
            yield from ((root, one) for one in trash.contents())


def _bring_back(run: Run, root: Root, one: TrashedBlob) -> None:
    """Reports what has come back, when it has."""
    trash = jobs_of(root).trash()
    if not root.owns(one.repository):
        refusal = ReadOnly(f"{one.repository} is only read from here, so nothing comes back into it")
        run.error(one.repository, refusal, root)
    elif not run.dry_run and trash is not None and not trash.bring_back(one):
        gone = NotFound(f"{one.repository}@{one.digest} was deleted for good meanwhile; push it again")
        run.error(one.repository, gone, root)
    else:
        fields = {"repository": one.repository, "digest": str(one.digest), "size_bytes": one.size, "run": one.run}
        run.item(action="restore", **fields, **_planned(run))
        run.add("restored")
        run.add("restored_bytes", one.size)


def _give_rows(run: Run, root: Root, name: str, digests: Iterable[Digest]) -> None:
    """For each of them that is a manifest."""
    if not root.owns(name):
        return
    every = list(changes(root.history.events(name)))
    for digest in dict.fromkeys(digests):
        facts = _as_manifest(root, name, digest)
        if facts is not None:
            tags = former_tags(every, digest)
            (outcome,) = root.protocol.commit_index(name, [give_row(root, digest, facts, tags, over=False)])
            if outcome is not None:
                run.error(name, outcome, root)


# -- a tag ----------------------------------------------------------------------------------------


def _restore_tag(run: Run, name: str, tag: str, digest: Digest | None, settings: Settings) -> None:
    """To the digest that it had before the one that it has now."""
    if not run.covers(name):
        raise UsageError(f"{name}: --repo does not cover it")
    repository = run.store.repository_for_push(name)
    root = repository.root
    if repository.read_only:
        raise ReadOnly(f"{name} is only read from here, so no tag comes back into it", name)
    now = _tag_now(root, name, tag)
    every = list(changes(root.history.events(name)))
    chosen = digest or next(iter(formerly(every, tag, now)), None)
    if chosen is None:
        raise NotFound(
            f"the history knows no other digest of {name}:{tag}; `zotctl gc --restore {name}:{tag}@DIGEST` names one"
        )
    chosen = parse_digest(chosen)
    if run.dry_run and not _is_somewhere(root, name, chosen):
        raise NotFound(_why_gone(name, chosen, every), name)
    if not run.dry_run:
        _bring_all_back(run, root, name, chosen)
        facts = _as_manifest(root, name, chosen)
        if facts is None:
            raise NotFound(_why_gone(name, chosen, every), name)
        (outcome,) = root.protocol.commit_index(name, [give_row(root, chosen, facts, [tag], over=True)])
        if outcome is not None:
            raise outcome
        run.changed("restore", name, RESTORED_BY, tag=tag, before=now or str(chosen), after=str(chosen))
    run.item(action="restore", repository=name, tag=tag, digest=str(chosen), before=now, **_planned(run))
    run.add("restored")
    if not run.dry_run:
        _tell_what_goes(run, root, name, [chosen], settings)


def _removed_by_jobs(run: Run, name: str) -> dict[str, Digest]:
    """The tags of a repository that are gone and that a policy or a mirror took, with the digests that they had. What a
    client has removed stays so."""
    root = run.store.repository_for_push(name).root
    last: dict[str, PastChange] = {}
    for change in changes(root.history.events(name)) if run.covers(name) else ():
        if change.tag is not None:
            last[change.tag] = change
    taken = {
        tag: change for tag, change in last.items() if change.after is None and change.by.startswith(BY_THEMSELVES)
    }
    return {
        tag: parse_digest(change.before) for tag, change in taken.items()
        if change.before and _tag_now(root, name, tag) is None
    }  # fmt: skip


def _tag_now(root: Root, name: str, tag: str) -> str | None:
    with suppress(NotFound):
        row = root.protocol.indexes.read(name).index.find(tag)
        return row.digest if row is not None else None
    return None


def _is_somewhere(root: Root, name: str, digest: Digest) -> bool:
    """Whether it is in its place or in the trash. Nothing comes back by this look."""
    if root.stat(keys.blob(name, digest)) is not None:
        return True
    trash = jobs_of(root).trash()
    return trash is not None and any((one.repository, one.digest) == (name, digest) for one in trash.contents())


def _why_gone(name: str, digest: Digest, every: list[PastChange]) -> str:
    end = last_end(every, digest)
    when = f": it was {end.action} at {local_time(end.at)} by {end.by}" if end is not None else ""
    return f"the content of {name}@{digest} is not here any more{when}; push it again"


def _bring_all_back(run: Run, root: Root, name: str, digest: Digest) -> None:
    """The manifest and all that it leads to, also from where clients have deleted it. What is missing then is found by
    the commit."""
    trash = jobs_of(root).trash()
    if trash is None:
        return
    trashed = {one.digest: one for one in trash.contents() if one.repository == name}
    todo, done = [str(digest)], set[str]()
    while todo:
        text = todo.pop()
        if text in done:
            continue
        done.add(text)
        with suppress(ZotctlError):
            one = parse_digest(text)
            if one in trashed:
                trash.bring_back(trashed[one])
            if (facts := _as_manifest(root, name, one)) is not None:
                todo += [reference.digest for reference in (*facts.blobs, *facts.children)]


# -- a row ----------------------------------------------------------------------------------------


def _as_manifest(root: Root, name: str, digest: Digest) -> ManifestFacts | None:
    """What lies there as bytes: a manifest says so itself, by its media type or by its shape. None: it is none."""
    try:
        return understand(reader_of(root.protocol, name)(digest, False), digest).facts
    except (NotFound, Damaged):
        return None


def give_row(root: Root, digest: Digest, facts: ManifestFacts, tags: Iterable[str], *, over: bool) -> Change:
    """A row, with all that it needs: that comes back from the trash, too. Raises NotFound where it can't. `over`: tags
    that another manifest has by now are moved; else they stay."""

    def change(tx: Transaction, draft: Index) -> None:
        read = reader_of(root.protocol, tx.name)

        def taken_back(digest: Digest, whole: bool) -> Content:
            tx.require(digest)
            return read(digest, whole)

        graph = ManifestGraph(taken_back)
        graph.add([Reference(digest, facts.size, facts.media_type)])
        for fault in graph.faults.values():
            if fault.may_pass and graph.is_needed(fault.digest):
                raise NotFound(f"{fault.digest}: {fault.reason}")
        for leaf in graph.leaves:
            tx.require(parse_digest(leaf))
        for found in graph.facts.values():
            for blob in found.blobs:
                if not is_nondistributable(blob.media_type):
                    tx.require(parse_digest(blob.digest))
        rows = {tag: draft.find(tag) for tag in tags}
        before = {
            tag: str(row.digest) if row and row.digest else None for tag, row in rows.items() if over or row is None
        }
        draft.put(digest, facts.size, facts.media_type, list(before))
        root.history.note(tx.name, "push", digest, before, by=RESTORED_BY)  # before the rename, as for a push

    return change


# -- what the rules take again --------------------------------------------------------------------


def _tell_what_goes(run: Run, root: Root, name: str, digests: Iterable[Digest], settings: Settings) -> None:
    """Report what comes back only to go again by the rules of the next run."""
    options = settings(root) or GcOptions()
    if options.dry_run:
        return
    try:
        marks = mark(root, name)
    except (NotFound, LayoutInvalid):
        return
    forecast = Forecast(name, marks, root.history.timeline(name), options.rules, root.protocol.now())
    for digest in sorted(set(digests)):
        if digest not in marks.index:
            continue
        loss = forecast.of(digest)
        for tag, (at, reason) in loss.tags.items():
            run.item(action="note", repository=name, tag=tag, digest=str(digest), removed_after_at=time_of(at), reason=(
                f"the rules remove the tag again: {reason}"))  # fmt: skip
        if loss.at is not None:
            run.item(action="note", repository=name, digest=str(digest), removed_after_at=time_of(loss.at), reason=(
                f"the rules remove it again: {loss.reason}"))  # fmt: skip
