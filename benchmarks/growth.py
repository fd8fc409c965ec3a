"""What an operation costs as a store grows: `python -m benchmarks.growth --help`.

Each axis is measured at several sizes in one run, and a line is fitted through the logarithms: cost ~ size^k. k near 0
is flat, 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import chart, far, limits
from benchmarks.bench import LIMIT, Bench
from benchmarks.figures import Sample, middle, number
from benchmarks.layouts import Content, Repository, index_of, large, many_repositories, referred, tagged
from benchmarks.load import MIB, Body, Maker
from benchmarks.machine import Others, describe
from benchmarks.rows import (
    QUICK,
    Limit,
    Row,
    Run,
    Sizes,
    Turn,
    get_tags,
    pull_large,
    push_large,
    push_manifests,
    push_small,
    start,
)
from benchmarks.servers import Server, bucket_servers, local_servers, parse

GIB = 1 << 30


@dataclass(frozen=True)
class Axis:
    """`row` makes the row of one size. `wish` is what the design promises of k.

    `late`: by how many milliseconds each answer of a bucket comes late at a size. None: the servers are in directories.
    """

    name: str
    of: str
    sizes: tuple[int, ...]
    row: Callable[[int], Row]
    wish: str = "flat"
    metric: str = "cpu"
    late: Callable[[int], int] | None = None

    @property
    def measure(self) -> str:
        """What the curve shows."""
        return {"cpu": "CPU", "memory": "most memory", "value": "time to the first answer"}.get(
            self.metric, "time of one request"
        )

    @property
    def unit(self) -> str:
        return {"cpu": self.row(self.sizes[0]).units[1], "memory": "MiB"}.get(self.metric, "ms")


def _page(path: str) -> Run:
    """One page of a list of 100 entries, from the middle, with one connection."""

    def run(turn: Turn) -> Sample:
        return turn.reads([Maker(turn.running.address).get(f"/v2/{turn.prefix}{path}")], 1)

    return run


def _referrers(turn: Turn) -> Sample:
    digest = turn.content["growth"].manifests[0].digest
    path = turn.path("growth", f"referrers/{digest}?artifactType=application/vnd.example.none")
    return turn.reads([Maker(turn.running.address).get(path)], 1)


def _push_blobs(size: int) -> Run:
    return push_large(1, lambda sizes: (max(1, min(200, 256 * MIB // size)), size), 0)


def _rewrite(tags: int) -> Limit:
    """Of a push by itself: index.json with so many tags takes the place of the one before."""
    return lambda sizes, folder: limits.replaced(folder, len(index_of(tagged(tags))))


def axes() -> dict[str, Axis]:
    """By name. A page of a list has 100 entries, wherever it begins and however many there are."""
    per_second, in_bytes = ("/s", "ms"), ("MiB/s", "s/GiB")

    def tags(name: str, run: Run) -> Callable[[int], Row]:
        return lambda n: Row(f"{name}-{n}", per_second, lambda sizes: {"growth": tagged(n)}, run)

    def pushes(connections: int) -> Callable[[int], Row]:
        return lambda n: Row(f"push-c{connections}-{n}", per_second, lambda sizes: {"growth": tagged(n)},
                             push_manifests(connections), fresh=True, limit=_rewrite(n))  # fmt: skip

    def pulls(clients: int) -> Row:
        return Row(f"pull-c{clients}", in_bytes, lambda sizes: {"large": large(64, MIB)}, pull_large(clients))

    def uploads(clients: int) -> Row:
        run = push_large(clients, lambda sizes: (2 * clients + 64, MIB), 0)
        return Row(f"push-c{clients}", in_bytes, lambda sizes: {}, run, fresh=True)

    def on_bucket(name: str, run: Run) -> Callable[[int], Row]:
        return lambda n: Row(name, per_second, lambda sizes: {"growth": tagged(10)}, run, fresh=True)

    def blob(name: str, content: Callable[[int], Content], run: Callable[[int], Run]) -> Callable[[int], Row]:
        def row(n: int) -> Row:
            return Row(f"{name}-{n}", in_bytes, lambda sizes: content(n), run(n), fresh=True, page_bytes=lambda _: n)

        return row

    def stray(n: int) -> Content:
        return {"small": Repository([Body(16) for _ in range(n)])}

    tens = (10, 100, 1_000, 10_000, 100_000)
    clients = (1, 8, 64, 256, 1_000)
    listed = _page("growth/tags/list?n=100&last=t4")
    bytes_of = (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26, GIB, 10 * GIB)
    falls = "falls until the bytes outweigh the request"
    pushed = blob("push-blob", lambda n: {}, _push_blobs)

    def catalog(n: int) -> Row:
        page = _page(f"_catalog?n=100&last=many/r{n // 2:04}")
        return Row(f"catalog-{n}", per_second, lambda sizes: many_repositories(n), page, local_only=True)

    found = [
        Axis("push-by-tags", "tags in the repository", tens, pushes(1), "linear: index.json is written whole"),
        Axis("push-together-by-tags", "tags in the repository, by 16 connections", tens, pushes(16),
             "linear, but several share a write"),
        Axis("get-by-tags", "tags in the repository", tens, tags("get", get_tags(1))),
        Axis("page-by-tags", "tags in the repository", tens, tags("page", listed)),
        Axis("page-by-repositories", "repositories", tens, catalog),
        Axis("start-by-repositories", "repositories", tens,
             lambda n: Row(f"start-{n}", ("ms", ""), lambda sizes: many_repositories(n), start), metric="value"),
        Axis("referrers-by-referrers", "referrers of the subject, none of the type that is asked for", tens[:4],
             lambda n: Row(f"referrers-{n}", per_second, lambda sizes: {"growth": referred(n)}, _referrers)),
        Axis("push-by-blobs", "blobs in the repository", (*tens, 1_000_000),
             lambda n: Row(f"blobs-{n}", per_second, lambda sizes: stray(n), push_small(1), fresh=True)),
        Axis("get-by-clients", "connections", clients,
             lambda n: Row(f"clients-{n}", per_second, lambda sizes: {"growth": tagged(10)}, get_tags(n))),
        Axis("pull-by-clients", "connections that pull blobs of 1 MiB", clients, pulls),
        Axis("push-by-clients", "connections that push blobs of 1 MiB", clients, uploads),
        Axis("bucket-pull-by-clients", "connections that pull blobs of 1 MiB from a bucket", clients, pulls,
             late=lambda _: 0),
        Axis("bucket-push-by-clients", "connections that push blobs of 1 MiB into a bucket", clients, uploads,
             late=lambda _: 0),
        Axis("push-by-bytes", "bytes of the blob", bytes_of, pushed, falls),
        Axis("memory-by-bytes", "bytes of the blob that is pushed", bytes_of, pushed, metric="memory"),
        Axis("pull-by-bytes", "bytes of the blob", bytes_of,
             blob("pull-blob", lambda n: {"large": large(1, n)}, lambda n: pull_large(1)), falls),
        *(Axis(f"{name}-by-latency", "milliseconds that the object store takes longer", (1, 10, 50, 200),
               on_bucket(f"far-{name}", run), wish, metric="p50", late=lambda milliseconds: milliseconds)
          for name, run, wish in (
              ("get", get_tags(1), "one round trip"),
              ("push", push_small(1), "a POST and a PUT: some round trips each"),
              ("manifest", push_manifests(1), "some round trips"),
          )),
    ]  # fmt: skip
    return {axis.name: axis for axis in found}


@dataclass(frozen=True)
class Curve:
    """The axis' figure at each size, of one server."""

    server: str
    metric: str
    sizes: tuple[int, ...]
    samples: tuple[Sample, ...]

    @property
    def points(self) -> list[tuple[int, float]]:
        found = [(size, getattr(one, self.metric)) for size, one in zip(self.sizes, self.samples, strict=True)]
        return [(size, figure) for size, figure in found if figure]

    def exponent(self) -> float:
        """k of the least squares fit of the logarithms; NaN with fewer than two points."""
        points = [(math.log(size), math.log(figure)) for size, figure in self.points]
        if len(points) < 2:
            return math.nan
        middle_x = sum(x for x, _ in points) / len(points)
        middle_y = sum(y for _, y in points) / len(points)
        spread = sum((x - middle_x) ** 2 for x, _ in points)
        return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread

    def ratio(self) -> float:
        """The largest's figure in terms of the smallest's."""
        points = self.points
        return points[-1][1] / points[0][1] if points else math.nan


def line(axis: Axis, curve: Curve) -> str:
    """One line of the table."""
    cells = " ".join(number(figure) for _, figure in curve.points)
    name = f"{axis.name} ({axis.unit})"
    return f"| {name} | {curve.server} | {cells} | {curve.ratio():.2g}x | {curve.exponent():+.2f} | {axis.wish} |"


def chart_of(axis: Axis, curves: Sequence[Curve]) -> str:
    """An SVG with both axes logarithmic."""
    lines = [chart.Line(f"{curve.server}: size^{curve.exponent():.2f}", curve.points) for curve in curves]
    return chart.curves(f"{axis.name}: {axis.measure} by {axis.of}", lines)


@contextmanager
def _far(folder: Path, milliseconds: int) -> Iterator[None]:
    """An object store whose answers come so much later, told to servers by the environment."""
    store, before = far.Store(folder, milliseconds / 1000), dict(os.environ)
    os.environ.update(store.environ(far=milliseconds > 0))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        store.close()


class Measurement:
    """Axes one after the other, with the same options."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._folder, self._turns = folder, options.turns
        self._sizes = replace(QUICK if options.quick else Sizes(), growth=4.0)
        self._given, self._names = [parse(text) for text in options.server], options.only.split(",")

    def servers(self, axis: Axis) -> list[Server]:
        """Raises KeyError."""
        found = bucket_servers() if axis.late else local_servers()
        known = {server.name: server for server in (*found, *self._given)}
        return [known[name] for name in self._names]

    def curves(self, axis: Axis) -> list[Curve]:
        steps = axis.sizes
        found: list[dict[str, Sample]] = []
        for size in steps:
            found.append({name: middle(taken) for name, taken in self._step(axis, size).items()})
            print(f"{axis.name} {size:,}: {found[-1]}", file=sys.stderr, flush=True)
        names = [server.name for server in self.servers(axis)] if steps else []
        names += [LIMIT] if steps and LIMIT in found[0] else []
        return [Curve(name, axis.metric, steps, tuple(one[name] for one in found)) for name in names]

    def _step(self, axis: Axis, size: int) -> dict[str, list[Sample]]:
        folder = self._folder / f"{axis.name}-{size}"
        folder.mkdir()
        if axis.late is None:
            return self._bench(axis, folder).row(axis.row(size))
        with _far(folder, axis.late(size)):
            return self._bench(axis, folder).row(axis.row(size))

    def _bench(self, axis: Axis, folder: Path) -> Bench:
        return Bench(self.servers(axis), folder, self._sizes, turns=self._turns)


def _plain(axis: Axis, curves: Sequence[Curve]) -> dict[str, object]:
    servers = {one.server: {"exponent": one.exponent(), "points": dict(one.points)} for one in curves}
    return {"of": axis.of, "unit": axis.unit, "wish": axis.wish, "servers": servers}


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument(
        "axes", nargs="*", help="names or patterns such as 'push-*', or 'push-*:10000' without larger sizes"
    )
    parser.add_argument("--server", action="append", default=[], metavar="NAME=HOW", help="command or URL; see README")
    parser.add_argument("--only", default="zotctl", metavar="NAME,NAME", help="of the servers, those (zotctl)")
    parser.add_argument("--turns", type=int, default=1, help="medians are over that many (1)")
    parser.add_argument("--quick", action="store_true", help="shorter turns")
    parser.add_argument("--dir", type=Path, help="where the stores are made (a temporary directory)")
    parser.add_argument("--out", type=Path, help="write growth.json and a chart for each axis into this directory")
    parser.add_argument("--name", default="growth", help="of that file, without .json (growth)")
    parser.add_argument("--list", action="store_true", help="name the axes and stop")
    return parser


def _chosen(patterns: Sequence[str], known: dict[str, Axis]) -> list[Axis]:
    """Those that a pattern names first, up to the size behind its colon. Raises ValueError."""
    found: dict[str, Axis] = {}
    for pattern in patterns or ["*"]:
        names, _, largest = pattern.partition(":")
        matching = [axis for name, axis in known.items() if fnmatch(name, names)]
        if not matching:
            raise ValueError(f"no axis is called {names!r}; --list names them")
        for axis in matching:
            sizes = tuple(size for size in axis.sizes if not largest or size <= int(largest))
            found.setdefault(axis.name, replace(axis, sizes=sizes))
    return list(found.values())


def _write(out: Path, name: str, machine: dict[str, str], axes: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps({"machine": machine, "axes": axes}, indent=1) + "\n")


def main() -> int:
    parser = _options()
    options = parser.parse_args()
    known = axes()
    if options.list:
        print("\n".join(known))
        return 0
    folder = Path(tempfile.mkdtemp(dir=options.dir, prefix="growth-")).resolve()
    # Its first run would begin within 30 s, and takes longer the larger the store is.
    os.environ["ZOTCTL_STORAGE_GC"] = "false"
    measurement, others, machine = Measurement(options, folder), Others(), describe(folder)
    try:
        chosen = _chosen(options.axes, known)
        for axis in chosen:
            measurement.servers(axis)
    except (KeyError, ValueError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        parser.error(str(error))
    print("| axis | server | by size | largest/smallest | k | design |")
    print("|---|---|---|---|---|---|")
    plain: dict[str, object] = {}
    try:
        for axis in chosen:
            found = measurement.curves(axis)
            for curve in found:
                print(line(axis, curve), flush=True)
            plain[axis.name] = _plain(axis, found)
            if options.out:
                _write(options.out, options.name, machine | {"others": f"{others.cores():.1f}"}, plain)
                (options.out / f"{axis.name}.svg").write_text(chart_of(axis, found))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
