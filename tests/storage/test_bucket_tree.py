"""A bucket as a tree to read: the reading half of the driver suite, and repositories that look self-contained."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests import images
from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.conformance.driver_suite import DriverSuite, get, names
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import NotFound, ReadOnlyStorage
from zotctl.oci.digest import digest_of
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.driver import Buffer, Driver
from zotctl.storage.wrappers import WrappedDriver

IMAGE, OTHER = images.image("x"), images.image("y")
LAYER = digest_of(IMAGE.blobs[-1])


class Written(WrappedDriver):
    """For tests that make what they read: files become objects, directories come of themselves."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(bucket_store(objects).roots[0].driver)
        self._objects = objects

    def create(self, key: str) -> Writing:  # type: ignore[override]
        return Writing(self._objects, key)

    def mkdir(self, key: str) -> None:
        pass


class Writing:
    def __init__(self, objects: Objects, key: str) -> None:
        self._objects, self._key = objects, key

    def write(self, buffers: Sequence[Buffer]) -> None:
        self._objects.put(self._key, b"".join(bytes(buffer) for buffer in buffers))

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@pytest.fixture(params=["memory", "versitygw"])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "memory":
        return MemoryObjects()
    found: Bucket = request.getfixturevalue("bucket")
    return found.client()


class TestReading:
    @pytest.fixture
    def driver(self, objects: Objects) -> Driver:
        return Written(objects)  # type: ignore[return-value]

    test_the_root_is_a_directory = DriverSuite.test_the_root_is_a_directory
    test_i8_bytes_come_back_identical = DriverSuite.test_i8_bytes_come_back_identical
    test_fewer_bytes_only_at_the_end = DriverSuite.test_reading_gives_fewer_bytes_only_at_the_end
    test_scan_lists_each_name_with_its_kind = DriverSuite.test_scan_lists_each_name_with_its_kind
    test_scan_of_a_file_is_not_found = DriverSuite.test_scan_of_a_file_is_not_found
    test_reading_into_a_buffer = DriverSuite.test_reading_into_a_buffer_fills_it_up_to_the_end
    test_stat_tells_files_from_directories = DriverSuite.test_stat_tells_files_from_directories

    def test_what_is_not_there_is_not_found(self, driver: Driver) -> None:
        for key in ("none", "none/below", "a/blobs", "a/blobs/sha256", keys.blob("a", LAYER)):
            for call in (driver.stat, driver.open, driver.scan):
                with pytest.raises(NotFound):
                    call(key)

    def test_nothing_can_be_changed(self, objects: Objects) -> None:
        tree = bucket_store(objects).roots[0].driver
        for call in (tree.create, tree.append, tree.unlink, tree.mkdir, tree.rmdir):
            with pytest.raises(ReadOnlyStorage):
                call("key")


@pytest.mark.parametrize("dedupe", [False, True])
def test_each_repository_is_self_contained(objects: Objects, dedupe: bool) -> None:
    store = bucket_store(objects, dedupe=dedupe)
    push_image(store, "a", "v1", seed="x")
    push_image(store, "b/c", "v1", seed="x")
    push_image(store, "b/c", "v2", seed="y")
    tree = bucket_store(objects, dedupe=dedupe).roots[0].driver
    assert names(tree, "") == {"a", "b"}
    assert names(tree, "a") == {"oci-layout", "index.json", "blobs"}
    assert names(tree, "a/blobs") == {"sha256"}
    bodies = {digest_of(body).encoded: body for body in (*IMAGE.blobs, IMAGE.manifest)}
    assert names(tree, "a/blobs/sha256") == bodies.keys()
    for entry in tree.scan("a/blobs/sha256"):
        key = f"a/blobs/sha256/{entry.name}"
        assert entry.info is not None
        assert (entry.info.ino, entry.info.size) == (tree.stat(key).ino, len(bodies[entry.name]))
        assert get(tree, key) == bodies[entry.name]
    one, two = tree.stat(keys.blob("a", LAYER)), tree.stat(keys.blob("b/c", LAYER))
    assert (one.ino == two.ino) is dedupe
    listed = {entry.name: entry.info for entry in tree.scan("b/c/blobs/sha256")}[LAYER.encoded]
    assert listed is not None
    assert listed.nlink == (3 if dedupe else 1)
    with pytest.raises(NotFound):
        tree.stat(keys.blob("a", digest_of(OTHER.blobs[-1])))
    with pytest.raises(NotFound):
        tree.open(keys.blob("a", digest_of(OTHER.blobs[-1])))


def test_what_is_reachable_is_there_without_reservations(objects: Objects) -> None:
    """The hidden directory was wiped: nothing in it is truth."""
    store = bucket_store(objects, dedupe=True)
    push_image(store, "a", "v1", seed="x")
    push_blob(store.repository("a"), b"reserved only")
    for found in list(objects.list(f"{keys.HIDDEN}/")):
        objects.delete(found.key)
    tree = bucket_store(objects, dedupe=True).roots[0].driver
    assert names(tree, "a/blobs/sha256") == {digest_of(body).encoded for body in (*IMAGE.blobs, IMAGE.manifest)}
    assert get(tree, keys.blob("a", LAYER)) == IMAGE.blobs[-1]


@pytest.mark.parametrize("dedupe", [False, True])
def test_an_empty_repository_has_its_blobs(objects: Objects, dedupe: bool) -> None:
    store = bucket_store(objects, dedupe=dedupe)
    push_blob(store.repository_for_push("a"), b"x")
    objects.delete(keys.shared(digest_of(b"x")) if dedupe else keys.blob("a", digest_of(b"x")))
    tree = bucket_store(objects, dedupe=dedupe).roots[0].driver
    assert names(tree, "a") == {"oci-layout", "index.json", "blobs"}
    assert tree.stat("a/blobs").is_dir
    assert names(tree, "a/blobs") == set()


def test_the_pool_goes_before_a_stub(objects: Objects) -> None:
    push_image(bucket_store(objects, dedupe=True), "a", "v1", seed="x")
    objects.put(keys.blob("a", LAYER), b"")
    for dedupe in (False, True):
        tree = bucket_store(objects, dedupe=dedupe).roots[0].driver
        listed = {entry.name: entry.info for entry in tree.scan("a/blobs/sha256")}[LAYER.encoded]
        assert listed is not None
        assert listed.size == tree.stat(keys.blob("a", LAYER)).size == len(IMAGE.blobs[-1])
        assert get(tree, keys.blob("a", LAYER)) == IMAGE.blobs[-1]
        repository = bucket_store(objects, dedupe=dedupe).repository("a")
        assert repository.blob(LAYER) == len(IMAGE.blobs[-1])
        with repository.open_blob(LAYER) as reader:
            assert reader.read_at(0, reader.size) == IMAGE.blobs[-1]


def test_the_empty_object_of_a_folder_is_no_stub(objects: Objects) -> None:
    """As consoles make it ("create folder"). A stub would stop collection in the whole bucket."""
    store = bucket_store(objects)
    push_image(store, "a", "v1", seed="x")
    objects.put("a/blobs/sha256/", b"")
    assert not bucket_of(bucket_store(objects).roots[0]).stubs.remain()


def test_stubs_are_looked_for_anew_before_anything_is_deleted(objects: Objects) -> None:
    """A page that says what becomes of content may say what was true a moment ago."""
    push_image(bucket_store(objects), "a", "v1", seed="x")
    stubs = bucket_of(bucket_store(objects).roots[0]).stubs
    assert not stubs.remain(lately=True)
    objects.put(keys.blob("a", LAYER), b"")
    assert not stubs.remain(lately=True)
    assert stubs.remain()


@pytest.mark.parametrize("dedupe", [False, True])
def test_a_stub_is_read_where_its_content_is(dedupe: bool) -> None:
    """Asked for by its name, of a folder that nobody has listed."""
    objects = MemoryObjects()
    push_image(bucket_store(objects, dedupe=True), "a", "v1", seed="x")
    objects.put(keys.blob("a", LAYER), b"")
    assert get(bucket_store(objects, dedupe=dedupe).roots[0].driver, keys.blob("a", LAYER)) == IMAGE.blobs[-1]


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("dedupe", [False, True])
def test_of_two_copies_that_is_listed_which_is_read(dedupe: bool, listed: bool) -> None:
    """By its inode number jobs compare what they have listed with what they open."""
    objects, own = MemoryObjects(), bytes(len(IMAGE.blobs[-1]))
    push_image(bucket_store(objects, dedupe=True), "a", "v1", seed="x")
    objects.put(keys.blob("a", LAYER), own)
    tree = bucket_store(objects, dedupe=dedupe).roots[0].driver
    if listed:
        found = {entry.name: entry.info for entry in tree.scan("a/blobs/sha256")}[LAYER.encoded]
        assert found is not None and found.ino == tree.stat(keys.blob("a", LAYER)).ino
    assert get(tree, keys.blob("a", LAYER)) == (IMAGE.blobs[-1] if dedupe else own)
