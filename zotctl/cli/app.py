"""The command tree. A new subcommand is a file beside this one, and a line below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from zotctl import __version__
from zotctl.cli import dedupe as sharing
from zotctl.cli import gc as collecting
from zotctl.cli import import_layout as importing
from zotctl.cli import scrub as scrubbing
from zotctl.cli import serve as serving
from zotctl.cli import verify as verifying
from zotctl.cli.jobs import reporting
from zotctl.errors import EXIT_CODES


def exit_code_table() -> str:
    """The exit codes, a line each."""
    return "\n".join(f"{code:>5}  {meaning}" for code, meaning in EXIT_CODES.items())


# \b keeps the lines of the paragraph that follows it apart.
app = typer.Typer(
    name="zotctl",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"\b\nExit codes:\n{exit_code_table()}",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"zotctl {__version__}")
        raise typer.Exit


@app.callback()
def zotctl(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """An OCI registry on plain image layouts, and the tools that keep it.

    `zotctl help COMMAND` explains a command, with examples.
    """


def _add(command: Callable[..., None], examples: str) -> None:
    """The list of commands has the whole first sentence, which typer would cut."""
    sentence = " ".join((command.__doc__ or "").partition("\n\n")[0].split())
    app.command(command.__name__.replace("_", "-"), short_help=sentence, epilog=examples)(command)


_add(serving.serve, serving.EXAMPLES)
_add(reporting(collecting.gc), collecting.EXAMPLES)
_add(reporting(scrubbing.scrub), scrubbing.EXAMPLES)
_add(reporting(sharing.dedupe), sharing.EXAMPLES)
_add(reporting(verifying.verify), verifying.EXAMPLES)
_add(reporting(importing.import_layout), importing.EXAMPLES)
