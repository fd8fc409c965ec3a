"""Attempts to get in, or to learn what is there, without the right to."""

from __future__ import annotations

import asyncio
import json
import re
import select
import signal
import time
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from tests import images
from tests.http.serving import Raw, Server, error_code, push_blob, serving, until
from tests.http.test_http_access import POLICIES, USERS, fill, sent
from tests.logins import users_file
from tests.tools import need
from zotctl.auth.passwords import WAITING_CHECKS
from zotctl.http import lists
from zotctl.http.rounds import Rounds
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage.keys import make_upload_id

IMAGE = images.image("attacked")
MEMORY_KB = 60_000
"""More than a flood may take."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("attacks")
    config = (
        f'[http]\nheader_timeout = "5s"\n[http.auth]\nhtpasswd = "{users_file(home, *USERS, "writers")}"\n{POLICIES}\n'
        f'[log]\naudit = "{home / "audit"}"\n'
    )
    with serving(home, config=config) as started:
        with started.client(auth=("root", "root")) as client:
            for name in ("team/app", "public/app", "hidden/app"):
                fill(client, name)
        yield started
        assert "traceback" not in started.log()


def raw_status(server: Server, method: str, target: str, *headers: str) -> int:
    with Raw(server.port) as raw:
        raw.head(method, target, "Connection: close", *headers)
        return int(raw.rest().split()[1])


@pytest.mark.parametrize(
    "target",
    [
        "/v2/hidden/app/tags/list", "/v2/public/app/../../hidden/app/tags/list", "/v2/hidden%2Fapp/tags/list",
        "/v2/public%2F..%2F..%2Fhidden/app/tags/list", "/v2/HIDDEN/app/tags/list", "//v2/hidden/app/tags/list",
        "/v2//hidden/app/tags/list", "/V2/hidden/app/tags/list", "/v2/./hidden/app/tags/list",
        "/v2/public/app/../hidden/app/tags/list?x", "/v2/public/app%00/../../hidden/app/tags/list",
        "http://elsewhere/v2/hidden/app/tags/list", "HTTPS://x:1@y/v2/hidden/app/tags/list",
        "/v2/hidden/app/tags/list/",
        "/v2/hidden/app/tags/list%20", "/v2/hidden/app/tags/list;x", "/v2/hidden/app/tags//list", "/v2/tags/list",
        "/v2/public/app/tags/list/../../../hidden/app/tags/list", "/v2/hidden\\app/tags/list",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_in(server: Server, target: str) -> None:
    reader = f"Authorization: Basic {b64encode(b'reader:reader').decode()}"
    for headers in ((), (reader,)):
        for method in ("GET", "HEAD"):
            assert raw_status(server, method, target, *headers) in (400, 401, 403, 404), (method, headers)


@pytest.mark.parametrize(
    "method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND", "CONNECT"]
)
def test_no_other_method_tells_what_exists(server: Server, method: str) -> None:
    for kind in (
        "tags/list", "manifests/v1", f"blobs/{digest_of(IMAGE.blobs[0])}", f"referrers/{IMAGE.digest}",
        "blobs/uploads/", "blobs/uploads/00000000-0000-8000-8000-000000000000",
    ):  # fmt: skip
        for login in (None, "reader"):
            basic = f"Authorization: Basic {b64encode(f'{login}:{login}'.encode()).decode()}"
            answers = []
            for name in ("hidden/app", "hidden/no"):
                with Raw(server.port) as raw:
                    raw.head(method, f"/v2/{name}/{kind}", "Connection: close", *((basic,) if login else ()))
                    answers.append(raw.rest())
            told = {re.sub(rb"Date: .*\r\n", b"", answer) for answer in answers}
            assert len(told) == 1, (kind, login)
            assert int(answers[0].split()[1]) in (204, 401, 403, 405)


@pytest.mark.parametrize(
    "login",
    [
        b"\xff\xfe:x", b"\x00:x", b"reader:\x00", b"reader\x00:reader", b"reader:reader\x00", b"reader:" + b"x" * 5000,
        b"a" * 5000 + b":x", b"\n\nfake line:x", b"reader:READER", b"Reader:reader", b" reader:reader", b"reader:",
        b"reader :reader", "b\u00f6se:x".encode(), b"*:*", b"writers:writer", b"root:reader",
    ],
    ids=lambda login: repr(login[:20]),
)  # fmt: skip
def test_odd_logins_are_wrong_and_are_noted(server: Server, login: bytes) -> None:
    assert raw_status(server, "GET", "/v2/", f"Authorization: Basic {b64encode(login).decode()}") == 401
    for line in (server.home / "audit").read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("value", ["Basic", "Basic ", "Basic\t{}", "{}", "Basic {},", "Basic {}, x",
                                   "Basic {} {}", "Digest {}", "Bearer {}", "Basic Basic {}"])  # fmt: skip
def test_odd_spellings_of_a_right_login_are_wrong(server: Server, value: str) -> None:
    right = b64encode(b"root:root").decode()
    assert raw_status(server, "GET", "/v2/", f"Authorization: {value.replace('{}', right)}") == 401


def test_a_user_named_like_a_group_is_not_of_the_group(server: Server) -> None:
    assert sent(server, "writers", "GET", "/v2/_catalog").json()["repositories"] == ["public/app"]
    assert sent(server, "writers", "GET", "/v2/team/app/tags/list").status_code == 403


def test_an_upload_cannot_be_made_up(server: Server) -> None:
    for owner in ("", "writer", "other"):
        made_up = make_upload_id("sha256", time.time(), owner)
        for method in ("PATCH", "PUT", "GET"):
            path = f"/v2/team/app/blobs/uploads/{made_up}?digest={digest_of(b'absent')}"
            headers = {"Content-Type": "application/octet-stream"}
            answer = sent(server, "writer", method, path, content=b"" if method == "GET" else b"x", headers=headers)
            assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN"), (owner, method)


def test_an_upload_has_one_spelling_and_one_repository(server: Server) -> None:
    location = sent(server, "writer", "POST", "/v2/team/app/blobs/uploads/").headers["location"]
    own = location.rpartition("/")[2]
    for path in (
        f"/v2/team/app/blobs/uploads/{own.upper()}", f"/v2/team/app/blobs/uploads/{own.replace('-', '')}",
        f"/v2/team/app/blobs/uploads/{own}%00", f"/v2/team/app/blobs/uploads/..%2fuploads%2f{own}",
        f"/v2/team/other/blobs/uploads/{own}",
    ):  # fmt: skip
        if path.rpartition("/")[2].upper() != path.rpartition("/")[2] or own.upper() != own:
            assert sent(server, "writer", "GET", path).status_code == 404, path


def test_what_is_no_name_is_not_remembered(tmp_path: Path) -> None:
    config = '[[http.access_control.repositories]]\npattern = "**/a*/**/x"\nanonymous_policy = ["read"]\n'
    with serving(tmp_path, config=config) as server, server.client() as client:
        (worker,) = server.workers()
        client.get("/v2/")
        before = resident(worker)
        for number in range(150):
            answer = client.get(f"/v2/{'a/' * 3500}{'b' * 500}{number}/tags/list")
            assert (answer.status_code, error_code(answer)) == (400, "NAME_INVALID")
        assert resident(worker) - before < MEMORY_KB


def resident(pid: int) -> int:
    return int(next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in x).split()[1])


def test_health_names_no_path_to_strangers(server: Server) -> None:
    for login in (None, "reader", "root"):
        answer = sent(server, login, "GET", "/readyz?verbose")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"}), login
    assert sent(server, "prometheus", "GET", "/readyz?verbose").json()["roots"][0]["state"] == "ok"
    with server.client(auth=("prometheus", "wrong")) as client:
        assert client.get("/readyz?verbose").json() == {"status": "ok"}


def test_a_user_who_is_removed_is_out_at_once(tmp_path: Path) -> None:
    users = users_file(tmp_path, "ann", "bob")
    with serving(tmp_path, config=f'[http.auth]\nhtpasswd = "{users}"\n') as server:
        with server.client(auth=("ann", "ann")) as client:
            location = client.post("/v2/a/blobs/uploads/").headers["location"]
            users_file(tmp_path, "bob")
            until(lambda: client.get("/v2/").status_code == 401)
            assert client.patch(location, content=b"x").status_code == 401
        assert sent(server, "bob", "GET", "/v2/").status_code == 200
        for broken in ("", "\0", "bob", "[http\n", "[http.auth]\nhtpasswd = '/absent'\n"):
            if broken.startswith("["):
                server.config_file.write_text(broken)
            else:
                users.write_text(broken or "ann:\n")
            server.send(signal.SIGHUP)
            until(lambda: server.process.poll() is None and sent(server, "bob", "GET", "/v2/").status_code == 200)
            assert sent(server, None, "GET", "/v2/").status_code == 401, broken


def test_repositories_are_counted_when_a_blob_would_make_one(tmp_path: Path) -> None:
    with serving(tmp_path, config="[storage]\nmax_repos = 2\n") as server, server.client() as client:
        fill(client, "one")
        location = client.post("/v2/late/blobs/uploads/").headers["location"]
        push_blob(client, "two", b"without a manifest")
        blob = digest_of(b"x")
        mount = digest_of(images.image("access").blobs[0])
        for answer in (
            client.post("/v2/three/blobs/uploads/"),
            client.post(f"/v2/three/blobs/uploads/?digest={blob}", content=b"x"),
            client.post(f"/v2/three/blobs/uploads/?mount={mount}&from=one"),
            client.put(f"{location}?digest={blob}", content=b"x", headers={"Content-Type": "application/octet-stream"}),
            client.put("/v2/three/manifests/v1", content=IMAGE.manifest, headers={"Content-Type": OCI_MANIFEST}),
        ):
            assert (answer.status_code, error_code(answer)) == (403, "DENIED"), answer.text
        fill(client, "two")
        assert client.get("/v2/_catalog").json()["repositories"] == ["one", "two"]


def test_a_page_of_the_catalog_does_not_look_at_one_repository_at_a_time() -> None:
    names, asked = [f"r{number:05}" for number in range(5000)] + ["zzz"], []

    def repositories(count: int | None, last: str | None) -> list[str]:
        asked.append(count)
        start = bisect_right(names, last or "")
        return names[start:] if count is None else names[start : start + count]

    async def move_bytes(call: Callable[..., list[str]], *args: object) -> list[str]:
        return call(*args)

    store = SimpleNamespace(repositories=repositories)
    service = SimpleNamespace(move_bytes=move_bytes, store=store, rounds=Rounds())
    request = SimpleNamespace(param={"n": "1"}.get, identity=SimpleNamespace(allows=lambda action, name: name == "zzz"))
    answer = asyncio.run(lists.list_repositories(cast(Any, service), cast(Any, request)))
    assert json.loads(answer.body) == {"repositories": ["zzz"]} and not answer.headers
    assert len(asked) < 10 and asked[0] == 2, "the first look is at no more than the page"


def test_a_manifest_of_several_tags_is_kept_where_a_policy_says_so(tmp_path: Path) -> None:
    config = (
        '[[http.access_control.repositories]]\npattern = "**"\n'
        'anonymous_policy = ["read", "create", "update", "delete", "detectManifestCollision"]\n'
    )
    with serving(tmp_path, config=config) as server, server.client() as client:
        fill(client, "a")
        manifest = client.get("/v2/a/manifests/v1")
        path = f"/v2/a/manifests/{manifest.headers['docker-content-digest']}"
        client.put("/v2/a/manifests/v2", content=manifest.content, headers={"Content-Type": OCI_MANIFEST})
        assert client.delete(path).status_code == 409
        assert client.get("/v2/a/tags/list").json()["tags"] == ["v1", "v2"]
        assert client.delete("/v2/a/manifests/v2").status_code == 202
        assert client.delete(path).status_code == 202


# -- floods --------------------------------------------------------------------------------------


def test_a_flood_of_logins_is_bounded_and_others_are_served(tmp_path: Path) -> None:
    users = users_file(tmp_path, "ann", "bob")
    users.write_text(users.read_text() + f"slow:$2b$12${'.' * 53}\n")
    with serving(tmp_path, config=f'[http.auth]\nhtpasswd = "{users}"\n') as server:
        (worker,) = server.workers()
        with server.client(auth=("ann", "ann")) as ann:
            until(lambda: ann.get("/v2/").status_code == 200)
            before = resident(worker)
            raws = [Raw(server.port) for _ in range(WAITING_CHECKS + 40)]
            for number, raw in enumerate(raws):
                raw.head("GET", "/v2/", f"Authorization: Basic {b64encode(b'slow:%d' % number).decode()}")
            assert ann.get("/v2/").status_code == 200, "a login that was right is not checked again"
            elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
            with server.client(auth=("bob", "bob"), transport=elsewhere) as bob:
                assert bob.get("/v2/").status_code == 200, "another client has its turn"
            assert resident(worker) - before < MEMORY_KB
            assert [raws[0].answer()[0], raws[-1].answer()[0]] == [401, 429]
            last = raws.pop(WAITING_CHECKS)
            for raw in raws:
                raw.close()
        assert server.stop() == 0
        assert last.answer()[0] == 429, "who still waits is refused"
        last.close()
        refused = [line for line in server.lines() if "wrong name or password" in line["message"]]
        assert 0 < len(refused) < WAITING_CHECKS / 2, "and the other checks are not made at all"


def test_half_heads_are_bounded_and_others_are_served(server: Server) -> None:
    (worker,) = server.workers()
    before = resident(worker)
    raws = [server.connect() for _ in range(200)]
    try:
        for raw in raws:
            raw.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + b"A" * 8000)
        assert sent(server, "reader", "GET", "/v2/team/app/tags/list").status_code == 200
        assert resident(worker) - before < MEMORY_KB
        for raw in raws[:5]:
            assert raw.rest().startswith(b"HTTP/1.1 408")
    finally:
        for raw in raws:
            raw.close()


def test_a_body_without_a_right_is_not_read(server: Server) -> None:
    """Nor kept: what a client sends meanwhile stays in the kernel."""
    (worker,) = server.workers()
    before = resident(worker)
    for _ in range(20):
        with server.connect() as raw:
            raw.head("POST", "/v2/hidden/app/blobs/uploads/?digest=" + digest_of(b""), "Content-Length: 999999999")
            assert raw.answer()[0] == 401
    assert resident(worker) - before < MEMORY_KB


# -- bearer tokens -------------------------------------------------------------------------------


def test_a_challenge_repeats_only_names(tmp_path: Path) -> None:
    need("joserfc")
    from joserfc import jwk

    (tmp_path / "key.pem").write_bytes(jwk.ECKey.generate_key("P-256").as_pem(private=False))
    config = f"[http.auth.bearer]\nrealm = 'https://a/token'\nservice = 'r'\ncert = '{tmp_path / 'key.pem'}'\n"
    start = 'Bearer realm="https://a/token",service="r"'
    with serving(tmp_path, config=config) as server:
        for target, said in (
            ('/v2/a",realm="http:/e/blobs/uploads/', start),
            ("/v2/a/blobs/uploads/?from=b%22,realm=%22http://e", f'{start},scope="repository:a:pull,push"'),
            ("/v2/a/blobs/uploads/?from=b%0d%0aX-Evil:%20x", f'{start},scope="repository:a:pull,push"'),
        ):
            with Raw(server.port) as raw:
                raw.head("POST", target, "Connection: close")
                status, headers, _ = raw.answer()
            assert (status, headers["www-authenticate"]) == (401, said)


# -- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("X-Forwarded-User: ann",), 200), (("x-forwarded-USER: ann",), 200), (("X_Forwarded_User: ann",), 401),
        (("X-Forwarded-User: ann", "X-Forwarded-User: root"), 401), (("X-Forwarded-User: ann, root",), 401),
        (("X-Forwarded-User: ", "X-Forwarded-User: root"), 401), (("X-Forwarded-User:",), 401),
        (("X-Forwarded-User: \t ",), 401), (("X-Forwarded-Users: root",), 401), (("X-Forwarded-User:\tann",), 200),
    ],
)  # fmt: skip
def test_a_user_by_a_header_is_one_user(proxied: Server, headers: tuple[str, ...], status: int) -> None:
    assert raw_status(proxied, "GET", "/v2/", *headers) == status


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = '[http]\ntrusted_proxies = ["127.0.0.1"]\nuser_header = "X-Forwarded-User"\n'
    with serving(tmp_path_factory.mktemp("proxied"), config=config) as started:
        yield started


def test_names_of_any_bytes_do_no_harm(proxied: Server) -> None:
    for name in (b"\xff\xfe", "b\u00f6se".encode(), b"a" * 8000, b'"\\<script>'):
        with Raw(proxied.port) as raw:
            raw.send(b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX-Forwarded-User: ")
            raw.send(name + b"\r\n\r\n")
            status, headers, _ = raw.answer()
            assert status == 202
            raw.send(b"GET " + headers["location"].encode() + b" HTTP/1.1\r\nHost: x\r\nX-Forwarded-User: ")
            raw.send(name + b"\r\n\r\n")
            assert raw.answer()[0] == 204
    assert "traceback" not in proxied.log()
    for line in proxied.lines():
        assert line


def test_a_wrong_login_waits_and_a_refused_action_does_not(tmp_path: Path) -> None:
    users = users_file(tmp_path, "ann")
    config = (
        f'[http]\ndrain = "1s"\n[http.auth]\nhtpasswd = "{users}"\nfail_delay = "1h"\n'
        '[[http.access_control.repositories]]\npattern = "x"\n'
    )
    with serving(tmp_path, config=config) as server:
        assert sent(server, "ann", "POST", "/v2/y/blobs/uploads/").status_code == 403
        wrong = [f"Basic {b64encode(b'ann:wrong').decode()}", "Basic nonsense", "Bearer ann"]
        raws = [Raw(server.port).head("GET", "/v2/", f"Authorization: {value}") for value in wrong]
        raws.append(Raw(server.port).head("GET", "/v2/", f"Authorization: {wrong[0]}").half_close())
        assert select.select(raws[:3], [], [], 2) == ([], [], [])
        assert raws[3].socket.recv(100).startswith(b"HTTP/1.1 102 Processing\r\n\r\n"), "its answer is to come"
        until(lambda: _under_way(server) == 4)
        for raw in raws:
            raw.close()
        until(lambda: _under_way(server) == 0)


def _under_way(server: Server) -> int:
    """What the server says at SIGUSR1."""
    told = len(server.lines())
    server.send(signal.SIGUSR1)
    return int(until(lambda: [line for line in server.lines()[told:] if "in_flight" in line])[0]["in_flight"])
