"""From samples to one line of a table: figures, ratios with their spread, targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.bench import LIMIT
from benchmarks.figures import Sample, Samples, Spread, Table, middle, number, ratio
from benchmarks.rows import Row, Target

Units = tuple[str, str]


def header(servers: Iterable[str]) -> str:
    names = ["row", *servers, LIMIT, "CPU of the subject to each, turn by turn", "targets"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def line(row: Row, table: Table, servers: Sequence[str]) -> str:
    """`servers[0]` is the subject. A cell is speed (CPU) p50/p99 memory; `*`: a note is on the standard error."""
    samples = table[row.name]
    cells = [_cell(row.units, middle(samples[name])) if name in samples else "-" for name in (*servers, LIMIT)]
    targets = "; ".join(_judge(target, row, table, servers[0]) for target in row.targets)
    ratios = ", ".join(f"{found} {name}" for name, found in ratios_of(metric_of(row.units), samples, servers))
    return f"| {' | '.join([f'{row.name} ({_units(row.units)})', *cells, ratios, targets])} |"


def metric_of(units: Units) -> str:
    """What a ratio is about."""
    return "cpu" if units[1] else "value"


def ratios_of(metric: str, samples: Samples, servers: Sequence[str]) -> list[tuple[str, Spread]]:
    """The subject to each other server, and to the limit of the machine."""
    own = samples.get(servers[0], [])
    found = [(name, ratio(metric, own, samples.get(name, []))) for name in (*servers[1:], LIMIT)]
    return [(name, one) for name, one in found if one is not None]


def _units(units: Units) -> str:
    return f"{units[0]}, CPU {units[1]}, p50/p99 ms, peak MiB" if units[1] else units[0]


def _cell(units: Units, sample: Sample) -> str:
    star = "*" if sample.note else ""
    if not sample.measured and (sample.note or units[1]):
        return f"none{star}"
    if not units[1]:
        return f"{number(sample.value)}{star}"
    times = f" {number(sample.p50)}/{number(sample.p99)}" if sample.p50 else ""
    memory = f" {number(sample.memory)}" if sample.memory else ""
    return f"{number(sample.speed)} ({number(sample.cpu)}){times}{memory}{star}"


def _judge(target: Target, row: Row, table: Table, subject: str) -> str:
    """Such as `speed >= 5x zot: 6.1 yes`."""
    sign = {">=": "≥", "<=": "≤"}[target.sign]
    whom = target.peer or target.row
    wish = f"{target.text}{target.metric} {sign} {target.factor:g}{'x ' + whom if whom else ''}"
    samples = table[row.name].get(subject, [])
    own, found = middle(samples), _against(target, row, table, subject)
    if found is None or (not getattr(own, target.metric) and (own.note or row.units[1])):
        return f"{wish}: not measured"
    met = found >= target.factor if target.sign == ">=" else found <= target.factor
    return f"{wish}: {number(found)} {'yes' if met else '**no**'}"


def _against(target: Target, row: Row, table: Table, subject: str) -> float | None:
    """The subject's figure in terms of what the target compares it with; None: one of them was not measured."""
    samples = table[row.name]
    own = samples.get(subject, [])
    if target.row:
        other = getattr(middle(table.get(target.row, {}).get(subject, [])), target.metric)
        return getattr(middle(own), target.metric) / other if other else None
    if not target.peer:
        return float(getattr(middle(own), target.metric))
    if target.peer != "best":
        found = ratio(target.metric, own, samples.get(target.peer, []))
        return found.middle if found else None
    others = [taken for name, taken in samples.items() if name not in (subject, LIMIT)]
    ratios = [one.middle for taken in others if (one := ratio(target.metric, own, taken))]
    return (min if target.metric == "speed" else max)(ratios, default=None)
