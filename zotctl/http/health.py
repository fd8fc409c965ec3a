"""Health: is the process alive, can it serve, has it started."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from zotctl.http.answer import Answer, json_answer
from zotctl.http.gate import Need
from zotctl.http.request import Request
from zotctl.logs import audit_trouble, has_audit_file

if TYPE_CHECKING:
    from zotctl.http.service import Service

STATE_KEPT_S = 5.0
"""For which the state of the roots is cached."""
STATE_TIMEOUT_S = 3.0
"""For a root to answer."""


def live(service: Service, request: Request, wait: bool) -> Answer:
    """GET of /livez: the answer itself proves that the process is alive."""
    return json_answer(200, {"status": "ok"})


def started(service: Service, request: Request, wait: bool) -> Answer:
    """GET of /startupz: the server has started once it listens."""
    return json_answer(200, {"status": "ok"})


async def ready(service: Service, request: Request) -> Answer:
    """GET of /readyz: 503 while a root is away; `?verbose` names it, and says why the audit file can't be written,
    to those who may read the metrics."""
    roots = await service.readiness.look()
    down = any(root["state"] != "ok" for root in roots)
    value: dict[str, Any] = {"status": "unavailable" if down else "ok"}
    verbose = any(word.partition("=")[0] == "verbose" for word in request.raw_query.split("&"))
    if verbose and await service.gate.admits(request, Need.METRICS):
        value["roots"] = roots
        if has_audit_file():
            value["audit"] = audit_trouble() or "ok"
    return json_answer(503 if down else 200, value, [("Retry-After", "5")] if down else ())


class Readiness:
    """The state of each root, checked on request and cached."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen = -STATE_KEPT_S
        self._roots: list[dict[str, str]] = []
        self._turn = asyncio.Lock()

    async def look(self) -> list[dict[str, str]]:
        """One entry per root: its label and its state."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if now - self._seen >= STATE_KEPT_S:
                self._roots, self._seen = await self._probe(), now
        return self._roots

    async def _probe(self) -> list[dict[str, str]]:
        try:
            async with asyncio.timeout(STATE_TIMEOUT_S):
                return await self._service.maintenance(_states, self._service)
        except TimeoutError:
            reason = f"no answer within {STATE_TIMEOUT_S:g} s"
            return [{"root": root.label, "state": reason} for root in self._service.store.roots]


def _states(service: Service) -> list[dict[str, str]]:
    found = ((root.label, root.state()) for root in service.store.roots)
    return [{"root": label, "state": error.message if error else "ok"} for label, error in found]
