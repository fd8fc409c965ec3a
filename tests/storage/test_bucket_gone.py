"""What went, or was damaged, behind the back of servers that remember it (docs/design/bucket.md#damage).

A client skips what a HEAD says is there: so nothing heals before each server has noticed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.objects import MemoryObjects
from tests.object_faults import FaultyObjects
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import BlobUnknown, Damaged, ManifestBlobUnknown, ManifestUnknown, NotFound
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Store, keys, repository
from zotctl.storage.bucket import blobs as blobs_module
from zotctl.storage.bucket.damage import MARKS_LIST_INTERVAL_S
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.root import Root

BELIEVED = 30.0
"""Half a minute, as the README says."""
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
        store.repository("a").tags()  # what was reserved before an index.json was read, is not remembered
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
    scrubbing = bucket_of(root(servers.server()))
    found = scrubbing.context.objects.head(servers.place)
    scrubbing.damaged.mark(LAYER, found)
    servers.later(1)  # the servers still believe what they have seen
    for store in servers.both:
        with pytest.raises(BlobUnknown, match="damaged"):
            store.repository("a").blob(LAYER)
        with pytest.raises(BlobUnknown, match="damaged"):
            store.repository("a").open_blob(LAYER)
    push_blob(servers.pushed.repository("a"), BODY)
    for store in servers.both:
        servers.see(store)


def test_a_reservation_outlives_the_look(servers: Servers) -> None:
    """A client that asks again pays one request, and no new reservation."""
    written = servers.memory.stored[keys.reservation(LAYER, "a")]
    servers.later(BELIEVED)
    for store in servers.both:
        servers.see(store)
    assert servers.memory.stored[keys.reservation(LAYER, "a")] == written


def _redirecting(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    monkeypatch.setattr(blobs_module, "REDIRECT_MIN_BYTES", 1)
    bucket = bucket_of(root(servers.other))
    bucket.blobs.redirect_lifetime_s = 600
    return lambda: bucket.blobs.redirect("a", LAYER)


def test_no_client_is_sent_to_what_went(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    url = _redirecting(servers, monkeypatch)
    assert url()
    servers.memory.delete(servers.place)
    servers.later(BELIEVED)
    with pytest.raises(NotFound):
        url()


# -- objects of another length ----------------------------------------------------------------------


def shorten(servers: Servers, key: str) -> None:
    stored = servers.memory.stored[key]
    servers.memory.stored[key] = stored._replace(body=stored.body[:-3])


def test_a_short_object_is_404_at_old_and_fresh_servers(servers: Servers) -> None:
    shorten(servers, servers.place)
    servers.later(BELIEVED)
    for store in (*servers.both, servers.server()):
        with pytest.raises(BlobUnknown, match="push it again"):
            store.repository("a").blob(LAYER)
        with pytest.raises(BlobUnknown, match="push it again"):
            store.repository("a").open_blob(LAYER)
    push_blob(servers.other.repository("a"), BODY)
    for store in (*servers.both, servers.server()):
        servers.see(store)
        with store.repository("a").open_blob(LAYER) as reader:
            assert reader.size == len(BODY)


def test_in_a_large_repository_the_manifest_that_was_served_tells(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all manifests are read for one blob."""
    monkeypatch.setattr(repository, "FEW_MANIFESTS", 0)
    shorten(servers, servers.place)
    fresh = servers.server()
    fresh.repository("a").manifest("v1")
    with pytest.raises(BlobUnknown, match="push it again"):
        fresh.repository("a").open_blob(LAYER)
    with pytest.raises(BlobUnknown, match="push it again"):
        fresh.repository("a").blob(LAYER)


def test_a_short_object_that_no_manifest_names_yet_is_hashed_before_it_is_believed(servers: Servers) -> None:
    """A manifest says another length: the blob is read, and marked, so that the client can push it."""
    made = images.image("other", layers=1)
    push_blob(servers.pushed.repository("a"), made.blobs[0])
    push_blob(servers.pushed.repository("a"), made.blobs[1])
    layer = digest_of(made.blobs[1])
    shorten(servers, keys.shared(layer) if servers.dedupe else keys.blob("a", layer))
    fresh = servers.server()
    with pytest.raises(ManifestBlobUnknown, match=layer):
        fresh.repository("a").put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v2"])
    for store in (fresh, servers.server()):
        root(store).protocol.maintain()
        with pytest.raises(BlobUnknown, match="damaged"):
            store.repository("a").blob(layer)
    push_blob(fresh.repository("a"), made.blobs[1])
    fresh.repository("a").put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v2"])


def test_no_client_is_sent_to_a_short_object(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "REDIRECT_MIN_BYTES", 1)
    bucket = bucket_of(root(servers.other))
    bucket.blobs.redirect_lifetime_s = 600
    shorten(servers, servers.place)
    servers.later(BELIEVED)
    with pytest.raises(BlobUnknown, match="push it again"):
        servers.other.repository("a").redirect(LAYER)


@pytest.mark.parametrize("how", ["marked", "gone"])
def test_no_client_is_sent_to_what_is_marked_or_gone(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """404, as to a server that sends the bytes itself: so that it is pushed again."""
    monkeypatch.setattr(blobs_module, "REDIRECT_MIN_BYTES", 1)
    fresh = servers.server()
    bucket = bucket_of(root(fresh))
    bucket.blobs.redirect_lifetime_s = 600
    if how == "marked":
        bucket.damaged.mark(LAYER, servers.memory.head(servers.place))
        bucket.damaged.refresh(now=True)
    else:
        servers.memory.delete(servers.place)
    with pytest.raises(BlobUnknown, match="push it again" if how == "marked" else "no blob"):
        fresh.repository("a").redirect(LAYER)


# -- manifests that are known already ---------------------------------------------------------------


def test_a_manifest_that_went_is_404_though_its_bytes_are_known(servers: Servers) -> None:
    for store in servers.both:
        store.repository("a").manifest("v1")
    servers.memory.delete(keys.blob("a", IMAGE.digest))
    servers.later(BELIEVED)
    for store in servers.both:
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest("v1")
    manifest = check_manifest(IMAGE.manifest, OCI_MANIFEST)
    servers.other.repository("a").put_manifest(manifest, IMAGE.manifest, ["v1"])
    for store in servers.both:
        assert store.repository("a").manifest("v1").body == IMAGE.manifest


def test_a_manifest_that_is_known_costs_one_look_in_half_a_minute(servers: Servers) -> None:
    def asked() -> list[str]:
        faulty = bucket_of(root(servers.other)).context.objects
        assert isinstance(faulty, FaultyObjects)
        faulty.taken()
        servers.other.repository("a").manifest("v1")
        return [made.method for made in faulty.taken()]

    asked()
    assert asked() == ["get"]
    servers.later(BELIEVED)
    assert asked() == ["get", "head"]


def test_i6_a_reservation_begins_after_the_manifests_that_tell_the_length_were_read(servers: Servers) -> None:
    """A fresh server is frozen while it reads them: by then a collector may have taken what it had looked at."""
    frozen: list[str] = []

    def choose(method: str, subject: str) -> str:
        if subject == keys.blob("a", IMAGE.digest) and not frozen:
            frozen.append(method)
            servers.clock.at += 86400
            servers.memory.delete(servers.place)
        return ""

    fresh = bucket_store(FaultyObjects(servers.memory, choose), servers.clock, dedupe=servers.dedupe)  # type: ignore[arg-type]
    with pytest.raises(BlobUnknown):
        fresh.repository("a").blob(LAYER)
    assert frozen


# -- what is marked ---------------------------------------------------------------------------------


def damage(servers: Servers, key: str, digest: Digest, body: bytes) -> None:
    """Other bytes lie there, `scrub` has found them, and all servers have heard of it."""
    servers.clock.at += 5
    servers.memory.put(key, body)
    scrubbing = bucket_of(root(servers.server()))
    scrubbing.damaged.mark(digest, scrubbing.context.objects.head(key))
    for store in servers.both:
        bucket_of(root(store)).damaged.refresh(now=True)


@pytest.mark.parametrize("after", [0.0, BELIEVED])
def test_a_manifest_that_is_marked_is_404_though_its_bytes_are_known(servers: Servers, after: float) -> None:
    for store in servers.both:
        store.repository("a").manifest("v1")
    damage(servers, keys.blob("a", IMAGE.digest), IMAGE.digest, b"?" * len(IMAGE.manifest))
    servers.later(after)
    for store in servers.both:
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest("v1")


def test_a_manifest_that_became_short_is_404_though_its_bytes_are_known(servers: Servers) -> None:
    for store in servers.both:
        store.repository("a").manifest("v1")
    shorten(servers, keys.blob("a", IMAGE.digest))
    servers.later(BELIEVED)
    for store in servers.both:
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest("v1")


def test_no_client_is_sent_to_what_is_marked(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    url = _redirecting(servers, monkeypatch)
    damage(servers, servers.place, LAYER, BODY[:-1] + b"?")
    with pytest.raises(Damaged):
        url()


def test_a_client_that_could_be_sent_nowhere_ends_what_was_remembered(servers: Servers) -> None:
    servers.memory.delete(servers.place)
    servers.see(servers.other)
    with pytest.raises(NotFound):
        bucket_of(root(servers.other)).blobs._locate("a", LAYER)
    with pytest.raises(BlobUnknown):
        servers.other.repository("a").blob(LAYER)


def test_a_push_takes_the_mark_away(servers: Servers) -> None:
    damage(servers, servers.place, LAYER, BODY[:-1] + b"?")
    push_blob(servers.pushed.repository("a"), BODY)
    assert not list(servers.memory.list(f"{keys.DAMAGED}/"))


def test_a_manifest_that_is_pushed_again_takes_the_mark_away(servers: Servers) -> None:
    damage(servers, keys.blob("a", IMAGE.digest), IMAGE.digest, b"?" * len(IMAGE.manifest))
    servers.later(BELIEVED)
    manifest = check_manifest(IMAGE.manifest, OCI_MANIFEST)
    servers.other.repository("a").put_manifest(manifest, IMAGE.manifest, ["v1"])
    assert not list(servers.memory.list(f"{keys.DAMAGED}/"))


def test_what_is_marked_is_not_mounted(servers: Servers) -> None:
    damage(servers, servers.place, LAYER, BODY[:-1] + b"?")
    for store in (*servers.both, servers.server()):
        bucket_of(root(store)).damaged.refresh(now=True)
        assert not store.repository_for_push("b").mount_blob(store.repository("a"), LAYER)
    assert keys.blob("b", LAYER) not in servers.memory.stored


def test_the_length_of_what_was_damaged_is_not_remembered_when_it_is_whole_again(servers: Servers) -> None:
    body = b"no manifest tells how long this is"
    push_blob(servers.pushed.repository("a"), body)
    digest = digest_of(body)
    place = keys.shared(digest) if servers.dedupe else keys.blob("a", digest)
    damage(servers, place, digest, body[:-3])
    with pytest.raises(BlobUnknown):
        servers.other.repository("a").blob(digest)
    push_blob(servers.pushed.repository("a"), body)
    bucket_of(root(servers.other)).damaged.refresh(now=True)
    assert servers.other.repository("a").blob(digest) == len(body)


def test_what_is_reachable_is_read_in_the_pool_without_a_reservation(servers: Servers) -> None:
    servers.memory.delete(keys.reservation(LAYER, "a"))
    with servers.server().repository("a").open_blob(LAYER) as reader:
        assert reader.size == len(BODY)


@pytest.mark.parametrize("now", [False, True])
def test_marks_are_looked_up_twice_a_minute_or_now(servers: Servers, now: bool) -> None:
    bad = bucket_of(root(servers.other)).damaged
    bad.refresh(now=True)
    scrubbing = bucket_of(root(servers.server()))
    scrubbing.damaged.mark(LAYER, scrubbing.context.objects.head(servers.place))
    servers.clock.at += 0 if now else MARKS_LIST_INTERVAL_S
    bad.refresh(now=now)
    assert LAYER in bucket_of(root(servers.other)).context.damaged


def test_a_mark_that_another_process_has_made_meanwhile_is_not_swept(servers: Servers) -> None:
    """A server marks a blob whose length a manifest disputes, beside a scrub that listed all marks when it began."""
    scrubbing = servers.server()
    assert root(scrubbing).maintenance.damaged() == set()
    bucket = bucket_of(root(servers.other))
    bucket.damaged.mark(LAYER, bucket.context.objects.head(servers.place))
    root(scrubbing).maintenance.sweep(0)
    assert list(bucket.damaged.marks()) == [(LAYER, servers.place)]
    servers.clock.at += 5
    servers.memory.put(servers.place, BODY)
    root(scrubbing).maintenance.sweep(0)
    assert list(bucket.damaged.marks()) == []


def test_what_took_the_place_of_what_was_read_is_neither_marked_nor_healed(servers: Servers) -> None:
    """A push has brought it since."""
    maintenance, key = root(servers.other).maintenance, keys.blob("a", LAYER)
    held = list[HeldFile]()
    for _ in range(2):
        servers.clock.at += 5
        servers.memory.put(servers.place, BODY)
        with root(servers.server()).driver.open(key) as reader:
            held.append(HeldFile(reader))
    assert not maintenance.mark("a", LAYER, held[0])
    assert maintenance.heal("a", LAYER, held[0], [b"is never read"]) == []
    assert maintenance.mark("a", LAYER, held[1])
    assert not maintenance.clear("a", LAYER, held[0])
    assert maintenance.clear("a", LAYER, held[1])


def test_a_mark_is_about_the_bytes_that_were_written_once(servers: Servers) -> None:
    """As many others, written there by another process since, are no longer meant."""
    damage(servers, servers.place, LAYER, BODY[:-1] + b"?")
    servers.clock.at += 5
    servers.memory.put(servers.place, BODY)
    for store in servers.both:
        bucket_of(root(store)).damaged.refresh(now=True)
        servers.see(store)


def test_who_has_marked_something_knows_it_at_once(servers: Servers) -> None:
    bucket = bucket_of(root(servers.other))
    servers.see(servers.other)
    bucket.damaged.mark(LAYER, bucket.context.objects.head(servers.place))
    with pytest.raises(BlobUnknown, match="damaged"):
        servers.other.repository("a").blob(LAYER)


def test_the_length_that_a_manifest_contradicts_is_not_remembered(servers: Servers) -> None:
    body = b"no manifest tells how long this is"
    push_blob(servers.pushed.repository("a"), body)
    digest = digest_of(body)
    shorten(servers, keys.shared(digest) if servers.dedupe else keys.blob("a", digest))
    other = servers.other.repository("a")
    other.tags()
    assert other.blob(digest) == len(body) - 3
    assert not root(servers.other).protocol.blobs.distrust("a", digest)
    bucket_of(root(servers.pushed)).damaged.refresh(now=True)
    push_blob(servers.pushed.repository("a"), body)
    bucket_of(root(servers.other)).damaged.refresh(now=True)
    assert other.blob(digest) == len(body)
