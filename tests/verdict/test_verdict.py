"""Each level of a verdict is real: its command is there and finds tests, its variables are read, the docs name it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.running import REPOSITORY
from tests.verdict import running
from tests.verdict.levels import LEVELS, Level
from tests.verdict.page import page
from tests.verdict.running import Fate, run

COMMANDS = {(level.name, words) for level in LEVELS for words in (level.short, level.long)}
PYTEST = {words for _, words in COMMANDS if words[2] == "pytest"}


def paths_of(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word.startswith("tests/")]


@pytest.mark.parametrize(("level", "words"), sorted(COMMANDS), ids=lambda part: part if isinstance(part, str) else "")
def test_the_command_is_there(level: str, words: tuple[str, ...]) -> None:
    assert words[:2] == (sys.executable, "-m")
    if words in PYTEST:
        assert paths_of(words)
        assert [path for path in paths_of(words) if not (REPOSITORY / path).exists()] == []
    else:
        assert importlib.util.find_spec(f"{words[2]}.__main__"), level


def test_every_path_has_tests() -> None:
    paths = sorted({path for words in PYTEST for path in paths_of(words)})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qq", "--collect-only", "-p", "no:cacheprovider", *paths],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert [path for path in paths if f"{path}" not in done.stdout] == []


@pytest.mark.parametrize("chance", ["", "1"])
def test_no_example_is_too_slow(chance: str) -> None:
    """On a busy machine, with the same examples in each run or with others."""
    told = (
        "from hypothesis import settings as s; import tests.conftest; print(s.default.deadline, s.default.derandomize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], env=os.environ | {"ZOTCTL_RANDOM": chance},
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["None", str(not chance)]


def test_every_variable_is_read() -> None:
    names = {name for level in LEVELS for name in (*level.environ, *level.short_environ)}
    read = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.py") if "verdict" not in path.parts)
    assert [name for name in names if name not in read] == []


def test_the_docs_name_every_level() -> None:
    text = (REPOSITORY / "docs" / "design" / "proof.md").read_text()
    assert [level.name for level in LEVELS if f"| {level.name} |" not in text] == []


def test_a_page(tmp_path: Path) -> None:
    """Figures are added up; what failed is shown, and no level that failed passes for one that did."""
    good = Level("good", "things", (sys.executable, "-c", "print('1,000 things'); print('2 things')"), (),
                 {"things": r"([\d,]+) things", "other": r"(\d+) other"})  # fmt: skip
    bad = replace(good, name="bad", short=(sys.executable, "-c", "import sys; print('why | it fails'); sys.exit(3)"))
    fates = [run(level, long=False, seed=5) for level in (good, bad)]
    assert [fate.passed for fate in fates] == [True, False]
    text = page(fates, long=False, seed=5)
    assert text.startswith("# Verdict: 1 of 2 levels FAILED\n")
    assert "| good | things | passed | 1,002 things |" in text
    assert "| bad | things | FAILED | - |" in text
    assert "## bad: exit code 3" in text and "why | it fails" in text
    passed = page([Fate(good, ("python",), {}, 0, "", 1.0)], long=True, seed=5)
    assert passed.startswith("# Verdict: all 1 levels passed\n")


def test_a_level_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that it started, of which one does not hear an interrupt."""
    monkeypatch.setattr(running, "TIDY_S", 0.5)
    deaf = "trap '' INT; sleep 100 & wait; sleep 100"
    fate = run(Level("hung", "nothing", ("sh", "-c", deaf), ()), long=False, seed=5, limit_s=0.2)
    assert not fate.passed and "it did not end within" in fate.output
