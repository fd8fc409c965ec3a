"""What every command has to say of a graph, if the oracle is right. A complaint is a line; no line is agreement.

Two things differ. What is reachable is never lost: that holds whatever is damaged, missing or odd. And what is not
reachable goes: that holds where all can be known, else nothing goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.graphs.making import Graph, is_manifest
from tests.graphs.oracle import FIELDS, named, reachable
from tests.graphs.worlds import NAME, World, write_layout
from zotctl.errors import ZotctlError
from zotctl.jobs.check.scrub import ScrubOptions, scrub
from zotctl.jobs.check.verify import VerifyOptions, verify
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.imports.job import import_layout
from zotctl.jobs.imports.plan import ImportOptions
from zotctl.jobs.report import Report
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest

MAY_STOP = {"another case", "a key twice"}
"""What no specification has: whoever collects nothing there is right, too."""
TRIED = 6
"""Deletions by clients in one graph."""
MISSING = ("missing_blob", "missing_manifest")


class Truth:
    """What the oracle says of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.stored = graph, graph.stored
        self.there = {digest: body for digest, body in graph.bodies.items() if digest not in graph.missing}
        self.good = {digest: body for digest, body in self.there.items() if digest not in graph.damaged}
        self.reached = reachable(graph.heads, self.there)
        self.kept = self.reached & self.there.keys()
        self.known = reachable(graph.heads, self.good)
        """What can be found out without what is damaged."""
        self.damaged = graph.damaged & self.there.keys()

    @property
    def stops(self) -> bool:
        """Is a manifest reachable that can't be read? Then it is not known what it needs. A subject may be missing."""
        unread = self.lacking(self.reached, self.there) | (self.damaged & self.reached)
        return any(is_manifest(self.graph.bodies.get(digest, b"")) for digest in unread)

    @property
    def may_stop(self) -> bool:
        """There is also what could reference something, and says nothing that we understand."""
        leaves = {d for digest in self.reached for d in named(self.there.get(digest, b""), ("manifests",))}
        unclear = any(self.there.get(d, b"").startswith(b"{") and d not in self.graph.types for d in leaves)
        # Damaged content may have been anything before, whatever lists it calls it; missing content is not healed.
        return self.stops or unclear or bool(leaves & self.damaged) or bool(self.graph.quirks & MAY_STOP)

    def lacking(self, reached: set[str], bodies: dict[str, bytes]) -> set[str]:
        """What rows, and manifests that are there, need and that is not there. They don't need their subjects."""
        needed = {needed for digest in reached for needed in named(bodies.get(digest, b""), FIELDS)}
        return (needed | set(self.graph.heads)) - self.there.keys()


Check = Callable[[Truth], Iterator[str]]


def collected(truth: Truth) -> Iterator[str]:
    world = World(truth.graph)
    report = world.collect()
    yield from _kept("gc", truth.kept, world)
    if truth.stops and (report.exit_code != 5 or world.left() != truth.there.keys()):
        yield f"gc: exit code {report.exit_code}, and {_shown(truth.there.keys() - world.left())} gone without knowing"
    if not truth.may_stop and world.left() != truth.kept:
        yield f"gc: {_shown(world.left() - truth.kept)} left, {report.exit_code} {report.findings} {report.errors}"


def _kept(job: str, kept: set[str], world: World) -> Iterator[str]:
    if gone := kept - world.left():
        yield f"{job}: {_shown(gone)} lost, and reachable"


def collected_after_scrub(truth: Truth) -> Iterator[str]:
    """What is known to be damaged has references as before."""
    world = World(truth.graph)
    _scrub(world)
    world.collect()
    yield from _kept("gc after scrub", truth.kept, world)


def blobs_deleted(truth: Truth) -> Iterator[str]:
    """A client deletes them, one by one in a repository of its own each."""
    for digest in _some(truth):
        world = World(truth.graph)
        try:
            world.repository.delete_blob(parse_digest(digest))
        except ZotctlError as error:
            if digest not in truth.reached and not truth.may_stop:
                yield f"DELETE blob: {digest} is not reachable: {type(error).__name__} {error.message}"
        else:
            if digest in truth.reached:
                yield f"DELETE blob: {digest} is gone, and was reachable"
        yield from _kept(f"DELETE blob {digest}", truth.kept - {digest}, world)


def manifests_deleted(truth: Truth) -> Iterator[str]:
    """A client deletes a manifest, and a collector comes after."""
    for digest in [digest for digest in _some(truth) if digest in truth.graph.types]:
        world = World(truth.graph)
        try:
            world.repository.delete_manifest(digest)
        except ZotctlError:
            if world.left() != truth.there.keys():
                yield f"DELETE manifest {digest}: refused, and something is gone"
            continue
        kept = reachable(world.rows(), {d: truth.there[d] for d in world.left()}) & world.left()
        world.collect()
        yield from _kept(f"gc after DELETE manifest {digest}", kept, world)


def _some(truth: Truth) -> list[str]:
    there = sorted(truth.there)
    return Random(truth.graph.seed).sample(there, min(TRIED, len(there)))


def read_by_digest(truth: Truth) -> Iterator[str]:
    """Rows, what they list, and their subjects."""
    repository = World(truth.graph).repository
    for digest in sorted(truth.known & truth.good.keys() & truth.graph.types.keys()):
        try:
            if repository.manifest(digest).body != truth.good[digest]:
                yield f"GET manifest: other bytes for {digest}"
        except ZotctlError as error:
            yield f"GET manifest: {digest} is reachable: {error.message}"
    for digest in sorted(truth.damaged & truth.graph.types.keys()):
        try:
            repository.manifest(digest)
            yield f"GET manifest: {digest} is damaged"
        except ZotctlError:
            pass


def referrers_listed(truth: Truth) -> Iterator[str]:
    repository = World(truth.graph).repository
    for digest in set(truth.graph.heads) & truth.good.keys():
        for subject in named(truth.good[digest], ("subject",)):
            if digest not in {found.digest for found in repository.referrers(subject)}:
                yield f"referrers of {subject}: {digest} is not among them"


def scrubbed(truth: Truth) -> Iterator[str]:
    yield from _told("scrub", _scrub(World(truth.graph)), truth)


def verified(truth: Truth) -> Iterator[str]:
    world = World(truth.graph)
    before = world.left()
    run = Run("verify", world.store)
    yield from _told("verify", run.finish(lambda: verify(run, VerifyOptions(deep=True, workers=1))), truth)
    if world.left() != before:
        yield "verify: it has changed something"


def _scrub(world: World) -> Report:
    run = Run("scrub", world.store)
    return run.finish(lambda: scrub(run, ScrubOptions(workers=1)))


def _told(job: str, report: Report, truth: Truth) -> Iterator[str]:
    missing = {finding.digest for finding in report.findings if finding.kind in MISSING}
    damaged = {finding.digest for finding in report.findings if finding.kind == "digest_mismatch"}
    if untold := truth.lacking(truth.known, truth.good) - missing:
        yield f"{job}: {_shown(untold)} missing, and not told"
    if wrong := missing - truth.lacking(truth.reached, truth.there):
        yield f"{job}: {_shown(wrong)} told as missing, and nothing needs it"
    if damaged != truth.damaged:
        yield f"{job}: {_shown(damaged ^ truth.damaged)} damaged and not told, or the other way round"
    if report.errors:
        yield f"{job}: {report.errors}"


def explained(truth: Truth) -> Iterator[str]:
    world = World(truth.graph)
    for digest in _some(truth):
        run = Run("gc", world.store, dry_run=True)
        report = run.finish(lambda run=run, digest=digest: explain(run, digest, lambda _: GcOptions()))  # type: ignore[misc]
        results = {item["verdict"] for item in report.items}
        if digest in truth.reached and results != {"kept"}:
            yield f"--explain: {digest} is reachable: {report.items} {report.errors}"
        if digest not in truth.reached and not truth.may_stop and results != {"goes"}:
            yield f"--explain: {digest} is not reachable: {report.items} {report.errors}"


def imported(truth: Truth) -> Iterator[str]:
    yield from _imported(truth, move=False)


def moved(truth: Truth) -> Iterator[str]:
    yield from _imported(truth, move=True)


def _imported(truth: Truth, *, move: bool) -> Iterator[str]:
    """What has a row in the target is there with all that it needs; what has none was told; and what was moved away
    is all there."""
    job, world = "import-layout --move" if move else "import-layout", World()
    with TemporaryDirectory() as above:
        source = write_layout(Path(above, "source"), truth.graph)
        run = Run("import-layout", world.store)
        options = ImportOptions(repo=NAME, move=move)
        report = run.finish(lambda: import_layout(run, str(source), options))
        gone = not (source / "index.json").exists()
    rows, left = world.rows(), world.left()
    needed = reachable(rows, truth.there, subjects=False)
    if lacking := needed - left:
        yield f"{job}: {_shown(lacking)} needed by rows that it brought, and not there"
    if wrong := {digest for digest in left if world.blob(digest) != truth.good.get(digest)}:
        yield f"{job}: {_shown(wrong)} there with other bytes"
    if (untold := set(truth.graph.heads) - set(rows)) and not (report.exit_code or report.findings):
        yield f"{job}: {_shown(untold)} left out without a word"
    if gone and not move:
        yield f"{job}: the source is gone"
    if gone and (lost := truth.kept - left):
        yield f"{job}: {_shown(lost)} removed with the source, and nowhere else"


def _shown(digests: set[str | None] | set[str]) -> str:
    return ", ".join(sorted(map(str, digests))) or "nothing"


CHECKS: list[Check] = [
    collected, collected_after_scrub, blobs_deleted, manifests_deleted, read_by_digest, referrers_listed, scrubbed,
    verified, explained, imported, moved,
]  # fmt: skip


def complaints(graph: Graph, checks: list[Check] = CHECKS) -> list[str]:
    truth = Truth(graph)
    return [line for check in checks for line in check(truth)]
