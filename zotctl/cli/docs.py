"""Man pages and completions, made from the command tree and the model of the configuration.

`python -m zotctl.cli.docs [DIRECTORY]` writes them; a test compares them with what is committed. The text of the man
pages that is neither in the command tree nor in the model stands here. The site of the documentation has the same
pages in Markdown (docs/reference.py). The completions are made in `zotctl.cli.shells`.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Protocol

import typer

from zotctl import __version__
from zotctl.cli import shells
from zotctl.cli.app import app
from zotctl.cli.completing import LIMIT_S
from zotctl.config.layers import CONFIG_VARIABLE, ROOT_VARIABLE
from zotctl.config.model import Config
from zotctl.config.schema import KeyEntry, Table, Tables, entries
from zotctl.errors import EXIT_CODES

DATE = "2026-11-29"
"""When the text of the pages last changed."""

MANUAL_ENVIRONMENT = [
    (CONFIG_VARIABLE, "The configuration, if none is given."),
    (ROOT_VARIABLE, "Roots, as --root takes them: directories and buckets, separated by colons."),
    (
        "ZOTCTL_<SECTION>_<KEY>",
        "Any single key of zotctl.toml(5), such as ZOTCTL_HTTP_PORT or ZOTCTL_LOG_LEVEL. Options override the "
        "environment, which overrides the configuration file. Lists are separated by commas.",
    ),
    ("ZOTCTL_DEDUPE", "The same as ZOTCTL_STORAGE_DEDUPE: whether equal blobs are stored once."),
    ("ZOTCTL_SINGLE_WRITER", "The same as ZOTCTL_STORAGE_S3_SINGLE_WRITER: only one process writes to the bucket."),
    (
        "AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, "
        "AWS_CA_BUNDLE",
        "Endpoint, region and credentials of buckets, as for every AWS tool; so are ~/.aws and the role of a machine. "
        "[storage.s3] overrides them.",
    ),
    ("ZOTCTL_OUTPUT", "The default of --output."),
    ("XDG_STATE_HOME", "Where verify --deep --max-duration keeps its place, in zotctl/. Default: ~/.local/state."),
    ("ZOTCTL_DEBUG", "1: print the traceback of a bug."),
    ("NO_COLOR", "Print tables without colours."),
]
MANUAL_FILES = [
    ("./registry", "The directory of repositories, if none is named."),
    ("DIR/NAME/", "A repository: an OCI image layout, for any tool to read."),
    ("DIR/.zotctl/", "The files of zotctl itself. They may be removed while nothing runs."),
    ("DIR/.zotctl/trash/", "Collected content, by run, until the delay is over; gc --restore brings it back."),
    (
        "DIR/.zotctl/damaged/",
        "Damaged content that scrub or a push has found. It stays for inspection while any name leads to it, and for 7 "
        "days after it was healed, until the next scrub. Without hard links it goes to damaged/moved/, and stays there "
        "until the operator removes it.",
    ),
    (
        "s3://BUCKET/PREFIX/",
        "The same in a bucket: NAME/ and .zotctl/, and, with dedupe = true, _blobs/, which stores the blobs of all "
        "repositories once.",
    ),
]
SIGNALS = [
    (
        "SIGTERM, SIGINT",
        "Stop listening, let requests in progress finish within http.drain, and exit with 0. Clients can continue "
        "uploads after the next start. A second signal stops the server at once.",
    ),
    (
        "SIGHUP",
        "Read the configuration again and reopen the log files. A configuration with a mistake is refused, "
        "and the old one stays in force. Requests in progress go on, and a connection that is open still gets one "
        "answer within 10 s, before it is closed. A collection or scrub under way goes on, unless what it goes by has "
        "changed.",
    ),
]
COMPLETION = [
    "In bash, zsh and fish, TAB completes commands, options and their values. Where one is asked for, it completes "
    "repositories, tags and digests of the store that the line names by --root or --config, or else the environment, "
    "or else ./registry. Behind NAME: come its tags, behind NAME@ the digests in its index.json.",
    f"Directories are only read for it, and no network is asked: names in buckets are not completed. What takes more "
    f"than {LIMIT_S:g} s, as in a directory of very many repositories, offers nothing; a longer beginning of the name "
    "helps.",
    "A package installs the scripts where the shells look for them. pip installs them below share/ of the virtual "
    "environment: source share/bash-completion/completions/zotctl in bash; put share/zsh/site-functions into fpath of "
    "zsh, before compinit; source share/fish/vendor_completions.d/zotctl.fish in fish.",
]
KINDS = """size: bytes as a number, or a string such as "4MiB" or "1.5GB".
duration: a string such as "30s", "1h30m" or "7d".
A relative path starts at the working directory of the process."""

CONFIG_EXAMPLE = """[storage]
commit = true

[[storage.roots]]
path = "/srv/registry"

[[storage.routes]]
prefix = "team-a"
root = { path = "/mnt/team-a", dedupe = false }

[[storage.routes]]
prefix = "archive"
root = { path = "s3://images/archive", s3 = { redirect = true } }

[storage.s3]
endpoint = "https://minio.example:9000"
region = "us-east-1"

[http]
address = "::"
port = 5000
tls = { cert = "/etc/zotctl/cert.pem", key = "/etc/zotctl/key.pem" }
compat = ["docker2s2"]
auth = { htpasswd = "/etc/zotctl/users" }

[[http.access_control.repositories]]
pattern = "**"
default_policy = ["read"]
policies = [{ users = ["build"], actions = ["read", "create", "update"] }]

[log]
output = "/var/log/zotctl.log"
"""


def documents() -> Iterator[tuple[str, str]]:
    """Path and content of each generated file."""
    yield "man/zotctl.1", command_page()
    for name in subcommands():
        yield f"man/zotctl-{name}.1", command_page(name)
    yield "man/zotctl.toml.5", config_page()
    for shell, file in shells.FILES.items():
        yield f"completions/{file}", shells.script(shell)


def write(directory: Path) -> None:
    """Write all of them below `directory`."""
    for path, content in documents():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(content, encoding="utf-8")


# -- man pages ----------------------------------------------------------------------------------


def _tree() -> Any:
    return typer.main.get_command(app)


def subcommands() -> list[str]:
    """The names of all subcommands."""
    return list(_tree().commands)


class Page(Protocol):
    """What a page is written with, in any format."""

    def heading(self, title: str) -> None:
        """Begin a section."""

    def text(self, *paragraphs: str) -> None:
        """Paragraphs."""

    def verbatim(self, text: str) -> None:
        """Lines that stay as they are."""

    def items(self, items: Iterable[tuple[str, str]]) -> None:
        """Terms, and what they mean."""


NewPage = Callable[[str, int], Page]
"""A page of this name, in this section of the manual."""


def _manual(name: str, section: int) -> Page:
    return ManualPage(name, section, DATE, f"zotctl {__version__}")


def command_page(name: str = "", new: NewPage = _manual) -> str:
    """The page of the subcommand `name`, or of `zotctl` itself."""
    tree = _tree()
    command = tree.commands[name] if name else tree
    full = f"zotctl {name}".rstrip()
    summary, *description = command.help.split("\n\n")
    page = new(full.replace(" ", "-"), 1)
    page.heading("NAME")
    page.text(f"{full.replace(' ', '-')} - {summary.rstrip('.')}")
    page.heading("SYNOPSIS")
    page.text(" ".join([full, *command.collect_usage_pieces(typer.Context(command))]))
    page.heading("DESCRIPTION")
    page.text(summary, *(" ".join(part.split()) for part in description))
    if not name:
        page.heading("COMMANDS")
        page.items((f"zotctl {sub}", tree.commands[sub].help.split("\n\n")[0]) for sub in tree.commands)
    page.heading("OPTIONS")
    page.items(_options(command))
    if not name:
        page.heading("COMPLETION")
        page.text(*COMPLETION)
    if name == "serve":
        page.heading("SIGNALS")
        page.items(SIGNALS)
    _common_sections(page)
    page.heading("EXAMPLES")
    for example in [command] if name else tree.commands.values():
        page.verbatim(_examples(example))
    page.heading("SEE ALSO")
    others = [f"zotctl-{sub}(1)" for sub in tree.commands if sub != name]
    page.text(", ".join([*(["zotctl(1)"] if name else []), *others, "zotctl.toml(5)"]))
    return str(page)


def _examples(command: Any) -> str:
    """The examples that end the help of a command, without their heading."""
    return textwrap.dedent(command.epilog.partition("Examples:\n")[2])


def _options(command: Any) -> Iterator[tuple[str, str]]:
    context = typer.Context(command)
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            yield parameter.make_metavar(context), parameter.help
        else:
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            yield names + value, parameter.help


def _common_sections(page: Page) -> None:
    page.heading("EXIT STATUS")
    page.items((str(code), f"{meaning[0].upper()}{meaning[1:]}.") for code, meaning in EXIT_CODES.items())
    page.heading("ENVIRONMENT")
    page.items(MANUAL_ENVIRONMENT)
    page.heading("FILES")
    page.items(MANUAL_FILES)


def config_page(new: NewPage = _manual) -> str:
    """zotctl.toml(5)."""
    page = new("zotctl.toml", 5)
    page.heading("NAME")
    page.text("zotctl.toml - configuration of zotctl")
    page.heading("DESCRIPTION")
    page.text(
        "A TOML file, given as an argument, with --config or in ZOTCTL_CONFIG. It may have any name, and is optional. "
        "Options override the environment, which overrides the file, which overrides the defaults. An unknown key is "
        "a mistake, and every mistake is reported.",
        "A configuration of zot, JSON, YAML or TOML, may be given in the same places. Each of its keys is honoured, "
        "reported with a warning, or refused where ignoring it would be unsafe. zotctl serve --show-config prints "
        "the effective configuration.",
        *KINDS.splitlines(),
    )
    for heading, doc, keys in _tables(Config, ""):
        page.heading(heading)
        page.text(doc)
        page.items((f"{key.name} ({_kind(key)})", f"{key.key.doc} {_default(key)}") for key in keys)
    page.heading("ENVIRONMENT")
    page.items(MANUAL_ENVIRONMENT[:6])
    page.heading("EXAMPLES")
    page.verbatim(CONFIG_EXAMPLE)
    page.heading("SEE ALSO")
    page.text("zotctl-serve(1)")
    return str(page)


def _tables(cls: type, path: str, seen: set[type] | None = None) -> Iterator[tuple[str, str, list[KeyEntry]]]:
    """Each table once: its heading, meaning and keys."""
    seen = set() if seen is None else seen
    for entry in entries(cls).values():
        kind = entry.key.kind
        if isinstance(kind, Table) and kind.cls not in seen:
            seen.add(kind.cls)
            inner = f"{path}.{entry.name}".lstrip(".")
            heading = f"[[{inner}]]" if isinstance(kind, Tables) else f"[{inner}]"
            yield heading, entry.key.doc, list(entries(kind.cls).values())
            yield from _tables(kind.cls, inner, seen)


def _kind(entry: KeyEntry) -> str:
    kind = entry.key.kind
    if isinstance(kind, Table):
        return "list of tables" if isinstance(kind, Tables) else "table"
    return kind.name


def _default(entry: KeyEntry) -> str:
    if entry.default is MISSING:
        return "Required."
    kind = entry.key.kind
    if entry.key.default:
        return f"Default: {entry.key.default}."
    if isinstance(kind, Table) or entry.default is None:
        return "Default: none."
    return f"Default: {json.dumps(kind.show(entry.default))}."


# -- man(7) -------------------------------------------------------------------------------------

PAGE_WIDTH_CHARS = 76


class ManualPage:
    """A man page in the making."""

    def __init__(self, name: str, section: int, date: str, source: str) -> None:
        self._lines = [f'.TH {_escape(name.upper())} {section} "{date}" "{_escape(source)}"']

    def heading(self, title: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {_escape(title)}")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs, wrapped."""
        for paragraph in paragraphs:
            self._begin_paragraph()
            self._lines += _wrap(paragraph)

    def verbatim(self, text: str) -> None:
        """Lines that stay as they are, indented."""
        self._begin_paragraph()
        lines = [_guard(_escape(line)) for line in text.splitlines()]
        self._lines += [".RS 4", ".nf", *lines, ".fi", ".RE"]

    def items(self, items: Iterable[tuple[str, str]]) -> None:
        """Terms in bold, and what they mean."""
        for term, meaning in items:
            self._lines += [".TP", f'.B "{_escape(term)}"', *_wrap(meaning)]

    def _begin_paragraph(self) -> None:
        if not self._lines[-1].startswith(".SH"):
            self._lines.append(".PP")

    def __str__(self) -> str:
        return "\n".join(self._lines) + "\n"


def _wrap(text: str) -> list[str]:
    lines = textwrap.wrap(text, PAGE_WIDTH_CHARS, break_long_words=False, break_on_hyphens=False)
    return [_guard(_escape(line)) for line in lines]


def _escape(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def _guard(line: str) -> str:
    # A line that begins so would be read as a macro.
    return f"\\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
