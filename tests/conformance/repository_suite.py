"""What every store must do, whatever driver is below it. A driver is done when it passes this unchanged.

A class that inherits gives `medium()`; tests are named after the invariant they hold (I1 to I15).
"""

from __future__ import annotations

import json

import pytest

from tests import images
from tests.conformance.media import Medium, OnDriver
from tests.stores import drop_rows, history_of, manifest_body, push_blob, push_image, push_index
from zotctl.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    Referenced,
    TagsCollide,
    UploadConflict,
)
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Store, keys
from zotctl.storage.driver import Driver, read
from zotctl.storage.index import Index

EMPTY = digest_of(b"")


class RepositorySuite:
    @pytest.fixture
    def medium(self) -> Medium:
        raise NotImplementedError

    @pytest.fixture
    def store(self, medium: Medium) -> Store:
        return medium.store()

    # -- who did it -----------------------------------------------------------------------------

    def test_the_history_says_who_pushed_untagged_and_deleted(self, medium: Medium, store: Store) -> None:
        image, other = images.image("1"), images.image("2")
        for each, user in ((image, "alice"), (other, "bob")):
            repository = store.repository_for_push("a")
            for body in each.blobs:
                push_blob(repository, body)
            manifest = check_manifest(each.manifest, OCI_MANIFEST)
            before = repository.put_manifest(manifest, each.manifest, ["v1", user], user=user)
            assert before == {"v1": image.digest if user == "bob" else None, user: None}
        gone: list[dict[str, str | None]] = []
        store.repository("a").delete_manifest("v1", user="carol", gone=gone.append)
        store.repository("a").delete_manifest(image.digest, user="dave", gone=gone.append)
        store.repository("a").delete_manifest("bob", gone=gone.append)
        assert gone == [{"v1": other.digest}, {"alice": image.digest}, {"bob": other.digest}]
        store.close()
        told = [
            (event["a"], event["d"], event.get("u"), event.get("tags")) for event in history_of(medium.store(), "a")
        ]
        assert told == [
            ("push", image.digest, "alice", {"v1": None, "alice": None}),
            ("push", other.digest, "bob", {"v1": image.digest, "bob": None}),
            ("untag", other.digest, "carol", {"v1": other.digest}),
            ("untag", image.digest, "dave", {"alice": image.digest}),
            ("delete", image.digest, "dave", None),
            ("untag", other.digest, None, {"bob": other.digest}),
        ]

    # -- blobs ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_i8_a_blob_comes_back(self, store: Store, algorithm: str) -> None:
        body = bytes(range(256)) * 999
        digest = push_blob(store.repository_for_push("a/b"), body, algorithm)
        repository = store.repository("a/b")
        assert repository.blob(digest) == len(body)
        with repository.open_blob(digest) as reader:
            assert reader.read_at(0, len(body)) == body
            assert reader.read_at(100, 5) == body[100:105]

    def test_the_empty_blob(self, store: Store) -> None:
        assert push_blob(store.repository_for_push("a"), b"") == EMPTY
        assert store.repository("a").blob(EMPTY) == 0

    def test_a_first_blob_makes_a_layout(self, store: Store, medium: Medium) -> None:
        push_blob(store.repository_for_push("a/b"), b"x")
        assert json.loads(read(medium.tree, "a/b/oci-layout", 99)) == {"imageLayoutVersion": "1.0.0"}
        assert json.loads(read(medium.tree, "a/b/index.json", 999))["manifests"] == []
        assert store.repositories() == ["a/b"]

    def test_an_upload_alone_makes_nothing(self, store: Store) -> None:
        store.repository_for_push("a").start_upload()
        with pytest.raises(NameUnknown):
            store.repository("a").tags()
        assert store.repositories() == []

    def test_an_unknown_blob(self, store: Store) -> None:
        push_blob(store.repository_for_push("a"), b"x")
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(digest_of(b"y"))

    def test_i7_a_digest_alone_gives_no_access(self, store: Store) -> None:
        digest = push_blob(store.repository_for_push("secret"), b"x")
        push_blob(store.repository_for_push("public"), b"other")
        with pytest.raises(BlobUnknown):
            store.repository("public").blob(digest)

    def test_mount(self, store: Store, medium: Medium) -> None:
        digest = push_blob(store.repository_for_push("a"), b"x")
        target = store.repository_for_push("b")
        if not medium.mounts:
            assert not target.mount_blob(store.repository("a"), digest), "202: the client sends it"
            return
        assert target.mount_blob(store.repository("a"), digest)
        assert store.repository("b").blob(digest) == 1
        assert target.mount_blob(store.repository("a"), digest)
        assert not target.mount_blob(store.repository("a"), digest_of(b"nobody has it"))

    def test_i7_deleting_from_one_repository_leaves_the_other(self, store: Store) -> None:
        digest = push_blob(store.repository_for_push("a"), b"x" * 100)
        push_blob(store.repository_for_push("b"), b"x" * 100)
        store.repository_for_push("a").delete_blob(digest)
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(digest)
        assert store.repository("b").blob(digest) == 100

    def test_deleting_twice(self, store: Store) -> None:
        digest = push_blob(store.repository_for_push("a"), b"x")
        store.repository_for_push("a").delete_blob(digest)
        with pytest.raises(BlobUnknown):
            store.repository_for_push("a").delete_blob(digest)

    def test_deleted_pushed_again_and_deleted_again(self, store: Store) -> None:
        push_blob(store.repository_for_push("b"), b"x")
        for _ in range(2):
            digest = push_blob(store.repository_for_push("a"), b"x")
            store.repository_for_push("a").delete_blob(digest)
            with pytest.raises(BlobUnknown):
                store.repository("a").blob(digest)

    def test_i5_a_used_blob_is_not_deleted(self, store: Store) -> None:
        push_image(store, "a", "v1")
        for blob in images.image().blobs:
            with pytest.raises(Referenced):
                store.repository_for_push("a").delete_blob(digest_of(blob))

    def test_deduplication_links_one_content(self, store: Store, medium: Medium) -> None:
        digest = push_blob(store.repository_for_push("a"), b"x" * 5000)
        push_blob(store.repository_for_push("b"), b"x" * 5000)
        assert len({medium.identity(name, digest) for name in ("a", "b")}) == (1 if medium.links else 2)

    # -- uploads --------------------------------------------------------------------------------

    def test_an_upload_in_pieces_and_another_process(self, store: Store, medium: Medium) -> None:
        repository = store.repository_for_push("a")
        upload_id = repository.start_upload()
        with repository.resume_upload(upload_id) as upload:
            upload.write([b"one ", b"two "])
        other = medium.store().repository_for_push("a")
        assert other.upload_offset(upload_id) == 8
        with other.resume_upload(upload_id) as upload:
            assert upload.offset == 8
            upload.write([b"three"])
            upload.finish(digest_of(b"one two three"))
        assert store.repository("a").blob(digest_of(b"one two three")) == 13
        with pytest.raises(BlobUploadUnknown):
            repository.upload_offset(upload_id)

    def test_a_second_writer_is_refused(self, store: Store) -> None:
        repository = store.repository_for_push("a")
        upload_id = repository.start_upload()
        with repository.resume_upload(upload_id), pytest.raises(UploadConflict):
            repository.resume_upload(upload_id)

    def test_i2_wrong_content_is_never_visible(self, store: Store, medium: Medium) -> None:
        repository = store.repository_for_push("a")
        upload_id = repository.start_upload()
        with repository.resume_upload(upload_id) as upload:
            upload.write([b"something"])
            with pytest.raises(DigestInvalid):
                upload.finish(digest_of(b"else"))
        with pytest.raises(BlobUploadUnknown):
            repository.upload_offset(upload_id)
        assert names(medium.tree, keys.UPLOADS) == []

    def test_a_digest_of_another_algorithm_than_the_session(self, store: Store) -> None:
        repository = store.repository_for_push("a")
        with repository.resume_upload(repository.start_upload("sha256")) as upload:
            upload.write([b"body"])
            upload.finish(digest_of(b"body", "sha512"))
        assert store.repository("a").blob(digest_of(b"body", "sha512")) == 4

    def test_cancel_frees_the_bytes(self, store: Store, medium: Medium) -> None:
        repository = store.repository_for_push("a")
        upload_id = repository.start_upload()
        with repository.resume_upload(upload_id) as upload:
            upload.write([b"x" * 1000])
            upload.cancel()
        assert names(medium.tree, keys.UPLOADS) == []

    @pytest.mark.parametrize("upload_id", ["", "..", "../../a", "x" * 300, "00000000-0000-0000-0000-000000000000"])
    def test_i14_an_upload_id_is_no_path(self, store: Store, upload_id: str) -> None:
        with pytest.raises(BlobUploadUnknown):
            store.repository_for_push("a").resume_upload(upload_id)

    def test_an_upload_belongs_to_its_repository(self, store: Store) -> None:
        upload_id = store.repository_for_push("a").start_upload()
        with pytest.raises(BlobUploadUnknown):
            store.repository_for_push("b").upload_offset(upload_id)

    # -- manifests and tags ---------------------------------------------------------------------

    def test_i8_a_manifest_comes_back_byte_for_byte(self, store: Store) -> None:
        digest = push_image(store, "a", "v1", "v2")
        for reference in ("v1", "v2", digest):
            found = store.repository("a").manifest(reference)
            assert (found.body, found.media_type) == (images.image().manifest, OCI_MANIFEST)
        assert store.repository("a").tags() == ["v1", "v2"]

    def test_a_manifest_without_a_tag_is_a_row(self, store: Store, medium: Medium) -> None:
        digest = push_image(store, "a")
        rows = json.loads(read(medium.tree, "a/index.json", 9999))["manifests"]
        assert [row["digest"] for row in rows] == [digest]
        assert "annotations" not in rows[0]

    def test_an_overwritten_tag_leaves_the_old_manifest(self, store: Store) -> None:
        old, new = push_image(store, "a", "v1", seed="old"), push_image(store, "a", "v1", seed="new")
        assert store.repository("a").manifest("v1").digest == new
        assert store.repository("a").manifest(old).digest == old
        assert store.repository("a").tags() == ["v1"]

    def test_pushing_the_same_again_changes_nothing(self, store: Store, medium: Medium) -> None:
        push_image(store, "a", "v1")
        before = read(medium.tree, "a/index.json", 9999)
        push_image(store, "a", "v1")
        assert read(medium.tree, "a/index.json", 9999) == before

    def test_i5_a_manifest_without_its_blobs_is_refused(self, store: Store) -> None:
        made = images.image()
        repository = store.repository_for_push("a")
        with pytest.raises(ManifestBlobUnknown):
            repository.put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v1"])
        assert store.repositories() == []

    def test_i5_a_manifest_with_a_wrong_size_is_refused(self, store: Store) -> None:
        made = images.image()
        wrong = json.loads(made.manifest)
        wrong["layers"][0]["size"] += 1
        body = json.dumps(wrong).encode()
        repository = store.repository_for_push("a")
        for blob in made.blobs:
            push_blob(repository, blob)
        with pytest.raises(ManifestBlobUnknown):
            repository.put_manifest(check_manifest(body, OCI_MANIFEST), body, ["v1"])

    def test_an_index_and_its_children(self, store: Store) -> None:
        children = [push_image(store, "a", seed=str(number)) for number in range(3)]
        digest = push_index(store, "a", "multi", children=children)
        assert store.repository("a").manifest("multi").digest == digest
        with pytest.raises(Referenced, match=digest):
            store.repository_for_push("a").delete_manifest(children[0])
        store.repository_for_push("a").delete_manifest(digest)
        store.repository_for_push("a").delete_manifest(children[0])

    def test_deleting_a_tag_keeps_the_manifest(self, store: Store) -> None:
        digest = push_image(store, "a", "v1", "v2")
        store.repository_for_push("a").delete_manifest("v1")
        assert store.repository("a").tags() == ["v2"]
        store.repository_for_push("a").delete_manifest("v2")
        assert store.repository("a").tags() == []
        assert store.repository("a").manifest(digest).digest == digest

    def test_deleting_by_digest_takes_all_tags(self, store: Store) -> None:
        digest = push_image(store, "a", "v1", "v2")
        store.repository_for_push("a").delete_manifest(digest)
        for reference in ("v1", "v2", digest):
            with pytest.raises(ManifestUnknown):
                store.repository("a").manifest(reference)
            with pytest.raises(ManifestUnknown):
                store.repository_for_push("a").delete_manifest(reference)

    def test_a_condition_on_a_delete_sees_the_index_that_is_changed(self, store: Store) -> None:
        digest = push_image(store, "a", "v1", "v2")

        def refuse(index: Index) -> None:
            assert index.tags_of(digest) == ["v1", "v2"]
            raise TagsCollide("not this")

        for reference in ("v1", digest):
            with pytest.raises(TagsCollide):
                store.repository_for_push("a").delete_manifest(reference, refuse)
            assert store.repository("a").tags() == ["v1", "v2"]

    def test_deleted_and_pushed_again(self, store: Store) -> None:
        digest = push_image(store, "a", "v1")
        store.repository_for_push("a").delete_manifest(digest)
        assert push_image(store, "a", "v1") == digest
        assert manifest_body(store, "a", "v1") == images.image().manifest

    def test_i4_two_stores_never_lose_each_others_tags(self, store: Store, medium: Medium) -> None:
        other = medium.store()
        for number in range(10):
            push_image(store, "a", f"one-{number}")
            push_image(other, "a", f"two-{number}")
        assert len(store.repository("a").tags()) == 20 == len(other.repository("a").tags())

    def test_referrers_before_and_after_their_subject(self, store: Store) -> None:
        subject = images.image("later")
        digest = push_image(store, "a", "sbom", seed="sbom", subject=subject.digest)
        assert [d.digest for d in store.repository("a").referrers(subject.digest)] == [digest]
        push_image(store, "a", "v1", seed="later")
        found = store.repository("a").referrers(subject.digest)
        assert [(d.digest, d.artifact_type) for d in found] == [(digest, images.CONFIG)]
        assert store.repository("a").referrers(subject.digest, "no/such") == []
        store.repository_for_push("a").delete_manifest(digest)
        assert store.repository("a").referrers(subject.digest) == []

    # -- names ----------------------------------------------------------------------------------

    # -- the graph ------------------------------------------------------------------------------

    def test_i5_a_subject_is_there_as_long_as_its_referrer(self, store: Store, medium: Medium) -> None:
        """At any depth, and with all that it needs; a client that deletes it by its digest is obeyed."""
        subject = push_image(store, "a", "v1", seed="subject")
        referrer = push_image(store, "a", seed="one", subject=subject)
        push_image(store, "a", "sig", seed="two", subject=referrer)
        drop_rows(store, "a", subject, referrer)
        for one in (store, medium.store()):
            repository = one.repository("a")
            assert repository.manifest(subject).media_type == OCI_MANIFEST
            assert [found.digest for found in repository.referrers(subject)] == [referrer]
            needed = [*map(digest_of, images.image("subject").blobs), subject, referrer]
            for digest in needed:
                with pytest.raises(Referenced, match="in use by"):
                    repository.delete_blob(digest)
        store.repository("a").delete_manifest(subject)
        for one in (store, medium.store()):
            with pytest.raises(ManifestUnknown):
                one.repository("a").manifest(subject)
            assert [found.digest for found in one.repository("a").referrers(subject)] == [referrer]
        store.repository("a").delete_blob(digest_of(images.image("subject").blobs[1]))

    def test_a_subject_may_come_later_and_as_a_blob(self, store: Store) -> None:
        image = images.image("late")
        push_image(store, "a", "sig", seed="sig", subject=image.digest)
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest(image.digest)
        for body in (*image.blobs, image.manifest):
            push_blob(store.repository_for_push("a"), body)
        assert store.repository("a").manifest(image.digest).body == image.manifest
        with pytest.raises(Referenced):
            store.repository("a").delete_blob(image.digest)

    def test_i5_what_a_subject_needs_that_came_as_a_blob_is_not_deleted(self, store: Store) -> None:
        """Though this process remembers that the subject was not there."""
        image = images.image("late")
        referrer = push_image(store, "a", "sig", seed="sig", subject=image.digest)
        with pytest.raises(Referenced):
            store.repository("a").delete_blob(referrer)
        for body in (*image.blobs, image.manifest):
            push_blob(store.repository_for_push("a"), body)
        with pytest.raises(Referenced, match=image.digest):
            store.repository("a").delete_blob(digest_of(image.blobs[1]))

    def test_an_index_may_list_what_is_no_manifest(self, store: Store, medium: Medium) -> None:
        """As BuildKit's caches do: it is there as long as the index, and is no row."""
        index, blobs = images.build_cache()
        for body in blobs:
            push_blob(store.repository_for_push("a"), body)
        store.repository("a").put_manifest(check_manifest(index, OCI_INDEX), index, ["cache"])
        assert list(store.repository("a").index().digests) == [digest_of(index)]
        for digest in map(digest_of, blobs):
            with pytest.raises(Referenced):
                store.repository("a").delete_blob(digest)
            with pytest.raises(ManifestUnknown):
                store.repository("a").manifest(digest)
        medium.store().repository("a").delete_manifest(digest_of(index))
        for digest in map(digest_of, blobs):
            store.repository("a").delete_blob(digest)

    @pytest.mark.parametrize("row", [True, False])
    @pytest.mark.parametrize("claim", [OCI_INDEX, images.LAYER, "application/vnd.other+json"])
    def test_i5_a_child_is_what_its_descriptor_says(self, store: Store, claim: str, row: bool) -> None:
        image = images.image("child")
        child = push_image(store, "a", "v1", seed="child") if row else image.digest
        for body in () if row else (*image.blobs, image.manifest):
            push_blob(store.repository_for_push("a"), body)
        wrong = images.index([(child, len(image.manifest))]).replace(OCI_MANIFEST.encode(), claim.encode())
        with pytest.raises(ManifestInvalid, match=f"{child} is listed as .* and calls itself .*manifest"):
            store.repository("a").put_manifest(check_manifest(wrong, OCI_INDEX), wrong, ["wrong"])
        assert "wrong" not in store.repository("a").tags()

    def test_i5_a_child_that_is_no_manifest_is_not_called_one(self, store: Store) -> None:
        layer = push_blob(store.repository_for_push("a"), images.image().blobs[1])
        wrong = images.index([(layer, len(images.image().blobs[1]))])
        with pytest.raises(ManifestInvalid, match="is no manifest"):
            store.repository("a").put_manifest(check_manifest(wrong, OCI_INDEX), wrong, ["wrong"])

    def test_repositories_by_components_and_pages(self, store: Store) -> None:
        for name in ("b", "a-b", "a", "a/b/c", "a/b"):
            push_blob(store.repository_for_push(name), b"x")
        everything = ["a", "a/b", "a/b/c", "a-b", "b"]
        assert store.repositories() == everything
        for n in range(6):
            assert store.repositories(n) == everything[:n]
        for i, last in enumerate(everything):
            assert store.repositories(2, last) == everything[i + 1 : i + 3]
        assert store.repositories(None, "a/b/zzz") == ["a-b", "b"]

    # -- damage ---------------------------------------------------------------------------------

    def test_i2_an_empty_stub_is_not_served(self, store: Store, medium: Medium) -> None:
        digest = push_blob(store.repository_for_push("a"), b"content")
        medium.overwrite("a", digest, b"")
        with pytest.raises(BlobUnknown):
            medium.store().repository("a").blob(digest)

    def test_i5_a_stub_is_not_accepted_below_a_manifest(self, store: Store, medium: Medium) -> None:
        made = images.image()
        repository = store.repository_for_push("a")
        for blob in made.blobs:
            push_blob(repository, blob)
        medium.overwrite("a", digest_of(made.blobs[1]), b"")
        repository = medium.store().repository("a")
        with pytest.raises(ManifestBlobUnknown):
            repository.put_manifest(check_manifest(made.manifest, OCI_MANIFEST), made.manifest, ["v1"])

    def test_a_push_heals_flipped_bits_here_and_in_the_pool(self, store: Store, medium: Medium) -> None:
        body = b"x" * 1000
        digest = push_blob(store.repository_for_push("a"), body)
        medium.overwrite("a", digest, b"y" * 1000)
        push_blob(store.repository_for_push("a"), body)
        push_blob(store.repository_for_push("b"), body)
        for name in ("a", "b"):
            with store.repository(name).open_blob(digest) as reader:
                assert reader.read_at(0, 1000) == body

    def test_i2_a_damaged_manifest_is_not_served(self, store: Store, medium: Medium) -> None:
        digest = push_image(store, "a", "v1")
        body = images.image().manifest
        medium.overwrite("a", digest, body[:-2] + b" }")
        fresh = medium.store()
        with pytest.raises(ManifestUnknown):
            fresh.repository("a").manifest("v1")
        push_image(fresh, "a", "v1")
        assert manifest_body(medium.store(), "a", "v1") == body

    @pytest.mark.parametrize("who", ["itself", "another"])
    def test_what_a_deleted_subject_listed_can_be_deleted(self, store: Store, medium: Medium, who: str) -> None:
        """By the process that deleted it, and by another that has read it: no index.json tells of it."""
        child = push_image(store, "a", "v1")
        listing = push_index(store, "a", "both", children=[child])
        push_image(store, "a", "sbom", seed="sbom", subject=listing)
        drop_rows(store, "a", listing)
        deleter = store if who == "itself" else medium.store()
        with pytest.raises(Referenced):
            deleter.repository("a").delete_manifest(child)
        store.repository("a").delete_manifest(listing)
        deleter.repository("a").delete_manifest(child)
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest(child)

    def test_a_subject_that_another_process_deleted_is_no_more(self, store: Store, medium: Medium) -> None:
        """It has no row, so no index.json tells of it."""
        digest = push_image(store, "a", "v1", seed="subject")
        push_image(store, "a", "sbom", seed="sbom", subject=digest)
        drop_rows(store, "a", digest)
        other, third, layers = medium.store(), medium.store(), [*map(digest_of, images.image("subject").blobs[1:])]
        for one in (store, other, third):
            assert one.repository("a").manifest(digest).digest == digest
        other.repository("a").delete_manifest(digest)
        with pytest.raises(ManifestUnknown):
            store.repository("a").manifest(digest)
        with pytest.raises(ManifestUnknown):
            store.repository("a").delete_manifest(digest)
        for one, layer in zip((store, third), layers, strict=True):
            one.repository("a").delete_blob(layer)
            with pytest.raises(BlobUnknown):
                other.repository("a").blob(layer)

    def test_i5_an_index_of_a_child_that_has_rotted_is_refused_until_that_is_pushed(
        self, store: Store, medium: Medium
    ) -> None:
        digest, body = push_image(store, "a", "v1"), images.image().manifest
        medium.overwrite("a", digest, body[:-2] + b" }")
        fresh = medium.store()
        listed = images.index([(digest, len(body))])
        with pytest.raises(ManifestBlobUnknown, match="push it again"):
            fresh.repository("a").put_manifest(check_manifest(listed, OCI_INDEX), listed, ["v2"])
        assert fresh.repository("a").tags() == ["v1"]
        push_image(fresh, "a", "v1")
        fresh.repository("a").put_manifest(check_manifest(listed, OCI_INDEX), listed, ["v2"])
        assert manifest_body(medium.store(), "a", "v2") == listed


class FileRepositorySuite(RepositorySuite):
    """What a store of files must do beside: a crash may leave a file short, and there is a trash. A class that
    inherits gives `driver()`."""

    @pytest.fixture
    def driver(self) -> Driver:
        raise NotImplementedError

    @pytest.fixture
    def medium(self, driver: Driver) -> Medium:
        return OnDriver(driver)

    def test_i2_a_short_blob_is_not_served_and_heals(self, store: Store, medium: Medium) -> None:
        push_image(store, "a", "v1")
        layer = images.image().blobs[1]
        medium.overwrite("a", digest_of(layer), layer[:-1])
        fresh = medium.store()
        with pytest.raises(BlobUnknown):
            fresh.repository("a").blob(digest_of(layer))
        with pytest.raises(BlobUnknown):
            fresh.repository("a").open_blob(digest_of(layer))
        push_blob(fresh.repository_for_push("a"), layer)
        assert fresh.repository("a").blob(digest_of(layer)) == len(layer)

    def test_i6_trashed_content_comes_back_to_whoever_asks(self, store: Store, driver: Driver) -> None:
        push_image(store, "a", "v1")
        layer = digest_of(images.image().blobs[1])
        trash = keys.trashed("run", "a", layer)
        for depth in range(2, len(trash.split("/"))):
            driver.mkdir("/".join(trash.split("/")[:depth]))
        driver.rename(keys.blob("a", layer), trash)
        assert store.repository("a").blob(layer)
        assert driver.stat(keys.blob("a", layer)).is_file

    def test_i7_what_was_deleted_on_purpose_stays_deleted(self, store: Store, driver: Driver) -> None:
        digest = push_blob(store.repository_for_push("a"), b"x")
        trash = keys.trashed("run", "a", digest)
        for depth in range(2, len(trash.split("/"))):
            driver.mkdir("/".join(trash.split("/")[:depth]))
        if driver.capabilities.links:
            driver.link(keys.blob("a", digest), trash)
        store.repository_for_push("a").delete_blob(digest)
        with pytest.raises(BlobUnknown):
            store.repository("a").blob(digest)


def names(tree: Driver, directory: str) -> list[str]:
    try:
        return [entry.name for entry in tree.scan(directory)]
    except NotFound:
        return []
