"""The registry on a bucket, as a process: starts, outages, credentials, redirects, several workers and servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests import images
from tests.buckets import Bucket, make_bucket
from tests.buckets import Server as ObjectStore
from tests.http.serving import Raw, Server, digest, error_code, push_blob, serving, until
from tests.object_proxy import FAULTS, RESET, ProxiedRequest, Proxy, one_in
from tests.tools import need
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import keys
from zotctl.storage.bucket.blobs import REDIRECT_MIN_BYTES
from zotctl.storage.index import empty_index

BIG = os.urandom(3 << 20)


def push_image(client: httpx.Client, name: str, tag: str) -> images.Image:
    made = images.image(f"{name} {tag}", layers=2)
    for body in made.blobs:
        push_blob(client, name, body)
    headers = {"Content-Type": OCI_MANIFEST}
    client.put(f"/v2/{name}/manifests/{tag}", content=made.manifest, headers=headers).raise_for_status()
    return made


@pytest.fixture
def bucket_server(own_server: ObjectStore) -> Bucket:
    """On a server that the test may stop."""
    return make_bucket(own_server)


# -- start ---------------------------------------------------------------------------------------


def test_a_start_asks_for_nothing_that_grows(tmp_path: Path, bucket: Bucket) -> None:
    """I12, with 10,000 repositories."""
    with serving(tmp_path / "first", bucket=bucket):
        pass
    one = tmp_path / "empty"
    one.touch()
    names = bucket.path(keys.listed_name("r")).parent
    for directory in (names, bucket.path("r")):
        directory.mkdir(parents=True, exist_ok=True)
    for number in range(10_000):
        os.link(one, bucket.path(keys.listed_name(f"r/{number}")))
        bucket.path(f"r/{number}").mkdir()
        os.link(one, bucket.path(keys.layout(f"r/{number}")))
    bucket.client().put(keys.index("r/9999"), empty_index().render())
    bucket.requests()
    with serving(tmp_path / "second", workers=2, bucket=bucket) as server, server.client() as client:
        assert client.get("/v2/r/9999/tags/list").json() == {"name": "r/9999", "tags": []}
        requests = bucket.requests()
        assert len(requests) <= 2 * 6 + 1, requests
        assert client.get("/v2/_catalog", params={"n": 3}).json() == {"repositories": ["r/0", "r/1", "r/10"]}


def test_what_was_found_of_the_object_store_is_kept(tmp_path: Path, bucket: Bucket) -> None:
    with serving(tmp_path / "first", bucket=bucket):
        assert bucket.counts()["PutObject"] > 10
    with serving(tmp_path / "second", bucket=bucket):
        assert bucket.counts()["PutObject"] == 0


def zotctl(bucket: Bucket, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zotctl.cli", *words],
        env=os.environ | bucket.environment | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_wrong_credentials_say_who_was_refused(bucket: Bucket) -> None:
    for words in (["serve", "--listen", "127.0.0.1:0"], ["verify"]):
        done = zotctl(bucket, *words, "--root", bucket.url, AWS_ACCESS_KEY_ID="nobody", AWS_SECRET_ACCESS_KEY="wrong")
        assert done.returncode == 12, done.stderr
        assert "nobody" in done.stderr and str(bucket.settings.endpoint) in done.stderr
        assert "wrong" not in done.stderr.replace("wrong usage", "")


def test_a_bucket_that_does_not_exist_is_no_store(bucket: Bucket) -> None:
    for words in (["serve", "--listen", "127.0.0.1:0"], ["verify"]):
        done = zotctl(bucket, *words, "--root", "s3://not-there-at-all")
        assert done.returncode == 10, done.stderr
        assert "not-there-at-all" in done.stderr and "make it" in done.stderr


def test_a_job_does_not_wait_for_a_bucket_that_is_away(bucket_server: Bucket) -> None:
    bucket_server.server.stop()
    done = zotctl(bucket_server, "verify", "--root", bucket_server.url)
    assert done.returncode == 14, done.stderr


def test_a_later_format_is_refused(bucket: Bucket) -> None:
    bucket.client().put(keys.VERSION, b'{"format": 99}')
    done = zotctl(bucket, "serve", "--listen", "127.0.0.1:0", "--root", bucket.url)
    assert done.returncode == 3, done.stderr
    assert "update zotctl" in done.stderr


def test_a_bucket_is_no_reason_to_load_botocore_before_it_is_opened() -> None:
    code = "import sys; from zotctl.cli import main; sys.argv[1:] = ['--help']\ntry: main()\nexcept SystemExit: pass\n"
    code += "import zotctl.storage, zotctl.config; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


# -- outages -------------------------------------------------------------------------------------


def test_a_bucket_that_is_away_at_the_start_is_served_when_it_is_there(tmp_path: Path, bucket_server: Bucket) -> None:
    bucket_server.server.stop()
    with serving(tmp_path / "home", bucket=bucket_server) as server, server.client() as client:
        assert client.get("/v2/").status_code == 200
        answer = client.get("/readyz?verbose")
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.json()["roots"][0]["root"] == bucket_server.url
        bucket_server.server.start()
        until(lambda: client.get("/readyz").status_code == 200)
        push_image(client, "a", "1.0")
        assert client.get("/v2/a/tags/list").json()["tags"] == ["1.0"]


def test_serve_ends_within_drain_while_its_job_waits_for_the_bucket(tmp_path: Path, bucket: Bucket) -> None:
    """The job process, too, wherever in a request it is."""
    asked = threading.Event()

    def hang(request: ProxiedRequest) -> str:
        if request.method == "GET" and "prefix" in request.query and "_blobs" not in request.query["prefix"]:
            asked.set()  # a collector lists; servers that get no request do not
            return RESET
        return ""

    with closing(Proxy(bucket.server.endpoint, choose=hang)) as proxy:
        unfit = Bucket(replace(bucket.settings, endpoint=proxy.endpoint), bucket.server)
        config = '[storage]\ngc_interval = "1s"\n'
        with serving(tmp_path / "home", "--drain", "2s", config=config, bucket=unfit) as server:
            assert asked.wait(60)
            workers = server.workers()
            assert server.stop() == 0
            assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


@pytest.mark.timeout(180)
def test_a_bucket_that_goes_and_comes_back(tmp_path: Path, bucket_server: Bucket) -> None:
    with (
        serving(tmp_path / "home", bucket=bucket_server) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        made = push_image(client, "a", "1.0")
        bucket_server.server.stop()
        # As long as the object store may be starting again, requests are repeated; then the clients hear of it.
        for path in ("manifests/1.0", f"blobs/{digest(made.blobs[0])}", "tags/list"):
            answer = client.get(f"/v2/a/{path}")
            assert (answer.status_code, error_code(answer)) == (503, "UNAVAILABLE"), path
            assert answer.headers["retry-after"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        bucket_server.server.start()
        until(lambda: client.get("/v2/a/manifests/1.0").status_code == 200)
        until(lambda: client.get("/readyz").status_code == 200)


# -- blobs ---------------------------------------------------------------------------------------


def test_a_client_that_goes_leaves_no_reader_behind(tmp_path: Path, bucket: Bucket) -> None:
    with serving(tmp_path / "home", bucket=bucket) as server, server.client() as client:
        made = push_blob(client, "a", BIG * 8)
        for _ in range(20):
            with Raw(server.port) as raw:
                raw.head("GET", f"/v2/a/blobs/{made}")
                raw.socket.recv(1000)
        (worker,) = server.workers()
        port = bucket.server.port
        until(lambda: connections(worker, port) <= 4)
        assert client.get(f"/v2/a/blobs/{made}").content == BIG * 8
        assert "traceback" not in server.log()


def connections(pid: int, port: int) -> int:
    """Established ones of a process to a local port."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[3] == "01" and int(row[2].partition(":")[2], 16) == port and row[9] in inodes for row in rows)


def test_many_slow_clients_stop_no_other(tmp_path: Path, bucket: Bucket) -> None:
    with serving(tmp_path / "home", bucket=bucket) as server, server.client() as client, ExitStack() as stack:
        made = push_blob(client, "a", BIG * 8)
        for _ in range(80):
            stack.enter_context(Raw(server.port)).head("GET", f"/v2/a/blobs/{made}")
        time.sleep(1)
        assert client.get(f"/v2/a/blobs/{made}", headers={"Range": "bytes=5-9"}).content == BIG[5:10]
        assert [line for line in server.lines() if line["level"] == "warning"] == []


REDIRECT = """
[storage.s3]
redirect = true
redirect_lifetime = "5m"
"""


@pytest.fixture
def redirecting(tmp_path: Path, bucket: Bucket) -> Iterator[Server]:
    with serving(tmp_path / "home", config=REDIRECT, bucket=bucket) as server:
        yield server


def test_large_blobs_come_from_the_bucket_itself(redirecting: Server, bucket: Bucket) -> None:
    with redirecting.client() as client:
        made, small = push_blob(client, "a", BIG), push_blob(client, "a", BIG[: REDIRECT_MIN_BYTES - 1])
        answer = client.get(f"/v2/a/blobs/{made}")
        assert answer.status_code == 307 and answer.headers["docker-content-digest"] == made
        place = answer.headers["location"]
        assert place.startswith(f"{bucket.settings.endpoint}/") and "X-Amz-Expires=300" in place
        assert httpx.get(place, timeout=60).content == BIG
        part = client.get(f"/v2/a/blobs/{made}", headers={"Range": "bytes=5-9"}, follow_redirects=True)
        assert (part.status_code, part.content) == (206, BIG[5:10])
        several = client.get(f"/v2/a/blobs/{made}", headers={"Range": "bytes=5-9,2000000-2000004"})
        assert several.status_code == 206 and BIG[5:10] in several.content and BIG[2000000:2000005] in several.content
        assert client.head(f"/v2/a/blobs/{made}").status_code == 200
        assert client.get(f"/v2/a/blobs/{small}").content == BIG[: REDIRECT_MIN_BYTES - 1]
        assert client.get(f"/v2/a/blobs/{made}", headers={"If-None-Match": f'"{made}"'}).status_code == 304


@pytest.mark.parametrize("program", ["skopeo", "crane", "oras", "regctl"])
def test_real_clients_follow_a_redirect(redirecting: Server, tmp_path: Path, program: str) -> None:
    need(program)
    with redirecting.client() as client:
        layer = push_blob(client, "a", BIG)
        config = push_blob(client, "a", b"{}")
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": len(BIG)}],
            }
        )
        answer = client.put("/v2/a/manifests/1.0", content=manifest, headers={"Content-Type": OCI_MANIFEST})
        answer.raise_for_status()
    image = f"127.0.0.1:{redirecting.port}/a:1.0"
    words = {
        "skopeo": [
            "copy",
            "--src-tls-verify=false",
            "--dest-oci-accept-uncompressed-layers",
            f"docker://{image}",
            "oci:back:1.0",
        ],
        "crane": ["pull", "--insecure", "--format", "oci", image, "back"],
        "oras": ["copy", "--from-plain-http", image, "--to-oci-layout", "back:1.0"],
        "regctl": [
            "image",
            "copy",
            "--host",
            f"reg={image.partition('/')[0]},tls=disabled",
            image,
            "ocidir://back:1.0",
        ],
    }
    done = subprocess.run([program, *words[program]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back" / "blobs" / layer.replace(":", "/")).read_bytes() == BIG
    until(lambda: any(line.get("status") == 307 for line in redirecting.lines()))


def test_a_redirect_costs_no_request_again_and_none_is_given_without_a_right(
    redirecting: Server, bucket: Bucket
) -> None:
    with redirecting.client() as client:
        made = push_blob(client, "a", BIG)
        push_blob(client, "b", b"x")
        client.get(f"/v2/a/blobs/{made}")
        bucket.requests()
        assert client.get(f"/v2/a/blobs/{made}").status_code == 307
        assert not [request for request in bucket.requests() if request.operation != "ListObjectsV2"]
        assert client.get(f"/v2/b/blobs/{made}").status_code == 404
        client.delete(f"/v2/a/blobs/{made}").raise_for_status()
        assert client.get(f"/v2/a/blobs/{made}").status_code == 404


# -- workers and servers -------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--dedupe"]], ids=["own", "pool"])
def test_a_delete_is_seen_by_the_other_workers(tmp_path: Path, bucket: Bucket, options: list[str]) -> None:
    with serving(tmp_path / "home", *options, workers=3, bucket=bucket) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(12)]  # a connection each, over all workers
        for number in range(10):
            made = push_blob(clients[number], "a", os.urandom(100))
            assert {client.head(f"/v2/a/blobs/{made}").status_code for client in clients} == {200}
            assert clients[0].delete(f"/v2/a/blobs/{made}").status_code == 202
            assert {client.head(f"/v2/a/blobs/{made}").status_code for client in clients} == {404}


def test_servers_share_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(tmp_path / str(n), bucket=bucket)) for n in range(2)]
        clients = [stack.enter_context(server.client()) for server in servers]

        def push(number: int) -> None:
            push_image(clients[number % 2], "shared", f"t{number}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(push, range(40)))
        for client in clients:
            assert sorted(client.get("/v2/shared/tags/list").json()["tags"]) == sorted(f"t{n}" for n in range(40))
        # An upload that was begun at one goes on at the other.
        where = clients[0].post("/v2/shared/blobs/uploads/").headers["location"]
        where = clients[1].patch(where, content=BIG).headers["location"]
        clients[0].put(where, params={"digest": digest(BIG)}).raise_for_status()
        assert clients[1].get(f"/v2/shared/blobs/{digest(BIG)}").content == BIG


def test_a_read_only_server_writes_nothing(tmp_path: Path, bucket: Bucket) -> None:
    with serving(tmp_path / "home", bucket=bucket) as server, server.client() as client:
        made = push_image(client, "a", "1.0")
    for found in list(bucket.client().list(keys.RESERVATIONS)):
        bucket.client().delete(found.key)
    bucket.requests()
    with serving(tmp_path / "other", "--read-only", bucket=bucket) as server, server.client() as client:
        assert client.get("/v2/a/manifests/1.0").content == made.manifest
        assert client.head(f"/v2/a/blobs/{digest(made.blobs[0])}").status_code == 200
        assert client.get(f"/v2/a/blobs/{digest(made.blobs[0])}").content == made.blobs[0]
        assert client.post("/v2/a/blobs/uploads/").status_code == 405
    assert {request.operation for request in bucket.requests()} <= {"GetObject", "HeadObject", "ListObjectsV2"}


def test_a_second_writer_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    alone = "[storage.s3]\nsingle_writer = true\n"
    with serving(tmp_path / "home", config=alone, workers=1, bucket=bucket) as server, server.client() as client:
        push_image(client, "a", "1.0")
        other = zotctl(bucket, "serve", "--listen", "127.0.0.1:0", "--root", bucket.url, ZOTCTL_SINGLE_WRITER="true")
        assert other.returncode == 11, other.stderr
        assert "has a single writer already" in other.stderr
    with serving(tmp_path / "next", config=alone, workers=1, bucket=bucket) as server, server.client() as client:
        assert client.get("/v2/a/tags/list").json()["tags"] == ["1.0"]


def behind(proxy: Proxy, bucket: Bucket) -> Bucket:
    return Bucket(replace(bucket.settings, endpoint=proxy.endpoint), bucket.server)


def test_an_object_store_without_conditions_is_for_a_single_writer(tmp_path: Path, bucket: Bucket) -> None:
    with closing(Proxy(bucket.server.endpoint, conditions=False)) as proxy:
        unfit = behind(proxy, bucket)
        done = zotctl(unfit, "serve", "--listen", "127.0.0.1:0", "--root", unfit.url)
        assert done.returncode == 3, done.stderr
        assert "If-Match" in done.stderr and "ZOTCTL_SINGLE_WRITER" in done.stderr
        with ExitStack() as stack:
            alone = "[storage.s3]\nsingle_writer = true\n"
            server = stack.enter_context(serving(tmp_path / "home", config=alone, bucket=unfit))
            clients = [stack.enter_context(server.client()) for _ in range(2)]
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda n: push_image(clients[n % 2], "a", f"t{n}"), range(20)))
            assert len(clients[0].get("/v2/a/tags/list").json()["tags"]) == 20


def test_one_request_in_ten_fails_and_no_client_hears_of_it(tmp_path: Path, bucket: Bucket) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(closing(Proxy(bucket.server.endpoint)))
        server = stack.enter_context(serving(tmp_path / "home", workers=2, bucket=behind(proxy, bucket)))
        client = stack.enter_context(server.client())
        proxy.choose = one_in(10, 1, FAULTS)
        for number in range(10):
            made = push_image(client, "a", f"t{number}")
            assert client.get(f"/v2/a/manifests/t{number}").content == made.manifest
            assert client.get(f"/v2/a/blobs/{digest(made.blobs[0])}").content == made.blobs[0]
        large = push_blob(client, "a", BIG)
        assert client.get(f"/v2/a/blobs/{large}").content == BIG
        assert len(client.get("/v2/a/tags/list").json()["tags"]) == 10
        assert len(proxy.faults) > 5


def test_directories_and_buckets_are_one_registry(tmp_path: Path, bucket: Bucket) -> None:
    config = f'[[storage.routes]]\nprefix = "local"\nroot = {{ path = "{tmp_path / "dir"}", create = true }}\n'
    with serving(tmp_path / "home", config=config, bucket=bucket) as server, server.client() as client:
        push_image(client, "local/a", "1.0")
        push_image(client, "b", "1.0")
        assert client.get("/v2/_catalog").json() == {"repositories": ["b", "local/a"]}
        assert (tmp_path / "dir" / "local" / "a" / "index.json").exists()
        assert bucket.path(keys.index("b")).exists()
        assert client.get("/v2/local/a/tags/list").json()["tags"] == ["1.0"]
