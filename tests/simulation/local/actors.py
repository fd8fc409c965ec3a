"""What is at work on a directory: clients, the jobs of directories, and foreign tools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests import images
from tests.simulation import actors
from tests.simulation.actors import GivenUp
from tests.simulation.content import BODIES, Image
from tests.simulation.local.machine import DELAY, Process
from tests.simulation.local.model import DELAY_NS, Op
from tests.simulation.local.world import open_store
from tests.simulation.model import blob_key, parse
from tests.simulation.scheduler import SECOND, Script
from zotctl.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    Busy,
    LayoutInvalid,
    NameUnknown,
    NotFound,
    NotYetReadable,
    ReadOnly,
)
from zotctl.jobs.ages import Ages
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.local.gc import ActiveUploads, Chosen, purge, sweep
from zotctl.jobs.reachable import ReachableBlobs
from zotctl.jobs.restore import restore
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import keys
from zotctl.storage.local.history import Here
from zotctl.storage.local.protocol import local_of

AWAY = (Busy, LayoutInvalid, NameUnknown, NotYetReadable)
"""Answers that tell nothing: a lock that a frozen process holds, an index.json that a tool is in the middle of,
a repository that is not there (any more)."""
SWEPT = 60
"""Seconds after which a collector takes temporary files away: a client that is frozen for so long may have to begin
again, and so may one that was pushing when the clock was set ahead."""
JOB_ERRORS = ("Busy", "LayoutInvalid", "NotYetReadable", "HeldElsewhere")


class Client(actors.Client):
    def __init__(self, process: Process) -> None:
        super().__init__(process, open_store(process), DELAY)

    @contextmanager
    def op(self, kind: str, repo: str = "", digest: str = "", **more: object) -> Iterator[Op]:
        """What the process is about from here to the end of the block. Raises GivenUp for no answer."""
        machine = self.machine
        op = Op(kind, repo, digest, step=machine.steps, time=machine.now, **more)  # type: ignore[arg-type]
        op.versions = {name: len(known.states) for name, known in self.model.repos.items()}
        self.process.op = op
        try:
            yield op
        except AWAY as error:
            machine.note(self.process.name, "ANSWER", type(error).__name__)
            raise GivenUp from error
        except ReadOnly as error:
            if repo not in machine.links:
                raise
            self.answer("405 read-only")
            raise GivenUp from error
        except (NotFound, BlobUploadUnknown) as error:
            if machine.now - op.time < SWEPT * SECOND and not machine.skewed:
                raise
            machine.note(self.process.name, "ANSWER", f"too slow: {error.message}")
            raise GivenUp from error
        self.process.op = None

    def get(self, repo: str, digest: str, since: int, step: int) -> None:
        """A blob of a manifest that was read at `since`: from then on it is there for the delay."""
        with self.op("get", repo, digest):
            known_damaged = self._is_marked(repo, digest)
            try:
                with self.here(repo).open_blob(parse_digest(digest)) as reader:
                    body = reader.read_at(0, reader.size)
            except BlobUnknown:
                self._check_missing(repo, digest, since, step)
                return
            if hashlib.sha256(body).hexdigest() != digest[7:] and (known_damaged or not self.model.rotten):
                self.model.fail(self.process, "I2", f"GET of {digest} in {repo} gave other bytes")

    def _is_marked(self, repo: str, digest: str) -> bool:
        names = self.machine.driver.names
        folder, inode = names.get(keys.damaged_links(parse_digest(digest))), names.get(blob_key(repo, digest))
        return folder is not None and any(one is inode for one in folder.names.values())

    def _check_missing(self, repo: str, digest: str, since: int, step: int) -> None:
        self.answer("GET blob 404")
        model, known = self.model, self.model.repo(repo)
        late = self.machine.now - since >= DELAY_NS
        inode = model.names.get(blob_key(repo, digest))
        bad = bool(model.rotten) and inode is not None
        if not (late or bad or digest in known.lost or model.deleted_since(repo, digest, step)):
            model.fail(self.process, "I5", f"a pull of {repo} found its manifest and not {digest}")

    def job(self, kind: str, name: str, work: Callable[[Run], None]) -> None:
        """`name` is that of the lease: two collectors at once have two."""
        run, began = Run(name, self.store), len(self.machine.trace)
        with self.op(kind) as op:
            report = run.finish(lambda: work(run))
            for error in report.errors:
                self.answer(f"{kind}: {error['error']}")
                swept = error["error"] == "NotFound" and self.machine.now - op.time > SWEPT * SECOND
                refused = error["error"] == "ReadOnly" and bool(self.machine.links)
                refused |= error["error"] == "ClockDoubtful" and self.machine.skewed
                refused |= kind == "restore" and error["error"] == "NotFound" and self._purged(error["reason"], began)
                if error["error"] not in JOB_ERRORS and not refused and not (swept and keys.TMP in error["reason"]):
                    self.model.fail(self.process, "I10", f"{kind} failed: {error['error']} {error['reason']}")
            self.model.settle(self.process)

    def _purged(self, reason: str, began: int) -> bool:
        """Whether what a restore says is gone was deleted from the trash since step `began` of the trace."""
        blob = reason.split(" ")[0].partition(":")[2]
        return bool(blob) and any(
            method == "unlink" and key.startswith(f"{keys.TRASH}/") and key.endswith(f"/{blob}")
            for _, method, key, _ in self.machine.trace[began:]
        )


def collector(name: str = "gc", *, foreign: bool = False, doubts: bool = False) -> Script:
    """`doubts`: it compares the clock with what it was, as the command does."""
    options = GcOptions(delay=DELAY, rules=Rules(delay=DELAY, foreign=foreign), compares_clock=doubts)
    return lambda client: client.job("gc", name, lambda run: gc(run, lambda root: options))


def purger() -> Script:
    """The last step of a collector alone."""

    def work(run: Run) -> None:
        root, options = run.roots[0], GcOptions(delay=DELAY)
        purge(run, root, Chosen(options, ActiveUploads(root, DELAY, run.clock.now())))

    return lambda client: client.job("purge", "purge", work)


def sweeper() -> Script:
    """The end of a collector alone."""

    def work(run: Run) -> None:
        sweep(run, run.roots[0], DELAY, Ages(run.roots[0].driver, run.clock.now(), run.clock))

    return lambda client: client.job("purge", "sweep", work)


def compacter(repo: str) -> Script:
    """What a collector does with a long history, and it alone."""

    def work(run: Run) -> None:
        local = local_of(run.roots[0])

        def here() -> Here:
            with local.context.locks.hold(repo):
                marks = ReachableBlobs(run.roots[0], repo).now()
            return Here(marks.reachable, set(marks.index.tags()))

        with suppress(NotFound):
            local.history.compact(repo, here, recent=0)

    return lambda client: client.job("compact", "compact", work)


def pull_noter(repo: str, image: Image) -> Script:
    """A server that notes a pull."""

    def run(client: Client) -> None:
        client.process.clock.sleep(0.001)
        with client.op("pull", repo):
            client.model.repo(repo).pulled[str(image.digest)] = client.machine.now
            client.store.roots[0].protocol.history.note_pull(repo, image.digest)

    return run


def restorer(what: str) -> Script:
    def run(client: Client) -> None:
        def work(run: Run) -> None:
            with suppress(NotFound):
                restore(run, what)

        client.job("restore", "restore", work)

    return run


def deduper() -> Script:
    return lambda client: client.job("dedupe", "dedupe", lambda run: dedupe(run, DedupeOptions(workers=1)))


def undoer() -> Script:
    return lambda client: client.job("dedupe", "dedupe", lambda run: dedupe(run, DedupeOptions(undo=True)))


def scrubber(*, repair: bool = True) -> Script:
    options = ScrubOptions(workers=1, repair=repair)
    return lambda client: client.job("scrub", "scrub", lambda run: scrub(run, options))


def clock_setter(*seconds: float) -> Script:
    """What sets the host's clock, each time by so much."""

    def run(client: Client) -> None:
        machine = client.machine
        for step in seconds:
            client.process.clock.sleep(0.002)
            client.process.turn("set the clock", f"{step:+g} s")
            machine.skew, machine.skewed = machine.skew + int(step * SECOND), True

    return run


def dying(at: int, body: Script) -> Script:
    """It dies before this call, and begins again."""

    def run(client: Client) -> None:
        if not client.process.name.endswith("'"):
            client.process.crash_at = at
        body(client)

    return run


def foreign_tool(repo: str, image: Image, tag: str, slow: float = 0.0) -> Script:
    """Like skopeo or oras: sees that the blobs are there, sends none, and writes index.json in place, with no lock
    and no reservation; within the delay."""

    def run(client: Client) -> None:
        driver, start = client.process.driver, client.machine.now
        with client.op("foreign", repo, grants=frozenset({(repo, str(image.digest))})):
            try:
                for digest in image.blobs:
                    driver.stat(blob_key(repo, digest))
                with driver.open(keys.index(repo)) as reader:
                    body = reader.read_at(0, reader.size)
                document, before = json.loads(body), parse(body)
                if slow:
                    client.pause(slow)
                temp = f"{repo}/foreign-{client.process.name}"
                with driver.create(temp) as writer:
                    writer.write([image.body])
                driver.rename(temp, blob_key(repo, str(image.digest)))
                writer = driver.append(keys.index(repo), create=False)
            except (NotFound, ValueError):
                return
            name = {"org.opencontainers.image.ref.name": tag}
            row = images.descriptor(image.body, image.media_type) | {"annotations": name}
            rows = [one for one in document["manifests"] if one.get("annotations") != name]
            inode = writer.inner._inode
            with writer:
                client.process.turn("may write", keys.index(repo))
                if client.machine.now - start >= DELAY_NS:
                    return
                writer.inner.truncate(0)
                # Once it has begun, a tool goes through with it; a reader may see the file empty meanwhile.
                client.process.turn("write", keys.index(repo))
                writer.inner.write([json.dumps(document | {"manifests": [*rows, row]}).encode()])
                client.model.foreign_wrote(client.process, repo, inode, before)
            client.answer(f"wrote {tag}")

    return run


def replacer(repo: str, digest: str) -> Script:
    """Like an archive that is unpacked, or rsync -t: it removes a damaged file and writes a good one in its place, which
    gets the same number at once, and gives it the time stamp that the other had."""

    def run(client: Client) -> None:
        machine, key = client.machine, blob_key(repo, digest)
        with client.op("foreign", repo, grants=frozenset({(repo, digest)})):
            client.process.turn("replace", key)
            there = machine.driver.names.get(key)
            if there is None:
                return
            machine.driver.unlink(key)
            with machine.driver.create(key) as writer:
                writer.write([BODIES[digest]])
            machine.driver.touch(key, there.mtime)
            client.answer("replaced it")

    return run


def renaming_tool(repo: str, image: Image, tag: str) -> Script:
    """Like umoci: sees that the blobs are there, and renames an index.json of its own in, with no lock and no reservation.
    Nothing comes between its look and its rename: what it would lose of others then is its own doing, not ours."""

    def run(client: Client) -> None:
        process, machine, key = client.process, client.machine, keys.index(repo)
        driver, start, temp = process.driver, machine.now, f"{repo}/umoci-{process.name}"
        with client.op("foreign", repo, grants=frozenset({(repo, str(image.digest))})):
            try:
                for digest in image.blobs:
                    driver.stat(blob_key(repo, digest))
                with driver.create(temp) as writer:
                    writer.write([image.body])
                driver.rename(temp, blob_key(repo, str(image.digest)))
            except NotFound:
                return
            process.turn("rename", temp, key)
            there = machine.driver.names.get(key)
            if there is None or machine.now - start >= DELAY_NS:
                return
            body, name = bytes(there.data), {"org.opencontainers.image.ref.name": tag}
            document, row = json.loads(body), images.descriptor(image.body, image.media_type) | {"annotations": name}
            rows = [one for one in document["manifests"] if one.get("annotations") != name]
            with machine.driver.create(temp) as ours:
                ours.write([json.dumps(document | {"manifests": [*rows, row]}).encode()])
            machine.driver.rename(temp, key)
            client.model.foreign_wrote(process, repo, machine.driver.names[key], parse(body), renamed=True)
            client.answer(f"renamed {tag} in")

    return run
