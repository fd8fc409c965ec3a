"""Every mutant has its place in the code and a test with its name; a sample is tried out.

`python -m tests.mutants` tries all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutant import REPOSITORY
from tests.mutants.running import is_broken, try_out
from tests.mutants.table import ALL, MUTANTS

SHARE = int(os.environ.get("ZOTCTL_MUTANTS", "6" if os.environ.get("CI") else "24"))
"""One in so many is tried out, always the same ones, so that a red run is one about this change."""


def test_each_has_its_place_in_the_code() -> None:
    for mutant in MUTANTS.values():
        source = mutant.path.read_text()
        changed = mutant.apply(source)
        assert changed != source, mutant.name
        compile(changed, mutant.file, "exec")


def test_each_edit_uses_only_names_that_are_there(tmp_path: Path) -> None:
    """Else its test fails for an edit that is none."""
    for mutant in MUTANTS.values():
        (tmp_path / f"{mutant.name}.py").write_text(mutant.apply(mutant.path.read_text()))
    check = ["ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", *check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("E       AttributeError: 'Reservations' object has no attribute 'look'", True),
        ("E   NameError: name 'errro' is not defined", True),
        ("E   AttributeError: 'NoneType' object has no attribute 'etag'", False),
        ("E   assert 'AttributeError: x has no attribute y' == ''", False),
    ],
)
def test_an_edit_that_is_no_program_is_not_caught(line: str, broken: bool) -> None:
    assert is_broken(f"    def test() -> None:\n{line}\n") == broken


def test_each_has_a_test_that_is_there() -> None:
    """In its file, or in a suite beside it."""
    for mutant in MUTANTS.values():
        file, _, rest = mutant.test.partition("::")
        wanted = re.compile(rf"^ *(async )?def {rest.rpartition('::')[2].partition('[')[0]}\(", re.MULTILINE)
        places = [REPOSITORY / file, *(REPOSITORY / file).parent.glob("*_suite.py")]
        assert any(wanted.search(place.read_text()) for place in places), mutant.test


def test_each_has_a_name_of_its_own() -> None:
    assert len(MUTANTS) == len(ALL)


@pytest.mark.parametrize("name", list(MUTANTS)[::SHARE])
def test_it_is_caught(name: str) -> None:
    fate = try_out(MUTANTS[name])
    assert fate.caught, f"{name} survives {fate.mutant.test}:\n{fate.output}"
