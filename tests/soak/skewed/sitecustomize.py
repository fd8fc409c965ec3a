"""Python imports this at its start where `PYTHONPATH` names the directory: a host whose clock is wrong by what a file
says, in seconds, and may be changed at any time. Clocks that only grow are right, and so are those of the storage: a
directory is one on a network, for a host stamps by its own clock what lies on its own file systems."""

import os
import re
import time

_FILE, _time, _monotonic = os.environ["SOAK_SKEW"], time.time, time.monotonic
_LOOK_EVERY_S = 0.5
_known = [float("-inf"), 0.0]


def _skew() -> float:
    if _monotonic() > _known[0] + _LOOK_EVERY_S:
        try:
            with open(_FILE) as file:
                _known[1] = float(file.read() or 0)
        except OSError:
            pass
        _known[0] = _monotonic()
    return _known[1]


time.time = lambda: _time() + _skew()
time.time_ns = lambda: int((_time() + _skew()) * 1e9)


from zotctl.storage.local import network  # noqa: E402 - with the wrong clock

network._NETWORK = re.compile("")
