"""The file of `--report`: one run of a job as a page that needs nothing beside it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zotctl.jobs.check.scrub_state import passes
from zotctl.jobs.finding import DAMAGE_KINDS, Finding
from zotctl.jobs.gc import GcOptions, gc_settings
from zotctl.jobs.report import Report, hints
from zotctl.jobs.run import Run
from zotctl.jobs.stores import Trashed, jobs_of
from zotctl.storage.clock import DAY_S
from zotctl.storage.root import Root
from zotctl.web import words
from zotctl.web.health import MEANINGS, RESULTS, ShownFinding
from zotctl.web.render import render
from zotctl.web.space import SpaceUsed, space_used
from zotctl.web.treemap import HEIGHT, WIDTH, Area, Rectangle, layout

MOST_AREAS = 60
"""Repositories that have an area of their own; the others are one together."""
MOST_LISTED = 100
"""Lines of one table."""
MOST_FINDINGS = 1000
MOST_FOLDERS, MOST_TRASHED = 100, 10_000
STOPPED = frozenset({11, 16, 130, 143})
"""Exit codes of runs after which nothing more is measured: someone waits for their end."""

AGES = ((1, "within a day"), (7, "within a week"), (30, "within a month"), (float("inf"), "longer ago"))


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


@dataclass(frozen=True, slots=True)
class ReportPage:
    """What the file shows. `space`, `ages` and `next`: None where the job has none, or was stopped."""

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
    space: SpaceUsed | None
    areas: list[Rectangle]
    ages: list[AgeGroup] | None
    oldest: list[Checked]
    next: list[Next] | None


def write_report(report: Report, run: Run | None, items: Sequence[dict[str, Any]], more_items: int) -> bytes:
    """The page of a run that has ended, as UTF-8. `run` None: it could not begin. `items`: the first things that it
    did; `more_items`: how many more there were."""
    page = report_page(report, run, items, more_items)
    return render("report.html", {"page": page, "width": WIDTH, "height": HEIGHT})


def report_page(report: Report, run: Run | None, items: Sequence[dict[str, Any]], more_items: int) -> ReportPage:
    """What is on it. Goes through the manifests of the run's repositories, unless the run was stopped."""
    roots = run.roots if run is not None else ()
    looks = report.exit_code not in STOPPED and bool(roots)
    space = space_used(run) if run is not None and looks else None
    checked = _checked(run, space) if run is not None and space is not None else None
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
        space=space,
        areas=layout(_areas(space, _hurt(report))) if space is not None else [],
        ages=_ages(checked, run.clock.now()) if run is not None and checked else None,
        oldest=checked[:MOST_LISTED] if checked is not None else [],
        next=_next(roots) if report.job == "gc" and looks else None,
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


def _damage_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: one.kind not in DAMAGE_KINDS)


def _shown(one: Finding) -> ShownFinding:
    meaning = f"{MEANINGS.get(one.kind, one.kind)}{'' if one.action == 'none' else f' ({one.action})'}"
    since = str(one.details.get("first_seen_at", one.details.get("first_seen", "")))
    return ShownFinding(one.repository, one.digest, one.kind, meaning, one.kind in DAMAGE_KINDS, since, one.tags[:10])


# -- space ---------------------------------------------------------------------------------------


def _hurt(report: Report) -> set[str]:
    return {one.repository for one in report.findings if one.kind in DAMAGE_KINDS and one.action != "repaired"}


def _areas(space: SpaceUsed, hurt: set[str]) -> list[Area]:
    large, small = space.repositories[:MOST_AREAS], space.repositories[MOST_AREAS:]
    found = [Area(one.name, one.own, words.size(one.own), "hurt" if one.name in hurt else "own") for one in large]
    rest = sum(one.own for one in small)
    found += [Area(f"{words.number(len(small))} more", rest, words.size(rest), "rest")] if small else []
    found.append(Area("shared by several", space.shared, words.size(space.shared), "shared"))
    found.append(Area("trash", space.trash, words.size(space.trash), "rest"))
    return found


# -- ages ----------------------------------------------------------------------------------------


def _checked(run: Run, space: SpaceUsed) -> list[Checked]:
    """The repositories, those first that were not checked for longest."""
    times: dict[str, dict[str, int]] = {}
    for root in run.roots:
        known = passes(root) if root.label not in run.away else None
        times[root.label] = (known.repositories or {}) if known is not None else {}
    found = [Checked(one.root, one.name, times.get(one.root, {}).get(one.name)) for one in space.repositories]
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


def _next(roots: Iterable[Root]) -> list[Next] | None:
    found: list[Next] = []
    trashes = [(root, trash) for root in roots if (trash := jobs_of(root).trash()) is not None]
    for root, trash in trashes:
        chosen = gc_settings()(root) or GcOptions()
        for one in trash.look(MOST_FOLDERS, MOST_TRASHED):
            command = f"zotctl gc --root {shlex.quote(root.label)} --restore {shlex.quote(one.run)}"
            found.append(Next(one, one.moved + chosen.kept, command))
    return sorted(found, key=lambda one: one.goes) if trashes else None
