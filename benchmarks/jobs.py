"""The jobs beside peers and limits of the machine: `python -m benchmarks.jobs --help`.

Every row prints figures of one run, ratios between them, and the target where there is one. Nothing here
passes or fails on a time; what is left of a store after a turn is checked, and a wrong result is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from benchmarks import scrub
from benchmarks.beside import KINDS, Client, Times, quiet
from benchmarks.layouts import Content, Repository, large, lay_out, manifest
from benchmarks.load import MIB, Body
from benchmarks.servers import CHECKOUT, LOOPBACK, Running, Server, free_port

GIB = 1 << 30
OLD = 1_500_000_000
"""The time stamp of whatever a collection may take."""
CLI = [sys.executable, "-m", "zotctl.cli"]


@dataclass(frozen=True)
class Sizes:
    """How much one row does."""

    turns: int = 3
    manifests: tuple[int, ...] = (500, 1000, 10_000)
    million: bool = True
    bytes: int = 2 * GIB
    requests: int = 2500
    """Of each kind, idle and busy."""


QUICK = Sizes(turns=1, manifests=(500, 1000, 2000), million=False, bytes=GIB // 2, requests=400)


# -- commands -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """By one command and its children."""

    seconds: float
    cpu: float
    rss_mib: float
    output: str = ""


Watch = TypeVar("Watch")


def run(words: Sequence[str], codes: Sequence[int], watch: Callable[[int], Watch]) -> tuple[Spent, Watch]:
    """Run a command, with `watch` begun on its process. Its `rss_mib` is the kernel's `ru_maxrss`. Raises RuntimeError
    when it ends with another code."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(words, cwd=CHECKOUT, stdout=out, stderr=subprocess.STDOUT)
        watching = watch(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0)
        text = out.read()
    if process.returncode not in codes:
        raise RuntimeError(f"{' '.join(words)}: {process.returncode}: {text[-500:]}")
    return Spent(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text), watching


def spend(words: list[str], codes: tuple[int, ...] = (0,)) -> Spent:
    """Raises RuntimeError when it ends with another code."""
    spent, peak = run(words, codes, _Peak)
    return replace(spent, rss_mib=peak.mib())


class _Peak(threading.Thread):
    """Peak memory of one process, asked now and then: `ru_maxrss` would have that of whoever started it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status, self._kib = Path(f"/proc/{pid}/status"), 0
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while found := re.search(r"^VmHWM:\s*(\d+) kB", self._status.read_text(), re.MULTILINE):
                self._kib = int(found[1])
                time.sleep(0.01)

    def mib(self) -> float:
        self.join()
        return self._kib / 1024


def middle(turns: list[Spent]) -> Spent:
    figures = ([getattr(turn, name) for turn in turns] for name in ("seconds", "cpu", "rss_mib"))
    return Spent(*map(statistics.median, figures))


def told(name: str, spent: Spent, rest: str = "") -> None:
    print(f"  {name:28} {spent.seconds:8.2f} s  {spent.cpu:7.2f} CPU-s  {spent.rss_mib:6.0f} MiB  {rest}", flush=True)


def target(text: str, ratio: float, limit: float) -> None:
    """At most `limit`."""
    print(f"  target: {text} at most {limit:g}: {ratio:.2f} {'yes' if ratio <= limit else '**no**'}", flush=True)


def files(root: str) -> int:
    """Blobs of a store, without what the servers keep for themselves."""
    found = 0
    for directory, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".")]
        found += len(names) if "/blobs/" in directory else 0
    return found


# -- collection ---------------------------------------------------------------------------------


def garbage(manifests: int) -> Repository:
    """Three layers of 1 KiB each, every other one without a tag, and as many blobs that nothing needs."""
    config = scrub.Config(str(manifests))
    made = Repository([config])
    for number in range(manifests):
        layers: list[Body] = [Body(1024) for _ in range(3)]
        made.blobs += [*layers, Body(1024)]
        made.manifests.append(manifest(config, layers, mark=str(number), tag="" if number % 2 else f"t{number}"))
    return made


def age(root: str) -> None:
    for directory, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(directory, name), (OLD, OLD))


def collection(folder: str, sizes: Sizes) -> None:
    each: dict[int, float] = {}
    for count in sizes.manifests:
        template = os.path.join(folder, f"gc-{count}")
        lay_out(template, {"gc/r": garbage(count)})
        age(template)
        print(f" {count:,} manifests with 3 layers each, half of them tagged, {count:,} stray blobs", flush=True)
        each[count] = _collection(folder, template, count, sizes)
        shutil.rmtree(template)
    few, many = min(each), max(each)
    target(f"CPU for one manifest with {many:,}, by that with {few:,}", each[many] / each[few], 1.2)


def _collection(folder: str, template: str, count: int, sizes: Sizes) -> float:
    """CPU milliseconds for each manifest."""
    takers: dict[str, Callable[[str], Spent]] = {"zotctl": _gc_at_once, "zotctl, by the trash": _gc_by_trash}
    if shutil.which("zot"):
        takers["zot"] = _gc_of_zot
    spent: dict[str, list[Spent]] = {name: [] for name in takers}
    for turn in range(sizes.turns):
        names = list(takers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            with _copy(template, folder) as root:
                spent[name].append(takers[name](root))
                if files(root) != 2 * count + 1:
                    raise RuntimeError(f"{name}: {files(root)} blobs are left, not {2 * count + 1}")
    middles = {name: middle(turns) for name, turns in spent.items()}
    start = min((spend([*CLI, "gc", "--help"]) for _ in range(3)), key=lambda one: one.cpu)
    mine = middles["zotctl"]
    for name, one in middles.items():
        beside = f"time {mine.seconds / one.seconds:.2f}x, CPU {mine.cpu / one.cpu:.2f}x" if name == "zot" else ""
        told(name, one, beside)
    each = max(mine.cpu - start.cpu, 0.001) * 1000 / count
    print(f"  {each:.3f} CPU-ms a manifest (without the start of {start.cpu:.2f})", flush=True)
    if shutil.which("strace"):
        print(f"  each manifest is opened {_opens(folder, template)} time(s), by strace", flush=True)
    if count == 1000:
        target("seconds for this store", mine.seconds, 1.0)
    return each


@contextmanager
def _copy(template: str, folder: str) -> Iterator[str]:
    root = os.path.join(folder, "copy")
    subprocess.run(["cp", "-a", template, root], check=True)
    try:
        yield root
    finally:
        shutil.rmtree(root)


def _gc_at_once(root: str) -> Spent:
    return spend([*CLI, "gc", "--root", root, "--delay", "0s", "--untagged", "all", "--quiet", "--json"])


def _gc_by_trash(root: str) -> Spent:
    """Seen, trashed, purged: three runs, as by cron."""
    runs = []
    for _ in range(3):
        runs.append(spend([*CLI, "gc", "--root", root, "--delay", "1s", "--untagged", "all", "--quiet", "--json"]))
        time.sleep(1.2)
    return Spent(sum(r.seconds for r in runs), sum(r.cpu for r in runs), max(r.rss_mib for r in runs))


def _gc_of_zot(root: str) -> Spent:
    """Between two lines of its log; CPU is that of the server until then."""
    config = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": root, "dedupe": False, "gc": True, "gcDelay": "1s", "gcInterval": "1h"},
        "http": {"address": LOOPBACK, "port": str(free_port())},
        "log": {"level": "info"},
    }
    Path(f"{root}.json").write_text(json.dumps(config))
    log = Path(f"{root}.log")
    with log.open("w") as out:
        process = subprocess.Popen(["zot", "serve", f"{root}.json"], stdout=out, stderr=out)
    try:
        end = time.monotonic() + 120
        while "gc successfully completed" not in (text := log.read_text()):
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(f"zot did not collect: {text[-300:]}")
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = -9
    moments = [
        next(line for line in text.splitlines() if words in line)
        for words in ("executing gc of orphaned blobs", "gc successfully completed")
    ]
    began, ended = (_seconds(json.loads(line)["time"]) for line in moments)
    return Spent(ended - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _seconds(text: str) -> float:
    """Of a day: 2026-11-24T20:27:29.359573693Z."""
    hours, minutes, seconds = text.partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _opens(folder: str, template: str) -> str:
    """How often the manifests are opened: the fewest and the most."""
    log = os.path.join(folder, "opens")
    index = json.loads(Path(template, "gc/r/index.json").read_text())
    times = {row["digest"].removeprefix("sha256:"): 0 for row in index["manifests"]}
    with _copy(template, folder) as root:
        gc = [*CLI, "gc", "--root", root, "--delay", "0s", "--untagged", "all", "--quiet", "--json"]
        spend(["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=openat,openat2,open", "-o", log, *gc])
    with open(log) as lines:
        for line in lines:
            found = re.search(r'/([0-9a-f]{64})"', line)
            if found and found[1] in times and " = -1 " not in line:
                times[found[1]] += 1
    fewest, most = min(times.values()), max(times.values())
    return f"{most}" if fewest == most else f"{fewest} to {most}"


MILLION = 1_000_000
PARTS = 10
LINKS = 50_000


def million(folder: str, sizes: Sizes) -> None:
    """A million names of a few inodes: a collection reads manifests only."""
    if not sizes.million:
        print("  left out with --quick", flush=True)
        return
    root = os.path.join(folder, "million")
    began = time.perf_counter()
    for part in range(PARTS):
        _many(root, f"many/r{part}", MILLION // PARTS)
    print(
        f" {MILLION:,} blobs in {PARTS} repositories, half of them to go; {time.perf_counter() - began:.0f} s to make"
    )
    gc = [*CLI, "gc", "--root", root, "--delay", "1s", "--quiet", "--json"]
    had = files(root)
    told("trash", first := spend(gc), f"{first.seconds / had * 1e6:.0f} us a blob")
    time.sleep(1.2)
    told("purge", second := spend(gc), f"{second.seconds / had * 1e6:.0f} us a blob")
    if files(root) != had - MILLION // 2:
        raise RuntimeError(f"{files(root)} blobs are left of {had}")
    told("nothing to do", spend(gc))
    shutil.rmtree(root)


def _many(root: str, name: str, blobs: int) -> None:
    """Images of 100 layers, and as many strays; all of them are names of a few empty files."""
    kept = Repository([scrub.Config(name)])
    layers = [f"{os.urandom(32).hex()}" for _ in range(blobs)]
    lay_out(root, {name: kept})
    directory = os.path.join(root, *name.split("/"), "blobs", "sha256")
    for number, layer in enumerate(layers):
        path = os.path.join(directory, layer)
        if number % LINKS == 0:
            source = path
            Path(path).touch()
        else:
            os.link(source, path)
    config = kept.blobs[0]
    rows = []
    for start in range(0, blobs // 2, 100):
        some = [_Named(layer) for layer in layers[start : start + 100]]
        image = manifest(config, some, mark=str(start), tag=f"t{start}")
        Path(directory, image.digest.removeprefix("sha256:")).write_bytes(image.data)
        rows.append(image)
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.digest,
                "size": len(image.data),
                "annotations": {"org.opencontainers.image.ref.name": image.tag},
            }
            for image in rows
        ],
    }
    Path(root, name, "index.json").write_text(json.dumps(index))
    age(os.path.join(root, name))


class _Named(Body):
    """An empty blob with a made-up digest."""

    def __init__(self, encoded: str) -> None:
        self.size, self.digest = 0, f"sha256:{encoded}"


# -- bytes --------------------------------------------------------------------------------------


def scrubbing(folder: str, sizes: Sizes) -> None:
    """`benchmarks.scrub`, with its defaults."""
    words = [sys.executable, "-m", "benchmarks.scrub", "--dir", folder, "--rounds", str(max(3, sizes.turns))]
    subprocess.run([*words, "--size", str(sizes.bytes // MIB)], cwd=CHECKOUT, check=True)


def images(size: int, repositories: int) -> Content:
    """Layers of 32 MiB, shared by nobody."""
    each = max(1, size // repositories // (32 * MIB))
    return {f"images/r{number}": large(each, 32 * MIB) for number in range(repositories)}


def hash_all(root: str, tool: str) -> Spent | None:
    """What hashing the same bytes costs at least."""
    if not shutil.which(tool.split()[0]):
        return None
    find = f"find {root} -path '*/blobs/*' -type f -print0 | xargs -0 -n 4 -P {scrub.cores()} {tool} >/dev/null"
    return spend(["sh", "-c", find])


def _speed(spent: Spent, size: int, mine: Spent | None = None) -> str:
    beside = f"   time {mine.seconds / spent.seconds:.2f}x, CPU {mine.cpu / spent.cpu:.2f}x" if mine else ""
    return f"{size / MIB / spent.seconds:6.0f} MiB/s {spent.cpu / (size / GIB):5.2f} CPU-s/GiB{beside}"


def deduplication(folder: str, sizes: Sizes) -> None:
    once = os.path.join(folder, "once")
    made = images(sizes.bytes // 2, 4)
    lay_out(once, made)
    size = 2 * scrub.total(made)
    print(f" {size / GIB:.2f} GiB, each blob in two repositories", flush=True)
    takers: dict[str, Callable[[str], Spent | None]] = {
        "zotctl": lambda root: spend([*CLI, "dedupe", "--root", root, "--quiet", "--json"]),
        "openssl dgst": lambda root: hash_all(root, "openssl dgst -sha256"),
        "sha256sum": lambda root: hash_all(root, "sha256sum"),
    }
    if shutil.which("zot"):
        takers["zot (links unread)"] = lambda root: _dedupe_of_zot(root, size)
    spent: dict[str, list[Spent]] = {name: [] for name in takers}
    for turn in range(sizes.turns):
        names = list(takers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            root = os.path.join(folder, "twice")
            for half in ("a", "b"):
                shutil.copytree(once, os.path.join(root, half))
            if (one := takers[name](root)) is not None:
                spent[name].append(one)
            if "zot" in name and (stored := _stored(root)) > 0.51 * size:
                raise RuntimeError(f"{name}: {stored / MIB:.0f} MiB are stored after deduplication")
            shutil.rmtree(root)
    mine = middle(spent["zotctl"])
    for name, turns in spent.items():
        if turns:
            told(name, middle(turns), _speed(middle(turns), size, mine if name != "zotctl" else None))
    shutil.rmtree(once)


def _stored(root: str) -> int:
    """Bytes of blobs, each inode once."""
    inodes: dict[int, int] = {}
    for directory, _, names in os.walk(root):
        for name in names if "/blobs/" in directory else ():
            info = os.stat(os.path.join(directory, name))
            inodes[info.st_ino] = info.st_size
    return sum(inodes.values())


def _dedupe_of_zot(root: str, size: int) -> Spent:
    """From its start until everything is stored once."""
    config = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": root, "dedupe": True, "gc": False},
        "http": {"address": LOOPBACK, "port": str(free_port())},
        "log": {"level": "error"},
    }
    Path(f"{root}.json").write_text(json.dumps(config))
    began = time.perf_counter()
    process = subprocess.Popen(["zot", "serve", f"{root}.json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while _stored(root) > 0.51 * size:
            if time.perf_counter() - began > 120 or process.poll() is not None:
                raise RuntimeError("zot did not deduplicate the store in 120 s")
            time.sleep(0.05)
        seconds = time.perf_counter() - began
    finally:
        process.kill()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = -9
    return Spent(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def importing(folder: str, sizes: Sizes) -> None:
    source, into = os.path.join(folder, "layouts"), os.path.join(folder, "into")
    made = images(sizes.bytes // 2, 8)
    lay_out(source, made)
    size = scrub.total(made)
    print(f" {size / GIB:.2f} GiB in {len(made)} layouts", flush=True)
    takers: dict[str, Callable[[], list[str]]] = {
        "zotctl": lambda: [*CLI, "import-layout", source, "--root", into, "--quiet", "--json"],
        "cp -r, then openssl dgst": lambda: _copy_and_hash(source, into, "openssl dgst -sha256"),
        "cp -r, then sha256sum": lambda: _copy_and_hash(source, into, "sha256sum"),
        "cp -r": lambda: ["cp", "-r", f"{source}/.", into],
    }
    spent: dict[str, list[Spent]] = {name: [] for name in takers}
    for turn in range(sizes.turns):
        names = list(takers)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            os.mkdir(into)
            Path(into, ".keep").touch()  # an empty directory is not taken for a store
            spent[name].append(spend(takers[name]()))
            if _stored(into) != size:
                raise RuntimeError(f"{name}: {_stored(into)} bytes arrived, not {size}")
            shutil.rmtree(into)
    mine = middle(spent["zotctl"])
    for name, turns in spent.items():
        told(name, middle(turns), _speed(middle(turns), size, mine if name != "zotctl" else None))
    shutil.rmtree(source)


def _copy_and_hash(source: str, into: str, tool: str) -> list[str]:
    find = f"find {into} -path '*/blobs/*' -type f -print0 | xargs -0 -n 4 -P {scrub.cores()} {tool} >/dev/null"
    return ["sh", "-c", f"cp -r {source}/. {into} && {find}"]


# -- requests meanwhile -------------------------------------------------------------------------

BUSY_LIMIT = 2.0


@dataclass(frozen=True)
class Job:
    """`prepare` makes work for one run in the root, while nobody measures; `words` is the command, of the root."""

    content: Callable[[Sizes], Content]
    words: Callable[[str], list[str]]
    prepare: Callable[[str, str, int], None] = lambda folder, root, turn: None


def _gc_work(folder: str, root: str, turn: int) -> None:
    template = os.path.join(folder, "garbage")
    if not os.path.exists(template):
        lay_out(template, {"r": garbage(5000)})
        age(template)
    fresh = os.path.join(folder, "fresh")
    subprocess.run(["cp", "-a", f"{template}/r", fresh], check=True)
    os.makedirs(os.path.join(root, "gc"), exist_ok=True)
    os.rename(fresh, os.path.join(root, "gc", f"r{turn}"))


def _dedupe_work(folder: str, root: str, turn: int) -> None:
    for half in ("a", "b"):
        path = os.path.join(root, half)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(os.path.join(root, "images"), path)


def _import_work(folder: str, root: str, turn: int) -> None:
    shutil.rmtree(os.path.join(root, "imported"), ignore_errors=True)


def _some_images(sizes: Sizes) -> Content:
    return images(min(sizes.bytes // 2, GIB), 4)


JOBS = {
    "gc": Job(
        lambda sizes: {},
        lambda root: [*CLI, "gc", "--root", root, "--delay", "0s", "--untagged", "all", "--quiet", "--json"],
        _gc_work,
    ),
    "scrub": Job(_some_images, lambda root: [*CLI, "scrub", "--root", root, "--quiet", "--json"]),
    "dedupe": Job(_some_images, lambda root: [*CLI, "dedupe", "--root", root, "--quiet", "--json"], _dedupe_work),
    "import": Job(
        _some_images,
        lambda root: [
            *[*CLI, "import-layout", f"{root}/images", "--root", root],
            *["--repo", "imported", "--all", "--quiet", "--json"],
        ],
        _import_work,
    ),
}
JOBS["openssl"] = Job(
    _some_images,
    lambda root: [
        "sh",
        "-c",
        f"find {root}/images -path '*/blobs/*' -type f -print0"
        f" | xargs -0 -n 4 -P {scrub.cores()} nice -n 19 openssl dgst -sha256",
    ],
)


def beside(name: str) -> Callable[[str, Sizes], None]:
    def row(folder: str, sizes: Sizes) -> None:
        job, root = JOBS[name], Path(folder, f"beside-{name}")
        lay_out(str(root), {"quiet/r": (asked := quiet()), **job.content(sizes)})
        how = f"{' '.join(CLI)} serve --config {_config(folder, str(root), gc=False)} --listen {LOOPBACK}:{{port}}"
        running = Running(Server("zotctl", how), root)
        try:
            running.settle()
            idle, busy = _turns(running, asked, job, folder, str(root), sizes)
        finally:
            running.stop()
            shutil.rmtree(root)
        _compare(idle, busy)

    return row


def _turns(running: Running, asked: Repository, job: Job, folder: str, root: str, sizes: Sizes) -> tuple[Times, Times]:
    """Idle, then beside one run of the job, again and again."""
    idle, busy, runs = Times(), Times(), 0
    client = Client(running.address, asked.blobs[1].digest)
    client.play(Times(), _for(1.0))
    while busy.count < sizes.requests and runs < 60:
        job.prepare(folder, root, runs)
        time.sleep(0.5)
        began = time.perf_counter()
        with tempfile.TemporaryFile() as out:
            # A session of its own, as under cron: with autogroups, the client would pay for the job otherwise.
            process = subprocess.Popen(
                job.words(root), cwd=CHECKOUT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            client.play(busy, _until_end(process))
            if process.returncode:
                out.seek(0)
                raise RuntimeError(f"{process.args!r}: {process.returncode}: {out.read()[-500:]!r}")
        client.play(idle, _for(time.perf_counter() - began))
        runs += 1
    client.close()
    print(f"  {runs} runs", flush=True)
    return idle, busy


def _until_end(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    return lambda: process.poll() is None


def _for(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() < end


def _compare(idle: Times, busy: Times) -> None:
    for kind in KINDS:
        before, now = idle.p(kind, 0.99), busy.p(kind, 0.99)
        figures = f"idle {idle.p(kind, 0.5):.2f}/{before:.2f}, busy {busy.p(kind, 0.5):.2f}/{now:.2f} ms p50/p99"
        print(f"  {kind:14} {figures}, greatest {busy.p(kind, 1.0):.1f}, {len(busy.taken[kind])} requests")
        target(f"p99 of {kind}, busy by idle,", now / before if before else 0.0, BUSY_LIMIT)


def _config(folder: str, root: str, *, gc: bool, scrub_interval: str = "") -> str:
    """Of the server: what it collects goes at once."""
    path = Path(folder, "serve.toml")
    more = f'[scrub]\ninterval = "{scrub_interval}"\nrate = "1GiB"\n' if scrub_interval else ""
    path.write_text(
        f'[log]\nlevel = "error"\n{more}[[storage.roots]]\npath = "{root}"\ngc = {str(gc).lower()}\n'
        'gc_interval = "1s"\ngc_delay = "0s"\ngc_untagged = "all"\n'
    )
    return str(path)


def inside(name: str) -> Callable[[str, Sizes], None]:
    """The same with the job inside `serve`, beside a server that has none; they take turns."""

    def row(folder: str, sizes: Sizes) -> None:
        root = Path(folder, f"inside-{name}")
        lay_out(str(root), {"quiet/r": (asked := quiet()), **JOBS[name].content(sizes)})
        idle, busy = Times(), Times()
        for turn in range(max(2, sizes.turns)):
            for gc, scrub_interval, into in (
                (False, "", idle),
                (name == "gc", "5s" if name == "scrub" else "", busy),
            ):
                if name == "gc" and into is busy:
                    for more in range(6):
                        _gc_work(folder, str(root), turn * 6 + more)
                config = _config(folder, str(root), gc=gc, scrub_interval=scrub_interval)
                how = f"{' '.join(CLI)} serve --config {config} --listen {LOOPBACK}:{{port}}"
                running = Running(Server("zotctl", how), root)
                try:
                    client = Client(running.address, asked.blobs[1].digest)
                    client.play(Times(), _for(1.0))
                    used = running.cpu()
                    client.play(into, _for(sizes.requests * 0.012 / max(2, sizes.turns)))
                    used = running.cpu() - used
                    client.close()
                finally:
                    running.stop()
                print(f"  {'with' if into is busy else 'without'} {name}: {used:.1f} CPU-s of the server", flush=True)
        shutil.rmtree(root)
        _compare(idle, busy)

    return row


# -- command line -------------------------------------------------------------------------------

ROWS: dict[str, Callable[[str, Sizes], None]] = {
    "gc": collection,
    "gc-million": million,
    "scrub": scrubbing,
    "dedupe": deduplication,
    "import": importing,
    **{f"beside-{name}": beside(name) for name in JOBS},
    "inside-gc": inside("gc"),
    "inside-scrub": inside("scrub"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("rows", nargs="*", help="names or patterns such as 'beside-*'; all without any")
    parser.add_argument("--quick", action="store_true", help="small sizes and one turn: to try things out")
    parser.add_argument("--turns", type=int, help="medians are over that many (3; with --quick 1)")
    parser.add_argument("--size", type=int, metavar="MIB", help="bytes that scrub and dedupe read (2048)")
    parser.add_argument("--dir", help="where the stores are made (a temporary directory)")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(ROWS))
        return 0
    for pattern in options.rows:
        if not any(fnmatch(name, pattern) for name in ROWS):
            parser.error(f"no row is called {pattern!r}; --list names them")
    sizes = QUICK if options.quick else Sizes()
    given = {"turns": options.turns, "bytes": options.size and options.size * MIB}
    sizes = Sizes(**{**vars(sizes), **{name: value for name, value in given.items() if value}})
    failed = 0
    for name, row in ROWS.items():
        if options.rows and not any(fnmatch(name, pattern) for pattern in options.rows):
            continue
        print(f"{name}", flush=True)
        with tempfile.TemporaryDirectory(dir=options.dir, prefix="bench-") as folder:
            try:
                row(os.path.realpath(folder), sizes)
            except (OSError, RuntimeError) as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                failed = 1
    return failed


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
