"""What a machine lacks is a skip with its name, or in CI a failure: never an error of the look itself."""

from __future__ import annotations

import pytest

from tests.tools import need


@pytest.mark.parametrize("tool", ["mkfs.nothing", "no.such.package", "no-such-tool", "/no/such/path"])
def test_a_missing_tool_is_skipped_by_name(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOTCTL_REQUIRE_TOOLS", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"needs {tool}"):
        need(tool)


def test_where_all_tools_are_required_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOTCTL_REQUIRE_TOOLS", "1")
    with pytest.raises(pytest.fail.Exception, match="needs no-such-tool"):
        need("no-such-tool")


def test_what_is_there_is_no_skip() -> None:
    need("sh", "pytest", "/dev/null")
