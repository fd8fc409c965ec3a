"""Shell completion: that of Typer, without the options that would write into the user's own files."""

from __future__ import annotations

from typer import _completion_classes
from typer._completion_shared import get_completion_script

SHELLS = {"bash": "zotctl.bash", "zsh": "_zotctl", "fish": "zotctl.fish"}
"""The shells, and how each wants its file to be called."""

_ZSH_LAST = "compdef _zotctl_completion zotctl"
_ZSH_AUTOLOADED = f"""if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _zotctl_completion "$@"
else
  {_ZSH_LAST}
fi"""
"""Loaded from $fpath, the script is itself the completion of the first TAB."""


def enable() -> None:
    """Let `zotctl` answer a shell that asks through _ZOTCTL_COMPLETE."""
    _completion_classes.completion_init()
    # Our help has no markup, and to import rich would double the time of a TAB.
    _completion_classes._sanitize_help_text = str  # type: ignore[assignment]


def script(shell: str) -> str:
    """The file of a shell."""
    text = get_completion_script(prog_name="zotctl", complete_var="_ZOTCTL_COMPLETE", shell=shell)
    return text.replace(_ZSH_LAST, _ZSH_AUTOLOADED) + "\n"
