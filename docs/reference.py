"""A hook of MkDocs (mkdocs.yml): the reference of commands and of the configuration, from the same source as `man/`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from zotctl.cli import docs

MANUAL = re.compile(r"\b(zotctl[a-z.-]*)\((\d)\)")


class MarkdownPage:
    """A page in Markdown."""

    def __init__(self, name: str, section: int) -> None:
        self._lines = [f"# {name.replace('-', ' ', 1) if section == 1 else name}", ""]

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._lines += [f"## {title if title.startswith('[') else title.capitalize()}".replace("[", "\\["), ""]

    def text(self, *paragraphs: str) -> None:
        """Paragraphs; other pages of the manual become links."""
        for paragraph in paragraphs:
            self._lines += [MANUAL.sub(r"[\1(\2)](\1.md)", _escape(paragraph)), ""]

    def verbatim(self, text: str) -> None:
        """Lines that stay as they are."""
        self._lines += ["```", *text.splitlines(), "```", ""]

    def items(self, items: Iterable[tuple[str, str]]) -> None:
        """A definition list."""
        for term, meaning in items:
            self._lines += [f"`{term}`", f":   {_escape(meaning)}", ""]

    def __str__(self) -> str:
        return "\n".join(self._lines)


def _escape(text: str) -> str:
    return re.sub(r"([\\*_\[\]<>|])", r"\\\1", text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {f"zotctl-{name}": docs.command_page(name, MarkdownPage) for name in docs.subcommands()}
    pages |= {"zotctl": docs.command_page("", MarkdownPage), "zotctl.toml": docs.config_page(MarkdownPage)}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files
