"""A power cut at any moment of any job, in every state that the log of its calls allows: what was on the device before
is still there, with `commit` and without."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.faultproof.checks import Files, faults_of, files_in, tags
from tests.faultproof.powercut import Watched
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import BlobUploadUnknown
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.local.history import Here
from zotctl.storage.local.protocol import local_of

IMAGE = images.image("one", layers=1)
CONTENT = [IMAGE.manifest, *IMAGE.blobs]
LAYER = IMAGE.blobs[1]
DAMAGED = LAYER[:-1] + bytes([LAYER[-1] ^ 1])
COMMITS = pytest.mark.parametrize("commit", [False, True], ids=["lazy", "commit"])


class World:
    """A store whose power may go after any call, and what must be found then."""

    def __init__(self, *, commit: bool, model: str = "any") -> None:
        self.commit = commit
        self.driver = Watched(self.lost, model)
        self.kept: dict[str, set[bytes]] = {}
        """By key: what it may hold, and one of it must be there."""
        self.removable: Callable[[Files, str], bool] = lambda files, key: False
        self.recent: Collection[str] = ()
        """Repositories that a push made just now, which may be lost."""
        self.whole: Collection[str] = ()
        """Repositories of which nothing may be truncated."""

    def store(self, *, commit: bool | None = None, dedupe: bool = True) -> Store:
        return store_over(self.driver, commit=self.commit if commit is None else commit, dedupe=dedupe)

    def write(self, key: str, body: bytes) -> None:
        """Behind the back of all."""
        self.driver.unlink(key)
        with self.driver.create(key) as writer:
            writer.write([body])

    def settle(self, *names: str) -> None:
        """All that these repositories have is on the device; from now on the power may go."""
        self.driver.world.settle()
        for key, body in files_in(self.driver.inner).items():  # type: ignore[arg-type]
            if any(key.startswith(f"{name}/blobs/") for name in names):
                self.kept[key] = {body}
        self.whole = names

    def watch(self) -> None:
        self.driver.watching = True

    def lost(self, state: MemoryDriver) -> list[str]:
        files = files_in(state)
        gone = [
            f"{key} is lost: {len(files.get(key, b''))} bytes"
            for key, bodies in self.kept.items()
            if files.get(key) not in bodies and not self.removable(files, key)
        ]
        truncated = faults_of({key: body for key, body in files.items() if _name(key) in self.whole})
        lazy = faults_of({key: body for key, body in files.items() if _name(key) not in self.recent}, whole=False)
        damaged = any(len(bodies) > 1 for bodies in self.kept.values())
        return gone + lazy + ([] if damaged else truncated)


def _name(key: str) -> str:
    return key.partition("/")[0]


def run(job: str, store: Store, work: Callable[[Run], None]) -> Report:
    found = Run(job, store)
    return found.finish(lambda: work(found))


def collect(store: Store, delay: float = 0.0) -> Report:
    return run("gc", store, lambda run: gc(run, lambda _: GcOptions(delay=delay)))


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_dedupe_links_to_nothing_that_is_only_in_memory(commit: bool, model: str) -> None:
    world = World(commit=commit, model=model)
    for name in ("a", "b"):
        push_image(world.store(dedupe=False), name, "v1", seed="one", layers=1)
    world.settle("a", "b")
    for body in CONTENT:
        push_blob(world.store(commit=False).repository_for_push("c"), body)
    world.recent = ["c"]
    world.watch()
    report = run("dedupe", world.store(), lambda run: dedupe(run, DedupeOptions(workers=1)))
    assert report.summary["linked"] == 2 * len(CONTENT)
    assert world.driver.faults == []
    assert world.driver.looked > 20


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_undo_replaces_by_copies_that_are_on_the_device(commit: bool, model: str) -> None:
    world = World(commit=commit, model=model)
    for name in ("a", "b"):
        push_image(world.store(), name, "v1", seed="one", layers=1)
    world.settle("a", "b")
    world.watch()
    report = run("dedupe", world.store(), lambda run: dedupe(run, DedupeOptions(undo=True, workers=1)))
    assert report.summary["copied"] == len(CONTENT)
    assert world.driver.faults == []


def damaged_world(model: str, *, commit: bool) -> World:
    """`a` and `b` share a damaged layer, `c` has the good one."""
    world = World(commit=commit, model=model)
    for name in ("a", "b"):
        push_image(world.store(), name, "v1", seed="one", layers=1)
    key = keys.blob("a", digest_of(LAYER))
    world.write(key, DAMAGED)
    for other in (keys.blob("b", digest_of(LAYER)), keys.pool(digest_of(LAYER))):
        world.driver.unlink(other)
        world.driver.link(key, other)
    return world


def settle_damaged(world: World, *names: str) -> None:
    world.settle(*names)
    for bodies in world.kept.values():
        if DAMAGED in bodies:
            bodies.add(LAYER)


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_scrub_repairs_with_what_is_on_the_device(commit: bool, model: str) -> None:
    world = damaged_world(model, commit=commit)
    push_blob(world.store(dedupe=False).repository_for_push("c"), LAYER)
    settle_damaged(world, "a", "b", "c")
    world.watch()
    report = run("scrub", world.store(), lambda run: scrub(run, ScrubOptions(repair=True)))
    assert report.summary["repaired"] == 2, report.findings
    assert world.driver.faults == []


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_a_push_heals_with_what_is_on_the_device(commit: bool, model: str) -> None:
    """A damaged file is answered with 404. In its place a truncated one would be served."""
    world = damaged_world(model, commit=commit)
    settle_damaged(world, "a", "b")
    world.watch()
    push_blob(world.store().repository_for_push("a"), LAYER)
    assert all(files_in(world.driver.inner)[keys.blob(name, digest_of(LAYER))] == LAYER for name in "ab")  # type: ignore[arg-type]
    assert world.driver.faults == []


def in_trash(files: Files, key: str) -> bool:
    kept = [other for other in files if other.startswith(keys.TRASH) and other.endswith(f"/{key}")]
    return any(digest_of(files[other]).encoded == key.rpartition("/")[2] for other in kept)


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_gc_acts_on_no_index_that_a_cut_takes_back(commit: bool, model: str) -> None:
    world = World(commit=commit, model=model)
    push_image(world.store(), "a", "v1", seed="one", layers=1)
    push_image(world.store(), "a", "v2", seed="two", layers=1)
    world.settle("a")
    world.kept = {}
    world.watch()
    store = world.store(commit=False)
    store.repository_for_push("a").delete_manifest(images.image("two", layers=1).digest)
    assert collect(store).summary["purged"] == 2 + 1
    assert world.driver.faults == []


@COMMITS
def test_gc_and_restore_lose_nothing_on_the_way(commit: bool) -> None:
    """Condemned, restored, and then the trash is purged: at each moment there is one name of the two. That a rename
    does not overtake the directory that it leads to is the file system's to keep."""
    world = World(commit=commit, model="journal")
    stray = push_blob(world.store().repository_for_push("a"), b"a layer that nothing needs")
    push_image(world.store(), "a", "v1", seed="one", layers=1)
    world.settle("a")
    world.removable = in_trash
    world.watch()
    store = world.store()
    assert (
        run("gc", store, lambda run: gc(run, lambda _: GcOptions(delay=0.0, trash=1000.0))).summary["unreachable"] == 1
    )
    assert run("gc", store, lambda run: restore(run, f"a@{stray}")).summary["restored"] == 1
    folder = next(iter(local_of(store.roots[0]).trash.folders()))
    lying = dict(local_of(store.roots[0]).trash.contents(folder))
    with local_of(store.roots[0]).context.locks.hold("a") as held:
        assert local_of(store.roots[0]).trash.purge(held, folder, lying, {str(stray)}) == []
    assert world.driver.faults == []


@COMMITS
@pytest.mark.parametrize("again", [False, True], ids=["trashed", "pushed again"])
def test_a_purge_lets_go_of_what_is_back_on_the_device(commit: bool, again: bool) -> None:
    """A foreign tool references it again. Its other name, or the copy that a push brought anew, comes first."""
    world = World(commit=commit)
    push_image(world.store(), "a", "v1", seed="one", layers=1)
    stray = push_blob(world.store(dedupe=False).repository_for_push("a"), b"a layer that nothing needs")
    world.settle("a")
    world.removable = in_trash
    local = local_of(world.store().roots[0])
    trash, locks = local.trash, local.context.locks
    with locks.hold("a") as held:
        trash.add(held, "20200101T000000-other", [stray])
    world.driver.world.settle()
    if again:
        push_blob(world.store(commit=False, dedupe=False).repository_for_push("a"), b"a layer that nothing needs")
    world.watch()
    with locks.hold("a") as held:
        folder = next(iter(trash.folders()))
        assert trash.purge(held, folder, dict(trash.contents(folder)), {str(stray)}) == []
    assert world.driver.faults == []


def move_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, commit: bool, model: str) -> tuple[World, list[str]]:
    """What a cut would leave at the moment when the source begins to go."""
    from zotctl.jobs.imports import moving

    world, faults = World(commit=commit, model=model), list[str]()
    remove = moving.remove_layout

    def look(*arguments: object) -> None:
        for state in world.driver.world.states(model):
            files = files_in(state)
            faults.extend(faults_of(files))
            if tags(files, "moved") != {"v1": str(IMAGE.digest)}:
                faults.append(f"the tag is lost: {sorted(files)}")
        remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "remove_layout", look)
    images.lay_out(tmp_path / "moved", IMAGE, [images.row(IMAGE, "v1")])
    return world, faults


@COMMITS
@pytest.mark.parametrize("model", ["journal", "log", "any"])
@pytest.mark.parametrize("there", ["nothing", "blobs", "all"])
def test_a_source_goes_when_its_copies_are_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: bool, model: str, there: str
) -> None:
    world, faults = move_world(tmp_path, monkeypatch, commit=commit, model=model)
    if there == "blobs":
        for body in CONTENT:
            push_blob(world.store(commit=False).repository_for_push("moved"), body)
    if there == "all":
        push_image(world.store(commit=False), "moved", "v1", seed="one", layers=1)
    report = run("import-layout", world.store(),
                 lambda run: import_layout(run, str(tmp_path / "moved"), ImportOptions(move=True)))  # fmt: skip
    assert not (tmp_path / "moved").exists(), report.errors
    assert faults == []


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_an_import_leads_to_nothing_torn(tmp_path: Path, commit: bool, model: str) -> None:
    """Also where the pool has its manifest already, by a push that was not flushed (I3)."""
    images.lay_out(tmp_path / "some", IMAGE, [images.row(IMAGE, "v1")])
    world = World(commit=commit, model="journal" if not commit else model)
    push_blob(world.store(commit=False).repository_for_push("other"), IMAGE.manifest)
    world.recent = ["other"]
    world.whole = ["some"] if commit else []  # I2: also before anything is told
    world.watch()
    run("import-layout", world.store(), lambda run: import_layout(run, str(tmp_path / "some"), ImportOptions()))
    assert world.driver.faults == []
    if commit:
        for state in world.driver.world.states(model):
            files = files_in(state)
            assert tags(files, "some") == {"v1": str(IMAGE.digest)}
            assert faults_of({key: body for key, body in files.items() if key.startswith("some/")}) == []


@pytest.mark.parametrize("there", ["a", "other"])
@pytest.mark.parametrize("model", ["journal", "log", "any"])
def test_a_push_that_is_told_of_is_there(model: str, there: str) -> None:
    """Also where another push brought the bytes before, and has not flushed them."""
    world = World(commit=True, model=model)
    push_blob(world.store(commit=False).repository_for_push(there), LAYER)
    push_blob(world.store().repository_for_push("a"), LAYER)
    for state in world.driver.world.states(model):
        assert files_in(state).get(keys.blob("a", digest_of(LAYER))) == LAYER


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("model", ["journal", "log", "any"])
def test_a_mount_that_is_told_of_is_there(model: str, there: bool) -> None:
    """Who brought the bytes may not have flushed them."""
    world = World(commit=True, model=model)
    for name in ("other", "a") if there else ("other",):
        push_blob(world.store(commit=False).repository_for_push(name), LAYER)
    store = world.store()
    assert store.repository_for_push("a").mount_blob(store.repository("other"), digest_of(LAYER))
    for state in world.driver.world.states(model):
        assert files_in(state).get(keys.blob("a", digest_of(LAYER))) == LAYER


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_a_compacted_history_is_the_old_one_or_the_new_one(
    commit: bool, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zotctl.storage.local.history.REMEMBERED_EVENTS", 0)
    world = World(commit=commit, model=model)
    store = world.store()
    first, last = (push_image(store, "a", "v1", seed=seed, layers=1) for seed in ("one", "two"))
    for _ in range(9):
        store.roots[0].history.note("a", "push", first)
    key = keys.history("a")
    world.settle("a")
    world.kept, world.whole = {}, ()
    states: set[bytes] = set()
    world.driver.look = lambda state: states.add(files_in(state).get(key, b"")) or []
    world.watch()
    local_of(store.roots[0]).history.compact("a", lambda: Here({str(last)}, {"v1"}))
    assert len(states) > 1, "nothing was compacted"
    for body in states:
        assert str(last) in {json.loads(line)["d"] for line in body.split()}, body


@COMMITS
@pytest.mark.parametrize("model", ["journal", "any"])
def test_a_mirror_never_lacks_what_its_source_has(tmp_path: Path, commit: bool, model: str) -> None:
    """Neither while it adds nor while it removes; and what goes leaves its bytes to gc."""
    world = World(commit=commit, model=model)
    push_image(world.store(), "a", "kept", seed="one", layers=1)
    push_image(world.store(), "a", "gone", seed="two", layers=1)
    world.settle("a")
    images.lay_out(tmp_path / "a", IMAGE, [images.row(IMAGE, "kept")])
    lost = world.driver.look
    world.driver.look = lambda state: lost(state) or _lacks(state, "kept")
    world.watch()
    options = ImportOptions(mirror=True)
    run("import-layout", world.store(), lambda run: import_layout(run, str(tmp_path), options))
    assert set(tags(files_in(world.driver.inner), "a")) == {"kept"}  # type: ignore[arg-type]
    assert world.driver.faults == []
    assert world.driver.looked > 3


def _lacks(state: MemoryDriver, tag: str) -> list[str]:
    there = tags(files_in(state), "a").get(tag)
    return [] if there == str(IMAGE.digest) else [f"{tag} leads to {there}"]


OWN = {
    "scrub": lambda store: run("scrub", store, lambda run: scrub(run, ScrubOptions())),
    "gc": lambda store: collect(store, 3600.0),
    "verify": lambda store: run("verify", store, lambda run: verify(run, VerifyOptions(deep=True))),
}
"""Jobs, of which some keep notes of their own below .zotctl."""
MOST_STATES = 40


@pytest.mark.parametrize("job", OWN)
def test_a_job_bears_what_a_cut_has_left_of_its_own_notes(job: str) -> None:
    """Whatever is missing or torn, it and all other jobs end well the next time, and nothing is lost."""
    world = World(commit=False, model="any")
    push_image(world.store(), "a", "v1", seed="one", layers=1)
    push_image(world.store(), "a", "v1", seed="two", layers=1)
    OWN[job](world.store())
    world.settle("a")
    left: list[MemoryDriver] = []
    world.driver.look = lambda state: left.append(state) or []
    world.watch()
    for _ in range(2):
        assert OWN[job](world.store()).exit_code == 0
    for state in left[:: len(left) // MOST_STATES + 1]:
        for name, again in OWN.items():
            report = again(store_over(state))
            assert (name, report.exit_code, report.errors) == (name, 0, [])
        assert not world.lost(state)


@pytest.mark.parametrize("model", ["journal", "log", "any"])
def test_a_session_has_the_bytes_that_it_says_or_is_gone(model: str) -> None:
    """After a cut in the middle of an upload: who goes on from the offset that the server tells publishes the blob."""
    body = bytes(range(256)) * 40
    world, left = World(commit=False, model=model), list[MemoryDriver]()
    world.driver.look = lambda state: left.append(state) or []
    repository = world.store().repository_for_push("a")
    world.watch()
    session = repository.start_upload()
    for start in range(0, len(body), 4000):
        with repository.resume_upload(session) as upload:
            upload.write([body[start : start + 4000]])
            upload.save()
    assert len(left) > 10
    resumed = 0
    for state in left:
        again = store_over(state).repository_for_push("a")
        try:
            offset = again.upload_offset(session)
        except BlobUploadUnknown:
            continue
        with again.resume_upload(session) as upload:
            assert upload.offset == offset
            upload.write([body[offset:]])
            upload.finish(digest_of(body))
        with again.open_blob(digest_of(body)) as reader:
            assert reader.read_at(0, len(body)) == body
        resumed += 1
    assert resumed > 3
