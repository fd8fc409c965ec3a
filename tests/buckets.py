"""A real object store for tests: versitygw on a free port, with a directory that tests can damage and a log that
counts requests. One for each test process; a new bucket for each test.

Another server: ZOTCTL_TEST_S3_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; ZOTCTL_TEST_S3_BUCKET if it can't
make buckets (then each test has a prefix of its own in this one). What needs the log or the disk is skipped there.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.tools import program
from zotctl.storage.bucket.objects.client import BucketSettings, Client

ACCESS, SECRET = "test", "testsecret"
ENDPOINT = os.environ.get("ZOTCTL_TEST_S3_ENDPOINT", "")
BUCKET = os.environ.get("ZOTCTL_TEST_S3_BUCKET", "")
READY = 120.0
LINE = re.compile(
    r"^\S+ (?P<bucket>\S+) \[[^]]*\] \S+ \S+ \S+ s3_(?P<operation>\S+) (?P<key>.*?) /\S* (?P<status>\d+) "
)


class Request(NamedTuple):
    """One line of the server's access log; `operation` as S3 calls it."""

    operation: str
    key: str
    status: int


class Server:
    """versitygw. `stop` and `start` keep the port and the data; `options` as `--max-requests 2`."""

    def __init__(self, data: Path | None = None) -> None:
        """`data`: where it keeps its objects, if that matters."""
        self.directory = Path(tempfile.mkdtemp(prefix="zotctl-s3-"))
        self.data, self.log = data or self.directory / "data", self.directory / "log"
        self.data.mkdir(exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> None:
        assert self.process is None
        command = [program("versitygw"), "--port", f"127.0.0.1:{self.port}", "--access", ACCESS, "--secret", SECRET]
        command += ["--quiet", "--keep-alive", "--access-log", str(self.log), *options, "posix", str(self.data)]
        with open(self.directory / "output", "ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + READY
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process is not None
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"versitygw did not start: {(self.directory / 'output').read_text()}")

    def stop(self, *, kill: bool = True) -> None:
        """By SIGKILL, or by SIGTERM."""
        process, self.process = self.process, None
        if process is not None:
            if kill:
                process.kill()
            else:
                process.terminate()
            process.wait()

    def restart(self, *options: str) -> None:
        self.stop()
        self.start(*options)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)


class Bucket:
    """A new one, empty. `server` is None where tests run against another server."""

    def __init__(self, settings: BucketSettings, server: Server | None) -> None:
        self.settings, self._server = settings, server
        self._logged = self._log_size()

    @property
    def url(self) -> str:
        return self.settings.label

    @property
    def environment(self) -> dict[str, str]:
        """By which a process finds the server."""
        found = {"AWS_ENDPOINT_URL_S3": self.settings.endpoint or "", "AWS_REGION": self.settings.region or ""}
        found |= {"AWS_ACCESS_KEY_ID": self.settings.access_key or "", "AWS_EC2_METADATA_DISABLED": "true"}
        return found | {"AWS_SECRET_ACCESS_KEY": self.settings.secret_key or ""}

    @property
    def server(self) -> Server:
        if self._server is None:
            pytest.skip("needs a server of the test's own")
        return self._server

    def client(self, **changes: object) -> Client:
        return Client(replace(self.settings, **changes))  # type: ignore[arg-type]

    # -- the disk below it ----------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """The file of an object."""
        place = f"{self.settings.prefix}/{key}" if self.settings.prefix else key
        return self.server.data / self.settings.bucket / place

    # -- the access log -------------------------------------------------------------------------

    def requests(self) -> list[Request]:
        """Those of this bucket since the last call, or since it was made."""
        time.sleep(0.02)  # a line follows its reply
        with open(self.server.log, "rb") as log:
            log.seek(self._logged)
            lines = log.read().decode(errors="replace").splitlines()
        self._logged = self._log_size()
        found = [match for line in lines if (match := LINE.match(line))]
        mine = [match for match in found if match["bucket"] == self.settings.bucket or self.settings.bucket in match[0]]
        return [Request(match["operation"], match["key"], int(match["status"])) for match in mine]

    def counts(self) -> Counter[str]:
        """How many of each operation since the last call."""
        return Counter(request.operation for request in self.requests())

    def _log_size(self) -> int:
        return self._server.log.stat().st_size if self._server and self._server.log.exists() else 0


def free_port() -> int:
    """Below those that the kernel gives to others: it is taken only later, when its server starts."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port := 10_000 + secrets.randbelow(22_000)))
            return port


_server: list[Server] = []


def shared_server() -> Server:
    """This test process's."""
    if not _server:
        _server.append(Server())
    return _server[0]


def make_bucket(server: Server | None = None) -> Bucket:
    """`server`: one of the test's own, to be stopped and throttled."""
    if ENDPOINT and server is None:
        return _elsewhere()
    server = server or shared_server()
    name = f"zotctl-{uuid.uuid4().hex[:16]}"
    settings = BucketSettings(name, "root", server.endpoint, "us-east-1", ACCESS, SECRET)
    make(settings)
    return Bucket(settings, server)


def _elsewhere() -> Bucket:
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    region = os.environ.get("AWS_REGION")
    fresh = uuid.uuid4().hex[:16]
    if BUCKET:
        return Bucket(BucketSettings(BUCKET, f"zotctl-tests/{fresh}", ENDPOINT, region, access, secret), None)
    settings = BucketSettings(f"zotctl-{fresh}", "root", ENDPOINT, region, access, secret)
    make(settings)
    return Bucket(settings, None)


def make(settings: BucketSettings) -> None:
    """Make the bucket itself."""
    client = Client(settings)
    client.connection.ask("PUT", "")
    client.close()


def remove(bucket: Bucket) -> None:
    """All objects, and the bucket if a test has made it."""
    client = bucket.client()
    everything = [found.key for found in client.list("")]
    for start in range(0, len(everything), 1000):
        client.execute(client.sign_deletes(everything[start : start + 1000], 60))
    if not BUCKET:
        client.connection.ask("DELETE", "")
    client.close()


def count(requests: Sequence[Request], operation: str) -> int:
    return sum(request.operation == operation for request in requests)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    made = make_bucket()
    yield made
    if made._server is None:
        remove(made)
    else:
        shutil.rmtree(made._server.data / made.settings.bucket, ignore_errors=True)


@pytest.fixture
def own_server() -> Iterator[Server]:
    """One that a test may stop, restart and throttle."""
    made = Server()
    yield made
    made.close()
