"""Everything at once on one store: six pushers, pullers, contenders for the same tags, five jobs, two servers or three,
and signals at random. What the contenders were told is checked for linearisability.

`ZOTCTL_SOAK=600` makes it last for so many seconds. A failure prints the history of what it is about.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import tools
from tests.buckets import Server, make_bucket
from tests.clients.peers import clean_environment
from tests.faultproof.checks import faults_of, files_below
from tests.soak.actors import CONTENDED, REPOSITORIES, Contender, Importer, Puller, Pusher, World
from tests.soak.fleet import Chaos, Fleet, Jobs
from tests.soak.journal import Journal
from tests.soak.places import Directory, InBucket, Place
from tests.soak.registers import why_not
from zotctl.oci.digest import digest_of

SECONDS = float(os.environ.get("ZOTCTL_SOAK", "28" if os.environ.get("CI") else "8"))
PATIENCE = 90.0
"""More seconds, on a machine that is slow, until each of `WANTED` has happened."""
ALL_REPOSITORIES = (*REPOSITORIES, CONTENDED, "imported/0", "imported/1")
MANNERS = ("quick", "slow", "slow", "reserved", "reserved", "reserved")
LOOPS: tuple[tuple[str, ...], ...] = (("gc",), ("gc",), ("dedupe",), ("scrub",), ("verify",))
WANTED = ("pushed quick", "pushed slow", "pushed reserved", "pulled", "imported", "deleted", "gc 0", "dedupe 0",
          "scrub 0", "verify 0", "signals", "blobs reserved by HEAD", "contended")  # fmt: skip


@contextmanager
def threads(world: World, *loops: Callable[[], None]) -> Iterator[None]:
    made = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in made:
        thread.start()
    try:
        yield
    finally:
        world.stop.set()
        for thread in made:
            thread.join(400)
    assert not any(thread.is_alive() for thread in made), "an actor hangs"


def job_loop(world: World, words: tuple[str, ...]) -> Callable[[], None]:
    more = ("--delay", f"{world.delay:.0f}s") if words == ("gc",) else ()

    def loop() -> None:
        while not world.stop.wait(random.uniform(0.2, 1.5)):
            # 11: the other loop of the same job has the lease.
            world.jobs.run(*words, *more, allowed=(0, 11) if LOOPS.count(words) > 1 else (0,))

    return loop


@pytest.mark.timeout(SECONDS + PATIENCE + 600)
def test_everything_at_once_in_a_directory(tmp_path: Path) -> None:
    place = Directory(tmp_path / "root")
    everything_at_once(tmp_path, place, lambda world: look_at_directory(world, place.root, tmp_path))


@pytest.mark.timeout(SECONDS + PATIENCE + 600)
@pytest.mark.parametrize("dedupe", [False, True], ids=["own", "pool"])
def test_everything_at_once_in_a_bucket(tmp_path: Path, own_server: Server, dedupe: bool) -> None:
    place = InBucket(make_bucket(own_server), dedupe=dedupe)
    everything_at_once(tmp_path, place, lambda world: look_at_bucket(world, place, tmp_path))


def everything_at_once(home: Path, place: Place, look: Callable[[World], None]) -> None:
    journal = Journal(home)
    fleet = Fleet(home, place, journal)
    jobs = Jobs(home, place, journal)
    wanted = tuple(what for what in WANTED if what not in place.unlikely)
    world, chaos = World(fleet, jobs, journal, place.delay, wanted), Chaos(fleet, jobs, journal, place)
    try:
        rush(world, chaos, home)
        place.recover()
        check(world, look)
        assert fleet.stop() == [0] * place.servers
        assert "traceback" not in fleet.logs()
    finally:
        fleet.close()
        print("soak:", dict(sorted(journal.counts.items())))
    if journal.failures:
        pytest.fail(f"{len(journal.failures)} failures, of which the first\n" + "\n".join(journal.failures[:3]), False)


def rush(world: World, chaos: Chaos, home: Path) -> None:
    pushers = [Pusher(world, f"pusher{number}", manner) for number, manner in enumerate(MANNERS)]
    pullers = [Puller(world, f"puller{number}") for number in range(2)]
    contenders = [Contender(world, f"contender{number}") for number in range(3)]
    importer = Importer(world, "importer", home / "layouts")
    actors = [(lambda a=actor: a.loop(a.step)) for actor in (*pushers, *pullers, *contenders, importer)]  # type: ignore[misc]
    with threads(world, *actors, *(job_loop(world, words) for words in LOOPS)):
        end, counts = time.monotonic() + SECONDS, world.journal.counts
        while not world.journal.failures:
            now = time.monotonic()
            if now > end + PATIENCE or (now > end and all(counts[what] for what in world.wanted)):
                break
            time.sleep(random.uniform(0.2, 1.5))
            chaos.strike()
        world.stop.set()
        chaos.thaw()
    if not world.journal.failures:
        assert [what for what in world.wanted if not counts[what]] == []


def check(world: World, look: Callable[[World], None]) -> None:
    """Every acknowledged tag, then what was deleted, then what other programs say."""
    world.fleet.restart()
    look_at_registers(world)
    look_at_tags(world)
    time.sleep(1.1)  # a session that nobody has gone on with for a second is nobody's
    world.jobs.run("gc", "--delay", "0s", "--untagged", "all")
    look(world)
    world.jobs.run("verify", "--deep")
    world.jobs.run("scrub", "--restart")
    look_at_tags(world)


def look_at_directory(world: World, root: Path, home: Path) -> None:
    look_at_what_is_left(world, root)
    for fault in faults_of(files_below(root)):
        world.journal.fail(fault, *fault.replace("/", " ").split())
    look_with_skopeo(world, root, home)


def look_at_bucket(world: World, place: InBucket, home: Path) -> None:
    """After the last collection: no content that no tag needs, and a copy that is a plain layout."""
    if world.journal.failures:
        return
    alive = {digest_of(body).encoded for made in world.tags.held.values() for body in (made.manifest, *made.blobs)}
    for found in place.bucket.client().list(""):
        parts = found.key.split("/")
        if ("blobs" in parts or "_blobs" in parts or "holds" in parts) and not alive & set(parts):
            world.journal.fail("was deleted and is not freed", found.key)
        # An intent of a collector that was killed stays until nobody would carry it out any more.
        if found.key.startswith((".zotctl/uploads/", ".zotctl/staged/", ".zotctl/damaged/")):
            world.journal.fail("is left over", found.key)
    copy = home / "copy"
    copy.mkdir()
    code = world.jobs.run("import-layout", place.address, "--all", root=str(copy))
    if code == 0:
        look_with_skopeo(world, copy, home)


def look_at_registers(world: World) -> None:
    """What the contenders were told, and what is there now, is what a register could have said."""
    reader, registers = Contender(world, "at the end"), world.registers
    for tag, calls in sorted(registers.calls.items()):
        digest, before = None, len(calls)
        while len(calls) == before:
            digest = reader.read(tag)
        if digest is not None:
            world.tags.held[CONTENDED, tag] = registers.images[digest]
        if wrong := why_not(calls):
            world.journal.fail("is not linearisable:\n" + "\n".join(map(str, wrong)) + "\n", CONTENDED, tag)
    unanswered = sum(not call.answered for calls in registers.calls.values() for call in calls)
    world.journal.count("calls without an answer", unanswered)


def look_at_tags(world: World) -> None:
    puller = Puller(world, "at the end")
    for (name, tag), made in sorted(world.tags.held.items()):
        if fault := puller.fault(name, tag, made):
            world.journal.fail(fault, name, tag, made.digest, *map(digest_of, made.blobs))
    for name in ALL_REPOSITORIES:
        answer, _ = puller.ask("GET", f"/v2/{name}/tags/list")
        wanted = {tag for at, tag in world.tags.held if at == name}
        found = set(answer.json()["tags"] or ()) if answer.status_code == 200 else set()
        for tag in wanted ^ found if not world.journal.failures else ():
            world.journal.fail("is lost" if tag in wanted else "was deleted, and is back", name, tag)


def look_at_what_is_left(world: World, root: Path) -> None:
    """After a collection with no delay: what acknowledged tags need, and nothing else anywhere."""
    if world.journal.failures:
        return  # it ended in the middle of something
    needed: dict[str, set[str]] = {}
    for (name, _), made in world.tags.held.items():
        needed.setdefault(name, set()).update(digest_of(body).encoded for body in (made.manifest, *made.blobs))
    for name in ALL_REPOSITORIES:
        directory = root / name / "blobs" / "sha256"
        found = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
        for encoded in found - needed.get(name, set()):
            world.journal.fail("was deleted and is not freed", f"{name}/", encoded)
    alive = set().union(*needed.values())
    # What a process left that was killed between two names of it; gc waits a minute before it calls that dead.
    passing = {path.stat().st_ino for path in (root / ".zotctl" / "tmp").iterdir()}
    for place in ("pool", "trash", "damaged", "uploads"):
        for path in (root / ".zotctl" / place).rglob("*"):
            wanted = place == "pool" and (path.name in alive or path.stat().st_ino in passing)
            if path.is_file() and not wanted:
                world.journal.fail(f"is left in {path.parent}", path.name)


def look_with_skopeo(world: World, root: Path, home: Path) -> None:
    if shutil.which("skopeo") is None:
        if not world.journal.failures:
            tools.need("skopeo")  # everything else was looked at
        return

    seen: dict[str, int] = {}
    for (name, tag), made in sorted(world.tags.held.items()):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 3:
            continue
        words = ("skopeo", "inspect", f"oci:{root / name}:{tag}")
        done = subprocess.run(words, env=clean_environment(home), capture_output=True, text=True, timeout=60)
        if done.returncode or json.loads(done.stdout)["Digest"] != str(made.digest):
            world.journal.fail(f"skopeo: {done.stdout[:300]} {done.stderr[-500:]}", name, tag, made.digest)
