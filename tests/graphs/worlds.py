"""A graph as a repository: in memory as another tool would have left it, long ago, or as files for the importer."""

from __future__ import annotations

import json
from pathlib import Path

from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.graphs.making import Graph
from tests.stores import store_over
from zotctl.errors import NotFound
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.report import Report
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.storage import Repository, keys
from zotctl.storage.local.protocol import local_of

NAME = "a"
DELAY = 100.0
ROUNDS = 3


class World:
    """`graph` None: an empty store."""

    def __init__(self, graph: Graph | None = None) -> None:
        self.clock = Hand()
        self._stamps = 0
        self.driver = MemoryDriver(clock=self._file_time)
        self.store = store_over(self.driver, clock=self.clock)
        if graph is not None:
            self._lay_out(graph)
        self.clock.at += 10 * DELAY

    def _file_time(self) -> int:
        self._stamps += 1
        return int(self.clock.at * 1e9) + self._stamps

    def _lay_out(self, graph: Graph) -> None:
        local_of(self.store.roots[0]).context.make_dirs(keys.blobs_of(NAME, "sha256"))
        for digest, body in graph.stored.items():
            self.write(keys.blob(NAME, parse_digest(digest)), body)
        self.write(keys.index(NAME), graph.index)
        self.write(keys.layout(NAME), LAYOUT_BYTES)

    def write(self, key: str, body: bytes) -> None:
        with self.driver.create(key) as writer:
            writer.write([body])

    @property
    def repository(self) -> Repository:
        return self.store.repository_for_push(NAME)

    def rows(self) -> list[str]:
        """Of index.json, by no reader of ours."""
        try:
            body = self.bytes_of(keys.index(NAME))
        except NotFound:
            return []
        return [row["digest"] for row in json.loads(body)["manifests"]]

    def left(self) -> set[str]:
        """What lies in the repository."""
        prefix = keys.blobs_of(NAME, "sha256") + "/"
        return {f"sha256:{key.removeprefix(prefix)}" for key in self.driver.names if key.startswith(prefix)}

    def bytes_of(self, key: str) -> bytes:
        with self.driver.open(key) as reader:
            return reader.read_at(0, reader.size)

    def blob(self, digest: str) -> bytes:
        return self.bytes_of(keys.blob(NAME, parse_digest(digest)))

    def collect(self) -> Report:
        """Until nothing is in the trash any more. The last report."""
        options = GcOptions(delay=DELAY, rules=Rules(delay=DELAY))
        for _ in range(ROUNDS):
            self.clock.at += 2 * DELAY
            run = Run("gc", self.store)
            report = run.finish(lambda run=run: gc(run, lambda _: options))  # type: ignore[misc]
        return report


def write_layout(directory: Path, graph: Graph) -> Path:
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for digest, body in graph.stored.items():
        (blobs / digest.removeprefix("sha256:")).write_bytes(body)
    (directory / "index.json").write_bytes(graph.index)
    (directory / "oci-layout").write_bytes(LAYOUT_BYTES)
    return directory
