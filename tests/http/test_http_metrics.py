"""GET of /metrics: over all workers, right to the last request."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import images
from tests.buckets import make_bucket
from tests.http.serving import Raw, Server, digest, push_blob, serving, until
from zotctl.config import load_config
from zotctl.errors import UsageError
from zotctl.http import routes
from zotctl.http.counters import BOUNDS_S, SharedCounters, SharedText
from zotctl.oci.media_types import OCI_MANIFEST

ON = "[metrics]\nenabled = true\n"
JOBS = """
[metrics]
enabled = true
[storage]
gc_interval = "1s"
gc_delay = "1s"
[scrub]
interval = "2s"
"""

BLOB, UPLOADS, MANIFEST = routes._BLOB, routes._UPLOADS, routes._MANIFEST


class Scrape:
    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))

    def of(self, name: str, **labels: str) -> list[float]:
        samples = (sample for family in self.families for sample in family.samples)
        return [s.value for s in samples if s.name == f"zotctl_{name}" and labels.items() <= s.labels.items()]

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.of(name, **labels))


def scrape(server: Server, path: str = "/metrics") -> Scrape:
    answer = httpx.get(server.url + path, timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.text)


def test_sums_over_both_workers(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, config=ON) as server:
        clients = [server.client() for _ in range(16)]
        made = push_blob(clients[0], "a", b"content")
        for client in clients:
            assert client.get(f"/v2/a/blobs/{made}").content == b"content"
            assert client.head("/v2/b/manifests/1").status_code == 404
            assert client.get("/nothing").status_code == 404
        until(lambda: len({line["request_id"].split("-")[0] for line in server.lines() if "request_id" in line}) == 2)
        until(lambda: scrape(server).of("http_requests_total", method="GET", route=BLOB, code="200") == [16])
        until(lambda: scrape(server).of("http_requests_total", route="none") == [16])
        found = scrape(server)
        assert found.of("http_requests_total", method="POST", route=UPLOADS, code="201") == [1]
        assert found.of("http_requests_total", method="HEAD", route=MANIFEST) == [16]
        assert found.of("http_requests_total", route="none") == [16]
        assert found.of("http_received_bytes_total", method="POST", route=UPLOADS) == [7]
        assert found.of("http_sent_bytes_total", method="GET", route=BLOB) == [16 * 7]
        assert found.of("http_request_duration_seconds_count", method="GET", route=BLOB) == [16]
        assert found.of("http_request_duration_seconds_bucket", method="GET", route=BLOB, le="+Inf") == [16]
        assert found.sum("http_request_duration_seconds_sum", method="GET", route=BLOB) > 0
        assert found.of("http_in_flight_requests") == [1]
        assert found.of("build_info") == [1]
        assert found.of("index_commit_conflicts_total", root=str(server.root)) == [0]
        assert found.of("uploads_open", root=str(server.root)) == [0]
        space = os.statvfs(server.root)
        size = space.f_blocks * space.f_frsize
        assert found.sum("storage_used_bytes") + found.sum("storage_free_bytes") == size
        assert "repository" not in found.text and made not in found.text
        for client in clients:
            client.close()


def test_what_is_under_way(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, config=ON) as server:
        raws = [server.connect() for _ in range(6)]
        for raw in raws:
            _begin_upload(raw)
        until(lambda: scrape(server).of("http_in_flight_requests") == [7])
        for raw in raws:
            assert raw.send(b"y" * 50_000).answer()[0] == 201
            raw.close()
        until(lambda: scrape(server).of("http_in_flight_requests") == [1])


def test_uploads_that_are_open(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, config=ON) as server, server.client() as client:
        places = [client.post("/v2/a/blobs/uploads/").headers["location"] for _ in range(3)]
        assert scrape(server).of("uploads_open", root=str(server.root)) == [3]
        assert client.put(places[0], params={"digest": digest(b"x")}, content=b"x").status_code == 201
        assert client.delete(places[1]).status_code == 204
        assert scrape(server).of("uploads_open") == [1]


def _begin_upload(raw: Raw) -> None:
    body = b"x" * 50_000 + b"y" * 50_000
    raw.head("POST", f"/v2/a/blobs/uploads/?digest={digest(body)}", f"Content-Length: {len(body)}").send(body[:50_000])


def test_a_dead_worker_loses_nothing_and_has_nothing_under_way(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, config=ON) as server:
        for dead in range(3):
            for _ in range(10):
                assert httpx.get(f"{server.url}/v2/", timeout=20).status_code == 200
            raws = [server.connect() for _ in range(6)]
            for raw in raws:
                _begin_upload(raw)
            until(lambda: scrape(server).of("http_in_flight_requests") == [7])
            until(lambda: scrape(server).of("http_requests_total", route="/v2/") == [10 * (dead + 1)])  # noqa: B023
            before = server.workers()
            os.kill(before[0], signal.SIGKILL)
            until(lambda: len(server.workers()) == 2 and server.workers() != before)  # noqa: B023
            for raw in raws:
                raw.close()
            until(lambda: scrape(server).of("http_in_flight_requests") == [1])
            assert scrape(server).of("http_requests_total", route="/v2/") == [10 * (dead + 1)]


def test_a_reload_goes_on_counting(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, config=ON) as server:
        before = server.workers()
        assert httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200
        until(lambda: scrape(server).of("http_requests_total", route="/v2/") == [1])
        server.config_file.write_text('[metrics]\nenabled = true\npath = "/internal/metrics"\n')
        server.send(signal.SIGHUP)
        until(lambda: not set(before) & set(server.workers()))
        assert httpx.get(f"{server.url}/metrics", timeout=60).status_code == 404
        assert httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200
        until(lambda: scrape(server, "/internal/metrics").of("http_requests_total", route="/v2/") == [2])
        assert scrape(server, "/internal/metrics").sum("http_requests_total", route="/internal/metrics") > 0


def test_a_reload_begins_to_count_and_ends_it(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        for wanted, code in ((ON, 200), ("", 404), (ON, 200)):
            before = server.workers()
            server.config_file.write_text(wanted)
            server.send(signal.SIGHUP)
            until(lambda: not set(before) & set(server.workers()))  # noqa: B023
            assert httpx.get(f"{server.url}/metrics", timeout=60).status_code == code
            assert httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200
        until(lambda: scrape(server).of("http_requests_total", route="/v2/") == [2])
        assert scrape(server).of("http_in_flight_requests") == [1]


def test_of_a_bucket_only_what_costs_no_request(tmp_path: Path) -> None:
    with serving(tmp_path, config=ON, bucket=make_bucket()) as server, server.client() as client:
        push_blob(client, "a", b"content")
        until(lambda: scrape(server).of("http_requests_total", method="POST", code="201") == [1])
        found = scrape(server)
        assert found.of("storage_free_bytes") == found.of("uploads_open") == []
        assert found.of("index_commit_conflicts_total") == [0]


def test_servers_that_are_in_each_others_way(tmp_path: Path) -> None:
    bucket = make_bucket()
    with (
        serving(tmp_path / "one", config=ON, bucket=bucket) as one,
        serving(tmp_path / "two", config=ON, bucket=bucket) as two,
    ):
        made = images.image()
        with one.client() as client:
            for blob in made.blobs:
                push_blob(client, "a", blob)
        until(lambda: _conflicts(made.manifest, one, two), 60)


def _conflicts(manifest: bytes, *servers: Server) -> float:
    """All conflicts so far, when they have pushed at the same time once more."""
    ends = [Thread(target=_push_tags, args=(server, manifest)) for server in servers]
    for end in ends:
        end.start()
    for end in ends:
        end.join()
    return sum(scrape(server).sum("index_commit_conflicts_total") for server in servers)


def _push_tags(server: Server, manifest: bytes) -> None:
    headers = {"Content-Type": OCI_MANIFEST}
    with server.client() as client:
        for number in range(20):
            path = f"/v2/a/manifests/{server.port}-{number}"
            assert client.put(path, content=manifest, headers=headers).status_code == 201


def test_head_and_other_methods(tmp_path: Path) -> None:
    with serving(tmp_path, "--metrics") as server, server.client() as client:
        head = client.head("/metrics")
        assert head.status_code == 200
        assert head.content == b""
        assert int(head.headers["content-length"]) > 0
        refused = client.post("/metrics")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_off_unless_asked_for(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.client() as client:
        assert client.get("/metrics").status_code == 404


@pytest.fixture
def with_jobs(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, config=JOBS, workers=2, environ={})
    yield server
    server.stop()


def test_the_jobs_inside_serve(with_jobs: Server) -> None:
    with with_jobs.client() as client:
        push_blob(client, "a", b"content")
    found = until(lambda: (s := scrape(with_jobs)).sum("gc_deleted_total", kind="blob") and s, 60)
    assert found.sum("gc_freed_bytes_total") >= 7
    found = until(lambda: (s := scrape(with_jobs)).of("job_last_success_timestamp_seconds", job="scrub") and s, 60)
    assert found.sum("job_duration_seconds_count", job="gc") == found.sum("job_runs_total", job="gc")
    assert len(found.of("job_last_success_timestamp_seconds", job="gc", root=str(with_jobs.root))) == 1
    assert found.of("scrub_damaged_blobs") == [0]


def test_jobs_go_on_counting_when_their_process_dies(with_jobs: Server) -> None:
    seen = [0.0]

    def at_least(count: float) -> bool:
        seen.append(scrape(with_jobs).sum("job_runs_total", job="gc"))
        assert seen[-1] >= seen[-2], "begun anew"
        return seen[-1] >= count

    until(lambda: at_least(3), 60)
    keeper = with_jobs.workers()[-1]
    os.kill(keeper, signal.SIGKILL)
    until(lambda: keeper not in with_jobs.workers())
    until(lambda: at_least(seen[-1] + 1), 60)


def test_jobs_go_on_over_a_reload_and_write_into_the_new_files(tmp_path: Path) -> None:
    audit, moved = tmp_path / "audit", tmp_path / "moved"
    server = Server(tmp_path, config=f'{JOBS}[log]\naudit = "{audit}"\n', workers=1, environ={})
    try:
        until(lambda: scrape(server).sum("job_runs_total", job="gc") >= 1, 60)
        keeper = server.workers()[-1]
        audit.rename(moved)
        server.send(signal.SIGHUP)
        until(lambda: "all workers serve the configuration" in server.log(), 60)
        with server.client() as client:
            push_blob(client, "a", b"content")
        until(lambda: '"job":"gc"' in server.log() and '"purge"' in audit.read_text(), 60)
        assert keeper in server.workers() and '"purge"' not in moved.read_text()
    finally:
        server.stop()


# -- the memory ----------------------------------------------------------------------------------

NAMES = ("", "/a", "/b")


def test_rows_are_summed_and_used_again() -> None:
    board = SharedCounters(len(NAMES), 1)
    for _ in range(3):
        index = board.take()
        assert index == 0
        row = board.row(index, NAMES)
        row.begin()
        row.count("GET", "/b", 200, 0.5, 3, 4)
        row.count("BREW", "/nowhere", 418, BOUNDS_S[-1] * 2, 0, 0)
        assert board.in_flight == 1
        board.give_back(index)
        assert board.in_flight == 0
    other, get = board.counts(NAMES)
    assert (other.method, other.route, sum(other.codes), other.buckets[-1]) == ("other", "", 3, 3)
    assert (get.method, get.route, get.received, get.sent, get.nanoseconds) == ("GET", "/b", 9, 12, 1_500_000_000)
    assert get.buckets[BOUNDS_S.index(0.5)] == 3


def test_conflicts_by_root() -> None:
    board = SharedCounters(len(NAMES), 1)
    board.know(["/one", "/two"])
    for root in ("/two", "/two", "/elsewhere"):
        board.row(board.take(), NAMES).conflict(root)
    board.know(["/three", "/two"])
    assert [board.conflicts(root) for root in ("/one", "/two", "/three", "/elsewhere")] == [0, 2, 0, None]
    board.know(str(number) for number in range(1000))
    assert board.conflicts("999") is None


def test_more_workers_than_rows_disturb_no_other() -> None:
    board = SharedCounters(len(NAMES), 1)
    indexes = list(iter(board.take, None))
    assert len(set(indexes)) == len(indexes) > 30
    for index in [*indexes, None, None]:
        board.row(index, NAMES).count("GET", "/a", 200, 0.0, 0, 0)
    (counts,) = board.counts(NAMES)
    assert sum(counts.codes) == len(indexes)


def test_a_text_is_replaced_whole() -> None:
    text = SharedText(10)
    assert text.read() == b""
    for new in (b"a" * 10, b"bb", b"", b"c" * 9):
        assert text.write(new)
        assert text.read() == new
    assert not text.write(b"d" * 11)
    assert text.read() == b"c" * 9


@pytest.mark.parametrize("path", [*routes.EXACT, "/v2/a/tags/list", "metrics", "/me trics", "/m?x", "/%6d"])
def test_paths_that_metrics_can_not_have(path: str) -> None:
    with pytest.raises(UsageError, match=r"--path: "):
        load_config(None, options={"metrics.path": path}, environ={})
