"""What the client makes of answers that this or that object store, or a proxy before it, gives
(zotctl.storage.bucket)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.buckets import free_port
from tests.object_proxy import LOST, Proxy
from zotctl.errors import (
    Changed,
    Expired,
    IoFailed,
    NotFound,
    OutcomeUnknown,
    PermissionRefused,
    RequestRefused,
    SlowDown,
    StorageError,
    Unavailable,
)
from zotctl.storage.bucket.objects import requests
from zotctl.storage.bucket.objects.client import BucketSettings, Client
from zotctl.storage.bucket.objects.connection import BucketConnection, _address_by_rules, _address_in_path, _session
from zotctl.storage.bucket.objects.replies import date_of, object_of, page_of
from zotctl.storage.bucket.objects.seam import Object

DATE = "Wed, 25 Nov 2026 01:00:00 GMT"
FOUND = {"ETag": '"e"', "Last-Modified": DATE}
ROW = "<Contents><Key>a</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-11-25T01:00:00Z</LastModified></Contents>"

Told = tuple[int, dict[str, str], bytes]


class Dialect:
    """A server that answers as `answer` says; `asked` are the requests."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], Told] = lambda _: (200, FOUND, b"")
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.date = DATE
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def date_time_string(self, timestamp: float | None = None) -> str:
                return outer.date

            def _any(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                outer.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
                status, headers, body = outer.answer(self)
                self.send_response(status)
                for name, text in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(body if self.command != "HEAD" else b"")

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def client(self, **changes: Any) -> Client:
        return Client(BucketSettings("bucket", "", self.endpoint, "us-east-1", "a", "b", **changes))

    def lists(self, *pages: str) -> None:
        """Each time another one, and then the last again."""
        left = list(pages)
        said = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>'
        self.answer = lambda _: (200, {}, said.format(left.pop(0) if len(left) > 1 else left[0]).encode())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def dialect() -> Iterator[Dialect]:
    made = Dialect()
    yield made
    made.close()


@pytest.fixture(scope="module")
def answering() -> Iterator[tuple[Dialect, Client]]:
    """For many answers to one client."""
    made = Dialect()
    yield made, made.client()
    made.close()


# -- lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page",
    [
        f"<IsTruncated>true</IsTruncated>{ROW}",
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{ROW}",
        ROW.replace("<Size>1</Size>", "<Size>much</Size>"),
        ROW.replace("2026", "next year"),
    ],
    ids=["more without a token", "the same token", "no size", "no time"],
)
def test_a_list_that_is_none_does_not_pass_for_the_whole(dialect: Dialect, page: str) -> None:
    """What isn't listed isn't there, for a collector."""
    dialect.lists(page)
    with pytest.raises(Unavailable):
        list(dialect.client().list(""))
    assert len(dialect.asked) <= 2


def test_lists_in_pages(dialect: Dialect) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t+1=</NextContinuationToken>"
    dialect.lists(f"{more}{ROW}", ROW.replace("00Z", "00").replace("<Key>a", "<Key>b"))
    rows = list(dialect.client().list(""))
    assert [(row.key, row.age) for row in rows] == [("a", 0.0), ("b", 0.0)]
    assert "continuation-token=t%2B1%3D" in dialect.asked[1][0]


# -- objects ----------------------------------------------------------------------------------------


def test_a_server_that_does_not_know_ranges(dialect: Dialect) -> None:
    """Its bytes are others than those that were asked for."""
    dialect.answer = lambda _: (200, FOUND, b"0123456789")
    with dialect.client().open("file") as reader:
        assert reader.read_at(0, 4) == b"0123"
        with pytest.raises(Unavailable, match="range"):
            reader.read_at(2, 4)


DIGITS = b"0123456789"


@pytest.mark.parametrize(
    ("status", "more", "error"),
    [
        (206, {"Content-Range": "bytes 6-9/10"}, None),
        (206, {"Content-Range": "bytes 6-9/*"}, None),
        (206, {"Content-Range": "bytes 5-8/10"}, Unavailable),
        (206, {"Content-Range": "bytes 6-9/11"}, Unavailable),
        (206, {"Content-Range": "items 6-9/10"}, Unavailable),
        (206, {}, Unavailable),
        (204, {}, Unavailable),
        (206, {"Content-Range": "bytes 6-9/10", "ETag": '"f"'}, Changed),
        (206, {"Content-Range": "bytes 6-9/10", "ETag": "", "Last-Modified": DATE.replace("01:", "02:")}, Changed),
        (206, {"Content-Range": "bytes 6-9/10", "ETag": "", "Last-Modified": ""}, None),
    ],
)
def test_i2_a_part_is_the_one_that_was_asked_for_of_the_object_that_was_found(
    dialect: Dialect, status: int, more: dict[str, str], error: type[StorageError] | None
) -> None:
    """Of a store or a proxy that knows no conditions, or answers with another range."""
    answers = [(200, FOUND, DIGITS), (status, FOUND | more, DIGITS[6:])]
    dialect.answer = lambda _: answers.pop(0)
    with dialect.client().open("file") as reader:
        assert reader.read_at(0, 8) == DIGITS[:8]
        if error is None:
            assert reader.read_at(6, 4) == DIGITS[6:]
            return
        with pytest.raises(error):
            reader.read_at(6, 4)


@pytest.mark.parametrize("status", [206, 203, 304])
def test_i2_a_part_is_not_taken_for_the_whole(dialect: Dialect, status: int) -> None:
    """As a proxy may have kept it from another request."""
    dialect.answer = lambda _: (status, FOUND | {"Content-Range": "bytes 0-3/10"}, DIGITS[:4])
    for ask in (dialect.client().open, dialect.client().get):
        with pytest.raises(Unavailable, match=f"status {status}"):
            ask("file")


def test_a_write_without_an_etag_may_have_been_done(dialect: Dialect) -> None:
    dialect.answer = lambda _: (200, {}, b"")
    client = dialect.client()
    with pytest.raises(OutcomeUnknown, match="ETag"):
        client.put("file", b"x")
    with pytest.raises(OutcomeUnknown, match="ETag"):
        client.put_part("file", "upload", 1, b"x")


@pytest.mark.parametrize(
    "words", [b"<html><p>no", *(b'<?xml version="1.0" encoding="%b"?><Error/>' % name for name in (b"none", b"utf-7"))]
)
def test_errors_in_other_words_than_s3(dialect: Dialect, words: bytes) -> None:
    dialect.answer = lambda _: (400, {}, words)
    with pytest.raises(StorageError, match="400"):
        dialect.client().get("file")


BOMB = b"""<!DOCTYPE Error [<!ENTITY a "SlowDown">]><Error><Code>&a;</Code><Message>no</Message></Error>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp037"])
def test_an_answer_with_entities_is_not_read(dialect: Dialect, encoding: str) -> None:
    words = f'<?xml version="1.0" encoding="{encoding}"?>'.encode("utf-16" if encoding == "utf-16" else "ascii")
    dialect.answer = lambda _: (503, {}, words + BOMB.decode().encode(encoding))
    client = dialect.client()
    with pytest.raises(Unavailable, match="not S3's"):
        client.get("file")
    dialect.answer = lambda _: (200, {}, BOMB.replace(b"Error", b"ListBucketResult"))
    with pytest.raises(Unavailable, match="document type"):
        list(client.list(""))


def test_an_answer_without_end_is_not_read_to_its_end(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "LARGEST_XML_BYTES", 1000)
    client = dialect.client()
    dialect.answer = lambda _: (200, FOUND, b"x" * 5000)
    found = client.get("file")
    assert found is not None and len(found[1]) == 5000
    for status in (200, 503):
        dialect.answer = lambda _, status=status: (status, FOUND, b"x" * 5000)  # type: ignore[misc]
        with pytest.raises(Unavailable, match="more than 1000 bytes"):
            list(client.list(""))
    with pytest.raises(OutcomeUnknown, match="more than 1000 bytes"):
        client.put("file", b"x")


def test_an_error_is_told_with_the_name_of_its_request(dialect: Dialect) -> None:
    """By which the operator of a store finds it."""
    dialect.answer = lambda _: (500, {"x-amz-request-id": "R1"}, _error("InternalError"))
    with pytest.raises(Unavailable, match=r"500 InternalError: no \(request R1\)"):
        dialect.client().get("file")


def test_blanks_before_an_answer(dialect: Dialect) -> None:
    """A server that takes long sends them, so that its client waits on."""
    said = b'  \n<?xml version="1.0" encoding="UTF-8"?>\n  <CompleteMultipartUploadResult><ETag>e</ETag>'
    dialect.answer = lambda _: (200, {}, said + b"</CompleteMultipartUploadResult>")
    assert dialect.client().complete_parts("file", "upload", ['"e"']) == "e"


@pytest.mark.parametrize("date", ["", "some day"])
def test_a_server_that_does_not_tell_the_time(dialect: Dialect, date: str) -> None:
    """Ours is no substitute for it."""
    dialect.date = date
    client = dialect.client()
    for call in (client.date, lambda: client.head("file"), lambda: client.presign_get("file", 30)):
        with pytest.raises(Unavailable, match="date"):
            call()


# -- failures ---------------------------------------------------------------------------------------

NOW: float = datetime(2026, 11, 25, 1, tzinfo=UTC).timestamp()
SOURCE = Object("file", 5, '"e"', 0.0, 0.0)
CALLS: dict[str, Callable[[Client], object]] = {
    "get": lambda client: client.get("file"),
    "put": lambda client: client.put("file", b"x"),
    "swap": lambda client: client.put("file", b"x", match='"e"'),
    "part": lambda client: client.put_part("file", "upload", 1, b"x"),
    "begin": lambda client: client.start_parts("file"),
    "complete": lambda client: client.complete_parts("file", "upload", ['"e"']),
    "copy": lambda client: client.copy("file", "other"),
    "delete one": lambda client: client.execute(client.sign_deletes(["a"], 60, at=NOW)),
    "delete": lambda client: client.execute(client.sign_deletes(["a", "b"], 60, at=NOW)),
    "delete late": lambda client: client.execute(client.sign_deletes(["a", "b"], 60, at=NOW - 60)),
}
WRITES = [name for name in CALLS if name != "get"]


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()


def _undeleted(*codes: str) -> bytes:
    rows = (f"<Error><Key>a</Key><Code>{code}</Code><Message>no</Message></Error>" for code in codes)
    return f"<DeleteResult>{''.join(rows)}</DeleteResult>".encode()


MEANINGS: list[tuple[list[str], int, bytes, type[StorageError]]] = [
    # An early end: a store that keeps what has arrived has perhaps done it.
    (WRITES, 400, _error("RequestTimeout"), OutcomeUnknown),
    (WRITES, 408, _error("RequestTimeout"), OutcomeUnknown),
    (WRITES, 408, b"<html>timeout", OutcomeUnknown),
    (WRITES, 400, _error("IncompleteBody"), OutcomeUnknown),
    (["get"], 400, _error("RequestTimeout"), Unavailable),
    (["get"], 408, b"", Unavailable),
    # Failed, and nothing is known.
    (WRITES, 500, _error("InternalError"), OutcomeUnknown),
    (WRITES, 502, b"<html>", OutcomeUnknown),
    (["complete", "copy"], 200, _error("InternalError"), OutcomeUnknown),
    (["complete", "copy"], 200, b"  <Error><Code>Intern", OutcomeUnknown),
    (["complete", "copy"], 200, _error("InvalidRequest"), OutcomeUnknown),
    (["complete", "begin"], 200, b"<SomeResult/>", OutcomeUnknown),
    (["complete", "copy", "begin"], 200, b"", OutcomeUnknown),
    (["delete"], 200, b"<html>", OutcomeUnknown),
    (["delete"], 200, _undeleted("InternalError"), OutcomeUnknown),
    (["delete"], 200, _undeleted("SlowDown", "InternalError"), OutcomeUnknown),
    (["delete late"], 200, _undeleted("AccessDenied", "InternalError"), OutcomeUnknown),
    # Certainly not done.
    (list(CALLS), 503, _error("SlowDown"), SlowDown),
    (list(CALLS), 429, _error("TooManyRequests"), SlowDown),
    (list(CALLS), 429, b"", SlowDown),
    (list(CALLS), 409, _error("OperationAborted"), SlowDown),
    (["delete"], 200, _undeleted("SlowDown"), SlowDown),
    (["complete", "copy"], 200, _error("SlowDown"), SlowDown),
    (["delete"], 200, _undeleted("AccessDenied"), PermissionRefused),
    (["delete late"], 200, _undeleted("AccessDenied"), Expired),
    (["delete late"], 403, _error("AccessDenied"), Expired),
    (["delete late"], 400, _error("InvalidArgument"), Expired),
    (["put", "part"], 400, _error("BadDigest"), IoFailed),
    # Another writer: a swap begins with another look, an upload with its first part.
    (["swap"], 409, _error("ConditionalRequestConflict"), Changed),
    (["swap"], 412, _error("PreconditionFailed"), Changed),
    (["complete"], 409, _error("ConditionalRequestConflict"), NotFound),
    (["complete"], 400, _error("InvalidPart"), NotFound),
    (["complete"], 404, _error("NoSuchUpload"), NotFound),
]


@pytest.mark.parametrize(("calls", "status", "body", "meaning"), MEANINGS)
def test_what_an_answer_means(
    answering: tuple[Dialect, Client], calls: list[str], status: int, body: bytes, meaning: type[StorageError]
) -> None:
    dialect, client = answering
    dialect.answer = lambda _: (status, {}, body)
    for call in calls:
        with pytest.raises(StorageError) as told:
            CALLS[call](client)
        assert type(told.value) is meaning, (call, told.value)


# -- where it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (200, _error("InternalError"), OutcomeUnknown),
        (200, _error("SlowDown"), SlowDown),
        (200, b"", OutcomeUnknown),
        (200, b"<CopyPartResult/>", OutcomeUnknown),
        (412, _error("PreconditionFailed"), Changed),
    ],
)
def test_what_an_answer_to_a_copied_part_means(
    dialect: Dialect, status: int, body: bytes, meaning: type[StorageError]
) -> None:  # fmt: skip
    begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    answers: dict[str, Any] = {"POST": (200, {}, begun), "PUT": (status, {}, body), "DELETE": (204, {}, b"")}
    dialect.answer = lambda request: answers[request.command]
    with pytest.raises(StorageError) as told:
        dialect.client().copy_in_parts(SOURCE, "other", part=4)
    assert type(told.value) is meaning
    part, abort = dialect.asked[1:]
    assert part[0] == "/bucket/other?partNumber=1&uploadId=u" and abort[0] == "/bucket/other?uploadId=u"
    assert {name: part[1][f"x-amz-copy-source{name}"] for name in ("", "-range", "-if-match")} == {
        "": "bucket/file", "-range": "bytes=0-3", "-if-match": '"e"',
    }  # fmt: skip


def _in_garage(request: BaseHTTPRequestHandler) -> Told:
    if "/garage/s3/" in request.headers["Authorization"]:
        return 200, FOUND, b"x"
    said = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>scope</Message><Region>garage</Region></Error>"
    return 400, {}, said.encode()


def test_a_region_that_is_told_in_words_alone(dialect: Dialect) -> None:
    dialect.answer = _in_garage
    client = dialect.client()
    assert client.put("file", b"x") == '"e"' and client.get("file") is not None
    assert len(dialect.asked) == 3


def test_a_wrong_region_that_is_not_corrected(dialect: Dialect) -> None:
    said = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting 'garage'</Message></Error>"
    dialect.answer = lambda _: (400, {}, said)
    with pytest.raises(RequestRefused, match=r"not in the region 'us-east-1'.*expecting 'garage'.*AWS_REGION"):
        dialect.client().put("file", b"x")
    assert len(dialect.asked) == 1


def test_a_region_that_can_be_none_is_no_reason(dialect: Dialect) -> None:
    said = (
        "<Error><Code>AuthorizationHeaderMalformed</Code><Message>region</Message><Region>no region!</Region></Error>"
    )
    dialect.answer = lambda _: (400, {}, said.encode())
    with pytest.raises(RequestRefused, match=r"not in the region 'us-east-1'"):
        dialect.client(addressing="virtual").put("file", b"x")
    assert len(dialect.asked) == 1


def test_a_region_in_the_words_of_another_error_is_no_reason(dialect: Dialect) -> None:
    said = b"<Error><Code>InternalError</Code><Region>elsewhere</Region></Error>"
    dialect.answer = lambda _: (500, {}, said)
    with pytest.raises(Unavailable):
        dialect.client().get("file")
    assert len(dialect.asked) == 1


def test_who_asks_while_the_region_changes_asks_where_it_was(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Until there is another way: half of one is none."""
    connection = dialect.client().connection
    other, old, making = [], connection.wire, BucketConnection._connect

    def meanwhile(self: BucketConnection, region: str) -> Any:
        thread = threading.Thread(target=lambda: other.append(connection.wire))
        thread.start()
        thread.join(5)
        return making(self, region)

    monkeypatch.setattr(BucketConnection, "_connect", meanwhile)
    assert connection._moved(old, "eu-west-1")
    assert other == [old] and connection.wire is not old and connection.wire.region == "eu-west-1"


def test_threads_that_are_told_a_region_share_one_way(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, making, made = dialect.client().connection, BucketConnection._connect, []
    lock, other_waits = threading.Lock(), threading.Event()

    class Told:
        def __enter__(self) -> None:
            if not lock.acquire(blocking=False):
                other_waits.set()
                lock.acquire()

        def __exit__(self, *exc: object) -> None:
            lock.release()

    def slow(self: BucketConnection, region: str) -> Any:
        made.append(region)
        assert other_waits.wait(20)
        return making(self, region)

    monkeypatch.setattr(connection, "_lock", Told())
    monkeypatch.setattr(BucketConnection, "_connect", slow)
    old = connection.wire
    threads = [threading.Thread(target=connection._moved, args=(old, "eu-west-1")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["eu-west-1"] and connection.wire is not old


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://s3.example.com:443", "https://s3.example.com/bucket"),
        ("http://s3.example.com:80", "http://s3.example.com/bucket"),
        ("https://s3.example.com:80", "https://s3.example.com:80/bucket"),
        ("http://[2001:db8::80]:80", "http://[2001:db8::80]/bucket"),
        ("http://[2001:db8::80]:9000", "http://[2001:db8::80]:9000/bucket"),
    ],
)
def test_the_default_port_is_not_signed(endpoint: str, url: str) -> None:
    """Clients that are redirected, and proxies on the way, leave it out of Host."""
    assert Client(BucketSettings("bucket", "", endpoint, "r", "a", "b")).connection.wire.url == url


@pytest.mark.parametrize("endpoint", [
    "http://127.0.0.1:9000", "http://127.0.0.1:9000/", "https://s3.example.com:443", "http://[2001:db8::80]:9000",
    "http://UPPER.example", "https://s3.eu-west-1.amazonaws.com", "https://minio.example/base/", "http://a_b:90",
    "https://me:secret@minio.example", "localhost:9000", "http://h.example/?x=1",
])  # fmt: skip
@pytest.mark.parametrize("addressing", ["auto", "path", "virtual"])
@pytest.mark.parametrize("bucket", ["bucket", "my.bucket", "My_Bucket"])
def test_the_short_way_to_an_address_is_that_of_botocore(endpoint: str, addressing: str, bucket: str) -> None:
    """Or there is none."""
    settings = BucketSettings(bucket, "", endpoint, "eu-west-1", "a", "b", addressing=addressing)
    short = _address_in_path(settings, _session(settings))
    assert short is None or short == _address_by_rules(settings, "eu-west-1")
    plain = endpoint.startswith(("http://127", "https://s3.example", "http://[", "http://UPPER"))
    assert (short is not None) == (
        (plain and addressing != "virtual") or (addressing == "path" and "amazon" in endpoint)
    )


# -- proxies ----------------------------------------------------------------------------------------


@pytest.fixture
def proxy(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    made = Proxy(dialect.endpoint)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", made.endpoint)
    yield made
    made.close()


def test_a_proxy_is_written_as_others_write_it(dialect: Dialect, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scheme, and with a password whose odd characters are quoted."""
    said: list[str] = []

    def note(request: Any) -> str:
        said.append(request.headers["Proxy-Authorization"])
        return ""

    proxy.choose = note
    monkeypatch.setenv("http_proxy", proxy.endpoint.replace("http://", "me:p%40ss%3A%C3%A9@"))
    dialect.client().put("file", b"x")
    assert said == ["Basic bWU6cEBzczrDqQ=="]


@pytest.mark.parametrize("way", ["put", "start"])
def test_a_proxy_that_hangs_up_may_have_passed_it_on(dialect: Dialect, proxy: Proxy, way: str) -> None:
    client = dialect.client()
    proxy.choose = lambda _: LOST
    with pytest.raises(OutcomeUnknown):
        client.put("file", b"x", absent=True) if way == "put" else client.start_parts("file")
    assert dialect.asked


def test_a_proxy_that_is_not_there(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    client = dialect.client()
    for call in (lambda: client.put("file", b"x"), lambda: client.start_parts("file")):
        with pytest.raises(Unavailable, match="can't be reached") as told:
            call()
        assert type(told.value) is Unavailable


def test_a_store_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match=r"can't be reached \(connection refused\)$"):
        Client(BucketSettings("bucket", "", f"http://127.0.0.1:{free_port()}", "us-east-1", "a", "b")).head("file")


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2026 00:00:00 +99999999999999999999",
        "2026-13-01",
        "",
    ],
)
def test_a_time_that_no_calendar_has(date: str) -> None:
    with pytest.raises(HTTPException, match="time"):
        object_of("a", {"content-length": "1", "last-modified": date, "date": DATE})
    with pytest.raises(HTTPException, match="date"):
        date_of({"date": date})
    with pytest.raises(HTTPException, match="time"):
        page_of(f"<ListBucketResult>{ROW.replace('2026-11-25T01:00:00Z', date)}</ListBucketResult>".encode())


def test_a_directory_that_was_told_is_not_told_again(dialect: Dialect) -> None:
    """As Amazon tells it: the keys in it are after its name."""
    below = "<CommonPrefixes><Prefix>{}/</Prefix></CommonPrefixes>"
    dialect.lists(below.format("dir") + below.format("dirs") + ROW.replace("<Key>a", "<Key>e"))
    assert list(dialect.client().names("", after="dir/")) == [("dirs", True), ("e", False)]


def test_a_blank_in_a_key_is_told_as_a_plus(dialect: Dialect) -> None:
    """By Amazon, also in the prefix of the store; a plus is %2B there."""
    row = ROW.replace("<Key>a", "<Key>of+us/a%2Bb")
    dialect.lists(f"<EncodingType>url</EncodingType>{row}")
    client = Client(replace(dialect.client().settings, prefix="of us"))
    assert [found.key for found in client.list("")] == ["a+b"]


def test_i2_a_part_is_asked_for_of_the_object_that_was_found(dialect: Dialect) -> None:
    """Also where the answer with a part has no ETag and no time."""

    def answer(request: BaseHTTPRequestHandler) -> Told:
        if "Range" not in request.headers:
            return 200, FOUND, bytes(1 << 20)
        if request.headers.get("If-Match", '"other"') != '"other"':
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        return 206, {"Content-Range": f"bytes {start}-{(1 << 20) - 1}/{1 << 20}"}, b"x" * ((1 << 20) - start)

    dialect.answer = answer
    with dialect.client().open("a") as reader, pytest.raises(Changed):
        reader.read_at((1 << 20) - 5, 5)
