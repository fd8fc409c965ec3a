"""What is known of one repository, step by step: sizes, what is healed or gone, what stops a deletion."""

from __future__ import annotations

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn, Recorder
from tests.stores import drop_rows, push_blob, push_image, push_index, store_over
from zotctl.errors import IoFailed, NotFound, Referenced, Unavailable
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.graph import RepositoryGraph
from zotctl.storage.local.protocol import LocalTransaction, local_of

IMAGE = images.image("x")
LAYER = IMAGE.blobs[1]
DIGEST, MANIFEST = digest_of(LAYER), keys.blob("a", IMAGE.digest)


@pytest.fixture
def memory() -> MemoryDriver:
    return MemoryDriver()


@pytest.fixture
def store(memory: MemoryDriver) -> Store:
    store = store_over(memory)
    push_image(store, "a", "v1", seed="x")
    return store


def graph_of(store: Store) -> RepositoryGraph:
    return RepositoryGraph(store.roots[0].protocol, "a")


def learn(graph: RepositoryGraph, store: Store) -> bool:
    """Is the layer needed?"""
    with graph.at(store.roots[0].protocol.indexes.read("a").index) as found:
        return DIGEST in found.reachable()


def test_i2_a_length_is_known_by_hashing_then_by_the_manifests(store: Store) -> None:
    graph = graph_of(store)
    assert graph.agrees(DIGEST, len(LAYER)) is None
    learn(graph, store)
    assert (graph.agrees(DIGEST, len(LAYER)), graph.agrees(DIGEST, len(LAYER) - 1)) == (True, False)
    graph.note_verified(DIGEST, 5)
    assert (graph.agrees(DIGEST, 5), graph.agrees(DIGEST, len(LAYER))) == (True, False)


def test_what_a_served_manifest_says_is_known_at_once(store: Store) -> None:
    graph = graph_of(store)
    graph.note_served(IMAGE.digest, IMAGE.manifest)
    assert (graph.agrees(DIGEST, len(LAYER)), graph.agrees(DIGEST, 1)) == (True, False)


def test_i5_what_is_healed_is_read_again_though_no_index_has_changed(memory: MemoryDriver, store: Store) -> None:
    memory.names[MANIFEST].data[3] ^= 1
    graph = graph_of(store)
    assert not learn(graph, store)
    memory.unlink(MANIFEST)
    with memory.create(MANIFEST) as writer:
        writer.write([IMAGE.manifest])
    assert learn(graph, store)


def test_i5_what_is_marked_and_healed_is_read_again(memory: MemoryDriver, store: Store) -> None:
    """A push of the blob takes the mark from its name, and leaves index.json as it is."""
    with memory.open(MANIFEST) as reader:
        assert store.roots[0].maintenance.mark("a", IMAGE.digest, HeldFile(reader))
    graph = graph_of(store)
    assert [learn(graph, store) for _ in range(2)] == [False, False]
    push_blob(store.repository_for_push("a"), IMAGE.manifest)
    assert learn(graph, store)


def test_i5_what_a_healed_index_lists_is_followed(memory: MemoryDriver, store: Store) -> None:
    index = push_index(store, "a", "all", children=[IMAGE.digest])
    drop_rows(store, "a", IMAGE.digest)
    key = keys.blob("a", index)
    body = bytes(memory.names[key].data)
    memory.names[key].data[3] ^= 1
    graph = graph_of(store)
    assert not learn(graph, store)
    memory.unlink(key)
    with memory.create(key) as writer:
        writer.write([body])
    assert learn(graph, store)


def test_i5_what_can_not_be_read_for_a_moment_is_read_again(memory: MemoryDriver, store: Store) -> None:
    failing = FailOn(memory, "open", 1, IoFailed("broken"), lambda key: key == MANIFEST)
    other = store_over(failing)
    graph = graph_of(other)
    assert not learn(graph, other)
    assert learn(graph, other)


def test_what_lost_its_row_is_needed_no_more(store: Store) -> None:
    graph = graph_of(store)
    assert learn(graph, store)
    store.repository_for_push("a").delete_manifest(IMAGE.digest)
    assert not learn(graph, store)


def test_i5_nothing_is_deleted_beside_a_manifest_that_can_not_be_read(memory: MemoryDriver, store: Store) -> None:
    """For a moment: 503. For good, and it shall not go itself: 405."""
    other = push_image(store, "a", "other", seed="other")
    index = store.roots[0].protocol.indexes.read("a").index
    graph = graph_of(store_over(FailOn(memory, "open", 1, IoFailed("broken"), lambda key: key == MANIFEST)))
    learn_with(graph, store)
    with pytest.raises(Unavailable):
        graph.require_known(index)
    graph.require_known(index, but=IMAGE.digest)
    memory.unlink(MANIFEST)
    graph = graph_of(store)
    learn(graph, store)
    graph.require_known(index)
    graph.require_known(index, but=IMAGE.digest, damaged=True)
    with pytest.raises(Referenced, match=IMAGE.digest):
        graph.require_known(index, but=other, damaged=True)


def learn_with(graph: RepositoryGraph, store: Store) -> None:
    with graph.at(store.roots[0].protocol.indexes.read("a").index):
        pass


def test_i3_a_manifest_is_flushed_before_it_is_seen_with_commit_and_without(memory: MemoryDriver) -> None:
    driver = Recorder(memory)
    local = local_of(store_over(driver).roots[0])
    driver.calls.clear()
    staged = local.stage(IMAGE.manifest)
    assert [call.method for call in driver.calls if call.key == staged and call.method in ("write", "sync")][
        -1
    ] == "sync"


def test_i5_a_manifest_that_was_published_and_is_gone_is_not_there(store: Store) -> None:
    """In an earlier round of its commit: a collector has been faster since."""
    local = local_of(store.roots[0])
    digest = push_blob(store.repository_for_push("a"), b"manifest")
    store.repository_for_push("a").delete_blob(digest)
    with local.context.locks.hold("a") as held, pytest.raises(NotFound):
        LocalTransaction(local, held).publish_manifest(digest, keys.tmp("gone"))
