"""What this machine can do at all, measured in the same run: the floor under the CPU of a push and a pull.

No registry can push a GiB for less than it costs to hash it, to copy it out of the kernel, and to write it to the page
cache; none can pull it for less than `sendfile`. Each of them is measured by itself, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import MIB

_GIB = 1 << 30
_PIECE = MIB // 2
"""The cheapest: larger ones leave the cache of a core between two steps, smaller ones cost more calls."""
_SECONDS = 1.0


class Rate(NamedTuple):
    """MiB a second, and CPU seconds for each GiB."""

    speed: float
    cpu: float


def _rate(step: Callable[[], int], *, count: int = 0, clock: Callable[[], float] = time.thread_time) -> Rate:
    """Of a step that tells the bytes it did: repeated `count` times, or for a second."""
    began, cpu, done, steps = time.perf_counter(), clock(), 0, 0
    while steps < count if count else time.perf_counter() - began < _SECONDS:
        done += step()
        steps += 1
    elapsed, used = time.perf_counter() - began, clock() - cpu
    return Rate(done / MIB / elapsed, used / (done / _GIB))


def pushed(folder: Path, count: int, size: int, *, hashes: bool = True, writes: bool = True) -> Rate:
    """Loopback, SHA-256, `count` files of `size` bytes, a piece at a time in one thread."""
    receiving, child = _sender()
    buffer, files = memoryview(bytearray(_PIECE)), iter(range(count))

    def receive() -> int:
        state, left = hashlib.sha256(), size
        fd = os.open(folder / f"limit{next(files)}" if writes else os.devnull, os.O_WRONLY | os.O_CREAT)
        while left:
            piece = buffer[: receiving.recv_into(buffer, min(_PIECE, left), socket.MSG_WAITALL)]
            if writes:
                os.write(fd, piece)
            if hashes:
                state.update(piece)
            left -= len(piece)
        os.close(fd)
        return size

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _rate(receive, count=count)
    finally:
        receiving.close()
        os.waitpid(child, 0)
        shutil.rmtree(folder)


def pulled(folder: Path, size: int) -> Rate:
    """A file of `size` bytes to a socket of the loopback by `sendfile`; the other end drops the bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sent"
    with path.open("wb") as made:
        for _ in range(max(1, size // MIB)):
            made.write(os.urandom(min(size, MIB)))
    with socket.create_server(("127.0.0.1", 0)) as listener, path.open("rb") as file:
        child = _dropper(listener.getsockname()[1])
        connection, _ = listener.accept()

        def send() -> int:
            at = 0
            while at < size and (sent := os.sendfile(connection.fileno(), file.fileno(), at, size - at)):
                at += sent
            return at

        with connection:
            found = _rate(send)
        os.waitpid(child, 0)
    shutil.rmtree(folder)
    return found


def _hashed() -> Rate:
    data = os.urandom(_PIECE)
    state = hashlib.sha256()

    def step() -> int:
        state.update(data)
        return _PIECE

    return _rate(step)


def replaced(folder: Path, size: int) -> Rate:
    """A file of `size` bytes is written, flushed, and takes the place of the one before, as index.json is by a push:
    times a second, and milliseconds of CPU for each."""
    folder.mkdir(parents=True, exist_ok=True)
    body, new, done = os.urandom(size), folder / "new", 0
    began, cpu = time.perf_counter(), time.thread_time()
    while not done or time.perf_counter() - began < _SECONDS:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT)
        for at in range(0, size, _PIECE):
            os.write(fd, memoryview(body)[at : at + _PIECE])
        os.fdatasync(fd)
        os.close(fd)
        os.rename(new, folder / "index.json")
        done += 1
    found = Rate(done / (time.perf_counter() - began), (time.thread_time() - cpu) * 1000 / done)
    shutil.rmtree(folder)
    return found


def syncs(folder: Path) -> float:
    """New small files a second, each written and flushed by fdatasync, one after the other."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        path = folder / f"synced{done}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, bytes(500))
        os.fdatasync(fd)
        os.close(fd)
        os.unlink(path)
        done += 1
    return done / (time.perf_counter() - began)


def measure(folder: Path) -> dict[str, Rate]:
    """The parts, each by itself."""
    size = 16 * MIB
    return {
        "SHA-256": _hashed(),
        "receive": pushed(folder / "limit", 32, size, hashes=False, writes=False),
        "receive and write to the page cache": pushed(folder / "limit", 32, size, hashes=False),
        "receive, hash, write": pushed(folder / "limit", 32, size),
        "sendfile": pulled(folder / "limit", 64 * MIB),
    }


def _dropper(port: int) -> int:
    """A process that connects and throws away what it gets."""
    child = os.fork()
    if child:
        return child
    buffer = bytearray(16 * MIB)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while connection.recv_into(buffer, len(buffer), socket.MSG_TRUNC):
            pass
    os._exit(0)


def _sender() -> tuple[socket.socket, int]:
    """A connection at whose other end a process sends without end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child:
            return listener.accept()[0], child
        with socket.create_connection(listener.getsockname()) as connection:
            try:
                while True:
                    connection.sendall(bytes(16 * MIB))
            except OSError:
                os._exit(0)
