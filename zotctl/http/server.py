"""`zotctl serve`, after its command line is read."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from zotctl import __version__, logs
from zotctl.config import Config, reload_config
from zotctl.http import sockets, tls
from zotctl.http.allocator import keep_pieces
from zotctl.http.workers import Supervisor
from zotctl.storage import preload

log = logging.getLogger("zotctl.http")

_OPEN = (
    "ANYONE WHO CAN REACH %s MAY PUSH, PULL AND DELETE: it is not a loopback address, and there is no "
    "authentication. Put it behind a proxy that has some, or use --read-only or --listen 127.0.0.1:5000."
)


def run(
    config: Config,
    *,
    reload: Callable[[Config], Config] | None = None,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Call it from the main thread, with no other running.

    `reload` makes a new configuration of the one in force at SIGHUP, and raises ZotctlError to refuse it;
    by default it reads again what `config` was made of, and opens the log anew.
    `announce` gets the one line that says where the server listens, by default on standard output.
    Raises ZotctlError when it can't start: the port is in use, a root or a certificate is refused.
    """
    http = config.http
    tls.context(http.tls)
    keep_pieces()
    preload(config.storage)
    if config.metrics.enabled:
        import zotctl.http.measured  # noqa: F401 - before the fork, so that the workers share its memory
    passed = sockets.passed_by_systemd()
    listening = (
        [passed, *(passed.dup() for _ in range(http.workers - 1))]
        if passed is not None
        else sockets.listen(sockets.resolve(http.address, http.port), http.workers)
    )
    address = sockets.bound_to(listening[0])
    if not address.is_loopback:
        log.warning(_OPEN, sockets.shown(address))
    scheme = "https" if http.tls is not None else "http"
    line = f"zotctl {__version__} serving on {scheme}://{sockets.shown(address)}"
    say = announce or _to_standard_output
    return Supervisor(config, listening, lambda: say(line), reload or _reload, rebinds=passed is None).run()


def _reload(config: Config) -> Config:
    fresh = reload_config(config)
    tls.context(fresh.http.tls)
    logs.setup(fresh.log.level, fresh.log.output, fresh.log.format, fresh.log.audit)
    for warning in fresh.warnings:
        log.warning(warning)
    return fresh


def _to_standard_output(line: str) -> None:
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError as error:
        log.warning("standard output cannot be written: %s", error)
