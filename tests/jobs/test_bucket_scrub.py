"""Scrub on buckets (docs/design/bucket.md#damage): the same findings and consequences as in a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.buckets import bucket  # noqa: F401 - a fixture
from tests.clocks import Hand
from tests.counting import Counted
from tests.jobs.bucketing import (  # noqa: F401 - fixtures
    InMemory,
    Place,
    dedupe,
    flipped,
    keys_of,
    opened,
    place,
    run_job,
    shortened,
)
from tests.jobs.layouts import lay_out
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import BlobUnknown, Changed, ManifestUnknown
from zotctl.jobs.check.hashing import Hasher
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.report import Report
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.bucket import lease as leases
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.file_identity import HeldFile

IMAGE = images.image("x", layers=2)
LAYER_BODY = IMAGE.blobs[-1]
LAYER = digest_of(LAYER_BODY)


def run(store: Store, **options: object) -> Report:
    return run_job(store, "scrub", lambda run: scrub(run, ScrubOptions(workers=2, **options)))  # type: ignore[arg-type]


def lying(dedupe: bool) -> str:  # noqa: F811
    return keys.shared(LAYER) if dedupe else keys.blob("a", LAYER)


@pytest.fixture
def store(place: Place, dedupe: bool) -> Store:  # noqa: F811
    """Two repositories with the same image."""
    store = opened(place, dedupe=dedupe)
    for name in ("a", "b/c"):
        push_image(store, name, "v1", seed="x")
    return store


def test_nothing_is_found_where_nothing_is_wrong(place: Place, dedupe: bool, store: Store) -> None:  # noqa: F811
    report = run(store, measure=True)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])
    assert report.summary["repositories"] == 2
    assert report.summary["checked_blobs"] == 8
    whole = sum(map(len, (*IMAGE.blobs, IMAGE.manifest)))
    shared = sum(map(len, IMAGE.blobs))
    assert report.summary["read_bytes"] == 2 * whole - (shared if dedupe else 0), "the pool's are read once"


@pytest.mark.parametrize(("change", "kind"), [(flipped, "digest_mismatch"), (shortened, "size_mismatch")])
def test_damage_is_404_until_it_is_pushed_again(
    place: Place, dedupe: bool, store: Store, change: object, kind: str  # noqa: F811
) -> None:  # fmt: skip
    place.rewrite(lying(dedupe), change)  # type: ignore[arg-type]
    report = run(opened(place, dedupe=dedupe))
    assert report.exit_code == 4
    readers = ["a", "b/c"] if dedupe else ["a"]
    assert [(f.repository, f.digest, f.kind, f.tags, f.action) for f in report.findings] == [
        (name, LAYER, kind, ("v1",), "marked") for name in readers
    ]
    other = opened(place, dedupe=dedupe)
    other.roots[0].protocol.maintain()
    for name in readers:
        with pytest.raises(BlobUnknown):
            other.repository(name).blob(LAYER)
        with pytest.raises(BlobUnknown):
            other.repository(name).open_blob(LAYER)
    if not dedupe:
        assert other.repository("b/c").blob(LAYER) == len(LAYER_BODY)
    push_blob(other.repository("a"), LAYER_BODY)
    for name in ("a", "b/c"):
        with other.repository(name).open_blob(LAYER) as reader:
            assert reader.read_at(0, reader.size) == LAYER_BODY
    assert run(opened(place, dedupe=dedupe)).exit_code == 0
    assert not [key for key in keys_of(place) if key.startswith(keys.DAMAGED)]


def test_what_another_process_has_healed_is_healed(place: Place, dedupe: bool, store: Store) -> None:  # noqa: F811
    """It knows nothing of the mark, so it leaves it there; the mark is about another object."""
    place.rewrite(lying(dedupe), flipped)
    pushing, reading = (opened(place, dedupe=dedupe) for _ in range(2))
    assert run(opened(place, dedupe=dedupe)).exit_code == 4
    push_blob(pushing.repository("a"), LAYER_BODY)
    reading.roots[0].protocol.maintain()
    assert reading.repository("a").blob(LAYER) == len(LAYER_BODY)
    assert run(opened(place, dedupe=dedupe)).exit_code == 0


def test_what_is_missing_is_found(place: Place, dedupe: bool, store: Store) -> None:  # noqa: F811
    place.objects.delete(lying(dedupe))
    report = run(opened(place, dedupe=dedupe))
    found = {(f.repository, f.digest, f.kind, f.tags) for f in report.findings}
    assert found == {(name, str(LAYER), "missing_blob", ("v1",)) for name in (["a", "b/c"] if dedupe else ["a"])}


def test_an_empty_object_is_a_stub(place: Place, store: Store, dedupe: bool) -> None:  # noqa: F811
    place.rewrite(lying(dedupe), lambda body: b"")
    assert {finding.kind for finding in run(opened(place, dedupe=dedupe)).findings} == {"stub"}


def test_a_good_copy_heals(place: Place, dedupe: bool, store: Store, tmp_path: Path) -> None:  # noqa: F811
    """From another repository, and where there is none, from a layout."""
    place.rewrite(lying(dedupe), flipped)
    lay_out(tmp_path, "origin", images.image("x", layers=2), "v1")
    origin = str(tmp_path) if dedupe else None
    report = run(opened(place, dedupe=dedupe), repair=True, repair_from=origin)
    assert {finding.action for finding in report.findings} == {"repaired"}
    again = opened(place, dedupe=dedupe)
    assert run(again).exit_code == 0
    assert again.repository("a").blob(LAYER) == len(LAYER_BODY)


def test_i7_what_is_deleted_while_it_is_healed_stays_deleted(place: Place, dedupe: bool, store: Store) -> None:  # noqa: F811
    """The bytes for it may come from far away."""
    place.rewrite(lying(dedupe), flipped)
    maintenance = store.roots[0].maintenance
    damaged = maintenance.look("a", LAYER)

    def meanwhile() -> Iterator[bytes]:
        yield LAYER_BODY
        place.objects.delete(lying(dedupe))

    assert maintenance.heal("a", LAYER, HeldFile.unopened(damaged), meanwhile()) == []
    assert list(place.objects.list(lying(dedupe))) == []


def test_a_manifest_and_a_missing_blob_come_back(place: Place, dedupe: bool, store: Store, tmp_path: Path) -> None:  # noqa: F811
    place.rewrite(keys.blob("a", IMAGE.digest), flipped)
    place.objects.delete(lying(dedupe))
    lay_out(tmp_path, "origin", IMAGE, "v1")
    assert run(opened(place, dedupe=dedupe)).exit_code == 4
    marked = opened(place, dedupe=dedupe)
    marked.roots[0].protocol.maintain()
    with pytest.raises(ManifestUnknown):
        marked.repository("a").manifest("v1")
    for _ in range(2):  # what the manifest names is known when it is healed
        run(opened(place, dedupe=dedupe), repair=True, repair_from=str(tmp_path))
    whole = opened(place, dedupe=dedupe)
    assert run(whole).exit_code == 0
    assert whole.repository("a").manifest("v1").body == IMAGE.manifest
    assert whole.repository("a").blob(LAYER) == len(LAYER_BODY)


def test_a_run_that_was_stopped_goes_on(place: Place, dedupe: bool, store: Store) -> None:  # noqa: F811
    first = opened(place, dedupe=dedupe)
    stopped = run_job(first, "scrub", lambda run: scrub(run, ScrubOptions(workers=1, resume=True)), max_duration=0)
    assert stopped.exit_code == 16
    assert run(opened(place, dedupe=dedupe), resume=True).exit_code == 0
    assert next(place.objects.list(f"{keys.SCRUB}/"), None) is not None


def test_rolling(store: Store) -> None:
    report = run(store, interval=3600.0)
    assert (report.exit_code, report.summary["checked_blobs"]) == (0, 8)
    assert run(store, interval=3600.0).summary.get("checked_blobs", 0) == 0, "nothing is due"


def test_a_blob_is_read_by_one_request(place: Place, dedupe: bool, store: Store) -> None:  # noqa: F811
    counted = Counted(place.objects)
    assert run(opened(place, dedupe=dedupe, objects=counted)).exit_code == 0
    taken = counted.taken()
    assert taken.count("open") <= (5 if dedupe else 8) + 2 * 2 + 2, "each once, and oci-layout and manifests as such"
    assert taken.count("head") <= 10
    again = Counted(place.objects)
    assert run(opened(place, dedupe=dedupe, objects=again), interval=3600.0).exit_code == 0
    later = Counted(place.objects)
    run(opened(place, dedupe=dedupe, objects=later), interval=3600.0)
    assert len(later.taken()) <= 10, "nothing is due, so nothing is listed"


def test_a_hosts_clock_makes_no_damage_be_read_again() -> None:
    """A file that was written just now is read again, since a tool may be writing it; an hour later it is not."""

    def reads(behind: float) -> int:
        place, read = InMemory(), list[str]()  # noqa: F811
        push_image(opened(place), "a", "v1", seed="x")
        good = place.memory.stored[lying(False)]
        place.memory.stored[lying(False)] = good._replace(body=flipped(good.body))
        place.clock.sleep(3600)
        counted = Counted(place.objects, lambda method, args: read.append(args[0]) if method == "open" else None)
        report = run(bucket_store(counted, Hand(place.clock.at - behind)))
        assert [finding.kind for finding in report.findings] == ["digest_mismatch"]
        return read.count(lying(False))

    assert reads(3601) == reads(0)


# -- one run at a time --------------------------------------------------------------------------


def test_a_second_run_names_the_first(place: Place) -> None:  # noqa: F811
    with opened(place).roots[0].maintenance.lease("scrub"):
        report = run(opened(place))
        assert report.exit_code == 11
        assert f"process {os.getpid()} on" in report.errors[0]["reason"]
    assert run(opened(place)).exit_code == 0
    assert not [key for key in keys_of(place) if key.startswith(keys.LEASES)]


def test_the_lease_of_the_dead_is_taken() -> None:
    place = InMemory()  # noqa: F811
    context = bucket_of(opened(place).roots[0]).context
    forgotten = leases._Lease(context, "scrub")
    forgotten.take()
    assert run(opened(place)).exit_code == 11
    place.clock.sleep(leases.JOB_LEASE_S)
    assert run(opened(place)).exit_code == 0
    forgotten.take()
    key = keys.lease("scrub")
    who = json.loads(place.memory.stored[key].body)
    place.objects.put(key, json.dumps(who | {"pid": 2**22 - 1}).encode())
    assert run(opened(place)).exit_code == 0, "its process is known to be gone"


def test_a_lease_that_is_renewed_is_held() -> None:
    place = InMemory()  # noqa: F811
    held = leases._Lease(bucket_of(opened(place).roots[0]).context, "scrub")
    held.take()
    for _ in range(5):
        place.clock.sleep(leases.JOB_LEASE_S / 2)
        held.renew()
        assert run(opened(place)).exit_code == 11
    held.give_back()
    assert run(opened(place)).exit_code == 0


def test_what_is_replaced_while_it_is_read_is_no_finding(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has to ask again is told that it is another object by now."""

    def changed(*_: object) -> int:
        raise Changed("it is not what it was")

    monkeypatch.setattr(Hasher, "digest", changed)
    report = run(store)
    assert (report.exit_code, report.findings, report.errors) == (0, [], [])


def test_so_many_requests_a_second() -> None:
    place = InMemory()  # noqa: F811
    push_image(opened(place), "a", "v1", seed="x")
    began = place.clock.elapsed()
    report = run_job(opened(place), "scrub", lambda run: scrub(run, ScrubOptions(workers=1)), requests=2)
    assert report.exit_code == 0
    assert place.clock.elapsed() - began == 1.5, "four blobs, the first one at once"
