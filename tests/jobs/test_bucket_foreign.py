"""Objects that others have made: folder markers of consoles, notes, what other tools leave. They stop nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests import images
from tests.buckets import bucket  # noqa: F401 - a fixture
from tests.jobs.bucketing import (  # noqa: F401 - fixtures
    InMemory,
    Place,
    dedupe,
    keys_of,
    opened,
    place,
    run_job,
)
from tests.stores import push_image
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import verify
from zotctl.jobs.dedupe import DedupeOptions
from zotctl.jobs.dedupe import dedupe as share
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys

ENCODED = images.image("x", layers=2).digest.encoded
BODIES = images.image("x", layers=2).blobs
LAYER = digest_of(BODIES[-1]).encoded

MARKERS = [
    "a/", "a/blobs/", "a/blobs/sha256/", "a/blobs/sha512/", "_blobs/", "_blobs/sha256/", "my folder/", "new/",
    *(f".zotctl/{each}/" for each in (
        "reservations", "reservations/sha256",
        f"reservations/sha256/{LAYER}", "intents", "uploads", "staged", "names", "damaged",
        "damaged/sha256", f"damaged/sha256/{LAYER}", "history", f"history/{keys.name_key('a')}", "gc", "gc/seen",
        "leases",
        "tmp", "scrub",
    )), ".zotctl/",
]  # fmt: skip
FILES = [
    "README.txt", ".DS_Store", "a/README.md", "a/.index.json.swp", "a/blobs/notes.txt", "a/blobs/sha256/.DS_Store",
    "a/blobs/sha256/x/y", f"a/blobs/sha256/{'A' * 64}", "a/blobs/my backup/x",
    "_blobs/README", "_blobs/sha256/README", f"_blobs/sha256/{'z' * 64}", "my folder/file",
    *(f".zotctl/{each}" for each in (
        "note", "reservations/note", "reservations/sha256/note", f"reservations/sha256/{LAYER}/My App",
        "reservations/sha256/notes/a",
        "intents/note", "uploads/note", "staged/note", "names/My App", "names/.DS_Store", "damaged/note",
        "damaged/sha256/notes/a", f"damaged/sha256/{LAYER}/My App", "history/note",
        f"history/{keys.name_key('a')}/note",
        "gc/note", "gc/seen/note", "leases/note", "tmp/note", "scrub/note",
    )),
]  # fmt: skip


def strew(place: Place, found: list[str], body: bytes) -> None:  # noqa: F811
    for key in found:
        place.objects.put(key, b"" if key.endswith("/") else body)


def jobs(store: Store) -> list[Report]:
    work = {
        "verify": lambda run: verify(run),
        "scrub": lambda run: scrub(run, ScrubOptions(workers=2)),
        "gc": lambda run: gc(run, lambda _: GcOptions(delay=0.0)),
    }
    return [run_job(store, name, work[name]) for name in ("verify", "scrub", "gc", "gc")]


@pytest.mark.parametrize(
    ("foreign", "body"), [(MARKERS, b""), (FILES, b""), (FILES, b"something\n")], ids=["markers", "empty", "full"]
)
def test_they_stop_nothing(place: Place, dedupe: bool, foreign: list[str], body: bytes) -> None:  # noqa: F811
    push_image(opened(place, dedupe=dedupe), "a", "v1", seed="x")
    push_image(opened(place, dedupe=dedupe), "a", "old", seed="gone")
    strew(place, foreign, body)
    store = opened(place, dedupe=dedupe)
    assert list(store.repositories()) == ["a"]
    push_image(store, "b/c", "v1", seed="y")
    push_image(store, "a", "v2", seed="z")
    store.repository("a").delete_manifest("old")
    store.repository("a").delete_manifest(str(images.image("gone").digest))
    for report in jobs(store):
        assert (report.exit_code, report.errors) == (0, []), report.job
    assert list(opened(place, dedupe=dedupe).repositories()) == ["a", "b/c"]
    fresh = opened(place, dedupe=dedupe)
    for name, tag, seed in (("a", "v1", "x"), ("a", "v2", "z"), ("b/c", "v1", "y")):
        made = images.image(seed, layers=2)
        assert fresh.repository(name).manifest(tag).body == made.manifest
        for blob in made.blobs:
            assert fresh.repository(name).blob(digest_of(blob)) == len(blob)
    gone = {digest_of(blob).encoded for blob in images.image("gone", layers=2).blobs if len(blob) > 200}
    for _ in range(60):  # whole seconds of the server's clock have to pass
        if not (left := gone & {key.rpartition("/")[2] for key in keys_of(place)}):
            break
        time.sleep(0.5)
        run_job(store, "gc", lambda run: gc(run, lambda _: GcOptions(delay=0.0)))
    assert not left


@pytest.mark.parametrize("undo", [False, True])
def test_dedupe_and_back(place: Place, undo: bool) -> None:  # noqa: F811
    push_image(opened(place, dedupe=undo), "a", "v1", seed="x")
    strew(place, MARKERS + FILES, b"something\n")
    store = opened(place, dedupe=not undo)
    report = run_job(store, "dedupe", lambda run: share(run, DedupeOptions(undo=undo)))
    assert (report.exit_code, report.errors) == (0, [])
    for blob in BODIES:
        assert opened(place).repository("a").blob(digest_of(blob)) == len(blob)


def test_what_is_no_digest_is_named_or_passed_over(place: Place, dedupe: bool, tmp_path: Path) -> None:  # noqa: F811
    """Never deleted: what has no name of ours belongs to others."""
    push_image(opened(place, dedupe=dedupe), "a", "v1", seed="x")
    ours = ("tmp/", "intents/", "history/", "gc/", "leases/", "scrub/")  # where old things are swept away
    found = [key for key in MARKERS + FILES if not key.removeprefix(f"{keys.HIDDEN}/").startswith(ours)]
    strew(place, found, b"mine")
    jobs(opened(place, dedupe=dedupe))
    assert set(found) <= set(keys_of(place))
