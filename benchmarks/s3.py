"""`zotctl serve` on a bucket beside other registries on the same S3 server: `python -m benchmarks.s3 [--quick] [ROWS]`.

The S3 server is versitygw with a directory of its own; its CPU is nobody's. Another one: AWS_ENDPOINT_URL_S3 and the
usual variables for its credentials, and a bucket called `bench`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks import table
from benchmarks.rows import QUICK, Row, Sizes, Target, all_rows
from benchmarks.serve import Bench
from benchmarks.servers import BUCKET, LOOPBACK, bucket_servers, free_port

_SPEED, _CPU = Target("speed", ">=", 1, "best"), Target("cpu", "<=", 0.7, "best")
WANTED: dict[str, tuple[Target, ...]] = {
    "manifest-push-1000-c1": (Target("speed", ">=", 1.5, "zot"),),
    "manifest-push-1000-c16": (Target("speed", ">=", 5, "zot"), Target("speed", ">=", 1, "distribution")),
    "push-2k-c1": (),
    "push-2k-c16": (),
    "push-64m-c4": (_SPEED, _CPU),
    "push-64m-c4-patch": (_SPEED, _CPU),
    "pull-1m-c8": (_SPEED, _CPU),
    "pull-1g-c1": (_SPEED, _CPU),
    "get-tag-1-c1": (),
}
"""Rows of `benchmarks.serve` and what is wanted of them on a bucket."""


@contextmanager
def _object_store(folder: Path) -> Iterator[None]:
    if os.environ.get("AWS_ENDPOINT_URL_S3"):
        yield
        return
    (folder / "s3" / BUCKET).mkdir(parents=True)
    port = free_port()
    os.environ.update(
        AWS_ENDPOINT_URL_S3=f"http://{LOOPBACK}:{port}", AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="benchsecret",
        AWS_REGION="us-east-1",
    )  # fmt: skip
    command = ["versitygw", "--port", f"{LOOPBACK}:{port}", "--access", "bench", "--secret", "benchsecret"]
    command += ["--quiet", "--keep-alive", "posix", str(folder / "s3")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
    finally:
        process.kill()
        process.wait()


def _rows(names: list[str]) -> list[Row]:
    known = all_rows()
    return [replace(known[name], targets=targets) for name, targets in WANTED.items() if not names or name in names]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.s3", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*WANTED, []], help="all without any")
    parser.add_argument("--only", metavar="NAME,NAME", help="of the servers, those")
    parser.add_argument("--turns", type=int, help="medians are over that many (3; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="small sizes and one turn")
    parser.add_argument("--dir", type=Path, help="where the stores are made (a temporary directory)")
    options = parser.parse_args()
    servers = [s for s in bucket_servers() if not options.only or s.name in options.only.split(",")]
    sizes, turns = QUICK if options.quick else Sizes(), options.turns or (1 if options.quick else 3)
    folder = Path(tempfile.mkdtemp(dir=options.dir, prefix="bench-")).resolve()
    names = [server.name for server in servers]
    figures: table.Table = {}
    try:
        with _object_store(folder):
            bench = Bench(servers, folder, sizes, turns=turns, wipe=True)
            print(table.header(names), flush=True)
            for row in _rows(options.rows):
                figures[row.name] = bench.row(row)
                print(table.line(row, figures, names), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
