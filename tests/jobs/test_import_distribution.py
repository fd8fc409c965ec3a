"""import-layout takes over the storage of distribution (registry 2 and 3, Harbor)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.buckets import ACCESS, SECRET, Bucket, bucket  # noqa: F401 - a fixture
from tests.cli.running import zotctl
from tests.counting import Counted
from tests.images import Image, descriptor, image, index, row
from tests.jobs.bucketing import InMemory, opened, run_job
from tests.jobs.distribution import BASE, data_of, push, put_all, registry, tags
from tests.jobs.importing import actions, local_store, put_blob, run_import, write_layout
from tests.stores import push_image
from tests.tools import need, program
from zotctl.config import RootConfig, StorageConfig
from zotctl.errors import ConfigError, UsageError
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.imports.distribution import DistributionTree, read_tags
from zotctl.jobs.report import Report
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from zotctl.oci.reference import REF_NAME
from zotctl.storage import Store, open_store
from zotctl.storage.opening import directory

ZERO = "sha256:" + "0" * 64


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return local_store(tmp_path / "new")


def test_every_repository_comes_with_tags_and_untagged_manifests(old: Path, store: Store) -> None:
    one, other = image("one"), image("other")
    push(old, "app", one, "1.0")
    push(old, "team/app", one, "1.0")
    push(old, "team/app", other)
    (old / BASE / "repositories/app/_manifests/tags/deleted").mkdir()
    (old / BASE / "repositories/empty/below").mkdir(parents=True)
    report = run_import(store, old)
    assert report.exit_code == 0, report.document()
    assert DistributionTree(directory(str(old)), lambda *_: None).names() == ["app", "team/app"]
    assert tags(store, "app") == {"1.0": one.digest}
    assert tags(store, "team/app") == {"1.0": one.digest, None: other.digest}
    assert run_import(store, old).summary["unchanged"] == 3


def test_push_times_are_those_of_the_links(old: Path, store: Store) -> None:
    push(old, "app", image(), "1.0")
    os.utime(old / BASE / "repositories/app/_manifests/tags/1.0/current/link", (1_600_000_000, 1_600_000_000))
    run_import(store, old)
    assert store.roots[0].history.timeline("app").tagged == {"1.0": 1_600_000_000}


def test_hard_links_are_made_where_asked_for(old: Path, store: Store) -> None:
    push(old, "app", image(), "1.0")
    assert run_import(store, old, link=True).summary["linked_bytes"] > 0


def test_what_another_repository_has_is_not_read(old: Path, store: Store) -> None:
    """The content of all repositories lies in one place; a link says who may read it."""
    made = image()
    push(old, "secret", made, "1.0")
    push(old, "app", made, "1.0")
    shutil.rmtree(old / BASE / "repositories/app/_layers/sha256" / digest_of(made.blobs[1]).encoded)
    report = run_import(store, old)
    assert report.exit_code == 4
    assert [(f.repository, f.kind, f.tags) for f in report.findings] == [("app", "missing_blob", ("1.0",))]
    assert tags(store, "secret") == {"1.0": made.digest}


def test_damaged_content_is_left_out_and_named(old: Path, store: Store) -> None:
    made = image()
    push(old, "app", made, "1.0")
    digest = digest_of(made.blobs[1]).encoded
    (old / BASE / "blobs/sha256" / digest[:2] / digest / "data").write_bytes(b"x" * len(made.blobs[1]))
    report = run_import(store, old)
    assert report.exit_code == 4
    assert [finding.kind for finding in report.findings] == ["digest_mismatch"]


def test_an_empty_link_of_a_tag_is_named_and_the_rest_comes(old: Path, store: Store) -> None:
    """A power cut leaves it."""
    push(old, "app", image(), "1.0")
    push(old, "app", image("other"), "2.0")
    (old / BASE / "repositories/app/_manifests/tags/1.0/current/link").write_text("")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert "the tag '1.0' of app names no digest" in report.errors[0]["reason"]
    assert "2.0" in tags(store, "app")


def test_a_tag_that_leads_through_a_symbolic_link_is_named(old: Path, store: Store) -> None:
    push(old, "app", image(), "1.0")
    push(old, "app", image("other"), "2.0")
    link = old / BASE / "repositories/app/_manifests/tags/1.0/current/link"
    link.rename(old / "link")
    link.symlink_to(old / "link")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert "the tag '1.0' of app is left out" in report.errors[0]["reason"]
    assert "2.0" in tags(store, "app")


def test_a_repository_that_a_layout_above_would_hide_is_named(old: Path, store: Store) -> None:
    for name in ("blobs", "team/blobs"):
        push(old, name, image(name), "1.0")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert [(finding.repository, finding.kind) for finding in report.findings] == [("team/blobs", "bad_name")]
    assert "1.0" in tags(store, "blobs")


def test_a_link_out_of_the_tree_is_not_followed(old: Path, store: Store, tmp_path: Path) -> None:
    push(tmp_path / "outside", "app", image(), "1.0")
    push(old, "app", image(), "1.0")
    (old / BASE / "repositories/linked").symlink_to(tmp_path / "outside" / BASE / "repositories/app")
    report = run_import(store, old)
    assert report.exit_code == 5
    assert "linked is a symbolic link" in report.errors[0]["reason"]


def test_tags_come_from_a_file(old: Path, store: Store, tmp_path: Path) -> None:
    """Harbor has them in its database."""
    made = image()
    push(old, "library/app", made)
    file = tmp_path / "tags"
    file.write_text(f"# from Harbor\nlibrary/app:1.0 {made.digest} 2020-09-13T12:26:40Z\ngone:1 {made.digest}\n")
    report = run_import(store, old, tags=str(file))
    assert report.exit_code == 5
    assert "gone has tags in the file of --tags" in report.errors[0]["reason"]
    assert tags(store, "library/app") == {"1.0": made.digest}
    assert store.roots[0].history.timeline("library/app").tagged == {"1.0": 1_600_000_000}


@pytest.mark.parametrize(
    "line",
    ["app:1.0", f"app {ZERO}", "app:1.0 sha256:12", f"app:1.0 {ZERO} now", f"app:1 {ZERO.replace('0', '1')}"],
)
def test_a_bad_line_of_tags_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "tags").write_text(f"app:1 {ZERO}\napp:1 {ZERO}\n{line}\n")
    with pytest.raises(UsageError, match="line 3: "):
        read_tags(str(tmp_path / "tags"))


@pytest.mark.parametrize("command", [["serve", "--root"], ["verify", "--root"], ["gc", "--root"], ["verify"]])
def test_other_commands_say_what_it_is(old: Path, command: list[str]) -> None:
    push(old, "app", image(), "1.0")
    done = zotctl(*command, str(old))
    assert done.returncode in (3, 10)
    assert f"zotctl import-layout {old} --root DIR" in done.stderr
    assert not (old / ".zotctl").exists()


def test_it_is_not_opened_as_a_store(old: Path) -> None:
    push(old, "app", image(), "1.0")
    with pytest.raises(ConfigError, match="zotctl import-layout"):
        open_store(StorageConfig(roots=(RootConfig(path=str(old)),)))


# -- in a bucket, and without what has no tag -----------------------------------------------------


def in_bucket(old: Path, from_place: list[Store]) -> Counted:
    """The same tree in a bucket, as the next source."""
    memory = InMemory()
    put_all(old, memory.objects)
    counted = Counted(memory.objects)
    from_place.append(opened(memory, objects=counted))
    return counted


@pytest.mark.parametrize("into", ["directory", "bucket"])
def test_a_bucket_comes_as_a_directory_does(old: Path, store: Store, from_place: list[Store], into: str) -> None:
    one, other = image("one"), image("other")
    push(old, "app", one, "1.0")
    push(old, "team/app", one, "1.0")
    push(old, "team/app", other)
    in_bucket(old, from_place)
    store = store if into == "directory" else opened(InMemory())
    report = run_import(store, "s3://old")
    assert report.exit_code == 0, report.document()
    assert tags(store, "app") == {"1.0": one.digest}
    assert tags(store, "team/app") == {"1.0": one.digest, None: other.digest}
    assert store.repository("app").manifest("1.0").body == one.manifest
    assert run_import(store, "s3://old").summary["unchanged"] == 3
    assert set(store.roots[0].history.timeline("app").tagged) == {"1.0"}


def test_in_a_bucket_what_is_there_is_asked_by_lists(old: Path, store: Store, from_place: list[Store]) -> None:
    """A request for each tag, manifest and blob, which is read; none to see whether a link is there."""
    for at in range(20):
        push(old, "app", image(str(at)), f"v{at}")
    counted = in_bucket(old, from_place)
    report = run_import(store, "s3://old")
    assert report.exit_code == 0, report.document()
    opens = [key for method, key in counted.requests if method == "open"]
    blobs = report.summary["blobs"]
    assert len(opens) == len(set(opens)) == 20 + blobs
    lists = {key for method, key in counted.requests if method == "list"}
    folders = {f"{BASE}/blobs/sha256/{key.split('/')[5]}/" for key in opens if key.startswith(f"{BASE}/blobs/")}
    assert len(lists) == len(folders) + 2
    assert len(counted.requests) <= len(opens) + len(lists) + 20


def test_in_a_bucket_damage_and_what_may_not_be_read_are_named(
    old: Path, store: Store, from_place: list[Store]
) -> None:  # fmt: skip
    made, secret = image(), image("secret")
    push(old, "app", made, "1.0")
    push(old, "secret", secret, "1.0")
    push(old, "copy", secret, "1.0")
    data_of(old, digest_of(made.blobs[1])).write_bytes(b"x" * len(made.blobs[1]))
    shutil.rmtree(old / BASE / "repositories/copy/_layers/sha256" / digest_of(secret.blobs[1]).encoded)
    in_bucket(old, from_place)
    report = run_import(store, "s3://old")
    assert report.exit_code == 4
    found = [(finding.repository, finding.kind) for finding in report.findings]
    assert found == [("app", "digest_mismatch"), ("copy", "missing_blob")]
    assert tags(store, "secret") == {"1.0": secret.digest}


@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_a_mirror_follows_it(old: Path, store: Store, from_place: list[Store], where: str) -> None:
    for name in ("app", "team/app"):
        push(old, name, image("one"), "1.0")
        push(old, name, image("two"), "2.0")

    def follow() -> Report:
        if where == "bucket":
            in_bucket(old, from_place)
        return run_import(store, old if where == "directory" else "s3://old", mirror=True)

    assert follow().exit_code == 0
    assert store.repositories() == ["app", "team/app"]
    shutil.rmtree(old / BASE / "repositories/team")
    shutil.rmtree(old / BASE / "repositories/app/_manifests/tags/1.0")
    shutil.rmtree(old / BASE / "repositories/app/_manifests/revisions/sha256" / image("one").digest.encoded)
    report = follow()
    assert report.exit_code == 0, report.document()
    assert tags(store, "app") == {"2.0": image("two").digest}
    assert not tags(store, "team/app")


def test_in_a_bucket_tags_come_from_a_file(old: Path, store: Store, tmp_path: Path, from_place: list[Store]) -> None:
    made = image()
    push(old, "library/app", made)
    in_bucket(old, from_place)
    (tmp_path / "tags").write_text(f"library/app:1.0 {made.digest} 2020-09-13T12:26:40Z\n")
    assert run_import(store, "s3://old", tags=str(tmp_path / "tags")).exit_code == 0
    assert tags(store, "library/app") == {"1.0": made.digest}
    assert store.roots[0].history.timeline("library/app").tagged == {"1.0": 1_600_000_000}


def test_a_file_of_tags_is_refused_for_other_buckets(store: Store, tmp_path: Path, from_place: list[Store]) -> None:
    memory = InMemory()
    push_image(opened(memory), "app", "1.0")
    from_place.append(opened(memory))
    (tmp_path / "tags").write_text("")
    report = run_import(store, "s3://other", tags=str(tmp_path / "tags"))
    assert report.exit_code == UsageError.exit_code
    assert "--tags is for the storage of a registry" in report.errors[0]["reason"]


@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_what_no_tag_leads_to_may_stay_behind(old: Path, store: Store, from_place: list[Store], where: str) -> None:
    """Children, signatures and referrers of tagged images come; so does a tag that names what is nowhere."""
    one, two, loose = image("one"), image("two"), image("loose")
    both = Image(index([(one.digest, len(one.manifest)), (two.digest, len(two.manifest))]), [])
    signature, referrer = image("signature"), image("referrer", subject=one.digest)
    lost, strange = image("lost"), image("strange")
    for made in (one, two, loose, referrer):
        push(old, "app", made)
    push(old, "app", both, "1.0")
    push(old, "app", signature, f"sha256-{one.digest.encoded}.sig")
    push(old, "app", lost, f"sha256-{loose.digest.encoded}.sig")
    push(old, "app", strange, f"sha256-{'0' * 64}.sig")
    push(old, "none", loose)
    if where == "bucket":
        in_bucket(old, from_place)
    report = run_import(store, old if where == "directory" else "s3://old", tagged_only=True)
    assert report.exit_code == 0, report.document()
    came = {row.digest for row in store.repository("app").index().rows()}
    assert came == {made.digest for made in (one, two, both, signature, referrer, strange)}
    assert report.summary["untagged_left_out"] == 3
    assert store.repositories() == ["app"]


def test_a_layout_of_which_something_stays_behind_is_not_removed(store: Store, tmp_path: Path) -> None:
    one, two = image("one"), image("two")
    layout = write_layout(tmp_path / "app", one, two, rows=[row(one, "1.0"), row(two)])
    report = run_import(store, layout, tagged_only=True, move=True)
    assert tags(store, "app") == {"1.0": one.digest}
    assert [item["reason"] for item in actions(report, "stay")] == [
        "not all of it was imported, so it is left in place"
    ]
    assert layout.exists()


@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_bucket_is_not_opened_as_a_store(
    old: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, serving: bool, read_only: bool  # noqa: F811
) -> None:  # fmt: skip
    push(old, "app", image(), "1.0")
    put_all(old, bucket.client())
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    config = StorageConfig(roots=(RootConfig(path=bucket.url, create=True),), read_only=read_only)
    with pytest.raises(ConfigError, match=f"`zotctl import-layout {bucket.url} --root DIR` takes all of it over"):
        open_store(config, serving=serving)
    assert not [found.key for found in bucket.client().list("") if not found.key.startswith(BASE)]


# -- the real program -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["directory", "bucket"])
def test_the_tree_of_the_real_program(
    old: Path, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str  # noqa: F811
) -> None:  # fmt: skip
    """With an index of two images and Docker's own types; from the bucket to another place in that bucket."""
    need("docker-registry", "skopeo")
    one, two = image("one"), image("two")
    both = index([(one.digest, len(one.manifest)), (two.digest, len(two.manifest))])
    tagged = descriptor(both, OCI_INDEX) | {"annotations": {REF_NAME: "both"}}
    layout = write_layout(tmp_path / "layout", one, two, rows=[row(one, "one"), tagged])
    put_blob(layout, both)
    s3 = {
        "accesskey": ACCESS, "secretkey": SECRET, "region": "us-east-1", "regionendpoint": bucket.settings.endpoint,
        "bucket": bucket.settings.bucket, "secure": False,
    }  # fmt: skip
    with registry(tmp_path, {"filesystem": {"rootdirectory": str(old)}} if where == "directory" else {"s3": s3}) as at:

        def copy(tag: str, target: str, *options: str) -> None:
            command = [program("skopeo"), "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options]
            subprocess.run([*command, f"oci:{layout}:{tag}", f"docker://{at}/{target}"], check=True, timeout=60)

        copy("one", "team/app:1.0")
        copy("both", "team/app:all", "--all")
        copy("one", "team/docker:1.0", "--format", "v2s2")
        copy("both", "team/docker:all", "--all", "--format", "v2s2")
        accept = ", ".join([OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST])
        expected = {
            name: {tag: _served(at, name, tag, accept) for tag in ("1.0", "all")}
            for name in ("team/app", "team/docker")
        }
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    source = str(old) if where == "directory" else f"s3://{bucket.settings.bucket}"
    store = local_store(tmp_path / "new")
    if where == "bucket":
        store = open_store(StorageConfig(roots=(RootConfig(path=f"s3://{bucket.settings.bucket}/new", create=True),)))
    report = run_import(store, source)
    assert report.exit_code == 0, report.document()
    assert expected["team/app"] == {"1.0": one.digest, "all": digest_of(both)}
    for name, served in expected.items():
        assert {tag: digest for tag, digest in tags(store, name).items() if tag} == served
        for tag, digest in served.items():
            assert digest_of(store.repository(name).manifest(tag).body) == digest
    checked = run_job(store, "verify", lambda run: verify(run, VerifyOptions(deep=True)), dry_run=True)
    assert checked.exit_code == 0, checked.document()
    store.close()


def _served(address: str, name: str, tag: str, accept: str) -> str:
    reply = httpx.head(f"http://{address}/v2/{name}/manifests/{tag}", headers={"Accept": accept}, timeout=60)
    return reply.headers["Docker-Content-Digest"]


def test_a_manifest_that_was_deleted_stays_deleted(old: Path, store: Store) -> None:
    """The registry removes the link, and may leave its folder."""
    made, gone = image(), image("gone")
    push(old, "app", made, "1.0")
    push(old, "app", gone)
    (old / BASE / "repositories/app/_manifests/revisions/sha256" / gone.digest.encoded / "link").unlink()
    report = run_import(store, old)
    assert report.exit_code == 0, report.document()
    assert tags(store, "app") == {"1.0": made.digest}


def test_a_time_without_a_zone_is_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tags").write_text(f"app:1.0 {ZERO} 2020-09-13T12:26:40\n")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read_tags(str(tmp_path / "tags"))["app"]["1.0"][1] == 1_600_000_000
    finally:
        monkeypatch.undo()
        time.tzset()
