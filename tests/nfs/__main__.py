"""`python -m tests.nfs [COMMAND...]`: a command in a kernel with an NFS server and two clients (`tests/nfs/kernel.py`).
Without one: the suites of drivers and repositories on both mounts."""

from __future__ import annotations

import sys

from tests.nfs.kernel import OwnKernel

SUITES = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/nfs/suites.py")
LONGEST_S = 24 * 3600.0

if __name__ == "__main__":
    code, told = OwnKernel().run(sys.argv[1:] or SUITES, timeout=LONGEST_S)
    print(told)
    sys.exit(code)
