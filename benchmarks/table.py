"""From samples to one line of a table: figures, ratios, targets."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks.rows import Row, Sample, Target

Samples = dict[str, Sample]  # by server
Table = dict[str, Samples]  # by row


def middle(samples: list[Sample]) -> Sample:
    """The median of each figure over the turns that measured something; the notes that differ, together."""
    good = [sample for sample in samples if sample.speed or sample.value] or samples
    figures = {
        name: median(getattr(sample, name) for sample in good) for name in ("speed", "cpu", "p50", "p99", "value")
    }
    return Sample(**figures, note="; ".join(dict.fromkeys(sample.note for sample in samples if sample.note)))


def header(servers: Iterable[str]) -> str:
    names = ["row", *servers, "subject / best other", "targets"]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def line(row: Row, table: Table, servers: list[str]) -> str:
    """`servers[0]` is the subject. A cell is speed (CPU) p50/p99; `*`: a note is on the standard error."""
    samples = table[row.name]
    cells = [_cell(row, samples[name]) if name in samples else "-" for name in servers]
    targets = "; ".join(_judge(target, row, table, servers[0]) for target in row.targets)
    whole = [f"{row.name} ({_units(row)})", *cells, _beside_best(row, samples, servers[0]), targets]
    return f"| {' | '.join(whole)} |"


def _units(row: Row) -> str:
    return row.units[0] if row.by_value else f"{row.units[0]}, CPU {row.units[1]}, p50/p99 ms"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def _cell(row: Row, sample: Sample) -> str:
    star = "*" if sample.note else ""
    if row.by_value and not (sample.note and not sample.value):
        return f"{_number(sample.value)}{star}"
    if not sample.speed:
        return f"none{star}"
    return f"{_number(sample.speed)} ({_number(sample.cpu)}) {_number(sample.p50)}/{_number(sample.p99)}{star}"


def _best(metric: str, samples: Samples, subject: str) -> tuple[float, str] | None:
    figures = {getattr(sample, metric): name for name, sample in samples.items() if name != subject}
    others = [(figure, name) for figure, name in figures.items() if figure]
    if not others:
        return None
    return max(others) if metric == "speed" else min(others)


def _beside_best(row: Row, samples: Samples, subject: str) -> str:
    metrics = ("value",) if row.by_value else ("speed", "cpu")
    return ", ".join(filter(None, (_ratio_to_best(metric, samples, subject) for metric in metrics)))


def _ratio_to_best(metric: str, samples: Samples, subject: str) -> str:
    best = _best(metric, samples, subject)
    own = getattr(samples[subject], metric) if subject in samples else 0.0
    return f"{metric} {_number(own / best[0])}x ({best[1]})" if best and own else ""


def _judge(target: Target, row: Row, table: Table, subject: str) -> str:
    """Such as `speed >= 5x zot: 6.1 yes`."""
    sign = {">=": "≥", "<=": "≤"}[target.sign]
    whom = target.peer or target.row
    wish = f"{target.text}{target.metric} {sign} {target.factor:g}{'x ' + whom if whom else ''}"
    base = _base(target, row, table, subject)
    sample = table[row.name].get(subject, Sample(note="absent"))
    own = getattr(sample, target.metric)
    if not base or (not own and (sample.note or not row.by_value)):
        return f"{wish}: not measured"
    ratio = own / base
    met = ratio >= target.factor if target.sign == ">=" else ratio <= target.factor
    return f"{wish}: {_number(ratio)} {'yes' if met else '**no**'}"


def _base(target: Target, row: Row, table: Table, subject: str) -> float:
    """What the target's factor is multiplied with; 0 when it wasn't measured."""
    samples = table[row.name]
    if target.row:
        return float(getattr(table.get(target.row, {}).get(subject, Sample()), target.metric))
    if target.peer == "best":
        best = _best(target.metric, samples, subject)
        return best[0] if best else 0.0
    return float(getattr(samples.get(target.peer, Sample()), target.metric)) if target.peer else 1.0
