"""Behind nginx and Caddy, with the configurations of contrib/."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import images
from tests.buckets import free_port
from tests.clients.peers import clean_environment
from tests.clients.secured import (
    NO_LOGIN_WORDS,
    POLICIES,
    PROGRAMS,
    READER,
    WRITER,
    SecuredPeer,
    Session,
    assert_only_logged_in,
    certificate,
    secured_client,
    secured_peer,
)
from tests.clients.test_conformance import assert_passed, conformance
from tests.http.serving import Server, digest, push_blob, serving, until
from tests.logins import users_file
from tests.tools import program

CONTRIB = Path(__file__).parents[2] / "contrib"
PART = bytes(range(256)) * (4 << 12)
PARTS = 6
CLIENT = "127.0.0.7"
"""An address that is no trusted proxy."""
SPOOFED = {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66", "X-Forwarded-User": WRITER}


@dataclass(frozen=True)
class Proxied:
    """A server without TLS, and the port of a proxy in front of it, whose certificate is its own `authority`."""

    server: Server
    port: int
    authority: Path


# -- the proxies ---------------------------------------------------------------------------------


def replaced(text: str, parts: dict[str, str]) -> str:
    for old, new in parts.items():
        assert text.count(old) == 1, f"{old!r} is not in the configuration"
        text = text.replace(old, new)
    return text


def nginx(home: Path, upstream: int, port: int, *, asks: bool) -> list[str]:
    """The command that runs it."""
    site = (CONTRIB / "nginx" / ("zotctl-login.conf" if asks else "zotctl.conf")).read_text()
    if asks:
        site = replaced(site, {"/etc/nginx/users": str(home / "users")})
    site = replaced(
        site,
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/nginx/cert.pem": str(home / "cert.pem"),
            "/etc/nginx/key.pem": str(home / "key.pem"),
            "127.0.0.1:5000": f"127.0.0.1:{upstream}",
        },
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {kind}_temp_path {home / kind};\n" for kind in kinds)
    general = f"daemon off;\nmaster_process off;\npid {home / 'nginx.pid'};\nevents {{}}\n"
    (home / "nginx.conf").write_text(f"{general}http {{\n    access_log off;\n{paths}{site}}}\n")
    return [program("nginx"), "-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr"]


def caddy(home: Path, upstream: int, port: int, *, asks: bool) -> list[str]:
    """The command that runs it."""
    site = (CONTRIB / "caddy" / ("Caddyfile.login" if asks else "Caddyfile")).read_text()
    if asks:
        (home / "caddy-users").write_text((home / "users").read_text().replace(":", " "))
        site = replaced(site, {"import /etc/caddy/users": f"import {home / 'caddy-users'}"})
    own = f"https://127.0.0.1:{port} {{\n    tls {home / 'cert.pem'} {home / 'key.pem'}\n"
    site = replaced(site, {"registry.example {\n": own, "127.0.0.1:5000": f"127.0.0.1:{upstream}"})
    # No port that another test may want.
    general = "{\n    admin off\n    auto_https disable_redirects\n    servers {\n        protocols h1 h2\n    }\n}\n"
    (home / "Caddyfile").write_text(f"{general}{site}")
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(home / "Caddyfile")]


PROXIES = {"nginx": nginx, "caddy": caddy}


@contextmanager
def behind(proxy: str, home: Path, *, asks: bool) -> Iterator[Proxied]:
    """`asks`: for the login, which otherwise the server does."""
    program(proxy)
    authority, _ = certificate(home)
    users, port = users_file(home, WRITER, READER), free_port()
    config = '[http]\ntrusted_proxies = ["127.0.0.1"]\nuser_header = "X-Forwarded-User"\n'
    config += POLICIES if asks else f'[http.auth]\nhtpasswd = "{users}"\n{POLICIES}'
    with serving(home / "server", config=config, workers=2) as server, (home / "proxy.log").open("wb") as log:
        command = PROXIES[proxy](home, server.port, port, asks=asks)
        process = subprocess.Popen(command, cwd=home, env=clean_environment(home), stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is not None or _answers(port, authority))
            assert process.poll() is None, (home / "proxy.log").read_text()
            yield Proxied(server, port, authority)
        finally:
            process.terminate()
            process.wait(30)
        assert "traceback" not in server.log()


def _answers(port: int, authority: Path) -> bool:
    try:
        with secured_client(port, authority) as client:
            return client.get("/v2/").status_code in (200, 401)
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module", params=PROXIES)
def proxied(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Proxied]:
    with behind(request.param, tmp_path_factory.mktemp(request.param), asks=False) as made:
        yield made


@pytest.fixture
def own(proxied: Proxied, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SecuredPeer]:
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_")).strip("-")
    with secured_peer(proxied.server, proxied.authority, proxied.port, tmp_path / "home", name) as peer:
        yield peer


# -- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_log_in(own: SecuredPeer, name: str) -> None:
    session = Session(name, own)
    assert_only_logged_in(session)
    session.clean_up()


def test_the_conformance_program(own: SecuredPeer) -> None:
    login = {"OCI_TLS": "enabled", "OCI_USERNAME": WRITER, "OCI_PASSWORD": WRITER}
    assert_passed(conformance(own.home / "results", own.host, "1.1", own.environment() | login), own.home / "results")


def test_the_log_names_the_client(proxied: Proxied) -> None:
    agent = {"User-Agent": "names the client"}
    with secured_client(proxied.port, proxied.authority, READER, CLIENT) as client:
        assert client.get("/v2/absent/tags/list", headers=SPOOFED | agent).status_code == 404

    def found() -> list[dict[str, object]]:
        return [line for line in proxied.server.lines() if line.get("user_agent") == "names the client"]

    (line,) = until(found)
    assert (line["client"], line["user"], line["status"]) == (CLIENT, READER, 404)


def test_the_server_asks_and_no_header_is_a_login(proxied: Proxied) -> None:
    with secured_client(proxied.port, proxied.authority) as client:
        assert client.get("/v2/absent/tags/list", headers=SPOOFED).status_code == 401
        wrong = client.get("/v2/absent/tags/list", headers=SPOOFED, auth=(WRITER, "wrong"))
        assert wrong.status_code == 401


@pytest.mark.parametrize("chunked", [True, False])
def test_a_push_is_passed_on_while_it_comes(own: SecuredPeer, chunked: bool) -> None:
    """The server has the first half before the client sends the second."""
    root, name = own.server.root, own.name
    before = _bytes_below(root)

    def parts() -> Iterator[bytes]:
        for number in range(PARTS):
            if number == PARTS // 2:
                until(lambda: _bytes_below(root) >= before + len(PART))
            yield PART

    location = own.client.post(f"/v2/{name}/blobs/uploads/").raise_for_status().headers["location"]
    length = {} if chunked else {"Content-Length": str(len(PART) * PARTS)}
    answer = own.client.patch(location, content=parts(), headers=length)
    assert answer.status_code == 202, answer.text
    made = digest(PART * PARTS)
    answer = own.client.put(answer.headers["location"], params={"digest": made})
    assert answer.status_code == 201, answer.text
    assert own.client.get(f"/v2/{name}/blobs/{made}").content == PART * PARTS
    wanted = {"Range": "bytes=0-9,1000000-1000009"}
    answer = own.client.get(f"/v2/{name}/blobs/{made}", headers=wanted)
    assert (answer.status_code, PART[:10] in answer.content) == (206, True)


def _bytes_below(root: Path) -> int:
    """Blocks, since a file may have its length before its bytes."""
    return sum(_allocated(Path(directory) / name) for directory, _, names in os.walk(root) for name in names)


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_proxy_asks_for_the_login(tmp_path: Path, proxy: str) -> None:
    with behind(proxy, tmp_path, asks=True) as found:
        for user, password in (("", ""), (WRITER, "wrong")):
            with secured_client(found.port, found.authority) as client:
                answer = client.get("/v2/", headers=SPOOFED, auth=(user, password) if user else None)
                assert answer.status_code == 401 and "basic" in answer.headers["www-authenticate"].lower()
        with secured_client(found.port, found.authority, WRITER) as client:
            push_blob(client, "app", b"by the writer")
        with secured_client(found.port, found.authority, READER) as client:
            assert client.get(f"/v2/app/blobs/{digest(b'by the writer')}").content == b"by the writer"
            assert client.post("/v2/app/blobs/uploads/", headers=SPOOFED).status_code == 403

        def users() -> set[str]:
            lines = [line for line in found.server.lines() if line.get("repository") == "app" and "status" in line]
            return {line["user"] for line in lines if len(lines) >= 3}

        assert until(users) == {WRITER, READER}


@pytest.mark.parametrize("name", ["skopeo", "crane"])
def test_all_may_pull_and_some_may_push(proxied: Proxied, tmp_path: Path, name: str) -> None:
    """Without a login a program pulls what is public, and is refused a push; with one it pushes."""
    with secured_peer(proxied.server, proxied.authority, proxied.port, tmp_path / "home", f"public/{name}") as peer:
        session = Session(name, peer)
        session.source(images.image(f"public {name}"))
        peer.push(images.image("theirs"), "1.0")
        session.run(session.program.pull)
        session.refused(session.program.push, NO_LOGIN_WORDS)
        session.login(WRITER)
        session.run(session.program.push)
        assert peer.manifest("1.0") == images.image(f"public {name}").manifest
