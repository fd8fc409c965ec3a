"""What docs/design/untaken.md argues is there, and what it does not is told."""

from __future__ import annotations

import json
from typing import Any

from tests.untaken import argued, functions, main, untaken


def test_each_function_that_is_argued_is_there() -> None:
    entries = argued()
    names = {file: {node.name for node in functions(file)} for file in {file for file, _ in entries}}
    assert [entry for entry in entries if entry[1] not in names[entry[0]]] == []
    assert len(entries) == len(set(entries)) > 100


def test_what_is_not_argued_is_told(tmp_path, capsys) -> None:
    file, name = argued()[0]
    line = next(node.lineno for node in functions(file) if node.name == name)
    found: dict[str, list[Any]] = {"missing_lines": [line], "missing_branches": []}
    report = {"files": {f"zotctl/{file}": found, "zotctl/http/gate.py": found}}
    assert list(untaken(report)) == [(file, name)]
    other = next(node for node in functions("storage/keys.py") if ("storage/keys.py", node.name) not in argued())
    report["files"]["zotctl/storage/keys.py"] = {"missing_lines": [], "missing_branches": [[other.lineno, 1]]}
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps(report))
    assert main([str(path)]) == 1 and capsys.readouterr().out == f"storage/keys.py: {other.name}\n"
