"""Objects without an ETag: files that were copied into the directory of a gateway. They are read; an index.json of them
can't be replaced safely, which is said at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import images
from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.object_faults import StillClock
from tests.stores import bucket_store, push_image
from zotctl.errors import RequestRefused
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.retry import Retrying

IMAGE = images.image("x", layers=2)
CLOCK = StillClock()


@pytest.fixture
def copied(bucket: Bucket, tmp_path: Path) -> Store:  # noqa: F811
    """A layout that was never written by S3."""
    images.lay_out(tmp_path / "app", IMAGE, [images.row(IMAGE, "v1")])
    shutil.copytree(tmp_path / "app", bucket.path("app"), copy_function=shutil.copyfile)
    return bucket_store(Retrying(bucket.client(), CLOCK))


def test_they_are_read(copied: Store) -> None:
    assert list(copied.repositories()) == ["app"]
    repository = copied.repository("app")
    assert repository.manifest("v1").body == IMAGE.manifest
    for blob in IMAGE.blobs:
        assert repository.blob(digest_of(blob)) == len(blob)
        with repository.open_blob(digest_of(blob)) as reader:
            assert reader.read_at(len(blob) // 2, len(blob)) == blob[len(blob) // 2 :]


def test_a_push_is_refused_at_once_with_the_reason(copied: Store, bucket: Bucket) -> None:  # noqa: F811
    began = CLOCK.time
    with pytest.raises(RequestRefused, match=r"app/index.json: the object store has no ETag of it.* by S3"):
        push_image(copied, "app", "v2", seed="y")
    assert CLOCK.time == began, "nothing was tried again"
    assert copied.repository("app").tags() == ["v1"]
    client = bucket.client()
    client.put(keys.index("app"), bucket.path(keys.index("app")).read_bytes())  # as `aws s3 cp` does
    push_image(copied, "app", "v2", seed="y")
    assert copied.repository("app").tags() == ["v1", "v2"]


def test_another_file_in_its_place_is_seen(copied: Store, bucket: Bucket) -> None:  # noqa: F811
    repository = copied.repository("app")
    before = repository.generation()
    assert repository.tags() == ["v1"]
    path = bucket.path(keys.index("app"))
    path.write_bytes(path.read_bytes().replace(b'"v1"', b'"w1"'))
    assert copied.repository("app").tags() == ["w1"]
    assert copied.repository("app").generation() != before
