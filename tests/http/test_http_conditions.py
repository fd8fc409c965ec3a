"""If-Match and If-None-Match on the push of a manifest: RFC 9110, section 13."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import pytest

from tests.http.serving import Server, digest, error_code, push_blob, serving
from tests.http.test_http_manifests import CONFIG, manifest
from zotctl.oci.media_types import OCI_MANIFEST

WRITERS = 8
ROUNDS = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers: a condition has to hold across processes, not within one."""
    with serving(tmp_path_factory.mktemp("conditions"), workers=2) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def push(
    client: httpx.Client, name: str, reference: str, body: bytes, *conditions: tuple[str, str], query: str = ""
) -> httpx.Response:
    headers = [("Content-Type", OCI_MANIFEST), *conditions]
    return client.put(f"/v2/{name}/manifests/{reference}{query}", content=body, headers=headers)


def prepared(client: httpx.Client, name: str) -> tuple[bytes, bytes]:
    """Two manifests for a repository, of which the first is `v1`."""
    push_blob(client, name, CONFIG)
    old, new = manifest("old"), manifest("new")
    assert push(client, name, "v1", old).status_code == 201
    return old, new


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("If-Match", lambda old: f'"{digest(old)}"', 201),
        ("If-Match", lambda old: f'"x", "{digest(old)}"', 201),
        ("If-Match", lambda old: "*", 201),
        ("If-Match", lambda old: f'"{digest(b"other")}"', 412),
        ("If-Match", lambda old: f'W/"{digest(old)}"', 412),
        ("If-Match", lambda old: digest(old), 412),
        ("If-Match", lambda old: "", 412),
        ("If-None-Match", lambda old: "*", 412),
        ("If-None-Match", lambda old: f'"{digest(old)}"', 412),
        ("If-None-Match", lambda old: f'W/"{digest(old)}"', 412),
        ("If-None-Match", lambda old: '"x"', 201),
    ],
)
def test_a_tag_that_is_there(client: httpx.Client, name: str, value: Callable[[bytes], str], status: int) -> None:
    old, new = prepared(client, "there")
    answer = push(client, "there", "v1", new, (name, value(old)))
    assert answer.status_code == status
    if status == 412:
        assert error_code(answer) == "DENIED"
        assert answer.json()["errors"][0]["detail"] == {"current": digest(old)}
        assert client.get(f"/v2/there/manifests/{digest(new)}").status_code in (200, 404)
    assert client.get("/v2/there/manifests/v1").content == (new if status == 201 else old)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [("If-Match", "*", 412), ("If-Match", '"x"', 412), ("If-None-Match", "*", 201), ("If-None-Match", '"x"', 201)],
)
def test_a_tag_that_is_not_there(client: httpx.Client, name: str, value: str, status: int) -> None:
    repository = f"absent-{name.lower()}-{len(value)}"
    push_blob(client, repository, CONFIG)
    assert push(client, repository, "v1", manifest(), (name, value)).status_code == status
    assert client.get(f"/v2/{repository}/manifests/v1").status_code == (200 if status == 201 else 404)


def test_by_digest(client: httpx.Client) -> None:
    old, new = prepared(client, "digests")
    assert push(client, "digests", digest(old), old, ("If-None-Match", "*")).status_code == 412
    assert push(client, "digests", digest(new), new, ("If-Match", "*")).status_code == 412
    assert push(client, "digests", digest(new), new, ("If-None-Match", "*")).status_code == 201
    assert push(client, "digests", digest(new), new, ("If-Match", f'"{digest(new)}"')).status_code == 201


def test_both_and_twice(client: httpx.Client) -> None:
    old, new = prepared(client, "both")
    match, other = ("If-Match", f'"{digest(old)}"'), ("If-Match", '"x"')
    assert push(client, "both", "v1", new, match, ("If-None-Match", "*")).status_code == 412
    assert push(client, "both", "v1", new, other, match).status_code == 201


def test_a_refused_push_changes_no_other_tag(client: httpx.Client) -> None:
    _, new = prepared(client, "tags")
    answer = push(client, "tags", "v1", new, ("If-None-Match", "*"), query="?tag=extra")
    assert answer.status_code == 412
    assert client.get("/v2/tags/tags/list").json()["tags"] == ["v1"]


def race(server: Server, run: Callable[[httpx.Client, int], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """All writers at once, each on a connection of its own; what they did."""
    start = Barrier(WRITERS)

    def one(number: int) -> list[tuple[str, str]]:
        with server.client() as client:
            client.get("/v2/")
            start.wait(30)
            return run(client, number)

    with ThreadPoolExecutor(WRITERS) as pool:
        return [step for steps in pool.map(one, range(WRITERS)) for step in steps]


def test_only_one_of_many_creates_a_tag(server: Server, client: httpx.Client) -> None:
    push_blob(client, "race/create", CONFIG)

    def create(client: httpx.Client, number: int) -> list[tuple[str, str]]:
        made = []
        for tag in range(ROUNDS):
            body = manifest(f"{tag} {number}")
            answer = push(client, "race/create", f"t{tag}", body, ("If-None-Match", "*"))
            assert answer.status_code in (201, 412), answer.text
            made += [(f"t{tag}", digest(body))] if answer.status_code == 201 else []
        return made

    won = race(server, create)
    assert sorted(tag for tag, _ in won) == sorted(f"t{tag}" for tag in range(ROUNDS))
    for tag, made in won:
        assert client.head(f"/v2/race/create/manifests/{tag}").headers["docker-content-digest"] == made


def test_no_update_is_lost(server: Server, client: httpx.Client) -> None:
    """Who replaced what is one chain: no writer replaced a manifest that another one had replaced."""
    push_blob(client, "race/update", CONFIG)
    first = manifest("first")
    assert push(client, "race/update", "v1", first).status_code == 201

    def update(client: httpx.Client, number: int) -> list[tuple[str, str]]:
        steps = []
        for turn in range(ROUNDS):
            etag = client.head("/v2/race/update/manifests/v1").headers["etag"]
            body = manifest(f"{turn} of {number}")
            answer = push(client, "race/update", "v1", body, ("If-Match", etag))
            assert answer.status_code in (201, 412), answer.text
            steps += [(etag.strip('"'), digest(body))] if answer.status_code == 201 else []
        return steps

    steps = race(server, update)
    following = dict(steps)
    assert len(following) == len(steps) > 0
    at, seen = digest(first), 0
    while at in following:
        at, seen = following[at], seen + 1
    assert seen == len(steps)
    assert client.head("/v2/race/update/manifests/v1").headers["docker-content-digest"] == at
