"""`zotctl serve` beside other registries, in one run: `python -m benchmarks.serve --help`."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import limits, table
from benchmarks.layouts import Content, lay_out, push
from benchmarks.load import MIB
from benchmarks.rows import QUICK, Row, Sample, Sizes, Turn, all_rows
from benchmarks.servers import Running, Server, default_servers, parse


class Bench:
    """One run: every row, every turn, every server, one server alive at a time."""

    def __init__(self, servers: list[Server], folder: Path, sizes: Sizes, *, turns: int, wipe: bool) -> None:
        self._servers, self._folder, self._sizes = servers, folder, sizes
        self._turns, self._wipe = turns, wipe
        self._run = secrets.token_hex(3)
        self._touched = 0

    def row(self, row: Row) -> table.Samples:
        """The servers take turns, each turn begins with another one."""
        self._touch_pages(row.page_bytes(self._sizes))
        content = row.content(self._sizes)
        samples: dict[str, list[Sample]] = {}
        servers = [server for server in self._servers if not (row.local_only and server.remote)]
        for turn in range(self._turns):
            for i in range(len(servers)):
                server = servers[(i + turn) % len(servers)]
                samples.setdefault(server.name, []).append(self._turn(row, content, server, turn))
        if not row.fresh and self._wipe:
            self._remove(row)
        return {name: table.middle(taken) for name, taken in samples.items()}

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


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names or patterns such as 'push-*'; all without any")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=HOW", help="command or URL; see README")
    parser.add_argument("--only", metavar="NAME,NAME", help="of the servers, those")
    parser.add_argument("--subject", default="zotctl", help="the server whose ratios are printed (zotctl)")
    parser.add_argument("--turns", type=int, help="medians are over that many (3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes and one turn: to try things out")
    parser.add_argument("--dir", type=Path, help="where the stores are made (a temporary directory)")
    parser.add_argument(
        "--wipe", action=argparse.BooleanOptionalAction, default=True, help="remove each store after its turn"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--no-limits", action="store_true", help="leave out the limits of the machine")
    return parser


def _servers(options: argparse.Namespace) -> list[Server]:
    """Those of the options over those found, the subject first."""
    known = {server.name: server for server in default_servers()}
    known |= {server.name: server for server in map(parse, options.server)}
    if options.only:
        known = {name: known[name] for name in options.only.split(",")}
    return sorted(known.values(), key=lambda server: server.name != options.subject)


def _chosen(patterns: list[str]) -> list[Row]:
    rows = all_rows()
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in rows):
            raise ValueError(f"no row is called {pattern!r}; --list names them")
    return [row for name, row in rows.items() if not patterns or any(fnmatch(name, p) for p in patterns)]


def _measure(options: argparse.Namespace, folder: Path) -> table.Table:
    servers, rows = _servers(options), _chosen(options.rows)
    names = [server.name for server in servers]
    sizes = QUICK if options.quick else Sizes()
    bench = Bench(servers, folder, sizes, turns=options.turns or (1 if options.quick else 3), wipe=options.wipe)
    print(table.header(names), flush=True)
    figures: table.Table = {}
    for row in rows:
        figures[row.name] = bench.row(row)
        print(table.line(row, figures, names), flush=True)
    return figures


def _in_folder(options: argparse.Namespace) -> table.Table:
    folder = tempfile.mkdtemp(dir=options.dir, prefix="bench-")
    try:
        if not options.no_limits:
            limits.show(folder)
        return _measure(options, Path(folder).resolve())
    finally:
        if options.wipe:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = _options()
    options = parser.parse_args()
    if options.list:
        print("\n".join(all_rows()))
        return 0
    try:
        figures = _in_folder(options)
    except (KeyError, ValueError) as error:
        parser.error(str(error))
    if options.json:
        plain = {row: {name: vars(sample) for name, sample in samples.items()} for row, samples in figures.items()}
        options.json.write_text(json.dumps(plain, indent=1) + os.linesep)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
