"""What jobs cost as a store grows: `python -m benchmarks.scale --help`.

Stores of many tiny blobs, in few and in many repositories, are laid out, and each job runs once over them: seconds, CPU
and the most memory of all its processes, measured at two sizes, so that what is not linear shows. With `--bucket` the
store is imported into one first, and the requests of each job are counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from benchmarks import far, jobs
from benchmarks.layouts import MANIFEST, manifest
from benchmarks.load import Body
from benchmarks.machine import Others, describe
from benchmarks.servers import pss_kib, tree

LAYERS = 100
"""Blobs of one image, its config among them."""
STRAY = 10
"""One blob of so many is reached by no manifest, for gc to take."""


@dataclass(frozen=True)
class Shape:
    """`blobs` in `repositories`, evenly."""

    blobs: int
    repositories: int

    @property
    def each(self) -> int:
        return self.blobs // self.repositories

    def __str__(self) -> str:
        return f"{self.blobs:,} blobs in {self.repositories:,} repositories"


class _Tiny(Body):
    """A blob whose bytes are a number."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)
        self.digest = "sha256:" + hashlib.sha256(data).hexdigest()


def lay_out(root: Path, shape: Shape) -> None:
    """Every blob is a file of its own with the right digest."""
    for at in range(shape.repositories):
        _repository(root / f"many/{at // 1000:03}/r{at:06}", f"{at:06}", shape.each)


def _repository(path: Path, mark: str, count: int) -> None:
    (path / "blobs/sha256").mkdir(parents=True)
    folder = os.open(path / "blobs/sha256", os.O_DIRECTORY)
    try:
        blobs = (_Tiny(f"{mark} {number}".encode()) for number in range(count))
        rows, kept = [], count - count // STRAY
        for start in range(0, kept, LAYERS):
            config, *layers = some = [next(blobs) for _ in range(min(LAYERS, kept - start))]
            for body in some:
                _write(folder, body.digest, body.data)
            image = manifest(config, layers, mark=mark, tag=f"t{start}")
            _write(folder, image.digest, image.data)
            rows.append({"mediaType": MANIFEST, "digest": image.digest, "size": len(image.data),
                         "annotations": {"org.opencontainers.image.ref.name": image.tag}})  # fmt: skip
        for body in blobs:
            _write(folder, body.digest, body.data)
    finally:
        os.close(folder)
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": rows}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _write(folder: int, digest: str, data: bytes) -> None:
    file = os.open(digest.removeprefix("sha256:"), os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=folder)
    os.write(file, data)
    os.close(file)


# -- jobs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """By one command and its children. `memory`: the most PSS of all of them, in MiB. `requests`: to a bucket."""

    seconds: float
    cpu: float
    memory: float
    requests: int = 0


def spend(words: Sequence[str]) -> Spent:
    """Raises RuntimeError when it does not end with 0."""
    spent, peak = jobs.run(words, (0,), _Peak)
    return Spent(spent.seconds, spent.cpu, peak.end(spent.rss_mib))


class _Peak(threading.Thread):
    """Looks at the memory of a process and its children ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._over, self._most, self._alone = pid, threading.Event(), 0.0, True
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.1):
            found = tree(self._pid)
            self._alone = self._alone and len(found) == 1
            self._most = max(self._most, sum(map(pss_kib, found)) / 1024)

    def end(self, highest: float) -> float:
        """`highest`: of the process, by the kernel, which misses no moment; worth more where it has no children."""
        self._over.set()
        self.join()
        return max(highest, self._most) if self._alone else self._most


@dataclass(frozen=True)
class Job:
    """`words` of the root, and of a folder for what it makes. `rest`: seconds to wait first, for what has to be old."""

    words: Callable[[str, Path], list[str]]
    rest: float = 0.0


def _on_root(*words: str) -> Callable[[str, Path], list[str]]:
    return lambda root, _: [words[0], "--root", root, *words[1:]]


JOBS = {
    "verify": Job(lambda root, _: ["verify", root]),
    "verify --deep": Job(lambda root, _: ["verify", root, "--deep"]),
    "verify --usage": Job(lambda root, _: ["verify", root, "--usage"]),
    "scrub --quick": Job(_on_root("scrub", "--quick")),
    "scrub": Job(_on_root("scrub")),
    "dedupe": Job(_on_root("dedupe")),
    "import-layout": Job(lambda root, into: ["import-layout", root, "--root", str(into / "copy")]),
    "gc --dry-run": Job(_on_root("gc", "--dry-run", "--delay", "1s"), 2),
    "gc, to the trash": Job(_on_root("gc", "--delay", "1s"), 2),
    "gc, out of the trash": Job(_on_root("gc", "--delay", "1s"), 2),
}
"""In this order; the collector last, since it takes something."""
FILL = "import-layout, into it"
"""Of a bucket only."""


def measured(shape: Shape, folder: Path, chosen: Sequence[str], *, bucket: bool = False) -> Iterator[tuple[str, Spent]]:
    """Each job over a store of that shape."""
    root = folder / "store"
    began = time.perf_counter()
    lay_out(root, shape)
    print(f"{shape}: {time.perf_counter() - began:.0f} s to make", file=sys.stderr, flush=True)
    if bucket:
        with _on_bucket(folder / "objects") as store:
            yield FILL, _counted(store, ["import-layout", str(root), "--root", far.root("many")])
            shutil.rmtree(root)
            for name in chosen:
                yield name, _counted(store, _words(JOBS[name], far.root("many"), folder))
        shutil.rmtree(folder / "into", ignore_errors=True)
        shutil.rmtree(folder / "objects")
        return
    for name in chosen:
        yield name, _run(_words(JOBS[name], str(root), folder))
    shutil.rmtree(folder / "into", ignore_errors=True)
    shutil.rmtree(root)


def _words(job: Job, root: str, folder: Path) -> list[str]:
    """Its command, and a new folder for what it makes."""
    into = folder / "into"
    shutil.rmtree(into, ignore_errors=True)
    time.sleep(job.rest)
    (into / "copy").mkdir(parents=True)
    (into / "copy/.keep").touch()  # an empty directory is not taken for a store
    return job.words(root, into)


def _run(words: list[str]) -> Spent:
    return spend([sys.executable, "-m", "zotctl.cli", *words, "--quiet", "--output", "jsonl"])


@contextmanager
def _on_bucket(folder: Path) -> Iterator[far.Store]:
    """An object store that the environment names."""
    store, before = far.Store(folder, 0), dict(os.environ)
    os.environ.update(store.environ(far=False))
    try:
        yield store
    finally:
        os.environ.clear()
        os.environ.update(before)
        store.close()


def _counted(store: far.Store, words: list[str]) -> Spent:
    before = store.requests().total()
    spent = _run(words)
    return replace(spent, requests=store.requests().total() - before)


# -- command line -------------------------------------------------------------------------------


def shapes(patterns: Sequence[str]) -> list[Shape]:
    """`BLOBS/REPOSITORIES`. Raises ValueError."""
    found = []
    for pattern in patterns:
        blobs, _, repositories = pattern.partition("/")
        shape = Shape(int(blobs), int(repositories or 10))
        if not 0 < shape.repositories <= min(shape.blobs, 1_000_000):
            raise ValueError(f"{pattern!r} is no store: BLOBS/REPOSITORIES, each repository with a blob at least")
        found.append(shape)
    return found


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("jobs", nargs="*", help="names or patterns such as 'gc*' (all)")
    parser.add_argument("--store", action="append", default=[], metavar="BLOBS/REPOSITORIES",
                        help="may be repeated (100000/10 and 1000000/10)")  # fmt: skip
    parser.add_argument("--bucket", action="store_true", help="on a bucket of versitygw")
    parser.add_argument("--dir", type=Path, help="where the stores are made (a temporary directory)")
    parser.add_argument("--out", type=Path, help="write scale.json into this directory")
    parser.add_argument("--list", action="store_true", help="name the jobs and stop")
    return parser


def main() -> int:
    parser = _options()
    options = parser.parse_args()
    if options.list:
        print("\n".join(JOBS))
        return 0
    chosen = [name for name in JOBS if any(fnmatch(name, one) for one in options.jobs or ["*"])]
    try:
        stores = shapes(options.store or ["100000/10", "1000000/10"])
    except ValueError as error:
        parser.error(str(error))
    if not chosen:
        parser.error("no job is called so; --list names them")
    others, taken = Others(), list[dict[str, object]]()
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="scale-") as folder:
        machine = describe(Path(folder).resolve())
        for shape in stores:
            for name, spent in measured(shape, Path(folder), chosen, bucket=options.bucket):
                taken.append({**vars(shape), "job": name, **vars(spent)})
                figures = f"{spent.seconds:.1f} s, {spent.cpu:.1f} CPU-s, {spent.memory:.0f} MiB"
                figures += f", {spent.requests:,} requests" if spent.requests else ""
                print(f"{shape}: {name}: {figures}", flush=True)
                if options.out:
                    options.out.mkdir(parents=True, exist_ok=True)
                    plain = {"machine": machine | {"others": f"{others.cores():.1f}"}, "jobs": taken}
                    (options.out / "scale.json").write_text(json.dumps(plain, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
