"""zot and zotctl with the same policies, passwords and content: each lets the same users do the same.

ZOTCTL_RANDOM makes more rounds. Without zot, which CI cannot install, the test is skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests import images
from tests.buckets import free_port
from tests.clients.peers import put_manifest
from tests.clients.test_zot import ours, zot
from tests.http.serving import push_blob
from tests.logins import users_file
from tests.tools import need_optional
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST

ACTIONS = ("read", "create", "update", "delete")
USERS = ("ann", "bob", "carl")
REPOSITORIES = ("app", "team/app", "team/tool", "other/deep/image", "absent")
GLOBS = (
    "**", "*", "team/**", "team/*", "team/app", "app", "other/**", "**/app", "*/app", "te*/**", "{app,team/tool}",
    "other/*", "[ao]*", "t??m/*",
)  # fmt: skip
IMAGE = images.image("content")
OTHER = digest_of(b"is not here")
ROUNDS = int(os.environ.get("ZOTCTL_RANDOM", "0")) // 100 or 4


def policies(random: Random) -> dict[str, Any]:
    def some(words: tuple[str, ...], chance: float = 0.4) -> list[str]:
        return [word for word in words if random.random() < chance]

    def group() -> dict[str, Any]:
        found: dict[str, Any] = {"policies": []}
        for _ in range(random.randrange(3)):
            found["policies"].append({"users": some(USERS), "groups": some(("devs", "ops")), "actions": some(ACTIONS)})
        if random.random() < 0.6:
            found["defaultPolicy"] = some(ACTIONS)
        if random.random() < 0.5:
            found["anonymousPolicy"] = some(ACTIONS)
        return found

    # Of globs of equal length zot takes any.
    chosen = {len(pattern): pattern for pattern in random.sample(GLOBS, random.randint(1, 7))}
    admin = {"users": ["root", *some(USERS, 0.15)], "groups": some(("ops",), 0.3), "actions": list(ACTIONS)}
    return {
        "repositories": {pattern: group() for pattern in chosen.values()},
        "groups": {"devs": {"users": some(USERS)}, "ops": {"users": some(USERS, 0.2)}},
        "adminPolicy": admin,
    }


def configuration(home: Path, access: dict[str, Any] | None, *, login: bool = True) -> Path:
    home.mkdir()
    users = users_file(home, *USERS, "root")
    http: dict[str, Any] = {"address": "127.0.0.1", "port": str(free_port())}
    if login:
        http["auth"] = {"htpasswd": {"path": str(users)}}
    if access is not None:
        http["accessControl"] = access
    document = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": str(home / "root"), "gc": False, "dedupe": False},
        "http": http,
        "log": {"level": "error"},
        "extensions": {"metrics": {"enable": True}},
    }
    path = home / "config.json"
    path.write_text(json.dumps(document))
    return path


def fill(client: httpx.Client, auth: tuple[str, str] | None) -> None:
    client.auth = auth or httpx.Auth()
    for name in REPOSITORIES[:-1]:
        for blob in IMAGE.blobs:
            push_blob(client, name, blob)
        put_manifest(client, name, IMAGE.manifest, "v1", OCI_MANIFEST)
    client.auth = httpx.Auth()


def requests(name: str, number: int) -> Iterator[tuple[str, str, str, bytes]]:
    """What a client may send, with nothing lost by it: a label, method, path and body."""
    at = f"/v2/{name}"
    yield "tags", "GET", f"{at}/tags/list", b""
    yield "manifest", "GET", f"{at}/manifests/v1", b""
    yield "manifest HEAD", "HEAD", f"{at}/manifests/{IMAGE.digest}", b""
    yield "blob", "GET", f"{at}/blobs/{OTHER}", b""
    yield "blob HEAD", "HEAD", f"{at}/blobs/{OTHER}", b""
    yield "referrers", "GET", f"{at}/referrers/{IMAGE.digest}", b""
    yield "upload", "POST", f"{at}/blobs/uploads/", b""
    yield "upload status", "GET", f"{at}/blobs/uploads/00000000-0000-4000-8000-000000000000", b""
    yield "upload cancel", "DELETE", f"{at}/blobs/uploads/00000000-0000-4000-8000-000000000000", b""
    yield "chunk", "PATCH", f"{at}/blobs/uploads/00000000-0000-4000-8000-000000000000", b"x"
    yield "new tag", "PUT", f"{at}/manifests/new{number}", IMAGE.manifest
    yield "old tag", "PUT", f"{at}/manifests/v1", IMAGE.manifest
    yield "digest", "PUT", f"{at}/manifests/{IMAGE.digest}", IMAGE.manifest
    yield "digest, new tag", "PUT", f"{at}/manifests/{IMAGE.digest}?tag=also{number}", IMAGE.manifest
    yield "digest, old tag", "PUT", f"{at}/manifests/{IMAGE.digest}?tag=v1", IMAGE.manifest
    yield "digest, both", "PUT", f"{at}/manifests/{IMAGE.digest}?tag=v1&tag=and{number}", IMAGE.manifest
    yield "delete tag", "DELETE", f"{at}/manifests/none", b""
    yield "delete manifest", "DELETE", f"{at}/manifests/{OTHER}", b""
    yield "delete blob", "DELETE", f"{at}/blobs/{OTHER}", b""


LOGINS: tuple[tuple[str, str] | None, ...] = (None, *((name, name) for name in USERS), ("ann", "wrong"), ("eve", "eve"))


def compare(one: httpx.Client, other: httpx.Client, *, filled: bool = True) -> list[str]:
    """Where the two servers differ in what they refuse. Repositories without content are none of ours."""
    found, number = [], 0
    for login in LOGINS:
        user = login[0] + ("" if login[0] == login[1] else " (wrong)") if login else "anonymous"
        for path in ("/v2/", "/v2/_catalog", "/metrics"):
            answers = [client.get(path, auth=login) for client in (one, other)]
            refused = [answer.status_code if answer.status_code in (401, 403) else 200 for answer in answers]
            if refused[0] != refused[1]:
                found.append(f"{user} GET {path}: {refused}")
            elif path == "/v2/_catalog" and refused[0] == 200 and filled:
                lists = [set(answer.json()["repositories"]) for answer in answers]
                if lists[0] != lists[1]:
                    found.append(f"{user} catalog: {lists}")
        for name in REPOSITORIES[:-1]:
            for label, method, path, body in requests(name, number):
                number += 1
                headers = {"Content-Type": OCI_MANIFEST if method == "PUT" else "application/octet-stream"}
                statuses = [
                    client.request(method, path, content=body, headers=headers, auth=login).status_code
                    for client in (one, other)
                ]
                refused = [status if status in (401, 403) else 0 for status in statuses]
                if refused[0] != refused[1]:
                    found.append(f"{user} {label} {name}: {statuses}")
    return found


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_random_policies(tmp_path: Path, seed: int) -> None:
    need_optional("zot")
    access = policies(Random(seed))
    theirs, mine = (configuration(tmp_path / name, access) for name in ("zot", "ours"))
    with zot(theirs, tmp_path / "zot") as one, ours(mine, create=True) as other:
        fill(one, ("root", "root"))
        fill(other, ("root", "root"))
        assert not compare(one, other), json.dumps(access, indent=1)


@pytest.mark.parametrize(
    ("access", "login"),
    [
        (None, True), ({}, True), (None, False),
        ({"repositories": {}}, True), ({"metrics": {}}, True), ({"repositories": {"**": {"policies": []}}}, True),
        ({"repositories": {"**": {"defaultPolicy": ["read"]}, "team/**": {}}}, True),
        ({"repositories": {"**": {"anonymousPolicy": ["read"]}}}, False),
        ({"repositories": {"**": {"anonymousPolicy": ["read"], "defaultPolicy": ["read", "create"]}}}, True),
        ({"repositories": {"Team/**": {"policies": [{"groups": ["Devs"], "actions": ["read"]}]}},
          "groups": {"Devs": {"users": ["ann"]}}}, True),
        ({"metrics": {"users": ["ann"]}, "repositories": {"**": {"defaultPolicy": ["read"]}}}, True),
        ({"metrics": {"anonymousPolicy": ["read"]}, "repositories": {"**": {"defaultPolicy": ["read"]}}}, True),
    ],
)  # fmt: skip
def test_chosen_policies(tmp_path: Path, access: dict[str, Any] | None, login: bool) -> None:
    need_optional("zot")
    theirs, mine = (configuration(tmp_path / name, access, login=login) for name in ("zot", "ours"))
    with zot(theirs, tmp_path / "zot") as one, ours(mine, create=True) as other:
        assert not compare(one, other, filled=False)
