"""The rows of the comparison: what is laid out, what is done, and what zotctl has to reach."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import limits
from benchmarks.figures import Sample
from benchmarks.layouts import (
    Content,
    images,
    large,
    manifest,
    manifest_puts,
    many_repositories,
    referred,
    tagged,
)
from benchmarks.load import MIB, Body, Maker, Request, Script, Tally, gets, once, play, pushes, puts
from benchmarks.servers import Running

_GIB = 1 << 30
_WARM = 0.5
_WARM_CONNECTIONS = 16


@dataclass(frozen=True)
class Sizes:
    """How much one turn does. `seconds` bounds what is counted by rate, `growth` what pushes manifests."""

    seconds: float = 4.0
    growth: float = 10.0
    manifests: int = 400
    middle: int = 64 * MIB
    middles: int = 32
    huge: int = _GIB
    rest: float = 12.0


QUICK = Sizes(seconds=1.5, growth=4.0, manifests=200, middle=16 * MIB, middles=32, huge=_GIB // 4, rest=3.0)


@dataclass(frozen=True)
class Turn:
    """What a row works with: a server that answers and holds the row's content under `prefix`."""

    running: Running
    content: Content
    sizes: Sizes
    prefix: str = ""

    def path(self, name: str, rest: str) -> str:
        return f"/v2/{self.prefix}{name}/{rest}"

    def measure(self, scripts: Callable[[Tally], list[Script]], tally: Tally) -> Sample:
        """Plays the scripts. Speed is MiB/s if the tally counts bytes, else operations a second."""
        with self.running.peak() as peak:
            before = self.running.cpu()
            play(self.running.address, scripts(tally), tally)
            cpu = self.running.cpu() - before
        done = len(tally.taken)
        if not done:
            return Sample(note=tally.complaint or "nothing done")
        note = f"{tally.errors} errors, such as {tally.complaint}" if tally.errors else ""
        speed = (tally.size / MIB if tally.size else done) / tally.elapsed
        each = cpu / (tally.size / _GIB) if tally.size else cpu * 1000 / done
        p50, p99 = tally.quantile(0.5) * 1000, tally.quantile(0.99) * 1000
        return Sample(speed, each, p50, p99, memory=peak.mib, note=note)

    def reads(self, requests: list[Request], connections: int, size: int = 0) -> Sample:
        """Asks for these in turn, each connection beginning at another one, after a warm-up."""

        def scripts(tally: Tally) -> list[Script]:
            shifted = [requests[i % len(requests) :] + requests[: i % len(requests)] for i in range(connections)]
            return [gets(tally, each, size) for each in shifted]

        self.warm_up(requests, connections if size else max(connections, _WARM_CONNECTIONS))
        return self.measure(scripts, Tally(seconds=self.sizes.seconds))

    def warm_up(self, requests: list[Request], connections: int = _WARM_CONNECTIONS) -> None:
        """By so many connections that each worker of a server gets some: it keeps what it read."""
        tally = Tally(seconds=_WARM)
        play(self.running.address, [gets(tally, requests) for _ in range(connections)], tally)


@dataclass(frozen=True)
class Target:
    """`metric` of the subject against `factor` times that of `peer`, or of its own in another `row`.

    "best" is the best of the others, "limit" that of the machine; without a peer and a row the factor is the figure
    itself.
    """

    metric: str
    sign: str
    factor: float
    peer: str = ""
    row: str = ""
    text: str = ""


Run = Callable[[Turn], Sample]
Limit = Callable[[Sizes, Path], limits.Rate]
"""What the bytes of a row cost at least, with files below that directory."""
Contents = Callable[[Sizes], Content]


@dataclass(frozen=True)
class Row:
    """`fresh`: every turn needs a new store, because it writes. `pushed`: olareg knows referrers only so.

    `units`: of speed or value, and of CPU.
    """

    name: str
    units: tuple[str, str]
    content: Contents
    run: Run
    targets: tuple[Target, ...] = ()
    fresh: bool = False
    local_only: bool = False
    pushed: bool = False
    page_bytes: Callable[[Sizes], int] = field(default=lambda sizes: 0)
    limit: Limit | None = None

    @property
    def by_value(self) -> bool:
        return self.units[1] == ""


_PER_SECOND = ("/s", "ms")
_BYTES = ("MiB/s", "s/GiB")
_MILLISECONDS = ("ms", "")


def _nothing(sizes: Sizes) -> Content:
    return {}


# Manifest pushes and reads, by the tags that are already there.


def _tagged(tags: int) -> Contents:
    return lambda sizes: {"growth": tagged(tags)}


def _new_manifests(turn: Turn, name: str) -> Iterator[Request]:
    """Each different, each with a tag of its own, made before the clock starts."""
    config, layer = turn.content[name].blobs
    fresh = [manifest(config, [layer], mark=f"new {i}", tag=f"n{i}") for i in range(turn.sizes.manifests)]
    return iter(list(manifest_puts(Maker(turn.running.address), turn.prefix + name, fresh)))


def push_manifests(connections: int) -> Run:
    def run(turn: Turn) -> Sample:
        requests = _new_manifests(turn, "growth")
        if laid := turn.content["growth"].manifests:
            turn.warm_up([Maker(turn.running.address).get(turn.path("growth", f"manifests/{laid[0].tag}"))])
        tally = Tally(seconds=turn.sizes.growth)
        return turn.measure(lambda tally: [puts(tally, requests) for _ in range(connections)], tally)

    return run


def get_tags(connections: int) -> Run:
    def run(turn: Turn) -> Sample:
        laid = turn.content["growth"].manifests
        step = max(1, len(laid) // 64)
        maker = Maker(turn.running.address)
        paths = [turn.path("growth", f"manifests/{image.tag}") for image in laid[::step]]
        return turn.reads([maker.get(path) for path in paths], connections)

    return run


def _get_digest(connections: int) -> Run:
    def run(turn: Turn) -> Sample:
        digest = turn.content["growth"].manifests[0].digest
        return turn.reads([Maker(turn.running.address).get(turn.path("growth", f"manifests/{digest}"))], connections)

    return run


def _head_blob(connections: int) -> Run:
    def run(turn: Turn) -> Sample:
        digest = turn.content["growth"].blobs[1].digest
        return turn.reads([Maker(turn.running.address).head(turn.path("growth", f"blobs/{digest}"))], connections)

    return run


# Lists.


def _list(turn: Turn, path: str, key: str, wanted: int) -> Sample:
    """Reads a list with 8 connections, and notes if it isn't whole."""
    answer = once(turn.running.address, lambda maker: maker.get(path, keep=True))
    if answer.status != 200:
        return Sample(note=f"{answer.status}")
    have = len(json.loads(answer.body)[key])
    sample = turn.reads([Maker(turn.running.address).get(path)], 8)
    return sample if have >= wanted else Sample(**vars(sample) | {"note": f"{have} of {wanted} listed"})


def _tags_list(turn: Turn) -> Sample:
    return _list(turn, turn.path("growth", "tags/list"), "tags", 1000)


def _catalog(turn: Turn) -> Sample:
    return _list(turn, "/v2/_catalog?n=1000", "repositories", 1000)


def _referrers(turn: Turn) -> Sample:
    digest = turn.content["growth"].manifests[0].digest
    return _list(turn, turn.path("growth", f"referrers/{digest}"), "manifests", 100)


# Blobs.


def push_small(connections: int) -> Run:
    def run(turn: Turn) -> Sample:
        bodies = iter([Body(2000) for _ in range(int(turn.sizes.seconds * 8000))])
        maker, name = Maker(turn.running.address), turn.prefix + "small"
        tally = _Counted(turn.sizes.seconds)
        return turn.measure(lambda tally: [pushes(tally, maker, name, bodies) for _ in range(connections)], tally)

    return run


class _Counted(Tally):
    """A tally of operations, whatever they carry."""

    def done(self, since: float, size: int = 0) -> None:
        super().done(since)


def push_large(connections: int, size: Callable[[Sizes], tuple[int, int]], chunk: int) -> Run:
    """`size` gives how many bodies and how large."""

    def run(turn: Turn) -> Sample:
        number, each = size(turn.sizes)
        bodies = iter([Body(each) for _ in range(number)])
        maker, name = Maker(turn.running.address), turn.prefix + "large"
        return turn.measure(
            lambda tally: [pushes(tally, maker, name, bodies, chunk) for _ in range(connections)], Tally()
        )

    return run


def pull_large(connections: int) -> Run:
    def run(turn: Turn) -> Sample:
        layers = turn.content["large"].blobs[1:]
        maker = Maker(turn.running.address)
        requests = [maker.get(turn.path("large", f"blobs/{layer.digest}")) for layer in layers]
        return turn.reads(requests, connections, layers[0].size)

    return run


def _many_layers(sizes: Sizes) -> Content:
    return {"large": large(64, MIB)}


def _huge_layer(sizes: Sizes) -> Content:
    return {"large": large(1, sizes.huge)}


def _middles(sizes: Sizes) -> tuple[int, int]:
    return sizes.middles, sizes.middle


def _huge(sizes: Sizes) -> tuple[int, int]:
    return 2, sizes.huge


def _bytes(size: Callable[[Sizes], tuple[int, int]]) -> Callable[[Sizes], int]:
    return lambda sizes: size(sizes)[0] * size(sizes)[1]


def _push_limit(size: Callable[[Sizes], tuple[int, int]]) -> Limit:
    return lambda sizes, folder: limits.pushed(folder, *size(sizes))


def _pull_limit(size: Callable[[Sizes], int]) -> Limit:
    return lambda sizes, folder: limits.pulled(folder, size(sizes))


# A push beside work in another repository.


def _neighbour(turn: Turn) -> Sample:
    """Pushes of 2 kB, one connection, while four others push manifests into a repository of 1,000 tags."""
    requests = _new_manifests(turn, "growth")
    bodies = iter([Body(2000) for _ in range(20000)])
    maker, tally, others = (
        Maker(turn.running.address),
        _Counted(turn.sizes.seconds),
        Tally(turn.sizes.seconds),
    )
    scripts = [puts(others, requests) for _ in range(4)]
    small = turn.prefix + "small"
    return turn.measure(lambda tally: [*scripts, pushes(tally, maker, small, bodies)], tally)


# The process: start, rest, memory.


def start(turn: Turn) -> Sample:
    return Sample(value=turn.running.start_ms)


def _rest(turn: Turn) -> Sample:
    """CPU of the first time after the start, in milliseconds a second, nobody asking anything."""
    before = turn.running.cpu()
    time.sleep(turn.sizes.rest)
    return Sample(value=(turn.running.cpu() - before) * 1000 / turn.sizes.rest)


def _memory(turn: Turn) -> Sample:
    time.sleep(min(3.0, turn.sizes.rest))
    return Sample(value=turn.running.pss_mib())


def _hundred_repositories(sizes: Sizes) -> Content:
    return images(100, 10, 10)


def _at_least(factor: float, peer: str) -> Target:
    return Target("speed", ">=", factor, peer)


def _cpu(factor: float, peer: str) -> Target:
    return Target("cpu", "<=", factor, peer)


def _manifest_rows() -> Iterator[Row]:
    targets: dict[tuple[int, int], tuple[Target, ...]] = {
        (0, 1): (),
        (0, 16): (),
        (1000, 1): (_at_least(5, "zot-nd"), Target("cpu", "<=", 3.0)),
        (1000, 16): (_at_least(5, "zot-nd"), Target("cpu", "<=", 3.0)),
        (10000, 1): (_at_least(10, "zot-nd"),),
        (10000, 16): (_at_least(30, "zot-nd"),),
    }
    for (tags, connections), wanted in targets.items():
        name = f"manifest-push-{tags}-c{connections}"
        yield Row(name, _PER_SECOND, _tagged(tags), push_manifests(connections), wanted, fresh=True)


def _read_rows() -> Iterator[Row]:
    targets: dict[tuple[int, int], tuple[Target, ...]] = {
        (1, 1): (_at_least(1, "zot"),),
        (1, 64): (_at_least(2, "zot"), _cpu(0.6, "zot"), _cpu(1, "olareg"), Target("p99", "<=", 0.5, "zot")),
        (1000, 1): (Target("p50", "<=", 1.5, row="get-tag-1-c1"),),
        (1000, 64): (_at_least(10, "zot"), Target("p50", "<=", 1.5, row="get-tag-1-c64")),
        (10000, 1): (Target("p50", "<=", 1.5, row="get-tag-1-c1"),),
        (10000, 64): (Target("p50", "<=", 1.5, row="get-tag-1-c64"),),
    }
    for (tags, connections), wanted in targets.items():
        yield Row(f"get-tag-{tags}-c{connections}", _PER_SECOND, _tagged(tags), get_tags(connections), wanted)
    yield Row("get-digest-1-c64", _PER_SECOND, _tagged(1), _get_digest(64), (_cpu(1, "olareg"),))
    yield Row("head-blob-c1", _PER_SECOND, _tagged(1), _head_blob(1))
    yield Row("head-blob-c64", _PER_SECOND, _tagged(1), _head_blob(64), (_at_least(2, "zot"), _cpu(1, "olareg")))


def _list_rows() -> Iterator[Row]:
    ten = (_at_least(10, "zot"),)
    yield Row("tags-list-1000-c8", _PER_SECOND, _tagged(1000), _tags_list, ten)
    yield Row("catalog-1000-c8", _PER_SECOND, lambda sizes: many_repositories(1000), _catalog, ten, local_only=True)
    yield Row("referrers-100-c8", _PER_SECOND, lambda sizes: {"growth": referred(100)}, _referrers, ten, pushed=True)


def _push_rows() -> Iterator[Row]:
    small = {
        1: (_at_least(2, "zot"), _at_least(0.7, "zot-nd")),
        16: (_at_least(5, "zot"), _at_least(1, "zot-nd")),
    }
    for connections, wanted in small.items():
        yield Row(f"push-2k-c{connections}", _PER_SECOND, _nothing, push_small(connections), wanted, fresh=True)
    large = (_at_least(1, "zot"), _cpu(0.75, "zot"), _cpu(1.2, "limit"))
    for name, chunk in {"push-64m-c4": 0, "push-64m-c4-patch": 8 * MIB}.items():
        run = push_large(4, _middles, chunk)
        page_bytes, limit = _bytes(_middles), _push_limit(_middles)
        yield Row(name, _BYTES, _nothing, run, large, fresh=True, page_bytes=page_bytes, limit=limit)
    for name, chunk in {"push-1g-c1": 0, "push-1g-c1-patch": 16 * MIB}.items():
        run = push_large(1, _huge, chunk)
        page_bytes, limit, huge = _bytes(_huge), _push_limit(_huge), (_cpu(0.7, "best"), _cpu(1.2, "limit"))
        yield Row(name, _BYTES, _nothing, run, huge, fresh=True, page_bytes=page_bytes, limit=limit)
    other = (Target("p99", "<=", 2, row="push-2k-c1"),)
    yield Row("push-2k-c1-beside-manifests", _PER_SECOND, _tagged(1000), _neighbour, other, fresh=True)


def _pull_rows() -> Iterator[Row]:
    level = Target("speed", ">=", 0.9, "olareg", text="level with olareg: ")
    targets = (_cpu(0.45, "zot"), _at_least(1.5, "zot"), level)
    yield Row("pull-1m-c8", _BYTES, _many_layers, pull_large(8), targets, limit=_pull_limit(lambda sizes: MIB))
    huge = _pull_limit(lambda sizes: sizes.huge)
    yield Row("pull-1g-c1", _BYTES, _huge_layer, pull_large(1), (Target("cpu", "<=", 0.3),), limit=huge)
    yield Row("pull-1g-c8", _BYTES, _huge_layer, pull_large(8), (_cpu(0.6, "zot"), _at_least(1.4, "zot")), limit=huge)


def _process_rows() -> Iterator[Row]:
    def row(name: str, unit: str, content: Contents, run: Run, target: Target) -> Row:
        return Row(name, (unit, ""), content, run, (target,), fresh=True, local_only=True)

    laid_out = _hundred_repositories
    yield row("start-empty", "ms", _nothing, start, Target("value", "<=", 500))
    yield row("start-laid-out", "ms", laid_out, start, Target("value", "<=", 1.2, row="start-empty"))
    yield row("rest-laid-out", "ms/s", laid_out, _rest, Target("value", "<=", 1.7))
    yield row("memory-empty", "MiB", _nothing, _memory, Target("value", "<=", 1, "zot"))


def all_rows() -> dict[str, Row]:
    groups = (_manifest_rows, _read_rows, _list_rows, _push_rows, _pull_rows, _process_rows)
    return {row.name: row for group in groups for row in group()}
