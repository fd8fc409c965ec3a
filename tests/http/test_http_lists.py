"""Lists and their pages: tags, repositories, referrers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http.serving import Server, digest, error_code, push_blob, serving
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST

TAGS = ["1.0", "1.1", "A", "B", "a", "b", "latest"]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home: Path = tmp_path_factory.mktemp("lists")
    with serving(home, config="[http]\nreferrers_page = 3\n") as server, server.client() as client:
        for name in ("a", "a/b", "a-b", "z"):
            body = image(client, name, {})
            push(client, name, digest(body), body, "&".join(f"tag={tag}" for tag in reversed(TAGS)))
        yield client


def image(client: httpx.Client, name: str, extra: dict[str, object]) -> bytes:
    push_blob(client, name, b"{}")
    config = {"mediaType": "application/vnd.example.config+json", "digest": digest(b"{}"), "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], **extra}).encode()


def push(client: httpx.Client, name: str, reference: str, body: bytes, query: str = "") -> None:
    path, headers = f"/v2/{name}/manifests/{reference}?{query}", {"Content-Type": OCI_MANIFEST}
    client.put(path, content=body, headers=headers).raise_for_status()


def follow(client: httpx.Client, path: str, field: str) -> list[list[str]]:
    pages = []
    answer = client.get(path)
    while True:
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()[field])
        if "next" not in answer.links:
            return pages
        answer = client.get(answer.links["next"]["url"])


def test_tags(filled: httpx.Client) -> None:
    for _ in range(2):
        answer = filled.get("/v2/a/tags/list")
        assert answer.json() == {"name": "a", "tags": TAGS}
        assert answer.headers["content-type"] == "application/json"
        assert "link" not in answer.headers
    assert filled.head("/v2/a/tags/list").headers["content-length"] == str(len(answer.content))


def test_pages_of_tags(filled: httpx.Client) -> None:
    assert follow(filled, "/v2/a/tags/list?n=3", "tags") == [TAGS[:3], TAGS[3:6], TAGS[6:]]
    assert follow(filled, "/v2/a/tags/list?n=7", "tags") == [TAGS]
    assert follow(filled, "/v2/a/tags/list?n=0", "tags") == [[]]
    assert follow(filled, "/v2/a/tags/list?last=B", "tags") == [TAGS[4:]]
    assert follow(filled, "/v2/a/tags/list?n=2&last=no-such-tag", "tags") == [[]]
    assert follow(filled, "/v2/a/tags/list?n=2&last=AA", "tags") == [["B", "a"], ["b", "latest"]]
    assert follow(filled, "/v2/a/tags/list?n=0&last=A", "tags") == [[]]


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "٣", "9" * 30, "1 "])
@pytest.mark.parametrize("path", ["/v2/a/tags/list", "/v2/_catalog"])
def test_a_bad_n(filled: httpx.Client, path: str, n: str) -> None:
    answer = filled.get(path, params={"n": n})
    assert (answer.status_code, error_code(answer)) == (400, "UNSUPPORTED")


def test_tags_of_nothing(filled: httpx.Client) -> None:
    answer = filled.get("/v2/no/such/tags/list")
    assert (answer.status_code, error_code(answer)) == (404, "NAME_UNKNOWN")


def test_a_new_tag_is_listed_at_once(filled: httpx.Client) -> None:
    body = image(filled, "z", {})
    for tag in ("x1", "x2"):
        push(filled, "z", tag, body)
        assert tag in filled.get("/v2/z/tags/list").json()["tags"]
    filled.delete("/v2/z/manifests/x1")
    assert "x1" not in filled.get("/v2/z/tags/list").json()["tags"]


def test_catalog(filled: httpx.Client) -> None:
    names = ["a", "a/b", "a-b", "z"]
    assert follow(filled, "/v2/_catalog", "repositories") == [names]
    assert follow(filled, "/v2/_catalog?n=3", "repositories") == [names[:3], names[3:]]
    assert follow(filled, "/v2/_catalog?n=4", "repositories") == [names]
    assert follow(filled, "/v2/_catalog?n=0", "repositories") == [[]]
    assert follow(filled, "/v2/_catalog?last=a/b", "repositories") == [names[2:]]
    answer = filled.get("/v2/_catalog?last=../etc")
    assert (answer.status_code, error_code(answer)) == (400, "NAME_INVALID")


def test_referrers(filled: httpx.Client) -> None:
    subject = image(filled, "z", {"annotations": {"is": "the subject"}})
    path = f"/v2/z/referrers/{digest(subject)}"
    empty = filled.get(path)
    assert empty.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    assert empty.headers["content-type"] == OCI_INDEX
    for unfiltered in (empty, filled.get(f"{path}?artifactType=")):
        assert "oci-filters-applied" not in unfiltered.headers
    of = {"mediaType": OCI_MANIFEST, "digest": digest(subject), "size": len(subject)}
    for number in range(7):
        kind = "application/vnd.a" if number % 2 else "application/vnd.b+json"
        body = image(filled, "z", {"subject": of, "artifactType": kind, "annotations": {"n": str(number)}})
        push(filled, "z", digest(body), body)
    pages = follow(filled, path, "manifests")
    assert [len(page) for page in pages] == [3, 3, 1]
    found = [entry for page in pages for entry in page]
    assert sorted(entry["annotations"]["n"] for entry in found) == list("0123456")  # type: ignore[index]
    answer = filled.get(path, params={"artifactType": "application/vnd.a"})
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert [entry["artifactType"] for entry in answer.json()["manifests"]] == ["application/vnd.a"] * 3
    answer = filled.get(path, params={"artifactType": "application/vnd.b+json"})
    assert filled.get(answer.links["next"]["url"]).headers["oci-filters-applied"] == "artifactType"


def test_a_list_of_referrers_that_is_remembered_is_of_its_type_and_subject(filled: httpx.Client) -> None:
    subjects = [image(filled, "a-b", {"annotations": {"is": name}}) for name in ("one subject", "another")]
    for subject, kind in zip(subjects, ("application/vnd.a", "application/vnd.b"), strict=True):
        of = {"mediaType": OCI_MANIFEST, "digest": digest(subject), "size": len(subject)}
        for one in (kind, "application/vnd.both"):
            body = image(filled, "a-b", {"subject": of, "artifactType": one})
            push(filled, "a-b", digest(body), body)
    for _ in range(2):
        for subject, kind in zip(subjects, ("application/vnd.a", "application/vnd.b"), strict=True):
            for wanted in ("", kind, "application/vnd.both", "application/vnd.none"):
                answer = filled.get(f"/v2/a-b/referrers/{digest(subject)}", params={"artifactType": wanted})
                found = {entry["artifactType"] for entry in answer.json()["manifests"]}
                there = {kind, "application/vnd.both"}
                assert found == (there & {wanted} if wanted else there)


def test_referrers_are_never_unknown(filled: httpx.Client) -> None:
    for name in ("z", "no/such"):
        assert filled.get(f"/v2/{name}/referrers/{digest(b'x')}").json()["manifests"] == []
    answer = filled.get("/v2/z/referrers/sha256:x")
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")


def test_extensions(server: Server, client: httpx.Client) -> None:
    assert client.get("/v2/_oci/ext/discover").json()["extensions"][0]["name"] == "_oci"
