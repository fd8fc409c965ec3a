"""What one client may have under way: open uploads, and bytes of their bodies."""

from __future__ import annotations

import os
import signal
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http.serving import Raw, Server, digest, error_code, push_blob, serving, until
from tests.logins import users_file
from zotctl.config import UploadLimits
from zotctl.errors import TooManyRequests
from zotctl.http import uploadlimit
from zotctl.http.uploadlimit import SharedUploads

ANN, BOB = 3 << 40 | 1, 5
"""Keys of clients; the bytes of the first have zeros among them."""
CHUNK = 1 << 20
UPLOADS = "/v2/app/blobs/uploads/"


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


def shared(uploads: int = 0, size: int = 0, clock: Clock | None = None) -> SharedUploads:
    return SharedUploads(UploadLimits(uploads_per_client=uploads, bytes_per_client=size), clock or Clock())


def test_uploads_are_counted_for_each_client() -> None:
    records = shared(uploads=2)
    first = records.begin(ANN, 1, 0)
    records.begin(ANN, 2, 0)
    records.begin(ANN, 2, 0)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 3, 0)
    records.begin(BOB, 3, 0)
    records.end(first, ANN, 1, None)
    records.begin(ANN, 3, 0)


def test_an_upload_that_waits_counts_for_a_minute() -> None:
    clock = Clock()
    records = shared(uploads=1, clock=clock)
    records.end(records.begin(ANN, 1, 0), ANN, 1, waiting=1)
    clock.wait(uploadlimit.LEASE_S / 2)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 2, 0)
    records.end(records.begin(ANN, 1, 0), ANN, 1, waiting=1)
    clock.wait(uploadlimit.LEASE_S - 1)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 2, 0)
    clock.wait(1)
    records.begin(ANN, 2, 0)


def test_an_upload_that_receives_counts_however_long() -> None:
    clock = Clock()
    records = shared(uploads=1, clock=clock)
    records.begin(ANN, 1, 0)
    clock.wait(uploadlimit.LEASE_S * 100)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 2, 0)


def test_bytes_count_while_they_are_sent() -> None:
    records = shared(size=100)
    large = records.begin(ANN, 1, 1000)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 2, 1)
    records.end(large, ANN, 1, waiting=1)
    chunked = records.begin(ANN, 1, 0)
    small = records.begin(ANN, 2, 60)
    assert chunked is not None and small is not None
    records.add_bytes(chunked, 30)
    records.begin(ANN, 3, 10)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 4, 1)
    records.begin(BOB, 4, 100)


def test_a_dead_worker_has_nothing_under_way() -> None:
    records = shared(uploads=1, size=10)
    records.begin(ANN, 1, 10)
    records.forget(os.getpid() + 1)
    with pytest.raises(TooManyRequests):
        records.begin(ANN, 2, 10)
    records.forget(os.getpid())
    records.begin(ANN, 2, 10)


def test_beyond_the_last_record_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    records = shared(uploads=1)
    for number in range(uploadlimit.RECORDS):
        assert records.begin(number + 1, 1, 0) is not None
    assert records.begin(1 << 50, 1, 0) is None
    records.end(None, 1 << 50, 1, waiting=1)
    records.end(5, 6, 1, waiting=None)
    assert records.begin(1 << 50, 1, 0) == 5


# -- through the socket --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("limited")
    config = f"[http.limits]\nuploads_per_client = 2\nbytes_per_client = {4 * CHUNK}\n"
    names = ("ended", "gone", "killed", "other", "unknown", "whole")
    config += f'[http.auth]\nhtpasswd = "{users_file(home, *names)}"\n'
    with serving(home, config=config, workers=3) as started:
        yield started
        assert "traceback" not in started.log()


def post(server: Server, user: str) -> httpx.Response:
    """Begin an upload, on a connection of its own: any worker may get it."""
    return httpx.post(server.url + UPLOADS, auth=(user, user), timeout=60)


def opened(server: Server, user: str) -> str:
    """Where an upload goes on. Not waited for: what has ended counts no more when its answer comes."""
    answer = post(server, user)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def assert_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, error_code(answer)) == (429, "TOOMANYREQUESTS")
    assert int(answer.headers["retry-after"]) >= 1


def sending(server: Server, user: str, location: str, length: int) -> Raw:
    """A PATCH that is counted, and whose body has begun."""
    login = b64encode(f"{user}:{user}".encode()).decode()
    raw = server.connect()
    fields = f"Authorization: Basic {login}", f"Content-Length: {length}", "Expect: 100-continue"
    raw.head("PATCH", location, *fields)
    assert raw.answer()[0] == 100
    return raw.send(b"x" * (length // 2))


def test_open_uploads_end_by_a_finish_a_wrong_digest_and_a_cancel(server: Server) -> None:
    first, second = opened(server, "ended"), opened(server, "ended")
    for _ in range(6):
        assert_refused(post(server, "ended"))
    with server.client(auth=("ended", "ended")) as client:
        assert client.patch(first, content=b"x").status_code == 202
        assert client.patch(first, content=b"x", headers={"Content-Range": "7-7"}).status_code == 416
        assert_refused(post(server, "ended"))
        assert client.put(first, params={"digest": digest(b"x")}).status_code == 201
        wrong = opened(server, "ended")
        assert_refused(post(server, "ended"))
        assert client.put(wrong, params={"digest": digest(b"wrong")}, content=b"x").status_code == 400
        third = opened(server, "ended")
        assert client.delete(second).status_code == 204
        fourth = opened(server, "ended")
        assert_refused(post(server, "ended"))
        assert {client.delete(at).status_code for at in (third, fourth)} == {204}
    assert post(server, "other").status_code == 202


def test_a_push_as_a_whole_counts_and_ends(server: Server) -> None:
    with server.client(auth=("whole", "whole")) as client:
        for number in range(5):
            push_blob(client, "app", b"%d" % number)
            push_blob(client, "app", b"%d" % number * CHUNK)
        locations = [opened(server, "whole") for _ in range(2)]
        assert_refused(client.post(UPLOADS, params={"digest": digest(b"y")}, content=b"y"))
        for location in locations:
            client.delete(location)
        push_blob(client, "app", b"y")


def test_an_upload_that_does_not_exist_counts_not(server: Server) -> None:
    with server.client(auth=("unknown", "unknown")) as client:
        for _ in range(3):
            location = opened(server, "unknown")
            assert client.delete(location).status_code == 204
            assert client.patch(location, content=b"x").status_code == 404


def test_bytes_of_a_client_that_vanishes(server: Server) -> None:
    first, second = opened(server, "gone"), opened(server, "gone")
    with server.client(auth=("gone", "gone")) as client:
        with sending(server, "gone", first, 3 * CHUNK):
            refused = until(lambda: _refused(client.patch(second, content=b"y" * 2 * CHUNK)))
            assert_refused(refused)
            assert client.patch(second, content=b"y").status_code == 202
        until(lambda: client.patch(second, content=b"y" * 2 * CHUNK).status_code == 202)
        for location in (first, second):
            assert client.delete(location).status_code == 204


def _refused(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.status_code == 429 else None


def test_a_killed_worker_has_nothing_under_way(server: Server) -> None:
    first, second = opened(server, "killed"), opened(server, "killed")
    with server.client(auth=("killed", "killed")) as client, sending(server, "killed", first, 3 * CHUNK):
        until(lambda: _refused(client.patch(second, content=b"y" * 2 * CHUNK)))
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)

        def passes() -> bool:
            try:
                return httpx.patch(
                    server.url + second, content=b"y" * 2 * CHUNK, auth=("killed", "killed"), timeout=60
                ).status_code in (202, 416)
            except httpx.TransportError:
                return False

        until(passes)


def test_limits_change_on_reload(tmp_path: Path) -> None:
    with serving(tmp_path, config="[http.limits]\nuploads_per_client = 1\n") as started:

        def begin() -> int:
            return httpx.post(started.url + UPLOADS, timeout=60).status_code

        assert [begin(), begin()] == [202, 429]
        started.config_file.write_text("[http.limits]\nuploads_per_client = 2\n")
        started.send(signal.SIGHUP)
        until(lambda: "all workers serve the configuration as it is now" in started.log())
        assert [begin(), begin(), begin()] == [202, 202, 429]
        started.config_file.write_text("")
        started.send(signal.SIGHUP)
        until(lambda: begin() == 202)
