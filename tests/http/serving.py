"""A server as a process of its own, and clients that no HTTP library would let us be."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from tests.buckets import Bucket
from zotctl.http.access import WAIT_S

START = 180.0
_MUTANT = "import runpy, tests.mutants.hook; runpy.run_module('zotctl.cli', run_name='__main__', alter_sys=True)"
PROGRAM = ["-c", _MUTANT] if "ZOTCTL_MUTANT" in os.environ else ["-m", "zotctl.cli"]
"""What a mutant changes is changed in the server too."""
WITHOUT_JOBS = {"ZOTCTL_STORAGE_GC": "false"}
"""No process for the jobs beside the workers: then the children of a server are its workers."""


def first_line(stream: IO[str]) -> str:
    """ "" if none comes in time. By poll(2), since select(2) takes no descriptor beyond 1,023."""
    poll = select.poll()
    poll.register(stream, select.POLLIN | select.POLLHUP)
    return stream.readline() if poll.poll(START * 1000) else ""


class Server:
    """`zotctl serve` on a free port. Its standard error is kept in a file. `address`: a root elsewhere; `bucket`: that
    is the root. `prefix`: words before the command, which have to end in an exec; `host`: where it listens; `program`:
    what Python runs."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        config: str = "",
        workers: int = 1,
        address: str = "",
        environ: Mapping[str, str] = WITHOUT_JOBS,
        bucket: Bucket | None = None,
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
        program: Sequence[str] = PROGRAM,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.root, self.log_file, self.config_file = (
            home,
            home / "root",
            home / "log",
            home / "c.toml",
        )
        self.bucket = bucket
        if bucket is not None:
            address, environ = bucket.url, {**environ, **bucket.environment}
        self.config_file.write_text(config)
        command = [
            *prefix,
            sys.executable,
            *program,
            "serve",
            "--root",
            address or str(self.root),
            "--workers",
            str(workers),
        ]
        command += [
            "--listen",
            f"{host}:0",
            "--config",
            str(self.config_file),
            "--log-format",
            "json",
            *arguments,
        ]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environ}
            )
        self.line = self._first_line()
        found = re.fullmatch(r"zotctl \S+ serving on (https?://[0-9.]+:(\d+))\n", self.line)
        if found is None:
            self.process.kill()
            raise AssertionError(f"no server: {self.line!r} {self.log()}")
        self.url, self.port = found[1], int(found[2])

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        return first_line(self.process.stdout)

    def log(self) -> str:
        """With the line of a request that was just answered, which is written a moment later."""
        time.sleep(10 * WAIT_S)
        return self.log_file.read_text()

    def lines(self) -> list[dict[str, Any]]:
        whole = self.log().rpartition("\n")[0]  # the last may be under way
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def connect(self) -> Raw:
        return Raw(self.port)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it, however it takes that, and return the exit code."""
        if self.process.poll() is None:
            self.send(number)
        try:
            return self.process.wait(90)
        except subprocess.TimeoutExpired:
            children = self.workers()
            self.process.kill()
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextmanager
def serving(
    home: Path,
    *arguments: str,
    config: str = "",
    workers: int = 1,
    bucket: Bucket | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Server]:
    server = Server(home, *arguments, config=config, workers=workers, bucket=bucket, program=program)
    try:
        yield server
    finally:
        server.stop()


class Raw:
    """A socket to a server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def head(self, method: str, path: str, *headers: str) -> Raw:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
        return self.send("\r\n".join(lines).encode())

    def taken(self) -> Raw:
        """Wait until the server's process has read all that was sent."""
        until(lambda: not self._unread())
        return self

    def _unread(self) -> bool:
        """What was sent is in one of the kernel's two queues, "sent:received", until it is read."""
        ours, theirs = self.socket.getsockname()[1], self.socket.getpeername()[1]
        queues = {}
        for row in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:]):
            ends = tuple(int(end.rpartition(":")[2], 16) for end in row[1:3])
            queues[ends] = [int(count, 16) for count in row[4].split(":")]
        return queues.get((ours, theirs), [1])[0] > 0 or queues.get((theirs, ours), [1, 1])[1] > 0

    def half_close(self) -> Raw:
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def rest(self) -> bytes:
        """Everything until the server closes."""
        parts = []
        try:
            while part := self.socket.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer: status, headers, body."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.socket.recv(65536)
            assert part, f"closed after {data!r}"
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:])}
        while len(body) < int(headers.get("content-length", 0)):
            body += self.socket.recv(65536)
        return int(lines[0].split()[1]), headers, body

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def digest(body: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def push_blob(client: httpx.Client, name: str, body: bytes) -> str:
    made = digest(body)
    client.post(f"/v2/{name}/blobs/uploads/", params={"digest": made}, content=body).raise_for_status()
    return made


def error_code(answer: httpx.Response) -> str:
    """The code of the single error in an answer, which has to be an OCI error."""
    assert answer.headers["content-type"] == "application/json", answer.text
    (error,) = answer.json()["errors"]
    assert re.fullmatch("[A-Z_]+", error["code"])
    assert error["message"]
    return str(error["code"])


def until(condition: Callable[[], Any], seconds: float = 180.0) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)
    return value
