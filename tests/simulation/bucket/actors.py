"""What is at work on a bucket: the clients of directories' simulation, behind another store, and the jobs of buckets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.simulation import actors
from tests.simulation.actors import GivenUp
from tests.simulation.bucket.machine import Process
from tests.simulation.bucket.model import DELAY, Op
from tests.simulation.bucket.world import open_store
from tests.simulation.scheduler import SECOND, Script
from zotctl.errors import BlobUnknown, BlobUploadUnknown, NameUnknown, Unavailable, UploadConflict
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest

AWAY = (Unavailable, NameUnknown)
"""Answers that tell nothing: 503, or a repository that is not there."""
LOST = (BlobUploadUnknown, UploadConflict)
"""What a client hears of an upload whose session it lost: by a fault, or because it took too long."""
JOB_ERRORS = ("Busy", "HeldElsewhere", "Unavailable", "OutcomeUnknown", "SlowDown", "Expired", "ClockDoubtful")


class Client(actors.Client):
    def __init__(self, process: Process, *, dedupe: bool, part: int) -> None:
        super().__init__(process, open_store(process, dedupe=dedupe, part=part), DELAY)

    @contextmanager
    def op(self, kind: str, repo: str = "", digest: str = "", **more: Any) -> Iterator[Any]:
        """What the process is about from here to the end of the block. Raises GivenUp for no answer."""
        machine: Any = self.machine
        op = Op(kind, repo, digest, step=machine.steps, time=machine.now, **more)
        op.versions = {name: len(known.states) for name, known in machine.model.repos.items()}
        self.process.op = op  # type: ignore[assignment]
        try:
            yield op
        except AWAY as error:
            machine.note(self.process.name, "ANSWER", type(error).__name__)
            raise GivenUp from error
        except LOST as error:
            if not machine.had_faults and machine.now - op.time < machine.delay * SECOND / 4:
                raise
            machine.note(self.process.name, "ANSWER", type(error).__name__)
            raise GivenUp from error
        finally:
            op.ended = machine.now
        self.process.op = None

    def answer(self, what: str) -> None:
        super().answer(what)
        op: Any = self.process.op
        if op is not None and op.did and what in ("DELETE tag 404", "DELETE manifest ManifestUnknown"):
            self.model.fail(self.process, "I4", f"{what}, and it was this request that deleted it")

    def get(self, repo: str, digest: str, since: int, step: int) -> None:
        """A blob of a manifest that was read at `since`: from then on it is there for the delay."""
        with self.op("get", repo, digest):
            try:
                with self.here(repo).open_blob(parse_digest(digest)) as reader:
                    body = reader.read_at(0, reader.size)
            except BlobUnknown:
                self._check_missing(repo, digest, since, step)
                return
            if hashlib.sha256(body).hexdigest() != digest[7:]:
                self.model.fail(self.process, "I2", f"GET of {digest} in {repo} gave other bytes")

    def _check_missing(self, repo: str, digest: str, since: int, step: int) -> None:
        self.answer("GET blob 404")
        late = self.machine.now - since >= DELAY * SECOND
        if not (late or self.model.deleted_since(repo, digest, step)):
            self.model.fail(self.process, "I5", f"a pull of {repo} found its manifest and not {digest}")

    def job(self, kind: str, name: str, work: Callable[[Run], None]) -> None:
        """`name` is that of the lease: two collectors at once have two."""
        run = Run(name, self.store)
        with self.op(kind):
            report = run.finish(lambda: work(run))
            for error in report.errors:
                self.answer(f"{kind}: {error['error']}")
                if error["error"] not in JOB_ERRORS:
                    self.model.fail(self.process, "I10", f"{kind} failed: {error['error']} {error['reason']}")


def put_back(seconds: float, *, turns: int) -> Script:
    """The object store's clock, some turns later."""

    def run(client: actors.Client) -> None:
        for _ in range(turns):
            client.process.turn("wait", "clock")
        client.machine.jump(-seconds)

    return run


def collector(name: str = "gc") -> Script:
    options = GcOptions(delay=DELAY, rules=Rules(delay=DELAY))
    return lambda client: client.job("gc", name, lambda run: gc(run, lambda root: options))


def collectors(count: int, every: float = 0.4, name: str = "gc") -> Script:
    """As cron starts them."""
    run_once = collector(name)

    def run(client: actors.Client) -> None:
        for _ in range(count):
            with suppress(GivenUp):
                run_once(client)
            client.pause(every)

    return run


def scrubber() -> Script:
    options = ScrubOptions(workers=1)
    return lambda client: client.job("scrub", "scrub", lambda run: scrub(run, options))


def patient(body: Script, tries: int = 3) -> Script:
    """A client that asks again after a 503, later."""

    def run(client: actors.Client) -> None:
        for _ in range(tries - 1):
            try:
                return body(client)
            except GivenUp:
                client.pause(0.03)
        body(client)

    return run
