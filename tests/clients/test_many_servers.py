"""Several servers on one root, and what happens when some of them end."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import images
from tests.clients.peers import ACCEPT, push_image, put_manifest
from tests.http.serving import Server, digest, push_blob, serving, until
from zotctl.oci.digest import digest_of

PUSHERS = 16
ENOUGH = 20
"""Pushes of each pusher after which a test has seen enough."""


def kill_outright(server: Server) -> None:
    """SIGKILL to the parent and its workers, before any of them can tell another."""
    family = [server.process.pid, *server.workers()]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    server.process.wait(20)


@contextmanager
def servers(home: Path, number: int = 3) -> Iterator[list[Server]]:
    """On one root, which is the first one's; each has two workers."""
    with ExitStack() as stack:
        made = [stack.enter_context(serving(home / "0", workers=2))]
        made += [stack.enter_context(another(home, which, made[0].root)) for which in range(1, number)]
        yield made
        for server in made:
            assert "traceback" not in server.log()


@contextmanager
def another(home: Path, name: object, root: Path) -> Iterator[Server]:
    (home / str(name)).mkdir(parents=True)
    (home / str(name) / "root").symlink_to(root)
    with serving(home / str(name), workers=2) as server:
        yield server


@dataclass
class Pushes:
    """What was pushed: a tag is in `answered` when a server said 201, else in `open` if one may have got it.

    `failures` is what should not have happened: an answer other than 201, or a broken connection to a
    server that lived.
    """

    answered: dict[str, images.Image] = field(default_factory=dict)
    open: dict[str, images.Image] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def push(self, who: int, servers: list[Server], name: str) -> None:
        """Until stopped, round the servers; who loses its connection goes on with the next one."""
        for count in range(10_000):
            if self.stop.is_set():
                return
            tag, made = f"t{who}-{count}", images.image(f"{who} {count}", layers=1)
            server = servers[(who + count) % len(servers)]
            self.open[tag] = made
            try:
                with server.client(verify=False) as client:  # no certificates to read: ten times as fast
                    push_image(client, name, made, tag)
            except httpx.TransportError as error:
                if server.process.poll() is None and not self._dies(server):
                    self.failures.append(f"{tag}: {error!r}")
            except Exception as error:
                self.failures.append(f"{tag}: {error!r}")
            else:
                self.answered[tag] = self.open.pop(tag)

    @staticmethod
    def _dies(server: Server) -> bool:
        with suppress(Exception):
            server.process.wait(5)
        return server.process.poll() is not None


@contextmanager
def pushing(servers: list[Server], name: str = "shared") -> Iterator[Pushes]:
    pushes = Pushes()
    threads = [threading.Thread(target=pushes.push, args=(who, servers, name), daemon=True) for who in range(PUSHERS)]
    for thread in threads:
        thread.start()
    try:
        yield pushes
    finally:
        pushes.stop.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@contextmanager
def looking_at(path: Path) -> Iterator[list[int]]:
    """Reads an index.json all the time, as any foreign tool would: it is there, whole, and never shrinks."""
    stop, sizes = threading.Event(), list[int]()
    failures: list[Any] = []

    def look() -> None:
        while not stop.is_set():
            if not path.exists():
                time.sleep(0.01)
                continue
            try:
                document = json.loads(path.read_bytes())
                assert document["schemaVersion"] == 2
                rows = document["manifests"]
                assert all(row["digest"] and row["size"] > 0 and row["mediaType"] for row in rows)
                assert not sizes or len(rows) >= sizes[-1], "a row is lost"
                sizes.append(len(rows))
            except Exception as error:
                failures.append(repr(error))
                return
            time.sleep(0.02)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        stop.set()
        thread.join(20)
    assert failures == []
    assert sizes


def assert_all_there(pushes: Pushes, servers: list[Server], name: str = "shared") -> None:
    """Every answered push, through every server; of the others, those that are there are whole."""
    for server in servers:
        with server.client() as client:
            tags = client.get(f"/v2/{name}/tags/list").raise_for_status().json()["tags"]
            assert set(pushes.answered) - set(tags) == set()
            assert set(tags) <= set(pushes.answered) | set(pushes.open)
    with servers[0].client(verify=False) as client:
        for tag in tags:
            made = pushes.answered.get(tag) or pushes.open[tag]
            assert client.get(f"/v2/{name}/manifests/{tag}", headers=ACCEPT).content == made.manifest
            for body in made.blobs:
                assert client.get(f"/v2/{name}/blobs/{digest_of(body)}").content == body


@pytest.mark.timeout(240)
def test_one_of_three_servers_is_killed(tmp_path: Path) -> None:
    with servers(tmp_path) as made, looking_at(made[0].root / "shared" / "index.json") as sizes:
        with pushing(made) as pushes:
            until(lambda: len(pushes.answered) >= PUSHERS * ENOUGH / 2, 100)
            kill_outright(made[1])
            until(lambda: len(pushes.answered) >= PUSHERS * ENOUGH, 100)
        assert pushes.failures == []
        alive = [made[0], made[2]]
        assert_all_there(pushes, alive)
        # It comes back on the same root, and sees all of it.
        with another(tmp_path, "again", made[0].root) as again:
            assert_all_there(pushes, [again, *alive])
        assert sizes[-1] >= len(pushes.answered)


@pytest.mark.timeout(240)
def test_workers_die_under_load(tmp_path: Path) -> None:
    """A request in the hands of the worker that dies is lost, and the client sees that; nothing else is."""
    with serving(tmp_path, workers=2) as server:
        pushes = Pushes()
        pushes._dies = lambda server: True  # type: ignore[method-assign, assignment]
        threads = [
            threading.Thread(target=pushes.push, args=(who, [server], "shared"), daemon=True) for who in range(PUSHERS)
        ]
        for thread in threads:
            thread.start()
        try:
            for wanted in (60, 120):
                until(lambda wanted=wanted: len(pushes.answered) >= wanted, 60)  # type: ignore[misc]
                before = server.workers()
                os.kill(before[0], signal.SIGKILL)
                until(lambda old=before: len(server.workers()) == 2 and server.workers() != old)  # type: ignore[misc]
            until(lambda: len(pushes.answered) >= 180, 60)
        finally:
            pushes.stop.set()
            for thread in threads:
                thread.join(60)
        assert pushes.failures == []
        assert_all_there(pushes, [server])
        assert len(server.workers()) == 2
        assert "traceback" not in server.log()


def each_worker(server: Server, most: int = 64) -> Iterator[httpx.Client]:
    """A client for each of the two workers, by connections that are kept open until both have one."""
    found: dict[str, httpx.Client] = {}
    with ExitStack() as stack:
        for _ in range(most):
            client = stack.enter_context(server.client())
            # An error's detail names nothing of the process, but the access log does.
            name = f"probe-{time.monotonic_ns()}"
            client.get(f"/v2/{name}/tags/list")
            (line,) = until(lambda name=name: [line for line in server.lines() if line.get("repository") == name])  # type: ignore[misc]
            found.setdefault(line["request_id"].split("-")[0], client)
            if len(found) == 2:
                break
        assert len(found) == 2, "all connections went to one worker"
        yield from found.values()


def test_a_write_is_seen_at_once_everywhere(tmp_path: Path) -> None:
    with servers(tmp_path) as made, ExitStack() as stack:
        clients = [client for server in made for client in stack.enter_context(_workers(server))]
        assert len(clients) == 6
        for number, writer in enumerate(clients):
            body = images.image(f"{number}", layers=1)
            push_image(writer, "seen", body, "moving", f"n{number}")
            for reader in clients:
                assert reader.get("/v2/seen/manifests/moving", headers=ACCEPT).content == body.manifest
                assert f"n{number}" in reader.get("/v2/seen/tags/list").json()["tags"]
                assert reader.head(f"/v2/seen/blobs/{digest_of(body.blobs[0])}").status_code == 200
        referrer = images.image("referrer", layers=1, subject=body.digest)
        push_image(clients[0], "seen", referrer)
        for reader in clients:
            (row,) = reader.get(f"/v2/seen/referrers/{body.digest}").json()["manifests"]
            assert row["digest"] == str(referrer.digest)
        assert clients[2].delete("/v2/seen/manifests/n0").status_code == 202
        assert clients[3].delete(f"/v2/seen/manifests/{referrer.digest}").status_code == 202
        for reader in clients:
            assert reader.head("/v2/seen/manifests/n0").status_code == 404
            assert "n0" not in reader.get("/v2/seen/tags/list").json()["tags"]
            assert reader.get(f"/v2/seen/referrers/{body.digest}").json()["manifests"] == []
        # A repository that one makes is in every catalog.
        push_image(clients[5], "new/one", images.image("new"), "1.0")
        for reader in clients:
            assert "new/one" in reader.get("/v2/_catalog").json()["repositories"]


@contextmanager
def _workers(server: Server) -> Iterator[list[httpx.Client]]:
    made = each_worker(server)
    try:
        yield [next(made), next(made)]
    finally:
        made.close()  # type: ignore[attr-defined]


def test_an_upload_goes_on_through_another_server(tmp_path: Path) -> None:
    with servers(tmp_path, 2) as made:
        body = os.urandom(300_000)
        location = httpx.post(f"{made[0].url}/v2/a/blobs/uploads/", timeout=60).headers["location"]
        for number in range(3):
            chunk = body[number * 100_000 : (number + 1) * 100_000]
            headers = {"Content-Range": f"{number * 100_000}-{number * 100_000 + len(chunk) - 1}"}
            answer = httpx.patch(made[number % 2].url + location, content=chunk, headers=headers, timeout=60)
            assert answer.status_code == 202, answer.text
        kill_outright(made[0])
        answer = httpx.put(made[1].url + location, params={"digest": digest(body)}, timeout=60)
        assert answer.status_code == 201
        assert httpx.get(f"{made[1].url}/v2/a/blobs/{digest(body)}", timeout=60).content == body


@pytest.mark.timeout(240)
def test_a_rolling_restart(tmp_path: Path) -> None:
    """Servers are replaced one by one, by SIGTERM; clients go to those that are there."""
    with servers(tmp_path) as made, looking_at(made[0].root / "shared" / "index.json"):
        current: list[Server] = list(made)
        with ExitStack() as stack, pushing(current) as pushes:
            for number in range(3):
                wanted = len(pushes.answered) + 40
                until(lambda wanted=wanted: len(pushes.answered) >= wanted, 60)  # type: ignore[misc]
                old = current[number]
                current[number] = stack.enter_context(another(tmp_path, f"next-{number}", made[0].root))
                assert old.stop() == 0
            pushes.stop.set()
        assert pushes.failures == []
    with another(tmp_path, "last", tmp_path / "0" / "root") as last:
        assert_all_there(pushes, [last])


@pytest.mark.timeout(240)
def test_a_reload_loses_no_request(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server, pushing([server]) as pushes:
        for _ in range(2):
            wanted = len(pushes.answered) + 60
            until(lambda wanted=wanted: len(pushes.answered) >= wanted, 60)  # type: ignore[misc]
            before = set(server.workers())
            server.send(signal.SIGHUP)
            until(lambda old=before: len(server.workers()) == 2 and not set(server.workers()) & old, 60)  # type: ignore[misc]
        pushes.stop.set()
        until(lambda: pushes.failures or not pushes.open, 60)
        assert pushes.failures == []
        assert_all_there(pushes, [server])
        assert "traceback" not in server.log()


def test_a_stop_waits_for_an_upload(tmp_path: Path) -> None:
    body = os.urandom(4 << 20)
    halves: queue.Queue[bytes | None] = queue.Queue()
    answers: list[httpx.Response] = []
    with serving(tmp_path, workers=2) as server:

        def upload() -> None:
            url = f"{server.url}/v2/a/blobs/uploads/"
            content = iter(halves.get, None)
            answers.append(httpx.post(url, params={"digest": digest(body)}, content=content, timeout=60))

        thread = threading.Thread(target=upload, daemon=True)
        thread.start()
        halves.put(body[: 2 << 20])
        until(lambda: any((server.root / ".zotctl").rglob("*")) and halves.empty())
        time.sleep(0.5)
        server.send(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        halves.put(body[2 << 20 :])
        halves.put(None)
        thread.join(60)
        assert [answer.status_code for answer in answers] == [201]
        assert server.process.wait(30) == 0
    with serving(tmp_path, workers=2) as server:
        assert httpx.get(f"{server.url}/v2/a/blobs/{digest(body)}", timeout=60).content == body


def test_two_servers_make_one_repository_at_once(tmp_path: Path) -> None:
    with servers(tmp_path, 2) as made:
        image = images.image("race", layers=1)
        failures: list[str] = []
        for number in range(10):
            name = f"race-{number}/deep/er"
            barrier = threading.Barrier(4)

            def push(who: int, name: str = name, barrier: threading.Barrier = barrier) -> None:
                try:
                    with made[who % 2].client() as client:
                        for blob in image.blobs:
                            push_blob(client, name, blob)
                        barrier.wait(20)
                        put_manifest(client, name, image.manifest, f"t{who}")
                except Exception as error:
                    failures.append(repr(error))

            threads = [threading.Thread(target=push, args=(who,), daemon=True) for who in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert failures == []
            for server in made:
                tags = httpx.get(f"{server.url}/v2/{name}/tags/list", timeout=60).json()["tags"]
                assert tags == ["t0", "t1", "t2", "t3"]
