"""The service over a store that is made up: bugs, storage that is slow, content that is short."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import bcrypt
import httpx
import pytest

from tests.http.serving import digest
from tests.logins import users_file
from zotctl.auth.passwords import CHECK_THREADS
from zotctl.config import AuthConfig, HttpConfig, RateLimit
from zotctl.errors import BlobUnknown, BlobUploadUnknown, Busy, NoSpace, RangeInvalid, Unavailable
from zotctl.http import protocol, sockets, uploads
from zotctl.http.body import SMALL_BODY_BYTES
from zotctl.http.errors import Refused
from zotctl.http.ratelimit import SharedRates
from zotctl.http.service import Service
from zotctl.storage import Store, StoredManifest, WouldBlock, keys

BODY = os.urandom(3_000_000)

DONE = keys.make_upload_id("sha256", 0.0)


class Content:
    """A reader without a descriptor, that may reservation more than it has."""

    def __init__(self, body: bytes, reserved: int) -> None:
        self.body, self.size, self.closed = body, reserved, False

    def fileno(self) -> None:
        return None

    def read_at(self, offset: int, count: int) -> bytes:
        assert threading.current_thread() is not threading.main_thread()
        return self.body[offset : offset + count]

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FakeUpload:
    offset, may_read_ahead = 0, True

    def expect(self, made: str | None = None, size: int | None = None, start: int | None = None) -> None: ...
    def ready(self, count: int) -> bool:
        return True

    def save(self) -> None: ...

    def write(self, buffers: list[bytes]) -> None:
        raise NoSpace("the disk is full")

    def finish(self, made: str, *, wait: bool = True) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> FakeUpload:
        return self

    def __exit__(self, *exc: object) -> None: ...


class FakeStore:
    """A repository and a store in one. `name` decides what happens."""

    roots = ()

    def __init__(self, nonblocking: bool) -> None:
        self.nonblocking = nonblocking
        self.looks: list[bool] = []
        self.content = Content(BODY, len(BODY))
        self.pulled: list[str] = []

    def note_pull(self, digest: str) -> None:
        self.pulled.append(digest)

    def sighting(self, repository: FakeStore, digest: str, size: int, *, is_manifest: bool) -> None:
        return None

    def repository(self, name: str, *, wait: bool = True) -> FakeStore:
        self.looks.append(wait)
        if name == "busy":
            raise Busy("another request has the lock")
        if name == "bug":
            raise KeyError("a bug")
        if not wait and name != "now":
            raise WouldBlock(name)
        return self

    def repository_for_push(self, name: str, *, wait: bool = True) -> FakeStore:
        return self

    def manifest(self, reference: str) -> StoredManifest:
        return StoredManifest(cast(Any, digest(b"{}")), "application/x\r\nEvil: yes", b"{}")

    def redirect(self, made: str) -> None:
        return None

    def open_blob(self, made: str) -> Content:
        return self.content

    def start_upload(self, algorithm: str) -> str:
        return "id"

    def begin_upload(self, algorithm: str) -> FakeUpload:
        return FakeUpload()

    def upload_offset(self, upload_id: str) -> int:
        return 0

    def resume_upload(self, upload_id: str) -> FakeUpload:
        if upload_id == DONE:
            raise BlobUploadUnknown("it was finished")
        return FakeUpload()

    def blob(self, made: str) -> int:
        if made != digest(BODY):
            raise BlobUnknown("not here")
        return len(BODY)


def asked(
    store: FakeStore,
    ask: Callable[[httpx.AsyncClient], Awaitable[None]],
    config: HttpConfig | None = None,
    told: list[Service] | None = None,
    rates: SharedRates | None = None,
) -> None:
    """`told` gets the service."""

    async def main() -> None:
        service = Service(cast(Store, store), config or HttpConfig(), rates=rates)
        if told is not None:
            told.append(service)
        (sock,) = sockets.listen(sockets.resolve("127.0.0.1", 0), 1)
        server = await asyncio.get_running_loop().create_server(service.connect, sock=sock)
        url = f"http://127.0.0.1:{sockets.bound_to(sock).port}"
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            await ask(client)
        async with asyncio.timeout(20):  # a request whose client has left is told so by the socket, a little later
            while service.in_flight:
                await asyncio.sleep(0.01)
        server.close()
        service.close()
        assert service.in_flight == 0

    asyncio.run(main())


def test_where_no_rate_is_limited_guesses_are(tmp_path: Path) -> None:
    """A login that was right is remembered, so that who asks for metrics with one is not refused."""
    auth = AuthConfig(htpasswd=str(users_file(tmp_path, "root")), fail_delay=0.0)
    now = [0]

    async def ask(client: httpx.AsyncClient) -> None:
        async def tells_roots(password: str) -> bool:
            answer = await client.get("/readyz?verbose", auth=("root", password))
            assert answer.status_code == 200
            return "roots" in answer.json()

        assert not await tells_roots("guess")
        assert not await tells_roots("root"), "another check in the same second"
        now[0] += 1_000_000_000
        for _ in range(3):
            assert await tells_roots("root")

    rates = SharedRates(RateLimit(rate=0.001, client_rate=1.0), lambda: now[0])
    asked(FakeStore(nonblocking=True), ask, HttpConfig(auth=auth), rates=rates)


def test_a_look_at_a_manifest_is_no_pull() -> None:
    """By which retention would keep what someone only asks for."""
    store = FakeStore(nonblocking=True)

    async def ask(client: httpx.AsyncClient) -> None:
        for method, pulls in (("HEAD", 0), ("GET", 1), ("HEAD", 1)):
            assert (await client.request(method, "/v2/app/manifests/v1")).status_code == 200
            assert len(store.pulled) == pulls

    asked(store, ask)


def test_a_login_whose_client_has_left_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, go = list[bytes](), threading.Event()

    def checkpw(password: bytes, _: bytes) -> bool:
        checked.append(password)
        return go.wait(60)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    monkeypatch.setattr(protocol, "LOOK_S", 0.01)

    async def happens(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    lines, told = list[asyncio.StreamWriter](), list[Service]()

    async def ask(client: httpx.AsyncClient) -> None:
        (service,) = told

        async def log_in(password: str) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            login = b64encode(f"ann:{password}".encode()).decode()
            writer.write(f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {login}\r\n\r\n".encode())
            lines.append(writer)
            return reader

        for number in range(CHECK_THREADS):
            await log_in(f"busy {number}")
        await happens(lambda: len(checked) == CHECK_THREADS)
        await log_in("left")
        await log_in("shared")
        stays = await log_in("shared")
        await happens(lambda: service.in_flight == CHECK_THREADS + 3)
        for writer in lines[CHECK_THREADS:-1]:
            writer.close()
        await happens(lambda: service.in_flight == CHECK_THREADS + 1)
        go.set()
        assert (await stays.readline()).split()[1] == b"200"
        for writer in lines:
            writer.close()
        await happens(lambda: not service.in_flight)

    config = HttpConfig(auth=AuthConfig(htpasswd=str(users_file(tmp_path, "ann"))))
    try:
        asked(FakeStore(nonblocking=True), ask, config, told)
    finally:
        go.set()
    assert checked[CHECK_THREADS:] == [b"shared"]


@pytest.mark.parametrize("path", ["/v2/bug/tags/list", f"/v2/bug/blobs/{digest(b'')}"])
def test_a_bug(caplog: pytest.LogCaptureFixture, path: str) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get(path)
        assert answer.status_code == 500
        (error,) = answer.json()["errors"]
        assert error["detail"]["request_id"]
        assert "KeyError" not in answer.text
        (record,) = [record for record in caplog.records if record.exc_info]
        assert cast(Any, record).fields["request_id"] == error["detail"]["request_id"]
        assert (await client.get("/v2/")).status_code == 200

    with caplog.at_level(logging.ERROR):
        asked(FakeStore(nonblocking=True), ask)


@pytest.mark.parametrize("nonblocking", [True, False])
def test_storage_that_has_to_wait(nonblocking: bool) -> None:
    store = FakeStore(nonblocking)

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get("/v2/a/manifests/x")
        assert (answer.status_code, answer.content) == (200, b"{}")
        assert "evil" not in answer.headers

    asked(store, ask)
    assert store.looks[-1] is True
    assert (False in store.looks) is nonblocking


def test_storage_that_is_busy() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get("/v2/busy/tags/list")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["errors"][0]["message"] == "the repository is busy; try again"

    asked(FakeStore(nonblocking=True), ask)


@pytest.mark.parametrize("nonblocking", [True, False])
def test_content_without_a_descriptor(nonblocking: bool) -> None:
    store = FakeStore(nonblocking)

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/v2/a/blobs/{digest(BODY)}")
        assert answer.content == BODY

    asked(store, ask)
    assert store.content.closed


def test_i2_content_that_is_short() -> None:
    store = FakeStore(nonblocking=False)
    store.content = Content(BODY, len(BODY) + 1)

    async def ask(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/v2/a/blobs/{digest(BODY)}")

    asked(store, ask)
    assert store.content.closed


class FileContent(Content):
    """The same in a file."""

    def __init__(self, path: Path, body: bytes, reserved: int) -> None:
        super().__init__(body, reserved)
        path.write_bytes(body)
        self.file = path.open("rb")

    def fileno(self) -> int:  # type: ignore[override]
        return self.file.fileno()

    def close(self) -> None:
        super().close()
        self.file.close()


@pytest.mark.parametrize("failure", [errno.EIO, errno.EINVAL])
@pytest.mark.parametrize("before", [0, 100_000, 2_000_000])
def test_i2_what_the_kernel_sent_before_it_failed_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, failure: int
) -> None:
    store, send = FakeStore(nonblocking=True), os.sendfile
    store.content = FileContent(tmp_path / "blob", BODY, len(BODY))

    def fail_behind(target: int, source: int, offset: int, count: int) -> int:
        if offset >= before:
            raise OSError(failure, os.strerror(failure))
        return send(target, source, offset, min(count, before - offset))

    monkeypatch.setattr(os, "sendfile", fail_behind)

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(2):  # a second answer on the connection would show bytes that were too many
            store.content = FileContent(tmp_path / "blob", BODY, len(BODY))
            with nullcontext() if failure == errno.EINVAL else suppress(httpx.RemoteProtocolError):
                assert (await client.get(f"/v2/now/blobs/{digest(BODY)}")).content == BODY

    asked(store, ask)


@pytest.mark.parametrize("taken", [0, 7, 1 << 20])
def test_a_head_that_leaves_with_its_file_is_whole_whatever_the_socket_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    store, send = FakeStore(nonblocking=True), sockets.send_with_more
    monkeypatch.setattr(protocol, "send_with_more", lambda fd, data: send(fd, data[:taken]) if taken else 0)

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            store.content = FileContent(tmp_path / "blob", BODY, len(BODY))
            answer = await client.get(f"/v2/now/blobs/{digest(BODY)}")
            assert (answer.content, answer.headers["docker-content-digest"]) == (BODY, digest(BODY))

    asked(store, ask)


def test_i2_a_file_that_is_cut_short_meanwhile_ends_the_connection(tmp_path: Path) -> None:
    store = FakeStore(nonblocking=True)
    store.content = FileContent(tmp_path / "blob", BODY, len(BODY) + 1)

    async def ask(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"/v2/now/blobs/{digest(BODY)}")

    asked(store, ask)
    assert store.content.closed


def test_a_small_file_that_is_cut_short_is_an_error_and_no_answer(tmp_path: Path) -> None:
    store = FakeStore(nonblocking=True)
    store.content = content = FileContent(tmp_path / "blob", BODY[:100], 101)
    content.read_at = lambda offset, count: content.body[offset : offset + count]  # type: ignore[method-assign]

    async def ask(client: httpx.AsyncClient) -> None:
        assert (await client.get(f"/v2/now/blobs/{digest(BODY)}")).status_code == 503

    asked(store, ask)
    assert content.closed


def test_a_range_that_is_refused_leaves_no_file_open() -> None:
    store = FakeStore(nonblocking=True)

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/v2/now/blobs/{digest(BODY)}", headers={"Range": f"bytes={len(BODY)}-"})
        assert answer.status_code == 416

    asked(store, ask)
    assert store.content.closed


def test_a_chunk_that_another_request_came_before_is_out_of_order() -> None:
    """Between the look at the offset and the lock of the session."""
    upload = SimpleNamespace(offset=5, ended=[])
    upload.close = lambda: upload.ended.append("closed")
    repository = SimpleNamespace(upload_offset=lambda upload_id: 0, resume_upload=lambda upload_id: upload)
    service: Any = SimpleNamespace(
        store=SimpleNamespace(repository_for_push=lambda name, wait=True: repository),
        quotas=SimpleNamespace(check_name=lambda name, wait: None),
        location=str,
    )
    with pytest.raises(Refused) as caught:
        uploads._resume(service, uploads._Chunk("a", "id", 0, 3))
    assert isinstance(caught.value.error, RangeInvalid) and dict(caught.value.headers)["Range"] == "0-4"
    assert upload.ended == ["closed"]


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_full_disk(size: int) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v2/a/blobs/uploads/", params={"digest": digest(b"")}, content=BODY[:size])
        assert answer.status_code == 507
        assert answer.json()["errors"] == [{"code": "DENIED", "message": "the registry's storage is full"}]

    asked(FakeStore(nonblocking=True), ask)


@pytest.mark.parametrize(
    ("made", "status"), [(digest(BODY), 201), (digest(b"not here"), 404)], ids=["here", "not here"]
)
def test_an_end_that_is_sent_again_is_believed_if_the_blob_is_here(made: str, status: int) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.put(f"/v2/a/blobs/uploads/{DONE}", params={"digest": made}, content=b"x")
        assert answer.status_code == status

    asked(FakeStore(nonblocking=False), ask)


class Quick(FakeUpload):
    """`steps` has what it did, and whether that was in the event loop, whose thread made it."""

    def __init__(self, waits: bool) -> None:
        self._waits, self._loop = waits, threading.get_ident()
        self.steps = list[tuple[str, bool]]()

    def _step(self, name: str) -> None:
        self.steps.append((name, threading.get_ident() == self._loop))

    def write(self, buffers: list[bytes]) -> None:
        self._step("write")

    def save(self) -> None:
        self._step("save")

    def finish(self, made: str, *, wait: bool = True) -> None:
        self._step("finish")
        if self._waits and not wait:
            raise WouldBlock

    def cancel(self) -> None:
        self._step("cancel")

    def close(self) -> None:
        self._step("close")


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize(
    ("nonblocking", "waits", "size", "first", "last"),
    [
        (True, False, 10, True, True),
        (True, True, 10, True, False),
        (True, False, SMALL_BODY_BYTES, True, True),
        (True, False, SMALL_BODY_BYTES + 1, False, False),
        (False, False, 10, False, False),
    ],
    ids=["at once", "by a thread in the end", "the largest", "too large", "distant"],
)
def test_a_small_body_is_stored_at_once_if_nothing_makes_it_wait(
    method: str, nonblocking: bool, waits: bool, size: int, first: bool, last: bool
) -> None:
    """The event loop waits for no flush and no lock, and what it has written a thread does not write again."""
    store = FakeStore(nonblocking)
    upload = Quick(waits)
    store.begin_upload = lambda algorithm: upload  # type: ignore[method-assign]
    store.resume_upload = lambda upload_id: upload  # type: ignore[method-assign]
    path = "/v2/a/blobs/uploads/" + ("" if method == "POST" else DONE)
    params = {} if method == "PATCH" else {"digest": digest(BODY)}
    if method == "PATCH":
        expected = [("write", first), ("save", first), ("close", first)]
    elif waits:
        expected = [("write", True), ("finish", True), ("finish", False), ("close", False)]
    else:
        expected = [("write", first), ("finish", last), ("close", last)]

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.request(method, path, params=params, content=BODY[:size])
        assert answer.status_code == (202 if method == "PATCH" else 201)
        assert upload.steps == expected

    asked(store, ask)


def test_a_whole_blob_that_cannot_be_stored_leaves_no_session() -> None:
    """Whatever the reason: the client never learns its id, so nobody could end it."""
    ended = list[str]()

    class Away(FakeUpload):
        def write(self, buffers: list[bytes]) -> None:
            raise Unavailable("the storage is away")

        def cancel(self) -> None:
            ended.append("cancelled")

        def close(self) -> None:
            ended.append("closed")

    store = FakeStore(nonblocking=True)
    store.begin_upload = lambda algorithm: Away()  # type: ignore[method-assign]

    async def ask(client: httpx.AsyncClient) -> None:
        for size in (10, len(BODY)):
            ended.clear()
            answer = await client.post("/v2/a/blobs/uploads/", params={"digest": digest(b"")}, content=BODY[:size])
            assert answer.status_code == 503 and ended == ["cancelled", "closed"]

    asked(store, ask)


@pytest.mark.parametrize("size", [10, len(BODY)])
def test_a_chunk_that_cannot_be_stored_lets_its_session_go(size: int) -> None:
    """Or nobody could go on with it."""
    ended = list[str]()

    class Away(FakeUpload):
        def write(self, buffers: list[bytes]) -> None:
            raise Unavailable("the storage is away")

        def close(self) -> None:
            ended.append("closed")

    store = FakeStore(nonblocking=True)
    store.resume_upload = lambda upload_id: Away()  # type: ignore[method-assign]

    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.patch(f"/v2/a/blobs/uploads/{DONE}", content=BODY[:size])
        assert answer.status_code == 503 and ended == ["closed"]

    asked(store, ask)


def test_an_upload_does_not_wait_for_memory_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = FakeUpload()
    upload.ready = lambda count: False  # type: ignore[method-assign]
    monkeypatch.setattr(uploads, "MEMORY_TIMEOUT_S", 0.0)
    with pytest.raises(Busy, match="memory"):
        asyncio.run(asyncio.wait_for(uploads._memory(cast(Any, upload), 1), 10))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v2/now/manifests/v1", None),
        ("POST", f"/v2/a/blobs/uploads/?digest={digest(b'x')}", b"x"),
        ("PATCH", "/v2/a/blobs/uploads/id", b"x"),
        ("PUT", "/v2/a/manifests/v1", b"{}"),
    ],
    ids=["GET", "POST", "PATCH", "PUT"],
)
@pytest.mark.parametrize("fields", [{}, {"Connection": "close"}], ids=["kept", "closed"])
def test_requests_have_a_rate_however_they_are_answered(
    method: str, path: str, body: bytes | None, fields: dict[str, str]
) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for refused in (False, True):
            answer = await client.request(method, path, content=body, headers=fields)
            assert (answer.status_code == 429) is refused

    asked(FakeStore(nonblocking=True), ask, rates=SharedRates(RateLimit(rate=0.0001)))


def test_a_server_that_stops_waits_for_every_request() -> None:
    store, told, go = FakeStore(nonblocking=False), list[Service](), threading.Event()
    store.content.read_at = lambda offset, count: go.wait(20) and BODY[offset : offset + count]  # type: ignore

    async def ask(client: httpx.AsyncClient) -> None:
        (service,) = told
        slow = asyncio.create_task(client.get(f"/v2/a/blobs/{digest(BODY)}"))
        async with asyncio.timeout(10):
            while not service.in_flight:
                await asyncio.sleep(0.01)
        service.draining = True
        assert (await client.get("/v2/a/manifests/x")).headers["connection"] == "close"
        assert not service.drained.is_set()
        go.set()
        assert (await slow).content == BODY
        await asyncio.wait_for(service.drained.wait(), 10)

    asked(store, ask, told=told)
