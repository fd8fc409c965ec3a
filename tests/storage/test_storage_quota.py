"""Limits on repositories and bytes."""

from __future__ import annotations

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.doubles.objects import MemoryObjects
from tests.stores import bucket_store, probed, push_blob, push_image, store_over
from zotctl.config import Quota
from zotctl.errors import QuotaExceeded
from zotctl.oci.digest import digest_of
from zotctl.oci.manifest import Manifest, check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage import Quotas, Store, WouldBlock
from zotctl.storage.quota import KEPT_LISTS, KEPT_S

IMAGE = images.image("x")
SIZE = len(IMAGE.manifest) + sum(map(len, IMAGE.blobs))


def parsed(seed: str = "x") -> Manifest:
    return check_manifest(images.image(seed).manifest, OCI_MANIFEST)


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "directory":
        return store_over(MemoryDriver(), clock=Hand())
    objects = MemoryObjects()
    probed(objects)
    return bucket_store(objects, Hand())


def test_the_bytes_of_a_repository(store: Store) -> None:
    push_image(store, "a", "v1")
    push_image(store, "a", "v2", seed="y")
    other = images.image("y")
    usage = store.repository("a").usage()
    assert usage[str(IMAGE.digest)] == len(IMAGE.manifest)
    assert sum(usage.values()) == SIZE + len(other.manifest) + sum(map(len, other.blobs))


def test_a_push_that_exceeds_its_quota_is_refused_with_numbers(store: Store) -> None:
    quotas = Quotas(store, [Quota("team", SIZE + 10), Quota("", 10**9)], 0)
    quotas.check("team/a", parsed())
    push_image(store, "team/a", "v1")
    quotas.check("team/a", parsed())  # again: nothing is missing
    quotas.check("team/b", parsed())  # what two repositories share counts once
    with pytest.raises(QuotaExceeded) as caught:
        quotas.check("team/b", parsed("y"))
    assert caught.value.status == 403
    assert caught.value.detail["used_bytes"] == SIZE and caught.value.detail["limit_bytes"] == SIZE + 10
    with pytest.raises(QuotaExceeded):
        quotas.check("team/a", parsed("y"))
    quotas.check("teams", parsed("y"))
    quotas.check("other", parsed("y"))


def test_what_an_index_lists_counts_though_no_manifest_of_the_repository_named_it(store: Store) -> None:
    """It came as a blob."""
    child = digest_of(b"a child")
    index = check_manifest(images.index([(child, 500)]), OCI_INDEX)
    Quotas(store, [Quota("team", index.size + 500)], 0).check("team", index)
    with pytest.raises(QuotaExceeded):
        Quotas(store, [Quota("team", index.size + 499)], 0).check("team", index)


def test_exactly_the_quota_is_taken(store: Store) -> None:
    Quotas(store, [Quota("team", SIZE)], 0).check("team", parsed())
    with pytest.raises(QuotaExceeded):
        Quotas(store, [Quota("team", SIZE - 1)], 0).check("team", parsed())
    Quotas(store, [Quota("team/", SIZE - 1)], 0).check("team", parsed())


def test_each_of_several_quotas_counts(store: Store) -> None:
    quotas = Quotas(store, [Quota("team/app", 10**9), Quota("team", SIZE)], 0)
    push_image(store, "team/tool", "v1")
    with pytest.raises(QuotaExceeded, match=r"^team may have"):
        quotas.check("team/app", parsed("y"))


def test_bytes_of_others_are_looked_at_again(store: Store) -> None:
    clock = store.clock
    assert isinstance(clock, Hand)
    quotas = Quotas(store, [Quota("team", SIZE + 10)], 0)
    quotas.check("team/a", parsed())
    push_image(store, "team/b", "v1", seed="y")
    clock.sleep(KEPT_S)
    with pytest.raises(QuotaExceeded):
        quotas.check("team/a", parsed())


def test_a_push_elsewhere_counts_at_once(store: Store) -> None:
    """Else each of many repositories would take the whole quota before what is remembered is looked at again."""
    quotas = Quotas(store, [Quota("team", SIZE + 10)], 0)
    for name in ("team/a", "team/b", "team/a"):
        quotas.check(name, parsed())
    push_image(store, "team/a", "v1")
    with pytest.raises(QuotaExceeded):
        quotas.check("team/b", parsed("y"))


def test_what_is_remembered_of_others_is_bounded(store: Store) -> None:
    quotas = Quotas(store, [Quota("team", 10**9)], 0)
    for number in range(KEPT_LISTS + 5):
        quotas.check(f"team/{number}", parsed())
    assert len(quotas._others) == KEPT_LISTS


def test_a_blob_makes_a_repository_that_counts(store: Store) -> None:
    quotas = Quotas(store, [], 1)
    quotas.check_name("a")
    push_image(store, "a", "v1")
    quotas.check_name("a")
    with pytest.raises(QuotaExceeded, match="b is not created"):
        quotas.check_name("b")
    with pytest.raises((WouldBlock, QuotaExceeded)):
        quotas.check_name("b", wait=False)
    Quotas(store, [], 0).check_name("b")


def test_one_that_its_first_blob_has_made_is_not_counted_beside_itself(store: Store) -> None:
    quotas = Quotas(store, [], 1)
    for body in IMAGE.blobs:
        push_blob(store.repository_for_push("a"), body)
    quotas.check("a", parsed())
    with pytest.raises(QuotaExceeded, match="b is not created"):
        quotas.check("b", parsed())


def test_the_number_of_repositories(store: Store) -> None:
    quotas = Quotas(store, [], 2)
    for name in ("a", "b"):
        quotas.check(name, parsed())
        push_image(store, name, "v1")
    quotas.check("a", parsed("y"))
    with pytest.raises(QuotaExceeded, match="there are 2 repositories, as many as may be: c is not created"):
        quotas.check("c", parsed())
