"""`verify --config FILE`: what is wrong with a configuration, and what is doubtful. No store is looked for."""

from __future__ import annotations

import sys

from zotctl import __version__
from zotctl.cli.jobs import read_config, warning_items
from zotctl.cli.report import Output, print_report
from zotctl.jobs.report import Report, counted


def check_config(file: str, *, quiet: bool, output: Output) -> None:
    """Check the file with the environment, as `serve` would, and print the warnings. Raises ConfigError, with each
    mistake."""
    from zotctl.config import is_loopback, open_to_all

    config = read_config(None, file, as_server=True)
    warnings = list(config.warnings)
    address = config.http.address
    if not is_loopback(address) and (warning := open_to_all(config, address or "THIS MACHINE")) is not None:
        warnings.append(warning)
    if output is not Output.TEXT:
        summary = {"config": file, "warnings": len(warnings)}
        print_report(
            Report("verify", __version__, dry_run=True, summary=summary, items=warning_items(warnings)), output
        )
    elif not quiet:
        for warning in warnings:
            print(f"zotctl: warning: {warning}", file=sys.stderr)
        doubtful = f", {counted(len(warnings), 'warning')}" if warnings else ""
        print(f"Checked {file}: no mistake{doubtful}. The store was not looked at; with --deep it is checked, too.")
