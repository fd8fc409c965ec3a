"""Listening sockets: one for each worker on one port, so that the kernel spreads connections evenly.

The parent makes and keeps them. A worker that is replaced leaves its queue of connections to the next.
"""

from __future__ import annotations

import ctypes
import errno
import math
import resource
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from zotctl.config import is_loopback
from zotctl.errors import ConfigError, ZotctlError

OTHER_FILES = 128
"""Open files that belong to no connection: of threads that look something up or commit, and of the process itself."""
FEWEST_CONNECTIONS = 8
BACKLOG_CONNECTIONS = 1024
"""That wait in the kernel for a worker."""
_C_INT = (1 << 31) - 1

_WITH_MORE = socket.MSG_MORE | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_send = getattr(ctypes.CDLL(None), "send", None)
if _send is not None:
    _send.argtypes, _send.restype = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_ssize_t


def send_with_more(descriptor: int, data: bytes) -> int:
    """Give `data` to a connected socket, to leave with what follows at once: MSG_MORE of send(2), which no transport
    of asyncio offers. Returns how many bytes it took, 0 if it could not: `write` them, and learn why.
    """
    return max(0, _send(descriptor, data, len(data), _WITH_MORE)) if _send is not None else 0


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: `place` is what `bind` takes for its `family`."""

    family: socket.AddressFamily
    place: tuple[str | int, ...]

    @property
    def port(self) -> int:
        """0: any that is free."""
        return int(self.place[1])

    @property
    def host(self) -> str:
        """The address without its port."""
        return str(self.place[0])

    @property
    def is_loopback(self) -> bool:
        """Whether no other host can reach it."""
        return is_loopback(self.host)


def resolve(host: str, port: int) -> ListenAddress:
    """The first address of a name; all of them for "". Raises ConfigError."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host!r}: {error.strerror or error}") from None
    # "::" takes IPv4 too, where the system has IPv6.
    chosen = next((entry for entry in found if entry[0] == socket.AF_INET6 and not host), found[0])
    return ListenAddress(socket.AddressFamily(chosen[0]), _place(chosen[4]))


def listen(address: ListenAddress, count: int) -> list[socket.socket]:
    """`count` sockets on one address, of which a free port is the same for all.

    The first is bound alone: with SO_REUSEPORT a second server on the port of the first would start
    without an error and take half of its connections. Raises ZotctlError when the port is taken.
    """
    first = _bind(address, shared=False)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound = bound_to(first)
    sockets = [first, *(_bind(bound, shared=True) for _ in range(count - 1))]
    for sock in sockets:
        _start(sock)
    return sockets


def again(address: ListenAddress) -> socket.socket:
    """One more socket on an address where we listen already."""
    sock = _bind(address, shared=True)
    _start(sock)
    return sock


def give_up_after(sock: socket.socket, seconds: float) -> None:
    """Let the kernel cut any connection of this socket whose client confirms nothing of what it was sent for so long.

    It watches over what a process can't: bytes that the kernel took from us, also when we have closed. A reset may be
    lost where a client's window is full, so that the client, and megabytes of answers, would wait for minutes.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(math.ceil(seconds * 1000), _C_INT))


def bound_to(sock: socket.socket) -> ListenAddress:
    """Where a socket listens."""
    return ListenAddress(socket.AddressFamily(sock.family), _place(sock.getsockname()))


def _place(parts: Any) -> tuple[str | int, ...]:
    """What the socket module gives and takes as an address of the two families."""
    return tuple(parts)


def allow_all_files() -> None:
    """Raise this process's limit of open files, and so of connections, as far as it may. It usually begins at 1,024
    (`ulimit -n`), for the sake of programs that use select(2)."""
    with suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def most_connections() -> int:
    """That this process can have, and a file for each of them."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(FEWEST_CONNECTIONS, (files - OTHER_FILES) // 2)


def _start(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.listen(BACKLOG_CONNECTIONS)


def _bind(address: ListenAddress, *, shared: bool) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address.place)
    except OSError as error:
        sock.close()
        raise ZotctlError(_why(address, error)) from error
    return sock


def _why(address: ListenAddress, error: OSError) -> str:
    where = f"cannot listen on {shown(address)}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where}: the port is in use, by another zotctl serve perhaps"
        case errno.EACCES:
            return f"{where}: a port below 1024 needs CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return f"{where}: this machine has no such address"
    return f"{where}: {error.strerror}"


def shown(address: ListenAddress) -> str:
    """HOST:PORT as it stands in a URL."""
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
