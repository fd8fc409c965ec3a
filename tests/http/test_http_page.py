"""The page for people, through the socket: who may see what, headers, errors, and what it costs who never asks."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests import images
from tests.http.serving import Server, push_blob, serving, until
from tests.http.test_http_service import FakeStore, asked
from tests.logins import users_file
from tests.tools import need, program
from zotctl.config import HttpConfig
from zotctl.errors import NameUnknown
from zotctl.http import page, protocol, routes
from zotctl.http.request import Request
from zotctl.http.service import PAGE_THREADS, Service
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_MANIFEST

IMAGE = images.image("page")
POLICIES = """
trusted_proxies = ["127.0.0.1"]
[http.access_control.admin_policy]
users = ["root"]
actions = ["read", "create", "update", "delete"]
[http.access_control.metrics]
users = ["root", "watcher"]
[[http.access_control.repositories]]
pattern = "public/**"
anonymous_policy = ["read"]
default_policy = ["read"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("page")
    users = users_file(home, "root", "reader", "watcher")
    config = f'[http]\nauth = {{ htpasswd = "{users}" }}{POLICIES}'
    with serving(home, config=config) as started:
        with started.client(auth=("root", "root")) as client:
            for name in ("public/app", "hidden/app"):
                for blob in IMAGE.blobs:
                    push_blob(client, name, blob)
                path, headers = f"/v2/{name}/manifests/v1", {"Content-Type": OCI_MANIFEST}
                assert client.put(path, content=IMAGE.manifest, headers=headers).status_code == 201
        yield started
        assert "traceback" not in started.log()


def get(server: Server, path: str, login: str | None = None, **options: object) -> httpx.Response:
    with server.client(auth=(login, login) if login else None) as client:
        return client.get(path, **options)  # type: ignore[arg-type]


PATHS = ("/", "/ui/public/app/tags", "/ui/public/app/manifests/v1", f"/ui/public/app/manifests/{IMAGE.digest}",
         "/ui/public/app/untagged")  # fmt: skip


@pytest.mark.parametrize("path", [*PATHS, "/ui/none/tags", "/ui/public/app/manifests/none", "/?last=NO"])
def test_headers(server: Server, path: str) -> None:
    with server.client(auth=("root", "root")) as client:
        answer, head = client.get(path), client.head(path)
    assert answer.status_code == (200 if path in PATHS else 400 if "NO" in path else 404)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert (head.status_code, head.content) == (answer.status_code, b"")
    if path in PATHS:  # the length of an error has the number of its request in it

        def in_one_moment() -> bool:
            """Ages are on the page: the same one before and after."""
            with server.client(auth=("root", "root")) as client:
                before, head, after = client.get(path), client.head(path), client.get(path)
            assert before.content != after.content or head.headers["content-length"] == str(len(after.content))
            return before.content == after.content

        until(in_one_moment)


def test_lists_and_links_are_for_who_may_follow_them(server: Server) -> None:
    anonymous, reader, root = (get(server, "/", login).text for login in (None, "reader", "root"))
    assert "/ui/public/app/tags" in anonymous and "hidden/" not in anonymous and "/ui/login" in anonymous
    assert "hidden/" not in reader and "reader" in reader and "/ui/login" not in reader
    assert "hidden/app" in root and "/ui/health" in root and "/ui/health" not in reader
    assert "hidden/app" not in get(server, "/ui/health", "watcher").text


def test_a_refusal_is_a_page_with_its_challenge(server: Server) -> None:
    lists = ("/ui/hidden/app/tags", "/ui/hidden/none/tags", "/ui/hidden/app/untagged", "/ui/hidden/none/untagged")
    for path in (*lists, "/ui/health", "/ui/login"):
        answer = get(server, path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == 'Basic realm="zotctl", charset="UTF-8"'
        assert "<h1>A login is needed</h1>" in answer.text and "content-security-policy" in answer.headers
    for path in (*lists, "/ui/health"):
        answer = get(server, path, "reader")
        assert answer.status_code == 403 and "<h1>Not allowed</h1>" in answer.text


def test_what_hidden_repositories_have_is_not_told_by_figures(server: Server) -> None:
    """Both repositories have the same image."""

    def own(login: str | None) -> tuple[str, str]:
        text = get(server, "/ui/public/app/tags", login).text
        return tuple(re.findall('data-label="(?:Own|Shared)">([^<]*)<', text))  # type: ignore[return-value]

    assert own(None)[1] == own("reader")[1] == "0 B"
    assert own("root")[1] == own("watcher")[1] != "0 B"


def test_odd_queries_and_paths(server: Server) -> None:
    for path in (
        "/ui/public/app/tags?contains=%ff%00", "/ui/public/app/tags?last=%ff", "/ui/public/app/untagged?last=%ff%00",
        f"/ui/public/app/untagged?last={'x' * 5000}", f"/ui/public/app/tags?contains={'%3Cb%3E' * 900}",
    ):  # fmt: skip
        answer = get(server, path)
        assert answer.status_code == 200 and "<b>" not in answer.text and len(answer.content) < 30_000, path
    for path in ("/?from=%ff", "/?last=%00", "/ui/%ff/tags", "/ui/public%2Fapp/tags", "/ui/public/app/manifests/%ff",
                 "/ui/public/app/manifests/..%2f..%2fhidden", "/ui/..%2fhidden/untagged",
                 "/ui/public/app/untagged/"):  # fmt: skip
        assert get(server, path, "root").status_code in (400, 404), path


def test_a_login_leads_back_to_the_list(server: Server) -> None:
    answer = get(server, "/ui/login", "reader")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_what_a_client_sends_is_not_written_into_a_page_as_html(server: Server) -> None:
    for path in ("/ui/%3Cscript%3E/tags", "/ui/public/app/tags?contains=%3Cscript%3E", "/ui/<script>/tags"):
        assert "<script" not in get(server, path, "root").text


@pytest.mark.parametrize(
    ("headers", "command"),
    [
        ({"Host": "images.example:5000"}, "skopeo copy --src-tls-verify=false docker://images.example:5000/public/app:v1"),
        ({"Host": "x;$(reboot)"}, "skopeo copy --src-tls-verify=false docker://REGISTRY/public/app:v1"),
        ({"Host": "a.example", "X-Forwarded-Proto": "https"}, "skopeo copy docker://a.example/public/app:v1"),
        ({"Host": "[::1]:5000"}, "docker pull [::1]:5000/public/app:v1"),
    ],
)  # fmt: skip
def test_commands_name_the_host_that_was_asked(server: Server, headers: dict[str, str], command: str) -> None:
    text = html.unescape(get(server, PATHS[2], headers=headers).text)
    assert f"<code>{command}" in text


def test_paths_that_are_no_page(server: Server) -> None:
    for path in ("/ui", "/ui/", "/ui/tags", "/ui/a/b", "/ui/a/manifests/", "/ui//tags", "/ui/a/../b/tags"):
        assert get(server, path).status_code in (400, 401, 404), path
    with server.client() as client:
        answer = client.post("/")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert (client.options("/").status_code, client.options("/").content) == (204, b"")


def test_without_pages_there_is_no_trace_of_them(server: Server) -> None:
    class Asked:
        route = name = reference = ""

        def __init__(self, path: str) -> None:
            self.path, self.method = path, "GET"

    for path in ("/", "/ui/health", "/ui/login", "/ui/a/tags", "/ui/a/untagged", "/ui/a/manifests/v1"):
        asked: Request = Asked(path)  # type: ignore[assignment]
        assert routes.find(asked).need and asked.route in routes.PAGES
        with pytest.raises(NameUnknown):
            routes.find(asked, routes.WITHOUT_PAGES)
    assert HttpConfig().ui


def test_forms_of_other_sites_change_nothing(server: Server) -> None:
    path = "/v2/public/app/blobs/uploads/"
    with server.client(auth=("root", "root")) as client:
        for site, status in (("cross-site", 403), ("same-origin", 202), ("none", 202)):
            headers = {"Sec-Fetch-Site": site}
            assert client.post(path, headers=headers).status_code == status
            whole = client.post(path, headers=headers, params={"digest": digest_of(b"x")}, content=b"x")
            assert whole.status_code == (403 if status == 403 else 201)


def test_names_from(server: Server) -> None:
    def links(query: str, login: str | None = "root") -> list[str]:
        return re.findall('href="/ui/([^"]*)/tags"', get(server, f"/?{query}", login).text)

    assert links("from=h") == links("from=hidden") == ["hidden/app", "public/app"]
    assert links("from=%20Hidden/App%20") == ["hidden/app", "public/app"]
    assert links("from=hidden/app", None) == links("from=public/", None) == ["public/app"]
    assert links("from=public/app&last=a") == ["public/app"]
    assert links("from=q") == [] and "nothing after <code>q</code>" in get(server, "/?from=q").text
    assert get(server, "/?from=a:b").status_code == 400


def test_a_storage_that_hangs_holds_no_one_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page becomes 503, for which no thread has to be free; the registry itself is answered meanwhile."""
    monkeypatch.setattr(page, "PAGE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(page, "REFUSAL_TIMEOUT_S", 0.05)
    hangs, store = threading.Event(), FakeStore(nonblocking=True)
    monkeypatch.setattr(store, "repository", lambda name, **options: hangs.wait(30))

    async def ask(client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(client.get("/ui/a/tags") for _ in range(4)))
        assert [answer.status_code for answer in answers] == [503] * 4
        assert "retry-after" in answers[0].headers and (await client.get("/v2/")).status_code == 200
        hangs.set()

    asked(store, ask)


def test_a_page_whose_client_has_left_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LOOK_S", 0.01)
    go, seen, store = threading.Event(), list[str](), FakeStore(nonblocking=True)

    def repository(name: str, **options: object) -> FakeStore:
        seen.append(name)
        go.wait(30)
        raise NameUnknown("it is not here")

    monkeypatch.setattr(store, "repository", repository)

    async def ask(client: httpx.AsyncClient) -> None:
        (served,) = told
        busy = [asyncio.create_task(client.get("/ui/busy/tags")) for _ in range(PAGE_THREADS)]
        while len(seen) < PAGE_THREADS:
            await asyncio.sleep(0.01)
        _, line = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        connections = len(served.connections)
        line.write(b"GET /ui/left/tags HTTP/1.1\r\nHost: x\r\n\r\n")
        while served.in_flight == PAGE_THREADS:
            await asyncio.sleep(0.01)
        line.close()
        async with asyncio.timeout(10):
            while len(served.connections) >= connections:
                await asyncio.sleep(0.01)
        go.set()
        assert [answer.status_code for answer in await asyncio.gather(*busy)] == [404] * PAGE_THREADS

    told = list[Service]()
    try:
        asked(store, ask, told=told)
    finally:
        go.set()
    assert "left" not in seen


def test_who_never_asks_for_a_page_pays_nothing_for_it() -> None:
    code = "import sys, zotctl.http.worker; print([m for m in sys.modules if m.startswith(('jinja2', 'zotctl.web'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_in_a_browser_on_a_phone(server: Server) -> None:
    """Nothing is wider than 360 pixels, and the policy lets the browser use the style sheet."""
    need("chromium")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=360,800",
        "--dump-dom",
        "--hide-scrollbars",
    ]
    options += [f"--user-data-dir={server.home / 'profile'}", "--enable-logging=stderr"]
    shown = subprocess.run(
        [program("chromium"), *options, f"{server.url}{PATHS[2]}"], capture_output=True, text=True, timeout=60
    )
    assert "<h1>public/app" in shown.stdout and "Content Security Policy" not in shown.stderr
    # A window can't be made that narrow without a script of the page, but a frame can.
    measure = "parent.postMessage(document.documentElement.scrollWidth + ' ' + getComputedStyle(document.querySelector('table')).display, '*')"  # noqa: E501
    inner, outer = server.home / "inner.html", server.home / "outer.html"
    inner.write_text(get(server, PATHS[2]).text.replace("</body>", f"<script>{measure}</script></body>"))
    outer.write_text(
        "<script>onmessage = event => { document.title = event.data }</script>"
        '<iframe src="inner.html" width="360" height="800" frameborder="0"></iframe>'
    )
    shown = subprocess.run([program("chromium"), *options, outer.as_uri()], capture_output=True, text=True, timeout=60)
    assert "<title>360 block</title>" in shown.stdout
