"""Scrubbing beside what the machine can hash and beside `zot scrub`: `python -m benchmarks.scrub`.

All take turns on one store, several rounds; the figure is the median. Speed is bytes by the whole life of the
process, CPU is user and system time of it and its descendants. It prints ratios and never fails on a time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.layouts import Content, Repository, lay_out, manifest
from benchmarks.load import MIB, Body

GIB = 1 << 30
Turn = Callable[[], None]
Figure = tuple[float, float]
"""MiB a second, CPU seconds for each GiB."""


class Config(Body):
    """A real one: zot parses it before it looks at any layer."""

    def __init__(self, mark: str) -> None:
        rootfs = {"type": "layers", "diff_ids": []}
        document = {"architecture": "amd64", "os": "linux", "author": mark, "rootfs": rootfs}
        self._data = json.dumps(document).encode()
        self.size = len(self._data)
        self.digest = "sha256:" + hashlib.sha256(self._data).hexdigest()

    def write(self, path: str) -> None:
        Path(path).write_bytes(self._data)


def image(layers: list[Body], tag: str) -> Repository:
    config = Config(tag)
    return Repository([config, *layers], [manifest(config, layers, mark=tag, tag=tag)])


def content(size: int, layer: int, small: int) -> Content:
    """Layers of one size in four repositories, and `small` images of small blobs in eight."""
    each = max(1, size // layer // 4)
    found: Content = {f"large/r{i}": image([Body(layer) for _ in range(each)], "t0") for i in range(4)}
    for number in range(small):
        one = image([Body(1024) for _ in range(3)], f"t{number}")
        into = found.setdefault(f"small/r{number % 8}", Repository())
        into.blobs += one.blobs
        into.manifests += one.manifests
    return found


def total(found: Content) -> int:
    def of(repository: Repository) -> int:
        return sum(blob.size for blob in repository.blobs) + sum(len(m.data) for m in repository.manifests)

    return sum(map(of, found.values()))


# -- who takes turns ----------------------------------------------------------------------------


def zotctl(root: str) -> Turn:
    return _command([sys.executable, "-m", "benchmarks.scrub", "--child", root])


def child(root: str) -> None:
    """What `zotctl scrub --root DIR` does, without the command line."""
    from zotctl.config import RootConfig, StorageConfig
    from zotctl.jobs.check.scrub import scrub
    from zotctl.jobs.run import Run
    from zotctl.storage import open_store

    run = Run("scrub", open_store(StorageConfig(roots=(RootConfig(path=root),))))
    report = run.finish(lambda: scrub(run))
    if report.exit_code:
        raise SystemExit(f"scrub: {report.document()}")


def openssl_files(root: str) -> Turn | None:
    """`openssl dgst` over the same files, on all cores."""
    if not shutil.which("openssl"):
        return None
    command = f"find {root} -path '*/blobs/*' -type f -print0 | xargs -0 -n 8 -P {cores()} openssl dgst -sha256"
    return _command(["sh", "-c", command])


def openssl_memory(size: int) -> Turn | None:
    """OpenSSL by itself, as hashlib calls it: as many bytes, one buffer, no file."""
    data = os.urandom(MIB)

    def part(_: int) -> None:
        state = hashlib.sha256()
        for _ in range(size // MIB // cores()):
            state.update(data)

    def turn() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(part, range(cores())))

    return turn


def zot(root: str, folder: str) -> Turn | None:
    if not shutil.which("zot"):
        return None
    config = Path(folder, "zot.json")
    storage = {"rootDirectory": root, "dedupe": False, "gc": False}
    http = {"address": "127.0.0.1", "port": "0"}
    document = {"distSpecVersion": "1.1.1", "storage": storage, "http": http, "log": {"level": "error"}}
    config.write_text(json.dumps(document))
    return _command(["zot", "scrub", str(config)])


def _command(words: list[str]) -> Turn:
    def turn() -> None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode or " affected " in done.stdout:
            raise SystemExit(f"{' '.join(words)}: {done.returncode}: {(done.stderr or done.stdout)[-500:]}")

    return turn


def cores() -> int:
    return len(os.sched_getaffinity(0))


# -- measuring ----------------------------------------------------------------------------------


def measure(turn: Turn, size: int) -> Figure:
    began, used = time.perf_counter(), _cpu()
    turn()
    return size / MIB / (time.perf_counter() - began), (_cpu() - used) / (size / GIB)


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def rounds(turns: dict[str, Turn], size: int, count: int) -> dict[str, list[Figure]]:
    """Each round begins with another one, so that none has the quiet moments for itself."""
    found: dict[str, list[Figure]] = {name: [] for name in turns}
    names = list(turns)
    for number in range(count):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(measure(turns[name], size))
    return found


def middle(figures: list[Figure]) -> Figure:
    return statistics.median(f[0] for f in figures), statistics.median(f[1] for f in figures)


def show(figures: dict[str, list[Figure]]) -> None:
    ours = middle(figures["zotctl"])
    for name, several in figures.items():
        speed, cpu = middle(several)
        ratio = f"speed {ours[0] / speed:.2f}x, CPU {ours[1] / cpu:.2f}x" if name != "zotctl" else ""
        print(f"{name:16} {speed:8.0f} MiB/s {cpu:6.2f} CPU-s/GiB   {ratio}", flush=True)
    print("`zotctl` starts an interpreter for each turn: some 0.25 CPU-s, whatever it reads", flush=True)
    print("target: speed >= min(1.6 x zot, 0.8 x openssl), CPU <= 1.1 x openssl", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, metavar="MIB", help="what the large layers have together")
    parser.add_argument("--layer", type=int, default=64, metavar="MIB", help="of one large layer")
    parser.add_argument("--small", type=int, default=400, metavar="N", help="images of small blobs beside them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where the store is laid out, for instance on a disk of its own")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        root = os.path.join(folder, "root")
        made = content(options.size * MIB, options.layer * MIB, options.small)
        lay_out(root, made)
        size = total(made)
        possible = {
            "zotctl": zotctl(root), "openssl": openssl_memory(size), "openssl dgst": openssl_files(root),
            "zot scrub": zot(root, folder),
        }  # fmt: skip
        print(f"{size / GIB:.2f} GiB, {cores()} cores, {options.rounds} rounds", flush=True)
        turns = {name: turn for name, turn in possible.items() if turn is not None}
        return show(rounds(turns, size, options.rounds))


if __name__ == "__main__":
    main()
