"""What is decided between the bytes of a client and the store, over a store that is made up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
import pytest

from tests.http.serving import digest
from tests.http.test_http_deadlines import CONFIG, Line, Skipping
from tests.http.test_http_manifests import manifest
from tests.http.test_http_service import BODY, DONE, Content, FakeStore, FakeUpload, asked
from tests.http.wire import understood
from zotctl.errors import QuotaExceeded
from zotctl.http.body import SMALL_BODY_BYTES
from zotctl.http.service import Service
from zotctl.oci.media_types import OCI_MANIFEST

SESSION = f"/v2/a/blobs/uploads/{DONE}"


class Client:
    """A connection to a service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def head(self, method: str, path: str, *fields: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def answer(self) -> str:
        """The head of an answer."""
        async with asyncio.timeout(10):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def ended(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(20):
            return await self.reader.read()


def talked(store: FakeStore, talk: Callable[[Client, Service], Awaitable[None]]) -> None:
    told = list[Service]()

    async def ask(client: httpx.AsyncClient) -> None:
        url = client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            await talk(Client(reader, writer), told[0])
        finally:
            writer.close()

    asked(store, ask, told=told)


async def happens(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


# -- what a client is told, and when ---------------------------------------------------------------


def test_what_follows_a_refused_request_is_never_taken_for_its_body() -> None:
    """Who is refused before a 100 need not send the body, however small: its next request may come instead."""

    async def talk(client: Client, service: Service) -> None:
        client.head("POST", "/v2/a/blobs/uploads/?digest=none", "Content-Length: 9", "Expect: 100-continue")
        answer = await client.answer()
        assert answer.startswith("HTTP/1.1 400 ") and "Connection: close\r\n" in answer
        client.head("GET", "/v2/")
        assert b"HTTP/1.1" not in await client.ended()

    talked(FakeStore(nonblocking=True), talk)


def test_a_chunk_out_of_order_is_refused_before_it_is_sent() -> None:
    async def talk(client: Client, service: Service) -> None:
        client.head("PATCH", SESSION, "Content-Range: 5-9", "Content-Length: 5", "Expect: 100-continue")
        answer = await client.answer()
        assert answer.startswith("HTTP/1.1 416 ") and "Range: 0-0\r\n" in answer

    talked(FakeStore(nonblocking=True), talk)


def test_who_sends_to_a_full_disk_is_told_at_once() -> None:
    """And not when all of its blob has come, or when it has been silent for too long."""

    async def talk(client: Client, service: Service) -> None:
        client.head("POST", f"/v2/a/blobs/uploads/?digest={digest(BODY)}", f"Content-Length: {len(BODY)}")
        client.writer.write(BODY[: 2 * SMALL_BODY_BYTES])
        assert (await client.answer()).startswith("HTTP/1.1 507 ")

    talked(FakeStore(nonblocking=True), talk)


def test_the_last_answer_closes_the_connection_also_if_it_is_another_one() -> None:
    """The blob can't be read, which is seen when it is to be sent."""
    store = FakeStore(nonblocking=True)
    store.content = Content(BODY[:100], 101)
    store.content.read_at = lambda offset, count: BODY[offset : min(100, offset + count)]  # type: ignore[method-assign]

    async def talk(client: Client, service: Service) -> None:
        client.head("GET", f"/v2/now/blobs/{digest(BODY)}", "Connection: close")
        answer = await client.answer()
        assert answer.startswith("HTTP/1.1 503 ") and "Connection: close\r\n" in answer
        await client.ended()

    talked(store, talk)


def test_a_method_that_nobody_knows_is_not_implemented() -> None:
    assert understood(b"BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").refused == 501


def test_a_head_that_does_not_end_is_a_timeout_of_the_client() -> None:
    """408, by which a client knows that it may send the same again."""
    heard = list[bytes]()

    class Heard(Line):
        def write(self, data: Any) -> None:
            heard.append(bytes(data))
            super().write(data)

    async def wait() -> None:
        line = Heard()
        line.take(1 << 30)
        line.send(b"GET /now HTTP/1.1\r\nHost: ")
        await asyncio.sleep(2 * CONFIG.header_timeout)
        assert b"".join(heard).startswith(b"HTTP/1.1 408 ")

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(wait())


@pytest.mark.parametrize(("weak", "status"), [("", 206), ("W/", 200)], ids=["strong", "weak"])
def test_a_part_follows_on_a_strong_tag_alone(weak: str, status: int) -> None:
    store = FakeStore(nonblocking=True)
    store.content.read_at = lambda offset, count: BODY[offset : offset + count]  # type: ignore[method-assign]

    async def ask(client: httpx.AsyncClient) -> None:
        fields = {"Range": "bytes=0-1", "If-Range": f'{weak}"{digest(BODY)}"'}
        assert (await client.get(f"/v2/now/blobs/{digest(BODY)}", headers=fields)).status_code == status

    asked(store, ask)


def test_a_manifest_beyond_a_quota_is_not_stored() -> None:
    store, told, stored = FakeStore(nonblocking=True), list[Service](), list[str]()

    def refuse(name: str, _: object) -> None:
        raise QuotaExceeded(f"{name} has enough")

    def put_manifest(*args: object) -> dict[str, None]:
        stored.append("one")
        return {}

    async def ask(client: httpx.AsyncClient) -> None:
        cast(Any, told[0]).quotas.check = refuse
        cast(Any, store).put_manifest = put_manifest
        answer = await client.put("/v2/a/manifests/v1", content=manifest(), headers={"Content-Type": OCI_MANIFEST})
        assert (answer.status_code, stored) == (403, [])

    asked(store, ask, told=told)


# -- a session is for one thread at a time ---------------------------------------------------------


class SlowUpload(FakeUpload):
    """Its `slow` step takes until `go`; `steps` has what it did, in order."""

    def __init__(self, slow: str) -> None:
        self._slow, self.steps, self.go = slow, list[str](), threading.Event()

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self._slow:
            assert self.go.wait(20)
            self.steps.append(f"end of {name}")

    def write(self, buffers: list[bytes]) -> None:
        self._step("write")

    def save(self) -> None:
        self._step("save")

    def finish(self, made: str, *, wait: bool = True) -> None:
        self._step("finish")

    def cancel(self) -> None:
        self._step("cancel")

    def close(self) -> None:
        self._step("close")


def _stored_by(upload: SlowUpload) -> FakeStore:
    store = FakeStore(nonblocking=True)
    store.begin_upload = lambda algorithm: upload  # type: ignore[method-assign]
    store.resume_upload = lambda upload_id: upload  # type: ignore[method-assign]
    return store


@pytest.mark.parametrize(
    ("method", "path", "slow", "after"),
    [
        ("PATCH", SESSION, "save", ["close"]),
        ("PUT", f"{SESSION}?digest={digest(BODY)}", "finish", ["close"]),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest(BODY)}", "finish", ["cancel", "close"]),
    ],
    ids=["chunk", "end", "whole"],
)
def test_what_a_stopping_worker_cuts_off_is_closed_behind_its_thread(
    method: str, path: str, slow: str, after: list[str]
) -> None:
    """Else the session would be another worker's, which appends to what is being published."""
    upload = SlowUpload(slow)

    async def talk(client: Client, service: Service) -> None:
        client.head(method, path, f"Content-Length: {len(BODY)}")
        client.writer.write(BODY)
        try:
            await happens(lambda: slow in upload.steps)
            (connection,) = service.connections
            connection.cancel()
            await asyncio.sleep(0.1)
            assert upload.steps[-1] == slow
        finally:
            upload.go.set()
        await happens(lambda: upload.steps[-1] == "close")
        assert upload.steps[upload.steps.index(slow) + 1 :] == [f"end of {slow}", *after]
        assert await client.ended() == b""

    talked(_stored_by(upload), talk)


def test_a_session_whose_body_ends_early_is_closed_behind_its_thread() -> None:
    upload = SlowUpload("write")

    async def talk(client: Client, service: Service) -> None:
        client.head("PATCH", SESSION, f"Content-Length: {len(BODY)}")
        client.writer.write(BODY[:SMALL_BODY_BYTES])
        try:
            await happens(lambda: upload.steps)
            (connection,) = service.connections
            client.writer.write_eof()
            await happens(lambda: connection.at_end)
            await asyncio.sleep(0.1)
            assert upload.steps == ["write"]
        finally:
            upload.go.set()
        assert (await client.answer()).startswith("HTTP/1.1 400 ")
        assert upload.steps == ["write", "end of write", "close"]

    talked(_stored_by(upload), talk)


def test_a_stop_that_waits_for_the_storage_no_longer_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on as long as the process, and nobody closes the session under it."""
    upload = SlowUpload("finish")

    async def talk(client: Client, service: Service) -> None:
        client.head("PUT", f"{SESSION}?digest={digest(BODY)}", f"Content-Length: {len(BODY)}")
        client.writer.write(BODY)
        try:
            await happens(lambda: "finish" in upload.steps)
            (connection,) = service.connections
            task = connection.cancel()
            assert task is not None
            await asyncio.sleep(0.1)
            service.close()
            task.cancel()  # asyncio's, when the loop ends
            await asyncio.wait([task], timeout=10)
            assert task.done() and upload.steps[-1] == "finish"
        finally:
            upload.go.set()
        assert await client.ended() == b""

    talked(_stored_by(upload), talk)
    assert caplog.text == ""
