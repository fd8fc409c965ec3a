"""One run: servers take turns at rows, and so does the limit of the machine."""

from __future__ import annotations

import secrets
import shutil
import sys
from pathlib import Path

from benchmarks.figures import Sample, Samples
from benchmarks.layouts import Content, lay_out, push
from benchmarks.load import MIB
from benchmarks.rows import Row, Sizes, Turn
from benchmarks.servers import Running, Server

LIMIT = "limit"
"""Stands beside the servers in a row that has one."""


class Bench:
    """Every turn, every server, one server alive at a time."""

    def __init__(self, servers: list[Server], folder: Path, sizes: Sizes, *, turns: int, wipe: bool = True) -> None:
        self._servers, self._folder, self._sizes = servers, folder, sizes
        self._turns, self._wipe = turns, wipe
        self._run = secrets.token_hex(3)
        self._touched = 0

    def row(self, row: Row) -> Samples:
        """The servers take turns, each turn begins with another one."""
        self._touch_pages(row.page_bytes(self._sizes))
        content = row.content(self._sizes)
        samples: Samples = {}
        servers = [server for server in self._servers if not (row.local_only and server.remote)]
        for turn in range(self._turns):
            for i in range(len(servers)):
                server = servers[(i + turn) % len(servers)]
                samples.setdefault(server.name, []).append(self._turn(row, content, server, turn))
            if row.limit is not None:
                rate = row.limit(self._sizes, self._folder / LIMIT)
                samples.setdefault(LIMIT, []).append(Sample(speed=rate.speed, cpu=rate.cpu))
        if not row.fresh and self._wipe:
            self._remove(row)
        return samples

    def _turn(self, row: Row, content: Content, server: Server, turn: int) -> Sample:
        part = f"{turn}" if row.fresh else "kept"
        store = self._folder / f"{row.name}-{server.name}-{part}"
        try:
            sample = self._measure(row, content, server, store, f"bench-{self._run}/{row.name}-{part}/")
        except (OSError, RuntimeError) as error:
            sample = Sample(note=f"{type(error).__name__}: {error}")
        if row.fresh and self._wipe:
            shutil.rmtree(store, ignore_errors=True)
        if sample.note:
            print(f"{row.name}, {server.name}: {sample.note}", file=sys.stderr)
        return sample

    def _measure(self, row: Row, content: Content, server: Server, store: Path, prefix: str) -> Sample:
        prefix = "" if server.laid_out else prefix
        new = not store.exists()
        if new:
            store.mkdir(parents=True)
            self._fill(row, content, server, store, prefix)
        running = Running(server, store)
        try:
            if not row.by_value:
                running.settle()
            return row.run(Turn(running, content, self._sizes, prefix))
        finally:
            running.stop()

    def _fill(self, row: Row, content: Content, server: Server, store: Path, prefix: str) -> None:
        if server.laid_out and not row.pushed:
            lay_out(str(store), content)
        elif content:
            running = Running(server, store)
            try:
                push(running.address, content, prefix, 1 if row.pushed else 8)
            finally:
                running.stop()

    def _touch_pages(self, size: int) -> None:
        """Gets memory for `size` bytes of new files once from the host; the stores use its pages again."""
        if size <= self._touched:
            return
        self._touched = size
        path = self._folder / "pages"
        with path.open("wb") as file:
            for _ in range(size // MIB):
                file.write(bytes(MIB))
        path.unlink()

    def _remove(self, row: Row) -> None:
        for server in self._servers:
            shutil.rmtree(self._folder / f"{row.name}-{server.name}-kept", ignore_errors=True)
