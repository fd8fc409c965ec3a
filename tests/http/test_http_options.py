"""What the configuration changes: TLS, CORS, limits, locations, read-only; and roots that go away."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.http.serving import digest, error_code, push_blob, serving, until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    home = tmp_path_factory.mktemp("tls")
    cert, key = home / "cert.pem", home / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


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
        with server.connect() as raw:
            raw.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            raw.rest()
        assert "traceback" not in server.log()


def test_a_client_certificate_that_is_not_ours(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    config = f'[http.tls]\ncert = "{cert}"\nkey = "{key}"\ncacert = "{cert}"\n'
    with serving(tmp_path, config=config) as server:
        context = ssl.create_default_context(cafile=cert)
        with server.client(verify=context) as client:
            assert client.get("/v2/").status_code == 200
        context.load_cert_chain(cert, key)
        with server.client(verify=context) as client:
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
    config = '[http.rate_limit]\nrate = 5\n[[http.rate_limit.methods]]\nmethod = "PUT"\nrate = 1\n'
    with serving(tmp_path, config=config) as server, server.client() as client:
        answers = [client.get("/v2/") for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert error_code(refused[0]) == "TOOMANYREQUESTS"
        assert int(refused[0].headers["retry-after"]) >= 1
        time.sleep(1)
        assert client.get("/v2/").status_code == 200


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
        lines = until(lambda: audit.exists() and len(found := audit.read_text().splitlines()) >= 2 and found)
        assert len(lines) == 2
        assert '"POST"' in lines[0]
        assert '"DELETE"' in lines[1]
        assert "GET" not in server.log()
