"""What a page shows of a store, on both kinds of store, and what it costs."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests import images
from tests.counting import Counted
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.faults import Meanwhile
from tests.stores import bucket_store, push_blob, push_image, push_index, store_over
from tests.web.places import (  # noqa: F401 - a fixture
    COMMON,
    EVIL,
    REGISTRY,
    Page,
    Place,
    blobs_of,
    page,
    place,
    push_artifact,
    push_platforms,
    put,
    size_of,
    wrong_body,
)
from zotctl.config import Config
from zotctl.errors import ManifestUnknown, NameUnknown, StorageError
from zotctl.http import routes
from zotctl.http.request import Request
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.usage import usage
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.last_run import LAST_RUN_BYTES, last_run, note_run
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.jobs.schedule import Schedule, tasks
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import read_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.web import manifests, repositories, words
from zotctl.web import tags as tag_list
from zotctl.web import untagged as untagged_list
from zotctl.web.health import RootHealth, health
from zotctl.web.images import image_page
from zotctl.web.platforms import platform_of
from zotctl.web.render import render
from zotctl.web.repositories import repository_lines
from zotctl.web.tags import tag_page


def tags_of(store: Store, name: str, **options: Any) -> tag_list.TagPage:
    return tag_page(store.repository(name), options.pop("last", None), options.pop("wanted", ""), **options)


def shown(store: Store, name: str, reference: str) -> Page:
    return page("image.html", name=name, image=image_page(store.repository(name), reference), **REGISTRY)


# -- lists ---------------------------------------------------------------------------------------


def test_repositories(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a/b", "1", "2")
    push_image(place.store, "c")
    lines = repository_lines(place.store, ["a/b", "c", "gone"])
    assert [(line.name, line.tags, line.trouble) for line in lines] == [("a/b", 2, ""), ("c", 0, "")]
    assert all(line.changed for line in lines)
    image = images.image("x")
    size = sum(len(body) for body in (image.manifest, *image.blobs))
    assert [line.size for line in lines] == [size, size]
    html = page("repositories.html", lines=lines, after="c", last=None, wanted="")
    assert [row[:3] for row in html.rows()] == [["a/b", "2", words.size(size)], ["c", "0", words.size(size)]]
    assert {"/ui/a/b/tags", "/?last=c"} <= {link["href"] for link, _ in html.all("a")}


def test_sizes_of_repositories_are_added_up_as_far_as_it_is_quick(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("r/a", "r/b", "r/c"):
        push_image(place.store, name, "1", seed=f"{place.kind} {name}")
    names = ["r/a", "r/b", "r/c"]
    monkeypatch.setattr(repositories, "MOST_READ", 2)
    assert [line.size is None for line in repository_lines(place.open(), names)] == [False, False, True]
    assert [line.size is None for line in repository_lines(place.open(), names)] == [False, False, False]  # remembered


def test_a_repository_whose_storage_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def fail(name: str) -> None:
        raise StorageError("no answer")

    monkeypatch.setattr(place.store, "repository", fail)
    (line,) = repository_lines(place.store, ["a"])
    assert "does not answer" in page("repositories.html", lines=[line], after=None, last=None, wanted="").rows()[0][-1]


@pytest.mark.parametrize("index", [b"", b"half", None])
def test_a_repository_whose_index_is_missing_or_damaged_costs_no_other_its_line(index: bytes | None) -> None:
    """In a bucket, where everything is listed."""
    memory = MemoryObjects()
    for name in ("a", "b"):
        push_image(bucket_store(memory), name, "1")
    memory.delete(keys.index("a"))
    if index is not None:
        memory.put(keys.index("a"), index)
    lines = repository_lines(bucket_store(memory), ["a", "b"])
    assert [(line.name, line.tags) for line in lines] == [("a", None), ("b", 1)]
    html = page("repositories.html", lines=lines, after=None, last=None, wanted="")
    assert "index.json is missing or damaged" in html.rows()[0][-1]


def test_own_and_shared(place: Place) -> None:  # noqa: F811
    """What several tags need is shared; what one tag alone leads to is freed with it."""
    store = place.store
    one, two = push_image(store, "a", "one", seed="1"), push_image(store, "a", "two", seed="2")
    push_index(store, "a", "both", children=[two])
    push_image(store, "a", "same-1", "same-2", seed="3")
    alone = sum(len(blob) for blob in images.image("1").blobs) + size_of(store, "a", one)
    found = {line.tag: line for line in tags_of(store, "a").lines}
    assert (found["one"].size, found["one"].own, found["one"].shared) == (alone, alone, 0)
    assert (found["two"].own, found["same-1"].own, found["same-2"].own) == (0, 0, 0)
    assert found["both"].own == size_of(store, "a", found["both"].digest)
    assert found["both"].size == found["both"].own + found["two"].size
    assert found["both"].kind == "index" and found["one"].kind == "image"
    assert found["both"].platforms == ("linux/amd64",)


def test_figures_of_tags_are_those_of_verify_usage(place: Place) -> None:  # noqa: F811
    store = place.store
    one, two = push_image(store, "a", "one", seed="1"), push_image(store, "a", "two", "again", seed="2")
    push_index(store, "a", "both", children=[one, two])
    push_index(store, "a", children=[push_image(store, "a", "part", seed="3")])
    push_platforms(store, "a", "multi")
    push_image(store, "b", "1", seed="m-amd64")
    run = Run("verify", store, dry_run=True)
    told = {
        item["tag"]: (item["size_bytes"], item["own_bytes"], item["freed_bytes"])
        for item in run.finish(lambda: usage(run)).items
        if item["what"] == "tag" and item["repository"] == "a"
    }
    here, across = tags_of(store, "a").lines, tags_of(store, "a", across=True).lines
    assert {line.tag: (line.size, line.own, all_of.own) for line, all_of in zip(here, across, strict=True)} == told


def test_what_another_repository_has_is_shared_on_a_directory() -> None:
    place = Place("directory")  # noqa: F811
    push_image(place.store, "a", "one")
    (alone,) = tags_of(place.store, "a", across=True).lines
    push_image(place.store, "b", "one")
    (line,) = tags_of(place.store, "a", across=True).lines
    # Its blobs are links of the same files; a manifest has its own.
    assert line.own is not None and line.own < line.size
    # Who may not see the whole store does not learn what else is in it.
    (line,) = tags_of(place.store, "a").lines
    assert line == alone


def test_times_of_tags_are_those_of_their_push() -> None:
    place = Place("directory")  # noqa: F811
    began = place.clock.at
    push_image(place.store, "a", "1", seed="1")
    place.clock.at += 1000
    push_image(place.store, "a", "2", seed="1")
    assert [line.pushed for line in tags_of(place.store, "a").lines] == [began, began + 1000]


def test_tags_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    digest = push_image(place.store, "a")
    repository = place.store.repository("a")
    body = repository.manifest(digest).body
    repository.put_manifest(read_manifest(body, digest), body, [f"t{number:02d}" for number in range(30)] + ["x"])
    pages, last = [], None
    while True:
        found = tags_of(place.store, "a", last=last, count=12)
        pages.append(found)
        if found.after is None:
            break
        last = found.after
    assert [len(one.lines) for one in pages] == [12, 12, 7]
    assert [(one.first, one.total, one.before) for one in pages] == [(1, 31, None), (13, 31, ""), (25, 31, "t11")]
    wanted = tags_of(place.store, "a", wanted="2", count=5)
    assert [line.tag for line in wanted.lines] == ["t02", "t12", "t20", "t21", "t22"] and wanted.total == 12
    html = page("tags.html", name="a", page=wanted, wanted="2", **REGISTRY)
    assert "/ui/a/tags?last=t22&contains=2" in [link["href"] for link, _ in html.all("a")]
    with pytest.raises(NameUnknown):
        tag_page(place.store.repository("b"), None, "")


def test_a_page_of_a_large_repository_reads_only_its_own_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("bucket")  # noqa: F811
    for number in range(12):
        push_image(place.store, "a", f"t{number:02d}", seed=str(number))
    monkeypatch.setattr(tag_list, "MOST_UNREAD", 5)

    def cost(count: int) -> tuple[int, tag_list.TagPage]:
        counted = Counted(place.memory)
        found = tags_of(bucket_store(counted, place.clock), "a", count=count)
        return len([key for method, key in counted.requests if method in ("open", "get") and "/blobs/" in key]), found

    few, found = cost(2)
    more, _ = cost(4)
    assert few <= 4 and more <= 8
    assert all(line.own is None and line.is_whole and line.size for line in found.lines)
    html = page("tags.html", name="a", page=found, wanted="", **REGISTRY)
    assert any("very many manifests" in text for text in html.texts("p"))
    monkeypatch.setattr(manifests, "MOST_READ", 1)
    _, cut = cost(2)
    assert [line.is_whole for line in cut.lines] == [True, False]


def test_own_takes_no_longer_in_a_chain_of_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of which loses its place only after the one above it."""
    place, asked = Place("directory"), list[str]()  # noqa: F811
    digest, kind = push_image(place.store, "a"), OCI_MANIFEST
    for number in range(40):
        row = images.descriptor(place.store.repository("a").manifest(digest).body, kind)
        tags, kind = ["x", "y"] if number == 39 else [], OCI_INDEX
        digest = put(place.store, "a", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [row]}, *tags)
    is_own = tag_list._is_own

    def spy(*args: Any) -> bool:
        asked.append(args[4])
        return is_own(*args)

    monkeypatch.setattr(tag_list, "_is_own", spy)
    (first, _) = tags_of(place.store, "a").lines
    assert first.own == 0 and len(asked) < 2 * 4 * 40


def test_an_index_of_very_many_platforms_costs_no_more_than_its_line_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    place, asked = Place("directory"), list[object]()  # noqa: F811
    digest = push_image(place.store, "a")
    row = images.descriptor(place.store.repository("a").manifest(digest).body, OCI_MANIFEST)
    rows = [row | {"platform": {"os": f"os{number}", "architecture": "x"}} for number in range(300)]
    put(place.store, "a", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}, "many")

    def spy(one: Descriptor) -> str:
        asked.append(one)
        return platform_of(one)

    monkeypatch.setattr(manifests, "platform_of", spy)
    (line,) = tags_of(place.store, "a").lines
    assert len(line.platforms) == len(asked) == manifests.MOST_PLATFORMS


def test_a_large_manifest_is_not_read_for_a_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    push_platforms(place.store, "a", "1")
    push_platforms(place.store, "a", seed="other")
    monkeypatch.setattr(manifests, "MOST_MANIFEST_BYTES", 100)
    monkeypatch.setattr(manifests, "manifest_of", None)
    (line,) = tags_of(place.store, "a").lines
    (other,) = untagged(place.store, "a").lines
    assert line.kind == other.kind == "index" and line.platforms == () and line.size > 1000 and line.is_whole


# -- manifests without a tag ---------------------------------------------------------------------


def untagged(store: Store, name: str, last: str | None = None, **options: Any) -> untagged_list.UntaggedPage:
    return untagged_list.untagged_page(store.repository(name), last, **options)


def test_manifests_without_a_tag_with_what_is_about_them(place: Place) -> None:  # noqa: F811
    store = place.store
    tagged, alone = push_image(store, "a", "1", seed="1"), push_image(store, "a", seed="2")
    push_artifact(store, "a", tagged, "application/spdx+json")
    signature = push_artifact(store, "a", alone, "application/x-signature")
    about_it = push_artifact(store, "a", signature, "application/x-about-a-signature")
    gone = digest_of(b"not here")
    orphan = push_artifact(store, "a", gone, "application/x-orphan")
    listed = push_platforms(store, "a")
    found = untagged(store, "a")
    assert found.nested and found.after is None and found.total == 8  # two platforms and the SBOM among them
    shown_lines = [(line.digest, line.depth, line.about) for line in found.lines]
    blocks = {alone: [(signature, 1, ""), (about_it, 1, "")], orphan: [], listed: []}
    assert shown_lines == [
        one for top in sorted(blocks) for one in [(top, 0, str(gone) if top == orphan else ""), *blocks[top]]
    ]
    assert all(line.size and line.is_whole for line in found.lines)
    html = page("untagged.html", name="a", page=found, last=None, most_attached=untagged_list.MOST_ATTACHED)
    assert f"/ui/a/manifests/{gone}" in {link["href"] for link, _ in html.all("a")}
    assert [row[0].startswith("about it") for row in html.rows()] == [bool(line.depth) for line in found.lines]
    (line,) = tags_of(store, "a").lines
    assert line.attached == 1
    tags = page("tags.html", name="a", page=tags_of(store, "a"), wanted="", **REGISTRY)
    assert {"/ui/a/untagged", "/ui/a/manifests/1#referrers"} <= {link["href"] for link, _ in tags.all("a")}


def test_manifests_without_a_tag_in_pages(place: Place) -> None:  # noqa: F811
    digests = sorted(push_image(place.store, "a", seed=str(number)) for number in range(7))
    found, last = list[str](), None
    for _ in range(3):
        one = untagged(place.store, "a", last, count=3)
        found += [line.digest for line in one.lines]
        last = one.after
    assert found == digests and last is None
    for end in ("zzz", EVIL):
        assert untagged(place.store, "a", end).lines == [] or end < digests[0]
    push_image(place.store, "b", "1")
    assert untagged(place.store, "b").total == 0
    with pytest.raises(NameUnknown):
        untagged(place.store, "none")


def test_a_page_of_very_many_manifests_without_a_tag_reads_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place("bucket")  # noqa: F811
    subject = push_image(place.store, "a", "1")
    for number in range(12):
        push_artifact(place.store, "a", subject, f"application/x{number}")
    monkeypatch.setattr(untagged_list, "MOST_UNREAD", 5)
    counted = Counted(place.memory)
    found = untagged(bucket_store(counted, place.clock), "a", count=2)
    assert len([key for method, key in counted.requests if method in ("open", "get") and "/blobs/" in key]) <= 6
    assert not found.nested and found.total == 12 and [line.about for line in found.lines] == [subject, subject]
    assert found.after == found.lines[-1].digest
    html = page("untagged.html", name="a", page=found, last=None, most_attached=untagged_list.MOST_ATTACHED)
    assert "12 without a tag in all" in html.texts("span")


def test_so_much_is_listed_under_one_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untagged_list, "MOST_ATTACHED", 2)
    place = Place("directory")  # noqa: F811
    alone = push_image(place.store, "a")
    for number in range(5):
        push_artifact(place.store, "a", alone, f"application/x{number}")
    assert [line.depth for line in untagged(place.store, "a").lines] == [0, 1, 1]


# -- one image -----------------------------------------------------------------------------------


def test_an_index_with_its_platforms_and_what_is_about_it(place: Place) -> None:  # noqa: F811
    store = place.store
    digest = push_platforms(store, "team/app", "1.0", "latest", annotations={"org.example.title": "App & more"})
    push_artifact(store, "team/app", digest, "application/vnd.dev.sigstore.bundle.v0.3+json")
    push_artifact(store, "team/app", digest, "application/spdx+json")
    push_image(store, "team/app", f"sha256-{digest.encoded}.sig", seed="cosign")
    found = image_page(store.repository("team/app"), "1.0")
    assert [platform.name for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    assert found.tags == ["1.0", "latest"] and found.is_runnable and not found.trouble
    (line,) = [line for line in tags_of(store, "team/app").lines if line.tag == "1.0"]
    assert found.size == line.size  # what both pages say of one image
    assert sorted(one.kind for one in found.referrers or ()) == [
        "SBOM (spdx+json)",
        "signature (cosign)",
        "signature (dev.sigstore.bundle.v0.3+json)",
    ]
    html = shown(store, "team/app", "1.0")
    commands = html.texts("pre")
    assert "docker pull registry.test/team/app:1.0" in commands
    assert "skopeo copy --all --src-tls-verify=false docker://registry.test/team/app:1.0 oci:app" in commands
    assert "oras copy -r --from-plain-http registry.test/team/app:1.0 --to-oci-layout app" in commands
    assert "App & more" in html.texts("dd")


def test_an_image_with_its_config_and_layers(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a", "1", seed="made by x")
    html = shown(place.store, "a", "1")
    assert {"linux/amd64", "/bin/true"} <= set(html.texts("dd"))
    layers = [row for row in html.rows() if row[1].startswith("layer")]
    assert len(layers) == 2 and all(row[2] == "made by x" for row in layers)
    by_digest = shown(place.store, "a", str(place.store.repository("a").manifest("1").digest))
    assert any(text.startswith("docker pull registry.test/a@sha256:") for text in by_digest.texts("pre"))
    with pytest.raises(ManifestUnknown):
        image_page(place.store.repository("a"), "2")


def test_an_artifact_is_not_run(place: Place) -> None:  # noqa: F811
    push_artifact(place.store, "charts/app", None, "application/vnd.cncf.helm.config.v1+json", "1")
    html = shown(place.store, "charts/app", "1")
    assert html.texts("pre") == [
        "skopeo copy --src-tls-verify=false docker://registry.test/charts/app:1 oci:app",
        "oras pull --plain-http registry.test/charts/app:1",
    ]


def test_damage_is_seen_in_lists_and_on_the_image(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a", "good", seed="1")
    push_image(place.store, "a", "bad", seed="2")
    push_image(place.store, "a", "short", seed="3")
    layer = blobs_of("2")[1]
    wrong_body(place, "a", layer, b"x" * len(images.image("2").blobs[1]))
    wrong_body(place, "a", blobs_of("3")[2], b"short")
    store = place.open()
    run = Run("scrub", store)
    run.finish(lambda: scrub(run, ScrubOptions(resume=True)))
    found = {line.tag: line.trouble for line in tags_of(store, "a").lines}
    assert found == {"good": "", "bad": "damaged", "short": "damaged"}
    (part,) = [part for part in image_page(store.repository("a"), "bad").layers if part.trouble]
    assert (part.digest, part.trouble) == (str(layer), "damaged")
    assert "damaged" in " ".join(shown(store, "a", "bad").texts("h1"))


def test_a_tag_may_be_called_like_a_list(place: Place) -> None:  # noqa: F811
    """Links to its page lead there, and not to the tags of `a/manifests`."""
    push_image(place.store, "a", "tags", "untagged", "1")
    for html in (
        page("tags.html", name="a", page=tags_of(place.store, "a"), wanted="", **REGISTRY),
        shown(place.store, "a", "1"),
    ):
        links = [link["href"] for link, _ in html.all("a") if link["href"].startswith("/ui/a/manifests/")]
        assert len(links) >= 3
        for link in links:
            asked = cast(Request, SimpleNamespace(path=link, method="GET", route="", name="", reference=""))
            routes.find(asked)
            assert (asked.name, asked.route) == ("a", "/ui/<name>/manifests/<reference>"), link


def test_a_layer_that_is_gone(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a", "1")
    key = keys.blob("a", blobs_of("x")[1])
    if place.kind == "bucket":
        del place.memory.stored[key]
    else:
        place.driver.unlink(key)
    found = image_page(place.open().repository("a"), "1")
    assert [part.trouble for part in found.layers] == ["missing", ""] and found.trouble == "missing"


def test_a_layer_that_comes_back_between_the_look_at_its_place_and_that_into_the_trash() -> None:
    """As from a client of NFS, which replaces a file by two requests."""
    driver = MemoryDriver()
    push_image(store_over(driver), "a", "1")
    driver.rename(key := keys.blob("a", blobs_of("x")[1]), aside := keys.tmp("aside"))
    meanwhile = Meanwhile(driver, "stat", lambda: driver.rename(aside, key), lambda one: one == keys.TRASH)
    found = image_page(store_over(meanwhile).repository("a"), "1")
    assert [part.trouble for part in found.layers] == ["", ""] and meanwhile.done


@pytest.mark.parametrize(
    "config",
    [b"[]", b"{", b'"x"', b'{"config":[],"history":{},"created":7,"os":["x"]}',
     b'{"history":[7,{"created_by":9}],"created":"9999-99-99T00:00:00Z","config":{"Env":[1],"Labels":["x"],"Cmd":{}}}',
     b'{"os":"\\ud800","author":"\\ud800","config":{"User":"\\ud800"}}', b"[" * 100_000],
)  # fmt: skip
def test_a_config_of_anything(config: bytes) -> None:
    store = Place("directory").store
    repository = store.repository_for_push("a")
    layer = b"layer"
    for blob in (config, layer):
        push_blob(repository, blob)
    body = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": images.descriptor(config, images.CONFIG),
         "layers": [images.descriptor(layer, images.LAYER)]}
    ).encode()  # fmt: skip
    repository.put_manifest(read_manifest(body, digest_of(body)), body, ["1"])
    assert shown(store, "a", "1").texts("h1") == ["a:1"]


def test_text_of_others_stays_text(place: Place) -> None:  # noqa: F811
    digest = push_platforms(place.store, "a", "1", annotations={EVIL: EVIL})
    push_artifact(place.store, "a", digest, "application/x", **{EVIL: EVIL})
    html = shown(place.store, "a", "1")
    assert not list(html.all("script")) and EVIL in html.texts("dd")
    found = tags_of(place.store, "a", wanted=EVIL)
    html = page("tags.html", name="a", page=found, wanted=EVIL, **REGISTRY)
    assert not list(html.all("script"))
    assert [attributes["value"] for attributes, _ in html.all("input")] == [EVIL]
    html = page("error.html", status=404, message=EVIL, request_id="1", user=EVIL, site=EVIL)
    assert not list(html.all("script"))


def test_what_others_write_is_cut(place: Place) -> None:  # noqa: F811
    """So that no page is as large as what it shows."""
    store, long = place.store, "x" * 100_000
    digest = push_image(store, "a")
    row = images.descriptor(store.repository("a").manifest(digest).body, OCI_MANIFEST)
    platforms = [{"os": long, "architecture": long}, {"os": "linux", "architecture": EVIL}]
    rows = [row | {"platform": one} for one in platforms]
    rows.append(row | {"annotations": {"vnd.docker.reference.type": "x", "vnd.docker.reference.digest": long}})
    put(store, "a", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows, "annotations": {long: long}}, "1")
    plain = len(render("tags.html", {**COMMON, "name": "a", "page": tags_of(store, "a"), "wanted": "", **REGISTRY}))
    image = image_page(store.repository("a"), "1")
    whole = len(render("image.html", {**COMMON, "name": "a", "image": image, **REGISTRY}))
    assert plain < 20_000 and whole < 50_000
    assert not list(shown(store, "a", "1").all("script"))
    assert len(render("error.html", {**COMMON, "status": 404, "message": long, "request_id": "1"})) < 20_000


# -- health --------------------------------------------------------------------------------------


def collected(place: Place, delay: float = 0.0) -> None:  # noqa: F811
    run = Run("gc", place.store)
    run.finish(lambda: gc(run, lambda _: GcOptions(delay, rules=Rules(delay=delay))))
    note_run(run.report, run.roots)


def looked_at(place: Place, **options: Any) -> RootHealth:  # noqa: F811
    (root,) = health(place.store, **options)
    return root


def test_a_new_store_is_healthy(place: Place) -> None:  # noqa: F811
    root = looked_at(place)
    assert (root.gc, root.scrub, root.findings, root.damage) == (None, None, [], 0)
    assert root.trash == (None if place.kind == "bucket" else [])
    html = page("health.html", roots=[root])
    assert "Nothing is known to be damaged." in html.texts("p")


def test_health_tells_of_the_last_runs(place: Place) -> None:  # noqa: F811
    push_image(place.store, "a", "1", seed="1")
    layer = blobs_of("1")[1]
    wrong_body(place, "a", layer, b"x" * len(images.image("1").blobs[1]))
    place.store = place.open()
    run = Run("scrub", place.store)
    run.finish(lambda: scrub(run, ScrubOptions(resume=True)))
    collected(place)
    root = looked_at(place, scrubs_every=86400.0)
    assert root.gc is not None and root.gc.exit_code == 0 and root.gc_result == "everything in order"
    assert root.scrub is not None and root.scrub.last and root.damage == 1
    assert root.findings is not None
    (finding,) = root.findings
    assert (finding.repository, finding.digest, finding.is_damage, finding.tags) == ("a", str(layer), True, ("1",))
    html = page("health.html", roots=[root])
    assert "a" in html.rows()[0][0] and "1" in html.rows()[0][2]
    assert root.repair in html.texts("pre")
    assert any("once in 1 day" in text for text in html.texts("p"))


def test_names_that_one_may_not_read_are_not_told() -> None:
    place = Place("directory")  # noqa: F811
    push_image(place.store, "secret", "1", seed="1")
    wrong_body(place, "secret", blobs_of("1")[1], b"x" * len(images.image("1").blobs[1]))
    place.store = place.open()
    run = Run("scrub", place.store)
    run.finish(lambda: scrub(run, ScrubOptions(resume=True)))
    place.store.repository("secret").delete_manifest("1")
    place.clock.at += 10
    collected(place, 1.0)
    note_run(run.report, run.roots)
    assert "secret" in str(looked_at(place))
    root = looked_at(place, may_read=lambda name: not name)
    assert root.damage == 1 and root.more_findings == 1
    assert "secret" not in render_of(root)


def render_of(root: RootHealth) -> str:
    from tests.web.places import COMMON, render

    return render("health.html", {**COMMON, "roots": [root]}).decode()


def test_the_command_of_the_trash_brings_content_back() -> None:
    place = Place("directory")  # noqa: F811
    digest = push_image(place.store, "a", "1", seed="1")
    push_image(place.store, "a", "2", seed="2")
    place.store.repository("a").delete_manifest("1")
    place.clock.at += 1000
    collected(place, 100.0)
    root = looked_at(place)
    assert root.trash is not None
    (trash,) = root.trash
    assert (trash.trashed.repository, trash.trashed.blobs, trash.trashed.counted) == ("a", 4, True)
    assert trash.goes == trash.trashed.moved + 3600.0
    command = shlex.split(trash.restore)
    assert command[:4] == ["zotctl", "gc", "--root", place.store.roots[0].label]
    run = Run("gc", place.store)
    run.finish(lambda: restore(run, command[command.index("--restore") + 1]))
    assert place.store.repository("a").manifest(digest).digest == digest
    assert looked_at(place).trash == []


def test_sizes_of_much_trash_are_at_least() -> None:
    place = Place("directory")  # noqa: F811
    push_image(place.store, "a", "1", seed="1")
    place.store.repository("a").delete_manifest("1")
    place.clock.at += 1000
    collected(place, 100.0)
    from zotctl.jobs.stores import jobs_of

    trash = jobs_of(place.store.roots[0]).trash()
    assert trash is not None
    (found,) = trash.look(5, 1)
    assert (found.blobs, found.counted) == (4, False)
    assert list(trash.look(0, 1)) == []


def test_notes_of_runs_that_are_none(place: Place) -> None:  # noqa: F811
    root = place.store.roots[0]
    for body in (
        b"",
        b"{}",
        b"[]",
        b"{",
        b'{"format":2}',
        b'{"format":1,"ended":"x"}',
        b'{"format":1,"ended":1' + b"0" * 400 + b"}",
        b" " * (LAST_RUN_BYTES + 9),
    ):
        root.maintenance.write(keys.last_run("gc"), [body])
        assert last_run(root, "gc") is None
    root.maintenance.write(
        keys.SCRUB_FINDINGS, [b'{"[1]":"x","[\\"a\\",null,\\"mode\\",\\"\\"]":"2026-11-29T00:00:00Z"}']
    )
    root.maintenance.write(keys.SCRUB_STATE, [b'{"last":1,"began":0'])
    found = looked_at(place)
    assert [one.kind for one in found.findings or ()] == ["mode"] and found.damage == 0 and found.scrub is None


def test_a_note_is_read_as_far_as_it_is_understood(place: Place) -> None:  # noqa: F811
    root = place.store.roots[0]
    note_run(Report("gc", "1", summary={"purged": 3, "of_a_later_version": "x", "none": None}), [root])
    found = last_run(root, "gc")
    assert found is not None and found.summary == {"purged": 3}


def test_the_schedule_of_a_server_notes_what_it_did() -> None:
    store = Place("directory").store
    schedule = Schedule(Config(), store, lambda seconds: False)
    (task,) = tasks(Config(), store.roots[0])
    schedule._turn(task)
    assert (note := last_run(store.roots[0], "gc")) is not None and note.exit_code == 0


def test_a_dry_run_is_no_last_run(place: Place) -> None:  # noqa: F811
    run = Run("gc", place.store, dry_run=True)
    run.finish(lambda: None)
    note_run(run.report, run.roots)
    assert last_run(place.store.roots[0], "gc") is None


def test_a_root_that_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(place.store.roots[0], "state", lambda: StorageError("it is away"))
    root = looked_at(place)
    assert root.trouble == "it is away"
    assert any("can't be reached" in text for text in page("health.html", roots=[root]).texts("p"))
