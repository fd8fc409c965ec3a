"""Processes and signals."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from tests.cli.running import REPOSITORY
from tests.http.serving import WITHOUT_JOBS, Server, digest, push_blob, serving, until
from zotctl.config import Config, HttpConfig, RootConfig, StorageConfig
from zotctl.http import sockets, supervisor, worker
from zotctl.http.counters import Status
from zotctl.http.listener import Listener
from zotctl.http.protocol import Connection
from zotctl.http.service import Service
from zotctl.http.supervisor import Child, Slot, Supervisor
from zotctl.storage import Store


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_both_workers_serve_and_agree(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        assert len(server.workers()) == 2
        clients = [server.client() for _ in range(16)]
        made = push_blob(clients[0], "a", b"content")
        assert all(client.head(f"/v2/a/blobs/{made}").status_code == 200 for client in clients)
        until(lambda: len({line["request_id"].split("-")[0] for line in server.lines() if "request_id" in line}) == 2)
        # An upload that one worker begins goes on in another.
        location = clients[0].post("/v2/a/blobs/uploads/").headers["location"]
        body = b""
        for number, client in enumerate(clients):
            chunk = os.urandom(70_000) if number % 2 else b"x"
            headers = {"Content-Range": f"{len(body)}-{len(body) + len(chunk) - 1}"}
            assert client.patch(location, content=chunk, headers=headers).status_code == 202
            body += chunk
        assert clients[3].put(location, params={"digest": digest(body)}).status_code == 201
        assert clients[4].get(f"/v2/a/blobs/{digest(body)}").content == body
        for client in clients:
            client.close()


def _wait_for_another(server: Server, before: list[int]) -> None:
    until(lambda: len(server.workers()) == 2 and server.workers() != before)


def test_the_death_of_a_worker(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        for _ in range(2):
            before = server.workers()
            os.kill(before[0], signal.SIGKILL)
            _wait_for_another(server, before)
        for _ in range(20):
            assert httpx.get(f"{server.url}/v2/", timeout=20).status_code == 200
        assert "signal 9" in server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_stop(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, workers=2) as server:
        workers = server.workers()
        idle = server.connect()
        assert idle.head("GET", "/v2/").answer()[0] == 200
        body = os.urandom(3_000_000)
        raw = server.connect()
        path = f"/v2/a/blobs/uploads/?digest={digest(body)}"
        raw.head("POST", path, f"Content-Length: {len(body)}").send(body[:1_500_000]).taken()
        server.send(number)
        assert idle.rest() == b""
        until(lambda: _refused(server.port))
        raw.send(body[1_500_000:])
        status, headers, _ = raw.answer()
        assert (status, headers["connection"]) == (201, "close")
        assert server.process.wait(20) == 0
        assert all(gone(pid) for pid in workers)
        assert "traceback" not in server.log()


PATIENT = """
import os, sys
if "ZOTCTL_MUTANT" in os.environ:
    import tests.mutants.hook
from zotctl.cli import main
from zotctl.http import worker

worker.FAREWELL_S, worker.REPLACED_FAREWELL_S = map(float, (sys.argv.pop(1), sys.argv.pop(1)))
sys.exit(main())
"""
"""For tests that a slow machine may hold up for long."""


def test_a_request_on_its_way_is_answered_by_a_worker_that_stops(tmp_path: Path) -> None:
    with (
        serving(tmp_path, workers=2, program=("-c", PATIENT, "60", "60")) as server,
        server.connect() as used,
        server.connect() as new,
    ):
        assert used.head("GET", "/v2/").answer()[0] == 200
        server.send(signal.SIGTERM)
        until(lambda: _refused(server.port))
        for raw in (used, new):
            status, headers, _ = raw.head("GET", "/v2/").answer()
            assert (status, headers["connection"]) == (200, "close")
            assert raw.rest() == b""
        assert server.process.wait(20) == 0


def test_a_connection_that_a_stopping_worker_took_at_the_last_moment_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop has it, and its service does not know it yet."""
    turns, sock = worker._one_more_turn, socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []

    async def with_a_client() -> None:
        await turns()
        if not clients:
            clients.append(socket.create_connection(sock.getsockname()))
            clients[0].sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(2):
                await asyncio.sleep(0)

    async def stop() -> bytes:
        service = Service(cast(Store, SimpleNamespace(nonblocking=True)), HttpConfig())
        sock.setblocking(False)
        listener = Listener(service, sock)
        await worker._Worker(Config(), sock, worker.Ties(0, 0), cast(Status, None))._shut_down(service, listener)
        service.close()
        with clients[0]:
            clients[0].settimeout(5)
            return clients[0].recv(100)

    monkeypatch.setattr(worker, "_one_more_turn", with_a_client)
    assert asyncio.run(stop()).startswith(b"HTTP/1.1 200 ")


def test_a_worker_that_stops_waits_for_what_began_while_it_said_farewell() -> None:
    """Another request may have ended meanwhile, as the last one for that moment."""

    async def stop() -> None:
        service = SimpleNamespace(in_flight=1, drained=asyncio.Event())
        service.drained.set()
        (sock,) = sockets.listen(sockets.resolve("127.0.0.1", 0), 1)
        with sock:
            stopping = worker._Worker(Config(), sock, worker.Ties(0, 0), cast(Status, None))
            waiting = asyncio.create_task(stopping._drain(cast(Service, service)))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            service.in_flight = 0
            service.drained.set()
            await waiting

    asyncio.run(stop())


@pytest.mark.timeout(120)
def test_a_client_that_pauses_over_a_reload_is_answered(tmp_path: Path) -> None:
    """A push whose client reads its next layer meanwhile. The worker ends with its last connection."""
    with (
        serving(tmp_path, workers=1, program=("-c", PATIENT, "0", "60")) as server,
        server.connect() as paused,
        server.connect() as silent,
    ):
        for raw in (paused, silent):
            assert raw.head("GET", "/v2/").answer()[0] == 200
        (old,) = server.workers()
        server.send(signal.SIGHUP)
        until(lambda: "all workers serve the configuration" in server.log())
        until(lambda: not _listens(old, server.port))
        time.sleep(0.5)  # it would have gone by now
        status, headers, _ = paused.head("GET", "/v2/").answer()
        assert (status, headers["connection"]) == (200, "close")
        assert old in server.workers()
        server.send(signal.SIGTERM)  # now somebody does wait
        assert silent.rest() == b""
        assert server.process.wait(20) == 0


def _listens(pid: int, port: int) -> bool:
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(link)[8:-1] in inodes:
                return True
    return False


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False


def test_the_terminal_signals_everybody(tmp_path: Path) -> None:
    """^C goes to the whole group, and systemd stops the whole group: that is one stop, not two."""
    with serving(tmp_path, workers=2) as server:
        location = httpx.post(f"{server.url}/v2/a/blobs/uploads/", timeout=60).headers["location"]
        raw = server.connect()
        raw.head("PATCH", location, "Content-Length: 100000").send(b"x" * 70_000).taken()
        for number in (signal.SIGINT, signal.SIGTERM):
            for pid in server.workers():
                os.kill(pid, number)
        server.send(signal.SIGTERM)
        until(lambda: _refused(server.port))
        raw.send(b"x" * 30_000)
        assert raw.answer()[0] == 202
        assert server.process.wait(20) == 0


SLOW_TO_START = """
import os, signal, sys, time
if "ZOTCTL_MUTANT" in os.environ:
    import tests.mutants.hook
from zotctl.cli import main
from zotctl.http import supervisor

forget = supervisor._forget_signals

def forgets_late(**options):
    print("forked", os.getpid(), flush=True)
    time.sleep(0.5)
    forget(**options)

supervisor._forget_signals = forgets_late
signal.signal(signal.SIGQUIT, signal.SIG_IGN)
sys.exit(main())
"""


def test_a_signal_while_a_worker_starts_is_not_lost(tmp_path: Path) -> None:
    """It comes to the whole family, between the fork and the worker's own handlers, and from a shell that has it
    ignore SIGQUIT, as for everything that is started with `&`."""
    command = [sys.executable, "-c", SLOW_TO_START, "serve", "--root", str(tmp_path / "root"), "--listen"]
    command += ["127.0.0.1:0", "--workers", "1"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, cwd=REPOSITORY
        ) as process,
    ):
        assert process.stdout is not None
        child = int(process.stdout.readline().removeprefix("forked "))
        os.killpg(process.pid, signal.SIGTERM)
        try:
            assert process.wait(20) == 0
            assert process.stdout.read() == "" and gone(child)
            assert "is killed" not in (tmp_path / "log").read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_second_signal_stops_now(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        location = httpx.post(f"{server.url}/v2/a/blobs/uploads/", timeout=60).headers["location"]
        raw = server.connect()
        raw.head("PATCH", location, "Content-Length: 3000000").send(b"x" * 2_000_000).taken()
        server.send(signal.SIGTERM)
        until(lambda: _refused(server.port))  # two signals at once would be one
        assert server.process.poll() is None
        server.send(signal.SIGTERM)
        assert server.process.wait(10) == 0
    with serving(tmp_path) as server:
        # What had been read is kept, and the upload goes on after the restart.
        assert httpx.get(server.url + location, timeout=60).headers["range"] == "0-1999999"


def test_drain_has_an_end(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain", "1s") as server:
        raw = server.connect()
        raw.head("POST", f"/v2/a/blobs/uploads/?digest={digest(b'x')}", "Content-Length: 100").send(b"x").taken()
        assert server.stop() == 0
        assert "1 requests did not end in time and are cut off" in server.log()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        until(lambda: all(gone(pid) or _is_zombie(pid) for pid in workers))


ORPHAN = """
import os, socket, sys
from zotctl.config import load_config
from zotctl.http import worker
from zotctl.http.counters import StatusBoard
(reader, ready), (life, writer) = os.pipe(), os.pipe()
os.close(reader), os.close(writer)
sock = socket.create_server(("127.0.0.1", 0))
config = load_config(None, options={"storage.roots": [sys.argv[1]]}, environ={})
sys.exit(worker.main(config, sock, worker.Ties(ready, life), StatusBoard(1).row(0)))
"""


@pytest.mark.parametrize("root", ["root", "file"], ids=["starts", "can't start"])
def test_a_worker_whose_parent_died_before_it_was_ready_ends(tmp_path: Path, root: str) -> None:
    """It has nobody to tell. That is no bug, and is not logged as one."""
    (tmp_path / "file").write_text("no directory")
    words = (sys.executable, "-c", ORPHAN, str(tmp_path / root))
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == (root == "root"), done.stderr


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_a_reload(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        before = server.workers()
        stop, failures = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                try:
                    answer = httpx.get(f"{server.url}/v2/", timeout=20)
                    if answer.status_code != 200:
                        failures.append(answer.text)
                except httpx.HTTPError as error:
                    failures.append(repr(error))

        asking = threading.Thread(target=ask)
        asking.start()
        server.config_file.write_text("[http]\ndelete = false\n")
        server.send(signal.SIGHUP)
        until(lambda: len(server.workers()) == 2 and not set(server.workers()) & set(before))
        stop.set()
        asking.join()
        assert failures == []
        made = digest(b"x")
        answer = httpx.delete(f"{server.url}/v2/a/blobs/{made}", timeout=60)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (405, "UNSUPPORTED")
        assert "DELETE" not in answer.headers["allow"]


def test_a_bad_reload_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        before = server.workers()
        server.config_file.write_text("[http]\nno_such_key = 1\n")
        server.send(signal.SIGHUP)
        until(lambda: "no_such_key" in server.log())
        time.sleep(0.3)
        assert server.workers() == before
        assert httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200


HELD_BACK = """
import os, sys, time
if "ZOTCTL_MUTANT" in os.environ:
    import tests.mutants.hook
from zotctl.cli import main
from zotctl.http import supervisor

hold, forget = sys.argv.pop(1), supervisor._forget_signals

def forgets_when_let(**options):
    while os.path.exists(hold):
        time.sleep(0.01)
    forget(**options)

supervisor._forget_signals = forgets_when_let
sys.exit(main())
"""


def test_a_signal_to_reload_while_a_reload_is_under_way_is_not_lost(tmp_path: Path) -> None:
    """Nor is a worker lost, which would serve the configuration of before as long as the server runs."""
    hold, log, config = tmp_path / "hold", tmp_path / "log", tmp_path / "c.toml"
    config.write_text("")
    command = [sys.executable, "-c", HELD_BACK, str(hold), "serve", "--root", str(tmp_path / "root"), "--config"]
    command += [str(config), "--listen", "127.0.0.1:0", "--workers", "1", "--log-format", "json"]
    with (
        log.open("w") as lines,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=lines, text=True, start_new_session=True, cwd=REPOSITORY,
            env={**os.environ, **WITHOUT_JOBS},
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            hold.touch()
            process.send_signal(signal.SIGHUP)
            until(lambda: len(children.read_text().split()) == 2)
            config.write_text("[http]\ndelete = false\n")
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGUSR1)
            until(lambda: "requests under way" in log.read_text())
            assert len(children.read_text().split()) == 2
            hold.unlink()
            until(lambda: log.read_text().count("all workers serve the configuration") == 2)
            until(lambda: len(children.read_text().split()) == 1)
            assert httpx.delete(f"{url}/v2/a/blobs/{digest(b'x')}", timeout=60).status_code == 405
            process.terminate()
            assert process.wait(20) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("starts", [True, False], ids=["the next one starts", "the next one can't start"])
def test_a_worker_that_dies_when_its_successor_starts_has_one_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    config = Config(storage=StorageConfig(roots=(RootConfig(path=str(tmp_path)),)), http=HttpConfig(port=0, workers=1))
    forked: list[Child] = []

    def fork(running: Supervisor, slot: Slot) -> Child:
        forked.append(Child(len(forked), None, -1, time.monotonic(), serving=True))
        return forked[-1]

    monkeypatch.setattr(Supervisor, "_fork", fork)
    monkeypatch.setattr(supervisor, "BACK_OFF_S", (0.0,))
    running = Supervisor(config, sockets.listen(sockets.resolve("127.0.0.1", 0), 1), lambda: None, lambda one: one)
    (slot,) = running.slots
    slot.child, running.started = fork(running, slot), True
    running._restart_all()
    running._ended(forked[0], -signal.SIGKILL)
    running._keep_time()
    assert len(forked) == 2
    if starts:
        running._serving(forked[1])
    else:
        running._ended(forked[1], -signal.SIGKILL)
    running._keep_time()
    assert slot.child is forked[-1] and slot.successor is None
    assert len(forked) == (2 if starts else 3)
    for sock in running.listening:
        sock.close()


def test_a_status_line(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        for _ in range(4):
            assert httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200
        made = digest(b"a body")
        assert (
            httpx.post(f"{server.url}/v2/a/blobs/uploads/?digest={made}", content=b"a body", timeout=60).status_code
            == 201
        )

        def status() -> bool:
            """A worker tells what it has counted every second."""
            server.send(signal.SIGUSR1)
            return any((line["workers"], line["requests"]) == (2, 5) for line in server.lines() if "workers" in line)

        until(status)


def test_one_line_on_standard_output(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        httpx.get(f"{server.url}/v2/", timeout=60)
        server.send(signal.SIGTERM)
        server.process.wait(20)
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


def test_a_port_in_use(tmp_path: Path) -> None:
    with serving(tmp_path / "first", workers=2) as server:
        command = [sys.executable, "-m", "zotctl.cli", "serve", "--root", str(tmp_path / "second")]
        done = subprocess.run(
            [*command, "--listen", f"127.0.0.1:{server.port}"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert done.stdout == ""
        assert "in use" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_root_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    command = [sys.executable, "-m", "zotctl.cli", "serve", "--root", str(tmp_path / "file")]
    done = subprocess.run(
        [*command, "--listen", "127.0.0.1:0", "--workers", "2"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode not in (0, 70)
    assert done.stdout == ""
    assert "file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_warning_beyond_loopback(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        assert "loopback" not in server.log()
    if sockets.resolve("0.0.0.0", 0).is_loopback:
        pytest.fail("0.0.0.0 is every address")


def test_the_same_port_for_all_sockets() -> None:
    listening = sockets.listen(sockets.resolve("127.0.0.1", 0), 3)
    assert len({sock.getsockname() for sock in listening}) == 1
    for sock in listening:
        sock.close()


def test_the_soft_limit_of_open_files_limits_no_connections(tmp_path: Path) -> None:
    """A shell's usual 1,024 is less than the clients of a busy registry."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        with serving(tmp_path, workers=1) as server:
            assert resource.prlimit(server.workers()[0], resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_leave_descriptors_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soft and hard limit are with `ulimit -n 1024`."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert sockets.most_connections() == (1024 - sockets.OTHER_FILES) // 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    assert sockets.most_connections() == sockets.FEWEST_CONNECTIONS
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sockets.most_connections() == sys.maxsize


def test_where_descriptors_are_few_clients_take_turns(caplog: pytest.LogCaptureFixture) -> None:
    """None is refused, and a client that keeps its connection doesn't keep it from others."""
    open_at_once: list[int] = []

    class Watched(set[Connection]):
        def add(self, one: Connection) -> None:
            super().add(one)
            open_at_once.append(len(self))

    async def ask(place: tuple[str, int], sent: list[int]) -> bytes:
        reader, writer = await asyncio.open_connection(*place)
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        sent.append(1)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"connection: close" in head.lower():
            await reader.read()
        writer.close()
        return head

    async def serve() -> list[bytes]:
        (sock,) = sockets.listen(sockets.resolve("127.0.0.1", 0), 1)
        service = Service(cast(Store, SimpleNamespace(nonblocking=True)), HttpConfig())
        service.most_connections = 3
        service.connections = Watched()
        sent: list[int] = []
        asking = asyncio.gather(*(ask(sock.getsockname(), sent) for _ in range(10)))
        while len(sent) < 10:
            await asyncio.sleep(0)
        listener = Listener(service, sock)
        heads = await asking
        listener.close()
        service.close()
        return heads

    heads = asyncio.run(serve())
    assert all(head.startswith(b"HTTP/1.1 200 ") for head in heads)
    assert any(b"connection: close" in head.lower() for head in heads)
    assert max(open_at_once) == 3
    assert "connections have to wait: 3 are open" in caplog.text
