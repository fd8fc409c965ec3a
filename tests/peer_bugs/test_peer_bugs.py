"""What other registries get wrong, each by the recipe with which it was seen there, against our processes.

The number in a test's name is the one of the list of peer bugs; the docstring says what happens there.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import images
from tests.cli.running import zotctl
from tests.clients.peers import ACCEPT, push_image, put_manifest
from tests.clients.test_many_servers import kill_outright
from tests.faultproof.checks import faults_of, files_below
from tests.http.serving import Server, digest, error_code, push_blob, serving
from tests.storage.mounting import mount_at
from tests.tools import need
from zotctl.oci.media_types import OCI_MANIFEST

REF = "org.opencontainers.image.ref.name"
OLD = 1_500_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "one") as made:
        yield made
        assert "traceback" not in made.log()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@contextmanager
def another(server: Server, home: Path) -> Iterator[Server]:
    home.mkdir()
    (home / "root").symlink_to(server.root)
    with serving(home) as made:
        yield made


def job(root: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code of a command, and its report."""
    done = zotctl(*words, "--root", str(root), "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def blob(root: Path, name: str, content: bytes | str) -> Path:
    encoded = (content if isinstance(content, str) else digest(content)).removeprefix("sha256:")
    return root / name / "blobs" / "sha256" / encoded


def flip(path: Path) -> None:
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:  # in place: all its names rot together
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def age(*paths: Path) -> None:
    """As if it were there for years: files, and what lies in a trash."""
    for path in paths:
        for one in [path, *path.rglob("*")]:
            os.utime(one, (OLD, OLD))


def put(client: httpx.Client, name: str, made: images.Image, tag: str) -> httpx.Response:
    headers = {"Content-Type": OCI_MANIFEST}
    return client.put(f"/v2/{name}/manifests/{tag}", content=made.manifest, headers=headers)


def assert_whole(client: httpx.Client, name: str, made: images.Image, reference: str) -> None:
    answer = client.get(f"/v2/{name}/manifests/{reference}", headers=ACCEPT)
    assert (answer.status_code, answer.content) == (200, made.manifest)
    for body in made.blobs:
        answer = client.get(f"/v2/{name}/blobs/{digest(body)}")
        assert (answer.status_code, answer.content) == (200, body)


def assert_absent(client: httpx.Client, name: str, wanted: str) -> None:
    assert client.head(f"/v2/{name}/blobs/{wanted}").status_code == 404
    answer = client.get(f"/v2/{name}/blobs/{wanted}")
    assert (answer.status_code, error_code(answer)) == (404, "BLOB_UNKNOWN")


def at_once(*works: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)


# -- several processes ----------------------------------------------------------------------------


def test_01_two_servers_lose_no_tag_of_each_other(server: Server, tmp_path: Path) -> None:
    """zot without dedupe loses 33 of 200, olareg 100."""
    made = images.image("x")
    with another(server, tmp_path / "two") as other:
        with server.client() as client:
            push_image(client, "app", made, "first")

        def writer(to: Server, who: str) -> Callable[[], None]:
            def write() -> None:
                with to.client() as mine:
                    for number in range(50):
                        put_manifest(mine, "app", images.image("x", n=f"{who}{number}").manifest, f"{who}-{number}")

            return write

        at_once(*(writer(to, f"{who}{half}") for who, to in (("a", server), ("b", other)) for half in (0, 1)))
        wanted = {f"{who}{half}-{number}" for who in "ab" for half in (0, 1) for number in range(50)} | {"first"}
        for one in (server, other):
            assert set(httpx.get(f"{one.url}/v2/app/tags/list", timeout=60).json()["tags"]) == wanted
    with another(server, tmp_path / "later") as later:
        assert set(httpx.get(f"{later.url}/v2/app/tags/list", timeout=60).json()["tags"]) == wanted


def test_02_a_second_server_starts_on_the_same_root(server: Server, tmp_path: Path) -> None:
    """zot waits ten seconds for its database and exits: no rolling restart."""
    made = images.image()
    with server.client() as client:
        push_image(client, "app", made, "v1")
    with another(server, tmp_path / "two") as other, other.client() as client:
        assert_whole(client, "app", made, "v1")
        assert server.stop() == 0
        push_image(client, "app", images.image("more"), "v2")
        assert_whole(client, "app", made, "v1")


# -- content --------------------------------------------------------------------------------------


def test_03_a_digest_is_no_key_to_another_repository(client: httpx.Client) -> None:
    """zot answers 200 with the bytes of the other repository."""
    secret = push_blob(client, "secret", b"nobody else's business")
    push_image(client, "public", images.image(), "v1")
    assert_absent(client, "public", secret)
    assert client.get(f"/v2/never/heard/of/blobs/{secret}").status_code == 404
    answer = client.post("/v2/public/blobs/uploads/", params={"mount": secret})
    assert answer.status_code == 202, "without `from` it is a new upload"
    assert_absent(client, "public", secret)
    assert client.get(f"/v2/secret/blobs/{secret}").content == b"nobody else's business"


def test_04_a_push_heals_what_is_damaged(server: Server, client: httpx.Client) -> None:
    """zot and distribution answer 201 and leave the damage."""
    body = os.urandom(5000)
    name = push_blob(client, "app", body)
    push_blob(client, "other", body)
    path = blob(server.root, "app", body)
    flip(path)
    assert blob(server.root, "other", body).read_bytes() != body, "one inode, one rot"
    assert push_blob(client, "app", body) == name
    assert path.read_bytes() == body
    for repository in ("app", "other"):
        assert client.get(f"/v2/{repository}/blobs/{name}").content == body


def test_05_a_blob_that_was_found_damaged_is_not_served(server: Server, client: httpx.Client) -> None:
    """All serve it with 200. We do until a scrub has seen it, and never after."""
    made = images.image()
    push_image(client, "app", made, "v1")
    flip(blob(server.root, "app", made.blobs[1]))
    assert job(server.root, "scrub")[0] == 4
    assert_absent(client, "app", digest(made.blobs[1]))
    with another(server, server.home / "later") as later, later.client() as fresh:
        assert_absent(fresh, "app", digest(made.blobs[1]))
    push_image(client, "app", made, "v1")
    assert_whole(client, "app", made, "v1")
    assert job(server.root, "scrub")[0] == 0


def test_06_a_short_blob_is_not_sent(server: Server, client: httpx.Client, tmp_path: Path) -> None:
    """zot and olareg send 2,000 bytes with 200, and zot's HEAD says 404 at the same time."""
    layer = os.urandom(5000)
    made = images.image()
    config = made.blobs[0]
    manifest = json.loads(made.manifest) | {"layers": [images.descriptor(layer, images.LAYER)]}
    made = images.Image(json.dumps(manifest).encode(), [config, layer])
    push_image(client, "app", made, "v1")
    alone = push_blob(client, "app", (other := os.urandom(5000)))
    for body in (layer, other):
        os.truncate(blob(server.root, "app", body), 2000)
    assert_absent(client, "app", digest(layer))
    assert_absent(client, "app", alone)
    with another(server, tmp_path / "later") as later, later.client() as fresh:
        assert_absent(fresh, "app", digest(layer))
    assert put(client, "app", made, "v2").status_code in (400, 404)
    push_image(client, "app", made, "v2")
    assert_whole(client, "app", made, "v2")


def test_07_what_was_deleted_from_the_disk_is_gone(server: Server, client: httpx.Client) -> None:
    """distribution says 200 from its memory, and takes manifests that use it."""
    made = images.image()
    push_image(client, "app", made, "v1")
    wanted = digest(made.blobs[1])
    assert client.head(f"/v2/app/blobs/{wanted}").status_code == 200
    blob(server.root, "app", made.blobs[1]).unlink()
    assert_absent(client, "app", wanted)
    answer = put(client, "app", images.image(n=2), "v2")
    assert (answer.status_code, error_code(answer)) == (404, "MANIFEST_BLOB_UNKNOWN")


def test_08_an_empty_file_is_no_blob(server: Server, client: httpx.Client) -> None:
    """olareg takes manifests that use it, and keeps an empty manifest that is pushed again."""
    made, later = images.image(), images.image(n=2)
    for body in made.blobs:
        push_blob(client, "app", body)
    blob(server.root, "app", made.blobs[1]).write_bytes(b"")
    assert_absent(client, "app", digest(made.blobs[1]))
    answer = put(client, "app", made, "v1")
    assert (answer.status_code, error_code(answer)) == (404, "MANIFEST_BLOB_UNKNOWN")
    blob(server.root, "app", later.manifest).write_bytes(b"")
    for one in (made, later):
        push_image(client, "app", one, "v1")
        assert blob(server.root, "app", one.manifest).read_bytes() == one.manifest
        assert_whole(client, "app", one, "v1")


@pytest.mark.timeout(300)
def test_09_kill_9_leaves_no_empty_files(tmp_path: Path) -> None:
    """zot leaves an empty file at a digest in 3 of 25 runs."""
    made = images.image("x")
    root = tmp_path / "0" / "root"
    wanted: dict[str, bytes] = {}
    for turn in range(10):
        home = tmp_path / str(turn)
        if turn:
            home.mkdir()
            (home / "root").symlink_to(root)
        with ExitStack() as stack:
            server = stack.enter_context(serving(home))
            client = stack.enter_context(server.client())
            push_image(client, "app", made, "first")
            _killed_while_writing(server, turn, wanted)
        assert faults_of(files_below(root)) == []
    rows = json.loads((root / "app" / "index.json").read_bytes())["manifests"]
    stored = {row["annotations"][REF]: row["digest"] for row in rows if "annotations" in row}
    assert {tag: digest(body) for tag, body in wanted.items()}.items() <= stored.items()
    assert len(wanted) > 10


def _killed_while_writing(server: Server, turn: int, wanted: dict[str, bytes]) -> None:
    def writer(who: int) -> Callable[[], None]:
        def write() -> None:
            with server.client() as client:
                for number in range(10_000):
                    tag, body = f"t{turn}-{who}-{number}", images.image("x", n=f"{turn} {who} {number}").manifest
                    try:
                        put_manifest(client, "app", body, tag)
                    except httpx.TransportError:
                        return
                    wanted[tag] = body

        return write

    def kill() -> None:
        before = len(wanted)
        while len(wanted) < before + 2:
            time.sleep(0.005)
        time.sleep(turn * 0.003)
        kill_outright(server)

    at_once(writer(0), writer(1), kill)


@contextmanager
def small_disk(point: Path, size: str) -> Iterator[Path]:
    need("root", "mount", "umount")
    point.mkdir()
    with mount_at(point, "-t", "tmpfs", "-o", f"size={size}", "none"):
        yield point


def test_10_a_full_disk_is_told(tmp_path: Path) -> None:
    """zot: 500 with an empty body, and empty files at the digests. olareg: an empty body too."""
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path / "disk", "12m"))
        server = stack.enter_context(serving(disk))
        client = stack.enter_context(server.client())
        made = images.image("x")
        push_image(client, "app", made, "first")
        acknowledged = {"first": made.manifest}
        filler = disk / "filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(b"x" * 65536)
                file.flush()
        refused = 0
        for number in range(20):
            body = images.image("x", n=str(number), big="y" * 100_000).manifest
            answer = client.put(f"/v2/app/manifests/t{number}", content=body, headers={"Content-Type": OCI_MANIFEST})
            if answer.status_code == 201:
                acknowledged[f"t{number}"] = body
            else:
                assert (answer.status_code, error_code(answer)) == (507, "DENIED")
                assert "full" in answer.text or "space" in answer.text
                refused += 1
        assert refused
        assert faults_of(files_below(server.root), temps=False) == []
        for tag, body in acknowledged.items():
            assert client.get(f"/v2/app/manifests/{tag}", headers=ACCEPT).content == body
        filler.unlink()
        put_manifest(client, "app", made.manifest, "again")


def test_11_a_failed_upload_frees_its_bytes(tmp_path: Path) -> None:
    """distribution holds them for a week, and each push fails meanwhile."""
    body = os.urandom(60 << 20)
    with small_disk(tmp_path / "disk", "48m") as disk:
        with serving(disk) as server, server.client() as client:
            free = shutil.disk_usage(disk).free
            answer = client.post("/v2/app/blobs/uploads/", params={"digest": digest(body)}, content=body)
            assert answer.status_code == 507
            location = client.post("/v2/app/blobs/uploads/").headers["location"]
            assert client.patch(location, content=body).status_code == 507
            assert shutil.disk_usage(disk).free > free - (2 << 20)
            push_image(client, "app", images.image(), "v1")
            location = client.post("/v2/app/blobs/uploads/").headers["location"]
            assert client.put(location, params={"digest": digest(body[: 4 << 20])}, content=body[: 4 << 20]).is_success
        with serving(disk) as server, server.client() as client:
            assert_whole(client, "app", images.image(), "v1")
            push_blob(client, "app", body[: 5 << 20])


# -- collection -----------------------------------------------------------------------------------


def test_12_with_an_unknown_media_type_nothing_is_collected(server: Server, client: httpx.Client) -> None:
    """zot removes the tagged row, its manifest and its data; olareg the data."""
    directory = images.lay_out(server.root / "app", images.image())
    thing, data = b'{"data": "sha256:..."}', b"what only the thing knows"
    for body in (thing, data):
        blob(server.root, "app", body).write_bytes(body)
    row = images.descriptor(thing, "application/vnd.thing.v1+json") | {"annotations": {REF: "thing"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))
    age(directory)
    before = files_below(directory)
    for _ in range(2):
        code, report = job(server.root, "gc", "--delay", "0s", "--untagged", "all")
        assert code == 5
        (finding,) = report["findings"]
        assert (finding["repository"], finding["kind"], finding["tags"]) == ("app", "unknown_media_type", ["thing"])
        assert files_below(directory) == before
    assert client.get("/v2/app/tags/list").json()["tags"] == ["thing"]


def test_13_a_foreign_image_without_a_tag_is_kept(server: Server, client: httpx.Client) -> None:
    """zot deletes all of it."""
    made = images.image()
    age(images.lay_out(server.root / "app", made))
    for _ in range(2):
        assert job(server.root, "gc", "--delay", "0s")[0] == 0
    assert_whole(client, "app", made, str(made.digest))
    age(server.root)
    job(server.root, "gc", "--delay", "0s", "--untagged", "all")
    job(server.root, "gc", "--delay", "0s", "--untagged", "all")
    assert not (server.root / "app" / "blobs").exists() or files_below(server.root / "app" / "blobs") == {}


def test_14_a_full_name_is_found_by_its_tag(server: Server, client: httpx.Client) -> None:
    """zot and olareg list the full name, which is no tag, and find neither."""
    made = images.image()
    images.lay_out(server.root / "busybox", made, [images.row(made, "docker.io/library/busybox:1.36")])
    assert client.get("/v2/busybox/tags/list").json()["tags"] == ["1.36"]
    assert_whole(client, "busybox", made, "1.36")


def test_15_the_delay_counts_from_the_reserve(server: Server, client: httpx.Client) -> None:
    """zot and olareg: HEAD says 200, the collector takes it 40 ms later, and the manifest is refused."""
    made = images.image()
    for body in made.blobs:
        push_blob(client, "app", body)
    for _ in range(3):
        age(server.root / "app" / "blobs")
        assert job(server.root, "gc", "--delay", "1h")[1]["summary"]["unreachable"] == len(made.blobs)
        assert not any(blob(server.root, "app", body).exists() for body in made.blobs)
        age(server.root / ".zotctl" / "trash")  # the next run frees what lies there
        for body in made.blobs:
            assert client.head(f"/v2/app/blobs/{digest(body)}").status_code == 200
    age(server.root / "app" / "blobs")
    assert job(server.root, "gc", "--delay", "1h")[1]["summary"]["unreachable"] == len(made.blobs)
    assert put(client, "app", made, "v1").status_code == 201
    assert_whole(client, "app", made, "v1")


@pytest.mark.timeout(300)
def test_16_collecting_beside_pushes_loses_nothing(server: Server) -> None:
    """distribution: 208 of 252 acknowledged images are gone."""
    delay, acknowledged, done = 6.0, dict[str, images.Image](), threading.Event()
    with server.client() as client:  # layers that no manifest uses, and old: what a collection is after
        for number in range(10):
            for body in images.image(f"shared {number}").blobs:
                push_blob(client, "app", body)
        age(server.root / "app" / "blobs")

    def writer(who: int) -> Callable[[], None]:
        def write() -> None:
            with server.client() as client:
                for number in range(10_000):
                    if done.is_set():
                        return
                    made, began = images.image(f"shared {number % 10}", n=f"{who} {number}"), time.monotonic()
                    for body in made.blobs:
                        if client.head(f"/v2/app/blobs/{digest(body)}").status_code == 404:
                            push_blob(client, "app", body)
                    answer = put(client, "app", made, f"t{who}-{number}")
                    late = time.monotonic() - began > delay - 0.1
                    assert answer.status_code == 201 or late, answer.text
                    if answer.status_code == 201:
                        acknowledged[f"t{who}-{number}"] = made

        return write

    def collect() -> None:
        try:
            for _ in range(4):
                assert job(server.root, "gc", "--delay", f"{delay:.0f}s", "--untagged", "all")[0] == 0
        finally:
            done.set()

    at_once(*(writer(who) for who in range(4)), collect)
    assert len(acknowledged) >= 4
    with server.client() as client:
        for tag, made in acknowledged.items():
            assert_whole(client, "app", made, tag)


@pytest.mark.parametrize("reservation", ["HEAD", "mount", "repeated push"])
def test_what_a_client_was_told_holds_across_a_collection(
    server: Server, client: httpx.Client, reservation: str
) -> None:
    """zot and olareg refuse the manifest: a reservation about an old blob is one too."""
    made = images.image()
    for name in ("app", "source"):
        for body in made.blobs:
            push_blob(client, name, body)
    if reservation == "mount":
        shutil.rmtree(server.root / "app")
    age(server.root / "source")
    if reservation != "mount":
        age(server.root / "app")
    for body in made.blobs:
        wanted, path = digest(body), "/v2/app/blobs/uploads/"
        if reservation == "HEAD":
            assert client.head(f"/v2/app/blobs/{wanted}").status_code == 200
        elif reservation == "mount":
            assert client.post(path, params={"mount": wanted, "from": "source"}).status_code == 201
        else:
            assert client.post(path, params={"digest": wanted}, content=body).status_code == 201
    code, report = job(server.root, "gc", "--delay", "1h")
    assert (code, report["summary"]["unreachable"]) == (0, 2 * len(made.blobs)), "both repositories are swept"
    assert put(client, "app", made, "v1").status_code == 201
    assert_whole(client, "app", made, "v1")
    age(server.root / ".zotctl" / "trash")
    assert job(server.root, "gc", "--delay", "1h")[0] == 0
    assert_whole(client, "app", made, "v1")


# -- scrub ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [flip, Path.unlink])
def test_17_scrub_says_damage_by_its_exit_code(
    server: Server, client: httpx.Client, harm: Callable[[Path], None]
) -> None:
    """zot says "affected", and exit code 0."""
    made = images.image()
    push_image(client, "app", made, "v1")
    harm(blob(server.root, "app", made.blobs[1]))
    code, report = job(server.root, "scrub")
    (finding,) = report["findings"]
    assert (code, finding["digest"], finding["tags"]) == (4, digest(made.blobs[1]), ["v1"])
    assert zotctl("scrub", "--root", str(server.root)).returncode == 4


def test_18_scrub_reports_missing_manifests_and_stray_blobs(server: Server, client: httpx.Client) -> None:
    """In zot neither is in the report, and the exit code is 0."""
    made, stray = images.image(), b"no manifest names it"
    push_image(client, "app", made, "v1")
    push_blob(client, "app", stray)
    blob(server.root, "app", made.manifest).unlink()
    flip(blob(server.root, "app", stray))
    code, report = job(server.root, "scrub")
    found = {(finding["digest"], finding["kind"]) for finding in report["findings"]}
    assert code == 4
    assert {(str(made.digest), "missing_manifest"), (digest(stray), "digest_mismatch")} <= found


def test_19_one_cut_index_hides_no_other_repository(server: Server, client: httpx.Client) -> None:
    """zot: "repository not found", no name, and no results at all."""
    for name in ("a", "b", "c"):
        push_image(client, name, images.image(name), "v1")
    index = server.root / "b" / "index.json"
    os.truncate(index, index.stat().st_size // 2)
    for name in ("a", "c"):
        flip(blob(server.root, name, images.image(name).blobs[1]))
    code, report = job(server.root, "scrub")
    assert code == 4
    assert {finding["repository"] for finding in report["findings"]} == {"a", "b", "c"}
    (broken,) = [finding for finding in report["findings"] if finding["repository"] == "b"]
    assert broken["kind"] == "invalid_index"


def test_20_scrub_runs_beside_a_server(server: Server) -> None:
    """zot refuses: offline only."""
    made, stop = images.image("x"), threading.Event()
    with server.client() as client:
        push_image(client, "app", made, "first")

    def push() -> None:
        with server.client() as client:
            for number in range(10_000):
                if stop.is_set():
                    return
                push_image(client, "app", images.image(str(number)), f"t{number}")

    def scrub() -> None:
        try:
            for _ in range(2):
                assert job(server.root, "scrub")[0] == 0
        finally:
            stop.set()

    at_once(push, scrub)
    with server.client() as client:
        assert_whole(client, "app", made, "first")
