"""NFS by a kernel of its own: the suites of drivers and repositories, and two hosts on one store."""

from __future__ import annotations

import pytest

from tests.nfs.__main__ import SUITES
from tests.nfs.kernel import OwnKernel


@pytest.mark.timeout(900)
def test_the_suites_on_nfs() -> None:
    code, told = OwnKernel().run(SUITES, timeout=800)
    assert code == 0, told
