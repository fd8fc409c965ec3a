"""The levels of docs/design/proof.md, cheapest first, each as a command with a short and a long budget."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

SEED = "SEED"
"""In a command: the seed of the run."""


def module(name: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *words)


def tests(*words: str) -> tuple[str, ...]:
    return module("pytest", "-q", "-n", "auto", "--timeout=0", *words)


@dataclass(frozen=True)
class Level:
    """`counted`: patterns with one group, a number, which are added up in what the command prints. `environ`: of the
    long run, and of the short one where that differs."""

    name: str
    finds: str
    short: tuple[str, ...]
    long: tuple[str, ...]
    counted: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    short_environ: Mapping[str, str] = field(default_factory=dict)

    def command(self, *, long: bool, seed: int) -> tuple[str, ...]:
        return tuple(str(seed) if word == SEED else word for word in (self.long if long else self.short))

    def variables(self, *, long: bool) -> Mapping[str, str]:
        return self.environ if long else self.short_environ


TESTS = {"passed": r"(\d+) passed", "skipped": r"(\d+) skipped", "failed": r"(\d+) (?:failed|errors?)\b"}
"""What pytest says."""

SIMULATION = tests("tests/simulation")
MACHINE = tests("tests/storage/test_storage_machine.py")
SYSCALLS = tests("tests/faultproof/test_syscalls.py", "tests/faultproof/test_processes.py")
CUTS = tests(*(f"tests/faultproof/test_{what}.py" for what in ("powercut", "job_cuts", "job_powercuts")))
SUITES = tests("tests/conformance")
STREAMS = tests("tests/http/test_http_fuzz.py", "tests/http/test_http_vectors.py")
CLIENTS = tests("tests/clients")

LEVELS = (
    Level(
        "models", "errors in the protocol", tests("tests/model"), module("tests.model"),
        TESTS | {"states": r"(\d+) states"},
    ),
    Level(
        "state machine", "wrong results, lost bytes", MACHINE, MACHINE, TESTS,
        {"ZOTCTL_EXAMPLES": "2000", "ZOTCTL_RANDOM": "1"}, {"ZOTCTL_RANDOM": "1"},
    ),
    Level(
        "simulation", "races, missing second looks", SIMULATION, SIMULATION,
        TESTS | {"schedules": r"(\d+) schedules"}, {"ZOTCTL_SCHEDULES": "100000"}, {"ZOTCTL_SCHEDULES": "2000"},
    ),
    Level(
        "graphs", "content that is taken although something needs it",
        module("tests.graphs", "1000", SEED), module("tests.graphs", "100000", SEED), {"graphs": r"(\d+) graphs"},
    ),
    Level(
        "system calls", "half-done states", SYSCALLS, SYSCALLS, TESTS, {"ZOTCTL_FAULTS": "all"},
    ),
    Level(
        "power cuts", "missing or misordered flushes", CUTS, CUTS, TESTS | {"crash states": r"(\d+) crash states"},
    ),
    Level("suites", "drivers and stores that differ", SUITES, SUITES, TESTS),
    Level("NFS", "what two hosts see of each other", module("tests.nfs"), module("tests.nfs"), TESTS),
    Level(
        "streams", "requests that are understood in two ways", STREAMS, STREAMS, TESTS,
        {"ZOTCTL_EXAMPLES": "3000", "ZOTCTL_RANDOM": "1"}, {"ZOTCTL_RANDOM": "1"},
    ),
    Level(
        "fuzzing", "inputs that are no error and no answer",
        module("tests.fuzz", "20000", "--seed", SEED), module("tests.fuzz", "1000000", "--seed", SEED),
        {"inputs": r"(?m)^\w+ +([\d,]+) inputs", "bugs": r"(?m) (\d+) bugs$"},
    ),
    Level("clients", "what we understood differently", CLIENTS, CLIENTS, TESTS),
    Level(
        "soak", "what the rest abstracts away, answers from an older state",
        module("tests.soak", "--seconds", "20", "--seed", SEED),
        module("tests.soak", "--seconds", "1800", "--seed", SEED),
        {
            "requests": r"(?m)^- requests: ([\d,]+)",
            "kills": r"(?m)^- kills of \w+: ([\d,]+)",
            "partitions": r"(?m)^- partitions: ([\d,]+)",
            "histories": r"(?m)^- histories checked: ([\d,]+)",
            "places passed": r"(?m)^## \w+: passed()",
            "places not run": r"(?m)^## \w+: not run()",
        },
    ),
    Level(
        "mutants", "safeguards without a test",
        module("tests.mutants", "bucket: reservations and epochs"), module("tests.mutants"),
        {"caught": r"(\d+) of \d+ mutants were caught", "tried": r"\d+ of (\d+) mutants were caught"},
    ),
)  # fmt: skip
