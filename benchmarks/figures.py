"""What a turn measured, and what several turns say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import NamedTuple


@dataclass(frozen=True)
class Sample:
    """One turn of one server: `speed` is a rate, `cpu` is for an operation or a GiB, `p50` and `p99` are milliseconds,
    `memory` is the peak of the whole process tree in MiB. Rows of one figure have it in `value`, less is better."""

    speed: float = 0.0
    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    value: float = 0.0
    memory: float = 0.0
    note: str = ""

    @property
    def measured(self) -> bool:
        return bool(self.speed or self.value)


FIGURES = ("speed", "cpu", "p50", "p99", "value", "memory")
Samples = dict[str, list[Sample]]
"""By server, in the order of the turns."""
Table = dict[str, Samples]
"""By row."""


class Spread(NamedTuple):
    """A median between the smallest and the largest."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        if f"{self.low:.2g}" == f"{self.high:.2g}":
            return f"{number(self.middle)}x"
        return f"{number(self.middle)}x [{number(self.low)} to {number(self.high)}]"


def middle(samples: Iterable[Sample]) -> Sample:
    """The median of each figure over the turns that measured something; the notes that differ, together."""
    taken = list(samples)
    good = [sample for sample in taken if sample.measured] or taken or [Sample(note="not measured")]
    found = {name: median(getattr(sample, name) for sample in good) for name in FIGURES}
    return Sample(**found, note="; ".join(dict.fromkeys(sample.note for sample in taken if sample.note)))


def ratio(metric: str, own: list[Sample], other: list[Sample]) -> Spread | None:
    """Turn by turn, since what disturbs a turn disturbs its neighbours too. None: a side has no figure."""
    pairs = [(getattr(a, metric), getattr(b, metric)) for a, b in zip(own, other, strict=False)]
    found = [a / b for a, b in pairs if a and b]
    return Spread(median(found), min(found), max(found)) if found else None


def spread(metric: str, samples: list[Sample]) -> Spread | None:
    """Of one server."""
    found = [value for sample in samples if (value := getattr(sample, metric))]
    return Spread(median(found), min(found), max(found)) if found else None


def number(value: float) -> str:
    """Two or three digits that mean something."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def to_plain(samples: Samples) -> dict[str, list[dict[str, object]]]:
    """For JSON."""
    return {name: [asdict(sample) for sample in taken] for name, taken in samples.items()}


def from_plain(plain: dict[str, list[dict[str, object]]]) -> Samples:
    """What `to_plain` made."""
    make: Callable[..., Sample] = Sample
    return {name: [make(**fields) for fields in taken] for name, taken in plain.items()}
