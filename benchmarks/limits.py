"""What this machine can do at all, measured in the same run: `python -m benchmarks.limits`."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.load import MIB

_GIB = 1 << 30
_PIECE = 1 * MIB
_SECONDS = 1.0


def _rate(step: Callable[[], int], seconds: float = _SECONDS) -> tuple[float, float]:
    """MiB/s and this process's CPU seconds per GiB of a step that tells the bytes it did."""
    began, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        done += step()
    elapsed, used = time.perf_counter() - began, time.process_time() - cpu
    return done / MIB / elapsed, used / (done / _GIB)


def _sha256_threads(threads: int) -> tuple[float, float]:
    """hashlib lets go of the interpreter for large pieces, so threads are cores."""
    data = os.urandom(_PIECE)

    def hash_once(_: int) -> int:
        state = hashlib.sha256()
        for _ in range(16):
            state.update(data)
        return 16 * _PIECE

    with ThreadPoolExecutor(threads) as pool:
        return _rate(lambda: sum(pool.map(hash_once, range(threads))))


def _openssl(cores: int) -> float | None:
    """MiB/s of `openssl speed` on that many cores, or None without openssl."""
    if not shutil.which("openssl"):
        return None
    command = [
        "openssl",
        "speed",
        "-seconds",
        "1",
        "-bytes",
        str(_PIECE),
        "-multi",
        str(cores),
        "-evp",
        "sha256",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"^(?:evp|sha256)\s.*?([\d.]+)k?\s*$", output, re.IGNORECASE | re.MULTILINE)
    return float(found[1]) * 1000 / MIB if found else None


def _sendfile(folder: str) -> tuple[float, float]:
    """File to a socket of the loopback, whose other end drops the bytes: what a pull can cost at least."""
    path = os.path.join(folder, "sent")
    with open(path, "wb") as file:
        file.write(os.urandom(64 * MIB))
    with socket.create_server(("127.0.0.1", 0)) as listener, open(path, "rb") as file:
        child = _dropper(listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            figures = _rate(lambda: os.sendfile(connection.fileno(), file.fileno(), 0, 64 * MIB))
        os.waitpid(child, 0)
    os.unlink(path)
    return figures


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


def _receive_hash_write(folder: str) -> tuple[float, float]:
    """Loopback, SHA-256, files of 64 MiB, a MiB at a time in one thread: what a push can cost at least."""
    receiving, child = _sender()
    state, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    path = os.path.join(folder, "received")

    def receive() -> int:
        with open(path, "wb", buffering=0) as file:
            for _ in range(64):
                count = receiving.recv_into(buffer, _PIECE, socket.MSG_WAITALL)
                state.update(buffer[:count])
                file.write(buffer[:count])
        return 64 * MIB

    figures = _rate(receive)
    receiving.close()
    os.waitpid(child, 0)
    os.unlink(path)
    return figures


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


def _syncs(folder: str) -> float:
    """New small files a second, each written and flushed by fdatasync, one after the other."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        path = os.path.join(folder, f"synced{done}")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, bytes(500))
        os.fdatasync(fd)
        os.close(fd)
        os.unlink(path)
        done += 1
    return done / (time.perf_counter() - began)


def lines(folder: str) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    for threads in sorted({1, cores}):
        speed, cpu = _sha256_threads(threads)
        yield f"SHA-256, hashlib, {threads} threads: {speed:.0f} MiB/s ({cpu:.2f} CPU-s/GiB)"
        other = _openssl(threads)
        yield f"SHA-256, openssl, {threads} cores: " + ("not installed" if other is None else f"{other:.0f} MiB/s")
    yield "sendfile over loopback: {:.0f} MiB/s ({:.2f} CPU-s/GiB)".format(*_sendfile(folder))
    yield "receive, hash, write: {:.0f} MiB/s ({:.2f} CPU-s/GiB)".format(*_receive_hash_write(folder))
    yield f"new file and fdatasync: {_syncs(folder):.0f}/s"


def show(folder: str) -> None:
    for line in lines(folder):
        print(f"limit: {line}", flush=True)
    print(flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        show(folder)
