"""One worker: an event loop, a store, and a listening socket that it was given.

Everything that must not cross a fork begins here: threads, the loop, the store and its locks.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zotctl import errors
from zotctl.config import Config
from zotctl.errors import ZotctlError
from zotctl.http import tls
from zotctl.http.counters import SharedCounters, Status
from zotctl.http.listener import Listener
from zotctl.http.protocol import LOOK_S
from zotctl.http.ratelimit import SharedRates
from zotctl.http.service import Service
from zotctl.http.sockets import give_up_after
from zotctl.http.uploadlimit import SharedUploads
from zotctl.oci.codec import load_json
from zotctl.storage import Store, open_store

log = logging.getLogger("zotctl.http")

READY = b"ready\n"
REPLACED = signal.SIGUSR2
"""The parent's to a worker that serves: stop, for another one serves in your place."""
CLEAN_UP_TIMEOUT_S = 5.0
"""For what was cut off at the end of `drain` to put its upload in order."""
FAREWELL_S = 1.0
"""For which a stopping worker still takes requests on connections that it has: one may be on its way."""
REPLACED_FAREWELL_S = 10.0
"""The same for a worker in whose place another serves already, so that nobody waits for its end: the client of a push
that is under way may have to read its next layer before it asks again."""
TICK_S = 1.0
"""Between two rounds of chores."""
KERNEL_PATIENCE_S = 2 * LOOK_S
"""Beyond `write_timeout`: where a connection is still ours, it is we who cut it, and say so in the log."""


@dataclass(frozen=True, slots=True)
class Ties:
    """What ties a worker to its parent: pipes, by descriptor, and where it counts.

    `ready` takes READY, or why the worker could not start. `life` ends when the parent does.
    `board`: None without metrics; `row`: the worker's own on it. `rates` and `uploads`: None without
    limits.
    """

    ready: int
    life: int
    board: SharedCounters | None = None
    row: int | None = None
    rates: SharedRates | None = None
    uploads: SharedUploads | None = None


def main(config: Config, sock: socket.socket, ties: Ties, status: Status) -> int:
    """Serve until told to stop; the exit code. Runs in a fresh child."""
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_Worker(config, sock, ties, status).run())
    except ZotctlError as error:
        _tell(ties, json.dumps([type(error).__name__, error.message]).encode())
        return error.exit_code


def _tell(ties: Ties, report: bytes) -> None:
    """To the parent, unless that has died: `life` has ended then, too."""
    with suppress(BrokenPipeError):
        os.write(ties.ready, report)


def failure(report: bytes) -> ZotctlError:
    """The error that a worker reported instead of READY."""
    try:
        name, message = load_json(report)
    except ValueError:
        return ZotctlError("a worker ended before it could serve; the log may say why")
    kind = getattr(errors, name, ZotctlError)
    error: ZotctlError = kind(message)
    return error


class _Worker:
    def __init__(self, config: Config, sock: socket.socket, ties: Ties, status: Status) -> None:
        self._config, self._sock, self._ties, self._status = config, sock, ties, status
        self._stop, self._now = asyncio.Event(), asyncio.Event()
        self._farewell_s = FAREWELL_S

    async def run(self) -> int:
        """Run until stopped. Afterwards signals wake nothing: the loop closes its socket before it forgets them."""
        try:
            return await self._serve()
        finally:
            signal.set_wakeup_fd(-1)

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_loop_error)
        self._listen_to_signals(loop)
        certificates = tls.Certificates(self._config.http.tls) if self._config.http.tls is not None else None
        store = open_store(self._config.storage, serving=True)
        service = self._service(store)
        give_up_after(self._sock, self._config.http.write_timeout + KERNEL_PATIENCE_S)
        listener = (
            Listener(service, self._sock)
            if certificates is None
            else tls.TlsListener(service, certificates, self._sock)
        )
        tick = asyncio.create_task(self._tick(service))
        maintenance = asyncio.create_task(self._maintain(service, certificates))
        _tell(self._ties, READY)
        os.close(self._ties.ready)
        await self._stop.wait()
        await self._shut_down(service, listener)
        tick.cancel()
        await asyncio.wait([maintenance], timeout=CLEAN_UP_TIMEOUT_S)
        service.close()
        store.close()
        return 0

    def _service(self, store: Store) -> Service:
        ties = self._ties
        if ties.board is None:
            http, storage = self._config.http, self._config.storage
            every = self._config.scrub.interval
            return Service(store, http, rates=ties.rates, uploads=ties.uploads, storage=storage, scrubs_every=every)
        from zotctl.http.metrics import measured_service

        return measured_service(store, self._config, ties.board, ties.row, ties.rates, ties.uploads)

    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTERM, self._stop_within, FAREWELL_S)
        loop.add_signal_handler(REPLACED, self._stop_within, REPLACED_FAREWELL_S)
        loop.add_signal_handler(signal.SIGQUIT, self._stop_now)
        loop.add_reader(self._ties.life, self._orphaned, loop)

    def _stop_within(self, farewell_s: float) -> None:
        self._farewell_s = farewell_s
        self._stop.set()

    def _stop_now(self) -> None:
        self._stop.set()
        self._now.set()

    def _orphaned(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._ties.life)
        log.error("the parent process is gone; this worker stops")
        self._stop.set()

    # -- chores ----------------------------------------------------------------------------------

    async def _tick(self, service: Service) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._status.write(len(service.connections), service.in_flight, service.requests)

    async def _maintain(self, service: Service, certificates: tls.Certificates | None) -> None:
        while not self._stop.is_set():
            try:
                if certificates is not None:
                    await service.maintenance(certificates.look)
                await service.maintenance(service.store.maintain)
            except ZotctlError as error:
                log.debug("maintenance: %s", error)
            except Exception:
                log.exception("a bug met maintenance")
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._stop.wait()

    # -- the end ---------------------------------------------------------------------------------

    async def _shut_down(self, service: Service, listener: Listener) -> None:
        service.draining = True
        service.gate.refuse_waiting()
        await _one_more_turn()
        listener.close()
        await self._farewell(service, listener)
        if service.in_flight:
            await self._drain(service)
        await _cut_off(service)

    async def _farewell(self, service: Service, listener: Listener) -> None:
        """The answer to a last request says that the connection ends. Who sends none is cut off."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while len(service.connections) > service.in_flight or listener.beginning:
            if loop.time() - began > min(self._farewell_s, self._config.http.drain) or self._now.is_set():
                break
            await asyncio.sleep(0.02)
        await _one_more_turn()  # where this process got no time, requests have come meanwhile
        listener.drop()
        for connection in list(service.connections):
            if connection.idle:
                connection.close()

    async def _drain(self, service: Service) -> None:
        log.info("waiting for %d requests to end", service.in_flight)
        service.drained.clear()
        waits = [asyncio.create_task(event.wait()) for event in (service.drained, self._now)]
        await asyncio.wait(waits, timeout=self._config.http.drain, return_when=asyncio.FIRST_COMPLETED)
        if service.in_flight:
            log.warning("%d requests did not end in time and are cut off", service.in_flight)


async def _one_more_turn() -> None:
    """Let the loop take the connections that wait in the socket's queue."""
    for _ in range(3):
        await asyncio.sleep(0)


async def _cut_off(service: Service) -> None:
    tasks = [task for connection in service.connections if (task := connection.cancel()) is not None]
    if tasks:
        await asyncio.wait(tasks, timeout=CLEAN_UP_TIMEOUT_S)
    for connection in list(service.connections):
        connection.drop()


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would print: broken handshakes at least, seldom a bug."""
    error = context.get("exception")
    if isinstance(error, (OSError, ConnectionError)):
        log.debug("%s: %s", context["message"], error)
    else:
        log.error("%s", context["message"], exc_info=error)


# -- memory --------------------------------------------------------------------------------------

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

KEPT_HEAP_BYTES = 8 << 20
"""At the end of a heap, that the process keeps."""
LARGEST_ON_HEAP_BYTES = 5 << 20
"""Larger allocations are mapped, and returned at once. Two pieces of a body are smaller."""
HEAPS = 2
"""Threads of one interpreter rarely allocate at the same time, and each heap keeps its own bytes."""


def keep_pieces() -> None:
    """Let the C library keep memory between two pieces of a body, in this process and its forks.

    glibc gives freed memory back to the system as soon as there are some hundred KiB of it at the end of its heap, so
    that each piece is written into pages which have to be made and cleared first: a tenth of what a push costs. Does
    nothing with another C library.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (_TRIM_THRESHOLD, KEPT_HEAP_BYTES),
            (_MMAP_THRESHOLD, LARGEST_ON_HEAP_BYTES),
            (_ARENA_MAX, HEAPS),
        ):
            mallopt(option, value)


def settle_memory() -> None:
    """Before a fork: what was imported stays shared instead of being copied by the collector."""
    gc.collect()
    gc.freeze()
