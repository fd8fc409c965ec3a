"""From a root's configuration to what a job does there."""

from __future__ import annotations

from zotctl.config import RootSettings
from zotctl.jobs.gc import GcOptions, Settings
from zotctl.jobs.retention import Rules
from zotctl.storage.root import Root


def gc_settings(
    *, delay: float | None = None, untagged: str | None = None, inline: bool = False, trust_clock: bool = False
) -> Settings:
    """What the command line says goes before what the configuration says. `inline`: only roots with `gc`."""

    def settings(root: Root) -> GcOptions | None:
        config = root.config or RootSettings()
        if inline and not config.gc:
            return None
        chosen = config.gc_delay if delay is None else delay
        which = untagged or config.gc_untagged
        rules = Rules(config.retention, chosen, foreign=which == "all", untagged=which != "none")
        dry = config.retention is not None and config.retention.dry_run
        # An explicit delay of zero is a wish to have the space now, whatever the trash would keep.
        trash = None if delay == 0 else config.trash
        return GcOptions(chosen, trash, rules, dry, compares_clock=True, trusts_clock=trust_clock)

    return settings
