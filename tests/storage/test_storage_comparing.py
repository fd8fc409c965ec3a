"""A copy is compared byte for byte, to its end, before it is believed (I2)."""

from __future__ import annotations

import pytest

from tests.doubles.filesystem import MemoryDriver
from tests.faults import FailOn
from tests.stores import root_over
from zotctl.errors import IoFailed
from zotctl.storage import keys
from zotctl.storage.driver import Driver
from zotctl.storage.local.context import COMPARE_BLOCK_BYTES, LocalContext
from zotctl.storage.local.protocol import local_of

BLOCK = bytes(COMPARE_BLOCK_BYTES)
ONE, OTHER = keys.tmp("one"), keys.tmp("other")


def site_with(one: bytes, other: bytes | None, driver: Driver | None = None) -> LocalContext:
    context = local_of(root_over(driver or MemoryDriver())).context
    for key, body in ((ONE, one), (OTHER, other)):
        if body is not None:
            with context.driver.create(key) as writer:
                writer.write([body])
    return context


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (BLOCK + b"x", BLOCK + b"x", True),
        (BLOCK + b"x", BLOCK + b"y", False),
        (BLOCK + BLOCK + b"x", BLOCK + b"x" + BLOCK, False),
        (BLOCK, BLOCK + b"more", False),
        (BLOCK + b"more", BLOCK, False),
        (b"", b"more", False),
        (b"some", None, False),
    ],
)
def test_to_its_end(one: bytes, other: bytes | None, same: bool) -> None:
    context = site_with(one, other)
    with context.driver.open(ONE) as reader:
        assert context.same_bytes(reader, OTHER) is same


def test_what_can_not_be_read_is_no_copy() -> None:
    driver = FailOn(MemoryDriver(), "read_at", 1, IoFailed("no"), lambda key: key == ONE)
    context = site_with(b"some", b"some", driver)
    with context.driver.open(ONE) as reader:
        assert context.same_bytes(reader, OTHER) is False
