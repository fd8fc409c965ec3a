"""A client deletes, and a tool writes late: what is asked under the lock, what goes, what is taken in, and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Meanwhile, Recorder
from tests.jobs.collecting import Place
from tests.jobs.layouts import blob, store_of
from tests.stores import drop_rows, push_blob, push_image, push_index, store_over
from zotctl.errors import IoFailed, ManifestUnknown, Referenced, StorageError, Unavailable
from zotctl.oci.digest import digest_of
from zotctl.storage import keys

IMAGE, THEIRS = images.image(), images.image("theirs")
STRAY = digest_of(b"stray")


@pytest.fixture
def place() -> Place:
    made = Place()
    push_image(made.store, "a", "other", seed="other")
    return made


def test_i5_what_a_push_has_referenced_meanwhile_is_not_deleted(place: Place) -> None:
    layer = place.strays_of(IMAGE)[1]
    driver = Meanwhile(place.driver, "lock", lambda: place.put(IMAGE, "v1"), lambda key: key == keys.LOCK)
    with pytest.raises(Referenced):
        place.open(driver).repository("a").delete_blob(layer)
    assert driver.done and place.lies(layer)


def test_i5_a_manifest_with_a_row_is_no_blob_to_be_deleted(place: Place) -> None:
    with pytest.raises(Referenced, match="a row of index"):
        place.store.repository("a").delete_blob(images.image("other").digest)


def test_i7_what_was_trashed_is_deleted_for_good(place: Place) -> None:
    """Until then a read would have brought it back."""
    place.stray()
    place.wait(2)
    place.collect()
    place.store.repository("a").delete_blob(STRAY)
    assert all(keys.DELETED_PREFIX in key for key in place.in_trash())


def test_with_commit_it_is_gone_from_the_device_when_it_is_told() -> None:
    driver = Recorder(MemoryDriver())
    store = store_over(driver, commit=True)
    push_image(store, "a", "v1")
    push_blob(store.repository_for_push("a"), b"stray")
    driver.calls.clear()
    store.repository("a").delete_blob(STRAY)
    lines = driver.lines()
    gone = next(at for at, line in enumerate(lines) if line.startswith(f"rename {keys.blob('a', STRAY)}"))
    assert f"sync_dir {keys.blobs_of('a', 'sha256')}" in lines[gone:]


@pytest.mark.parametrize("how", ["push", "close"])
def test_i4_what_a_tool_wrote_into_the_old_index_is_taken_in(tmp_path: Path, how: str) -> None:
    """With the next commit, or when the process ends, whichever comes first."""
    store = store_of(tmp_path)
    push_image(store, "a", "v1")
    for body in (*THEIRS.blobs, THEIRS.manifest):
        blob(tmp_path, "a", body).write_bytes(body)
    with (tmp_path / "a/index.json").open("r+b") as old:
        document = json.loads(old.read())
        push_image(store, "a", "v2", seed="v2")
        document["manifests"].append(images.row(THEIRS, "theirs"))
        old.seek(0)
        old.write(json.dumps(document).encode())
    if how == "push":
        push_image(store, "a", "v3", seed="v3")
    else:
        store.close()
    assert "theirs" in store_of(tmp_path).repository("a").tags()


def test_what_a_deleted_subject_has_needed_is_free(place: Place) -> None:
    """No row says that it went, and what it said is not remembered of it."""
    for body in (*IMAGE.blobs, IMAGE.manifest):
        push_blob(place.store.repository_for_push("a"), body)
    push_image(place.store, "a", "about", seed="about", subject=IMAGE.digest)
    layer = digest_of(IMAGE.blobs[1])
    with pytest.raises(Referenced):
        place.store.repository("a").delete_blob(layer)
    place.store.repository("a").delete_manifest(str(IMAGE.digest))
    place.store.repository("a").delete_blob(layer)


def test_what_a_deleted_subject_has_listed_is_served_no_more(place: Place) -> None:
    """It has no row, so nothing else leads to it."""
    child = push_image(place.store, "a", "child")
    listing = push_index(place.store, "a", "listing", children=[child])
    push_image(place.store, "a", "about", seed="about", subject=listing)
    drop_rows(place.store, "a", child, listing)
    assert place.store.repository("a").manifest(child).digest == child
    place.store.repository("a").delete_manifest(listing)
    with pytest.raises(ManifestUnknown):
        place.store.repository("a").manifest(child)


@pytest.mark.parametrize("error", [IoFailed("broken"), Unavailable("later")], ids=lambda error: type(error).__name__)
def test_the_tags_that_went_are_told_whatever_happens_to_the_bytes(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: StorageError
) -> None:
    """They are out of index.json by then; and the client hears that its manifest lies there yet."""
    told: list[object] = []

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(place.store.roots[0].protocol, "delete", fails)
    with pytest.raises(type(error)):
        place.store.repository("a").delete_manifest(images.image("other").digest, gone=told.append)
    assert told == [{"other": images.image("other").digest}] and place.store.repository("a").tags() == []


@pytest.mark.parametrize("other", ["whole", "damaged"])
@pytest.mark.parametrize("there", [True, False])
def test_a_manifest_is_deleted_whatever_becomes_of_its_bytes(place: Place, there: bool, other: str) -> None:
    """They stay while it isn't known what another needs, and may be gone already."""
    digest = push_image(place.store, "a", "v1")
    if other == "damaged":
        place.driver.names[keys.blob("a", images.image("other").digest)].data[3] ^= 1
    if not there:
        place.driver.unlink(keys.blob("a", digest))
    store = place.open()
    store.repository("a").delete_manifest(digest)
    assert store.repository("a").tags() == ["other"]
    assert place.lies(digest) == (there and other == "damaged")


def test_i5_the_bytes_of_a_child_stay_for_an_index_that_came_as_a_subject(place: Place) -> None:
    """As a blob, which no index.json tells: it was looked for in vain before."""
    child = push_image(place.store, "a", "v1")
    body = images.index([(child, len(IMAGE.manifest))])
    push_image(place.store, "a", "about", seed="about", subject=digest_of(body))
    assert place.store.repository("a").referrers(digest_of(body))
    push_blob(place.open().repository_for_push("a"), body)
    place.store.repository("a").delete_manifest(child)
    assert place.lies(child)


def test_the_tags_that_went_are_those_of_the_last_try(place: Place) -> None:
    """Another program moves one while the new index.json is written."""
    digest = push_image(place.store, "a", "v1", "v2")
    told: list[object] = []

    def moves() -> None:
        document = json.loads(place.read(keys.index("a")))
        document["manifests"] = [
            row for row in document["manifests"] if "v2" not in row.get("annotations", {}).values()
        ]
        place.write(keys.index("a"), json.dumps(document).encode())

    driver = Meanwhile(place.driver, "create", moves, lambda key: key.startswith(f"a/{keys.INDEX_TEMP_PREFIX}"))
    place.open(driver).repository("a").delete_manifest(digest, gone=told.append)
    assert driver.done and told == [{"v1": digest}]
