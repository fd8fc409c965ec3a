"""A page of another site calls the registry in a real browser, as web interfaces of registries do (CORS).

Spec: https://fetch.spec.whatwg.org, sections "CORS protocol" and "CORS-safelisted response-header name".
"""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests import images
from tests.clients.peers import push_image
from tests.http.serving import serving
from tests.logins import users_file
from tests.tools import need
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST

WAIT_S = 120

PAGE = """<!doctype html><script>
async function ask({url, ...how}) {
  try {
    const answer = await fetch(url, how);
    return {status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text()};
  } catch (error) {
    return {refused: String(error)};
  }
}
(async () => {
  const told = [];
  for (const request of REQUESTS) told.push(await ask(request));
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>FRAMES"""


class Site:
    """Another site, with one page, which sends requests and tells what their answers were."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.frames = ""
        self.told: queue.Queue[list[dict[str, Any]]] = queue.Queue()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = PAGE.replace("REQUESTS", json.dumps(site.requests)).replace("FRAMES", site.frames)
                self._answer(page.encode())

            def do_POST(self) -> None:
                site.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def site() -> Iterator[Site]:
    made = Site()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@contextmanager
def browser(home: Path, url: str) -> Iterator[None]:
    need("chromium")
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-extensions", "--disable-background-networking", f"--user-data-dir={home}",
        "--remote-debugging-port=0",
    ]  # fmt: skip
    with (home.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(["chromium", *options, url], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def test_a_page_reads_and_pushes_across_origins(tmp_path: Path) -> None:
    need("chromium")
    made = images.image("browser")
    referrer = images.image("referrer", subject=made.digest, artifactType="application/x-test")
    with site() as allowed, site() as other:
        config = f"""
[http]
allow_origin = "{allowed.origin}"
[http.auth]
htpasswd = "{users_file(tmp_path, "ann")}"
"""
        with serving(tmp_path / "registry", config=config) as server:
            with server.client(auth=("ann", "ann")) as client:
                push_image(client, "app", made, "1.0", "2.0")
                push_image(client, "app", referrer, "ref")
            login = {"Authorization": f"Basic {base64.b64encode(b'ann:ann').decode()}"}
            manifest = f"{server.url}/v2/app/manifests/1.0"
            fresh = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}", "Cache-Control": "no-cache"}
            referrers = f"{server.url}/v2/app/referrers/{made.digest}?artifactType=application%2Fx-test"
            push = {"method": "PUT", "body": referrer.manifest.decode()}
            allowed.requests = [
                {"url": manifest, "headers": {**login, **fresh}},
                {"url": f"{server.url}/v2/app/tags/list?n=1", "headers": login},
                {"url": referrers, "headers": login},
                {
                    "url": f"{server.url}/v2/app/blobs/{digest_of(made.blobs[0])}",
                    "headers": {**login, "Range": "bytes=0-9"},
                },
                {
                    "url": f"{server.url}/v2/app/manifests/3.0?tag=4.0",
                    "headers": {**login, "Content-Type": OCI_MANIFEST},
                    **push,
                },
                {"url": manifest},
            ]
            other.requests = [{"url": manifest, "headers": login}]
            allowed.frames = f'<iframe src="{other.origin}"></iframe>'
            with browser(tmp_path / "profile", allowed.origin):
                told, refused = allowed.told.get(timeout=WAIT_S), other.told.get(timeout=WAIT_S)
    got, tags, list_of_referrers, part, pushed, without_login = told
    assert (got["status"], got["text"].encode()) == (200, made.manifest)
    assert got["headers"]["docker-content-digest"] == made.digest
    assert got["headers"]["etag"] == f'"{made.digest}"'
    assert json.loads(tags["text"])["tags"] == ["1.0"]
    assert 'rel="next"' in tags["headers"]["link"]
    assert list_of_referrers["headers"]["oci-filters-applied"] == "artifactType"
    assert (part["status"], len(part["text"])) == (206, 10)
    assert part["headers"]["content-range"] == f"bytes 0-9/{len(made.blobs[0])}"
    assert pushed["status"] == 201
    assert pushed["headers"]["oci-subject"] == made.digest
    assert pushed["headers"]["oci-tag"] == "3.0, 4.0"
    assert pushed["headers"]["location"] == f"/v2/app/manifests/{referrer.digest}"
    assert without_login["status"] == 401
    assert "Basic" in without_login["headers"]["www-authenticate"]
    assert "Failed to fetch" in refused[0]["refused"]
