"""Metrics about runs of jobs: in `serve`, and in the file of --metrics-file, which the textfile collector of a node
exporter reads.

The text of the metrics is the only state that one run leaves to the next: counters continue from it, and the time of
the last success outlives a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from zotctl.errors import StorageError
from zotctl.jobs.files import locked, replace_file
from zotctl.jobs.report import Report
from zotctl.storage.root import Root

Labels = tuple[tuple[str, str], ...]


class Family(NamedTuple):
    """A family of metrics. `name`: as in the TYPE line; the samples of a counter end in _total."""

    name: str
    kind: str
    doc: str
    labels: frozenset[str]


def _family(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"zotctl_{name}", kind, doc, frozenset(labels))


FAMILIES = (
    _family("job_runs", "counter", "Runs of a job that have ended.", "job", "result"),
    _family("job_duration_seconds", "summary", "Time that runs took which held the lease.", "job"),
    _family(
        "job_last_success_timestamp_seconds",
        "gauge",
        "End of the last run that looked at everything it should.",
        "job",
        "root",
    ),
    _family("job_findings", "counter", "What runs found, each time that they found it.", "job", "kind"),
    _family("gc_deleted", "counter", "What collections deleted.", "kind"),
    _family("gc_freed_bytes", "counter", "Bytes that collections freed."),
    _family("scrub_checked_bytes", "counter", "Bytes that scrub found good."),
    _family("scrub_damaged_blobs", "gauge", "Blobs with a damaged copy, after the last scrub.", "root"),
)
_SUFFIXES = {"counter": ("_total",), "summary": ("_count", "_sum"), "gauge": ("",)}
_SAMPLES = {f.name + suffix: f for f in FAMILIES for suffix in _SUFFIXES[f.kind]}

_RESULTS = {
    0: "ok",
    4: "damaged",
    5: "incomplete",
    11: "held",
    16: "stopped",
    129: "stopped",
    130: "stopped",
    143: "stopped",
}
"""The `result` of each exit code; any other is "failed"."""
_SUCCESS = ("ok", "damaged")
_DELETED = {"purged": "blob", "uploads": "upload", "pool_entries": "pool_entry"}


class Totals:
    """The values of all metrics. `text`: what an earlier process wrote, from which they continue; what is not
    understood of it is ignored. Not safe between threads."""

    def __init__(self, text: str = "") -> None:
        self._values: dict[tuple[str, Labels], float] = {}
        with suppress(ValueError):
            for metric in text_string_to_metric_families(text):
                for sample in metric.samples:
                    family = _SAMPLES.get(sample.name)
                    if family is not None and family.labels == sample.labels.keys():
                        self._values[sample.name, _sorted(sample.labels)] = sample.value

    def keep_roots(self, labels: Iterable[str]) -> None:
        """Forget the values of roots that are not among `labels`."""
        known = set(labels)
        self._values = {key: value for key, value in self._values.items() if dict(key[1]).get("root") in {None, *known}}

    def add(self, report: Report, roots: Iterable[Root]) -> None:
        """Count a run that has ended, however it ended."""
        result = _RESULTS.get(report.exit_code, "failed")
        self._add("job_runs_total", 1, job=report.job, result=result)
        if result != "held":
            self._add("job_duration_seconds_count", 1, job=report.job)
            self._add("job_duration_seconds_sum", report.duration_s, job=report.job)
        for finding in report.findings:
            self._add("job_findings_total", 1, job=report.job, kind=finding.kind)
        for root in roots:
            self._add_root(report, root, success=result in _SUCCESS)
        self._add_work(report)

    def _add_root(self, report: Report, root: Root, *, success: bool) -> None:
        if success:
            at = report.started.timestamp() + report.duration_s
            self._set("job_last_success_timestamp_seconds", round(at, 3), job=report.job, root=root.label)
        if report.job == "scrub" and not root.by_requests:
            with suppress(StorageError):
                self._set("scrub_damaged_blobs", root.maintenance.lasting_damage(), root=root.label)

    def _add_work(self, report: Report) -> None:
        if report.job == "gc":
            for counter, kind in _DELETED.items():
                self._add("gc_deleted_total", report.summary.get(counter, 0), kind=kind)
            self._add("gc_freed_bytes_total", report.summary.get("purged_bytes", 0))
        if report.job == "scrub":
            self._add("scrub_checked_bytes_total", report.summary.get("checked_bytes", 0))

    def _add(self, name: str, amount: float, **labels: str) -> None:
        key = f"zotctl_{name}", _sorted(labels)
        self._values[key] = self._values.get(key, 0) + amount

    def _set(self, name: str, value: float, **labels: str) -> None:
        self._values[f"zotctl_{name}", _sorted(labels)] = value

    def text(self) -> bytes:
        """All values in the text format of Prometheus, UTF-8."""
        registry = CollectorRegistry()
        registry.register(_Families(self._values))
        return generate_latest(registry)


class _Families(Collector):
    def __init__(self, values: dict[tuple[str, Labels], float]) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        for family in FAMILIES:
            metric = Metric(family.name, family.doc, family.kind)
            for (name, labels), value in sorted(self._values.items()):
                if _SAMPLES[name] is family:
                    metric.add_sample(name, dict(labels), value)
            if metric.samples:
                yield metric


def _sorted(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


# -- the file of --metrics-file -------------------------------------------------------------------


def write(path: str, report: Report, roots: Iterable[Root]) -> None:
    """Add a run to the metrics in a file. The file is replaced atomically, so that no reader sees half of it. Raises
    OSError."""
    path = os.path.realpath(path)
    with locked(os.path.dirname(path)):
        totals = Totals(_text(path))
        totals.add(report, roots)
        replace_file(path, totals.text(), 0o644)  # whatever cron's umask: the exporter is another user


def _text(path: str) -> str:
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""
