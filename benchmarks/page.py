"""Tables of docs/performance.md, and its charts, from the JSON beside them: `python -m benchmarks.page`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import chart
from benchmarks.bench import LIMIT
from benchmarks.figures import Samples, Table, from_plain, middle, number, spread, to_plain
from benchmarks.limits import Rate
from benchmarks.servers import CHECKOUT
from benchmarks.table import Units, metric_of, ratios_of

PAGE = CHECKOUT / "docs" / "performance.md"
DATA = CHECKOUT / "docs" / "performance"
_SECTION = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass
class Run:
    """All that one run measured. The subject is the first of `servers`."""

    machine: dict[str, str]
    servers: list[str]
    units: dict[str, Units]
    rows: Table
    limits: dict[str, Rate]

    def to_plain(self) -> dict[str, object]:
        rows = {name: {"units": self.units[name], "turns": to_plain(taken)} for name, taken in self.rows.items()}
        return {"machine": self.machine, "servers": self.servers, "limits": self.limits, "rows": rows}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Run:
        rows = plain["rows"]
        return cls(
            plain["machine"],
            plain["servers"],
            {name: (row["units"][0], row["units"][1]) for name, row in rows.items()},
            {name: from_plain(row["turns"]) for name, row in rows.items()},
            {name: Rate(*rate) for name, rate in plain["limits"].items()},
        )


# -- charts -------------------------------------------------------------------------------------


def charts(name: str, run: Run) -> dict[str, str]:
    """By file: rows of bytes, rows of requests, and what is one figure."""
    groups: dict[str, tuple[str, Callable[[Units], bool]]] = {
        "bytes": ("CPU seconds of the server for a GiB", lambda units: units[1] == "s/GiB"),
        "requests": ("CPU milliseconds of the server for an operation", lambda units: units[1] == "ms"),
        "process": ("The process by itself", lambda units: not units[1]),
    }
    found = {}
    for group, (title, belongs) in groups.items():
        rows = [_bars(row, run.units[row], taken) for row, taken in run.rows.items() if belongs(run.units[row])]
        if rows:
            title = f"{title}; the thin line: smallest to largest turn"
            found[f"{name}-{group}.svg"] = chart.bars(title, rows, run.servers)
    return found


def _bars(row: str, units: Units, samples: Samples) -> chart.Bars:
    found = {name: one for name, taken in samples.items() if (one := spread(metric_of(units), taken)) is not None}
    limit = found.pop(LIMIT, None)
    return chart.Bars(row, "" if units[1] == "ms" else units[1] or units[0], found, limit)


# -- tables -------------------------------------------------------------------------------------


def _where(run: Run) -> Iterator[str]:
    machine = run.machine
    yield f"- Measured {machine['date']} on {machine['processor']}, {machine['memory']}, Linux {machine['kernel']},"
    yield f"  {machine['file system']}; Python {machine['Python']}."
    yield f"- Other processes had {machine['others']} cores on average: {_verdict(float(machine['others']))}"
    yield f"- `{machine['command']}`"
    yield ""


def _verdict(others: float) -> str:
    if others < 0.1:
        return "the machine was quiet."
    return "**the machine was busy**. Speeds are worth little; ratios of CPU within a row hold."


def rows(run: Run) -> str:
    """A line for each row: CPU of each server, and the subject's in terms of the others'."""
    lines = [*_where(run)]
    for name, rate in run.limits.items():
        lines.append(f"- limit, {name}: {number(rate.cpu)} s/GiB")
    others = [*run.servers[1:], LIMIT]
    has = {name for taken in run.rows.values() for name in taken}
    others = [name for name in others if name in has]
    lines += ["", _cells(["", "unit", run.servers[0], *others, *(f"to {name}" for name in others)])]
    lines.append("|" + "---|" * (3 + 2 * len(others)))
    for name, samples in run.rows.items():
        metric, ratios = metric_of(run.units[name]), dict(ratios_of(metric_of(run.units[name]), samples, run.servers))
        figures = [_figure(metric, samples, server) for server in (run.servers[0], *others)]
        unit = f"CPU {run.units[name][1]}" if run.units[name][1] else run.units[name][0]
        lines.append(_cells([f"`{name}`", unit, *figures, *(str(ratios.get(other, "")) for other in others)]))
    lines += ["", "Speed (MiB/s, or operations a second), p50 and p99 in ms, peak memory in MiB:", ""]
    servers = run.servers
    lines += [_cells(["", *servers]), "|" + "---|" * (1 + len(servers))]
    for name, samples in run.rows.items():
        if run.units[name][1]:
            lines.append(_cells([f"`{name}`", *(_more(samples, server) for server in servers)]))
    return "\n".join(lines)


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(metric: str, samples: Samples, server: str) -> str:
    found = spread(metric, samples.get(server, []))
    return number(found.middle) if found is not None else ""


def _more(samples: Samples, server: str) -> str:
    sample = middle(samples.get(server, []))
    if not sample.measured:
        return ""
    text = f"{number(sample.speed)}, {number(sample.p50)}/{number(sample.p99)}, {number(sample.memory)}"
    return f"{text} (errors)" if sample.note else text


def growth(plain: dict[str, Any]) -> str:
    """A line for each axis and server: what the smallest and the largest size cost, and the fit."""
    run = Run(plain["machine"], [], {}, {}, {})
    lines = [*_where(run)]
    lines += [_cells(["", "server", "of", "smallest", "largest", "cost", "k", "the design says"]), "|" + "---|" * 8]
    for name, axis in plain["axes"].items():
        for server, curve in axis["servers"].items():
            points = [(int(size), figure) for size, figure in curve["points"].items() if figure]
            if not points:
                continue
            (low, first), (high, last) = points[0], points[-1]
            unit = axis["unit"]
            cells = [f"{low:,}: {number(first)} {unit}", f"{high:,}: {number(last)} {unit}", f"{number(last / first)}x"]
            lines.append(_cells([f"`{name}`", server, axis["of"], *cells, f"{curve['exponent']:+.2f}", axis["wish"]]))
    lines += ["", *(f"![{name}](performance/{name}.svg)\n" for name in plain["axes"])]
    return "\n".join(lines).rstrip()


def scale(plain: dict[str, Any]) -> str:
    """A line for each job: memory and CPU in each store."""
    stores = list(dict.fromkeys((one["blobs"], one["repositories"]) for one in plain["jobs"]))
    jobs = list(dict.fromkeys(one["job"] for one in plain["jobs"]))
    found = {(one["job"], one["blobs"], one["repositories"]): one for one in plain["jobs"]}
    lines = [*_where(Run(plain["machine"], [], {}, {}, {}))]
    lines += [_cells(["", *(f"{blobs:,} in {repositories:,}" for blobs, repositories in stores)])]
    lines.append("|" + "---|" * (1 + len(stores)))
    for job in jobs:
        figures = [found.get((job, *store)) for store in stores]
        lines.append(_cells([f"`{job}`", *(_spent(one) if one else "" for one in figures)]))
    return "\n".join(lines)


def _spent(one: dict[str, Any]) -> str:
    requests = f", {one['requests']:,} requests" if one.get("requests") else ""
    return f"{number(one['memory'])} MiB, {number(one['cpu'])} s{requests}"


def written(page: str, data: Path) -> str:
    """The page with its sections made anew."""

    def section(match: re.Match[str]) -> str:
        path = data / f"{match[2]}.json"
        if not path.exists():
            return match[0]
        plain = json.loads(path.read_text())
        if "axes" in plain:
            made = growth(plain)
        elif "jobs" in plain:
            made = scale(plain)
        else:
            run = Run.from_plain(plain)
            images = (f"![{file}](performance/{file})\n" for file in charts(match[2], run))
            made = "\n".join([rows(run), "", *images]).rstrip()
        return f"{match[1]}\n{made}\n\n{match[3]}"

    return _SECTION.sub(section, page)


def made() -> Iterator[tuple[Path, str]]:
    """The page and the charts beside it, as the data say."""
    yield PAGE, written(PAGE.read_text(), DATA)
    for path in sorted(DATA.glob("*.json")):
        if "rows" in (plain := json.loads(path.read_text())):
            drawn = charts(path.stem, Run.from_plain(plain))
            yield from ((DATA / file, svg) for file, svg in drawn.items())


def main() -> int:
    for path, text in made():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
