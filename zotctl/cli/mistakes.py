"""What is said of a mistake in the words of a command line: a line like every other error, with the way out."""

from __future__ import annotations

import re
from typing import Any

from typer._click.exceptions import (
    BadOptionUsage,
    BadParameter,
    ClickException,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
    UsageError,
)

Mistake = ClickException
"""What the parser raises."""


def is_bare(error: ClickException) -> bool:
    """Nothing was asked for, so the help is the answer."""
    return isinstance(error, NoArgsIsHelpError)


def sentence(error: ClickException, command: str) -> str:
    """`gc: --dry: no such option; nearest: --dry-run; see zotctl help gc`. `command`: the first word of the line, for
    an error that does not say where it happened."""
    if isinstance(error, UsageError) and error.ctx is not None:
        command = error.ctx.command_path.removeprefix("zotctl").strip()
    end = f"zotctl help {command}".strip()
    return f"{command + ': ' if command else ''}{_what(error)}; see {end}"


def _what(error: ClickException) -> str:
    if isinstance(error, NoSuchOption):
        return f"{error.option_name}: no such option{_nearest(error.possibilities)}"
    if isinstance(error, BadOptionUsage):
        missing = "requires an argument" in error.message
        return f"{error.option_name}: {'the value is missing' if missing else 'it takes no value'}"
    if isinstance(error, MissingParameter):
        return f"{_name(error.param)} is missing"
    if isinstance(error, BadParameter) and error.param is not None:
        return f"{_name(error.param)}: {_plain(error.message)}"
    return _plain(error.format_message())


def _nearest(names: Any) -> str:
    return f"; nearest: {', '.join(sorted(names))}" if names else ""


def _name(parameter: Any) -> str:
    """As a user writes it."""
    name = str(parameter.metavar if parameter.param_type_name == "argument" else max(parameter.opts, key=len))
    return f"{name} (or {parameter.envvar})" if parameter.envvar else name


def _plain(message: str) -> str:
    """The parser's sentence without its jargon, as a part of ours."""
    message = message.replace("is not a valid int range", "is not a whole number").rstrip(".?")
    message = re.sub(r"is not in the range (\d+)<=x<=(\d+)", r"is not from \1 to \2", message)
    message = re.sub(r"is not in the range x>=(\d+)", r"is less than \1", message)
    message = message.replace("Got unexpected extra argument(s)", "there are more arguments than it takes:")
    message = message.replace(". Did you mean ", "; nearest: ")
    return message[:1].lower() + message[1:]
