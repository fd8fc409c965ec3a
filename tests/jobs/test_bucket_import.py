"""import-layout to, from and between buckets: verified, several copies at once, and a second run copies nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import images
from tests.buckets import Bucket, bucket, make_bucket  # noqa: F401 - a fixture
from tests.cli.running import PATIENCE_S
from tests.counting import Counted, InFlight
from tests.jobs.bucketing import (  # noqa: F401 - fixtures
    InMemory,
    Killed,
    Place,
    dedupe,
    dying,
    files_below,
    flipped,
    keys_of,
    opened,
    place,
    run_job,
)
from tests.jobs.docker_archives import saved
from tests.jobs.importing import actions, kinds, local_store, piped, run_import, tar_bytes, tar_of
from tests.jobs.layouts import lay_out, store_of
from tests.stores import push_image, push_index
from tests.tools import program
from zotctl.errors import Unavailable, UsageError
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.imports.repository import RepositoryImport
from zotctl.jobs.imports.sources import BucketSource
from zotctl.jobs.report import Report
from zotctl.jobs.staging import STAGING
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.lease import JOB_LEASE_S
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.driver import Info, Reader
from zotctl.storage.index import Index

X = images.image("x", layers=2)


def checked(store: Store) -> Report:
    return run_job(store, "verify", lambda run: verify(run, VerifyOptions(deep=True)), dry_run=True)


def require_same(one: Store, other: Store) -> None:
    """The same rows of the same repositories, and everything that they lead to."""
    assert one.repositories() == other.repositories()
    for name in one.repositories():
        here, there = (sorted(row.raw for row in s.repository(name).index().rows()) for s in (one, other))
        assert here == there
    for store in (one, other):
        report = checked(store)
        assert (report.exit_code, [f for f in report.findings if f.kind != "mode"]) == (0, [])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local store with tags, an index, a referrer, and sha512."""
    store = local_store(tmp_path / "source")
    first = push_image(store, "a", "v1", seed="x")
    push_image(store, "a", "v2", seed="y")
    push_index(store, "a", "all", children=[first])
    push_image(store, "a", seed="z", subject=first)
    push_image(store, "b/c", "v1", seed="x")
    return tmp_path / "source"


def test_in_and_out(place: Place, dedupe: bool, source: Path, tmp_path: Path, from_place: list[Store]) -> None:  # noqa: F811
    store = opened(place, dedupe=dedupe)
    report = run_import(store, source)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    require_same(opened(place, dedupe=dedupe), store_of(source))
    from_place.append(opened(place, dedupe=dedupe))
    out = local_store(tmp_path / "out")
    report = run_import(out, "s3://elsewhere/root")
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    require_same(out, store_of(source))
    layer = f"blobs/sha256/{digest_of(X.blobs[-1]).encoded}"
    assert all((tmp_path / "out" / name / layer).exists() for name in ("a", "b/c"))


def test_i6_manifests_that_were_copied_long_before_the_commit_are_there(
    dedupe: bool,  # noqa: F811
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A repository of many tags takes longer than a reservation is new. Each of them is put once."""
    memory, flush = InMemory(), RepositoryImport._flush
    puts: list[str] = []
    put = memory.memory.put

    def noted(key: str, *words: object, **options: object) -> str:
        puts.append(key)
        return put(key, *words, **options)  # type: ignore[arg-type]

    def late(self: RepositoryImport, before: Index) -> None:
        flush(self, before)
        memory.clock.at += bucket_of(self.root).context.window + 1

    monkeypatch.setattr(RepositoryImport, "_flush", late)
    monkeypatch.setattr(memory.memory, "put", noted)
    report = run_import(opened(memory, dedupe=dedupe), source)
    assert (report.exit_code, report.errors) == (0, [])
    manifests = [key for key in puts if key.startswith("a/blobs/") and b'"config"' in memory.memory.stored[key].body]
    assert len(manifests) == len(set(manifests))
    require_same(opened(memory, dedupe=dedupe), store_of(source))


@pytest.mark.parametrize("spooled", [1 << 20, 100])
def test_images_of_docker_save_into_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spooled: int) -> None:
    """The digests of layers are known only when they were read; until then they have no key."""
    monkeypatch.setattr("zotctl.storage.bucket.maintenance.SPOOLED_BYTES", spooled)
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(saved("docker-links", (X, ["team/app:1"]))))
    memory, beside = InMemory(), local_store(tmp_path / "beside")
    for store in (opened(memory), beside):
        report = run_import(store, path)
        assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    require_same(opened(memory), beside)
    assert not [key for key in keys_of(memory) if key.startswith(STAGING)]


def test_from_one_bucket_to_another(source: Path, from_place: list[Store]) -> None:
    one, two = InMemory(), InMemory()
    run_import(opened(one, dedupe=True), source)
    from_place.append(opened(one, dedupe=True))
    assert run_import(opened(two), "s3://elsewhere/root").exit_code == 0
    require_same(opened(two), store_of(source))


@pytest.mark.parametrize("pooled", [False, True])
def test_out_of_a_bucket_each_blob_is_one_request(pooled: bool, tmp_path: Path, from_place: list[Store]) -> None:
    """And a list of each repository, however much is in it. Who looks into a pool reads the manifests for that, too."""
    at_hand = InMemory()
    for at in range(40):
        push_image(opened(at_hand, dedupe=pooled), "a", f"v{at}", seed=str(at))
    counted = Counted(at_hand.objects)
    from_place.append(opened(at_hand, dedupe=pooled, objects=counted))
    bucket_of(from_place[0].roots[0]).context.look_for_pool()
    report = run_import(local_store(tmp_path / "out"), "s3://elsewhere/root")
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    blobs = report.summary["blobs"]
    opens = [key for method, key in counted.requests if method == "open" and "/sha256/" in key]
    twice = 40 if pooled else 0
    assert len(set(opens)) == blobs
    assert len(opens) == blobs + twice
    rest = [one for one in counted.requests if one not in [("open", key) for key in opens]]
    assert len(rest) <= 33, rest


def test_out_of_a_bucket_manifests_are_read_side_by_side(tmp_path: Path, from_place: list[Store]) -> None:
    at_hand = InMemory()
    for at in range(40):
        push_image(opened(at_hand), "a", f"v{at}", seed=str(at))
    manifests = {row.digest for row in opened(at_hand).repository("a").index().rows()}
    flight = InFlight(at_hand.objects, lambda method, key: method == "open" and f"sha256:{key[-64:]}" in manifests)
    with ThreadPoolExecutor(8) as threads:
        from_place.append(opened(at_hand, objects=flight, threads=threads))
        assert run_import(local_store(tmp_path / "out"), "s3://elsewhere/root").exit_code == 0
    assert flight.most == 9


def test_what_vanishes_from_a_bucket_that_is_imported_is_told(
    tmp_path: Path, from_place: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list is no proof: what it named and is gone is missing, and its image stays out."""
    at_hand = InMemory()
    for tag in ("one", "two"):
        push_image(opened(at_hand), "a", tag, seed=tag)
    layer = digest_of(images.image("one", layers=2).blobs[-1])
    listed = BucketSource._listed

    def vanishing(self: BucketSource, folder: str) -> dict[str, Info]:
        found = listed(self, folder)
        at_hand.memory.stored.pop(keys.blob("a", layer), None)
        return found

    monkeypatch.setattr(BucketSource, "_listed", vanishing)
    from_place.append(opened(at_hand))
    out = local_store(tmp_path / "out")
    report = run_import(out, "s3://elsewhere/root")
    assert (report.exit_code, kinds(report)) == (4, ["missing_blob"])
    assert out.repository("a").tags() == ["two"]


def test_what_can_not_be_read_now_is_left_out_and_ends_the_run_with_5(
    tmp_path: Path, from_place: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_hand = InMemory()
    for tag in ("one", "two"):
        push_image(opened(at_hand), "a", tag, seed=tag)
    layer = keys.blob("a", digest_of(images.image("one", layers=2).blobs[-1]))
    opens = BucketSource.open

    def refusing(self: BucketSource, key: str) -> Reader:
        if key == layer:
            raise Unavailable("away")
        return opens(self, key)

    monkeypatch.setattr(BucketSource, "open", refusing)
    from_place.append(opened(at_hand))
    out = local_store(tmp_path / "out")
    report = run_import(out, "s3://elsewhere/root")
    assert (report.exit_code, kinds(report)) == (5, ["unreadable"])
    assert out.repository("a").tags() == ["two"]


def test_a_second_run_copies_nothing(place: Place, dedupe: bool, source: Path) -> None:  # noqa: F811
    run_import(opened(place, dedupe=dedupe), source)
    counted = Counted(place.objects)
    report = run_import(opened(place, dedupe=dedupe, objects=counted), source)
    assert (report.exit_code, report.summary.get("blobs", 0), len(actions(report, "import"))) == (0, 0, 0)
    written = [key for method, key in counted.requests if method in ("put", "copy", "start_parts")]
    assert not [key for key in written if not key.startswith(keys.HIDDEN)]


def test_a_dry_run_writes_nothing(place: Place, source: Path) -> None:  # noqa: F811
    report = run_import(opened(place), source, dry_run=True)
    assert report.exit_code == 0
    rows = sum(len(list(store_of(source).repository(name).index().rows())) for name in ("a", "b/c"))
    assert len(actions(report, "import")) == rows
    assert keys_of(place) == []


def test_damage_stays_out(place: Place, dedupe: bool, tmp_path: Path) -> None:  # noqa: F811
    directory = lay_out(tmp_path, "one", X, "v1")
    path = directory / "blobs/sha256" / digest_of(X.blobs[-1]).encoded
    path.write_bytes(flipped(path.read_bytes()))
    report = run_import(opened(place, dedupe=dedupe), directory)
    assert report.exit_code == 4
    assert kinds(report) == ["digest_mismatch"]
    layer = digest_of(X.blobs[-1]).encoded
    assert not [key for key in keys_of(place) if key.endswith(layer) and keys.HIDDEN not in key]


@pytest.mark.parametrize("repo", [None, "team/app"])
def test_an_archive(place: Place, dedupe: bool, tmp_path: Path, repo: str | None) -> None:  # noqa: F811
    (tmp_path / "app.tar").write_bytes(tar_of(lay_out(tmp_path, "one", X, "v1")))
    report = run_import(opened(place, dedupe=dedupe), tmp_path / "app.tar", repo=repo)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    store = opened(place, dedupe=dedupe)
    assert store.repository(repo or "app").manifest("v1").body == X.manifest
    assert checked(store).findings == []
    assert not [key for key in keys_of(place) if key.startswith(STAGING)]


def test_an_archive_from_a_pipe(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    piped(monkeypatch, tar_of(lay_out(tmp_path, "one", X, "v1")))
    assert run_import(opened(place), "-", repo="piped").exit_code == 0
    assert opened(place).repository("piped").manifest("v1").body == X.manifest


def test_links_and_moves_are_refused(tmp_path: Path, from_place: list[Store]) -> None:
    store = opened(InMemory())
    from_place.append(store)
    directory = lay_out(tmp_path, "one", X, "v1")
    for where, source, options, word in (
        (store, str(directory), {"link": True}, "--link"),
        (local_store(tmp_path / "store"), "s3://bucket/root", {"link": True}, "--link"),
        (local_store(tmp_path / "store"), "s3://bucket/root", {"move": True}, "--move"),
        (store, "s3://memory/test", {}, "itself"),
        (store, "s3://memory/test/below", {}, "itself"),
        (store, "s3://memory", {}, "itself"),
    ):
        report = run_import(where, source, **options)
        assert report.exit_code == UsageError.exit_code
        assert word in report.errors[0]["reason"]


def test_a_run_that_was_killed_is_run_again(source: Path) -> None:
    """Nobody sees half a repository, and what was copied is not copied again."""
    deaths = 0
    for after in range(0, 2000, 7):
        left = InMemory()
        try:
            run_import(opened(left, dedupe=after % 2 == 1, objects=dying(left.objects, after)), source)
        except Killed:
            deaths += 1
        else:
            break
        store = opened(left, dedupe=after % 2 == 1)
        assert checked(store).exit_code in (0, 4)  # an `oci-layout` without its index.json
        for name in ("a", "b/c"):
            if store.repositories() and name in store.repositories():
                assert [f for f in checked(store).findings if f.kind.startswith("missing")] == []
        left.clock.sleep(JOB_LEASE_S)
        assert run_import(store, source).exit_code == 0
        require_same(opened(left, dedupe=after % 2 == 1), store_of(source))
    assert deaths > 10


# -- as people call it --------------------------------------------------------------------------


def _zotctl(bucket: Bucket, *arguments: str) -> subprocess.CompletedProcess[str]:  # noqa: F811
    command = [sys.executable, "-m", "zotctl.cli", *arguments]
    environment = os.environ | bucket.environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.mark.parametrize("dedupe", ["false", "true"])
def test_the_command_line(bucket: Bucket, source: Path, tmp_path: Path, dedupe: str) -> None:  # noqa: F811
    """A store into a bucket, from there into another, and a layout of its own out of that, which skopeo reads."""
    other = make_bucket(bucket.server)
    os.environ["ZOTCTL_DEDUPE"] = dedupe
    try:
        for arguments in (
            ("import-layout", str(source), "--root", bucket.url),
            ("scrub", "--root", bucket.url),
            ("verify", bucket.url, "--deep"),
            ("import-layout", bucket.url, "--root", other.url),
            ("import-layout", other.url, "--root", str(tmp_path / "out")),
            ("verify", str(tmp_path / "out"), "--deep"),
        ):
            (tmp_path / "out").mkdir(exist_ok=True)
            done = _zotctl(bucket, *arguments)
            assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    finally:
        del os.environ["ZOTCTL_DEDUPE"]
    require_same(store_of(tmp_path / "out"), store_of(source))
    assert bool([key for key in files_below(bucket.path("")) if key.startswith("_blobs/")]) is (dedupe == "true")
    command = [program("skopeo"), "inspect", "--raw", f"oci:{tmp_path / 'out' / 'a'}:v1"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == X.manifest
