"""Man pages and completions, made from the command tree and the model of the configuration.

`python -m zotctl.cli.docs [DIRECTORY]` writes them; a test compares them with what is committed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from zotctl.cli import completion
from zotctl.cli.manual import command_page, config_page, subcommands


def documents() -> Iterator[tuple[str, str]]:
    """Path and content of each generated file."""
    yield "man/zotctl.1", command_page()
    for name in subcommands():
        yield f"man/zotctl-{name}.1", command_page(name)
    yield "man/zotctl.toml.5", config_page()
    for shell, file in completion.SHELLS.items():
        yield f"completions/{file}", completion.script(shell)


def write(directory: Path) -> None:
    """Write all of them below `directory`."""
    for path, content in documents():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
