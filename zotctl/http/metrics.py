"""GET of /metrics, for Prometheus: the counts of all workers, and the state of the roots."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from zotctl import __version__
from zotctl.config import Config
from zotctl.errors import StorageError
from zotctl.http import routes
from zotctl.http.answer import Answer
from zotctl.http.counters import BOUNDS_S, CODES, RequestCounts, SharedCounters
from zotctl.http.gate import Need
from zotctl.http.ratelimit import SharedRates
from zotctl.http.request import Request
from zotctl.http.service import Service
from zotctl.http.uploadlimit import SharedUploads
from zotctl.logs import audit_errors
from zotctl.storage import Store
from zotctl.storage.root import Root

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ROOTS_TIMEOUT_S = 3.0
"""For the roots to answer; a slower root is left out."""


class Figures(NamedTuple):
    """The figures of one root that is a directory."""

    root: str
    used: int
    free: int
    uploads: int


def measured_service(
    store: Store,
    config: Config,
    board: SharedCounters,
    index: int | None,
    rates: SharedRates | None,
    uploads: SharedUploads | None = None,
) -> Service:
    """A service that counts, and answers `metrics.path`. `index`: of its row, None if all rows were taken."""
    path = config.metrics.path
    row = board.row(index, routes.names(path))
    service = Service(store, config.http, row, rates, uploads, config.storage, config.scrub.interval)
    service.limits.exempt |= {path}
    for root in store.roots:
        if root.config is not None:
            root.protocol.on_conflict(partial(row.conflict, root.config.path))
    service.endpoints = {**service.endpoints, path: routes.reading(path, Need.METRICS, endpoint(path, board))}
    return service


def endpoint(path: str, board: SharedCounters) -> Callable[[Service, Request], Awaitable[Answer]]:
    """The handler of `path`."""
    names = tuple(name or "none" for name in routes.names(path))

    async def scrape(service: Service, request: Request) -> Answer:
        families = [_audit_errors(), *_conflicts(board, service), *_roots(await _look(service))]
        text = exposition(board, names, families) + board.jobs.read()
        return Answer(200, (), text, content_type=METRICS_TYPE)

    return scrape


def exposition(board: SharedCounters, names: tuple[str, ...], families: list[Metric]) -> bytes:
    """The text without the metrics of jobs; `families`: those of the roots."""
    registry = CollectorRegistry()
    registry.register(_Now([_build(), *_requests(board, names), *families]))
    return generate_latest(registry)


class _Now(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _build() -> Metric:
    family = GaugeMetricFamily("zotctl_build_info", "The version that answers.", labels=["version", "python"])
    family.add_metric([__version__, platform.python_version()], 1)
    return family


def _audit_errors() -> Metric:
    """0 where there is no audit file."""
    family = CounterMetricFamily("zotctl_audit_errors", "Writes of the audit file that failed.")
    family.add_metric([], audit_errors())
    return family


# -- requests ------------------------------------------------------------------------------------


def _requests(board: SharedCounters, names: tuple[str, ...]) -> Iterator[Metric]:
    by = ["method", "route"]
    requests = CounterMetricFamily("zotctl_http_requests", "Requests answered.", labels=[*by, "code"])
    duration = HistogramMetricFamily(
        "zotctl_http_request_duration_seconds",
        "From the end of a request's header to the end of the answer.",
        labels=by,
    )
    received = CounterMetricFamily("zotctl_http_received_bytes", "Bytes of the bodies of requests.", labels=by)
    sent = CounterMetricFamily("zotctl_http_sent_bytes", "Bytes of the bodies of answers.", labels=by)
    for counts in board.counts(names):
        labels = [counts.method, counts.route]
        for code, count in zip(CODES, counts.codes, strict=True):
            if count:
                requests.add_metric([*labels, str(code)], count)
        duration.add_metric(labels, _buckets(counts), counts.nanoseconds / 1e9)
        received.add_metric(labels, counts.received)
        sent.add_metric(labels, counts.sent)
    in_flight = GaugeMetricFamily("zotctl_http_in_flight_requests", "Requests under way, with this one.")
    in_flight.add_metric([], board.in_flight)
    doc = "Requests with headers of a proxy, from addresses that are no trusted proxies. The headers are dropped."
    claims = CounterMetricFamily("zotctl_http_untrusted_proxy_headers", doc)
    claims.add_metric([], board.dropped_claims)
    yield from (requests, duration, received, sent, in_flight, claims)


def _buckets(counts: RequestCounts) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    return list(zip(bounds, map(float, accumulate(counts.buckets)), strict=True))


# -- roots ---------------------------------------------------------------------------------------


def _conflicts(board: SharedCounters, service: Service) -> Iterator[Metric]:
    doc = "Commits that started again because another commit came first."
    family = CounterMetricFamily("zotctl_index_commit_conflicts", doc, labels=["root"])
    for root in service.store.roots:
        if root.config is not None and (count := board.conflicts(root.config.path)) is not None:
            family.add_metric([root.label], count)
    yield family


async def _look(service: Service) -> list[Figures]:
    """Runs in a thread, since a share may be away. Figures of a bucket would cost requests."""
    roots = [root for root in service.store.roots if not root.by_requests]
    found: list[Figures] = []
    try:
        async with asyncio.timeout(ROOTS_TIMEOUT_S):
            for root in roots:
                found += await service.maintenance(_figures, root)
    except TimeoutError:
        service.log.warning("metrics: a root did not answer within %g s and is left out", ROOTS_TIMEOUT_S)
    return found


def _figures(root: Root) -> list[Figures]:
    """Nothing of a root that is away."""
    if root.state() is not None:
        return []
    try:
        space = root.driver.space()
        return [Figures(root.label, space.total - space.free, space.free, root.maintenance.open_uploads())]
    except StorageError:
        return []


def _roots(figures: list[Figures]) -> Iterator[Metric]:
    used = GaugeMetricFamily("zotctl_storage_used_bytes", "Of the file system of a root.", labels=["root"])
    free = GaugeMetricFamily("zotctl_storage_free_bytes", "Of the file system of a root.", labels=["root"])
    uploads = GaugeMetricFamily("zotctl_uploads_open", "Uploads that are not finished.", labels=["root"])
    for root in figures:
        used.add_metric([root.root], root.used)
        free.add_metric([root.root], root.free)
        uploads.add_metric([root.root], root.uploads)
    yield from (used, free, uploads)
