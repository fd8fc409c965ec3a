"""What is at work on a store, each by the real code: clients behind `serve`, jobs, and foreign tools.

An actor is a script: a function of a `Client`. What a client is told goes to the model, which holds the store to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from tests import images
from tests.simulation import content
from tests.simulation.content import BODIES, MANIFESTS, Image
from tests.simulation.local.machine import DELAY, Process
from tests.simulation.local.model import DELAY_NS, Model, Op
from tests.simulation.local.world import open_store
from tests.simulation.model import blob_key, parse
from tests.simulation.scheduler import SECOND, Script
from zotctl.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    Busy,
    LayoutInvalid,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    NotFound,
    NotYetReadable,
    ReadOnly,
    Referenced,
)
from zotctl.jobs.ages import Ages
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.dedupe import DedupeOptions, dedupe
from zotctl.jobs.gc import GcOptions, gc, restore
from zotctl.jobs.local.gc import ActiveUploads, Chosen, purge, sweep
from zotctl.jobs.reachable import ReachableBlobs
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.storage import Repository, Store, keys
from zotctl.storage.local.protocol import local_of

AWAY = (Busy, LayoutInvalid, NameUnknown, NotYetReadable)
"""Answers that tell nothing: a lock that a frozen process holds, an index.json that a tool is in the middle of,
a repository that is not there (any more)."""
SWEPT = 60
"""Seconds after which a collector takes temporary files away: a client that is frozen for so long may have to begin
again, and so may one that was pushing when the clock was set ahead."""
JOB_ERRORS = ("Busy", "LayoutInvalid", "NotYetReadable", "HeldElsewhere")


class GivenUp(Exception):
    """The client got no answer that it can go on with."""


class Client:
    def __init__(self, process: Process) -> None:
        self.process, self.machine = process, process.machine
        self.model: Model = process.machine.model
        self.store: Store = open_store(process)
        process.store = self.store

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

    def answer(self, what: str) -> None:
        self.machine.note(self.process.name, "ANSWER", what)

    def here(self, name: str) -> Repository:
        return self.store.repository(name)

    def sleep(self, seconds: float) -> None:
        self.process.clock.sleep(seconds)

    # -- blobs ----------------------------------------------------------------------------------

    def head(self, repo: str, digest: str) -> bool:
        with self.op("head", repo, digest):
            try:
                self.store.repository_for_push(repo).blob(parse_digest(digest))
            except BlobUnknown:
                self.answer("HEAD 404")
                return False
            self.answer("HEAD 200")
            self.model.reserve(self.process, repo, digest)
        return True

    def upload(self, repo: str, digest: str) -> None:
        with self.op("upload", repo, digest, grants=frozenset({(repo, digest)})):
            repository, body = self.store.repository_for_push(repo), BODIES[digest]
            with repository.resume_upload(repository.start_upload()) as upload:
                upload.write([body])
                upload.finish(parse_digest(digest))
            self.answer("PUT blob 201")
            self.model.reserve(self.process, repo, digest)

    def mount(self, source: str, repo: str, digest: str) -> bool:
        with self.op("mount", repo, digest, source=source):
            repository = self.store.repository_for_push(repo)
            if not repository.mount_blob(self.here(source), parse_digest(digest)):
                self.answer("mount 202")
                return False
            self.answer("mount 201")
            self.model.reserve(self.process, repo, digest)
        return True

    def delete_blob(self, repo: str, digest: str) -> None:
        with self.op("delete blob", repo, digest):
            try:
                self.here(repo).delete_blob(parse_digest(digest))
            except (BlobUnknown, Referenced) as error:
                self.answer(f"DELETE blob {type(error).__name__}")
                return
            self.answer("DELETE blob 202")
            self.model.blob_deleted(self.process)

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

    # -- manifests ------------------------------------------------------------------------------

    def put(self, repo: str, image: Image, tags: tuple[str, ...]) -> bool:
        children = frozenset({image.digest, *image.children})
        grants = frozenset({(repo, str(image.digest))})
        with self.op("put", repo, str(image.digest), tags=tags, grants=grants, added=children):
            try:
                self.store.repository_for_push(repo).put_manifest(image.manifest, image.body, tags)
            except ManifestBlobUnknown as error:
                self.answer(f"PUT manifest 404 {error.detail}")
                self.model.refused(self.process, repo, [str(digest) for digest in error.detail])
                return False
            self.answer("PUT manifest 201")
            wanted: dict[str, str | None] = {tag: str(image.digest) for tag in tags}
            self.model.acknowledged(self.process, wanted, str(image.digest), there=True)
        return True

    def untag(self, repo: str, tag: str) -> None:
        with self.op("untag", repo, tags=(tag,)):
            try:
                self.here(repo).delete_manifest(tag)
            except ManifestUnknown:
                self.answer("DELETE tag 404")
                return
            self.answer("DELETE tag 202")
            self.model.acknowledged(self.process, {tag: None}, "", there=False)

    def delete_manifest(self, repo: str, image: Image) -> None:
        with self.op("delete manifest", repo, str(image.digest)):
            try:
                self.here(repo).delete_manifest(image.digest)
            except (ManifestUnknown, Referenced) as error:
                self.answer(f"DELETE manifest {type(error).__name__}")
                return
            self.answer("DELETE manifest 202")
            self.model.acknowledged(self.process, {}, str(image.digest), there=False)

    def pull(self, repo: str, tag: str) -> None:
        """A whole image by its tag: the manifest, then what it names."""
        with self.op("pull", repo) as op:
            since, step = self.machine.now, self.machine.steps
            try:
                found = self.here(repo).manifest(tag)
            except ManifestUnknown:
                self.answer("GET manifest 404")
                self._check_untagged(op, repo, tag)
                return
            self.answer(f"GET manifest 200 {found.digest}")
            if not any(rows.tags.get(tag) == found.digest for rows in self.model.states_since(repo, op)):
                self.model.fail(
                    self.process, "I4", f"{repo}:{tag} was answered with {found.digest}, which it never was"
                )
        for digest in sorted(content.reach(frozenset({str(found.digest)}))):
            self.get(repo, digest, since, step)

    def _check_untagged(self, op: Op, repo: str, tag: str) -> None:
        states = self.model.states_since(repo, op)
        gone = any(tag not in rows.tags for rows in states)
        named = {rows.tags.get(tag, "") for rows in states}
        deleted = any(self.model.deleted_since(repo, digest, op.step) for digest in named)
        if not (gone or deleted or named & self.model.repo(repo).lost):
            self.model.fail(self.process, "I4", f"{repo}:{tag} was there all the time, and a pull did not find it")

    # -- jobs -----------------------------------------------------------------------------------

    def job(self, kind: str, name: str, work: Callable[[Run], None]) -> None:
        """`name` is that of the lease: two collectors at once have two."""
        run = Run(name, self.store)
        with self.op(kind) as op:
            report = run.finish(lambda: work(run))
            for error in report.errors:
                self.answer(f"{kind}: {error['error']}")
                swept = error["error"] == "NotFound" and self.machine.now - op.time > SWEPT * SECOND
                refused = error["error"] == "ReadOnly" and bool(self.machine.links)
                refused |= error["error"] == "ClockDoubtful" and self.machine.skewed
                if error["error"] not in JOB_ERRORS and not refused and not (swept and keys.TMP in error["reason"]):
                    self.model.fail(self.process, "I10", f"{kind} failed: {error['error']} {error['reason']}")
            self.model.settle(self.process)


def pusher(repo: str, image: Image, *tags: str, head: bool = True, slow: float = 0.0, tries: int = 3) -> Script:
    """What every client does: HEAD, send what is missing, then the manifest; `slow` delays lie between."""

    def run(client: Client) -> None:
        for _ in range(tries):
            for digest in image.blobs:
                if not (head and client.head(repo, digest)):
                    client.upload(repo, digest)
            if slow:
                client.sleep(slow * DELAY)
            if client.put(repo, image, tags):
                return

    return run


def reserved(repo: str, image: Image, *tags: str, slow: float = 0.0) -> Script:
    """Sends nothing: if all is there, as HEAD says, the manifest has to be accepted."""

    def run(client: Client) -> None:
        if all([client.head(repo, digest) for digest in image.blobs]):
            if slow:
                client.sleep(slow * DELAY)
            client.put(repo, image, tags)

    return run


def tagger(repo: str, image: Image, *tags: str) -> Script:
    """Moves tags to a manifest, whatever is there."""

    def run(client: Client) -> None:
        for tag in tags:
            client.put(repo, image, (tag,))

    return run


def index_pusher(repo: str, index: Image, *tags: str) -> Script:
    """The children by digest, then the index that lists them."""

    def run(client: Client) -> None:
        for child in index.children:
            pusher(repo, MANIFESTS[child])(client)
        client.put(repo, index, tags)

    return run


def mounter(source: str, repo: str, image: Image, *tags: str) -> Script:
    def run(client: Client) -> None:
        for digest in image.blobs:
            if not client.mount(source, repo, digest):
                client.upload(repo, digest)
        client.put(repo, image, tags)

    return run


def _each(do: Callable[[Client, str, str], object], repo: str, things: Iterable[str]) -> Script:
    def run(client: Client) -> None:
        for thing in things:
            do(client, repo, thing)

    return run


def uploader(repo: str, *digests: str) -> Script:
    return _each(Client.upload, repo, digests)


def looker(repo: str, *digests: str) -> Script:
    return _each(Client.head, repo, digests)


def reader(repo: str, *tags: str) -> Script:
    return _each(Client.pull, repo, tags)


def untagger(repo: str, *tags: str) -> Script:
    return _each(Client.untag, repo, tags)


def manifest_deleter(repo: str, image: Image) -> Script:
    return lambda client: client.delete_manifest(repo, image)


def blob_deleter(repo: str, *digests: str) -> Script:
    return _each(Client.delete_blob, repo, digests)


def regretter(repo: str, digest: str) -> Script:
    """Deletes a blob, pushes it again, deletes it again, all within the hour."""

    def run(client: Client) -> None:
        client.delete_blob(repo, digest)
        client.upload(repo, digest)
        client.delete_blob(repo, digest)

    return run


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


def in_turn(*bodies: Script) -> Script:
    def run(client: Client) -> None:
        for body in bodies:
            body(client)

    return run


def compacter(repo: str) -> Script:
    """What a collector does with a long history, and it alone."""

    def work(run: Run) -> None:
        local = local_of(run.roots[0])
        with local.context.locks.hold(repo), suppress(NotFound):
            marks = ReachableBlobs(run.roots[0], repo).now()
            local.history.compact(repo, marks.reachable, set(marks.index.tags()))

    return lambda client: client.job("compact", "compact", work)


def pull_noter(repo: str, image: Image) -> Script:
    """A server that notes a pull."""

    def run(client: Client) -> None:
        client.sleep(0.001)
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
            client.sleep(0.002)
            client.process.turn("set the clock", f"{step:+g} s")
            machine.skew, machine.skewed = machine.skew + int(step * SECOND), True

    return run


def later(delays: float, body: Script) -> Script:
    def run(client: Client) -> None:
        client.sleep(delays * DELAY)
        body(client)

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
                    client.sleep(slow * DELAY)
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
