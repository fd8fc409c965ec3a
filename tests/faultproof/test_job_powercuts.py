"""A real power cut in the middle of every job, on ext4 and xfs: no byte that was on the device before is gone, the
store opens, and the job, run again, ends well.

After each cut point another program has just flushed a file of its own: the names that the job has changed are then on
the device, and whatever bytes it didn't flush are not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests import images
from tests.faultproof.checks import REF_NAME, faults_of, files_below, tags
from tests.faultproof.devices import Device, made
from tests.faultproof.powercut import NoCheckpoint, NoDataFlush
from tests.faults import Faults
from tests.stores import push_blob, push_image, store_over
from zotctl.errors import ZotctlError
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.imports import job, sources
from zotctl.jobs.imports.export import ExportOptions, export
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.jobs.report import Report
from zotctl.jobs.restore import restore
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.storage import Store, keys
from zotctl.storage.driver import Checkpoint, Driver, Info
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.history import Here
from zotctl.storage.local.protocol import local_of
from zotctl.storage.wrappers import WrappedDriver

IMAGE = images.image("one", layers=4)
CONTENT = [IMAGE.manifest, *IMAGE.blobs]
LAYER = IMAGE.blobs[1]
DAMAGED = LAYER[:-1] + bytes([LAYER[-1] ^ 1])
STRAY = b"a layer that nothing needs"
POINTS = (1, 3, 8, 1000)
"""After which of the calls that change names the power goes; the last is the end of the job."""
CHANGES = ("rename", "unlink", "link")


class Cut(Faults):
    """The power goes after the n-th change of a name."""

    def __init__(self, inner: Driver, device: Device, counter: list[int]) -> None:
        super().__init__(inner)
        self.device, self.counter = device, counter

    def _after(self) -> None:
        self.counter[0] -= 1
        if not self.counter[0]:
            self.device.flush_names()
            self.device.cut()

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self._after()

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._after()

    def unlink(self, key: str) -> None:
        super().unlink(key)
        self._after()


@dataclass
class Place:
    """A store on a device, and what was on the device before the job."""

    device: Device
    root: Path
    commit: bool
    flushing: Callable[[Driver], Driver] = lambda driver: driver
    kept: dict[str, set[bytes]] = field(default_factory=dict)
    """By key: what it may hold."""
    counter: list[int] = field(default_factory=lambda: [0])
    stores: list[Store] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.root.with_name(f"{self.root.name}-source")

    def store(self, *, commit: bool | None = None, dedupe: bool = True) -> Store:
        driver = Cut(self.flushing(self.plain(self.root)), self.device, self.counter)
        store = store_over(driver, commit=self.commit if commit is None else commit, dedupe=dedupe)
        self.stores.append(store)
        return store

    def close(self) -> None:
        """Nothing may be open when the device is taken off."""
        for store in self.stores:
            with suppress(ZotctlError):
                store.close()
        self.stores.clear()

    def plain(self, path: Path) -> Driver:
        return LocalDriver(str(path), filesystem=self.device.kind)

    def settle(self, *names: str) -> None:
        self.device.settle()
        for key, body in files_below(self.root).items():
            if any(key.startswith(f"{name}/blobs/") for name in names):
                self.kept[key] = {body}

    def lost(self) -> list[str]:
        """Of what was there: neither in its place nor in the trash."""
        files = files_below(self.root)
        trash = {key.split("/", 3)[3]: body for key, body in files.items() if key.startswith(keys.TRASH)}
        return [
            f"{key} has {len(files[key]) if key in files else 'no'} bytes"
            for key, bodies in self.kept.items()
            if files.get(key) not in bodies and trash.get(key) not in bodies
        ]


def run(job: str, store: Store, work: Callable[[Run], None]) -> Report:
    found = Run(job, store)
    return found.finish(lambda: work(found))


class Dedupe:
    """Two repositories that were safe for years, and a copy in the pool whose bytes are in memory yet."""

    names: tuple[str, ...] = ("a", "b")

    def prepare(self, place: Place) -> None:
        for name in self.names:
            push_image(place.store(dedupe=False), name, "v1", seed="one", layers=4)
        place.settle(*self.names)
        for body in CONTENT:
            push_blob(place.store(commit=False).repository_for_push("c"), body)

    def act(self, place: Place) -> None:
        run("dedupe", place.store(), lambda run: dedupe(run, DedupeOptions(workers=1)))

    def faults(self, place: Place) -> list[str]:
        files = files_below(place.root)
        whole = {key: body for key, body in files.items() if key.split("/")[0] in self.names}
        return place.lost() + faults_of(whole) + faults_of(files, whole=False)


class Undo(Dedupe):
    def prepare(self, place: Place) -> None:
        for name in self.names:
            push_image(place.store(), name, "v1", seed="one", layers=4)
        place.settle(*self.names)

    def act(self, place: Place) -> None:
        run("dedupe", place.store(), lambda run: dedupe(run, DedupeOptions(undo=True, workers=1)))


class Repair(Dedupe):
    """Damage in one inode of two repositories; a third one has the good bytes."""

    def prepare(self, place: Place) -> None:
        super().prepare(place)
        run("dedupe", place.store(), lambda run: dedupe(run, DedupeOptions(workers=1)))
        push_blob(place.store(dedupe=False).repository_for_push("d"), LAYER)
        inode = place.root / keys.blob("a", digest_of(LAYER))
        (place.root / keys.blob("c", digest_of(LAYER))).unlink()
        (place.root / keys.pool(digest_of(LAYER))).unlink()
        inode.write_bytes(DAMAGED)
        place.settle(*self.names, "d")
        for name in self.names:
            place.kept[keys.blob(name, digest_of(LAYER))] = {DAMAGED, LAYER}

    def act(self, place: Place) -> None:
        run("scrub", place.store(), lambda run: scrub(run, ScrubOptions(repair=True)))

    def faults(self, place: Place) -> list[str]:
        return place.lost() + faults_of(files_below(place.root), whole=False)


class Heal(Repair):
    """The same, by a push."""

    def act(self, place: Place) -> None:
        push_blob(place.store().repository_for_push("a"), LAYER)


class Collect(Dedupe):
    """A tag is deleted, its image trashed, and then purged."""

    names = ("a",)

    def prepare(self, place: Place) -> None:
        push_image(place.store(), "a", "v1", seed="one", layers=4)
        push_image(place.store(), "a", "v2", seed="two", layers=4)
        place.settle("a")
        place.kept = {key: bodies for key, bodies in place.kept.items() if bodies & set(map(bytes, CONTENT))}

    def act(self, place: Place) -> None:
        store = place.store()
        with suppress(ZotctlError):
            store.repository_for_push("a").delete_manifest("v2")
        with suppress(ZotctlError):
            store.repository_for_push("a").delete_manifest(images.image("two", layers=4).digest)
        run("gc", store, lambda run: gc(run, lambda _: GcOptions(delay=0.0, trash=3600.0)))
        run("gc", place.store(), lambda run: gc(run, lambda _: GcOptions(delay=0.0)))


class Restore(Dedupe):
    """What was trashed goes back, and the trash is purged."""

    names = ("a",)
    image = images.image("two", layers=4)

    def prepare(self, place: Place) -> None:
        store = place.store()
        push_image(store, "a", "v1", seed="one", layers=4)
        push_image(store, "a", "v2", seed="two", layers=4)
        store.repository_for_push("a").delete_manifest(self.image.digest)
        run("gc", store, lambda run: gc(run, lambda _: GcOptions(delay=0.0, trash=3600.0)))
        store.close()
        place.device.settle()
        place.kept = {keys.blob("a", digest_of(body)): {body} for body in (*CONTENT, *self.image.blobs)}

    def act(self, place: Place) -> None:
        run("gc", place.store(), lambda run: restore(run, f"a@{self.image.digest}"))
        run("gc", place.store(), lambda run: gc(run, lambda _: GcOptions(delay=1.0, trash=0.0)))


class Compact(Dedupe):
    """The history that retention needs."""

    names = ("a",)

    def prepare(self, place: Place) -> None:
        store = place.store()
        first, _ = (push_image(store, "a", "v1", seed=seed, layers=1) for seed in ("two", "one"))
        for _ in range(50):
            store.roots[0].history.note("a", "push", first)
        place.settle("a")

    def act(self, place: Place) -> None:
        root = place.store().roots[0]
        with suppress(ZotctlError):
            local_of(root).history.compact("a", lambda: Here({str(images.image("one", layers=1).digest)}, {"v1"}))

    def faults(self, place: Place) -> list[str]:
        body = (place.root / keys.history("a")).read_bytes()
        wanted = str(images.image("one", layers=1).digest).encode()
        return super().faults(place) + ([] if wanted in body else [f"the history has {len(body)} bytes"])


class Import(Dedupe):
    """Nothing was there; what was told of with `commit` is."""

    names = ()
    options: ClassVar[dict[str, Any]] = {}

    def prepare(self, place: Place) -> None:
        images.lay_out(place.source, IMAGE, [images.row(IMAGE, "v1")])
        place.device.settle()

    def act(self, place: Place) -> None:
        options = ImportOptions(repo="a", **self.options)
        report = run("import-layout", place.store(), lambda run: import_layout(run, str(place.source), options))
        self.told = report.exit_code == 0

    def faults(self, place: Place) -> list[str]:
        files = files_below(place.root)
        faults = faults_of(files, whole=place.commit)
        if self.told and place.commit and tags(files, "a") != {"v1": str(IMAGE.digest)}:
            faults.append("what was told of is gone")
        return faults


class Link(Import):
    options: ClassVar[dict[str, Any]] = {"link": True}


class Move(Import):
    """The source is whole, or the copies are."""

    options: ClassVar[dict[str, Any]] = {"move": True}

    def faults(self, place: Place) -> list[str]:
        files, source = files_below(place.root), files_below(place.source)
        faults = faults_of(files, whole=place.commit)
        if faults:
            return faults
        blobs = {f"blobs/sha256/{digest_of(body).encoded}": body for body in CONTENT}
        names = "".join(str(body) for key, body in source.items() if key.startswith((".index.json", "index.json")))
        here = tags(files, "a").get("v1") == str(IMAGE.digest)
        if not here and not (REF_NAME in names and all(source.get(key) == body for key, body in blobs.items())):
            faults.append("the tag is in neither place")
        return faults + [
            f"{key} is in neither place"
            for key, body in blobs.items()
            if body not in (source.get(key), files.get(f"a/{key}"))
        ]


class LinkMove(Move):
    options: ClassVar[dict[str, Any]] = {"link": True, "move": True}


class Export(Import):
    """An archive that was told of is there and whole; until then it has no name, or that of the run."""

    @staticmethod
    def archive(place: Place) -> Path:
        return place.root.with_name(f"{place.root.name}-archives") / "store.tar"

    def prepare(self, place: Place) -> None:
        self.archive(place).parent.mkdir()
        super().prepare(place)

    def act(self, place: Place) -> None:
        options = ExportOptions(str(self.archive(place)), overwrite=True)
        report = run("import-layout", place.store(), lambda run: export(run, str(place.source), options))
        self.told = report.exit_code == 0
        self.body = self.archive(place).read_bytes() if self.told else b""

    def faults(self, place: Place) -> list[str]:
        archive = self.archive(place)
        body = archive.read_bytes() if archive.exists() else None
        return [] if body == self.body or not self.told else [f"the archive has {body and len(body)} bytes"]


JOBS = (Import, Link, Move, LinkMove, Export, Dedupe, Undo, Repair, Heal, Collect, Restore, Compact)


@pytest.fixture(params=["ext4", "xfs"], scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with made(request.param) as device:
        yield device


def cut_at(place: Place, job: Dedupe, point: int) -> list[str]:
    """What is wrong after the cut."""
    for path in place.device.point.glob("*-*"):
        shutil.rmtree(path)  # the last one's: there are few inodes
    place.root.mkdir()
    job.prepare(place)
    place.counter[0] = point
    with suppress(ZotctlError):
        job.act(place)
    if place.counter[0] > 0:
        place.device.flush_names()
        place.device.cut()
    place.close()
    place.device.mount_again()
    place.counter[0] = 0
    return job.faults(place)


@pytest.fixture(autouse=True)
def nothing_is_being_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a file that can't be read would be looked at again after two seconds, and again."""
    monkeypatch.setattr("zotctl.jobs.check.hashing.WRITTEN_IN_PLACE_S", 0.0)


@pytest.fixture(autouse=True)
def only_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a compaction of a few events would change nothing."""
    monkeypatch.setattr("zotctl.storage.local.history.REMEMBERED_EVENTS", 0)


@pytest.fixture
def in_source(monkeypatch: pytest.MonkeyPatch) -> Callable[[Place], None]:
    """Changes in the source of an import count as well."""
    before = sources.in_directory

    def watch(place: Place) -> None:
        def in_directory(*arguments: Any, **options: Any) -> tuple[Driver, list[str]]:
            driver, names = before(*arguments, **options)
            return Cut(driver, place.device, place.counter), names

        monkeypatch.setattr(job, "in_directory", in_directory)

    return watch


@pytest.mark.parametrize("commit", [False, True], ids=["lazy", "commit"])
@pytest.mark.parametrize("kind", JOBS, ids=lambda kind: kind.__name__.lower())
def test_a_power_cut_loses_nothing_that_was_safe(
    device: Device, kind: type[Dedupe], commit: bool, in_source: Callable[[Place], None]
) -> None:
    for point in POINTS:
        job, place = kind(), Place(device, device.point / f"{kind.__name__}-{commit}-{point}", commit)
        in_source(place)
        assert cut_at(place, job, point) == [], f"after {point}"
        job.act(place)
        place.close()
        assert job.faults(place) == [], f"run again, after {point}"


class NoFileFlush(WrappedDriver):
    """A mutant of the storage: what was written by others, or long before, is not flushed by its name."""

    def sync_file(self, key: str) -> Info:
        return self.inner.stat(key)

    def checkpoint(self) -> Checkpoint | None:
        return NoCheckpoint()


GUARDED: list[tuple[str, type[Dedupe], Callable[[Driver], Driver]]] = [
    ("ext4", Move, NoFileFlush),
    ("xfs", Move, NoFileFlush),
    ("xfs", Dedupe, NoFileFlush),
    ("xfs", Heal, NoFileFlush),
    ("xfs", Repair, NoDataFlush),
    ("xfs", Compact, NoDataFlush),
]
"""Where a flush that is left out shows. ext4 writes the bytes itself before it renames over a file, and xfs shares the
blocks of a copy, so that for the others it shows in the states of `test_job_cuts` only."""


@pytest.mark.parametrize(
    ("device", "kind", "mutant"), GUARDED, indirect=["device"], ids=lambda it: getattr(it, "__name__", it).lower()
)
def test_a_flush_left_out_loses_something(
    device: Device, kind: type[Dedupe], mutant: Callable[[Driver], Driver], in_source: Callable[[Place], None]
) -> None:
    """The guard of the test above."""
    lost: list[str] = []
    for point in POINTS:
        place = Place(device, device.point / f"mutant-{kind.__name__}-{point}", False, mutant)
        in_source(place)
        lost += cut_at(place, kind(), point)
    assert lost
