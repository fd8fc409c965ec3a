"""What holds for every test: generated examples are the same in each run, so that a red run is one about this change.

Other examples by one command: `ZOTCTL_RANDOM=1 .venv/bin/python -m pytest -n auto`.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
if not os.environ.get("ZOTCTL_RANDOM"):
    settings.load_profile("fixed")
