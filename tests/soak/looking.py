"""What must be there after a soak, and what must not."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from tests import tools
from tests.clients.peers import clean_environment
from tests.faultproof.checks import faults_of, files_below
from tests.soak.actors import CONTENDED, REPOSITORIES, Contender, Puller, World
from tests.soak.places import InBucket, Place
from tests.soak.registers import why_not
from zotctl.oci.digest import digest_of

ALL_REPOSITORIES = (*REPOSITORIES, CONTENDED, "imported/0", "imported/1")


def check(world: World, place: Place, home: Path) -> None:
    """Every acknowledged tag, then what was deleted, then what other programs say."""
    world.fleet.restart()
    look_at_registers(world)
    look_at_tags(world)
    time.sleep(1.1)  # a session that nobody has gone on with for a second is nobody's
    world.jobs.run("gc", "--delay", "0s", "--untagged", "all")
    if isinstance(place, InBucket):
        look_at_bucket(world, place, home)
    look_at_directories(world, place, home)
    world.jobs.run("verify", "--deep")
    world.jobs.run("scrub", "--restart")
    look_at_tags(world)


def look_at_directories(world: World, place: Place, home: Path) -> None:
    for root in place.directories():
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
        if ".zotctl/damaged/" in found.key:
            continue  # the mark of a copy that is gone stays until the next scrub
        if ("blobs" in parts or "_blobs" in parts or "holds" in parts) and not alive & set(parts):
            world.journal.fail("was deleted and is not freed", found.key)
        # An intent of a collector that was killed stays until nobody would carry it out any more.
        if any(f".zotctl/{each}/" in found.key for each in ("uploads", "staged")):
            world.journal.fail("is left over", found.key)
    copy = home / "copy"
    copy.mkdir()
    code = world.jobs.run("import-layout", place.address(0), "--all", root=str(copy))
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
    world.journal.count("histories checked", len(registers.calls))
    world.journal.count("calls in histories", sum(map(len, registers.calls.values())))
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
        if not (root / name).is_dir():
            continue  # in another root
        needed.setdefault(name, set()).update(digest_of(body).encoded for body in (made.manifest, *made.blobs))
    for name in ALL_REPOSITORIES:
        directory = root / name / "blobs" / "sha256"
        found = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
        for encoded in found - needed.get(name, set()):
            world.journal.fail("was deleted and is not freed", f"{name}/", encoded)
    alive = set().union(*needed.values())
    # What a process left that was killed between two names of it; gc waits a minute before it calls that dead.
    damaged = world.jobs.place.troubles.damaged  # what is healed is kept for a week
    passing = {path.stat().st_ino for path in (root / ".zotctl" / "tmp").iterdir()}
    for place in ("pool", "trash", "damaged", "uploads"):
        for path in (root / ".zotctl" / place).rglob("*"):
            wanted = place == "pool" and (path.name in alive or path.stat().st_ino in passing)
            wanted |= place == "damaged" and any(f"sha256:{part}" in damaged for part in path.parts)
            if path.is_file() and not wanted:
                world.journal.fail(f"is left in {path.parent}", path.name)


def look_with_skopeo(world: World, root: Path, home: Path) -> None:
    if shutil.which("skopeo") is None:
        if not world.journal.failures:
            tools.need("skopeo")  # everything else was looked at
        return

    seen: dict[str, int] = {}
    for (name, tag), made in sorted(world.tags.held.items()):
        if not (root / name).is_dir():
            continue
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 3:
            continue
        words = ("skopeo", "inspect", f"oci:{root / name}:{tag}")
        done = subprocess.run(words, env=clean_environment(home), capture_output=True, text=True, timeout=60)
        if done.returncode or json.loads(done.stdout)["Digest"] != str(made.digest):
            world.journal.fail(f"skopeo: {done.stdout[:300]} {done.stderr[-500:]}", name, tag, made.digest)
