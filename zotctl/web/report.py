"""The file of `--report`: one run of a job as a page that needs nothing beside it."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from zotctl.errors import ClockDoubtful, StorageError
from zotctl.jobs.check.scrub_state import passes
from zotctl.jobs.check.usage import OF_REPOSITORIES, PLACES, UNREACHABLE, RepositoryUsage, RootUsage, measure
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.forecast import Forecast
from zotctl.jobs.gc import GcOptions, Settings
from zotctl.jobs.reachable import mark
from zotctl.jobs.report import Report, hints
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Trashed, jobs_of
from zotctl.oci.digest import parse_digest
from zotctl.storage.clock import DAY_S
from zotctl.storage.root import Root
from zotctl.web import words
from zotctl.web.health import MEANINGS, RESULTS, ShownFinding
from zotctl.web.render import render
from zotctl.web.treemap import HEIGHT, WIDTH, Area, Rectangle, layout

MOST_AREAS = 60
"""Repositories that have an area of their own; the others are one together."""
MOST_LISTED = 100
"""Lines of one table."""
MOST_FINDINGS = 1000
MOST_FOLDERS, MOST_TRASHED = 100, 10_000
AHEAD_S = 30 * DAY_S
"""So far it is said what collections will remove."""
STOPPED = frozenset({11, 16, 129, 130, 143})
"""Exit codes of runs after which nothing more is measured: someone waits for their end."""

AGES = ((1, "within a day"), (7, "within a week"), (30, "within a month"), (float("inf"), "longer ago"))


class Space(NamedTuple):
    """What uses the disks of all roots, in bytes, as `verify --usage` says it. `repositories`: those of the run, with
    their roots, that which frees most first. `shared`: what several repositories have, once. `others`: what other
    repositories alone have. `rest`: everything else, in words. `unknown`: repositories and roots that could not be
    looked at."""

    repositories: list[tuple[str, RepositoryUsage]]
    shared: int
    others: int
    rest: dict[str, int]
    unreachable: int
    disk: int
    unknown: int


class Checked(NamedTuple):
    """When a repository was last checked as a whole, in seconds since 1970; None: never."""

    root: str
    name: str
    at: float | None


class AgeGroup(NamedTuple):
    """How many repositories were last checked in one span of time. `share`: of all, from 0 to 1."""

    label: str
    repositories: int
    share: float


class Next(NamedTuple):
    """What lies in the trash, when it goes for good (seconds since 1970), and the command that brings it back."""

    trashed: Trashed
    goes: float
    restore: str


class Coming(NamedTuple):
    """What a collection to come removes: a tag, or a manifest with its row. `at`: seconds since 1970, before which it
    stays; `gone`: before which its bytes are not deleted for good, "" if that is not known or it is a tag."""

    root: str
    repository: str
    digest: str
    tag: str | None
    reason: str
    at: float
    gone: str = ""


@dataclass(frozen=True, slots=True)
class ReportPage:
    """What the file shows. `space`, `ages` and `next`: None where the job has none, or was stopped. `coming`: what goes
    within `AHEAD_S`, first that which goes first; there may be `more_coming`."""

    job: str
    title: str
    result: str
    is_good: bool
    started: float
    duration_s: float
    roots: list[str]
    dry_run: bool
    counters: list[tuple[str, str]]
    findings: list[ShownFinding]
    more_findings: int
    errors: list[dict[str, Any]]
    hints: list[str]
    items: list[dict[str, Any]]
    more_items: int
    measured: bool
    """Whether `items` are tags with their sizes, as `verify --usage` says them."""
    space: Space | None
    areas: list[Rectangle]
    ages: list[AgeGroup] | None
    oldest: list[Checked]
    next: list[Next] | None
    coming: list[Coming]
    more_coming: bool
    foretells: bool
    """Whether it says what goes next: of a collection, and not if that was stopped or its clock is in doubt."""


def write_report(report: Report, run: Run | None, items: Sequence[dict[str, Any]], more_items: int) -> bytes:
    """The page of a run that has ended, as UTF-8. `run` None: it could not begin. `items`: the first things that it
    did; `more_items`: how many more there were."""
    page = report_page(report, run, items, more_items)
    return render("report.html", {"page": page, "width": WIDTH, "height": HEIGHT})


def report_page(report: Report, run: Run | None, items: Sequence[dict[str, Any]], more_items: int) -> ReportPage:
    """What is on it. Goes through everything that lies in the roots, unless the run was stopped; no blob is read."""
    roots = run.roots if run is not None else ()
    looks = report.exit_code not in STOPPED and bool(roots)
    space = _space(run) if run is not None and looks else None
    settings = run.settings if run is not None and looks and ClockDoubtful.exit_code not in report.codes else None
    coming = _coming(run, settings) if run is not None and settings is not None else []
    checked = _checked(run, space) if run is not None and space is not None else None
    if measured := any("what" in one for one in items):
        items, more_items = _measured(report, items)
    return ReportPage(
        job=report.job,
        title=f"zotctl {report.job}{' --dry-run' if report.is_dry_run else ''}",
        result=_result(report),
        is_good=report.exit_code == 0,
        started=report.started.timestamp(),
        duration_s=report.duration_s,
        roots=[root.label for root in roots],
        dry_run=report.is_dry_run,
        counters=_counters(report.summary),
        findings=[_shown(finding) for finding in _damage_first(report.findings)[:MOST_FINDINGS]],
        more_findings=max(0, len(report.findings) - MOST_FINDINGS),
        errors=report.errors[:MOST_LISTED],
        hints=list(hints(report)),
        items=list(items[:MOST_LISTED]),
        more_items=more_items + max(0, len(items) - MOST_LISTED),
        measured=measured,
        space=space,
        areas=layout(_areas(space, _hurt(report))) if space is not None else [],
        ages=_ages(checked, run.clock.now()) if run is not None and checked else None,
        oldest=checked[:MOST_LISTED] if checked is not None else [],
        next=_next(roots, settings) if settings is not None else None,
        coming=coming[:MOST_LISTED],
        more_coming=len(coming) > MOST_LISTED,
        foretells=settings is not None,
    )


def _result(report: Report) -> str:
    found = RESULTS.get(report.exit_code, f"it failed (exit {report.exit_code})")
    return "nothing was changed; " + found if report.is_dry_run else found


def _counters(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was counted, in words, without what is zero; a count and its bytes on one line."""
    found = []
    for name, value in summary.items():
        base = name.removesuffix("_bytes")
        if not isinstance(value, int) or not value or (base != name and base in summary):
            continue
        shown = words.size(value) if base != name else words.number(value)
        size = summary.get(f"{name}_bytes")
        found.append((base.replace("_", " "), f"{shown} ({words.size(size)})" if isinstance(size, int) else shown))
    return found


def _measured(report: Report, items: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The tags that `verify --usage` has measured, and how many more there are."""
    tags = [one for one in items if one.get("what") == "tag"]
    shown = [
        {**one, "action": "", "reason": f"{words.size(one['own_bytes'])} own, frees {words.size(one['freed_bytes'])}"}
        for one in tags
    ]
    return shown, max(0, report.summary.get("tags", 0) - len(tags))


def _damage_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: one.kind not in DAMAGE_KINDS)


def _shown(one: Finding) -> ShownFinding:
    meaning = f"{MEANINGS.get(one.kind, one.kind)}{'' if one.action == 'none' else f' ({one.action})'}"
    since = str(one.details.get("first_seen_at", one.details.get("first_seen", "")))
    return ShownFinding(one.repository, one.digest, one.kind, meaning, one.kind in DAMAGE_KINDS, since, one.tags[:10])


# -- space ---------------------------------------------------------------------------------------


def _space(run: Run) -> Space:
    found, look = list[RootUsage](), run.look()

    def work() -> None:
        for root in look.roots:
            with look.guarded(root.label, root):
                found.append(measure(look, root, parts=False))

    look.finish(work)
    repositories = [(one.root, each) for one in found for each in one.repositories]
    repositories.sort(key=lambda pair: (-pair[1].sizes.freed, pair[1].name))
    rest = Counter[str]()
    for one in found:
        rest.update({PLACES[place]: size for place, size in one.places.items() if place not in OF_REPOSITORIES})
    return Space(
        repositories,
        sum(one.shared for one in found),
        sum(one.others for one in found),
        dict(rest.most_common()),
        sum(one.places.get(UNREACHABLE, 0) for one in found),
        sum(one.disk for one in found),
        len(look.report.errors) + len(run.away),
    )


def _hurt(report: Report) -> set[str]:
    return {one.repository for one in report.findings if one.kind in DAMAGE_KINDS and one.action != "repaired"}


def _areas(space: Space, hurt: set[str]) -> list[Area]:
    """They add up to the disk."""
    owners = sorted((one for _, one in space.repositories), key=lambda one: -one.sizes.own)
    large, small = owners[:MOST_AREAS], owners[MOST_AREAS:]
    parts = [(one.name, one.sizes.own, "hurt" if one.name in hurt else "own") for one in large]
    parts.append((f"{words.number(len(small))} more", sum(one.sizes.own for one in small), "rest"))
    parts.append(("shared by several", space.shared, "shared"))
    parts.append(("other repositories", space.others, "rest"))
    parts += [(_short(place), size, "rest") for place, size in space.rest.items()]
    return [Area(label, size, words.size(size), kind) for label, size, kind in parts]


def _short(place: str) -> str:
    """Without what follows, for which a map has no room."""
    return re.split("[,:]", place)[0]


# -- ages ----------------------------------------------------------------------------------------


def _checked(run: Run, space: Space) -> list[Checked]:
    """The repositories, those first that were not checked for longest."""
    times: dict[str, dict[str, int]] = {}
    for root in run.roots:
        known = passes(root) if root.label not in run.away else None
        times[root.label] = (known.repositories or {}) if known is not None else {}
    found = [Checked(root, one.name, times.get(root, {}).get(one.name)) for root, one in space.repositories]
    return sorted(found, key=lambda one: (one.at or 0, one.name))


def _ages(checked: list[Checked], now: float) -> list[AgeGroup]:
    counts = [0] * len(AGES)
    never = 0
    for one in checked:
        if one.at is None:
            never += 1
        else:
            days = (now - one.at) / DAY_S
            counts[next(place for place, (limit, _) in enumerate(AGES) if days <= limit)] += 1
    total = len(checked) or 1
    groups = [(label, count) for (_, label), count in zip(AGES, counts, strict=True)]
    return [AgeGroup(label, count, count / total) for label, count in [*groups, ("never", never)]]


# -- what goes next ------------------------------------------------------------------------------


def _next(roots: Iterable[Root], settings: Settings) -> list[Next] | None:
    found: list[Next] = []
    trashes = [(root, trash) for root in roots if (trash := jobs_of(root).trash()) is not None]
    for root, trash in trashes:
        chosen = settings(root) or GcOptions()
        for one in trash.look(MOST_FOLDERS, MOST_TRASHED):
            command = f"zotctl gc --root {shlex.quote(root.label)} --restore {shlex.quote(one.run)}"
            found.append(Next(one, one.moved + chosen.kept, command))
    return sorted(found, key=lambda one: one.goes) if trashes else None


def _coming(run: Run, settings: Settings) -> list[Coming]:
    """What collections will remove if nobody changes anything: as much as is listed, and one more. Nothing of a root
    that this run may not write."""
    found, look = list[Coming](), run.look()

    def work() -> None:
        for root in look.roots:
            options = settings(root) if run.dry_run or not root.read_only else None
            for name in look.repositories_of(root) if options is not None and not options.dry_run else ():
                with look.guarded(name, root):
                    found.extend(islice(_coming_in(look, root, name, options or GcOptions()), MOST_LISTED + 1))
        found.sort(key=_order)
        del found[MOST_LISTED + 1 :]
        roots = {root.label: root for root in look.roots}
        found[:] = sorted((_with_times(look, roots[one.root], one, settings) for one in found), key=_order)

    look.finish(work)
    return found


def _coming_in(look: Run, root: Root, name: str, options: GcOptions) -> Iterator[Coming]:
    now, marks = root.protocol.now(), mark(root, name)
    if marks.faults:
        return  # nothing is collected there
    forecast = Forecast(name, marks, root.history.timeline(name), options.rules, now)
    for run in forecast.coming(now + AHEAD_S):
        yield from (Coming(root.label, name, drop.digest, drop.tag, drop.reason, run.at) for drop in run.drops)


def _order(one: Coming) -> tuple[float, str, str, str]:
    return one.at, one.repository, one.tag or "", one.digest


def _with_times(look: Run, root: Root, one: Coming, settings: Settings) -> Coming:
    """With the times that only the kind of store knows: when the bytes go and, on a bucket, that a row goes later."""
    if one.tag is not None:
        return one
    with suppress(StorageError, ValueError):
        options, digest = settings(root) or GcOptions(), parse_digest(one.digest)
        place = jobs_of(root).explain(look, one.repository, digest, options, one.at, [one.digest])
        times = place.times if place is not None else {}
        removed = times.get("removed_after_at")
        at = datetime.fromisoformat(removed).timestamp() if removed is not None else one.at
        return one._replace(at=at, gone=str(times.get("purged_after_at", "")))
    return one
