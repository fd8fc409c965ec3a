"""NFS by a kernel of its own: the suites of drivers and repositories, and two hosts on one store."""

from __future__ import annotations

import pytest

from tests.nfs.__main__ import SUITES
from tests.nfs.kernel import OwnKernel


@pytest.mark.timeout(900)
def test_the_suites_on_nfs() -> None:
    code, told = OwnKernel().run(SUITES, timeout=800)
    assert code == 0, told


@pytest.mark.timeout(300)
def test_a_commit_that_was_killed_where_time_stamps_are_whole_seconds() -> None:
    """As on ext3."""
    code, told = OwnKernel(inode_bytes=128).run((*SUITES, "-k", "killed_between_the_two_requests"), timeout=250)
    assert code == 0, told
