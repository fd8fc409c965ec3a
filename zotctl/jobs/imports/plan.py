"""Decides which rows of a layout go into which repository, with which tag and which push time.

Only the push times read anything from the layout; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from zotctl.errors import DigestInvalid, StorageError, UsageError, quoted
from zotctl.jobs.finding import Finding, Kind
from zotctl.jobs.imports.sources import Layout, valid_name
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.reference import (
    CONTAINERD_NAME,
    KIND,
    OLAREG_SUBJECT,
    REF_NAME,
    attached_as,
    digest_key,
    digest_tag,
    parse_name,
    parse_tag,
    tag_names,
)
from zotctl.storage.facts import ManifestFacts
from zotctl.storage.history import EVENT_STEP_S
from zotctl.storage.rows import Row, annotations_of, with_media_type

CREATED = "org.opencontainers.image.created"
OLAREG_HISTORY = "org.olareg.history"
DATED_BODY_BYTES = 4 << 20
"""The largest manifest or config that is read for its creation time."""
EARLIEST_DATE = datetime(1981, 1, 1, tzinfo=UTC).timestamp()
"""An older creation time is ignored: reproducible builds state 1970 or 1980."""


@dataclass(frozen=True)
class ImportOptions:
    """Options of `import_layout`.

    `repo`: the target, instead of the repository that the source proposes. `tag`: the tag for a single image, or which
    of several images to import. `all`: import everything into `repo`, although the source names several repositories.
    `overwrite`: move tags that exist. `link`: hash, then hard-link instead of copying where possible. `move`: remove
    the files of the source when everything is in the store. `tags`: a file with the tags of a registry that keeps them
    elsewhere. `mirror`: move tags, and remove from the target what the source has no more. `tagged_only`: leave
    out what no tag leads to.
    """

    repo: str | None = None
    tag: str | None = None
    all: bool = False
    overwrite: bool = False
    link: bool = False
    move: bool = False
    tags: str | None = None
    mirror: bool = False
    tagged_only: bool = False

    @property
    def moves_tags(self) -> bool:
        """Whether tags that exist are moved."""
        return self.overwrite or self.mirror

    def check(self) -> None:
        """Raises NameInvalid, TagInvalid, UsageError."""
        if self.repo is not None:
            parse_name(self.repo)
        if self.tag is not None:
            parse_tag(self.tag)
            if self.all:
                raise UsageError("--tag takes one image and --all takes all; give one of them")
        if self.mirror and self.tag is not None:
            raise UsageError("--mirror removes all that the source lacks, and --tag names one image; give one of them")
        if self.mirror and self.tagged_only:
            raise UsageError("--mirror follows all of the source, and --tagged-only a part of it; give one of them")
        if self.mirror and self.move:
            raise UsageError(
                "--move removes the source, and the next --mirror would follow it and empty the store; give one of them"
            )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A row to import, with the tag that it gets."""

    row: Row
    digest: Digest
    tag: str | None


@dataclass(frozen=True, slots=True)
class _Named:
    """A row with one of its names. `name`: as it is written; `exact`, `alias`: see `tag_names`; `repository`: the one
    that the name proposes. `misnamed`: its repository is none, and it goes to that of other images."""

    row: Row
    digest: Digest
    name: str | None
    exact: str | None
    alias: str | None
    repository: str | None
    misnamed: bool = False


@dataclass
class ImportPlan:
    """The rows for each repository, and findings about rows that lose their name."""

    repositories: dict[str, list[Wanted]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    names_lost: int = 0
    """How many rows are imported without the name that they have in the source."""
    tags_lost: int = 0
    """How many of these names hold a tag, by which clients would look for them."""
    untagged: int = 0
    """How many rows are left out since no tag leads to them."""


def plan_import(layout: Layout, facts: dict[str, ManifestFacts], options: ImportOptions) -> ImportPlan:
    """Decide which rows go where. Raises UsageError if it is not clear which repository or which image."""
    plan = ImportPlan()
    images = _images_by_name(layout)
    found = (_completed(row, facts) for row in layout.index.rows())
    named = [name for row in found for name in _names(layout, row, facts, images)]
    _report_unclear(layout, plan)
    for repository, rows in _by_repository(layout, named, facts, options).items():
        plan.repositories[repository] = _tagged(repository, rows, plan)
    if options.tag is not None:
        _choose(plan, options.tag, facts)
    if options.tagged_only:
        _leave_untagged_out(plan, facts)
    return plan


def _report_unclear(layout: Layout, plan: ImportPlan) -> None:
    plan.findings += [replace(finding, repository=layout.proposal or "") for finding in layout.findings]
    for reason in layout.index.unclear():
        plan.findings.append(
            Finding(layout.proposal or "", None, "invalid_index", f"{layout.label}: {reason}", action="skip")
        )


# -- names --------------------------------------------------------------------------------------


def _completed(row: Row, facts: dict[str, ManifestFacts]) -> Row:
    known = facts.get(row.digest or "")
    return row if row.media_type or known is None else with_media_type(row, known.media_type)


def _images_by_name(layout: Layout) -> dict[str | None, Digest | None]:
    """The image of each name that rows of different kinds share; None: there are several."""
    found: dict[str | None, Digest | None] = {}
    for row in layout.index.rows():
        if row.digest is not None and attached_as(annotations_of(row).get(KIND)) is None:
            name = _written(row)
            found[name] = row.digest if found.get(name, row.digest) == row.digest else None
    return found


def _written(row: Row) -> str | None:
    annotations = annotations_of(row)
    return annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME)


def _without_digest(name: str | None, digest: Digest) -> str | None:
    """`docker.io/library/busybox:1.36@sha256:...` names a tag, if the digest is that of its row."""
    head, _, tail = (name or "").partition("@")
    return head if tail == digest and ":" in head.rpartition("/")[2] else name


def _names(
    layout: Layout, row: Row, facts: dict[str, ManifestFacts], images: dict[str | None, Digest | None]
) -> Iterator[_Named]:
    if row.digest is None:
        return
    annotations = annotations_of(row)
    if (suffix := attached_as(annotations.get(KIND))) is not None:
        yield _attachment(row, row.digest, suffix, images)
        return
    written, containerd = (_without_digest(annotations.get(name), row.digest) for name in (REF_NAME, CONTAINERD_NAME))
    beside = _names_beside(layout, row.digest, facts) if written is None and containerd is None else []
    for full in beside or (containerd,):
        exact, alias = tag_names(written, full)
        proposed = repository_of(full) or (None if exact else repository_of(written))
        name = full or written
        is_by_digest = name is not None and name.endswith(f"@{row.digest}")  # so it loses no tag
        yield _Named(row, row.digest, None if is_by_digest else name, exact, alias, proposed)


def _attachment(row: Row, digest: Digest, suffix: str, images: dict[str | None, Digest | None]) -> _Named:
    """What is attached to the image of the same name: cosign looks for it by a tag that names the image."""
    name = _written(row)
    subject = images.get(name)
    proposed = repository_of(_without_digest(name, digest))
    if not suffix:
        return _Named(row, digest, None, None, None, proposed)
    if subject is None:
        return _Named(
            row, digest, f"{annotations_of(row)[KIND]} of {name or 'an image without a name'}", None, None, proposed
        )
    return _Named(row, digest, name, f"{subject.algorithm}-{subject.encoded}{suffix}", None, proposed)


def _names_beside(layout: Layout, digest: Digest, facts: dict[str, ManifestFacts]) -> list[str]:
    known = facts.get(digest)
    return layout.names.get(known.blobs[0].digest, []) if layout.names and known and known.blobs else []


def repository_of(full_name: str | None) -> str | None:
    """The repository that a full name proposes: `docker.io/library/busybox:1.36` proposes `library/busybox`. None for a
    bare word, and for what is no repository name."""
    if not full_name or not any(mark in full_name for mark in ":/@"):
        return None
    above, slash, last = full_name.partition("@")[0].rpartition("/")
    name = above + slash + (last.rpartition(":")[0] or last)
    host, slash, rest = name.partition("/")
    return valid_name(rest if slash and (host == "localhost" or "." in host or ":" in host) else name)


# -- repositories -------------------------------------------------------------------------------


def _by_repository(
    layout: Layout, named: list[_Named], facts: dict[str, ManifestFacts], options: ImportOptions
) -> dict[str, list[_Named]]:
    if layout.fixed and layout.proposal:
        return {layout.proposal: named}
    proposed = sorted({row.repository for row in named if row.repository})
    if options.repo is not None:
        if len(proposed) > 1 and not options.all and options.tag is None:
            raise UsageError(
                f"{layout.label} holds images of {', '.join(proposed)}: without --repo each goes to its own "
                f"repository; with --all, all go to {options.repo}"
            )
        return {options.repo: named}
    return _shared_out(layout, named, facts, proposed)


def _shared_out(
    layout: Layout, named: list[_Named], facts: dict[str, ManifestFacts], proposed: list[str]
) -> dict[str, list[_Named]]:
    """Rows that propose no repository go where a row needs them, or where their subject goes. A full name whose
    repository is none gives no tag there: it would be one of another repository."""
    rows: dict[str, list[_Named]] = {}
    taken: set[str] = set()
    for repository in proposed:
        own = {row.digest for row in named if row.repository == repository}
        near = own | (_related(named, own, facts) if len(proposed) > 1 else {row.digest for row in named})
        found = (r for r in named if r.repository == repository or (not r.repository and r.digest in near))
        rows[repository] = [r if r.repository or not r.alias else replace(r, alias=None, misnamed=True) for r in found]
        taken |= near
    if left := [row for row in named if not row.repository and row.digest not in taken]:
        rows.setdefault(_default(layout), []).extend(left)
    return rows


def _default(layout: Layout) -> str:
    if layout.proposal is None:
        raise UsageError(f"{layout.label}: nothing says which repository its images belong to; give --repo")
    return layout.proposal


def _related(rows: Sequence[_Named | Wanted], start: Iterable[str], facts: dict[str, ManifestFacts]) -> set[str]:
    """What these digests list, at any depth, with the attachments of any of that."""
    near: set[str] = set()
    todo = list(start)
    about: dict[str, list[str]] = {}
    for row in rows:
        for subject in _subjects(row, facts):
            about.setdefault(digest_key(subject), []).append(row.digest)
    while todo:
        digest = todo.pop()
        if digest not in near:
            near.add(digest)
            known = facts.get(digest)
            todo += [child.digest for child in known.children] if known else []
            todo += about.get(digest_key(digest), [])
    return near


def _subjects(row: _Named | Wanted, facts: dict[str, ManifestFacts]) -> Iterator[str]:
    """The digests, or beginnings of digests, of what a row is attached to."""
    known = facts.get(row.digest)
    yield from (subject.digest for subject in known.subjects) if known else ()
    if (subject := annotations_of(row.row).get(OLAREG_SUBJECT)) is not None:
        yield subject
    tag = row.tag if isinstance(row, Wanted) else row.exact
    if (named := digest_tag(row.row.tag or tag or "")) is not None and not named.names(row.digest):
        yield named.digest


# -- tags ---------------------------------------------------------------------------------------


def _tagged(repository: str, rows: list[_Named], plan: ImportPlan) -> list[Wanted]:
    """Give each row its tag. A name that can't be a tag becomes a finding, and its row is imported without a tag."""
    tags = _Tags(rows)
    wanted = []
    for position, row in enumerate(rows):
        tag, fault = tags.of(position, row)
        if fault is not None:
            plan.findings.append(_finding(repository, row, fault))
        is_twin = tags.is_twin(position, row, tag)
        if not is_twin:
            wanted.append(Wanted(row.row, row.digest, tag))
        if fault is not None and (row.misnamed or not is_twin):
            plan.names_lost += 1
            plan.tags_lost += row.misnamed or row.alias is not None or KIND in annotations_of(row.row)
    return wanted


class _Tags:
    """Decides which row gets a tag: of several with the same tag the last one; an alias counts only if it is unique."""

    def __init__(self, rows: list[_Named]) -> None:
        self._last = {row.exact: position for position, row in enumerate(rows) if row.exact}
        self._rows = rows
        self._well_named = {row.digest for row in rows if not row.misnamed}
        self._aliases: dict[str, list[int]] = {}
        for position, row in enumerate(rows):
            if row.alias:
                self._aliases.setdefault(row.alias, []).append(position)

    def of(self, position: int, row: _Named) -> tuple[str | None, str | None]:
        if row.exact:
            last = self._last[row.exact] == position
            return (row.exact, None) if last else (None, f"a later row has the tag {row.exact} too, and wins")
        if row.alias:
            return self._of_alias(row.alias, position, row)
        if row.misnamed:
            return None, f"{quoted(row.name or '')} names no repository that could be, so nothing gets its tag"
        return None, f"{quoted(row.name)} is no tag and holds none" if row.name is not None else None

    def _of_alias(self, alias: str, position: int, row: _Named) -> tuple[str | None, str | None]:
        rivals = {self._rows[other].digest for other in self._aliases[alias]}
        if alias in self._last:
            rivals.add(self._rows[self._last[alias]].digest)
        if len(rivals) > 1:
            return None, f"the tag {alias} of {quoted(row.name or alias)} is not unique here"
        return (alias if alias not in self._last and self._aliases[alias][0] == position else None), None

    def is_twin(self, position: int, row: _Named, tag: str | None) -> bool:
        """Whether this row, which gets no tag, would only repeat the row that gets it."""
        if tag is not None:
            return False
        if row.misnamed:
            return row.digest in self._well_named
        named = self._last.get(row.exact or row.alias or "", self._aliases.get(row.alias or "", [position])[0])
        return named != position and self._rows[named].digest == row.digest


def _finding(repository: str, row: _Named, reason: str) -> Finding:
    kind: Kind = "duplicate_tag" if row.exact else "bad_ref_name"
    return Finding(repository, row.digest, kind, reason, (row.exact,) if row.exact else (), "no_tag")


# -- one image ----------------------------------------------------------------------------------


def _choose(plan: ImportPlan, tag: str, facts: dict[str, ManifestFacts]) -> None:
    """Reduce the plan to the image with this tag, or to the only image, which gets the tag, and to its attachments."""
    found = {name: top for name, rows in plan.repositories.items() if (top := _top(rows, tag, facts)) is not None}
    if not found:
        tags = sorted({row.tag for rows in plan.repositories.values() for row in rows if row.tag})
        raise UsageError(f"--tag {tag}: no image has it, and there are several: {', '.join(tags[:20]) or 'untagged'}")
    for name, top in found.items():
        rows = plan.repositories[name]
        near = _related(rows, [top.digest], facts)
        found_rows = [row for row in rows if row.digest in near and row.digest != top.digest]
        plan.repositories[name] = [top, *found_rows]
    plan.repositories = {name: plan.repositories[name] for name in found}


def _leave_untagged_out(plan: ImportPlan, facts: dict[str, ManifestFacts]) -> None:
    """Reduce the plan to what tags lead to, with its attachments. A tag that attaches something to an image without a
    tag goes with that."""
    there = {digest_key(digest) for digest in facts}
    for name, rows in plan.repositories.items():
        tagged = [row.digest for row in rows if (row.tag or row.row.tag or row.row.alias) and not _hangs_on(row, there)]
        near = _related(rows, tagged, facts)
        plan.repositories[name] = [row for row in rows if row.digest in near]
        plan.untagged += len(rows) - len(plan.repositories[name])
    plan.repositories = {name: rows for name, rows in plan.repositories.items() if rows}


def _hangs_on(row: Wanted, there: set[str]) -> bool:
    """Whether its tag attaches it to one of the digests that are `there`."""
    named = digest_tag(row.tag or row.row.tag or "")
    return named is not None and not named.names(row.digest) and digest_key(named.digest) in there


def _top(rows: list[Wanted], tag: str, facts: dict[str, ManifestFacts]) -> Wanted | None:
    for row in rows:
        if row.tag == tag:
            return row
    below = {child.digest for row in rows if (known := facts.get(row.digest)) for child in known.children}
    tops = [row for row in rows if row.digest not in below and not any(_subjects(row, facts))]
    return replace(tops[0], tag=tag) if len({row.digest for row in tops}) == 1 else None


# -- times ----------------------------------------------------------------------------------------


def push_times(
    layout: Layout, rows: Iterable[Wanted], facts: Mapping[str, ManifestFacts], now: float
) -> dict[str, float]:
    """The push time of each tag that rows get, in seconds since 1970. Of rows with equal ages, later ones are newer."""
    found: dict[str, float] = {}
    unknown: list[tuple[float, str]] = []
    history = _olareg(layout)
    for row in rows:
        if row.tag is None:
            continue
        named = row.row.tag or row.row.alias or ""
        at = layout.past.tagged.get(named) if layout.past else None
        at = history.get((named, row.digest)) if at is None else at
        if at is not None:
            found[row.tag] = min(at, now)
        else:
            made = _created(layout, row, facts)
            unknown.append((now if made is None else min(made, now), row.tag))
    ordered = sorted(unknown, key=lambda one: one[0])  # which keeps the order of rows that say the same
    for number, (_, tag) in enumerate(ordered[::-1]):
        found[tag] = now - number * EVENT_STEP_S
    return found


def _olareg(layout: Layout) -> dict[tuple[str, str], float]:
    """The push times in olareg's history, by tag and digest."""
    found: dict[tuple[str, str], float] = {}
    with suppress(ValueError, TypeError, AttributeError, KeyError):
        for tag, entries in (load_json(layout.index.field(OLAREG_HISTORY)) or {}).items():
            for entry in entries:
                if (at := _parse(entry.get("time"))) is not None:
                    found[tag, str(entry["digest"])] = at
    return found


def _created(layout: Layout, row: Wanted, facts: Mapping[str, ManifestFacts]) -> float | None:
    if (at := _parse(annotations_of(row.row).get(CREATED))) is not None or layout.each is not None:
        return at  # where each read is a request, the order of the rows has to do
    return _of_manifest(layout, row.digest, facts, depth=3)


def _of_manifest(layout: Layout, digest: str, facts: Mapping[str, ManifestFacts], depth: int) -> float | None:
    """The creation time in a manifest, or in its config, or in the first of its children that has one."""
    document = _json(layout, digest)
    at = _parse((document.get("annotations") or {}).get(CREATED)) if _is_table(document.get("annotations")) else None
    known = facts.get(digest)
    if at is not None or known is None or not depth:
        return at
    if known.blobs and (at := _parse(_json(layout, known.blobs[0].digest).get("created"))) is not None:
        return at
    children = (_of_manifest(layout, child.digest, facts, depth - 1) for child in known.children)
    return next((at for at in children if at is not None), None)


def _json(layout: Layout, digest: str) -> dict[str, Any]:
    """A blob as a JSON object; empty if it is none, such as a layer."""
    with suppress(StorageError, DigestInvalid, ValueError, RecursionError), layout.open(parse_digest(digest)) as reader:
        if reader.size <= DATED_BODY_BYTES and reader.read_at(0, 1) == b"{":
            found = load_json(reader.read_at(0, reader.size))
            return found if isinstance(found, dict) else {}
    return {}


def _is_table(found: object) -> bool:
    return found is None or isinstance(found, dict)


def _parse(text: object) -> float | None:
    """RFC 3339."""
    with suppress(ValueError, OverflowError):
        if isinstance(text, str):
            at = datetime.fromisoformat(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            return at.timestamp() if at.timestamp() >= EARLIEST_DATE else None
    return None
