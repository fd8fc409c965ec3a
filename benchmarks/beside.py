"""What requests feel while a job works on the same store: a paced client, and turns of idle and busy.

Three connections, one for each kind of request, send at fixed moments and leave the cores alone otherwise.
A request that had to wait for the one before it counts from the moment at which it was due.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks.layouts import Repository, tagged
from benchmarks.load import ACCEPT, Address

REPOSITORY = "quiet/r"
EVERY = 0.012
"""Seconds between two requests of a kind."""
KINDS = ("get manifest", "head blob", "push 2 kB")


def quiet() -> Repository:
    """The repository that is asked, of which no job takes anything."""
    return tagged(10)


@dataclass
class Times:
    """Seconds, by kind."""

    taken: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def p(self, kind: str, q: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.taken[kind])
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000 if ordered else 0.0

    @property
    def count(self) -> int:
        return min(len(taken) for taken in self.taken.values())


class Client:
    """To one server. Raises RuntimeError for an answer that isn't the expected one."""

    def __init__(self, address: Address, layer: str) -> None:
        self._connections = [_Connection(address, layer) for _ in KINDS]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def play(self, into: Times, more: Callable[[], bool]) -> None:
        """For as long as `more` says."""
        with ThreadPoolExecutor(len(KINDS)) as threads:
            done = [
                threads.submit(connection.play, number, into.taken[kind], more)
                for number, (kind, connection) in enumerate(zip(KINDS, self._connections, strict=True))
            ]
        for one in done:
            one.result()


class _Connection:
    def __init__(self, address: Address, layer: str) -> None:
        self._host = f"Host: {address[0]}:{address[1]}\r\n"
        self._socket = socket.create_connection(address, timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._layer = layer

    def close(self) -> None:
        self._socket.close()

    def play(self, kind: int, taken: list[float], more: Callable[[], bool]) -> None:
        due, turn = time.perf_counter() + kind * EVERY / len(KINDS), 0
        bodies = _bodies()
        body, digest = next(bodies)
        while more():
            if (left := due - time.perf_counter()) > 0:
                time.sleep(left)
                began = time.perf_counter()
            else:
                began = due
            if kind == 0:
                self._ask("GET", f"/v2/{REPOSITORY}/manifests/t{turn % 10}", 200, f"Accept: {ACCEPT}\r\n")
            elif kind == 1:
                self._ask("HEAD", f"/v2/{REPOSITORY}/blobs/{self._layer}", 200)
            else:
                self._push(body, digest)
            taken.append(time.perf_counter() - began)
            if kind == 2:
                body, digest = next(bodies)
            turn, due = turn + 1, due + EVERY

    def _push(self, body: bytes, digest: str) -> None:
        head = self._ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", 202, "Content-Length: 0\r\n")
        where = next(line for line in head.split("\r\n") if line.lower().startswith("location:"))
        path = where.partition(":")[2].strip()
        path = path[path.index("/v2/") :]
        extra = f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n"
        self._ask("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", 201, extra, body)

    def _ask(self, method: str, path: str, want: int, extra: str = "", body: bytes = b"") -> str:
        self._socket.sendall(f"{method} {path} HTTP/1.1\r\n{self._host}{extra}\r\n".encode() + body)
        data = self._receive(b"")
        while b"\r\n\r\n" not in data:
            data = self._receive(data)
        head, _, rest = data.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        if method != "HEAD":
            lengths = [line for line in text.lower().split("\r\n") if line.startswith("content-length:")]
            length = int(lengths[0].partition(":")[2]) if lengths else 0
            while len(rest) < length:
                rest = self._receive(rest)
        if int(text[9:12]) != want:
            raise RuntimeError(f"{method} {path}: {text[9:12]} {rest[:200]!r}")
        return text

    def _receive(self, before: bytes) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed the connection")
        return before + data


def _bodies() -> Iterator[tuple[bytes, str]]:
    while True:
        body = os.urandom(2048)
        yield body, "sha256:" + hashlib.sha256(body).hexdigest()
