"""The completion scripts of bash, zsh and fish, made from the command tree (`zotctl.cli.docs`).

A script knows commands, options and choices by itself, so that a TAB costs nothing. For repositories, tags and digests
it runs `zotctl __complete` (`zotctl.cli.completing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import typer

from zotctl.cli.completing import COMMAND

FILES = {"bash": "zotctl.bash", "zsh": "_zotctl", "fish": "zotctl.fish"}
"""The shells, and how each wants its file to be called."""

DIRECTORY, FILE, NOTHING = "a directory", "a file", "nothing"
OFFERED = {
    "DIR": DIRECTORY,
    "FILE": FILE,
    "SOURCE": FILE,
    "LAYOUT|ARCHIVE|URL": FILE,
    "[CONFIG | DIR | TAR | BUCKET]": FILE,
    "[DIR | BUCKET | ARCHIVE | URL]": FILE,
    "GLOB": "repositories",
    "NAME": "repositories",
    "TAG": "tags",
    "DIGEST|NAME@DIGEST|NAME:TAG|NAME": "present",
    "NAME|NAME:TAG|DIGEST": "past",
    "NAME:TAG|NAME|NAME@DIGEST|DIGEST|RUN": "restorable",
    **dict.fromkeys(("TIME", "SIZE", "N", "HOST:PORT"), NOTHING),
}
"""What is offered for a value, by what stands for it in the help: one of the above, or one of `completing.KINDS`."""
CHOICES = {
    "docker2s2": ["docker2s2"],
    "LEVEL": ["debug", "info", "warning", "error"],
    "FORMAT": ["json", "text"],
}
"""Values that the configuration checks, by what stands for them in the help."""
GOES_ON = ("present", "past", "restorable")
"""Behind a name a tag may follow, so no space does."""


@dataclass(frozen=True)
class Value:
    """What is offered for the value of an option or for an argument: `choices`, or else what `kind` says."""

    shown: str
    kind: str
    choices: list[str]


@dataclass(frozen=True)
class Option:
    """`value` None: it takes none."""

    names: list[str]
    about: str
    value: Value | None
    repeats: bool = False


@dataclass(frozen=True)
class Command:
    """A subcommand as the scripts see it."""

    name: str
    about: str
    options: list[Option]
    arguments: list[Value]


HELP = Option(["-h", "--help"], "Show the help", None)
VERSION = Option(["-V", "--version"], "Print the version", None)


def commands() -> list[Command]:
    """All subcommands, and `help`."""
    tree: Any = typer.main.get_command(_app())
    found = [_command(name, command) for name, command in tree.commands.items()]
    names = Value("COMMAND", NOTHING, [command.name for command in found])
    return [*found, Command("help", "Explain a command, with examples", [], [names])]


def _app() -> typer.Typer:
    from zotctl.cli.app import app

    return app


def _command(name: str, command: Any) -> Command:
    parameters = command.get_params(typer.Context(command))
    options = [_option(one) for one in parameters if one.param_type_name == "option" and one.name != "help"]
    arguments = [_value(one) for one in parameters if one.param_type_name == "argument"]
    return Command(name, _first_sentence(command.help), [*options, HELP], arguments)


def _option(parameter: Any) -> Option:
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=len)
    return Option(
        names, _first_sentence(parameter.help), None if parameter.is_flag else _value(parameter), parameter.multiple
    )


def _value(parameter: Any) -> Value:
    if choices := getattr(parameter.type, "choices", None) or CHOICES.get(parameter.metavar):
        return Value(parameter.name, NOTHING, list(choices))
    return Value(parameter.metavar, OFFERED[parameter.metavar], [])


def _first_sentence(text: str) -> str:
    """As a line: it stands beside the word in a list."""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def script(shell: str) -> str:
    """The file for a shell, one of `FILES`."""
    makers: dict[str, Callable[[list[Command]], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return "\n".join(makers[shell](commands())) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# -- bash -----------------------------------------------------------------------------------------

_BASH_HEAD = f"""\
# bash completion of zotctl, made by zotctl.cli.docs.

# The words up to the cursor, as they were typed: COMP_WORDS is cut at each of COMP_WORDBREAKS, so NAME:TAG is three.
_zotctl_words() {{
    local line=${{COMP_LINE:0:COMP_POINT}} part
    words=()
    for part in "${{COMP_WORDS[@]:0:COMP_CWORD+1}}"; do
        if [[ ${{#words[@]}} == 0 || $line == [[:space:]]* ]]; then
            line=${{line#"${{line%%[![:space:]]*}}"}}
            words+=("")
        fi
        [[ $line == "$part"* ]] || part=$line
        words[-1]+=$part
        line=${{line#"$part"}}
    done
}}

# What the shell puts in place of the last part only has to begin there.
_zotctl_reply() {{
    local i part=${{current##*[$COMP_WORDBREAKS]}}
    [[ $current == [\\"\\']* ]] && part=${{current:1}}
    for i in "${{!COMPREPLY[@]}}"; do
        COMPREPLY[i]=${{COMPREPLY[i]#"${{current%"$part"}}"}}
    done
}}

_zotctl_choices() {{
    COMPREPLY=($(compgen -W "$1" -- "$current"))
    _zotctl_reply
}}

_zotctl_store() {{
    local IFS=$'\\n'
    COMPREPLY=($("${{words[0]/#~/$HOME}}" {COMMAND} "$1" "${{words[@]:1}}" 2>/dev/null))
    _zotctl_reply
}}

_zotctl_names() {{
    [[ $current == *[:@]* ]] || compopt -o nospace
    _zotctl_store "$1"
}}

_zotctl_files() {{
    compopt -o default
}}

_zotctl_directories() {{
    compopt -o dirnames
}}
"""

_BASH_VALUES = {DIRECTORY: "_zotctl_directories", FILE: "_zotctl_files", NOTHING: ":"}


def _bash(known: list[Command]) -> Iterator[str]:
    yield _BASH_HEAD
    yield "_zotctl() {"
    yield "    local words current before"
    yield "    COMPREPLY=()"
    yield "    _zotctl_words"
    yield "    current=${words[-1]} before="
    yield "    ((${#words[@]} > 1)) && before=${words[-2]}"
    yield "    [[ $current == --*=* ]] && before=${current%%=*} current=${current#*=}"
    names = " ".join(command.name for command in known)
    yield f'    ((${{#words[@]}} > 2)) || {{ _zotctl_choices "{names} -h --help -V --version"; return; }}'
    yield '    case "${words[1]} $before" in'
    for command in known:
        for action, options in _by_action(command).items():
            yield f"        {' | '.join(options)})"
            yield f"            {action}; return ;;"
    yield "    esac"
    yield "    case ${words[1]} in"
    for command in known:
        every = " ".join(name for option in command.options for name in option.names)
        argument = _bash_value(command.arguments[0]) if command.arguments else ":"
        yield f"        {command.name})"
        yield f'            if [[ $current == -* ]]; then _zotctl_choices "{every}"; else {argument}; fi ;;'
    yield "    esac"
    yield "}"
    yield ""
    yield "complete -F _zotctl zotctl"


def _by_action(command: Command) -> dict[str, list[str]]:
    """The options that take a value, by what is done for it."""
    found: dict[str, list[str]] = {}
    for option in command.options:
        if option.value:
            found.setdefault(_bash_value(option.value), []).extend(f'"{command.name} {one}"' for one in option.names)
    return found


def _bash_value(value: Value) -> str:
    if value.choices:
        return f'_zotctl_choices "{" ".join(value.choices)}"'
    asked = "_zotctl_names" if value.kind in GOES_ON else "_zotctl_store"
    return _BASH_VALUES.get(value.kind) or f"{asked} {value.kind}"


# -- zsh ------------------------------------------------------------------------------------------

_ZSH_HEAD = f"""\
#compdef zotctl
# zsh completion of zotctl, made by zotctl.cli.docs.

# _arguments puts options for compadd before the kind.
_zotctl_store() {{
    local -a ask=(${{(q)zotctl_program}} {COMMAND} $@[-1] ${{(q)words[1,CURRENT]}})
    local -a found=(${{(f)"$(_call_program store $ask 2>/dev/null)"}})
    compadd "$@[1,-2]" -a found
}}

# Behind a name a tag may follow, so no space does.
_zotctl_names() {{
    local suffix=
    [[ $PREFIX == *[:@]* ]] && suffix=' '
    _zotctl_store "$@[1,-2]" -S "$suffix" $@[-1]
}}
"""

_ZSH_VALUES = {DIRECTORY: "_files -/", FILE: "_files", NOTHING: ""}


def _zsh(known: list[Command]) -> Iterator[str]:
    yield _ZSH_HEAD
    yield "_zotctl() {"
    yield '    local curcontext="$curcontext" state line zotctl_program=${~words[1]}'
    yield "    local -a commands"
    yield "    typeset -A opt_args"
    yield "    _arguments -C \\"
    yield from _zsh_lines([*_zsh_option(HELP), *_zsh_option(VERSION), "1:command:->command", "*::argument:->argument"])
    yield "    case $state in"
    yield "        command)"
    yield "            commands=("
    for command in known:
        yield f"                {_quoted(command.name + ':' + command.about)}"
    yield "            )"
    yield "            _describe -t commands command commands ;;"
    yield "        argument)"
    yield '            curcontext="${curcontext%:*:*}:zotctl-$words[1]:"'
    yield "            case $words[1] in"
    for command in known:
        yield f"                {command.name})"
        yield "                    _arguments \\"
        specs = [spec for option in command.options for spec in _zsh_option(option)]
        specs += [f"{i}:{_zsh_value(value)}" for i, value in enumerate(command.arguments, 1)]
        *lines, last = _zsh_lines(specs, " " * 24)
        yield from lines
        yield f"{last} ;;"
    yield "            esac ;;"
    yield "    esac"
    yield "}"
    yield ""
    yield "# Loaded from $fpath, the file is itself the completion of the first TAB."
    yield "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then"
    yield '    _zotctl "$@"'
    yield "else"
    yield "    compdef _zotctl zotctl"
    yield "fi"


def _zsh_lines(specs: list[str], indent: str = " " * 8) -> Iterator[str]:
    for i, spec in enumerate(specs):
        yield indent + _quoted(spec) + (" \\" if i < len(specs) - 1 else "")


def _zsh_option(option: Option) -> Iterator[str]:
    about = "".join(f"\\{char}" if char in "[]\\:" else char for char in option.about)
    alone = "- *" if option in (HELP, VERSION) else " ".join(option.names)
    for name in option.names:
        first = "*" if option.repeats else f"({alone})"
        equals = "=" if option.value and name.startswith("--") else ""
        value = f":{_zsh_value(option.value)}" if option.value else ""
        yield f"{first}{name}{equals}[{about}]{value}"


def _zsh_value(value: Value) -> str:
    if value.choices:
        action = f"({' '.join(value.choices)})"
    else:
        asked = "_zotctl_names" if value.kind in GOES_ON else "_zotctl_store"
        action = _ZSH_VALUES.get(value.kind, f"{asked} {value.kind}")
    shown = value.shown.strip("[]").replace(":", "\\:")
    return f"{shown}:{action}"


# -- fish -----------------------------------------------------------------------------------------

_FISH_HEAD = f"""\
# fish completion of zotctl, made by zotctl.cli.docs.

function __zotctl_store
    set -l words (commandline -opc)
    set -l program (string replace -r '^~' $HOME $words[1])
    command -q $program; or return
    # Each with an empty description, or it gets that of the option.
    $program {COMMAND} $argv[1] $words[2..-1] (commandline -ct) 2>/dev/null | string replace -r '$' \\t
end

complete -c zotctl -f
"""


def _fish(known: list[Command]) -> Iterator[str]:
    yield _FISH_HEAD
    for command in known:
        about = _fish_quoted(command.about)
        yield f"complete -c zotctl -n __fish_use_subcommand -a {command.name} -d {about}"
    for option in (HELP, VERSION):
        yield f"complete -c zotctl -n __fish_use_subcommand {_fish_option(option)}"
    for command in known:
        yield ""
        of = f"complete -c zotctl -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            yield f"{of} {_fish_option(option)}"
        yield from (f"{of} {_fish_value(value)}" for value in command.arguments)


def _fish_option(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    value = [f"-r {_fish_value(option.value)}"] if option.value else []
    return " ".join([*names, *value, "-d", _fish_quoted(option.about)])


def _fish_value(value: Value) -> str:
    if value.choices:
        return "-fa " + _fish_quoted(" ".join(choice + "\\t" for choice in value.choices))
    if value.kind == NOTHING:
        return "-f"
    if value.kind == FILE:
        return "-F"
    if value.kind == DIRECTORY:
        return "-fa '(__fish_complete_directories (commandline -ct))'"
    return f"-fa '(__zotctl_store {value.kind})'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


__all__ = ["CHOICES", "FILES", "OFFERED", "commands", "script"]
