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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks import table
from benchmarks.layouts import Content, large, many_repositories, referred, tagged
from benchmarks.load import MIB, Maker
from benchmarks.rows import QUICK, Row, Run, Sample, Sizes, Turn, get_tags, push_large, push_manifests
from benchmarks.serve import Bench
from benchmarks.servers import Server, default_servers, parse

GIB = 1 << 30


@dataclass(frozen=True)
class Axis:
    """`row` makes the row of one size. `wish` is what the design promises of k."""

    name: str
    of: str
    sizes: tuple[int, ...]
    row: Callable[[int], Row]
    wish: str = "flat"


def _page(path: str) -> Run:
    """One page of a list of 100 entries, from the middle, with one connection."""

    def run(turn: Turn) -> Sample:
        return turn.reads([Maker(turn.running.address).get(f"/v2/{turn.prefix}{path}")], 1)

    return run


def _pull(turn: Turn) -> Sample:
    (layer,) = turn.content["large"].blobs[1:]
    return turn.reads([Maker(turn.running.address).get(turn.path("large", f"blobs/{layer.digest}"))], 1, layer.size)


def _referrers(turn: Turn) -> Sample:
    digest = turn.content["growth"].manifests[0].digest
    path = turn.path("growth", f"referrers/{digest}?artifactType=application/vnd.example.none")
    return turn.reads([Maker(turn.running.address).get(path)], 1)


def _push_blobs(size: int) -> Run:
    return push_large(1, lambda sizes: (max(1, min(200, 256 * MIB // size)), size), 0)


def axes() -> dict[str, Axis]:
    """By name. A page of a list has 100 entries, wherever it begins and however many there are."""
    per_second, in_bytes = ("/s", "ms"), ("MiB/s", "s/GiB")

    def tags(name: str, run: Run, *, fresh: bool = False) -> Callable[[int], Row]:
        return lambda n: Row(f"{name}-{n}", per_second, lambda sizes: {"growth": tagged(n)}, run, fresh=fresh)

    def blob(name: str, content: Callable[[int], Content], run: Callable[[int], Run]) -> Callable[[int], Row]:
        def row(n: int) -> Row:
            return Row(f"{name}-{n}", in_bytes, lambda sizes: content(n), run(n), fresh=True, page_bytes=lambda _: n)

        return row

    tens = (10, 100, 1_000, 10_000, 100_000)
    clients = (1, 8, 64, 256, 1_000)
    catalog, listed = _page("_catalog?n=100&last=many/r0004"), _page("growth/tags/list?n=100&last=t4")
    found = [
        Axis("push-by-tags", "tags in the repository", tens, tags("push", push_manifests(1), fresh=True),
             "linear: index.json is written whole"),
        Axis("get-by-tags", "tags in the repository", tens, tags("get", get_tags(1))),
        Axis("page-by-tags", "tags in the repository", tens, tags("page", listed)),
        Axis("page-by-repositories", "repositories", tens[:4],
             lambda n: Row(f"catalog-{n}", per_second, lambda sizes: many_repositories(n), catalog, local_only=True)),
        Axis("referrers-by-referrers", "referrers of the subject, none of the type that is asked for", tens[:4],
             lambda n: Row(f"referrers-{n}", per_second, lambda sizes: {"growth": referred(n)}, _referrers)),
        Axis("get-by-clients", "connections", clients,
             lambda n: Row(f"clients-{n}", per_second, lambda sizes: {"growth": tagged(10)}, get_tags(n))),
        Axis("push-by-bytes", "bytes of the blob", (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26, GIB),
             blob("push-blob", lambda n: {}, _push_blobs), "falls until the bytes outweigh the request"),
        Axis("pull-by-bytes", "bytes of the blob", (1 << 10, 1 << 14, 1 << 18, 1 << 22, 1 << 26, GIB),
             blob("pull-blob", lambda n: {"large": large(1, n)}, lambda n: _pull),
             "falls until the bytes outweigh the request"),
    ]  # fmt: skip
    return {axis.name: axis for axis in found}


@dataclass(frozen=True)
class Curve:
    """CPU of one operation, or of a GiB, at each size, of one server."""

    server: str
    sizes: tuple[int, ...]
    samples: tuple[Sample, ...]

    @property
    def points(self) -> list[tuple[int, float]]:
        return [(size, sample.cpu) for size, sample in zip(self.sizes, self.samples, strict=True) if sample.cpu]

    def exponent(self) -> float:
        """k of the least squares fit of the logarithms; NaN with fewer than two points."""
        points = [(math.log(size), math.log(cpu)) for size, cpu in self.points]
        if len(points) < 2:
            return math.nan
        middle_x = sum(x for x, _ in points) / len(points)
        middle_y = sum(y for _, y in points) / len(points)
        spread = sum((x - middle_x) ** 2 for x, _ in points)
        return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread

    def ratio(self) -> float:
        """What the largest costs in terms of the smallest."""
        points = self.points
        return points[-1][1] / points[0][1] if points else math.nan


def line(axis: Axis, curve: Curve) -> str:
    """One line of the table."""
    cells = [f"{cpu:.3g}" for _, cpu in curve.points]
    return (
        f"| {axis.name} | {curve.server} | {' '.join(cells)} | {curve.ratio():.2g}x | {curve.exponent():+.2f} "
        f"| {axis.wish} |"
    )


_COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed")


def chart(axis: Axis, curves: Sequence[Curve]) -> str:
    """An SVG with both axes logarithmic."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return ""
    xs, ys = [math.log10(size) for size, _ in points], [math.log10(cpu) for _, cpu in points]
    left, right, low, high = min(xs), max(xs), math.floor(min(ys)), math.ceil(max(ys))

    def at(size: float, cpu: float) -> tuple[float, float]:
        x = 60 + 460 * (math.log10(size) - left) / (right - left or 1)
        return x, 240 - 200 * (math.log10(cpu) - low) / (high - low or 1)

    parts = []
    for power in range(low, high + 1):
        _, y = at(10**left, 10**power)
        parts.append(f'<path d="M60 {y:.0f}H520" stroke="#ddd"/><text x="54" y="{y + 4:.0f}">{10.0**power:g}</text>')
    for size in sorted({size for size, _ in points}):
        x, _ = at(size, 10**low)
        parts.append(f'<text x="{x:.0f}" y="258">{size:,}</text>')
    for number, (curve, colour) in enumerate(zip(curves, _COLOURS, strict=False)):
        placed = [at(size, cpu) for size, cpu in curve.points]
        road = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{road}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        label = f"{curve.server}: size^{curve.exponent():.2f}"
        parts.append(f'<text x="530" y="{50 + 18 * number}" fill="{colour}" class="left">{escape(label)}</text>')
    style = "text{font:11px sans-serif;text-anchor:end} .left{text-anchor:start} .middle{text-anchor:middle}"
    title = f"{axis.name}: CPU by {axis.of}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 280" role="img"><title>{escape(title)}</title>'
        f'<style>{style}</style><text x="290" y="24" class="middle">{escape(title)}</text>{"".join(parts)}</svg>\n'
    )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("axes", nargs="*", help="names or patterns such as 'push-*'; all without any")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=HOW", help="command or URL; see README")
    parser.add_argument("--only", default="zotctl", metavar="NAME,NAME", help="of the servers, those (zotctl)")
    parser.add_argument("--largest", type=int, default=1 << 60, help="leave out larger sizes")
    parser.add_argument("--turns", type=int, default=1, help="medians are over that many (1)")
    parser.add_argument("--quick", action="store_true", help="shorter turns")
    parser.add_argument("--dir", type=Path, help="where the stores are made (a temporary directory)")
    parser.add_argument("--out", type=Path, help="write growth.json and a chart for each axis into this directory")
    parser.add_argument("--list", action="store_true", help="name the axes and stop")
    return parser


def _chosen(patterns: Sequence[str], known: dict[str, Axis]) -> list[Axis]:
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in known):
            raise ValueError(f"no axis is called {pattern!r}; --list names them")
    return [axis for name, axis in known.items() if not patterns or any(fnmatch(name, p) for p in patterns)]


def _curves(axis: Axis, servers: list[Server], folder: Path, options: argparse.Namespace) -> list[Curve]:
    sizes = replace(QUICK if options.quick else Sizes(), growth=4.0)
    bench = Bench(servers, folder, sizes, turns=options.turns, wipe=True)
    steps = tuple(size for size in axis.sizes if size <= options.largest)
    found: list[table.Samples] = []
    for size in steps:
        found.append(bench.row(axis.row(size)))
        print(f"{axis.name} {size:,}: {found[-1]}", file=sys.stderr, flush=True)
    return [Curve(server.name, steps, tuple(one[server.name] for one in found)) for server in servers]


def _write(out: Path, axis: Axis, curves: Sequence[Curve], figures: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    figures[axis.name] = {
        "of": axis.of,
        "wish": axis.wish,
        "servers": {
            curve.server: {
                "exponent": curve.exponent(),
                "points": {size: vars(one) for size, one in zip(curve.sizes, curve.samples, strict=True)},
            }
            for curve in curves
        },
    }
    (out / "growth.json").write_text(json.dumps(figures, indent=1) + os.linesep)
    (out / f"{axis.name}.svg").write_text(chart(axis, curves))


def main() -> int:
    parser = _options()
    options = parser.parse_args()
    known = axes()
    if options.list:
        print("\n".join(known))
        return 0
    by_name = {server.name: server for server in (*default_servers(), *map(parse, options.server))}
    try:
        servers = [by_name[name] for name in options.only.split(",")]
        chosen = _chosen(options.axes, known)
    except (KeyError, ValueError) as error:
        parser.error(str(error))
    figures: dict[str, object] = {}
    folder = Path(tempfile.mkdtemp(dir=options.dir, prefix="growth-")).resolve()
    print("| axis | server | CPU ms an operation (s/GiB for bytes), by size | largest/smallest | k | design |")
    print("|---|---|---|---|---|---|")
    try:
        for axis in chosen:
            curves = _curves(axis, servers, folder, options)
            for curve in curves:
                print(line(axis, curve), flush=True)
            if options.out:
                _write(options.out, axis, curves, figures)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
