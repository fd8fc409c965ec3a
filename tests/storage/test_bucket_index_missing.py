"""A repository in a bucket that has content and has lost its index.json is nobody's empty repository (I4, I9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import images
from tests.counting import Counted
from tests.doubles.objects import Stored
from tests.jobs.bucketing import Killed, dying, run_job
from tests.jobs.importing import run_import
from tests.jobs.test_gc import collect
from tests.jobs.test_gc_bucket import World
from tests.stores import bucket_store, push_blob, push_image
from zotctl.errors import IndexMissing, LayoutInvalid, NameUnknown
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.past import history
from zotctl.jobs.restore import restore
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX
from zotctl.storage import Store, keys

INDEX = keys.index("a")
EMPTY = images.index([])


class Lost(World):
    """A lifecycle rule has removed the index.json of `a`."""

    def __init__(self, *, dedupe: bool) -> None:
        super().__init__(dedupe=dedupe)
        push_image(self.store, "a", "v1")
        self.store.roots[0].protocol.close()  # which writes the history
        self.index = self.memory.stored[INDEX]
        self.memory.delete(INDEX)
        self.before = self.content()

    def content(self) -> set[str]:
        return {key for key in self.memory.stored if "/blobs/" in key or key.startswith(f"{keys.SHARED}/")}

    def put_back(self, index: Stored) -> None:
        self.memory.put(INDEX, index.body)


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def lost(request: pytest.FixtureRequest) -> Lost:
    return Lost(dedupe=request.param)


def push_empty_index(store: Store, name: str, tag: str) -> None:
    """What references nothing."""
    store.repository_for_push(name).put_manifest(check_manifest(EMPTY, OCI_INDEX), EMPTY, [tag])


@pytest.mark.parametrize("server", ["that has seen it", "another"])
def test_i9_it_takes_no_push_and_no_read(lost: Lost, server: str) -> None:
    store = lost.store if server == "that has seen it" else lost.another()
    asked: list[Callable[[], object]] = [
        lambda: store.repository("a").tags(),
        lambda: store.repository("a").manifest("v1"),
        lambda: push_image(store, "a", "v2", seed="two"),
        lambda: push_image(store, "a", "v1"),
        lambda: push_empty_index(store, "a", "v1"),
        lambda: store.repository_for_push("a").delete_manifest("v1"),
        lambda: store.repository_for_push("a").delete_blob(images.image().digest),
    ]
    for ask in asked:
        with pytest.raises(IndexMissing, match=r"index.json is missing in a, .* or remove a/oci-layout") as refused:
            ask()
        assert refused.value.status == 503
    assert INDEX not in lost.memory.stored
    assert lost.before <= lost.content()
    assert [event["a"] for event in store.roots[0].history.events("a")].count("push") == 1


def test_i4_a_commit_begins_nothing(lost: Lost) -> None:
    """Nothing is published, and nothing noted in the history."""
    begun = list[str]()
    with pytest.raises(IndexMissing):
        lost.another().roots[0].protocol.commit_index("a", [lambda tx, draft: begun.append(tx.name)])
    assert not begun and INDEX not in lost.memory.stored


def test_i4_gc_collects_nothing_of_it_and_keeps_its_history(lost: Lost) -> None:
    for _ in range(4):
        lost.later()
        report = collect(lost.another())
        assert report.exit_code == 5
        assert "index.json is missing in a" in str(report.errors)
    assert lost.before == lost.content()
    assert keys.listed_name("a") in lost.memory.stored
    assert lost.another().roots[0].history.events("a")


def test_i4_other_jobs_change_nothing_and_say_so(lost: Lost) -> None:
    store = lost.another()
    for job in (lambda run: verify(run, VerifyOptions()), lambda run: scrub(run, ScrubOptions())):
        report = run_job(store, "check", job)
        assert [(one.repository, one.kind) for one in report.findings] == [("a", "invalid_index")]
    for options in (DedupeOptions(), DedupeOptions(undo=True)):
        run_job(store, "dedupe", partial(dedupe, options=options))
    assert lost.before <= lost.content() and INDEX not in lost.memory.stored


def test_it_is_served_when_it_is_back(lost: Lost) -> None:
    store = lost.another()
    with pytest.raises(LayoutInvalid):
        store.repository("a").tags()
    lost.put_back(lost.index)
    assert store.repository("a").manifest("v1").digest == images.image().digest
    push_image(store, "a", "v2", seed="two")
    assert store.repository("a").tags() == ["v1", "v2"]


def test_its_owner_begins_with_no_tags_and_the_history_gives_them_back(lost: Lost) -> None:
    store = lost.another()
    lost.memory.delete(keys.layout("a"))
    with pytest.raises(NameUnknown):
        store.repository("a").tags()
    past = run_job(store, "gc", lambda run: history(run, "a"))
    assert [(item["tag"], item["after"]) for item in past.items] == [("v1", images.image().digest)]
    report = run_job(store, "gc", lambda run: restore(run, "a:v1"))
    assert (report.errors, report.exit_code) == ([], 0)
    assert lost.another().repository("a").manifest("v1").digest == images.image().digest


def test_one_that_is_made_meanwhile_is_not_missing(lost: Lost) -> None:
    """Its content was seen, and then it came: it was on its way."""

    class Meanwhile(Counted):
        def request(self, name: str, call: Callable[..., object], *args: object, **options: object) -> object:
            found = super().request(name, call, *args, **options)
            if name == "list" and args[0] == f"{keys.blobs('a')}/":
                lost.put_back(lost.index)
            return found

    lost.objects = Meanwhile(lost.memory)
    store = lost.another()
    push_blob(store.repository_for_push("a"), b"more")
    assert store.repository("a").tags() == ["v1"]


PUSHES: dict[str, Callable[[Store], object]] = {
    "an image": lambda store: push_image(store, "new", "v1"),
    "what references nothing": lambda store: push_empty_index(store, "new", "v1"),
}


@pytest.mark.parametrize("what", PUSHES)
def test_a_push_that_dies_leaves_nothing_that_looks_like_that(what: str) -> None:
    """Content comes after index.json, also where no blob is pushed before the manifest."""
    died, requests = True, 0
    while died:
        world = World(dedupe=False)
        try:
            PUSHES[what](bucket_store(dying(world.memory, requests), world.clock))  # type: ignore[arg-type]
            died = False
        except Killed:
            requests += 1
        PUSHES[what](world.another())
        assert world.another().repository("new").tags() == ["v1"]
    assert requests > 5


def test_an_import_that_dies_leaves_nothing_that_looks_like_that(tmp_path: Path) -> None:
    images.lay_out(tmp_path / "new", images.Image(EMPTY, []), [images.descriptor(EMPTY, OCI_INDEX)])
    died, requests = True, 0
    while died:
        world = World(dedupe=False)
        try:
            run_import(bucket_store(dying(world.memory, requests), world.clock), tmp_path)  # type: ignore[arg-type]
            died = False
        except Killed:
            requests += 1
        world.later(100)  # the lease of the one that died is over
        assert run_import(world.another(), tmp_path).errors == []
        assert len(world.another().repository("new").index()) == 1
    assert requests > 3
