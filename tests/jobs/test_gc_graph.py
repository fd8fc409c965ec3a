"""What a collector, a deletion, scrub and `--explain` take for needed: what the bytes say, whoever calls them what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import images
from tests.images import LAYER, Image, build_cache, descriptor
from tests.jobs.collecting import DELAY, Place
from tests.jobs.layouts import run_scrub
from tests.jobs.test_gc_bucket import World
from tests.stores import drop_rows, push_blob, push_image
from zotctl.errors import Referenced
from zotctl.jobs.check.verify import verify
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys

SUBJECT = images.image("subject")


class Kept:
    """A store of either kind, in which a foreign tool has written a layout, and old garbage lies."""

    def __init__(self, *, bucket: bool) -> None:
        self.world = World(dedupe=False) if bucket else None
        self.place = None if bucket else Place()
        self.stray = push_blob(self.store.repository_for_push("a"), b"stray")

    @property
    def store(self) -> Store:
        return self.world.another() if self.world else self.place.open()  # type: ignore[union-attr]

    def write(self, key: str, body: bytes) -> None:
        if self.world:
            self.world.memory.put(key, body)
        elif self.place:
            self.place.write(key, body)

    def lay(self, *bodies: bytes, rows: list[dict[str, Any]]) -> None:
        for body in bodies:
            self.write(keys.blob("a", digest_of(body)), body)
        self.write(keys.index("a"), json.dumps({"schemaVersion": 2, "manifests": rows}).encode())

    def collect(self) -> Report:
        """Often enough that what nothing reaches is gone."""
        for _ in range(4):
            if self.world:
                self.world.later()
                report = collect_bucket(self.store)
            elif self.place:
                self.place.wait(3)
                report = self.place.collect(self.store)
        return report

    def has(self, body: bytes) -> bool:
        key = keys.blob("a", digest_of(body))
        return key in self.world.memory.stored if self.world else self.place.exists(key)  # type: ignore[union-attr]

    def all_of(self, *some: Image | bytes) -> bool:
        bodies = [body for one in some for body in ([one] if isinstance(one, bytes) else [one.manifest, *one.blobs])]
        return all(map(self.has, bodies))


def collect_bucket(store: Store) -> Report:
    from tests.jobs.test_gc import collect

    return collect(store, DELAY)


@pytest.fixture(params=["directory", "bucket"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    yield Kept(bucket=request.param == "bucket")


def untyped(image: Image) -> Image:
    return Image(image.manifest.replace(f'"mediaType": "{OCI_MANIFEST}", '.encode(), b"", 1), image.blobs)


# -- claims ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
@pytest.mark.parametrize("claim", [OCI_INDEX, DOCKER_LIST, LAYER])
def test_i5_a_row_that_calls_it_something_else_takes_nothing(kept: Kept, claim: str, typed: bool) -> None:
    """Called an index, it had no children for us, and its layers went; called a layer, nothing at all."""
    image = images.image() if typed else untyped(images.image())
    kept.lay(image.manifest, *image.blobs, rows=[images.row(image, "v1", mediaType=claim)])
    assert kept.collect().exit_code == 0
    assert kept.all_of(image) and not kept.has(b"stray")


@pytest.mark.parametrize("claim", [OCI_INDEX, LAYER])
@pytest.mark.parametrize("order", [1, -1])
def test_i5_nor_does_the_order_of_claims(kept: Kept, claim: str, order: int) -> None:
    image = untyped(images.image())
    right = images.index([(image.digest, len(image.manifest))])
    wrong = images.index([(image.digest, len(image.manifest))], annotations={"w": "1"}).replace(
        OCI_MANIFEST.encode(), claim.encode()
    )
    rows = [descriptor(body, OCI_INDEX) for body in (right, wrong)][::order]
    kept.lay(image.manifest, *image.blobs, right, wrong, rows=rows)
    assert kept.collect().exit_code == 0
    assert kept.all_of(image, right, wrong) and not kept.has(b"stray")


def test_i5_the_fields_of_both_shapes_are_followed(kept: Kept) -> None:
    image, child = images.image("both"), images.image("child")
    listed = json.loads(images.index([(child.digest, len(child.manifest))]))["manifests"]
    body = json.dumps(json.loads(image.manifest) | {"manifests": listed}).encode()
    bodies = [body, *image.blobs, child.manifest, *child.blobs]
    kept.lay(*bodies, rows=[descriptor(body, OCI_MANIFEST)])
    assert kept.collect().exit_code == 0
    assert kept.all_of(*bodies) and not kept.has(b"stray")


def test_i5_each_reading_of_a_key_is_followed(kept: Kept) -> None:
    """Go's decoder takes "Layers" for "layers"."""
    image = images.image()
    body = image.manifest.replace(b'"layers"', b'"layers": [], "LAYER\xc5\xbf"')
    kept.lay(body, *image.blobs, rows=[descriptor(body, OCI_MANIFEST)])
    assert kept.collect().exit_code == 0
    assert kept.all_of(body, *image.blobs) and not kept.has(b"stray")


@pytest.mark.parametrize("how", ["twice", "case", "no size"])
def test_i5_a_row_of_which_the_digest_is_not_known_stops_deletion(kept: Kept, how: str) -> None:
    """Some programs find an image there, others another one, or none."""
    image, other = images.image("one"), images.image("other")
    row = json.dumps(images.row(image, "v1"))
    digest = f'"digest": "{image.digest}"'
    change = {"twice": f'{digest}, "digest": "{other.digest}"', "case": f'{digest}, "Digest": "{other.digest}"'}
    row = row.replace(digest, change[how]) if how in change else row.replace('"size"', '"length"')
    kept.lay(image.manifest, other.manifest, *image.blobs, *other.blobs, rows=[])
    kept.write(keys.index("a"), f'{{"schemaVersion": 2, "manifests": [{row}]}}'.encode())
    assert kept.collect().exit_code == 5
    with pytest.raises(Referenced, match="a row of index"):
        kept.store.repository_for_push("a").delete_blob(digest_of(other.blobs[-1]))
    assert kept.all_of(image, other)


@pytest.mark.parametrize("field", ["config", "layers", "Layers", "subject", "blobs"])
def test_i5_references_beside_the_rows_stop_deletion(kept: Kept, field: str) -> None:
    """An image that was written over index.json has no rows, and needs all the same what it names."""
    image = images.image()
    document = json.loads(image.manifest)
    beside = document["layers"] if field.lower() in ("layers", "blobs") else document["config"]
    kept.lay(image.manifest, *image.blobs, rows=[])
    kept.write(keys.index("a"), json.dumps({"schemaVersion": 2, "manifests": [], field: beside}).encode())
    assert kept.collect().exit_code == 5
    with pytest.raises(Referenced, match=f"index.json has '{field}'"):
        kept.store.repository_for_push("a").delete_blob(digest_of(image.blobs[-1]))
    assert kept.all_of(image)
    assert [finding.kind for finding in run_scrub(kept.store).findings] == ["invalid_index"]


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_what_stands_beside_the_rows_and_names_nothing_stops_nothing(kept: Kept, nothing: object) -> None:
    image = images.image()
    kept.lay(image.manifest, *image.blobs, rows=[images.row(image, "v1")])
    fields = {"manifests": [images.row(image, "v1")], "layers": nothing, "subject": None, "x": {"config": [1]}}
    kept.write(keys.index("a"), json.dumps({"schemaVersion": 2, **fields}).encode())
    assert kept.collect().exit_code == 0
    assert kept.all_of(image) and not kept.has(b"stray")


def test_what_contradicts_a_claim_is_told(kept: Kept) -> None:
    image, twice = images.image(), images.image("twice")
    body = twice.manifest.replace(b'"layers"', b'"Layers"')
    rows = [images.row(image, "v1", mediaType=OCI_INDEX), descriptor(body, OCI_MANIFEST)]
    kept.lay(image.manifest, *image.blobs, body, *twice.blobs, rows=rows)
    run = Run("verify", kept.store)
    for report in (run_scrub(kept.store), run.finish(lambda: verify(run))):
        told = {(finding.digest, finding.kind) for finding in report.findings if finding.kind != "orphan"}
        assert told >= {(image.digest, "media_type_mismatch"), (digest_of(body), "invalid_manifest")}
        assert report.exit_code == 4
        (mismatch,) = (finding for finding in report.findings if finding.kind == "media_type_mismatch")
        assert mismatch.tags == ("v1",)
        assert f"listed as '{OCI_INDEX}' and calls itself '{OCI_MANIFEST}'" in mismatch.reason


@pytest.mark.parametrize("claim", [OCI_INDEX, LAYER, None])
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
@pytest.mark.parametrize("tags", [[], ["v1"], ["v2"]], ids=str)
def test_i8_a_push_puts_right_what_rows_call_it(kept: Kept, claim: str | None, typed: bool, tags: list[str]) -> None:
    """It was served by its digest as what another tool had written, however often it was pushed."""
    image = images.image() if typed else untyped(images.image())
    row = images.row(image, "v1", note="kept") | {"mediaType": claim}
    kept.lay(image.manifest, *image.blobs, rows=[{key: value for key, value in row.items() if value}])
    pushed = check_manifest(image.manifest, OCI_MANIFEST)
    kept.store.repository_for_push("a").put_manifest(pushed, image.manifest, tags)
    repository = kept.store.repository("a")
    assert {repository.manifest(name).media_type for name in (image.digest, "v1", *tags)} == {OCI_MANIFEST}


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
def test_a_row_without_a_type_is_served_as_what_the_bytes_say(kept: Kept, typed: bool) -> None:
    """Without a Content-Type no client takes it."""
    image = images.image() if typed else untyped(images.image())
    row = images.row(image, "v1")
    del row["mediaType"]
    kept.lay(image.manifest, *image.blobs, rows=[row])
    repository = kept.store.repository("a")
    assert {repository.manifest(name).media_type for name in (image.digest, "v1")} == {OCI_MANIFEST}


def test_a_push_that_puts_a_row_right_lets_deletions_go_on(kept: Kept) -> None:
    """In the same server, which had read that nothing can be known."""
    image, store = images.image(), kept.store
    stray = push_blob(store.repository_for_push("a"), b"of nothing")
    row = images.row(image, "v1", mediaType="application/vnd.example.unknown")
    kept.lay(image.manifest, *image.blobs, rows=[row])
    with pytest.raises(Referenced, match="push it again"):
        store.repository_for_push("a").delete_blob(stray)
    pushed = check_manifest(image.manifest, OCI_MANIFEST)
    store.repository_for_push("a").put_manifest(pushed, image.manifest, ["v1"])
    store.repository_for_push("a").delete_blob(stray)


def test_i8_a_push_leaves_the_other_type_that_fits(kept: Kept) -> None:
    """A body without a type of its own may be served as two."""
    image = untyped(images.image())
    kept.lay(image.manifest, *image.blobs, rows=[images.row(image, "v1", mediaType=DOCKER_MANIFEST)])
    pushed = check_manifest(image.manifest, OCI_MANIFEST)
    kept.store.repository_for_push("a").put_manifest(pushed, image.manifest, ["v2"])
    repository = kept.store.repository("a")
    assert [repository.manifest(name).media_type for name in ("v1", "v2")] == [DOCKER_MANIFEST, OCI_MANIFEST]


# -- subjects -------------------------------------------------------------------------------------


def signed(kept: Kept) -> Store:
    """An image that lost its row, and a signature of it that has a tag."""
    store = kept.store
    push_image(store, "a", "v1", seed="subject")
    push_image(store, "a", "sig", seed="sig", subject=SUBJECT.digest)
    drop_rows(store, "a", SUBJECT.digest)
    return store


def test_i5_a_subject_without_a_row_is_kept_by_its_referrer(kept: Kept) -> None:
    store = signed(kept)
    assert kept.collect().exit_code == 0
    assert kept.all_of(SUBJECT) and not kept.has(b"stray")
    assert store.repository("a").manifest(SUBJECT.digest).body == SUBJECT.manifest
    for digest in map(digest_of, (SUBJECT.manifest, *SUBJECT.blobs)):
        run = Run("gc", kept.store, dry_run=True)
        report = run.finish(lambda run=run, digest=digest: explain(run, digest, lambda _: GcOptions(delay=DELAY)))  # type: ignore[misc]
        assert [item["verdict"] for item in report.items] == ["kept"]
        assert "(tags sig)" in report.items[0]["why"]


def test_scrub_looks_for_what_a_subject_needs(kept: Kept) -> None:
    signed(kept)
    gone = digest_of(SUBJECT.blobs[1])
    if kept.world:
        kept.world.memory.delete(keys.blob("a", gone))
    elif kept.place:
        kept.place.driver.unlink(keys.blob("a", gone))
    (finding,) = run_scrub(kept.store).findings
    assert (finding.digest, finding.kind, finding.tags) == (gone, "missing_blob", ("sig",))


def test_i5_a_damaged_subject_is_not_an_absent_one(kept: Kept) -> None:
    """What it needs to be healed must not go: nothing is collected, and the reason is told."""
    signed(kept)
    kept.write(keys.blob("a", SUBJECT.digest), SUBJECT.manifest[:-1] + b" ")
    for _ in range(2):
        report = kept.collect()
        assert report.exit_code == 5
        assert [(finding.digest, finding.kind) for finding in report.findings] == [(SUBJECT.digest, "digest_mismatch")]
        assert kept.all_of(*SUBJECT.blobs, b"stray")
        with pytest.raises(Referenced, match="can't be known"):
            kept.store.repository("a").delete_blob(digest_of(SUBJECT.blobs[1]))
        run_scrub(kept.store)  # which marks it
    repository = kept.store.repository("a")
    repository.put_manifest(check_manifest(SUBJECT.manifest, OCI_MANIFEST), SUBJECT.manifest)
    assert kept.collect().exit_code == 0
    assert kept.all_of(SUBJECT) and not kept.has(b"stray")


def test_a_damaged_subject_can_be_given_up(kept: Kept) -> None:
    signed(kept)
    kept.write(keys.blob("a", SUBJECT.digest), b"rot")
    kept.store.repository("a").delete_manifest(SUBJECT.digest)
    assert kept.collect().exit_code == 0
    assert not any(map(kept.has, SUBJECT.blobs))


def test_an_absent_subject_stops_nothing(kept: Kept) -> None:
    push_image(kept.store, "a", "sig", seed="sig", subject=SUBJECT.digest)
    assert kept.collect().exit_code == 0
    assert not kept.has(b"stray")


# -- leaves ---------------------------------------------------------------------------------------


def test_a_build_cache_is_kept_whole_and_collected_when_it_is_replaced(kept: Kept) -> None:
    (old, parts), (new, others) = build_cache("old"), build_cache("new")
    for index, bodies in ((old, parts), (new, others)):
        repository = kept.store.repository_for_push("a")
        for body in bodies:
            push_blob(repository, body)
        repository.put_manifest(check_manifest(index, OCI_INDEX), index, ["cache"])
        assert kept.all_of(index, *bodies)
    assert kept.collect().exit_code == 0
    assert kept.all_of(new, *others)
    assert not any(map(kept.has, [old, *parts, b"stray"]))


def test_a_foreign_cache_is_collected_as_well(kept: Kept) -> None:
    """Its tool has written rows for what it lists."""
    index, parts = build_cache()
    rows = json.loads(index)["manifests"] + [descriptor(index, DOCKER_LIST)]
    kept.lay(index, *parts, rows=rows)
    assert kept.collect().exit_code == 0
    assert kept.all_of(index, *parts) and not kept.has(b"stray")
    assert {finding.kind for finding in run_scrub(kept.store).findings} == {"media_type_mismatch"}


def test_a_cache_that_has_lost_a_layer_stops_nothing(kept: Kept) -> None:
    """As an image that has; and what comes there after all is looked at."""
    index, (gone, *parts) = build_cache()
    kept.lay(index, *parts, rows=[descriptor(index, OCI_INDEX)])
    assert kept.collect().exit_code == 0
    assert kept.all_of(index, *parts) and not kept.has(b"stray")
    told = {(finding.digest, finding.kind) for finding in run_scrub(kept.store).findings}
    assert told == {(digest_of(gone), "missing_blob")}


@pytest.mark.parametrize(
    "body",
    [
        b'{"refers": "sha256:..."}',
        b" [1]",
        json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(),
        b'\xef\xbb\xbf{"a": 1}',
    ],
)
def test_i5_json_of_an_unknown_type_may_reference_something(kept: Kept, body: bytes) -> None:
    index = images.index([(digest_of(body), len(body))]).replace(OCI_MANIFEST.encode(), b"application/vnd.thing")
    kept.lay(body, index, rows=[descriptor(index, OCI_INDEX)])
    report = kept.collect()
    assert (report.exit_code, [finding.kind for finding in report.findings]) == (5, ["unknown_media_type"])
    assert kept.all_of(body, index, b"stray")


def test_i5_a_layer_that_has_descriptors_is_no_leaf(kept: Kept) -> None:
    """It can't be decoded as a manifest by us, and may be by others."""
    body = b'{"layers": [{"digest": "%s"}]}' % digest_of(b"stray").encode()
    index = images.index([(digest_of(body), len(body))]).replace(OCI_MANIFEST.encode(), LAYER.encode())
    kept.lay(body, index, rows=[descriptor(index, OCI_INDEX)])
    assert kept.collect().exit_code == 5
    assert kept.has(b"stray")
