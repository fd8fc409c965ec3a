"""The service of a worker with metrics. Without metrics a worker uses `service.Service`, at no cost."""

from __future__ import annotations

import logging
from functools import partial

from zotctl.config import Config
from zotctl.http import metrics, routes
from zotctl.http.access import AccessLog
from zotctl.http.answer import Answer
from zotctl.http.meters import CounterRow, SharedCounters
from zotctl.http.request import Request
from zotctl.http.service import Service
from zotctl.storage import Store


class MeasuredService(Service):
    """Counts what the access log reports, and answers `metrics.path`. `row`: None if all rows were taken."""

    def __init__(self, store: Store, config: Config, board: SharedCounters, row: int | None) -> None:
        super().__init__(store, config.http)
        path = config.metrics.path
        self._row = board.row(row, routes.names(path))
        self.access = _CountedBody(self.log, self._row)
        for root in store.roots:
            if root.config is not None:
                root.protocol.on_conflict(partial(self._row.conflict, root.config.path))
        self.endpoints = {**self.endpoints, path: routes.reading(path, metrics.endpoint(path, board))}

    async def handle(self, request: Request) -> Answer:
        self._row.begin()
        try:
            return await super().handle(request)
        finally:
            self._row.end()


class _CountedBody(AccessLog):
    """Counts each request, whether or not it is logged."""

    def __init__(self, log: logging.Logger, row: CounterRow) -> None:
        super().__init__(log)
        self._row, self._logs = row, super().enabled

    @property
    def enabled(self) -> bool:
        return True

    def write(self, request: Request, answer: Answer, seconds: float) -> None:
        received = request.payload.total_bytes
        self._row.count(request.method, request.route, answer.status, seconds, received, answer.bytes_out)
        if self._logs:
            super().write(request, answer, seconds)
