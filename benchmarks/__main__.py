"""`zotctl serve` beside other registries and beside what the machine can do, in one run. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import limits, page, s3, table
from benchmarks.bench import Bench
from benchmarks.machine import Others, describe
from benchmarks.rows import QUICK, Row, Sizes, all_rows
from benchmarks.servers import DISTRIBUTION, Server, bucket_servers, local_servers, parse


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names or patterns such as 'push-*'; all without any")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=HOW", help="command or URL; see README")
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of the servers, those; {DISTRIBUTION} only so")
    parser.add_argument("--subject", default="zotctl", help="the server whose ratios are printed (zotctl)")
    parser.add_argument("--bucket", action="store_true", help="all servers on a bucket of the same S3 server")
    parser.add_argument("--turns", type=int, help="medians are over that many (3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes and one turn: to try things out")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="how much a turn does; `Sizes` in rows.py"
    )
    parser.add_argument("--dir", type=Path, help="where the stores are made (a temporary directory)")
    parser.add_argument(
        "--wipe", action=argparse.BooleanOptionalAction, default=True, help="remove each store after its turn"
    )
    parser.add_argument("--out", type=Path, help="write all turns as JSON and the charts into this directory, too")
    parser.add_argument("--name", help="of those files, if not `rows` or `bucket`")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--no-limits", action="store_true", help="leave out the limits of the machine")
    return parser


def _servers(options: argparse.Namespace) -> list[Server]:
    """Those of the options over those found, the subject first. distribution has to be filled by pushing, and flushes
    each push: it is there when it is named."""
    found = bucket_servers() if options.bucket else local_servers()
    given = [parse(text) for text in options.server]
    known = {server.name: server for server in (*found, *given)}
    if options.only:
        known = {name: known[name] for name in options.only.split(",")}
    elif not options.bucket and DISTRIBUTION not in {server.name for server in given}:
        known.pop(DISTRIBUTION, None)
    return sorted(known.values(), key=lambda server: server.name != options.subject)


def _sizes(options: argparse.Namespace) -> Sizes:
    """Raises ValueError."""
    known = QUICK if options.quick else Sizes()
    for text in options.set:
        name, _, value = text.partition("=")
        if not hasattr(known, name):
            raise ValueError(f"--set {text}: there is no {name}, but {', '.join(vars(known))}")
        known = replace(known, **{name: type(getattr(known, name))(value)})
    return known


def _chosen(patterns: Sequence[str], rows: dict[str, Row]) -> list[Row]:
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in rows):
            raise ValueError(f"no row is called {pattern!r}; --list names them")
    return [row for name, row in rows.items() if not patterns or any(fnmatch(name, p) for p in patterns)]


def run(options: argparse.Namespace, folder: Path, rows: list[Row], servers: list[Server], sizes: Sizes) -> None:
    """Measure and print. What is there is written after each row: a run takes long."""
    names, others = [server.name for server in servers], Others()
    found = page.Run(describe(folder), names, {}, {}, {})
    if not options.no_limits and not options.bucket:
        found.limits.update(limits.measure(folder))
        for name, rate in found.limits.items():
            print(f"limit: {name}: {rate.speed:.0f} MiB/s ({rate.cpu:.2f} CPU-s/GiB)", flush=True)
        print(f"limit: new file and fdatasync: {limits.syncs(folder):.0f}/s\n", flush=True)
    turns = options.turns or (1 if options.quick else 3)
    bench = Bench(servers, folder, sizes, turns=turns, wipe=options.wipe)
    print(table.header(names), flush=True)
    for row in rows:
        found.units[row.name], found.rows[row.name] = row.units, bench.row(row)
        print(table.line(row, found.rows, names), flush=True)
        found.machine["others"] = f"{others.cores():.1f}"
        if options.out:
            _write(options.out, options.name or ("bucket" if options.bucket else "rows"), found)
    print(f"\nOther processes had {found.machine['others']} of {os.cpu_count()} cores on average.", flush=True)


def _write(out: Path, name: str, found: page.Run) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(found.to_plain(), indent=1) + "\n")
    for path, drawn in page.charts(name, found).items():
        (out / path).write_text(drawn)


def main() -> int:
    parser = _options()
    options = parser.parse_args()
    known = s3.bucket_rows() if options.bucket else all_rows()
    if options.list:
        print("\n".join(known))
        return 0
    try:
        rows, sizes = _chosen(options.rows, known), _sizes(options)
        if not options.bucket:
            servers = _servers(options)
    except (KeyError, ValueError) as error:
        parser.error(str(error))
    folder = Path(tempfile.mkdtemp(dir=options.dir, prefix="bench-")).resolve()
    try:
        with s3.object_store(folder) if options.bucket else nullcontext():
            run(options, folder, rows, _servers(options) if options.bucket else servers, sizes)
    finally:
        if options.wipe:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
