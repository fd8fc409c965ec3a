"""Who may do what, through the socket: every endpoint, every way to log in."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import images
from tests.http.serving import Raw, Server, error_code, push_blob, serving, until
from tests.logins import users_file
from tests.tools import need
from zotctl.http import routes
from zotctl.http.gate import Need
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST

IMAGE = images.image("access")
ABSENT = digest_of(b"absent")
UPLOAD = "00000000-0000-8000-8000-000000000000"
POLICIES = """
[[http.access_control.repositories]]
pattern = "**"
[[http.access_control.repositories]]
pattern = "team/**"
policies = [
    { users = ["reader"], actions = ["read"] },
    { groups = ["writers"], actions = ["read", "create"] },
    { users = ["mover"], actions = ["update"] },
    { users = ["deleter"], actions = ["delete"] },
]
[[http.access_control.repositories]]
pattern = "public/**"
anonymous_policy = ["read"]
default_policy = ["read"]
[[http.access_control.groups]]
name = "writers"
users = ["writer", "other"]
[http.access_control.admin_policy]
users = ["root"]
actions = ["read", "create", "update", "delete"]
[http.access_control.metrics]
users = ["prometheus"]
[metrics]
enabled = true
"""
USERS = ("reader", "writer", "other", "mover", "deleter", "root", "prometheus")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("access")
    config = f'[http.auth]\nhtpasswd = "{users_file(home, *USERS)}"\n{POLICIES}\n[log]\naudit = "{home / "audit"}"\n'
    with serving(home, config=config) as started:
        with started.client(auth=("root", "root")) as client:
            for name in ("team/app", "public/app", "hidden/app"):
                fill(client, name)
        yield started
        assert "traceback" not in started.log()


def fill(client: httpx.Client, name: str) -> None:
    for blob in IMAGE.blobs:
        push_blob(client, name, blob)
    answer = client.put(f"/v2/{name}/manifests/v1", content=IMAGE.manifest, headers={"Content-Type": OCI_MANIFEST})
    assert answer.status_code == 201, answer.text


def sent(server: Server, login: str | None, method: str, path: str, **options: object) -> httpx.Response:
    with server.client(auth=(login, login) if login else None) as client:
        return client.request(method, path, **options)  # type: ignore[arg-type]


def path_of(pattern: str, name: str) -> str:
    reference = {"<digest>": str(ABSENT), "<reference>": "absent", "<id>": UPLOAD}
    path = pattern.replace("<name>", name)
    for placeholder, value in reference.items():
        path = path.replace(placeholder, value)
    return path


MAY: dict[Need, set[str | None]] = {
    Need.READ: {"reader", "writer", "other", "root"},
    Need.CREATE: {"writer", "other", "root"},
    Need.WRITE: {"writer", "other", "mover", "root"},
    Need.DELETE: {"deleter", "root"},
    Need.ADMISSION: {None, *USERS},
    Need.LOGIN: {*USERS},
    Need.NOTHING: {None, *USERS},
    Need.METRICS: {"prometheus"},
}


@pytest.mark.parametrize("row", [*routes.ENDPOINTS, ("metrics", "GET", "/metrics", Need.METRICS, None)],
                         ids=lambda row: f"{row[1]} {row[2]}")  # fmt: skip
def test_every_endpoint(server: Server, row: tuple[str, str, str, Need, object]) -> None:
    _, method, pattern, need, _ = row
    for login in (None, *USERS):
        answer = sent(server, login, method, path_of(pattern, "team/app"))
        refused = 401 if login is None else 403
        if login in MAY[need]:
            assert answer.status_code not in (401, 403), (login, answer.text)
        else:
            assert answer.status_code == refused, (login, answer.text)
            if pattern in routes.PAGES:
                assert answer.headers["content-type"] == "text/html; charset=utf-8" and "<h1>" in answer.text
            elif method != "HEAD":
                assert error_code(answer) in ("UNAUTHORIZED", "DENIED")
        challenged = "www-authenticate" in answer.headers
        assert challenged == (answer.status_code == 401), login


def test_what_every_endpoint_needs() -> None:
    """Said here once more: the table above is asked with what the routes say."""
    read = {"GET": Need.READ}
    delete, admission, nothing = {"DELETE": Need.DELETE}, {"GET": Need.ADMISSION}, {"GET": Need.NOTHING}
    upload = read | delete | {"PATCH": Need.CREATE, "PUT": Need.CREATE}
    needs: dict[str, dict[str, Need]] = {}
    for _, method, pattern, needed, _ in routes.ENDPOINTS:
        needs.setdefault(pattern, {})[method] = needed
    assert needs == {
        "/v2/<name>/blobs/<digest>": read | delete | {"HEAD": Need.READ},
        "/v2/<name>/blobs/uploads/": {"POST": Need.CREATE},
        "/v2/<name>/blobs/uploads/<id>": upload,
        "/v2/<name>/manifests/<reference>": read | delete | {"PUT": Need.WRITE},
        **dict.fromkeys(("/v2/<name>/tags/list", "/v2/<name>/referrers/<digest>"), read),
        **dict.fromkeys(("/ui/<name>/tags", "/ui/<name>/untagged", "/ui/<name>/manifests/<reference>"), read),
        **dict.fromkeys(("/", "/v2/", "/v2/_catalog", "/v2/_oci/ext/discover"), admission),
        **dict.fromkeys(("/livez", "/readyz", "/startupz"), nothing),
        "/ui/login": {"GET": Need.LOGIN},
        "/ui/health": {"GET": Need.METRICS},
    }


def test_a_wrong_login_is_refused_also_where_none_is_needed(server: Server) -> None:
    wrong = ["reader:wrong", "eve:eve", ":", "reader", "reader:", ":reader"]
    headers = [f"Basic {b64encode(text.encode()).decode()}" for text in wrong[:2] + wrong[3:]]
    for value in [*headers, "Basic", "Basic !!!", "Bearer x", "Basic \xff", "x"]:
        for path in ("/v2/", "/v2/public/app/tags/list", "/v2/_catalog"):
            with server.client() as client:
                answer = client.get(path, headers=[(b"Authorization", value.encode("latin-1"))])
            assert answer.status_code == 401, (value, answer.text)
            assert answer.headers["www-authenticate"] == 'Basic realm="zotctl", charset="UTF-8"'
    with server.client() as client:
        empty = f"Basic {b64encode(b':').decode()}"
        assert client.get("/v2/public/app/tags/list", headers={"Authorization": empty}).status_code == 200


def test_two_logins_are_none(server: Server) -> None:
    login = b64encode(b"root:root").decode()
    with Raw(server.port) as raw:
        raw.head("GET", "/v2/", f"Authorization: Basic {login}", f"Authorization: Basic {login}")
        assert raw.answer()[0] == 401


def test_what_one_may_not_read_does_not_exist(server: Server) -> None:
    for login in (None, "reader"):
        answers = [
            sent(server, login, "GET", f"/v2/{name}/manifests/v1") for name in ("hidden/app", "hidden/none", "none")
        ]
        assert len({answer.status_code for answer in answers}) == 1
        assert len({answer.text for answer in answers}) == 1
        assert answers[0].status_code == (401 if login is None else 403)


def test_lists_have_only_what_may_be_read(server: Server) -> None:
    seen = {login: sent(server, login, "GET", "/v2/_catalog").json()["repositories"] for login in (None, *USERS)}
    assert seen[None] == ["public/app"]
    assert seen["reader"] == seen["writer"] == ["public/app", "team/app"]
    assert seen["deleter"] == ["public/app"]
    assert seen["root"] == ["hidden/app", "public/app", "team/app"]
    pages, path = [], "/v2/_catalog?n=1"
    while path:
        answer = sent(server, "reader", "GET", path)
        pages.append(answer.json()["repositories"])
        path = answer.links.get("next", {}).get("url", "")
    assert pages == [["public/app"], ["team/app"]]


def test_a_mount_needs_read_on_the_source(server: Server) -> None:
    blob = digest_of(IMAGE.blobs[0])
    for source, status in (("hidden/app", 202), ("public/app", 201), ("none", 202)):
        answer = sent(server, "writer", "POST", f"/v2/team/new/blobs/uploads/?mount={blob}&from={source}")
        assert answer.status_code == status, (source, answer.text)


def test_tags_are_created_or_moved(server: Server) -> None:
    def put(login: str, reference: str) -> int:
        headers = {"Content-Type": OCI_MANIFEST}
        path = f"/v2/team/app/manifests/{reference}"
        return sent(server, login, "PUT", path, content=IMAGE.manifest, headers=headers).status_code

    assert put("writer", "fresh") == 201 and put("mover", "v1") == 201
    assert put("writer", "v1") == 403 and put("mover", "new") == 403
    assert put("writer", f"{IMAGE.digest}?tag=other") == 201 and put("writer", f"{IMAGE.digest}?tag=v1") == 403
    assert put("mover", f"{IMAGE.digest}?tag=v1") == 201 and put("mover", str(IMAGE.digest)) == 403
    assert put("mover", f"{IMAGE.digest}?tag=v1&tag=newer") == 403
    tags = sent(server, "root", "GET", "/v2/team/app/tags/list").json()["tags"]
    assert {"new", "newer"}.isdisjoint(tags) and {"v1", "fresh", "other"} <= set(tags)


@pytest.mark.parametrize("query", ["", "?mount=x"])
def test_an_upload_belongs_to_the_user_who_began_it(server: Server, query: str) -> None:
    location = sent(server, "writer", "POST", f"/v2/team/app/blobs/uploads/{query}").headers["location"]
    blob = b"mine"
    headers = {"Content-Type": "application/octet-stream"}
    for login in ("other", "root"):
        for method in ("PATCH", "GET", "PUT", "DELETE"):
            answer = sent(server, login, method, f"{location}?digest={digest_of(blob)}", content=blob, headers=headers)
            if answer.status_code != 403:
                assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN"), (login, method)
    assert sent(server, "writer", "PATCH", location, content=blob, headers=headers).status_code == 202
    assert sent(server, "writer", "GET", location).headers["range"] == "0-3"
    assert sent(server, "writer", "PUT", f"{location}?digest={digest_of(blob)}").status_code == 201


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("docker/27.0 go/go1.22", 401), ("Docker-Client/27.0 (linux)", 401), ("skopeo/1.16", 401),
        ("Buildah/1.28.2", 401), ("libpod/4.3.1", 401), ("containers/5.36 (github.com/containers/image)", 401),
        ("oras/1.3.6", 200), ("crane/v0.22.1 go-containerregistry/v0.22.1", 200), ("curl/8", 200),
    ],
)  # fmt: skip
def test_clients_that_wait_for_a_challenge_get_one(server: Server, agent: str, status: int) -> None:
    headers = {"User-Agent": agent}
    assert sent(server, None, "GET", "/v2/", headers=headers).status_code == status
    assert sent(server, "reader", "GET", "/v2/", headers=headers).status_code == 200
    assert sent(server, None, "GET", "/v2/public/app/tags/list", headers=headers).status_code == 200


def test_a_preflight_needs_no_login(server: Server) -> None:
    assert sent(server, None, "OPTIONS", "/v2/hidden/app/manifests/v1").status_code == 204


def test_the_log_knows_the_user_and_no_secret(server: Server) -> None:
    agent = {"User-Agent": "this test"}
    sent(server, "reader", "GET", "/v2/team/app/tags/list", headers=agent)
    sent(server, "reader", "DELETE", "/v2/team/app/manifests/v1", headers=agent)
    with server.client(auth=("writer", "a-secret-password"), headers=agent) as client:
        client.get("/v2/")

    def found() -> list[dict[str, object]]:
        return [line for line in server.lines() if line.get("user_agent") == "this test"]

    lines = until(lambda: len(found()) >= 3 and found())
    assert [(line["user"], line["status"]) for line in lines] == [("reader", 200), ("reader", 403), (None, 401)]
    audit = [json.loads(line) for line in (server.home / "audit").read_text().splitlines()]
    refused = [(line["user"], line["reason"]) for line in audit if "reason" in line]
    assert ("reader", "'reader' may not delete here") in refused
    assert ("writer", "wrong name or password") in refused
    for text in (server.log(), (server.home / "audit").read_text()):
        assert "a-secret-password" not in text and b64encode(b"writer:a-secret-password").decode() not in text


def test_who_moved_and_deleted_a_tag(tmp_path: Path) -> None:
    config = f'[http.auth]\nhtpasswd = "{users_file(tmp_path, "ann", "bob")}"\n[log]\naudit = "{tmp_path / "audit"}"\n'
    other = images.image("other")
    with serving(tmp_path, config=config) as server:
        with server.client(auth=("ann", "ann")) as ann:
            fill(ann, "app")
            for blob in other.blobs:
                push_blob(ann, "app", blob)
        with server.client(auth=("bob", "bob")) as bob:
            made = bob.put("/v2/app/manifests/v1", content=other.manifest, headers={"Content-Type": OCI_MANIFEST})
            assert made.status_code == 201
            assert bob.delete("/v2/app/manifests/v1").status_code == 202
        lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
        assert [(line["action"], line["user"], line["tag"]) for line in lines if "action" in line] == [
            ("move", "bob", "v1"),
            ("untag", "bob", "v1"),
        ]
        (history,) = (server.root / ".zotctl" / "history").iterdir()
        events = [json.loads(line) for line in history.read_text().splitlines() if line]
        assert [(event["a"], event["u"]) for event in events] == [("push", "ann"), ("push", "bob"), ("untag", "bob")]


def test_a_quota_is_told_with_its_numbers(tmp_path: Path) -> None:
    with (
        serving(tmp_path, config="[[storage.quotas]]\nprefix = 'small'\nbytes = 10\n") as server,
        server.client() as client,
    ):
        for name in ("small/app", "other"):
            for blob in IMAGE.blobs:
                push_blob(client, name, blob)
            answer = client.put(
                f"/v2/{name}/manifests/v1", content=IMAGE.manifest, headers={"Content-Type": OCI_MANIFEST}
            )
            assert answer.status_code == (403 if name == "small/app" else 201)
            if name == "small/app":
                assert error_code(answer) == "DENIED"
                detail = answer.json()["errors"][0]["detail"]
                assert (detail["limit_bytes"], detail["used_bytes"]) == (10, 0)


def test_policies_and_passwords_change_on_reload(tmp_path: Path) -> None:
    users = users_file(tmp_path, "ann")
    config = f'[http.auth]\nhtpasswd = "{users}"\n'
    with serving(tmp_path, config=config) as server:
        assert sent(server, "ann", "GET", "/v2/_catalog").status_code == 200
        assert sent(server, None, "GET", "/v2/").status_code == 401
        assert sent(server, None, "OPTIONS", "/v2/").status_code == 204, "a preflight, also where nobody else comes in"
        server.config_file.write_text(f"{config}[[http.access_control.repositories]]\npattern = 'x'\n")
        server.send(signal.SIGHUP)
        until(lambda: sent(server, "ann", "POST", "/v2/a/blobs/uploads/").status_code == 403)
        users.write_text("ann:plain\n")
        server.send(signal.SIGHUP)
        until(lambda: "is not hashed by bcrypt" in server.log())
        assert sent(server, "ann", "GET", "/v2/_catalog").status_code == 200


def test_a_broken_file_of_passwords_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:plain\n")
    with pytest.raises(AssertionError, match="the password of 'ann' is not hashed by bcrypt"):
        Server(tmp_path, config=f'[http.auth]\nhtpasswd = "{tmp_path / "users"}"\n')


def test_a_proxy_names_client_and_user(tmp_path: Path) -> None:
    config = """
        [http]
        trusted_proxies = ["127.0.0.1"]
        user_header = "X-Forwarded-User"
    """
    with serving(tmp_path, config=config) as server:
        assert sent(server, None, "GET", "/v2/").status_code == 401
        headers = {"X-Forwarded-User": "ann", "X-Forwarded-For": "192.0.2.7"}
        assert sent(server, None, "GET", "/v2/_catalog", headers=headers).status_code == 200
        line = until(lambda: next((line for line in server.lines() if line.get("user") == "ann"), None))
        assert line["client"] == "192.0.2.7"


def test_headers_of_a_proxy_are_not_believed_from_a_client(tmp_path: Path) -> None:
    config = f"""
        [http]
        trusted_proxies = ["192.0.2.1"]
        user_header = "X-Forwarded-User"
        [http.auth]
        htpasswd = "{users_file(tmp_path, "ann")}"
        [metrics]
        enabled = true
    """
    headers = {"X-Forwarded-User": "ann", "X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}
    with serving(tmp_path, config=config) as server:
        assert sent(server, None, "GET", "/v2/_catalog", headers=headers).status_code == 401
        line = until(lambda: next((line for line in server.lines() if line.get("status") == 401), None))
        assert (line["client"], line["user"]) == ("127.0.0.1", None)
        assert sent(server, None, "GET", "/v2/").status_code == 401
        dropped = "zotctl_http_untrusted_proxy_headers_total 1.0\n"
        until(lambda: dropped in sent(server, "ann", "GET", "/metrics").text)


# -- client certificates -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, and a certificate and key for `server` and for each client, signed by it; and one of
    another authority."""
    need("openssl")
    home = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=home, check=True, capture_output=True)

    for ca in ("ca", "otherca"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={ca}", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")  # fmt: skip
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=middle",
            "-keyout", "middle.key", "-out", "middle.csr")  # fmt: skip
    (home / "extensions").write_text("basicConstraints=critical,CA:TRUE\n")
    openssl("x509", "-req", "-in", "middle.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-out", "middle.pem", "-extfile", "extensions")  # fmt: skip
    signed = ("server", "ca"), ("ann", "ca"), ("nameless", "ca"), ("stranger", "otherca"), ("deep", "middle")
    for name, ca in (*signed, ("leaf", "ann"), ("webserver", "ca")):
        extended = "extendedKeyUsage=serverAuth\n" if name == "webserver" else ""
        subject = "/O=example" if name == "nameless" else f"/O=example/CN={name}"
        (home / "extensions").write_text(f"subjectAltName=IP:127.0.0.1,email:{name}@example.org\n" + extended)
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
                "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                "-days", "2", "-out", f"{name}.pem", "-extfile", "extensions")  # fmt: skip
    return home


def tls(authority: Path, more: str = "") -> str:
    files = f'cert = "{authority}/server.pem"\nkey = "{authority}/server.key"\nclient_ca = "{authority}/ca.pem"\n'
    return f"[http.tls]\n{files}{more}"


def client_of(server: Server, authority: Path, name: str | None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    if name is not None:
        context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
    return server.client(verify=context)


def test_a_certificate_names_the_user(tmp_path: Path, authority: Path) -> None:
    policies = "[[http.access_control.repositories]]\npattern='**'\npolicies=[{users=['ann'], actions=['read']}]\n"
    with serving(tmp_path, config=f"{tls(authority)}{policies}") as server:
        with client_of(server, authority, "ann") as client:
            assert client.get("/v2/").status_code == 200
            assert client.get("/v2/a/tags/list").status_code == 404
            assert client.post("/v2/a/blobs/uploads/").status_code == 403
        for name in (None, "nameless"):
            with client_of(server, authority, name) as client:
                answer = client.get("/v2/")
                assert (answer.status_code, error_code(answer)) == (401, "UNAUTHORIZED")
                assert "www-authenticate" not in answer.headers, "no login could be sent"
        with client_of(server, authority, "stranger") as client, pytest.raises(httpx.TransportError):
            client.get("/v2/")


def test_a_certificate_needs_its_chain(tmp_path: Path, authority: Path) -> None:
    (authority / "chained.pem").write_text(
        (authority / "deep.pem").read_text() + (authority / "middle.pem").read_text()
    )
    (authority / "chained.key").write_text((authority / "deep.key").read_text())
    (authority / "below.pem").write_text((authority / "leaf.pem").read_text() + (authority / "ann.pem").read_text())
    (authority / "below.key").write_text((authority / "leaf.key").read_text())
    with serving(tmp_path, config=tls(authority)) as server:
        with client_of(server, authority, "chained") as client:
            assert client.get("/v2/").status_code == 200
        for name, why in (
            ("deep", "its authority is not known"),
            ("below", "who signed it is no authority"),
            ("webserver", "it is for servers"),
        ):
            with client_of(server, authority, name) as client, pytest.raises(httpx.TransportError):
                client.get("/v2/")
                pytest.fail(why)


def test_an_intermediate_authority_may_be_the_one(tmp_path: Path, authority: Path) -> None:
    """As with zot, whose pool of authorities takes any."""
    config = tls(authority).replace("/ca.pem", "/middle.pem")
    with serving(tmp_path, config=config) as server:
        with client_of(server, authority, "deep") as client:
            assert client.get("/v2/").status_code == 200
        with client_of(server, authority, "ann") as client, pytest.raises(httpx.TransportError):
            client.get("/v2/")


def test_another_attribute_names_the_user(tmp_path: Path, authority: Path) -> None:
    config = f'{tls(authority)}[http.auth.mtls]\nidentity_attributes = ["Email"]\n'
    with serving(tmp_path, config=config) as server, client_of(server, authority, "nameless") as client:
        assert client.get("/v2/_catalog").status_code == 200
        assert until(lambda: [line for line in server.lines() if line.get("user") == "nameless@example.org"])


def test_a_certificate_may_be_required(tmp_path: Path, authority: Path) -> None:
    with serving(tmp_path, config=tls(authority, 'client_auth = "required"\n')) as server:
        with client_of(server, authority, "ann") as client:
            assert client.get("/v2/").status_code == 200
        with client_of(server, authority, None) as client, pytest.raises(httpx.TransportError):
            client.get("/v2/")


def test_a_password_comes_before_a_certificate(tmp_path: Path, authority: Path) -> None:
    config = f'{tls(authority)}[http.auth]\nhtpasswd = "{users_file(tmp_path, "bob")}"\n'
    with serving(tmp_path, config=config) as server, client_of(server, authority, "ann") as client:
        assert client.get("/v2/").status_code == 200
        assert client.get("/v2/", auth=("bob", "wrong")).status_code == 401
        assert client.get("/v2/", auth=("bob", "bob")).status_code == 200


# -- tokens --------------------------------------------------------------------------------------


def test_tokens(tmp_path: Path) -> None:
    need("joserfc")
    from joserfc import jwk, jwt

    key = jwk.ECKey.generate_key("P-256", private=True)
    (tmp_path / "key.pem").write_bytes(key.as_pem(private=False))
    config = (
        '[http.auth.bearer]\nrealm = "https://auth.example/token"\nservice = "registry"\n'
        f'cert = "{tmp_path / "key.pem"}"\n'
    )

    def bearer(**access: list[str]) -> dict[str, str]:
        entries = [{"type": "repository", "name": name, "actions": actions} for name, actions in access.items()]
        claims = {"aud": "registry", "sub": "ann", "access": entries}
        return {"Authorization": f"Bearer {jwt.encode({'alg': 'ES256'}, claims, key)}"}

    start = 'Bearer realm="https://auth.example/token",service="registry"'
    with serving(tmp_path, config=config) as server:
        answer = sent(server, None, "GET", "/v2/")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, start)
        answer = sent(server, None, "POST", "/v2/a/blobs/uploads/?from=b&mount=x")
        assert answer.headers["www-authenticate"] == (f'{start},scope="repository:a:pull,push repository:b:pull"')
        assert sent(server, None, "GET", "/v2/", headers=bearer()).status_code == 200
        assert sent(server, None, "GET", "/v2/a/tags/list", headers=bearer(a=["pull"])).status_code == 404
        for method, path, scope in (
            ("GET", "/v2/a/tags/list", "repository:a:pull"),
            ("POST", "/v2/a/blobs/uploads/", "repository:a:pull,push"),
            ("PUT", "/v2/a/manifests/x", "repository:a:pull,push"),
            ("DELETE", "/v2/a/manifests/x", "repository:a:delete"),
        ):
            answer = sent(server, None, method, path, headers=bearer(b=["pull", "push", "delete"]))
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == f'{start},scope="{scope}",error="insufficient_scope"'
        assert sent(server, "ann", "GET", "/v2/").status_code == 401, "a password is no login here"
