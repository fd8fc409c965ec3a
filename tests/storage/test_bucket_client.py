"""What the client makes of servers and networks that fail, and how many requests it makes (zotctl.storage.bucket)."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.buckets import Bucket, Server, bucket, make_bucket, own_server  # noqa: F401 - fixtures
from tests.conformance.objects_suite import BODY, get, keys_of
from tests.mounts import Mounts, mounts  # noqa: F401 - a fixture
from tests.object_proxy import BROKEN, FAULTS, GATEWAY, LOST, RESET, SLOW, TORN, ProxiedRequest, Proxy, one_in
from tests.tools import program
from zotctl.errors import (
    Changed,
    ConfigError,
    NoBucket,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    PermissionRefused,
    RequestRefused,
    SlowDown,
    StorageError,
    Unavailable,
)
from zotctl.storage.bucket.objects import client as over_wire
from zotctl.storage.bucket.objects import connection, requests
from zotctl.storage.bucket.objects.client import BucketSettings, Client, SignedRequest
from zotctl.storage.bucket.objects.replies import ErrorReply
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.bucket.objects.signing import Credentials, presigned_url
from zotctl.storage.driver import StreamedReader

READS: dict[str, Callable[[Objects], object]] = {
    "head": lambda objects: objects.head("file"),
    "get": lambda objects: objects.get("file"),
    "open": lambda objects: objects.open("file"),
    "list": lambda objects: list(objects.list("")),
    "names": lambda objects: list(objects.names("")),
}
WRITES: dict[str, Callable[[Objects], object]] = {
    "put": lambda objects: objects.put("other", b"x"),
    "create": lambda objects: objects.put("created", b"x", absent=True),
    "delete": lambda objects: objects.delete("file"),
    "copy": lambda objects: objects.copy("file", "copy"),
    "start": lambda objects: objects.start_parts("big"),
    "part": lambda objects: objects.put_part("big", "nonsense", 1, b"x"),
    "complete": lambda objects: objects.complete_parts("big", "nonsense", ['"x"']),
    "abort": lambda objects: objects.abort_parts("big", "nonsense"),
    "execute": lambda objects: objects.execute(objects.sign_deletes(["file"], 30)),
}
CALLS = READS | WRITES


@pytest.fixture
def client(bucket: Bucket) -> Iterator[Client]:  # noqa: F811
    made = bucket.client()
    yield made
    made.close()


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:  # noqa: F811
    made = Proxy(bucket.server.endpoint)
    yield made
    made.close()


# -- how many requests ----------------------------------------------------------------------------


def test_each_call_is_one_request(bucket: Bucket, client: Client) -> None:  # noqa: F811
    client.put("file", BODY)
    client.date()
    bucket.requests()
    for call in (*READS.values(), WRITES["put"], WRITES["delete"], WRITES["start"]):
        client.put("file", BODY)
        bucket.requests()
        call(client)
        assert len(bucket.requests()) == 1
    client.put("file", BODY)
    bucket.requests()
    CALLS["execute"](client)
    client.presign_get("file", 30)
    assert bucket.counts() == {"DeleteObject": 1}


def test_a_whole_object_is_one_request_and_one_connection(bucket: Bucket, client: Client) -> None:  # noqa: F811
    client.put("file", BODY)
    client.put("empty", b"")
    bucket.requests()
    for _ in range(3):
        with client.open("file") as reader:
            assert reader.info().size == reader.size == len(BODY)
            assert b"".join(reader.read_at(at, 100_000) for at in range(0, len(BODY), 100_000)) == BODY
        client.open("empty").close()
    assert bucket.counts() == {"GetObject": 6}
    pools = client.connection.wire._manager.pools
    assert sum(pools[key].num_connections for key in pools.keys()) == 1  # noqa: SIM118 - no dict


def test_a_stream_is_one_request_and_its_connection_is_used_again(bucket: Bucket, client: Client) -> None:  # noqa: F811
    client.put("file", BODY)
    bucket.requests()
    socks = set()
    for start in (0, 0, 1000):
        with client.open("file") as reader:
            assert isinstance(reader, StreamedReader)
            stream = reader.stream(start)
            assert stream is not None
            socks.add(stream.sock)
            found = stream.held
            while start + len(found) < len(BODY):
                piece = stream.sock.recv(1 << 20)
                reader.passed(len(piece))
                found += piece
            assert found == BODY[start:]
            assert reader.stream(len(BODY)) is None
    assert len(socks) == 1 and len(bucket.requests()) == 3
    with client.open("file") as reader:
        assert isinstance(reader, StreamedReader) and reader.stream(0) is not None
        reader.passed(0)
    assert get(client, "file") == BODY  # a connection that was left in the middle is not used again


def test_a_jump_is_one_more_request(bucket: Bucket, client: Client) -> None:  # noqa: F811
    client.put("file", BODY)
    bucket.requests()
    with client.open("file") as reader:
        for at in (0, 100, 1_000_000, 1_000_100, 50):
            assert reader.read_at(at, 100) == BODY[at : at + 100]
    assert bucket.counts() == {"GetObject": 3}


# -- what is refused ------------------------------------------------------------------------------


def test_a_bucket_that_does_not_exist(bucket: Bucket) -> None:  # noqa: F811
    client = Client(replace(bucket.settings, bucket="zotctl-none"))
    for name, call in CALLS.items():
        if name in ("head", "execute"):
            continue
        with pytest.raises(NoBucket, match=f"zotctl-none does not exist at {bucket.server.endpoint}: make it"):
            call(client)
    with pytest.raises(NotFound):
        client.head("file")  # a HEAD has no code, so that it can't tell


@pytest.mark.parametrize("change", [{"secret_key": "wrong"}, {"access_key": "nobody", "secret_key": "wrong"}])
def test_who_was_refused_what(bucket: Bucket, client: Client, change: dict[str, str]) -> None:  # noqa: F811
    stranger = bucket.client(**change)
    client.date()
    stranger.connection._heard = client.connection._heard
    name = change.get("access_key", "test")
    for call in CALLS if name == "test" else set(CALLS) - {"head"}:
        with pytest.raises(PermissionRefused) as told:
            CALLS[call](stranger)
        assert f"the identity {name}" in told.value.message and bucket.server.endpoint in told.value.message
        assert bucket.settings.bucket in told.value.message and "wrong" not in told.value.message


def test_without_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _bare(monkeypatch)
    client = Client(replace(bucket.settings, access_key=None, secret_key=None))
    for call in CALLS.values():
        with pytest.raises(PermissionRefused, match="AWS_ACCESS_KEY_ID"):
            call(client)


def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")


def test_everything_may_come_from_the_environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _bare(monkeypatch)
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    client = Client(BucketSettings(bucket.settings.bucket, "elsewhere"))
    client.put("file", b"x")
    assert get(client, "file") == b"x" and client.endpoint == bucket.server.endpoint


def test_and_from_a_profile(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # noqa: F811
    _bare(monkeypatch)
    (tmp_path / "config").write_text(
        "[profile store]\naws_access_key_id = test\naws_secret_access_key = testsecret\nregion = us-east-1\n"
        f"services = local\n[services local]\ns3 =\n  endpoint_url = {bucket.server.endpoint}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    client = Client(BucketSettings(bucket.settings.bucket, profile="store"))
    client.put("file", b"x")
    with pytest.raises(ConfigError, match="none"):
        Client(BucketSettings("bucket", profile="none"))


@pytest.mark.parametrize(
    ("bucket", "url"),
    [("name", "https://name.s3.eu-central-1.amazonaws.com"), ("a.b", "https://s3.eu-central-1.amazonaws.com/a.b")],
)
def test_addresses_of_amazon(bucket: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _bare(monkeypatch)
    amazon = Client(BucketSettings(bucket, region="eu-central-1", access_key="a", secret_key="b"))
    assert amazon.connection.wire.url == url


@pytest.mark.parametrize(
    ("ways", "host"),
    [
        ({"dual_stack": True}, "images.s3.dualstack.eu-west-1"),
        ({"accelerate": True}, "images.s3-accelerate"),
        ({"accelerate": True, "addressing": "path"}, "images.s3-accelerate"),
        ({"accelerate": True, "dual_stack": True}, "images.s3-accelerate.dualstack"),
    ],
)
def test_other_ways_to_amazon(ways: dict[str, Any], host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _bare(monkeypatch)
    amazon = Client(BucketSettings("images", region="eu-west-1", access_key="a", secret_key="b", **ways))
    assert amazon.connection.wire.url == f"https://{host}.amazonaws.com"


def test_the_environment_may_wish_for_dual_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    _bare(monkeypatch)
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
    amazon = Client(BucketSettings("images", region="eu-west-1", access_key="a", secret_key="b"))
    assert amazon.connection.wire.url == "https://images.s3.dualstack.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("said", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
    ],
)
def test_the_environment_names_the_region(said: dict[str, str], region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _bare(monkeypatch)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    amazon = Client(BucketSettings("images", access_key="a", secret_key="b"))
    assert amazon.connection.wire.url == f"https://images.s3.{region}.amazonaws.com"


@pytest.mark.parametrize("addressing", ["auto", "virtual"])
def test_addresses(addressing: str) -> None:
    own = BucketSettings("bucket", "p", "https://s3.example.com", "r1", "a", "b", addressing=addressing)
    wanted = {"auto": "https://s3.example.com/bucket", "virtual": "https://bucket.s3.example.com"}
    assert Client(own).url("a b/c") == f"{wanted[addressing]}/p/a%20b/c"


def test_a_bucket_that_is_in_another_region(own_server: Server) -> None:  # noqa: F811
    """Amazon says which one; it is asked there, then and from then on."""
    made = make_bucket(own_server)
    own_server.restart("--region", "eu-central-1")
    there = Proxy(own_server.endpoint, region="eu-central-1")
    try:
        asked: list[str] = []

        def note(request: ProxiedRequest) -> str:
            asked.append(request.headers.get("Authorization", ""))
            return ""

        there.choose = note
        client = made.client(endpoint=there.endpoint, region="us-east-1")
        client.put("file", BODY)
        for call in CALLS:
            if call not in ("part", "complete"):
                CALLS[call](client)
                client.put("file", BODY)
        assert ["us-east-1" in said for said in asked[:2]] == [True, False]
        assert not any("us-east-1" in said for said in asked[1:])
    finally:
        there.close()


def test_a_region_that_the_server_tells_in_words(own_server: Server) -> None:  # noqa: F811
    client = make_bucket(own_server).client(region="elsewhere")
    client.put("file", b"x")
    assert get(client, "file") == b"x"


def test_a_proxy_on_the_way(bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.endpoint.replace("//", "//someone:secret@"))
    asked: list[tuple[str, str]] = []

    def note(request: ProxiedRequest) -> str:
        asked.append((request.raw_path, request.headers.get("Proxy-Authorization", "")))
        return ""

    proxy.choose = note
    client = bucket.client()
    client.put("a file", BODY)
    assert get(client, "a file") == BODY and keys_of(client.list("")) == ["a file"]
    client.execute(client.sign_deletes(["a file"], 30))
    assert len(asked) >= 4 and all(path.startswith(f"{bucket.server.endpoint}/") for path, _ in asked)
    assert {login for _, login in asked} == {"Basic c29tZW9uZTpzZWNyZXQ="}


def test_credentials_that_expire_are_renewed(
    bucket: Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """By botocore, from whatever gave them: it asks for others ten minutes before these end."""
    _bare(monkeypatch)
    said = '{"Version": 1, "AccessKeyId": "test", "SecretAccessKey": "testsecret", "Expiration": "%s"}'
    script = tmp_path / "give"
    soon = "$(date -u -d '+5 minutes' +%Y-%m-%dT%H:%M:%SZ)"
    script.write_text(f"#!/bin/bash\necho >> {tmp_path}/given\nprintf '{said}' \"{soon}\"\n")
    script.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile short]\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    client = bucket.client(access_key=None, secret_key=None, profile="short")
    for number in range(3):
        client.put(f"file{number}", b"x")
        client.execute(client.sign_deletes([f"file{number}"], 30))
    assert len((tmp_path / "given").read_text().splitlines()) >= 3


def test_each_new_object_is_stored_as_was_wished(bucket: Bucket, proxy: Proxy) -> None:  # noqa: F811
    wished = {"storage_class": "STANDARD_IA", "encryption": "aws:kms", "kms_key": "key-1", "acl": "public-read"}
    client = bucket.client(endpoint=proxy.endpoint, **wished)
    heads: list[dict[str, str]] = []

    def note(request: ProxiedRequest) -> str:
        heads.append({name.lower(): value for name, value in request.headers.items()})
        return BROKEN

    proxy.choose = note
    for name in ("put", "create", "copy", "start"):
        with pytest.raises(OutcomeUnknown):
            CALLS[name](client)
        assert heads[-1]["x-amz-storage-class"] == "STANDARD_IA"
        assert heads[-1]["x-amz-server-side-encryption"] == "aws:kms"
        assert heads[-1]["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
        assert heads[-1]["x-amz-acl"] == "public-read"


def test_secrets_are_printed_nowhere() -> None:
    assert "hidden" not in repr(BucketSettings("bucket", access_key="a", secret_key="hidden", session_token="hidden"))


def test_botocore_is_imported_when_a_client_is_made() -> None:
    package = "zotctl.storage.bucket.objects"
    script = f"import sys, {package}.client, {package}.retry; assert 'botocore' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# -- what fails -----------------------------------------------------------------------------------


def test_a_server_that_is_away(bucket: Bucket, client: Client) -> None:  # noqa: F811
    """Nothing was done, and it says so."""
    client.date()
    away = bucket.client(endpoint="http://127.0.0.1:1")
    away.connection._heard = client.connection._heard
    for call in CALLS.values():
        with pytest.raises(Unavailable) as told:
            call(away)
        assert type(told.value) is Unavailable


@pytest.mark.parametrize(
    ("fault", "read", "write"),
    [
        (RESET, Unavailable, OutcomeUnknown),
        (LOST, Unavailable, OutcomeUnknown),
        (BROKEN, Unavailable, OutcomeUnknown),
        (GATEWAY, Unavailable, OutcomeUnknown),
        (SLOW, SlowDown, SlowDown),
    ],
)
def test_each_failure_has_its_error(
    bucket: Bucket,  # noqa: F811
    proxy: Proxy,
    fault: str,
    read: type[StorageError],
    write: type[StorageError],
) -> None:
    client = bucket.client(endpoint=proxy.endpoint)
    client.put("file", b"x")
    proxy.choose = lambda _: fault
    for name, call in CALLS.items():
        with pytest.raises(StorageError) as told:
            call(client)
        wanted = read if name in READS else write
        # A HEAD has no code but its status.
        assert type(told.value) is (Unavailable if (name, fault) == ("head", SLOW) else wanted), name
    proxy.choose = lambda _: ""
    assert keys_of(client.list("c")) == (["created"] if fault == LOST else [])


def test_a_body_that_ends_early_is_no_object(bucket: Bucket, proxy: Proxy) -> None:  # noqa: F811
    client = bucket.client(endpoint=proxy.endpoint)
    client.put("file", BODY)
    proxy.choose = lambda request: TORN
    with pytest.raises(Unavailable):
        client.get("file")
    with client.open("file") as reader:
        with pytest.raises(Unavailable):
            reader.read_at(0, len(BODY))
        proxy.choose = lambda request: ""
        assert reader.read_at(100, len(BODY)) == BODY[100:]


def test_a_server_that_says_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, own_server: Server) -> None:  # noqa: F811
    monkeypatch.setattr(requests, "READ_TIMEOUT_S", 0.5)
    client = make_bucket(own_server).client()
    client.put("file", b"x")
    assert own_server.process is not None
    own_server.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, own_server.process.pid, os.WSTOPPED)  # one of its threads may still be answering
    with pytest.raises(Unavailable):
        client.head("file")
    with pytest.raises(OutcomeUnknown):
        client.put("file", b"y")
    own_server.process.send_signal(signal.SIGCONT)
    assert get(client, "file") in (b"x", b"y")


def test_a_404_that_no_object_store_wrote_is_not_absence(bucket: Bucket, proxy: Proxy) -> None:  # noqa: F811
    """A collector would believe it."""
    other = Proxy("http://127.0.0.1:1")
    try:
        client = bucket.client(endpoint=other.endpoint)
        other.choose = lambda _: GATEWAY
        with pytest.raises(Unavailable):
            client.get("file")
    finally:
        other.close()


def test_a_directory_that_comes_and_goes_is_no_failure(bucket: Bucket) -> None:  # noqa: F811
    """A store of files removes a directory with its last object, and says 409 to a PUT in that moment."""
    objects = Retrying(bucket.client())

    def come_and_go(number: int) -> None:
        for _ in range(30):
            objects.put(f"deep/down/here/{number}", b"x", absent=True)
            objects.delete(f"deep/down/here/{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))


@pytest.mark.parametrize("seed", range(4))
def test_one_request_in_ten_fails_and_no_caller_sees_it(bucket: Bucket, proxy: Proxy, seed: int) -> None:  # noqa: F811
    objects = Retrying(bucket.client(endpoint=proxy.endpoint))
    proxy.choose = one_in(10, seed, FAULTS)
    for number in range(25):
        objects.put(f"dir/{number:02}", BODY)
        assert objects.head(f"dir/{number:02}").size == len(BODY)
        assert get(objects, f"dir/{number:02}") == BODY
        with objects.open(f"dir/{number:02}") as reader:
            assert reader.read_at(1_000, 2_000_000) == BODY[1_000:2_001_000]
        assert len(keys_of(objects.list("dir/"))) == number + 1
    upload = objects.start_parts("big")
    objects.complete_parts("big", upload, [objects.put_part("big", upload, 1, BODY)])
    objects.copy("big", "dir/copy")
    objects.delete("big")
    objects.execute(objects.sign_deletes([f"dir/{number:02}" for number in range(25)], 60))
    assert keys_of(objects.list("")) == ["dir/copy"]
    assert len(proxy.faults) >= 5


def test_a_restart_and_a_throttled_server(own_server: Server) -> None:  # noqa: F811
    made = make_bucket(own_server)
    objects = Retrying(made.client())

    def work(number: int) -> bool:
        for turn in range(20):
            objects.put(f"{number}/{turn}", BODY[:50_000])
            if get(objects, f"{number}/{turn}") != BODY[:50_000]:
                return False
        return True

    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(work, number) for number in range(12)]
        own_server.restart("--max-requests", "2")
        assert all(future.result() for future in running)
    assert len(keys_of(objects.list(""))) == 240


def test_slow_down_is_told(own_server: Server) -> None:  # noqa: F811
    own_server.restart("--max-requests", "1")
    made = make_bucket(own_server)
    client = made.client()

    def work(number: int) -> type[Exception] | None:
        try:
            client.put(f"{number}", BODY)
        except StorageError as error:
            return type(error)
        return None

    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(work, range(200)))
    assert found == {None, SlowDown}


def test_no_room_is_told(mounts: Mounts) -> None:  # noqa: F811
    with tempfile.TemporaryDirectory(dir=mounts.get("tmpfs")) as directory:
        server = Server(Path(directory))
        try:
            client = make_bucket(server).client()
            upload = client.start_parts("big")
            body = bytes(shutil.disk_usage(directory).free // 2)
            client.put("one", body)
            for call in (partial(client.put, "two", body * 2), partial(client.put_part, "big", upload, 1, body * 2)):
                with pytest.raises(NoSpace, match="no room left"):
                    call()
            assert client.head("one").size == len(body)
            with pytest.raises(NotFound):
                client.head("two")
        finally:
            server.close()


def test_a_certificate_that_is_not_trusted(tmp_path: Path, own_server: Server) -> None:  # noqa: F811
    pair = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "cert"), "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", *pair, *names]
    subprocess.run(command, check=True, capture_output=True)
    made = make_bucket(own_server)
    own_server.restart("--cert", str(tmp_path / "cert"), "--key", str(tmp_path / "key"))
    secure = replace(made.settings, endpoint=f"https://127.0.0.1:{own_server.port}")
    with pytest.raises(StorageError, match="certificate that is not trusted") as told:
        Client(secure).put("file", b"x")
    assert not isinstance(told.value, Unavailable)
    client = Client(replace(secure, verify=str(tmp_path / "cert")))
    client.put("file", BODY)
    with client.open("file") as reader:
        assert reader.read_at(0, len(BODY)) == BODY
    client.execute(client.sign_deletes(["file", "other"], 30))
    assert keys_of(client.list("")) == []


# -- copies, damage, signatures -------------------------------------------------------------------


def test_a_copy_in_parts(bucket: Bucket, client: Client) -> None:  # noqa: F811
    body = BODY * 6
    etag = client.put("source", body)
    client.copy_in_parts(client.head("source"), "target", part=5 << 20)
    assert get(client, "target") == body
    assert bucket.counts()["UploadPartCopy"] == 3
    stale = client.head("source")._replace(etag='"0123456789abcdef0123456789abcdef"')
    with pytest.raises(Changed):
        client.copy_in_parts(stale, "other", part=5 << 20)
    assert client.head("source").etag == etag
    assert bucket.counts()["AbortMultipartUpload"] == 1


def test_what_is_too_large_for_one_request(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of more than 5 GiB is refused as any mistake is; a smaller one that was refused is a mistake."""

    def refuse(*_: object) -> None:
        raise RequestRefused("400 InvalidRequest")

    monkeypatch.setattr(client, "_copy_whole", refuse)
    client.put("source", BODY)
    with pytest.raises(StorageError, match="InvalidRequest"):
        client.copy("source", "target")
    monkeypatch.setattr(over_wire, "COPY_OBJECT_BYTES", 1_000_000)
    assert client.copy("source", "target").size == len(BODY)
    assert get(client, "target") == BODY


def test_what_is_damaged_on_the_disk_is_what_is_read(bucket: Bucket, client: Client) -> None:  # noqa: F811
    client.put("dir/file", BODY)
    path = bucket.path("dir/file")
    assert path.read_bytes() == BODY
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    assert get(client, "dir/file") == BODY[:1000] + b"\xff" + BODY[1001:]


def test_the_signature_is_that_of_the_documentation() -> None:
    """docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html, "Example"."""
    who = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    url = presigned_url(
        "GET", "https://examplebucket.s3.amazonaws.com/test.txt", {}, {}, who, "us-east-1", 1369353600, 86400
    )
    assert url.endswith("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")


def test_deletes_are_signed_by_the_servers_clock(client: Client) -> None:
    client.date()
    assert client.connection._heard is not None
    header, date, at = client.connection._heard
    client.connection._heard = (header, date - 3600, at)
    presigned = client.sign_deletes(["file"], 30)
    assert isinstance(presigned.request, SignedRequest)
    assert presigned.ends < date - 3000


def test_a_clock_of_ours_that_is_wrong_does_not_count(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Servers refuse what was signed a quarter of an hour away from their time; it is signed by that, then."""
    client, hours = bucket.client(), [0.0]
    monkeypatch.setattr(connection, "time", SimpleNamespace(time=lambda: time.time() + 3600 * hours[0]))
    for wrong, read in itertools.product((5.0, -5.0, 0.0), READS.values()):
        hours[0] = 0.0
        client.put("file", b"x")
        hours[0] = wrong
        read(client)
        etag = client.put("file", b"y", match=client.put("file", b"x"))
        assert client.head("file").etag == etag
        client.execute(client.sign_deletes(["file"], 30))
    fresh = bucket.client()
    hours[0] = 5.0
    fresh.put("file", b"z")
    with pytest.raises(PermissionRefused):
        bucket.client(secret_key="wrong").put("file", b"x")


def test_a_clock_that_is_set_while_a_request_is_under_way_was_wrong(
    bucket: Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, hours = bucket.client(), [5.0]
    monkeypatch.setattr(connection, "time", SimpleNamespace(time=lambda: time.time() + hours[0] * 3600))
    ask = client.connection.wire.ask

    def set_the_clock(method: str, path: str, **asked: Any) -> Any:
        try:
            return ask(method, path, **asked)
        finally:
            hours[0] = 0.0

    monkeypatch.setattr(client.connection.wire, "ask", set_the_clock)
    client.put("file", b"x")
    assert get(client, "file") == b"x"


def test_a_clock_that_is_wrong_is_wrong_for_all_requests_under_way(
    bucket: Bucket,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several that are refused, the first one teaches the time, and all are sent again."""
    client, refused = bucket.client(), list[str]()
    monkeypatch.setattr(connection, "time", SimpleNamespace(time=lambda: time.time() + 5 * 3600))
    ask = client.connection.wire.ask

    def other_thread_is_faster(method: str, path: str, **asked: Any) -> Any:
        try:
            return ask(method, path, **asked)
        except ErrorReply:
            refused.append(path)
            if len(refused) == 1:
                client.put("other", b"y")
            raise

    monkeypatch.setattr(client.connection.wire, "ask", other_thread_is_faster)
    client.put("file", b"x")
    assert refused == ["root/file", "root/other"] and get(client, "file") == b"x" and get(client, "other") == b"y"
