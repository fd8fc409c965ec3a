"""`gc --explain DIGEST|NAME:TAG|NAME`: the chain of references that keeps something, or the rule by which and the time
at which it goes, or where it lies in the trash."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from zotctl.errors import DigestInvalid, NameInvalid, NotFound, UsageError
from zotctl.jobs.gc import GcOptions, Settings
from zotctl.jobs.reachable import Reachable, mark
from zotctl.jobs.retention import decide
from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.reference import is_tag, parse_name
from zotctl.storage.root import Root


def explain(run: Run, what: str, settings: Settings) -> None:
    """Report an item for each repository that has what `what` names. Raises NotFound (exit 10) if none has it."""
    name, tag, digest = _parse(what)
    found = False
    for root, repository in run.repositories():
        run.check()
        if name and repository != name:
            continue
        with run.guarded(repository, root):
            for item in _explain(run, root, repository, tag, digest, settings(root) or GcOptions()):
                found = True
                run.item(repository=repository, **item)
    if not found and not run.report.errors:  # else it may be where this run could not look
        raise NotFound(f"nothing here is called {what}: neither in a repository nor in the trash")


def _parse(what: str) -> tuple[str | None, str | None, Digest | None]:
    name, at, text = what.rpartition("@")
    try:
        return name or None, None, parse_digest(text if at else what)
    except DigestInvalid:
        pass
    name, _, tag = what.rpartition(":")
    try:
        if name and is_tag(tag):
            return parse_name(name), tag, None
        return parse_name(what), None, None
    except NameInvalid as error:
        raise UsageError(f"{what} is neither a digest nor NAME:TAG nor NAME: {error.message}") from error


def _explain(
    run: Run, root: Root, name: str, tag: str | None, digest: Digest | None, options: GcOptions
) -> Iterator[dict[str, object]]:  # fmt: skip
    marks = mark(root, name)
    if marks.faults:
        reasons = "; ".join(f.reason if f.digest in f.reason else f"{f.digest}: {f.reason}" for f in marks.faults)
        yield {"verdict": "kept", "why": f"nothing is collected in this repository: {reasons}", "chain": []}
        return
    if tag is not None:
        row = marks.index.find(tag)
        digest = row.digest if row else None
        if digest is None:
            return
    for each in [digest] if digest else [d for row in marks.index.rows() if (d := row.digest)]:
        yield from _explain_digest(run, root, name, each, marks, options)


def _explain_digest(
    run: Run, root: Root, name: str, digest: Digest, marks: Reachable, options: GcOptions
) -> Iterator[dict[str, object]]:  # fmt: skip
    base: dict[str, object] = {"digest": str(digest)}
    now = jobs_of(root).now(run.clock)
    if digest in marks.reachable:
        chain = chain_to(digest, marks)
        yield base | {"verdict": "kept", "why": " <- ".join(reversed(chain)), "chain": chain}
        past = root.history.timeline(name)
        drops = [d for d in decide(name, marks, past, options.rules, now) if d.digest in {digest, *_digests(chain)}]
        for drop in drops:
            yield base | {"verdict": "goes", "why": drop.reason, "at": "at the next run", "chain": chain}
        return
    yield from (base | item for item in jobs_of(root).explain(run, name, digest, options))


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
        for reference in facts.references:
            if reference.digest not in above:
                above[reference.digest] = at
                todo.append(reference.digest)
    return above


def _digests(chain: list[str]) -> set[str]:
    return {link.partition(" ")[0] for link in chain}
