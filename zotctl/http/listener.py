"""Takes connections from a listening socket, in the event loop: as many as there are descriptors for.

asyncio's own server takes them as long as there is a descriptor, so that none is left for the files that their
requests ask for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Coroutine

from zotctl.http.service import Service

log = logging.getLogger("zotctl.http")

CONNECTIONS_AT_ONCE = 100
"""That are taken from the socket before others have their turn."""
FULL_PAUSE_S = 0.1
"""For which no connection is taken when there are as many as may be."""
EMPTY_PAUSE_S = 1.0
"""The same when there are no descriptors all the same."""
TOLD_S = 60.0
"""Between two lines in the log about it."""
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """`close` ends the taking, `drop` also what came of it so far."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        self._service, self._sock = service, sock
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = -TOLD_S
        self._start()

    def _start(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    @property
    def beginning(self) -> int:
        """Connections that were taken and that the service does not know yet."""
        return len(self._tasks)

    def close(self) -> None:
        """Take no more connections."""
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def drop(self) -> None:
        """Cut off those that are still beginning."""
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(CONNECTIONS_AT_ONCE):
            most = self._service.most_connections
            if len(self._service.connections) + self.beginning >= most:
                self._pause(FULL_PAUSE_S, f"{most} are open, as many as the limit of open files allows")
                return
            try:
                connection, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTORS:
                    raise
                self._pause(EMPTY_PAUSE_S, str(error.strerror))
                return
            connection.setblocking(False)
            self._take(connection)

    def _pause(self, seconds: float, why: str) -> None:
        if (now := self._loop.time()) - self._told > TOLD_S:
            self._told = now
            log.warning("connections have to wait: %s; raise it (ulimit -n, LimitNOFILE=)", why)
        self._loop.remove_reader(self._sock)
        self._loop.call_later(seconds, self._start)

    def _take(self, connection: socket.socket) -> None:
        self._begin_task(self._connect(connection))

    def _begin_task(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(self._service.connect, connection)
