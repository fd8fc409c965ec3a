"""`verify --usage`: who takes the space, on a directory and on a bucket, in sums that are those of the disk."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import images
from tests.cli.running import zotctl
from tests.jobs.bucketing import InMemory, Place, opened, run_job
from tests.jobs.layouts import age, blob, lay_out, share, store_of
from tests.storage.mounting import mount_at
from tests.stores import push_image
from tests.tools import need, program
from zotctl.jobs.check.usage import _Measure, usage
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.oci.digest import digest_of
from zotctl.storage import Store
from zotctl.storage.digests import DigestMap
from zotctl.storage.local.driver import LocalDriver

X, Y = images.image("x"), images.image("y", layers=3)


def size_of(image: images.Image) -> int:
    return len(image.manifest) + sum(map(len, image.blobs))


def measured(store: Store, **options: Any) -> Report:
    return run_job(store, "verify", usage, dry_run=True, **options)


def sizes(report: Report, what: str) -> dict[str, tuple[int, int, int]]:
    """By name: all, own, freed."""
    return {
        item["repository"] + (f":{item['tag']}" if what == "tag" else ""): (
            item["size_bytes"], item["own_bytes"], item["freed_bytes"],
        )
        for item in report.items if item["what"] == what
    }  # fmt: skip


def places(report: Report) -> dict[str, int]:
    return {item["place"]: item["size_bytes"] for item in report.items if item["what"] == "place"}


def on_disk(report: Report) -> int:
    (disk,) = (item["size_bytes"] for item in report.items if item["what"] == "disk")
    assert sum(places(report).values()) == disk
    return int(disk)


def du(root: Path) -> int:
    need("du")
    return int(subprocess.run(["du", "-s", "-B1", root], capture_output=True, check=True).stdout.split()[0])


def test_what_is_shared_by_links_is_counted_once_and_frees_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", X, "v1", "v2")
    lay_out(tmp_path, "other", X, "v1")
    lay_out(tmp_path, "alone", Y, "v1")
    blob(tmp_path, "alone", b"stray").write_bytes(b"stray")
    for body in (X.manifest, *X.blobs):
        share(blob(tmp_path, "app", body), blob(tmp_path, "other", body))
    report = measured(store_of(tmp_path))
    x, y = size_of(X), size_of(Y)
    assert sizes(report, "repository") == {"alone": (y + 5, y + 5, y + 5), "app": (x, 0, 0), "other": (x, 0, 0)}
    assert sizes(report, "tag") == {
        "app:v1": (x, 0, 0), "app:v2": (x, 0, 0), "other:v1": (x, x, 0), "alone:v1": (y, y, y),
    }  # fmt: skip
    found = places(report)
    assert (found["one repository"], found["several repositories"], found["unreachable"]) == (y, x, 5)
    assert (on_disk(report), report.exit_code) == (du(tmp_path), 0)
    only = measured(store_of(tmp_path), repos=["app"])
    assert set(sizes(only, "repository")) == {"app"} and places(only) == found
    assert measured(store_of(tmp_path), repos=["none"]).exit_code == 10


def test_the_trash_keeps_what_else_would_be_free(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", X, "v1")
    blob(tmp_path, "app", b"stray").write_bytes(b"stray")
    age(tmp_path)
    lay_out(tmp_path, "other", Y, "v1")
    blob(tmp_path, "other", b"stray").hardlink_to(blob(tmp_path, "app", b"stray"))
    store = store_of(tmp_path)
    run_job(store, "gc", lambda run: gc(run, lambda root: GcOptions()), repos=["app"])
    report = measured(store)
    assert sizes(report, "repository")["other"] == (size_of(Y) + 5, size_of(Y) + 5, size_of(Y))
    blob(tmp_path, "other", b"stray").unlink()
    assert places(measured(store))["trash"] == 5
    assert on_disk(measured(store)) == du(tmp_path)


def test_what_has_several_names_is_in_the_first_place(tmp_path: Path) -> None:
    """The trash comes before the pool, from which it is purged with it."""
    lay_out(tmp_path, "app", X, "v1")
    blob(tmp_path, "app", b"stray").write_bytes(b"stray")
    age(tmp_path)
    store = store_of(tmp_path)
    run_job(store, "gc", lambda run: gc(run, lambda root: GcOptions()))
    (stray,) = (tmp_path / ".zotctl" / "trash").rglob(digest_of(b"stray").encoded)
    pool = tmp_path / ".zotctl" / "pool" / "aa"
    pool.mkdir(parents=True, exist_ok=True)
    (pool / "stray").hardlink_to(stray)
    found = places(measured(store))
    assert (found["trash"], found.get("pool", 0)) == (5, 0)
    assert on_disk(measured(store)) == du(tmp_path)


def test_tags_share_layers_and_a_signature_belongs_to_its_image(tmp_path: Path) -> None:
    signature = images.image("signature", layers=1, subject=X.digest)
    layout = lay_out(tmp_path, "app", X, "v1")
    both = images.image("x", layers=3)
    rows = [images.row(X, "v1"), images.row(both, "v2"), images.row(signature), images.row(Y)]
    for made in (both, signature, Y):
        images.lay_out(layout, made, rows)
    report = measured(store_of(tmp_path))
    common = sum(len(body) for body in X.blobs if body in both.blobs)
    x, other = size_of(X) + size_of(signature), size_of(both)
    assert common and sizes(report, "tag") == {
        "app:v1": (x, x - common, x - common), "app:v2": (other, other - common, other - common),
    }  # fmt: skip
    (untagged,) = (item for item in report.items if item["what"] == "untagged")
    assert (untagged["digests"], untagged["freed_bytes"]) == ([str(Y.digest)], size_of(Y))


def test_what_can_not_be_known_is_an_error_and_not_said_to_be_unreachable(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", X, "v1")
    lay_out(tmp_path, "other", Y, "v1")
    blob(tmp_path, "app", X.manifest).unlink()
    (tmp_path / "other" / "index.json").write_text("{")
    report = measured(store_of(tmp_path))
    assert [error["repository"] for error in report.errors] == ["app", "other"]
    assert places(report)["unclear"] == size_of(X) - len(X.manifest) + size_of(Y)
    assert "unreachable" not in places(report)


@pytest.mark.parametrize("dedupe", [False, True])
def test_a_bucket(dedupe: bool) -> None:
    place: Place = InMemory()
    for name in ("a", "a/b"):
        push_image(opened(place, dedupe=dedupe), name, "v1", seed="x")
    report = measured(opened(place, dedupe=dedupe))
    assert on_disk(report) == sum(found.size for found in place.objects.list(""))
    (one, *_), (other, *_) = sizes(report, "repository").values()
    assert one == other == sum(places(report).get(kind, 0) for kind in ("one repository", "several repositories")) - (
        0 if not dedupe else sizes(report, "repository")["a"][1]
    ) - (0 if dedupe else other)  # fmt: skip
    freed = [freed for _, _, freed in sizes(report, "repository").values()]
    assert all(free < one for free in freed) if dedupe else freed == [one, other]


def test_reflinks_are_counted_once(tmp_path: Path) -> None:
    need("root")
    image, point = tmp_path / "image", tmp_path / "store"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([program("mkfs.xfs"), "-q", "-m", "reflink=1", image], check=True, capture_output=True)
    with mount_at(point, "-o", "loop", str(image)):
        big = images.Image(X.manifest, [*X.blobs])
        for name in ("one", "two"):
            lay_out(point, name, big, "v1")
        subprocess.run(["sync", "-f", point], check=True)
        for body in big.blobs:
            one, two = (blob(point, name, body) for name in ("one", "two"))
            subprocess.run(["cp", "--reflink=always", "--remove-destination", one, two], check=True)
        subprocess.run(["sync", "-f", point], check=True)
        found = places(measured(Store([*store_of(point).roots], store_of(point).clock)))
        assert found["several repositories"] == sum(map(len, big.blobs))
        assert LocalDriver(str(point)).stat("one").is_dir


def test_people_get_a_table_that_can_be_sorted(tmp_path: Path) -> None:
    lay_out(tmp_path, "app", X, "v1")
    done = zotctl("verify", "--usage", "--root", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SIZE", "OWN", "SHARED", "FREED", "REPOSITORY:TAG"]
    assert lines[2].endswith("  app:v1") and "blobs that one repository needs" in done.stdout
    alone = zotctl("verify", "--usage", str(tmp_path / "app"))
    assert (alone.returncode, alone.stdout.splitlines()[2]) == (0, lines[2])
    for words, said in ((["--deep"], "leave out --deep"), (["http://127.0.0.1:9/a"], "import-layout")):
        refused = zotctl("verify", "--usage", "--root", str(tmp_path), *words) if "--deep" in words else zotctl(
            "verify", "--usage", *words)  # fmt: skip
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr


def test_no_more_than_the_blobs_of_one_repository_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A store may have a million; that they come one repository after the other, below it or beside, is what lets them
    go."""
    looked, original = dict[str, int](), _Measure._look_into

    def look_into(self: _Measure, name: str, blobs: DigestMap) -> None:
        assert name not in looked
        looked[name] = len(blobs)
        original(self, name, blobs)

    monkeypatch.setattr(_Measure, "_look_into", look_into)
    for name in ("a", "a/b", "a-b", "b/c"):
        lay_out(tmp_path, name, X, "v1")
        other = blob(tmp_path, name, digest_of(b"more", "sha512"))
        other.parent.mkdir()
        other.write_bytes(b"more")
    assert not measured(store_of(tmp_path)).errors
    assert looked == dict.fromkeys(("a", "a/b", "a-b", "b/c"), 2 + len(X.blobs))
