"""What a far bucket costs: `python -m benchmarks.far [--latency MS] [--quick] [ROW ...]`.

The S3 server is versitygw behind a relay that holds back each answer, as a network does; its access log counts the
requests. Each row prints requests, seconds, and the bound by which a time is to be judged: what the same number of
requests would take one after the other. `in turn` = seconds / latency: so many requests were waited for in sequence.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

from benchmarks import layouts
from benchmarks.load import Body
from benchmarks.servers import LOOPBACK, free_port

BUCKET = "bench"
OPERATION = re.compile(r" s3_(\S+) ")
ZOTCTL = [sys.executable, "-m", "zotctl.cli"]


class Relay:
    """Hands bytes on in both directions, the answers `latency` seconds later."""

    def __init__(self, target: int, latency: float) -> None:
        self._target, self._latency, self.port = target, latency, free_port()
        self._loop, started = asyncio.new_event_loop(), threading.Event()

        async def serve() -> None:
            await asyncio.start_server(self._connect, LOOPBACK, self.port, backlog=512)
            started.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            self._loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        started.wait()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, self._target)
        with suppress(ConnectionError):
            there = self._hand_on(reader, there_writer, 0)
            await asyncio.gather(there, self._hand_on(there_reader, writer, self._latency))

    async def _hand_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, latency: float) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:
                    break
                target.write(data)
                await target.drain()
            target.close()

        writing = asyncio.ensure_future(write())
        with suppress(ConnectionError):
            while data := await source.read(1 << 20):
                waiting.put_nowait((self._loop.time() + latency, data))
        waiting.put_nowait((self._loop.time() + latency, b""))
        with suppress(ConnectionError):
            await writing


@dataclass
class Store:
    """The S3 server, near and far. `folder`: where its objects lie as files."""

    folder: Path
    latency: float
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "log"
        self.objects = self.folder / "s3"
        (self.objects / BUCKET).mkdir(parents=True)
        self._port = free_port()
        command = ["versitygw", "--port", f"{LOOPBACK}:{self._port}", "--access", "bench", "--secret", "benchsecret"]
        command += ["--quiet", "--keep-alive", "--access-log", str(self.log), "posix", str(self.objects)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        self._relay = Relay(self._port, self.latency)

    def environ(self, *, far: bool = True) -> dict[str, str]:
        port = self._relay.port if far else self._port
        return {
            **os.environ, "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{port}", "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "benchsecret", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

    def requests(self) -> Counter[str]:
        """So far, by operation."""
        time.sleep(0.05)
        with suppress(FileNotFoundError), self.log.open() as lines:
            return Counter(match[1] for line in lines if (match := OPERATION.search(line)))
        return Counter()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Figure:
    """What a step took, without what any process takes to start and to look at its bucket."""

    seconds: float
    requests: Counter[str]

    @property
    def count(self) -> int:
        return sum(self.requests.values())


def job(store: Store, *arguments: str, far: bool = True) -> Figure:
    before, began = store.requests(), time.monotonic()
    done = subprocess.run([*ZOTCTL, *arguments], env=store.environ(far=far), capture_output=True, text=True)
    took = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.returncode}\n{done.stderr or done.stdout}")
    return Figure(took, store.requests() - before)


def root(place: str) -> str:
    return f"s3://{BUCKET}/{place}"


def fill(store: Store, place: str, content: layouts.Content) -> Path:
    """As layouts in a directory, and the same in the bucket."""
    source = store.folder / f"source-{place}"
    layouts.lay_out(str(source), content)
    job(store, "import-layout", str(source), "--root", root(place), far=False)
    return source


@contextmanager
def served(store: Store, place: str, *, far: bool = True) -> Iterator[http.client.HTTPConnection]:
    port = free_port()
    command = [*ZOTCTL, "serve", "--root", root(place), "--listen", f"{LOOPBACK}:{port}", "--workers", "1"]
    environ = {**store.environ(far=far), "ZOTCTL_STORAGE_GC": "false"}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError):
                connection = http.client.HTTPConnection(LOOPBACK, port)
                connection.request("GET", "/v2/")
                connection.getresponse().read()
                break
            time.sleep(0.1)
        yield connection
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", **headers: str) -> str:
    """Its Location, if it has one."""
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    answer.read()
    if answer.status >= 400 and (method, answer.status) != ("HEAD", 404):
        raise RuntimeError(f"{method} {path}: {answer.status}")
    return urljoin(path, answer.headers.get("Location", ""))


# -- rows ---------------------------------------------------------------------------------------


def import_out(store: Store, size: int) -> Iterator[tuple[str, Figure]]:
    """The other direction is the peer."""
    content = layouts.images(1, size // 3, 2)
    source = fill(store, "out", content)
    yield "into the bucket", job(store, "import-layout", str(source), "--root", root("in"))
    (target := store.folder / "out").mkdir()
    yield "out of the bucket", job(store, "import-layout", root("out"), "--root", str(target))


def gc_again(store: Store, size: int) -> Iterator[tuple[str, Figure]]:
    """Nothing to do, twice; the first run is the peer."""
    fill(store, "gc", layouts.images(1, size // 3, 2))
    yield "gc", job(store, "gc", "--root", root("gc"))
    yield "gc again", job(store, "gc", "--root", root("gc"))


def gc_many(store: Store, size: int) -> Iterator[tuple[str, Figure]]:
    fill(store, "many", layouts.many_repositories(size))
    yield f"gc of {size} repositories", job(store, "gc", "--root", root("many"))
    yield "again", job(store, "gc", "--root", root("many"))


def referrers(store: Store, size: int) -> Iterator[tuple[str, Figure]]:
    fill(store, "tags", {"repo": layouts.tagged(size)})
    for what in (f"first referrers of {size} tags", "of the next process"):
        with served(store, "tags") as connection:
            before, began = store.requests(), time.monotonic()
            ask(connection, "GET", f"/v2/repo/referrers/sha256:{'0' * 64}")
            yield what, Figure(time.monotonic() - began, store.requests() - before)


def push(store: Store, size: int) -> Iterator[tuple[str, Figure]]:
    """A small image as docker and containerd send one: HEAD, POST, PATCH, PUT of each blob, and the manifest."""
    for what, repository in (("first push", "new"), ("into another new repository", "other/new"), ("again", "new")):
        if what == "first push":
            with served(store, "warm") as connection:  # so that the object store is known
                _push(connection, "warm")
        with served(store, "warm") as connection:
            before, began = store.requests(), time.monotonic()
            _push(connection, repository)
            yield what, Figure(time.monotonic() - began, store.requests() - before)


def _push(connection: http.client.HTTPConnection, name: str) -> None:
    config, layer = Body(30), Body(20)
    for blob in (layer, config):
        data = b"".join(piece.data or b"" for piece in blob.pieces())
        ask(connection, "HEAD", f"/v2/{name}/blobs/{blob.digest}")
        place = ask(connection, "POST", f"/v2/{name}/blobs/uploads/")
        place = ask(connection, "PATCH", place, data, Content_Type="application/octet-stream")
        ask(connection, "PUT", f"{place}{'&' if '?' in place else '?'}digest={blob.digest}")
    image = layouts.manifest(config, [layer], mark=name, tag="t")
    ask(connection, "HEAD", f"/v2/{name}/manifests/t")
    ask(connection, "PUT", f"/v2/{name}/manifests/t", image.data, Content_Type=layouts.MANIFEST)


Row = Callable[[Store, int], Iterator[tuple[str, Figure]]]
ROWS: dict[str, tuple[Row, int, int]] = {
    "import": (import_out, 99, 30),
    "gc": (gc_again, 900, 99),
    "gc-many": (gc_many, 200, 50),
    "referrers": (referrers, 1000, 100),
    "push": (push, 1, 1),
}
"""And how many of whatever grows; with --quick."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.far", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="all without any")
    parser.add_argument("--latency", type=float, default=50, metavar="MS", help="of each request (50)")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--detail", action="store_true", help="each operation, too")
    options = parser.parse_args()
    latency = options.latency / 1000
    print(f"{'':40} {'requests':>9} {'s':>7} {'bound s':>8} {'of it':>6} {'in turn':>8}", flush=True)
    for name in options.rows or ROWS:
        row, size, small = ROWS[name]
        folder = Path(tempfile.mkdtemp(prefix="bench-")).resolve()
        store = Store(folder, latency)
        try:
            for what, found in row(store, small if options.quick else size):
                bound = found.count * latency
                figures = f"{found.count:9} {found.seconds:7.1f} {bound:8.1f} {found.seconds / bound:6.2f}"
                print(f"{what:40} {figures} {found.seconds / latency:8.0f}", flush=True)
                if options.detail:
                    print("   ", ", ".join(f"{n} {operation}" for operation, n in found.requests.most_common()))
        finally:
            store.close()
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
