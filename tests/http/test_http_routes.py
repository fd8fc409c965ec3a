"""Paths and methods, health, and errors that every endpoint shares."""

from __future__ import annotations

import httpx
import pytest

from tests.http.serving import Server, digest, error_code, push_blob, until
from zotctl.http import routes


def raw(client: httpx.Client, method: str, path: str) -> httpx.Response:
    request = client.build_request(method, "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    return client.send(request)


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_support(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert answer.headers["date"].endswith("GMT")


@pytest.mark.parametrize(
    "path",
    ["/x", "/v1/", "/v2/x", "/v2/a/tags", "/v2/a/tags/list/", "/v2/a/tags/other", "/v2/a/uploads/x"],
)
def test_no_endpoint(client: httpx.Client, path: str) -> None:
    answer = raw(client, "GET", path)
    assert answer.status_code == 404
    error_code(answer)


@pytest.mark.parametrize(
    "path",
    ["/v2/a%2Fb/tags/list", "/v2/A/tags/list", "/v2//tags/list", "/v2/%2e%2e/tags/list"],
)
def test_a_name_that_is_none(client: httpx.Client, path: str) -> None:
    answer = raw(client, "GET", path)
    assert (answer.status_code, error_code(answer)) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v2/", "GET, HEAD, OPTIONS"),
        ("/v2/a/tags/list", "GET, HEAD, OPTIONS"),
        ("/v2/a/blobs/sha256:x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v2/a/manifests/x", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/v2/a/blobs/uploads/", "OPTIONS, POST"),
        ("/v2/a/blobs/uploads/x", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ],
)
def test_other_methods(client: httpx.Client, path: str, allow: str) -> None:
    answer = client.request("TRACE", path)
    assert (answer.status_code, error_code(answer)) == (405, "UNSUPPORTED")
    assert answer.headers["allow"] == allow
    options = client.options(path)
    assert (options.status_code, options.content, options.headers["allow"]) == (204, b"", allow)


def test_names_of_nouns(client: httpx.Client) -> None:
    """A repository may be called as the nouns of the paths are."""
    for name in ("manifests", "tags", "a/tags", "blobs", "a/manifests/manifests", "referrers", "uploads"):
        assert client.post(f"/v2/{name}/blobs/uploads/").status_code == 202
        answer = client.get(f"/v2/{name}/manifests/x")
        assert (answer.status_code, error_code(answer)) == (404, "NAME_UNKNOWN")


def test_every_end_of_the_specification_has_a_row() -> None:
    rows = {part for row in routes.ENDPOINTS for part in row[0].split(", ")}
    ends = {
        "1",
        "2",
        "3",
        "4a",
        "4b",
        "4c",
        "5",
        "6",
        "7a",
        "7b",
        "8a",
        "8b",
        "9",
        "10",
        "11",
        "12a",
        "12b",
        "13",
        "14",
    }
    assert {f"end-{end}" for end in ends} <= rows


def test_health(client: httpx.Client, server: Server) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    roots = client.get("/readyz?verbose").json()["roots"]
    assert roots == [{"root": str(server.root), "state": "ok"}]


def test_the_access_log(client: httpx.Client, server: Server) -> None:
    client.get("/v2/logged/tags/list?secret=1", headers={"Authorization": "Basic c2VjcmV0", "User-Agent": "agent/1"})
    (line,) = until(lambda: [line for line in server.lines() if line.get("repository") == "logged"])
    assert line["component"] == "http"
    assert line["level"] == "info"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v2/logged/tags/list", 404)
    assert (line["route"], line["error_code"]) == ("/v2/<name>/tags/list", "NAME_UNKNOWN")
    assert (line["client"], line["user_agent"]) == ("127.0.0.1", "agent/1")
    assert line["bytes_out"] > 0
    assert line["duration_ms"] > 0
    assert line["request_id"]
    assert "c2VjcmV0" not in server.log()
    assert "secret" not in server.log()


def test_each_request_has_an_id_of_its_own(client: httpx.Client, server: Server) -> None:
    """Those with a body too, by which the lines of a change and of its request belong together."""
    for body in (b"1", b"2"):
        assert push_blob(client, "numbered", body) == digest(body)
        assert client.head(f"/v2/numbered/blobs/{digest(body)}").status_code == 200

    def ids() -> list[str]:
        lines = [line for line in server.lines() if line.get("repository") == "numbered" and "duration_ms" in line]
        return [line["request_id"] for line in lines] if len(lines) >= 4 else []

    found = until(ids)
    assert len(set(found)) == 4 and not any(one.endswith("-0") for one in found)
