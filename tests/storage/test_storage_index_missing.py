"""A layout with content and no index.json is nobody's empty repository (I4, I9): its tags are not known. Where an NFS
client has taken the name away and the commit died, the next writer finishes the swap."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.faults import Crash, Recorder
from tests.jobs.layouts import run_scrub, store_of, told
from tests.stores import push_blob, push_image, root_over, store_over
from zotctl.config import RootConfig
from zotctl.errors import IndexMissing, IoFailed, NotFound, NotYetReadable, ZotctlError
from zotctl.jobs.ages import Ages
from zotctl.jobs.dedupe import dedupe
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.local.gc import remove_index_temps
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.storage import Store, keys
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Capabilities, Driver, Info, Reader
from zotctl.storage.local import network as network_drivers
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.index_file import make_layout
from zotctl.storage.local.network import NetworkDriver
from zotctl.storage.local.opening import open_root
from zotctl.storage.local.protocol import local_of
from zotctl.storage.wrappers import WrappedDriver


class Quick(Clock):
    """Sleeps take no time, and count."""

    slept = 0.0

    def elapsed(self) -> float:
        return super().elapsed() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


class Late(Quick):
    """Something happens while somebody sleeps."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._happens()


class SillyRename(WrappedDriver):
    """As a client of NFS replaces an index.json that is open on its host: by two requests. `then` comes in between."""

    def __init__(self, inner: Driver, then: BaseException) -> None:
        super().__init__(inner)
        self.then, self.dead = then, False

    def rename(self, source: str, target: str) -> None:
        if target.endswith("/index.json"):
            old = f"{keys.parent(target)}/.nfs0000000000000001"
            self.inner.rename(target, old)
            self.inner.unlink(old)  # by the client, when the last process that has it open closes it
            self.dead = isinstance(self.then, Crash)
            raise self.then
        self.inner.rename(source, target)

    def stat(self, key: str) -> Info:
        self._die()
        return self.inner.stat(key)

    def unlink(self, key: str) -> None:
        self._die()
        self.inner.unlink(key)

    def _die(self) -> None:
        if self.dead:
            raise self.then


def network(root: Path) -> NetworkDriver:
    return NetworkDriver(str(root), capabilities=Capabilities(local=False, exchange=False))


def another(root: Path) -> Store:
    return store_over(network(root), clock=Quick())


def cut(root: Path, then: BaseException | None = None) -> None:
    """Push `v2`, up to the moment when index.json has lost its name."""
    then = then or Crash("killed")
    with pytest.raises(type(then)):
        push_image(store_over(SillyRename(network(root), then)), "a", "v2", seed="two")
    assert not (root / "a/index.json").exists()


def run_gc(store: Store, delay: float = 0.0) -> Report:
    run = Run("gc", store)
    return run.finish(lambda: gc(run, lambda root: GcOptions(delay=delay)))


def blobs(root: Path) -> set[str]:
    return {path.name for path in (root / "a/blobs").rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    store = store_over(network(tmp_path))
    push_image(store, "a", "v1")
    push_image(store, "a", "gone", seed="gone")
    store.repository("a").delete_manifest("gone")
    store.close()
    return tmp_path


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """On a local file system: another program has removed index.json."""
    store = store_of(tmp_path)
    push_image(store, "a", "v1")
    store.close()
    (tmp_path / "a/index.json").unlink()
    return tmp_path


# -- a commit that an NFS client has cut in two ----------------------------------------------------


@pytest.mark.parametrize("error", [Crash("killed"), IoFailed("the second request failed")])
def test_i4_gc_finishes_it_before_it_collects(root: Path, error: BaseException) -> None:
    cut(root, error)
    report = run_gc(another(root))
    assert (report.errors, report.findings) == ([], [])
    assert another(root).repository("a").tags() == ["v1", "v2"]
    assert another(root).repository("a").manifest("v2").body == images.image("two").manifest
    assert not [path.name for path in (root / "a").iterdir() if path.name.startswith(".")]


def test_i4_a_commit_finishes_it(root: Path) -> None:
    repository = another(root).repository_for_push("a")
    cut(root)
    repository.delete_manifest("v1")
    assert another(root).repository("a").tags() == ["v2"]


def test_i4_a_reader_gets_503_and_its_server_finishes_it(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(root)
    store = another(root)
    for ask in (store.repository, store.repository_for_push):
        with pytest.raises(NotYetReadable, match="a commit was cut short"):
            ask("a")
    assert store.repositories() == ["a"]
    store.maintain()
    assert store.repository("a").tags() == ["v1", "v2"]
    assert "index.json was missing, since a commit was cut short" in caplog.text


def test_i9_nobody_finishes_it_through_a_link(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What lies there is another store's, or a tool's own."""
    cut(root)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a"
    (root / "a").rename(elsewhere)
    (root / "a").symlink_to(elsewhere)
    before = sorted(path.name for path in elsewhere.iterdir())
    store = another(root)
    with pytest.raises(NotYetReadable):
        store.repository("a")
    store.maintain()
    run_gc(another(root))
    assert sorted(path.name for path in elsewhere.iterdir()) == before


def test_i4_a_reader_waits_for_the_second_request(root: Path) -> None:
    cut(root)
    (swap,) = (root / "a").glob(f"{keys.INDEX_TEMP_PREFIX}*")
    store = store_over(network(root), clock=(clock := Late(lambda: swap.rename(root / "a/index.json"))))
    assert store.repository("a").tags() == ["v1", "v2"]
    assert clock.slept


def test_i4_half_a_swap_is_not_taken(root: Path) -> None:
    """A process that died while it wrote has taken no name away."""
    cut(root)
    half = keys.Swap("half", 2_000_000_000_000_000_000, 1)
    path = root / half.key("a")
    path.write_bytes(b'{"schemaVersion": 2, "manif')
    with network(root).append(half.key("a")) as writer:
        writer.set_attributes(None, half.ours)
    run_gc(another(root), 3600.0)
    assert another(root).repository("a").tags() == ["v1", "v2"]


def left_behind(driver: Driver, stamp: int = 1_700_000_000_000_000_000) -> str:
    """What a process leaves that dies before its rename: an index without tags. Its key."""
    left = keys.Swap("left", stamp, 1)
    with driver.create(left.key("a")) as writer:
        writer.write([images.index([])])
        writer.set_attributes(None, left.ours)
    return left.key("a")


@pytest.mark.parametrize("network_first", [True, False], ids=["by-network", "on-its-host"])
def test_i4_a_swap_from_before_a_later_commit_is_not_taken(root: Path, network_first: bool) -> None:
    """It was left by a process that died before its rename; then another program removed index.json."""
    left = left_behind(network(root), 2_000_000_000_000_000_000)  # whatever the clocks of two hosts say
    push_image(store_over(network(root)) if network_first else store_of(root), "a", "v2", seed="two")
    assert not (root / left).exists()
    (root / "a/index.json").unlink()
    before = blobs(root)
    report = run_gc(another(root))
    assert "index.json is missing in a" in str(report.errors)
    assert blobs(root) == before and not (root / "a/index.json").exists()


class Remembering(WrappedDriver):
    """As a client of NFS whose names were not looked up anew: index.json is opened once more though it has gone."""

    def __init__(self, inner: Driver, old: str) -> None:
        super().__init__(inner)
        self.remembered = {"a/index.json": old}

    def open(self, key: str) -> Reader:
        return self.inner.open(self.remembered.pop(key, key))


def test_i4_a_commit_that_began_from_a_remembered_one_finishes_it(root: Path) -> None:
    os.link(root / "a/index.json", root / "old")
    store = store_over(driver := Remembering(network(root), "old"), clock=Quick())
    repository = store.repository_for_push("a")
    cut(root)
    driver.remembered = {"a/index.json": "old"}
    repository.delete_manifest("v1")
    assert another(root).repository("a").tags() == ["v2"]


class Grained:
    """A store on a network whose time stamps are multiples of `grain_ns`."""

    def __init__(self, grain_ns: int) -> None:
        self.clock = Hand(1_800_000_000.123456789)
        now = lambda: int(self.clock.at * 1e9) // grain_ns * grain_ns  # noqa: E731
        self.driver = MemoryDriver(local=False, exchange=False, grain_ns=grain_ns, clock=now)
        push_image(store_over(self.driver, clock=self.clock), "a", "v1")

    def cut(self) -> None:
        self.clock.at += 10
        with pytest.raises(Crash):
            push_image(store_over(SillyRename(self.driver, Crash("killed")), clock=self.clock), "a", "v2", seed="two")

    def finished(self) -> Store:
        self.clock.at += 10
        store = store_over(self.driver, clock=self.clock)
        local_of(store.roots[0]).take_over("a")
        return store


@pytest.mark.parametrize("grain_ns", [1, 100, 1000, 10**9])
def test_i4_it_is_finished_whatever_time_stamps_the_server_keeps(grain_ns: int) -> None:
    """NTFS and CIFS have 100 ns, UDF a microsecond, and ext3 whole seconds: there, the stamp is dated back."""
    made = Grained(grain_ns)
    made.cut()
    assert made.finished().repository("a").tags() == ["v1", "v2"]


def test_i4_it_is_finished_though_later_commits_have_failed() -> None:
    """They are in the history, which is written before the rename."""
    made = Grained(1)
    made.cut()
    made.clock.at += 10
    history = local_of(store_over(made.driver, clock=made.clock).roots[0]).history
    history.note("a", "push", images.image("three").digest, {"v3": None})
    assert made.finished().repository("a").tags() == ["v1", "v2"]


def test_i4_a_file_that_another_program_makes_meanwhile_stays(root: Path) -> None:
    class Meanwhile(WrappedDriver):
        def link(self, source: str, target: str) -> None:
            self.appears(target)
            self.inner.link(source, target)

        def rename(self, source: str, target: str) -> None:
            self.appears(target)
            self.inner.rename(source, target)

        def appears(self, target: str) -> None:
            if target == "a/index.json":
                (root / target).write_bytes(images.index([]))

    cut(root)
    store = store_over(Meanwhile(network(root)), clock=Quick())
    local_of(store.roots[0]).take_over("a")
    assert (root / "a/index.json").read_bytes() == images.index([])


def test_i4_gc_keeps_what_is_left_of_an_index_that_went_while_it_ran(root: Path) -> None:
    cut(root)
    store = another(root)
    later = Ages(store.roots[0].driver, store.clock.now() + 9e6, store.clock)
    remove_index_temps(store.roots[0], "a", 0.0, later)
    assert len(list((root / "a").glob(f"{keys.INDEX_TEMP_PREFIX}*"))) == 1


# -- where both requests are ours, since the client's may come late -------------------------------


def nfs(root: Path) -> NetworkDriver:
    return NetworkDriver(str(root), capabilities=Capabilities(local=False, exchange=False, replaces=False))


def mounted(root: Path, wrap: Callable[[Driver], Driver] = lambda driver: driver) -> Store:
    return store_over(wrap(nfs(root)), clock=Quick())


def served(root: Path) -> Store:
    """By a server that has met what there is."""
    store = mounted(root)
    with suppress(NotYetReadable):
        store.repository("a")
    store.maintain()
    return store


def left_in(root: Path) -> list[str]:
    return [path.name for path in (root / "a").iterdir() if path.name.startswith(".")]


class Held(WrappedDriver):
    """The client of a process that is killed, or frozen, at the n-th of its requests from the moment when it takes the
    name of index.json away. `held` is the request that still goes to the server, some time or other."""

    def __init__(self, inner: Driver, at: int, then: Callable[[], None]) -> None:
        super().__init__(inner)
        self.left, self.then, self.held, self.dead = at, then, lambda: None, False

    def rename(self, source: str, target: str) -> None:
        self._do(lambda: self.inner.rename(source, target), begins=source == "a/index.json")

    def link(self, source: str, target: str) -> None:
        self._do(lambda: self.inner.link(source, target))

    def unlink(self, key: str) -> None:
        self._do(lambda: self.inner.unlink(key))

    def _do(self, request: Callable[[], None], *, begins: bool = False) -> None:
        if self.dead:
            raise Crash("killed")
        self.begun = begins or getattr(self, "begun", False)
        if self.begun:
            self.left -= 1
            if self.left == 0:
                self.held = request
                self.then()
        request()


def killed_at(root: Path, request: int) -> Callable[[], None]:
    """Push `v2` up to a request of its swap. Returns what sends that."""
    made = list[Held]()

    def kill() -> None:
        made[0].dead = True
        raise Crash("killed")

    def wrap(driver: Driver) -> Driver:
        made.append(Held(driver, request, kill))
        return made[0]

    with pytest.raises(Crash):
        push_image(mounted(root, wrap), "a", "v2", seed="two")
    return made[0].held


def test_i3_no_client_is_asked_to_replace_an_index(root: Path) -> None:
    recorder = Recorder(nfs(root))
    push_image(store_over(recorder, clock=Quick()), "a", "v2", seed="two")
    assert not [call for call in recorder.calls if call.method == "rename" and call.target == "a/index.json"]
    assert another(root).repository("a").tags() == ["v1", "v2"]
    assert left_in(root) == []


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "never sent"])
@pytest.mark.parametrize("request_", [1, 2, 3, 4], ids=["aside", "named", "own name", "old one"])
def test_i4_a_commit_that_is_killed_at_any_request(root: Path, request_: int, sent: bool) -> None:
    """What it had not told anybody may be there or not; the rest is, at once or after the next commit."""
    late = killed_at(root, request_)
    if sent:
        late()
    assert run_gc(mounted(root)).errors == []
    push_image(mounted(root), "a", "v3", seed="three")
    expected = ["v1", "v3"] if request_ == 1 or (request_ == 2 and not sent) else ["v1", "v2", "v3"]
    assert mounted(root).repository("a").tags() == expected
    assert left_in(root) == []


@pytest.mark.parametrize("request_", [1, 2, 3, 4], ids=["aside", "named", "own name", "old one"])
def test_i4_a_request_of_a_dead_process_that_comes_late_undoes_no_commit(root: Path, request_: int) -> None:
    """Its lock is free, and its client was cut off: the server gets it after the commits of others."""
    late = killed_at(root, request_)
    for number in range(3):
        push_image(served(root), "a", f"w{number}", seed=f"{number}")
    with suppress(ZotctlError):
        late()
    assert {"v1", "w0", "w1", "w2"} <= set(served(root).repository("a").tags())
    push_image(mounted(root), "a", "w3", seed="w3")
    assert {"v1", "w0", "w1", "w2", "w3"} <= set(mounted(root).repository("a").tags())
    assert left_in(root) == []


@pytest.mark.parametrize("request_", [1, 2, 3, 4], ids=["aside", "named", "own name", "old one"])
def test_i4_a_process_that_was_frozen_in_its_swap_goes_on(root: Path, request_: int) -> None:
    """It has lost its lock meanwhile, and does not know."""

    def others_go_on() -> None:
        run_gc(mounted(root), 3600.0)
        push_image(mounted(root), "a", "w", seed="w")

    store = mounted(root, lambda driver: Held(driver, request_, others_go_on))
    local_of(store.roots[0]).context.locks._try = lambda byte: Unlocked()  # type: ignore[method-assign,assignment,return-value]
    push_image(store, "a", "v2", seed="two")
    assert mounted(root).repository("a").tags() == ["v1", "v2", "w"]


class Unlocked:
    """A lock that is lost."""

    def current(self) -> bool:
        return True

    def release(self) -> None: ...


def test_i4_a_file_that_is_made_between_the_two_loses_no_row(root: Path) -> None:
    """A foreign tool has met no index.json, and begun with its own image alone."""
    made = images.image("foreign")
    images.lay_out(root / "b", made, [images.row(made, "foreign")])
    for path in (root / "b/blobs/sha256").iterdir():
        path.rename(root / "a/blobs/sha256" / path.name)

    def make() -> None:
        (root / "b/index.json").rename(root / "a/index.json")

    push_image(mounted(root, lambda driver: Held(driver, 2, make)), "a", "v2", seed="two")
    assert mounted(root).repository("a").tags() == ["foreign", "v1", "v2"]
    assert left_in(root) == []


def test_i4_it_comes_back_on_the_host_of_the_files(root: Path) -> None:
    """Which serves them too, and sees no network."""
    killed_at(root, 2)
    store = store_of(root)
    with pytest.raises(NotYetReadable):
        store.repository("a")
    store.maintain()
    assert store.repository("a").tags() == ["v1"]


def test_i4_who_may_not_write_waits_for_one_who_may(root: Path) -> None:
    """That one may have to wait for a lock."""
    killed_at(root, 2)
    server = mounted(root)
    with pytest.raises(NotYetReadable):
        server.repository("a")
    clock = Late(lambda: server.maintain() if clock.slept > 10 else None)
    reader = Store([open_root(RootConfig(path=str(root)), clock, read_only=True)], clock)
    assert reader.repository("a").tags() == ["v1"]


def test_i4_nor_does_it_wait_for_ever(root: Path) -> None:
    killed_at(root, 2)
    reader = Store([open_root(RootConfig(path=str(root)), clock := Quick(), read_only=True)], clock)
    with pytest.raises(NotYetReadable, match="a server or `zotctl gc` puts it back"):
        reader.repository("a")
    assert clock.slept > 10


def test_i4_of_what_is_left_the_last_comes_back(root: Path) -> None:
    """A process dies with its swap half done, another one beside it; then a late request of the first takes away what a
    third has made of it."""
    late = killed_at(root, 1)
    with nfs(root).open("a/index.json") as reader:
        base = reader.read_at(0, 1 << 20)
    push_image(mounted(root), "a", "w", seed="w")
    older = keys.Swap("older", 1_900_000_000_000_000_000, 1_700_000_000_000_000_000, was=True)
    with nfs(root).create(older.key("a")) as writer:
        writer.write([base])
        writer.set_attributes(None, older.before)
    time.sleep(0.05)
    late()
    assert served(root).repository("a").tags() == ["v1", "w"]


@pytest.mark.parametrize(("kind", "replaces"), [("nfs", False), ("nfs4", False), ("fuse.sshfs", True), ("cifs", True)])
def test_i4_of_which_file_systems_a_client_takes_two_requests(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, replaces: bool
) -> None:
    monkeypatch.setattr(network_drivers, "filesystem", lambda path: kind)
    driver = network_drivers.detect(str(root))
    assert driver.capabilities.replaces is replaces
    assert network_drivers.probe(driver, ".zotctl/tmp").replaces is replaces


def test_i4_what_was_never_stamped_is_not_taken(root: Path) -> None:
    """Its writer was killed long ago, between the last byte and the stamp. It is an index, and no later one."""
    push_image(mounted(root), "a", "v2", seed="two")
    unfinished = keys.Swap("unfinished", 2_000_000_000_000_000_000, 1_900_000_000_000_000_000)
    (root / unfinished.key("a")).write_bytes((root / "a/index.json").read_bytes())
    push_image(mounted(root), "a", "v3", seed="three")
    (root / "a/index.json").unlink()
    assert "index.json is missing in a" in str(run_gc(mounted(root), 3600.0).errors)
    assert not (root / "a/index.json").exists()


def test_i4_what_was_set_aside_late_is_not_removed(root: Path) -> None:
    """Another program has made index.json anew meanwhile, and the next commit has not merged what there was."""
    late = killed_at(root, 1)
    push_image(mounted(root), "a", "w", seed="w")
    late()
    (root / "a/index.json").write_bytes(images.index([]))
    push_image(mounted(root), "a", "v3", seed="three")
    assert run_gc(mounted(root), 3600.0).errors == []
    assert mounted(root).repository("a").tags() == ["v1", "v3", "w"]


def test_i4_what_was_replaced_before_a_later_commit_does_not_come_back(root: Path) -> None:
    killed_at(root, 4)
    push_image(mounted(root), "a", "v3", seed="three")
    (root / "a/index.json").unlink()
    assert "index.json is missing in a" in str(run_gc(mounted(root)).errors)
    assert not (root / "a/index.json").exists()


# -- an index.json that is missing, and no swap ------------------------------------------------------


def test_i9_a_layout_that_has_lost_it_takes_no_push_and_no_read(lost: Path) -> None:
    store = store_of(lost)
    for ask in (store.repository, store.repository_for_push):
        with pytest.raises(
            IndexMissing, match=r"index.json is missing in a, .* put it back from a copy, or remove"
        ) as e:
            ask("a")
        assert e.value.status == 503
    assert store.repositories() == []
    assert not (lost / "a/index.json").exists()


def test_i4_a_commit_that_began_before_does_not_begin_an_empty_one(lost: Path) -> None:
    store, begun = store_of(lost), list[str]()
    with pytest.raises(IndexMissing):
        store.roots[0].protocol.commit_index("a", [lambda tx, draft: begun.append(tx.name)])
    assert not begun, "nothing was published, and nothing noted in the history"
    with pytest.raises(IndexMissing):
        make_layout(local_of(store.roots[0]).context, "a", "sha512")
    assert not (lost / "a/index.json").exists()


def test_i4_one_that_came_back_meanwhile_is_no_empty_one(tmp_path: Path) -> None:
    """A foreign tool removes the name, and then gives it to another file."""

    class Away(WrappedDriver):
        away = False

        def open(self, key: str) -> Reader:
            if key == "a/index.json" and self.away:
                self.away = False
                raise NotFound(key)
            return self.inner.open(key)

    push_image(store_of(tmp_path), "a", "v1")
    store = store_over(driver := Away(LocalDriver(str(tmp_path))))
    repository = store.repository_for_push("a")
    driver.away = True
    repository.delete_manifest("v1")
    assert not driver.away
    assert store_of(tmp_path).repository("a").tags() == []


def test_i4_jobs_collect_nothing_of_it(lost: Path) -> None:
    before = blobs(lost)
    report = run_gc(store_of(lost))
    assert report.exit_code == 5
    assert "index.json is missing in a" in str(report.errors)
    store = store_of(lost)
    run = Run("dedupe", store)
    run.finish(lambda: dedupe(run))
    assert told(run_scrub(store_of(lost))) == {("a", None, "invalid_index")}
    assert blobs(lost) == before and not (lost / "a/index.json").exists()


def test_i4_what_it_has_in_the_trash_is_not_purged(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    push_image(store, "a", "v1")
    extra = push_blob(store.repository_for_push("a"), b"extra")
    run_gc(store_of(tmp_path), 1e-6)
    trashed = list((tmp_path / ".zotctl/trash").rglob(extra.encoded))
    (tmp_path / "a/index.json").unlink()
    run_gc(store_of(tmp_path))
    assert trashed and trashed[0].exists()


def test_i3_an_empty_layout_without_one_takes_a_push(tmp_path: Path) -> None:
    """As a crash of zot leaves it: nothing was in it."""
    images.lay_out(tmp_path / "a", images.image("x"))
    (tmp_path / "a/index.json").unlink()
    for path in (tmp_path / "a/blobs/sha256").iterdir():
        path.unlink()
    store = store_of(tmp_path)
    with pytest.raises(NotFound):
        store.roots[0].protocol.indexes.read("a")
    push_image(store, "a", "v1")
    assert store_of(tmp_path).repository("a").tags() == ["v1"]


def test_it_is_served_when_it_is_back(lost: Path) -> None:
    store = store_of(lost)
    with pytest.raises(ZotctlError):
        store.repository("a")
    (lost / "a/index.json").write_bytes(images.index([]))
    assert store.repository("a").tags() == []


def test_one_whose_index_a_move_has_set_aside_is_no_damage() -> None:
    """A move that was cut short goes on, and nobody is told of lost tags."""
    driver = MemoryDriver()
    indexes = local_of(root_over(driver)).indexes
    push_image(store_over(driver), "app", "v1")
    driver.rename(keys.index("app"), keys.index_set_aside("app"))
    assert not indexes.is_missing("app")
    driver.unlink(keys.index_set_aside("app"))
    assert indexes.is_missing("app")
