"""`python -m tests.untaken COVERAGE.json`: the functions of storage/ and jobs/ with a branch that no test takes, and
that docs/design/untaken.md does not argue. `python -m coverage json -o COVERAGE.json` writes the file."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "design" / "untaken.md"
PARTS = ("storage", "jobs")


def argued() -> list[tuple[str, str]]:
    """The file and the function of each entry of the page."""
    found = []
    for line in PAGE.read_text().splitlines():
        if entry := re.fullmatch(r"- `([\w/]+\.py)`: (.+)", line):
            found += [(entry[1], name) for name in re.findall(r"`(\w+)`", entry[2])]
    return found


def functions(file: str) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse((REPOSITORY / "zotctl" / file).read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def untaken(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The innermost functions with lines or branches that were not taken."""
    for path, found in report["files"].items():
        file = path.removeprefix("zotctl/")
        if not file.startswith(PARTS):
            continue
        spans = sorted(functions(file), key=lambda node: node.lineno)
        lines = {*found["missing_lines"], *(line for line, _ in found["missing_branches"])}
        inner = [[node for node in spans if node.lineno <= line <= (node.end_lineno or 0)] for line in sorted(lines)]
        yield from dict.fromkeys((file, around[-1].name if around else "") for around in inner)


def main(words: list[str]) -> int:
    """0: each is argued."""
    known = set(argued())
    left = [entry for entry in untaken(json.loads(Path(words[0]).read_text())) if entry not in known]
    print(*(f"{file}: {name}" for file, name in left), sep="\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
