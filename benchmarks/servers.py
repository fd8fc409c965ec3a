"""Servers under measurement: started from a command in a store of their own, or only reached by a URL."""

from __future__ import annotations

import compileall
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.load import Address

LOOPBACK = "127.0.0.1"
BUCKET = "bench"
DISTRIBUTION = "distribution"
CHECKOUT = Path(__file__).resolve().parent.parent
_TICK = os.sysconf("SC_CLK_TCK")
_START_LIMIT = 120.0


@dataclass(frozen=True)
class Server:
    """`how` is a URL, or a command with {port}, {dir} and perhaps {zot_config} or {distribution_config}; on a
    bucket with {s3}, {zot_s3_config}, {distribution_s3_config}."""

    name: str
    how: str

    @property
    def remote(self) -> bool:
        return self.how.startswith("http://")

    @property
    def laid_out(self) -> bool:
        """Whether its store can be made directly as OCI layouts."""
        return not self.remote and "{distribution_config" not in self.how and not self.on_bucket

    @property
    def on_bucket(self) -> bool:
        return "{s3}" in self.how or "_s3_config" in self.how


def parse(text: str) -> Server:
    """NAME=COMMAND or NAME=URL. Raises ValueError."""
    name, equals, how = text.partition("=")
    if not equals or not name or not how:
        raise ValueError(f"{text!r} is not NAME=COMMAND or NAME=URL")
    return Server(name, how)


def _environment() -> dict[str, str]:
    """Without what keeps Python from using bytecode: an installed server has it, as others have their binaries."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def local_servers() -> list[Server]:
    """This checkout, compiled as an installation is, and those peers that are on the PATH."""
    compileall.compile_dir(CHECKOUT / "zotctl", quiet=1)
    python = shlex.quote(sys.executable)
    found = [
        Server("zotctl", f"{python} -m zotctl.cli serve --root {{dir}} --listen {LOOPBACK}:{{port}} --log-level error")
    ]
    if shutil.which("zot"):
        found += [
            Server("zot", "zot serve {zot_config}"),
            Server("zot-nd", "zot serve {zot_config:dedupe=false}"),
        ]
    if shutil.which("olareg"):
        found.append(Server("olareg", "olareg serve --dir {dir} --port {port} --api-delete"))
    if distribution := _distribution():
        found.append(Server(DISTRIBUTION, f"{distribution} serve {{distribution_config}}"))
    return found


def default_servers() -> list[Server]:
    """Those whose stores are layouts, so that they need not be filled by pushing."""
    return [server for server in local_servers() if server.laid_out]


def _distribution() -> str:
    """As its project and as Debian calls it; "" where neither is there."""
    return next((name for name in ("registry", "docker-registry") if shutil.which(name)), "")


def bucket_servers() -> list[Server]:
    """The same on a bucket; the environment says which S3 server that is (benchmarks/s3.py)."""
    python = shlex.quote(sys.executable)
    serve = f"{python} -m zotctl.cli serve --root {{s3}} --listen {LOOPBACK}:{{port}} --log-level error"
    found = [Server("zotctl", serve), Server("zotctl-pool", f"{serve} --dedupe")]
    if shutil.which("zot"):
        found.append(Server("zot", "zot serve {zot_s3_config}"))
    if shutil.which("registry"):  # Debian's docker-registry is built without S3
        found.append(Server(DISTRIBUTION, "registry serve {distribution_s3_config}"))
    return found


def _s3_keys(store: str) -> dict[str, object]:
    """As zot and distribution, which have one driver, call them."""
    return {
        "region": os.environ["AWS_REGION"],
        "regionendpoint": os.environ["AWS_ENDPOINT_URL_S3"],
        "bucket": BUCKET,
        "rootdirectory": f"/{Path(store).name}",
        "accesskey": os.environ["AWS_ACCESS_KEY_ID"],
        "secretkey": os.environ["AWS_SECRET_ACCESS_KEY"],
        "secure": False,
        "forcepathstyle": True,
    }


@dataclass(frozen=True)
class _ZotConfig:
    """`{zot_config}` in a command: a path to zot's smallest config. `{zot_config:gc=false}` changes keys."""

    folder: Path
    store: str
    port: int
    s3: bool = False

    def __format__(self, spec: str) -> str:
        storage: dict[str, object] = {
            "rootDirectory": self.store,
            "dedupe": True,
            "gc": True,
            "gcDelay": "1h",
            "gcInterval": "1h",
            "commit": False,
        }
        for pair in filter(None, spec.split(",")):
            key, _, value = pair.partition("=")
            storage[key] = {"true": True, "false": False}.get(value, value)
        if self.s3:
            storage |= {"dedupe": False, "storageDriver": {"name": "s3", **_s3_keys(self.store)}}
        config = {
            "distSpecVersion": "1.1.1",
            "storage": storage,
            "http": {"address": LOOPBACK, "port": str(self.port)},
            "log": {"level": "error"},
        }
        path = self.folder / "zot.json"
        path.write_text(json.dumps(config))
        return str(path)


@dataclass(frozen=True)
class _DistributionConfig:
    folder: Path
    store: str
    port: int
    s3: bool = False

    def __format__(self, spec: str) -> str:
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {
                **({"s3": _s3_keys(self.store)} if self.s3 else {"filesystem": {"rootdirectory": self.store}}),
                "delete": {"enabled": True},
                "redirect": {"disable": True},  # the bytes are to pass all servers, or none
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": f"{LOOPBACK}:{self.port}"},
        }
        path = self.folder / "distribution.yml"  # JSON is YAML
        path.write_text(json.dumps(config))
        return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Running:
    """A server that answers. `start_ms` is the time from its start to the first 200 of /v2/."""

    def __init__(self, server: Server, store: Path) -> None:
        self.server = server
        self._process: subprocess.Popen[bytes] | None = None
        self.start_ms = 0.0
        if server.remote:
            parts = urlsplit(server.how)
            self.address: Address = (parts.hostname or LOOPBACK, parts.port or 80)
        else:
            self._start(store)

    def _start(self, store: Path) -> None:
        store.mkdir(parents=True, exist_ok=True)
        port = free_port()
        folder = store.parent
        command = self.server.how.format(
            port=port,
            dir=store,
            zot_config=_ZotConfig(folder, str(store), port),
            distribution_config=_DistributionConfig(folder, str(store), port),
            s3=f"s3://{BUCKET}/{store.name}",
            zot_s3_config=_ZotConfig(folder, str(store), port, s3=True),
            distribution_s3_config=_DistributionConfig(folder, str(store), port, s3=True),
        )
        self.address = (LOOPBACK, port)
        self.log = folder / f"{store.name}.log"
        began = time.perf_counter()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                shlex.split(command),
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        try:
            self._wait(began)
        except BaseException:
            self.stop()
            raise

    def _wait(self, began: float) -> None:
        assert self._process is not None
        while not _answers(self.address):
            if self._process.poll() is not None or time.perf_counter() - began > _START_LIMIT:
                tail = self.log.read_text(errors="replace")[-500:]
                raise RuntimeError(f"{self.server.name} did not start: {tail}")
            time.sleep(0.002)
        self.start_ms = (time.perf_counter() - began) * 1000

    def stop(self) -> None:
        """SIGTERM, and after 10 s SIGKILL to what is left of its session."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _tree(self) -> list[int]:
        return tree(self._process.pid) if self._process else []

    def cpu(self) -> float:
        """User and system seconds so far of the tree, those of its dead and awaited children included."""
        return sum(_cpu_ticks(pid) for pid in self._tree()) / _TICK

    def pss_mib(self) -> float:
        """Memory of the whole tree, shared pages counted once between it."""
        return sum(pss_kib(pid) for pid in self._tree()) / 1024

    def peak(self) -> Peak:
        """For a `with` round what is measured."""
        return Peak(self)

    def settle(self, limit: float = 5.0) -> None:
        """Waits until the work after the start is over, or for `limit` seconds."""
        end = time.perf_counter() + limit
        before = self.cpu()
        while self._process and time.perf_counter() < end:
            time.sleep(0.3)
            now = self.cpu()
            if now - before <= 0.01:
                return
            before = now


class Peak:
    """The most memory that a server had while this was open, looked at four times a second: `mib`."""

    def __init__(self, running: Running) -> None:
        self._running, self._over, self.mib = running, threading.Event(), 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self.mib = max(self.mib, self._running.pss_mib())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self.mib = max(self.mib, self._running.pss_mib())


def _answers(address: Address) -> bool:
    try:
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {address[0]}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    pids, todo = [], [pid]
    while todo:
        pids.append(todo.pop())
        try:
            for task in Path(f"/proc/{pids[-1]}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return pids


def _cpu_ticks(pid: int) -> int:
    """utime, stime, cutime, cstime: fields 14 to 17 of proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0
    return sum(int(field) for field in fields[11:15])


def pss_kib(pid: int) -> int:
    """Its memory, of what it shares with others its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
