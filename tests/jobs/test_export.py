"""import-layout --to: an archive of a store comes back whole, is the same each time, and is whole or not there."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.cli.running import zotctl
from tests.counting import InFlight
from tests.images import CONFIG, LAYER, Image, image, lay_out, row
from tests.jobs.bucketing import InMemory, OnServer, dedupe, opened, run_job  # noqa: F401 - a fixture
from tests.jobs.distribution import push as push_old
from tests.jobs.importing import index_bytes, kinds, local_store, put_blob, run_import, tar_bytes, tar_of
from tests.jobs.layouts import flip, store_of
from tests.jobs.test_bucket_import import require_same, source  # noqa: F401 - a fixture
from tests.jobs.test_import_tools import run
from tests.stores import push_blob, push_image
from tests.tools import ZSTD_MODULE, need
from zotctl.errors import HeldElsewhere, UsageError
from zotctl.jobs.files import NewFile, new_file
from zotctl.jobs.imports import export as exporting
from zotctl.jobs.imports.export import ExportOptions, export
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run, Stopped
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store
from zotctl.storage.clock import Clock
from zotctl.storage.root import Root


def written(place: Path | str, target: Path, *, dry_run: bool = False, **options: Any) -> Report:
    def work(run: Any) -> None:
        export(run, str(place), ExportOptions(str(target), **options))

    return run_job(Store([], Clock()), "import-layout", work, dry_run=dry_run)


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


@pytest.fixture
def from_bucket(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """What an s3:// source is."""
    stores: list[Store] = []

    @contextmanager
    def bucket_root(store: Store, source: str, s3: object) -> Iterator[Root]:  # noqa: F811
        yield stores[-1].roots[0]

    monkeypatch.setattr(exporting, "bucket_root", bucket_root)
    return stores


def blob_of(place: Path, name: str, body: bytes) -> Path:
    return place / name / "blobs" / "sha256" / digest_of(body).encoded


# -- there and back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["tar", "tgz", "tar.zst"])
def test_there_and_back(source: Path, tmp_path: Path, ending: str) -> None:  # noqa: F811
    if ending.endswith("zst"):
        need(ZSTD_MODULE)
    archive = tmp_path / f"all.{ending}"
    report = written(source, archive)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    assert report.summary["repositories"] == 2 and report.summary["archive_bytes"] == archive.stat().st_size
    store = local_store(tmp_path / "new")
    assert run_import(store, archive).exit_code == 0
    require_same(store, store_of(source))
    first = image("x").digest
    assert store.repository("a").referrers(first) and len(store.repository("a").tags()) == 3
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [archive.name]


def test_out_of_a_bucket_and_into_one(
    tmp_path: Path,
    from_bucket: list[Store],
    source: Path,  # noqa: F811
    dedupe: bool,  # noqa: F811
) -> None:
    """The same bytes as out of a directory, whatever the bucket notes in its index.json."""
    place = InMemory()
    run_import(opened(place, dedupe=dedupe), source)
    from_bucket.append(opened(place, dedupe=dedupe))
    assert written("s3://images/registry", tmp_path / "b.tar").exit_code == 0
    assert written(source, tmp_path / "d.tar").exit_code == 0
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "d.tar").read_bytes()
    other = InMemory()
    assert run_import(opened(other, dedupe=dedupe), tmp_path / "b.tar").exit_code == 0
    require_same(opened(other, dedupe=dedupe), store_of(source))


@pytest.mark.parametrize("by", ["environment", "file"])
def test_a_bucket_on_the_command_line(bucket: Bucket, source: Path, tmp_path: Path, by: str) -> None:  # noqa: F811
    """With what the configuration says of a store there, or of all buckets."""
    run_import(opened(OnServer(bucket)), source)
    given, s3 = bucket.environment, bucket.settings
    environ, words = given | {"ZOTCTL_ROOT": str(tmp_path / "not-there")}, list[str]()
    if by == "file":
        environ, words = {"AWS_EC2_METADATA_DISABLED": "true"}, ["--config", str(tmp_path / "z.toml")]
        (tmp_path / "z.toml").write_text(
            f'[storage]\nroots = ["s3://another", {{ path = "{bucket.url}", s3 = {{ endpoint = "{s3.endpoint}", '
            f'region = "us-east-1", access_key = "{s3.access_key}", secret_key = "{s3.secret_key}" }} }}]\n'
        )
        (tmp_path / "z.toml").chmod(0o600)
    done = zotctl("import-layout", bucket.url, "--to", "b.tar", *words, cwd=tmp_path, environ=environ)
    assert done.returncode == 0, done
    assert written(source, tmp_path / "d.tar").exit_code == 0
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "d.tar").read_bytes()


def test_small_blobs_of_a_bucket_are_requested_side_by_side(
    tmp_path: Path, from_bucket: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store = InMemory(), local_store(tmp_path / "s")
    for number in range(4):
        push_image(store, "a", f"v{number}", seed=str(number), layers=3)
    run_import(opened(place), tmp_path / "s")
    watched = InFlight(place.objects, lambda method, key: "/blobs/" in key, patience=0.05)
    from_bucket.append(opened(place, objects=watched))
    for most in (0, 1 << 20):
        monkeypatch.setattr(exporting, "AHEAD_BYTES", most)
        assert written("s3://images/registry", tmp_path / f"{most}.tar").exit_code == 0
        assert (watched.most > 1) == bool(most)
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / f"{1 << 20}.tar").read_bytes()


def test_the_same_content_makes_the_same_bytes(source: Path, tmp_path: Path) -> None:  # noqa: F811
    assert written(source, tmp_path / "1.tar").exit_code == 0
    for path in source.rglob("blobs/sha256/*"):
        body = path.read_bytes()
        path.unlink()
        path.write_bytes(body)  # no longer a link of the others, and at another time
    assert written(source, tmp_path / "2.tar").exit_code == 0
    run_import(local_store(tmp_path / "new"), tmp_path / "1.tar")
    assert written(tmp_path / "new", tmp_path / "3.tar").exit_code == 0
    assert len({(tmp_path / f"{number}.tar").read_bytes() for number in (1, 2, 3)}) == 1


def test_paths_that_no_plain_header_holds(tmp_path: Path) -> None:
    """A long name, and sha512: both as members and as the targets of links."""
    store, long = local_store(tmp_path / "s"), "/".join(["name" * 12] * 5)
    for name in (long, "z"):
        push_image(store, name, "v1")
        repository = store.repository(name)
        config, layer = (push_blob(repository, body, "sha512") for body in (b"{}", b"layer"))
        fields = {
            "config": {"mediaType": CONFIG, "digest": config, "size": 2},
            "layers": [{"mediaType": LAYER, "digest": layer, "size": 5}],
        }
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST} | fields).encode()
        repository.put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v2"])
    assert written(tmp_path / "s", tmp_path / "a.tar").exit_code == 0
    (tmp_path / "unpacked").mkdir()
    run("tar", "-C", tmp_path / "unpacked", "-xf", tmp_path / "a.tar")
    require_same(store_of(tmp_path / "unpacked"), store)
    new = local_store(tmp_path / "new")
    assert run_import(new, tmp_path / "a.tar").exit_code == 0
    require_same(new, store)


def test_shared_content_is_there_once(source: Path, tmp_path: Path) -> None:  # noqa: F811
    archive = tmp_path / "all.tar"
    written(source, archive)
    layer = f"blobs/sha256/{digest_of(image('x').blobs[1]).encoded}"
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        assert tar.getmember(f"a/{layer}").isreg()
        assert tar.getmember(f"b/c/{layer}").linkname == f"a/{layer}"
    found = [member.name for member in members]
    assert found[:2] == ["a/oci-layout", "a/index.json"] and found[2:] != sorted(found[2:])
    blobs = [name for name in found if name.startswith("a/blobs")]
    assert blobs == sorted(blobs)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


# -- one repository -----------------------------------------------------------------------------------


def test_one_repository_comes_back_under_its_name(source: Path, tmp_path: Path) -> None:  # noqa: F811
    archive = tmp_path / "x.tar"
    assert written(source, archive, only=["b/*"]).exit_code == 0
    assert names(archive)[:2] == ["oci-layout", "index.json"]
    store = local_store(tmp_path / "new")
    assert run_import(store, archive).exit_code == 0 and store.repositories() == ["b/c"]
    assert b"dev.zotctl" not in index_bytes(store, "b/c")
    assert written(tmp_path / "new", tmp_path / "again.tar").exit_code == 0
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    assert written(source / "b" / "c", tmp_path / "alone.tar").exit_code == 0
    assert (tmp_path / "alone.tar").read_bytes() == archive.read_bytes()
    assert run_import(store, archive, repo="else/where").exit_code == 0
    assert store.repositories() == ["b/c", "else/where"]


def test_a_name_that_is_none_is_not_believed(tmp_path: Path, store: Store, made: Image) -> None:
    lay_out(tmp_path / "app", made, [row(made, "1")], annotations={"dev.zotctl.repository": "../UP"})
    (tmp_path / "app.tar").write_bytes(tar_of(tmp_path / "app"))
    for given in ("app", "app.tar"):
        assert run_import(store, tmp_path / given).exit_code == 0 and store.repositories() == ["app"]


def test_other_tools_read_it(source: Path, tmp_path: Path) -> None:  # noqa: F811
    archive, out = tmp_path / "a.tar", tmp_path / "out"
    written(source, archive, only=["a"])
    run("skopeo", "--insecure-policy", "copy", "--preserve-digests", f"oci-archive:{archive}:v1", f"dir:{out}")
    assert (out / "manifest.json").read_bytes() == image("x").manifest
    (tmp_path / "unpacked").mkdir()
    run("tar", "-C", tmp_path / "unpacked", "-xf", archive)
    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/unpacked:v2", tmp_path / "bundle")
    assert list((tmp_path / "bundle" / "rootfs").iterdir())
    need("regctl")
    said = ["regctl", "manifest", "head", f"ocidir://{tmp_path}/unpacked:v2"]
    assert image("y").digest in subprocess.run(said, check=True, capture_output=True, text=True, timeout=60).stdout


# -- other sources --------------------------------------------------------------------------------------


def test_the_tree_of_distribution(tmp_path: Path) -> None:
    push_old(tmp_path / "old", "app", image("one"), "1.0")
    push_old(tmp_path / "old", "team/app", image("one"), "2.0")
    assert written(tmp_path / "old", tmp_path / "a.tar").exit_code == 0
    one, other = local_store(tmp_path / "one"), local_store(tmp_path / "other")
    assert run_import(one, tmp_path / "a.tar").exit_code == run_import(other, tmp_path / "old").exit_code == 0
    require_same(one, other)


def test_a_layout_of_links_becomes_one_of_files(tmp_path: Path, made: Image, store: Store) -> None:
    lay_out(tmp_path / "app", made, [row(made, "1")])
    for body in made.blobs:
        path = blob_of(tmp_path, "app", body)
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    assert written(tmp_path / "app", tmp_path / "app.tar").exit_code == 0
    assert run_import(store, tmp_path / "app.tar").exit_code == 0 and store.repository("app").tags() == ["1"]


def test_what_nobody_can_follow_is_left_out_and_named(tmp_path: Path, made: Image, store: Store) -> None:
    odd = b'{"schemaVersion": 1, "name": "old"}'
    lay_out(tmp_path / "s" / "app", made, [row(made, "1")])
    entry = put_blob(tmp_path / "s" / "app", odd) | {"mediaType": "application/vnd.odd.manifest.v9+json"}
    path = tmp_path / "s" / "app" / "index.json"
    document = json.loads(path.read_bytes())
    document["manifests"].append(entry | {"annotations": {"org.opencontainers.image.ref.name": "odd"}})
    path.write_text(json.dumps(document))
    (tmp_path / "s" / "BAD").mkdir()
    lay_out(tmp_path / "s" / "BAD", made, [row(made, "1")])
    report = written(tmp_path / "s", tmp_path / "s.tar")
    assert report.exit_code == 5 and sorted(kinds(report)) == ["bad_name", "unknown_media_type"], report.document()
    assert [finding.tags for finding in report.findings if finding.digest] == [("odd",)]
    again = run_import(store, tmp_path / "s.tar")
    assert again.exit_code == 0 and store.repository("app").tags() == ["1"]


# -- whole, or not there --------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [flip, Path.unlink, lambda path: os.truncate(path, 9)])
@pytest.mark.parametrize("part", [0, 1, "manifest"])
def test_damage_ends_it(source: Path, tmp_path: Path, harm: Callable[[Path], None], part: int | str) -> None:  # noqa: F811
    made, archive = image("y"), tmp_path / "a.tar"
    body = made.manifest if part == "manifest" else made.blobs[int(part)]
    archive.write_bytes(b"the one before")
    harm(blob_of(source, "a", body))
    report = written(source, archive, overwrite=True)
    assert report.exit_code == 4, report.document()
    assert [(f.repository, f.digest, f.tags) for f in report.findings] == [("a", digest_of(body), ("v2",))]
    assert [f.details["source"] for f in report.findings] == [str(source / "a")]
    assert "no archive was written" in report.errors[0]["reason"] and "--only" in report.errors[0]["reason"]
    assert archive.read_bytes() == b"the one before" and not list(tmp_path.glob("*.part"))
    assert written(source, tmp_path / "b.tar", only=["b/**"]).exit_code == 0


def test_all_that_is_missing_is_told_at_once(source: Path, tmp_path: Path) -> None:  # noqa: F811
    blob_of(source, "a", image("y").blobs[1]).unlink()
    blob_of(source, "b/c", image("x").blobs[1]).unlink()
    report = written(source, tmp_path / "a.tar")
    assert sorted(finding.repository for finding in report.findings) == ["a", "b/c"] and report.exit_code == 4


def test_what_is_deleted_meanwhile_is_no_damage(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    made, store = image("y"), store_of(source)

    def delete(one: exporting._Export, *arguments: Any) -> Any:
        store.repository("a").delete_manifest(made.digest)
        for path in source.rglob(digest_of(made.blobs[1]).encoded):
            path.unlink()
        return write_all(one, *arguments)

    write_all = exporting._Export._write_all
    monkeypatch.setattr(exporting._Export, "_write_all", delete)
    report = written(source, tmp_path / "a.tar")
    assert report.exit_code == 14 and "run it again" in report.errors[0]["reason"] and report.findings == []
    assert not list(tmp_path.glob("a.tar*"))


def test_a_full_disk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    real = NewFile.__init__
    monkeypatch.setattr(NewFile, "__init__", lambda one, file, path: real(one, Full(), path))  # type: ignore[arg-type]
    report = written(source, tmp_path / "a.tar")
    assert report.exit_code == 13 and not list(tmp_path.glob("a.tar*"))


def test_a_signal(source: Path, tmp_path: Path) -> None:  # noqa: F811
    seen: list[bool] = []

    def pause() -> None:
        seen.append((tmp_path / "a.tar.part").exists())
        if seen[-1]:
            raise Stopped(signal.SIGTERM)

    def work(run: Run) -> None:
        export(run, str(source), ExportOptions(str(tmp_path / "a.tar")))

    assert run_job(Store([], Clock()), "import-layout", work, pause=pause).exit_code == 143
    assert seen[-1] and not list(tmp_path.glob("a.tar*"))


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:  # noqa: F811
    report = written(source, tmp_path / "a.tar", dry_run=True)
    assert report.exit_code == 0 and report.summary["blobs"] > 5 and not list(tmp_path.glob("a.tar*"))


# -- the file -------------------------------------------------------------------------------------------


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for name in ("fsync", "link", "rename"):
        monkeypatch.setattr(os, name, noted(steps, name, getattr(os, name)))
    for replaces, named in ((False, "link"), (True, "rename")):
        steps.clear()
        with new_file(str(tmp_path / "a.tar"), replaces=replaces) as file:
            file.write(b"x")
        assert steps == ["fsync", named, "fsync"]


def noted(steps: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*arguments: Any, **named: Any) -> Any:
        steps.append(name)
        return call(*arguments, **named)

    return noting


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Also one that another program makes at the last moment, and where there are no hard links."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    path = tmp_path / "a.tar"
    with pytest.raises(UsageError, match="there"), new_file(str(path), replaces=False) as file:
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs" and os.listdir(tmp_path) == ["a.tar"]
    path.unlink()
    with new_file(str(path), replaces=False) as file:
        file.write(b"mine")
    assert path.read_bytes() == b"mine" and os.listdir(tmp_path) == ["a.tar"]


def test_one_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    with new_file(path, replaces=False) as first:
        with pytest.raises(HeldElsewhere), new_file(path, replaces=False):
            pass
        first.write(b"first")
    assert Path(path).read_bytes() == b"first"


@pytest.mark.parametrize("named", [False, True])
def test_killed(tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it has its name, or when it has two: the next run neither keeps half of one nor cuts a whole one."""
    path = tmp_path / "a.tar"
    if (child := os.fork()) == 0:
        if named:
            monkeypatch.setattr(os, "unlink", lambda name: os.kill(os.getpid(), signal.SIGKILL))
        with new_file(str(path), replaces=False) as file:
            file.write(b"half")
            if not named:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert path.exists() == named and (tmp_path / "a.tar.part").exists()
    if named:
        with pytest.raises(UsageError), new_file(str(path), replaces=False):
            pass
        assert path.read_bytes() == b"half"
        path.unlink()
    with new_file(str(path), replaces=False) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole" and os.listdir(tmp_path) == ["a.tar"]


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "code", "message"),
    [
        ("a.zip", {}, 2, ".tar.zst"),
        ("a.tar", {"only": ["{a"]}, 2, "has no counterpart"),
        ("a.tar", {"only": ["{x,y}"]}, 10, "--only {x,y}"),
        ("a.tar", {"only": ["nothing", "none/*"]}, 10, "--only nothing or none/*"),
        ("no/where.tar", {}, 2, "no directory"),
        ("source/in.tar", {}, 2, "choose another place"),
        ("there.tar", {}, 2, "--overwrite"),
        ("folder.tar", {"overwrite": True}, 2, "no regular file"),
        ("deleted.tar", {"overwrite": True}, 2, "no regular file"),
        ("busy.tar", {}, 2, "busy.tar.part is in the way"),
    ],
)
def test_refused(source: Path, tmp_path: Path, target: str, options: Any, code: int, message: str) -> None:  # noqa: F811
    (tmp_path / "there.tar").write_bytes(b"x")
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "busy.tar.part").symlink_to("there.tar")
    nameless = os.open(tmp_path / "nameless", os.O_CREAT)  # as /dev/stdout may be: its link's text is no path
    os.unlink(tmp_path / "nameless")
    (tmp_path / "deleted.tar").symlink_to(f"/proc/self/fd/{nameless}")
    before = sorted(tmp_path.rglob("*"))
    report = written(source, tmp_path / target, **options)
    os.close(nameless)
    assert report.exit_code == code and message in report.errors[0]["reason"], report.document()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("behind", ["store-7", "a.tar.gz"])
def test_it_is_packed_as_the_name_says_that_was_given(source: Path, tmp_path: Path, behind: str) -> None:  # noqa: F811
    (tmp_path / behind).write_bytes(b"")
    (tmp_path / "latest.tar").symlink_to(behind)
    assert written(source, tmp_path / "latest.tar", overwrite=True).exit_code == 0
    assert written(source, tmp_path / "plain.tar").exit_code == 0
    assert (tmp_path / "latest.tar").is_symlink()
    assert (tmp_path / behind).read_bytes() == (tmp_path / "plain.tar").read_bytes()


def test_an_archive_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([]))
    report = written(tmp_path / "a.tar", tmp_path / "b.tar")
    assert report.exit_code == 2 and "archive already" in report.errors[0]["reason"]
    assert written(tmp_path / "none", tmp_path / "b.tar").exit_code == 10


def test_on_the_command_line(source: Path, tmp_path: Path) -> None:  # noqa: F811
    archive = str(tmp_path / "a.tar")
    done = zotctl("import-layout", str(source), "--to", archive, "--only", "a")
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("Wrote 13 blobs"), done
    for words, message in (
        (["--to", archive, "--repo", "b"], "leave out --repo"),
        (["--to", archive, "--root", "b"], "leave out --root"),
        (["--to", archive, "--max-duration", "1s"], "leave out --max-duration"),
        (["--only", "a"], "--only is for --to"),
    ):
        done = zotctl("import-layout", str(source), *words)
        assert done.returncode == 2 and message in done.stderr, done
