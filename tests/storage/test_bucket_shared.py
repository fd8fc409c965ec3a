"""What one worker deletes, the others don't reservation any more."""

from __future__ import annotations

import os

import pytest

from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store
from zotctl.errors import BlobUnknown
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.shared_marks import OF_THIS_SERVER, Mark

BODY = b"content"


def protocol(store: Store) -> BucketProtocol:
    found = store.roots[0].protocol
    assert isinstance(found, BucketProtocol)
    return found


@pytest.mark.parametrize("dedupe", [False, True])
def test_a_reservation_of_one_worker_is_void_when_another_has_deleted_the_blob(dedupe: bool) -> None:
    objects, mark = MemoryObjects(), Mark()
    one, two = (bucket_store(objects, dedupe=dedupe) for _ in range(2))
    for store in (one, two):
        protocol(store).context.deletions = mark
    digest = digest_of(BODY)
    protocol(one).blobs.publish("a", digest, lambda key: Object(key, len(BODY), objects.put(key, BODY), 0, 0))
    assert two.repository("a").blob(digest) == len(BODY)
    one.repository("a").delete_blob(digest)
    with pytest.raises(BlobUnknown):
        two.repository("a").blob(digest)
    assert keys.reservation(digest, "a") not in objects.stored


def test_the_mark_is_seen_by_forked_processes() -> None:
    before = OF_THIS_SERVER.seen()
    pid = os.fork()
    if pid == 0:
        OF_THIS_SERVER.change()
        os._exit(0)
    os.waitpid(pid, 0)
    assert OF_THIS_SERVER.seen() != before
