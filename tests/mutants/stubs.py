"""An empty file is no blob."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

STUBS = "tests/storage/test_storage_stubs.py::"

MUTANTS = [
    Mutant(
        "stub-is-there",
        kinds.BELIEVED,
        "I6",
        "an empty file is no blob",
        "storage/local/blobs.py",
        "if not info.is_file or is_stub(digest, info.size) or self._damaged.has(digest, info):",
        "if not info.is_file or self._damaged.has(digest, info):",
        STUBS + "test_i6_it_is_not_there_until_it_is_pushed",
    ),
    Mutant(
        "stub-is-opened",
        kinds.BELIEVED,
        "I6",
        "an empty file is not served",
        "storage/local/blobs.py",
        "            if not reader.size or self._damaged.any_known():",
        "            if self._damaged.any_known():",
        STUBS + "test_i6_it_is_mounted_by_nobody",
    ),
]
