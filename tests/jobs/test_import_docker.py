"""import-layout and verify of what `docker save` and its kin write: whole and as it is, or said what is not."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.images import Image, image
from tests.jobs.docker_archives import PLAIN, SHAPES, Members, plain_layers, saved
from tests.jobs.importing import actions, gzipped, header, kinds, left_behind, run_import, tar_bytes
from tests.stores import manifest_body
from tests.tools import ZSTD_MODULE, need
from zotctl.jobs.check.verify import verify_archive
from zotctl.jobs.imports import archives, docker, members
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from zotctl.storage import Store, tar


def checked(store: Store, path: Path) -> Report:
    run = Run("verify", store, dry_run=True)
    return run.finish(lambda: verify_archive(run, str(path)))


def parts(store: Store, name: str, tag: str) -> tuple[dict[str, Any], list[bytes]]:
    """A manifest, and the bytes of its config and layers."""
    manifest = json.loads(manifest_body(store, name, tag))
    folder = Path(store.roots[0].label, name, "blobs", "sha256")
    listed = [manifest["config"], *manifest["layers"]]
    return manifest, [(folder / one["digest"].removeprefix("sha256:")).read_bytes() for one in listed]


def archive(path: Path, found: Members, pack: Any = bytes) -> Path:
    path.write_bytes(pack(tar_bytes(found)))
    return path


def changed(found: Members, change: Any) -> Members:
    """The same archive with another manifest.json."""
    entries = json.loads(dict(m for m in found if isinstance(m, tuple))["manifest.json"])
    body = json.dumps(change(entries) or entries).encode()
    return [("manifest.json", body) if isinstance(m, tuple) and m[0] == "manifest.json" else m for m in found]


def one_layer(layer: bytes, diff_id: str, **config: Any) -> Members:
    body = json.dumps({"rootfs": {"type": "layers", "diff_ids": [diff_id]}} | config).encode()
    entry = [{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["l"]}]
    return [("l", layer), ("config.json", body), ("manifest.json", json.dumps(entry).encode())]


# -- whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_config_and_layers_are_stored_as_they_are(store: Store, made: Image, tmp_path: Path, shape: str) -> None:
    names = ["docker.io/library/busybox:1.36", "docker.io/library/busybox:latest"]
    others = [] if shape == "jib" else [(image("alpine"), ["alpine:3"])]  # it writes one image
    path = archive(tmp_path / "a.tar", saved(shape, (made, names), *others))
    foretold = run_import(store, path, dry_run=True)
    assert store.repositories() == [] and left_behind(store) == []
    report = run_import(store, path)
    assert report.exit_code == 0 and kinds(report) == [] and actions(foretold, "import") == actions(report, "import")
    assert store.repositories() == ["alpine", "library/busybox"][len(others) == 0 :]
    assert store.repository("library/busybox").tags() == ["1.36", "latest"]
    manifest, bodies = parts(store, "library/busybox", "1.36")
    assert bodies == [made.blobs[0], *(plain_layers(made) if shape in PLAIN else made.blobs[1:])]
    assert manifest["mediaType"] == OCI_MANIFEST and manifest["config"]["mediaType"] == OCI_CONFIG
    assert {one["mediaType"] for one in manifest["layers"]} == {OCI_LAYER if shape in PLAIN else OCI_LAYER_GZIP}
    assert checked(store, path).exit_code == 0
    assert not actions(run_import(store, path), "import")


def test_every_tool_gives_the_same_image_the_same_digest(store: Store, made: Image, tmp_path: Path) -> None:
    found = {}
    for shape in SHAPES:
        run_import(store, archive(tmp_path / "a.tar", saved(shape, (made, ["a:1"]))), repo=shape.replace("_", "-"))
        found[shape] = str(digest_of(manifest_body(store, shape.replace("_", "-"), "1")))
    assert len({found[shape] for shape in PLAIN}) == 1
    assert len(set(found.values())) == 2  # plain, and gzip


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_archives_for_an_air_gap(store: Store, made: Image, tmp_path: Path, pack: str) -> None:
    """As k3s and kind have them: several images, packed."""
    if pack == "zstd":
        need(ZSTD_MODULE)
    packed = gzipped if pack == "gzip" else tar.zstd_module("").compress
    images = [(made, ["rancher/klipper:v1"]), (image("two"), ["rancher/mirrored-pause:3.6"])]
    path = archive(tmp_path / f"images.tar.{pack}", saved("docker", *images), packed)
    assert run_import(store, path).exit_code == 0
    assert store.repositories() == ["rancher/klipper", "rancher/mirrored-pause"]
    assert run_import(store, path, repo="k3s", all=True).exit_code == 0
    assert store.repository("k3s").tags() == ["3.6", "v1"]


def test_an_image_without_a_name(store: Store, made: Image, tmp_path: Path) -> None:
    """`docker save ID`."""
    path = archive(tmp_path / "app.tar", saved("docker", (made, None)))
    assert run_import(store, path, tag="1.0").exit_code == 0
    assert store.repository("app").tags() == ["1.0"]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_packed_layer_may_have_several_parts(store: Store, tmp_path: Path, packing: str) -> None:
    body = tar_bytes([("a", b"x" * 3_000_000)])
    if packing == "zstd":
        need(ZSTD_MODULE)
    pack = gzipped if packing == "gzip" else tar.zstd_module("").compress
    layer = b"".join(pack(body[at : at + 1_000_000]) for at in range(0, len(body), 1_000_000))
    path = archive(tmp_path / "a.tar", one_layer(layer, str(digest_of(body))))
    assert run_import(store, path).exit_code == 0
    manifest, bodies = parts(store, "a", "1")
    assert manifest["layers"][0]["mediaType"] == (OCI_LAYER_GZIP if packing == "gzip" else OCI_LAYER_ZSTD)
    assert bodies[1] == layer


def test_a_packed_layer_that_is_named_by_its_digest(store: Store, made: Image, tmp_path: Path) -> None:
    """It is read again to be unpacked, which only an import can do, also from the repository that has it already."""
    names = [f"blobs/sha256/{digest_of(body).encoded}" for body in made.blobs]
    entry = [{"Config": names[0], "RepoTags": ["a:1"], "Layers": names[1:]}]
    found: Members = [*zip(names, made.blobs, strict=True), ("manifest.json", json.dumps(entry).encode())]
    path = archive(tmp_path / "a.tar", found)
    for _ in range(2):
        assert run_import(store, path, repo="a").exit_code == 0
        assert parts(store, "a", "1")[1] == made.blobs
    report = checked(store, path)
    assert report.exit_code == 5 and "only an import unpacks it" in report.findings[0].reason


def test_the_empty_layer_of_a_tar_without_members(store: Store, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", one_layer(bytes(1024), str(digest_of(bytes(1024)))))
    assert run_import(store, path).exit_code == 0 and parts(store, "a", "1")[1][1] == bytes(1024)


# -- not whole --------------------------------------------------------------------------------------


def without(found: Members, part: str) -> Members:
    return [m for m in found if not (isinstance(m, tuple) and m[0].endswith(part))]


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (lambda e: e[0].update(Layers=e[0]["Layers"][:1]), "invalid_manifest", "2 diff_ids for 1 layers"),
        (lambda e: e[0]["Layers"].reverse(), "digest_mismatch", "its config says"),
        (lambda e: e[0]["Layers"].__setitem__(0, "../../etc/passwd"), "missing_blob", "not in the archive"),
        (lambda e: e[0]["Layers"].__setitem__(0, "/etc/passwd"), "missing_blob", "not in the archive"),
        (lambda e: e[0].update(Config="nothing.json"), "missing_blob", "no config"),
        (lambda e: e[0].update(Config="manifest.json"), "invalid_manifest", "no config of an image"),
        (lambda e: e[0].update(Config=e[0]["Layers"][0]), "missing_blob", "no config"),
    ],
)
def test_what_does_not_fit_is_left_out_and_named(
    store: Store, made: Image, tmp_path: Path, change: Any, kind: str, reason: str
) -> None:
    images = saved("docker", (made, ["a:bad"]), (image("alpine"), ["a:good"]))
    path = archive(tmp_path / "a.tar", changed(images, change))
    for report in (run_import(store, path, dry_run=True), run_import(store, path), checked(store, path)):
        assert report.exit_code == 4, report.document()
        assert kinds(report) == [kind] and reason in report.findings[0].reason
        assert report.findings[0].tags == ("bad",)
    assert store.repository("a").tags() == ["good"]


@pytest.mark.parametrize(
    ("entry", "tags"),
    [
        ({"RepoTags": ["a:bad", 1], "Layers": ["l"]}, ("bad",)),
        ({"Config": 5, "RepoTags": ["a:bad"], "Layers": ["l"]}, ("bad",)),
        ({"Config": "config", "RepoTags": ["a:bad"], "Layers": ["l", 1]}, ("bad",)),
        ({"Config": "config", "RepoTags": ["a:bad"], "Layers": {"l": "l"}}, ("bad",)),
        ({"Config": "config", "RepoTags": "a:bad", "Layers": "l"}, ()),
        ("a:bad", ()),
        (None, ()),
    ],
)
def test_an_entry_that_is_none_is_named_beside_others(
    store: Store, made: Image, tmp_path: Path, entry: object, tags: tuple[str, ...]
) -> None:
    """Wherever it stands: nobody may take the archive for imported, and lose what is in it."""
    images = saved("docker", (made, ["a:good"]), (image("alpine"), ["b:too"]))
    path = archive(tmp_path / "a.tar", changed(images, lambda e: e.insert(1, entry)))
    for report in (run_import(store, path, dry_run=True), run_import(store, path), checked(store, path)):
        assert (report.exit_code, kinds(report)) == (4, ["missing_blob"]), report.document()
        assert report.findings[0].tags == tags
    assert store.repository("a").tags() == ["good"] and store.repository("b").tags() == ["too"]


@pytest.mark.parametrize("names", ["a:1", {"a:1": 1}, 5, None])
def test_names_that_are_no_list(store: Store, made: Image, tmp_path: Path, names: object) -> None:
    images = changed(saved("docker", (made, ["a:1"])), lambda e: e[0].update(RepoTags=names))
    assert run_import(store, archive(tmp_path / "a.tar", images)).exit_code == 0
    assert store.repository("a").tags() == []


@pytest.mark.parametrize("name", ["UP:9", "../../x:9", "a:b:9", "b/-:9"])
def test_a_tag_of_no_repository_is_not_given_to_another(store: Store, made: Image, tmp_path: Path, name: str) -> None:
    """Whoever pulls b:9 would run an image that somebody else has named."""
    other = image("alpine")
    images = saved("docker", (made, ["b:1", name]), (other, [name.replace("9", "8")]))
    path = archive(tmp_path / "a.tar", images)
    report = run_import(store, path)
    assert (report.exit_code, kinds(report)) == (5, ["bad_ref_name", "bad_ref_name"]), report.document()
    assert "names no repository" in report.findings[0].reason
    assert store.repository("b").tags() == ["1"]
    assert len(store.repository("b").index()) == 2, "the other image is there, without a tag"
    assert run_import(store, path, repo="own", all=True).exit_code == 0
    assert store.repository("own").tags() == ["1", "8", "9"], "there is no other whose tags they could be"


def test_i14_a_config_and_a_layer_are_looked_into_once(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries of manifest.json name them: a small archive must not cost hours."""
    parsed, looked = list[str](), list[str]()
    diff_ids, unpack = docker._diff_ids, archives.Staging.unpack
    monkeypatch.setattr(docker, "_diff_ids", lambda name, body: (parsed.append(name), diff_ids(name, body))[1])
    monkeypatch.setattr(
        archives.Staging, "unpack", lambda self, d, blob: (looked.append(str(d)), unpack(self, d, blob))[1]
    )
    layers = [f"blobs/sha256/{digest_of(body).encoded}" for body in made.blobs[1:]]
    entries = [{"Config": "config", "Layers": layers, "RepoTags": [f"app:{number}"]} for number in range(5)]
    members: Members = list(zip(layers, made.blobs[1:], strict=True))
    members += [("config", made.blobs[0]), ("manifest.json", json.dumps(entries).encode())]
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members))
    assert run_import(store, path).exit_code == 0
    assert store.repository("app").tags() == ["0", "1", "2", "3", "4"]
    assert len(parsed) == 1 and len(looked) == len(set(looked))


def test_a_config_that_is_not_what_its_name_says(store: Store, made: Image, tmp_path: Path) -> None:
    """Image ids are digests of configs: an edited one is no image that anybody has pushed."""
    found = saved("docker", (made, ["a:1"]))
    edited = [
        (m[0], m[1] + b" ") if isinstance(m, tuple) and m[0].endswith(".json") and len(m[0]) > 60 else m for m in found
    ]
    report = run_import(store, archive(tmp_path / "a.tar", edited))
    assert report.exit_code == 4 and kinds(report) == ["digest_mismatch"] and store.repositories() == []


@pytest.mark.parametrize(
    ("layer", "kind", "code", "reason"),
    [
        (gzipped(b"other"), "digest_mismatch", 4, "its config says"),
        (gzipped(bytes(5000))[:-6], "digest_mismatch", 4, "cut short"),
        (gzipped(bytes(5000))[:-6] + b"abcdef", "digest_mismatch", 4, "damaged"),
        (b"no tar at all", "missing_blob", 4, "is no tar"),
    ],
)
def test_a_layer_that_is_damaged(store: Store, tmp_path: Path, layer: bytes, kind: str, code: int, reason: str) -> None:
    report = run_import(store, archive(tmp_path / "a.tar", one_layer(layer, str(digest_of(bytes(5000))))))
    assert report.exit_code == code and kinds(report) == [kind] and reason in report.findings[0].reason
    assert store.repositories() == [] and left_behind(store) == []


def test_i14_a_layer_that_grows_too_much_is_not_unpacked_to_its_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "BOMB_FLOOR_BYTES", 1 << 20)
    seen: list[int] = []
    take = tar.Unpacked._take
    monkeypatch.setattr(tar.Unpacked, "_take", lambda self, piece: (seen.append(len(piece)), take(self, piece))[1])
    layer = gzip.compress(bytes(64 << 20))
    report = run_import(store, archive(tmp_path / "a.tar", one_layer(layer, "sha256:" + "a" * 64)))
    assert report.exit_code == 5 and "more than 250 of one" in report.findings[0].reason and sum(seen) <= 20 << 20


def test_i14_many_small_bombs_are_one(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "BOMB_FLOOR_BYTES", 8 << 20)
    seen: list[int] = []
    take = tar.Unpacked._take
    monkeypatch.setattr(tar.Unpacked, "_take", lambda self, piece: (seen.append(len(piece)), take(self, piece))[1])
    bomb = gzipped(bytes(4 << 20))
    report = run_import(
        store, archive(tmp_path / "a.tar", [*((f"{n}.tar.gz", bomb) for n in range(20)), *one_layer(bomb, "sha256:a")])
    )
    assert report.exit_code == 5 and "more than 250 of one" in report.findings[0].reason and sum(seen) <= 40 << 20


@pytest.mark.parametrize(
    "target", ["../../../etc/passwd", "/etc/passwd", "layer.tar", "../nothing/layer.tar", "..", ".", "x/" * 3000]
)
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_i14_links_lead_to_members_only(store: Store, made: Image, tmp_path: Path, kind: bytes, target: str) -> None:
    """Not out of the archive, not to themselves, not to what is not there."""
    found = saved("docker", (made, ["a:1"]))
    entry = json.loads(dict(m for m in found if isinstance(m, tuple))["manifest.json"])
    first = entry[0]["Layers"][0]
    linked = [m for m in found if not (isinstance(m, tuple) and m[0] == first)]
    report = run_import(store, archive(tmp_path / "a.tar", [*linked, header(first, kind, linkname=target)]))
    assert report.exit_code == 4 and kinds(report) == ["missing_blob"] and store.repositories() == []


def test_i14_a_layer_by_many_links(store: Store, made: Image, tmp_path: Path) -> None:
    """As many as Linux follows, and no more; also by a directory that is one."""
    for count, code in ((5, 0), (60, 4)):
        found = saved("podman", (made, ["a:1"]))
        first = json.loads(dict(m for m in found if isinstance(m, tuple))["manifest.json"])[0]["Layers"][0]
        links = [header(f"d{n + 1}", tarfile.SYMTYPE, linkname=f"d{n}") for n in range(count)]
        links.append(header("d0", tarfile.SYMTYPE, linkname="."))
        there = changed(found, lambda e, path=f"d{count}/{first}": e[0]["Layers"].__setitem__(0, path))
        assert run_import(store, archive(tmp_path / "a.tar", [*links, *there]), repo=f"a{count}").exit_code == code


def refused(store: Store, path: Path, found: Members, reason: str) -> None:
    report = run_import(store, archive(path, found))
    assert report.exit_code == 1 and reason in report.errors[0]["reason"], report.document()
    assert store.repositories() == [] and left_behind(store) == []


def test_i14_links_that_cost_too_much(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MOST_STEPS", 100)
    links = [header(f"l{n}", tarfile.SYMTYPE, linkname=f"l{n - 1}/" + "a/" * 60) for n in range(1, 60)]
    found = changed(
        saved("docker", (made, ["a:1"]), *((image(str(n)), [f"a:{n}"]) for n in range(9))),
        lambda e: [one | {"Layers": ["l59/x/y", "l58/x/y"]} for one in e],
    )
    refused(store, tmp_path / "a.tar", [*links, *found], "too many others")


def test_i14_more_than_is_kept_in_memory(
    store: Store, made: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = saved("crane", (made, ["a:1"]))
    with monkeypatch.context() as limited:
        limited.setattr(members, "PATHS_BYTES", 100)
        refused(store, tmp_path / "a.tar", found, "more than 100 bytes")
    with monkeypatch.context() as limited:
        limited.setattr(docker, "MOST_MEMBERS", 1)
        refused(store, tmp_path / "a.tar", found, "more than 1 images and layers")
    monkeypatch.setattr(members, "OTHER_TEXTS_BYTES", 10)
    report = run_import(store, archive(tmp_path / "a.tar", found))
    assert report.exit_code == 4 and kinds(report) == ["missing_blob"]  # the config was not kept


@pytest.mark.parametrize("same", [True, False])
def test_i14_a_layer_that_comes_twice(store: Store, made: Image, tmp_path: Path, same: bool) -> None:
    found = saved("crane", (made, ["a:1"]))
    name, body = next(m for m in found if isinstance(m, tuple) and m[0].endswith(".tar.gz"))
    again = [*found, (name, body if same else gzip.compress(b"other"))]
    if same:
        assert run_import(store, archive(tmp_path / "a.tar", again)).exit_code == 0
    else:
        refused(store, tmp_path / "a.tar", again, "twice")


def test_i14_a_layer_with_the_name_of_something_else(store: Store, made: Image, tmp_path: Path) -> None:
    found = saved("crane", (made, ["a:1"]))
    name = next(m[0] for m in found if isinstance(m, tuple) and m[0].endswith(".tar.gz"))
    refused(store, tmp_path / "a.tar", [(name, b'{"not": "a layer"}'), *found], "twice")


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"[1]", b'[{"Config": 1}]', b'[{"Config": "a", "Layers": [1]}]', b"[" * 10_000, b"\xff["]
)
def test_a_manifest_json_of_something_else(store: Store, tmp_path: Path, body: bytes) -> None:
    refused(store, tmp_path / "a.tar", [("manifest.json", body)], "holds no image layout")
