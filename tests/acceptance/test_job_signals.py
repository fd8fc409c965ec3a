"""A job that is told to end says what it did, and ends with the code of the signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.test_wire_errors import digest
from tests.cli.running import PATIENCE_S
from tests.http.serving import serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_scrub_with_its_report(tmp_path: Path, number: signal.Signals) -> None:
    data = os.urandom(1 << 20) * 20
    with serving(tmp_path / "home") as server, server.client() as client:
        pushed = client.post("/v2/app/blobs/uploads/", params={"digest": digest(data)}, content=data,
                             headers={"Content-Type": "application/octet-stream"})  # fmt: skip
        assert pushed.status_code == 201
    command = [sys.executable, "-m", "zotctl.cli", "scrub", "--root", str(server.root), "--rate", "1MiB"]
    job = subprocess.Popen([*command, "--output", "jsonl"], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert json.loads(job.stdout.readline())["type"] == "start"
    time.sleep(0.5)  # not asserted on: it may be anywhere
    job.send_signal(number)
    out, _ = job.communicate(timeout=PATIENCE_S)
    summary = json.loads(out.splitlines()[-1])
    assert (summary["type"], summary["exit_code"], job.returncode) == ("summary", 128 + number, 128 + number)
