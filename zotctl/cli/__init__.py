"""The command line. Here every error becomes a line on standard error and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import NoReturn, TextIO

from zotctl.errors import ZotctlError, printable

UNPRINTED = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
"""What a write to standard output may end with; the storage's own errors are translated long before."""


def main() -> NoReturn:
    """Run `zotctl` with the arguments of this process, and exit."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: names of files need not be UTF-8
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        code = _let_go(1)
    except OSError as error:
        code = _let_go(_fail(f"the result can't be printed: {error.strerror}", 1))
    sys.exit(code)


def _nowhere() -> TextIO:
    """The caller has closed an output (`>&-`). Its number must not become that of a file of the store."""
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _let_go(code: int) -> int:
    """Standard output can't be written: or the interpreter complains when it flushes what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _run() -> int:
    if sys.platform != "linux":
        return _fail("it runs on Linux only: its locks are those of Linux", 1)
    try:
        if sys.argv[1:2] == ["__complete"]:
            return _complete(sys.argv[2:])
        from zotctl.cli.app import app

        return app(_with_help(sys.argv[1:]), prog_name="zotctl", standalone_mode=False) or 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except ZotctlError as error:
        code = _fail(error.message, error.exit_code)
        for warning in error.warnings:
            print(f"zotctl: warning: {warning}", file=sys.stderr)
        return code
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130)  # 143 for SIGTERM and 129 for SIGHUP, which the jobs raise as one
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNPRINTED and error.filename is None:
            raise
        return _mistake(error) or _bug(error)


def _complete(words: list[str]) -> int:
    """For the scripts in completions/: a line for each thing that a TAB offers."""
    import signal

    from zotctl.cli.completing import LIMIT_S, complete

    # Then the kernel ends the process, whatever it waits for: a share that hangs must not keep a terminal.
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    kind, *line = words or [""]
    for found in complete(kind, line, os.environ):
        print(found)
    return 0


def _with_help(words: list[str]) -> list[str]:
    """`help COMMAND` is another way to write `COMMAND --help`."""
    return [*words[1:], "--help"] if words[:1] == ["help"] else words


def _mistake(error: Exception) -> int:
    """In the words of the command line; 0: it is none."""
    from zotctl.cli.mistakes import Mistake, is_bare, sentence

    if not isinstance(error, Mistake):
        return 0
    if is_bare(error):
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    return _fail(sentence(error, sys.argv[1]), error.exit_code)


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
        print(f"zotctl: {printable(line)}", file=sys.stderr)
    return code
