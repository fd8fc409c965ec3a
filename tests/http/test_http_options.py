"""What the configuration changes: TLS, CORS, limits, locations, read-only; and roots that go away."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

import httpx
import pytest

from tests import images
from tests.http.serving import digest, error_code, push_blob, serving, until
from zotctl.config import HttpConfig, TlsConfig
from zotctl.errors import ConfigError
from zotctl.http import sockets
from zotctl.http.protocol import Connection
from zotctl.http.service import Service
from zotctl.http.tls import Certificates, TlsListener, context
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store

Pair = tuple[Path, Path]
T = TypeVar("T")


def make_pair(home: Path) -> Pair:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    home.mkdir(exist_ok=True)
    cert, key = home / "cert.pem", home / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, "-days", "2", *names, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


def tls_config(pair: Pair) -> str:
    return f'[http.tls]\ncert = "{pair[0]}"\nkey = "{pair[1]}"\n'


def shown_certificate(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=20)


def test_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    config = f'[http.tls]\ncert = "{cert}"\nkey = "{key}"\n'
    body = os.urandom(5_000_000)
    with serving(tmp_path, config=config) as server:
        assert server.url.startswith("https://")
        with server.client(verify=ssl.create_default_context(cafile=cert)) as client:
            made = push_blob(client, "a", body)
            assert client.get(f"/v2/a/blobs/{made}").content == body
            got = client.get(f"/v2/a/blobs/{made}", headers={"Range": "bytes=100-4000000"})
            assert got.content == body[100:4_000_001]
        assert "traceback" not in server.log()


@pytest.mark.parametrize("end", ["request", "handshake", "hello", "nonsense"])
def test_a_connection_of_tls_leaves_nothing_when_it_ends(certificate: Pair, end: str) -> None:
    """Without the collector, too, which comes late: each holds 256 KiB."""
    trust = ssl.create_default_context(cafile=certificate[0])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        trust.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    hello = outgoing.read()

    def visit(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
            if end in ("hello", "nonsense"):
                plain.sendall(hello if end == "hello" else hello[:5] + bytes(len(hello) - 5))
                plain.recv(1)
                return
            with trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                if end == "request":
                    secure.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert secure.recv(12) == b"HTTP/1.1 200"

    async def left() -> list[bool]:
        (sock,) = sockets.listen(sockets.resolve("127.0.0.1", 0), 1)
        service = Service(cast(Store, SimpleNamespace(nonblocking=True)), HttpConfig())
        made: list[weakref.ref[Connection]] = []

        def connect() -> Connection:
            connection = Connection(service)
            made.append(weakref.ref(connection))
            return connection

        service.connect = connect  # type: ignore[method-assign]
        listener = TlsListener(service, Certificates(TlsConfig(*map(str, certificate))), sock)
        await asyncio.to_thread(visit, sockets.bound_to(sock).port)
        for _ in range(500):
            if made and not any(one() for one in made):
                break
            await asyncio.sleep(0.01)
        listener.close()
        service.close()
        return [one() is not None for one in made]

    gc.disable()
    try:
        assert asyncio.run(left()) == [False]
    finally:
        gc.enable()


def test_plain_http_on_the_port_of_tls(tmp_path: Path, certificate: Pair) -> None:
    with serving(tmp_path, config=tls_config(certificate)) as server:
        with server.connect() as raw:
            status, headers, body = raw.head("GET", "/v2/").answer()
            assert (status, headers["connection"], raw.rest()) == (400, "close", b"")
            assert b'"code":"UNSUPPORTED"' in body and b"https://" in body
        with server.connect() as silent, server.connect() as broken:
            silent.half_close()
            assert silent.rest() == b""
            broken.send(b"\x16\x03\x01\x00\x05hello").half_close()
            broken.rest()
        with server.client(verify=ssl.create_default_context(cafile=certificate[0])) as client:
            assert client.get("/v2/").status_code == 200
        assert "traceback" not in server.log()


def test_requests_over_tls_that_are_malformed_or_break_off(tmp_path: Path, certificate: Pair) -> None:
    with serving(tmp_path, config=tls_config(certificate)) as server:
        trust = ssl.create_default_context(cafile=certificate[0])

        def ask(data: bytes) -> bytes:
            sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            with sock, trust.wrap_socket(sock, server_hostname="127.0.0.1") as secure:
                secure.sendall(data)
                return secure.recv(1000)

        assert ask(b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert ask(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" * 3).startswith(b"HTTP/1.1 200 ")
        assert ask(b"PUT /v2/A/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\nx").startswith(
            b"HTTP/1.1 400 "
        )
        assert "traceback" not in server.log()


@pytest.mark.parametrize("sent", [0, 1, 60])
def test_a_handshake_on_its_way_is_finished_by_a_worker_that_stops(
    tmp_path: Path, certificate: Pair, sent: int
) -> None:
    """So many bytes of its first message have arrived."""
    trust = ssl.create_default_context(cafile=certificate[0])
    come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = trust.wrap_bio(come, go, server_hostname="127.0.0.1")
    with serving(tmp_path, config=tls_config(certificate)) as server, server.connect() as raw:

        def exchange(step: Callable[[], T]) -> T:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    raw.send(go.read())
                    come.write(raw.socket.recv(65536) or pytest.fail("the connection ended"))

        with suppress(ssl.SSLWantReadError):
            secure.do_handshake()
        hello = go.read()
        raw.send(hello[:sent])
        server.send(signal.SIGHUP)
        until(lambda: "all workers serve the configuration" in server.log())
        raw.send(hello[sent:])
        exchange(secure.do_handshake)
        secure.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert exchange(lambda: secure.read(1000)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("how", ["hangup", "files", "links"])
def test_a_new_certificate(tmp_path: Path, how: str) -> None:
    """By SIGHUP, by files that are replaced, and by one symbolic link for both, as Kubernetes does it."""
    pairs = [make_pair(tmp_path / str(number)) for number in range(2)]
    data = tmp_path / "..data"
    data.symlink_to("0")
    names = tmp_path / "cert.pem", tmp_path / "key.pem"
    for name in names:
        name.symlink_to(f"..data/{name.name}")
    with serving(tmp_path / "home", config=tls_config(names), workers=2) as server:
        workers = server.workers()
        assert shown_certificate(server.port) == pairs[0][0].read_text()
        if how == "files":
            for name, new in zip(names, pairs[1], strict=True):
                (tmp_path / "new").write_bytes(new.read_bytes())
                (tmp_path / "new").replace(name)
        else:
            (tmp_path / "..new").symlink_to("1")
            (tmp_path / "..new").replace(data)
        if how == "hangup":
            server.send(signal.SIGHUP)
        until(lambda: {shown_certificate(server.port) for _ in range(8)} == {pairs[1][0].read_text()})
        assert how == "hangup" or server.workers() == workers
        assert not [line for line in server.lines() if line["level"] == "error"]


BROKEN: dict[str, list[bytes | str | None]] = {
    "cert.pem": [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None],
    "key.pem": [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", None, "other"],
}


@pytest.mark.parametrize(("name", "content"), [(name, made) for name, all_ in BROKEN.items() for made in all_])
def test_a_broken_pair_is_named_file_by_file(tmp_path: Path, name: str, content: bytes | str | None) -> None:
    home = tmp_path / "pair"
    make_pair(home)
    config = TlsConfig(str(home / "cert.pem"), str(home / "key.pem"))
    certificates = Certificates(config)
    before, broken = certificates.context, home / name
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(make_pair(tmp_path / "other")[1].read_bytes() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=rf"http\.tls\.{name.removesuffix('.pem')}: {broken}: "):
        context(config)
    for _ in range(3):
        certificates.look()
    assert certificates.context is before
    make_pair(home)
    certificates.look()
    assert certificates.context is not before


def test_a_client_certificate_that_is_not_ours(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    config = f'[http.tls]\ncert = "{cert}"\nkey = "{key}"\nclient_ca = "{cert}"\n'
    with serving(tmp_path, config=config) as server:
        trust = ssl.create_default_context(cafile=cert)
        with server.client(verify=trust) as client:
            assert client.get("/v2/").status_code == 401, "without a certificate there is no login"
        trust.load_cert_chain(cert, key)
        with server.client(verify=trust) as client:
            assert client.get("/v2/").status_code == 200
        assert "traceback" not in server.log()


def test_cors(tmp_path: Path) -> None:
    with (
        serving(tmp_path, config='[http]\nallow_origin = "https://ui.example"\n') as server,
        server.client() as client,
    ):
        answer = client.options("/v2/a/manifests/x", headers={"Origin": "https://ui.example"})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://ui.example"
        assert "PUT" in answer.headers["access-control-allow-methods"]
        allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
        assert {"accept", "authorization", "cache-control", "content-type", "range"} <= allowed
        exposed = {name.strip() for name in client.get("/v2/").headers["access-control-expose-headers"].split(",")}
        assert {"Docker-Content-Digest", "ETag", "Link", "Location", "OCI-Subject", "OCI-Filters-Applied"} <= exposed
        for path in ("/v2/", "/v2/no/tags/list"):
            assert client.get(path).headers["access-control-allow-origin"] == "https://ui.example"


def test_no_cors(client: httpx.Client) -> None:
    for answer in (client.get("/v2/"), client.options("/v2/")):
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_locations(tmp_path: Path) -> None:
    config = '[http]\nexternal_url = "https://registry.example/sub/"\n'
    with serving(tmp_path, config=config) as server, server.client() as client:
        answer = client.post("/v2/a/blobs/uploads/")
        assert answer.headers["location"].startswith("https://registry.example/sub/v2/a/blobs/uploads/")
        answer = client.post("/v2/a/blobs/uploads/", params={"digest": digest(b"x")}, content=b"x")
        assert answer.headers["location"] == f"https://registry.example/sub/v2/a/blobs/{digest(b'x')}"


def test_a_rate_limit(tmp_path: Path) -> None:
    config = '[http.rate_limit]\nrate = 5\n[[http.rate_limit.methods]]\nmethod = "GET"\nrate = 0.5\n'
    with serving(tmp_path, config=config) as server, server.client() as client:
        assert client.get("/v2/").status_code == 200
        while (answer := client.get("/v2/")).status_code != 429:
            assert answer.status_code == 200  # it took seconds
        assert error_code(answer) == "TOOMANYREQUESTS"
        time.sleep(int(answer.headers["retry-after"]))
        assert client.get("/v2/").status_code == 200


def test_a_rate_limit_is_one_for_all_workers_and_spares_probes(tmp_path: Path) -> None:
    config = "[http.rate_limit]\nrate = 3\nclient_rate = 2\n[metrics]\nenabled = true\n"
    with serving(tmp_path, config=config, workers=4) as server:
        started = time.monotonic()
        statuses = [httpx.get(f"{server.url}/v2/", timeout=60).status_code for _ in range(40)]
        passed, most = statuses.count(200), 2 + 2 * (time.monotonic() - started)
        assert 2 <= passed <= most
        for path in ("/livez", "/readyz", "/startupz", "/metrics"):
            assert {httpx.get(server.url + path, timeout=60).status_code for _ in range(10)} == {200}


def test_read_only(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        made = push_blob(client, "a", b"x")
        location = client.post("/v2/a/blobs/uploads/").headers["location"]
    with serving(tmp_path, "--read-only") as server, server.client() as client:
        assert client.get(f"/v2/a/blobs/{made}").status_code == 200
        refused = [
            client.post("/v2/a/blobs/uploads/"),
            client.put(location, params={"digest": made}, content=b"x"),
            client.put("/v2/a/manifests/x", content=b"{}"),
            client.delete(f"/v2/a/blobs/{made}"),
        ]
        assert all(answer.is_client_error for answer in refused)
        for answer in refused:
            error_code(answer)


def test_no_delete(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-delete") as server, server.client() as client:
        for path in ("/v2/a/manifests/x", f"/v2/a/blobs/{digest(b'')}"):
            answer = client.delete(path)
            assert (answer.status_code, error_code(answer)) == (405, "UNSUPPORTED")
            assert "DELETE" not in answer.headers["allow"]
        assert client.delete(client.post("/v2/a/blobs/uploads/").headers["location"]).status_code == 204


def test_a_root_that_goes_away(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        push_blob(client, "a", b"x")
        assert client.get("/readyz").status_code == 200
        away = server.root.with_name("away")
        server.root.rename(away)
        answer = until(lambda: (found := client.get("/readyz?verbose")).status_code == 503 and found)
        assert answer.json()["status"] == "unavailable"
        assert answer.json()["roots"][0]["state"] != "ok"
        assert int(answer.headers["retry-after"]) > 0
        for path in ("/livez", "/startupz", "/v2/"):
            assert client.get(path).status_code == 200
        answer = client.get("/v2/a/tags/list")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        error_code(answer)
        away.rename(server.root)
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/v2/a/blobs/" + digest(b"x")).status_code == 200


def test_an_audit_log(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    config = f'[log]\nlevel = "error"\naudit = "{audit}"\n'
    with serving(tmp_path, config=config) as server, server.client() as client:
        made = push_blob(client, "a", b"x")
        client.get(f"/v2/a/blobs/{made}")
        client.delete(f"/v2/a/blobs/{made}")
        lines = until(lambda: audit.exists() and len(found := audit.read_text().splitlines()) >= 3 and found)
        assert len(lines) == 3
        assert '"POST"' in lines[0]
        change, request = map(json.loads, lines[1:])
        assert (change["action"], change["repository"], change["digest_before"]) == ("delete", "a", str(made))
        assert change["reason"] == f"request: DELETE /v2/a/blobs/{made}"
        assert change["request_id"] == request["request_id"] and request["method"] == "DELETE"
        assert "GET" not in server.log()


def test_each_tag_that_a_client_moves_or_removes_is_a_line(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    with serving(tmp_path, config=f'[log]\naudit = "{audit}"\n') as server, server.client() as client:
        first, second = images.image("1"), images.image("2")
        for image in (first, second, second):
            for body in image.blobs:
                push_blob(client, "a", body)
            where = f"/v2/a/manifests/v1?tag=n{image.digest[7:10]}"
            made = client.put(where, content=image.manifest, headers={"Content-Type": OCI_MANIFEST})
            assert made.status_code == 201
        assert client.delete("/v2/a/manifests/v1").status_code == 202
        assert client.delete(f"/v2/a/manifests/{first.digest}").status_code == 202
        assert client.delete("/v2/a/manifests/v1").status_code == 404
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    one, other = str(first.digest), str(second.digest)
    changes = [line for line in lines if "action" in line]
    assert [(c["action"], c["tag"], c["digest_before"], c["digest_after"]) for c in changes] == [
        ("move", "v1", one, other),
        ("untag", "v1", other, None),
        ("untag", f"n{first.digest[7:10]}", one, None),
        ("delete", None, one, None),
    ]
    assert {(c["repository"], c["client"], c["user"]) for c in changes} == {("a", "127.0.0.1", None)}
    logged = [line for line in map(json.loads, server.log().splitlines()) if "action" in line]
    assert [line["message"] for line in logged] == [line["message"] for line in changes]


def test_an_audit_file_that_cannot_be_written_is_seen(tmp_path: Path) -> None:
    config = '[metrics]\nenabled = true\n[log]\naudit = "/dev/full"\n'
    with serving(tmp_path, config=config) as server, server.client() as client:
        assert client.get("/readyz?verbose").json()["audit"] == "ok"
        assert "zotctl_audit_errors_total 0.0" in client.get("/metrics").text
        push_blob(client, "a", b"x")
        push_blob(client, "a", b"y")
        answer = until(lambda: "No space" in client.get("/readyz?verbose").text and client.get("/readyz?verbose"))
        assert answer.status_code == 200 and answer.json()["status"] == "ok"
        assert "zotctl_audit_errors_total 0.0" not in client.get("/metrics").text
        said = [line for line in server.log().splitlines() if "the audit file /dev/full can't be written" in line]
        assert 1 <= len(said) <= 4  # once for each worker
