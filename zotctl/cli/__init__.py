"""The command line. Here every error becomes a line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from zotctl.errors import ZotctlError


def main() -> NoReturn:
    """Run `zotctl` with the words of this process, and exit."""
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains when it flushes
        code = 1
    sys.exit(code)


def _run() -> int:
    if sys.platform != "linux":
        return _fail("it runs on Linux only: its locks are those of Linux", 1)
    try:
        from zotctl.cli.app import app

        app(prog_name="zotctl")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except ZotctlError as error:
        return _fail(error.message, error.exit_code)
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130)  # 143 for SIGTERM, which the jobs raise as one
    except BrokenPipeError:
        raise
    except Exception as error:
        return _bug(error)
    return 0


def _bug(error: Exception) -> int:
    if os.environ.get("ZOTCTL_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    return _fail(
        f"a bug: {type(error).__name__}: {error}; please open an issue in the project's tracker "
        "with what ZOTCTL_DEBUG=1 prints",
        70,
    )


def _fail(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"zotctl: {line}", file=sys.stderr)
    return code
