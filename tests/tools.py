"""What a test needs from the machine: without it the test is skipped, and says so.

With ZOTCTL_REQUIRE_TOOLS=1 (CI) it fails instead, so that no test is ever skipped there unseen.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import pytest

ZSTD_MODULE = "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
"""What `need` asks for where archives are packed with zstd: the extra of that name, or the standard library."""

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def need(*tools: str) -> None:
    """Programs, Python packages, paths (with "/"), or "root"."""
    for tool in tools:
        if not present(tool):
            missing(tool)


def missing(tool: str) -> None:
    """For what only a try can tell, as "loop mounts"."""
    reason = f"needs {tool}"
    if os.environ.get("ZOTCTL_REQUIRE_TOOLS") == "1":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def need_optional(tool: str) -> None:
    """What CI can't install either: the test is skipped without it, there too."""
    if not present(tool):
        pytest.skip(f"needs {tool}, which CI can't install")


def program(tool: str) -> str:
    """Its path; /usr/sbin is looked into as well."""
    need(tool)
    return shutil.which(tool, path=_PATH) or tool


def present(tool: str) -> bool:
    if tool == "root":
        return os.geteuid() == 0
    if "/" in tool:
        return os.path.exists(tool)
    return shutil.which(tool, path=_PATH) is not None or _importable(tool)


def _importable(package: str) -> bool:
    """`find_spec` imports the parents of a dotted name, and raises where one is missing ("mkfs.xfs", too)."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
