"""Who holds a lease: what a process writes of itself, and what a run that meets it says."""

from __future__ import annotations

import os
import socket
from typing import Any

from zotctl.oci.codec import load_json
from zotctl.storage.clock import Clock


def myself(clock: Clock) -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": int(clock.now())}


def told(body: bytes) -> str:
    """What follows "is already running"; "" if it is nothing that we have written."""
    try:
        who = load_json(body)
        return f": process {who['pid']} on {who['host']}"
    except (ValueError, KeyError, TypeError):
        return ""
