"""What the command line imports: time at each start and each TAB."""

from __future__ import annotations

import json

import pytest

from tests.cli.running import python

HEAVY = {
    "rich", "pydantic", "httptools", "botocore", "httpx", "asyncio", "prometheus_client", "ssl",
    "msgspec", "zotctl.config", "zotctl.storage", "zotctl.http",
}  # fmt: skip

SCRIPT = """
import atexit, json, sys
sys.argv[0] = "zotctl"
atexit.register(lambda: print("\\n" + json.dumps(sorted(sys.modules)), file=sys.stderr))
from zotctl.cli import main
main()
"""


@pytest.mark.parametrize(
    ("words", "environ", "code"),
    [
        (["--help"], {}, 0),
        ([], {}, 2),
        (["--version"], {}, 0),
        (["serve", "--help"], {}, 0),
        (["gc", "--help"], {}, 0),
        (["gc", "--metrics-file"], {}, 2),
        (["serve", "--nope"], {}, 2),
        (["srve"], {}, 2),
    ],
)
def test_nothing_heavy_is_imported(words: list[str], environ: dict[str, str], code: int) -> None:
    run = python("-c", SCRIPT, *words, environ=environ)
    modules = set(json.loads(run.stderr.splitlines()[-1]))
    assert run.returncode == code, run.stderr
    assert modules & HEAVY == set()


def test_a_tab_opens_no_store_and_asks_no_bucket() -> None:
    run = python("-c", SCRIPT, "__complete", "present", "gc", "--root", "s3://images/a", "--explain", "demo/hello:")
    modules = set(json.loads(run.stderr.splitlines()[-1]))
    assert (run.returncode, run.stdout) == (0, "")
    assert modules & {"typer", "rich", "botocore", "boto3", "urllib3", "ssl", "zotctl.storage", "zotctl.jobs"} == set()


def test_a_server_without_metrics_does_not_import_what_they_need() -> None:
    modules = "zotctl.http.supervisor, zotctl.http.worker, zotctl.http.job_process, zotctl.jobs.schedule"
    run = python("-c", f"import sys, {modules}; print('prometheus_client' in sys.modules)")
    assert run.stdout == "False\n", run.stderr
    run = python("-c", "import sys, zotctl.http.metrics; print('prometheus_client' in sys.modules)")
    assert run.stdout == "True\n", run.stderr
