"""What went, or was damaged, behind the back of servers that remember it (zotctl.storage.s3.promises, bad).

A client skips what a HEAD says is there: so nothing heals before each server has noticed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import images
from tests.clocks import Hand
from tests.object_faults import FaultyObjects
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import BlobUnknown, ManifestBlobUnknown, NotFound
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.memory_objects import MemoryObjects
from zotctl.storage.root import Root
from zotctl.storage.s3.bad import LOOK_EVERY
from zotctl.storage.s3.promises import BELIEVED
from zotctl.storage.s3.redirects import Redirects

IMAGE = images.image("x", layers=2)
BODY = IMAGE.blobs[-1]
LAYER = digest_of(BODY)


class Servers:
    """Two on one bucket, and what happens to its disk. Both have seen the layer, and remember it."""

    def __init__(self, dedupe: bool) -> None:
        self.clock = Hand()
        self.memory = MemoryObjects(self.clock.now)
        self.dedupe = dedupe
        self.place = keys.shared(LAYER) if dedupe else keys.blob("a", LAYER)
        self.pushed, self.other = self.server(), self.server()
        push_image(self.pushed, "a", "v1", seed="x")
        self.see(self.other)

    def server(self) -> Store:
        return bucket_store(FaultyObjects(self.memory, lambda *_: ""), self.clock, dedupe=self.dedupe)  # type: ignore[arg-type]

    def see(self, store: Store) -> None:
        assert store.repository("a").blob(LAYER) == len(BODY)

    @property
    def both(self) -> tuple[Store, Store]:
        return self.pushed, self.other

    def later(self, seconds: float) -> None:
        self.clock.at += seconds
        for store in self.both:
            root(store).protocol.maintain()


def root(store: Store) -> Root:
    return store.roots[0]


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def servers(request: pytest.FixtureRequest) -> Servers:
    return Servers(request.param)


def test_what_went_is_404_at_every_server_within_half_a_minute(servers: Servers) -> None:
    servers.memory.delete(servers.place)
    servers.later(BELIEVED)
    for store in (*servers.both, servers.server()):
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(LAYER)
        with pytest.raises(BlobUnknown):
            store.repository("a").open_blob(LAYER)
    push_blob(servers.pushed.repository("a"), BODY)
    for store in servers.both:
        servers.see(store)


def test_a_get_that_finds_nothing_ends_what_was_remembered(servers: Servers) -> None:
    servers.memory.delete(servers.place)
    for store in servers.both:
        servers.see(store)  # as long as nobody has looked
        with pytest.raises(BlobUnknown):
            store.repository("a").open_blob(LAYER)
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(LAYER)


@pytest.mark.parametrize("after", [0.0, 1.0, BELIEVED, 200.0])
def test_a_manifest_is_accepted_on_what_is_there(servers: Servers, after: float) -> None:
    """By the very server that has taken the layer."""
    servers.memory.delete(servers.place)
    servers.later(after)
    body = images.image("x", layers=2, annotations={"another": "one"}).manifest
    for store in servers.both:
        with pytest.raises(ManifestBlobUnknown, match=LAYER):
            store.repository("a").put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v2"])
    push_blob(servers.other.repository("a"), BODY)
    for store in servers.both:
        store.repository("a").put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v2"])


def test_a_mark_is_about_what_is_there_and_not_about_what_is_remembered(servers: Servers) -> None:
    """The object was replaced after the servers had seen it; then it was found to be damaged."""
    servers.clock.at += 5
    servers.memory.put(servers.place, BODY[:-1] + b"?")
    scrubbing = root(servers.server()).bucket
    found = scrubbing.site.objects.head(servers.place)
    scrubbing.bad.mark(LAYER, found)
    servers.later(LOOK_EVERY)
    for store in servers.both:
        with pytest.raises(BlobUnknown, match="damaged"):
            store.repository("a").blob(LAYER)
        with pytest.raises(BlobUnknown, match="damaged"):
            store.repository("a").open_blob(LAYER)
    push_blob(servers.pushed.repository("a"), BODY)
    for store in servers.both:
        servers.see(store)


def test_a_promise_outlives_the_look(servers: Servers) -> None:
    """A client that asks again pays one request, and no new hold."""
    written = servers.memory.stored[keys.hold(LAYER, "a")]
    servers.later(BELIEVED)
    for store in servers.both:
        servers.see(store)
    assert servers.memory.stored[keys.hold(LAYER, "a")] == written


def _redirecting(servers: Servers) -> Callable[[], str | None]:
    bucket = root(servers.other).bucket
    redirects = Redirects(bucket.site, bucket.blobs, bucket.promises, 600)
    return lambda: redirects.url("a", LAYER)


def test_no_client_is_sent_to_what_went(servers: Servers) -> None:
    url = _redirecting(servers)
    url()
    servers.memory.delete(servers.place)
    servers.later(BELIEVED)
    with pytest.raises(NotFound):
        url()
