"""The units of systemd are understood, and closed to what they do not need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tomli

from tests.tools import need
from zotctl.cli.docs import subcommands

HERE = Path(__file__).parents[2]
UNITS = HERE / "contrib" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
MOST_EXPOSED = 15
"""Tenths: systemd calls up to 2.0 "OK", and a unit without any setting 9.6."""


@pytest.fixture
def copied(tmp_path: Path) -> list[str]:
    """As they would lie in /etc, with a program that is here."""
    for unit in [*SERVICES, *UNITS.glob("*.timer"), *UNITS.glob("*.socket")]:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/bin/zotctl", "/bin/true"))
    return [str(path) for path in sorted(tmp_path.iterdir())]


def test_systemd_understands_them(copied: list[str]) -> None:
    need("systemd-analyze")
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *copied], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("/")]
    ours = [line for line in done.stderr.splitlines() if "zotctl" in line and line not in lines]
    if int(said.split()[1]) < 253:
        ours = [line for line in ours if not line.endswith("Failed to parse service type, ignoring: notify-reload")]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("unit", [path.name for path in SERVICES])
def test_they_are_hardened(copied: list[str], unit: str) -> None:
    need("systemd-analyze")
    (path,) = [path for path in copied if path.endswith(f"/{unit}")]
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_have_the_same_rights() -> None:
    closed = {
        path.name: path.read_text().partition("# What it may do")[2].partition("\n\n[")[0].strip() for path in SERVICES
    }
    assert len(SERVICES) == 3 and len(set(closed.values())) == 1 and "ProtectSystem=strict" in closed["zotctl.service"]


def test_they_run_commands_that_exist() -> None:
    for path in SERVICES:
        ((command, config),) = re.findall(
            r"^ExecStart=/usr/bin/zotctl (\S+) --config (\S+)", path.read_text(), re.MULTILINE
        )
        assert command in subcommands() and config == "/etc/zotctl/zotctl.toml"
    for path in UNITS.glob("*.timer"):
        assert path.with_suffix(".service") in SERVICES


def test_the_store_of_the_configuration_may_be_written() -> None:
    roots = tomli.loads((HERE / "contrib" / "zotctl.toml").read_text())["storage"]["roots"]
    assert roots[0]["path"].startswith("/var/lib/zotctl/")
    assert all("StateDirectory=zotctl\n" in path.read_text() for path in SERVICES)
