"""Rows that get a name or come from another layout, children and mounts."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

ROWS = "tests/storage/test_storage_rows.py::"
INDEX = "tests/storage/test_storage_index.py::"

MUTANTS = [
    Mutant(
        "pieces-never-stale",
        kinds.ANSWERS,
        "I4",
        "a piece of index.json is made anew when a row of it changed",
        "storage/index.py",
        "        self._pieces.stale.add(row_id // PIECE_ROWS)\n",
        "",
        INDEX + "test_i9_any_edits_of_any_index_do_what_a_dictionary_does",
    ),
    Mutant(
        "name-taken-from-an-alias",
        kinds.FOREIGN,
        "I9",
        "a row that answers to another name keeps it",
        "storage/index.py",
        "            if row.tag is None and row.alias is None and row.media_type == media_type:",
        "            if row.tag is None and row.media_type == media_type:",
        ROWS + "test_i9_a_row_that_answers_to_another_name_keeps_it",
    ),
    Mutant(
        "plain-rows-added",
        kinds.FOREIGN,
        "I9",
        "a plain row beside one that says more is nothing new",
        "storage/index.py",
        "            if bare not in known and not (known and bare == plain):",
        "            if bare not in known:",
        ROWS + "test_a_plain_row_beside_one_that_says_more_is_nothing_new",
    ),
    Mutant(
        "known-rows-added-again",
        kinds.FOREIGN,
        "I9",
        "a row that is there is not added again",
        "storage/index.py",
        "            if bare not in known and not (known and bare == plain):",
        "            if not (known and bare == plain):",
        ROWS + "test_a_plain_row_beside_one_that_says_more_is_nothing_new",
    ),
    Mutant(
        "first-rows-not-added",
        kinds.FOREIGN,
        "I4",
        "a plain row of something new is added",
        "storage/index.py",
        "            if bare not in known and not (known and bare == plain):",
        "            if bare not in known and bare != plain:",
        ROWS + "test_a_plain_row_beside_one_that_says_more_is_nothing_new",
    ),
    Mutant(
        "unreadable-child-is-missing",
        kinds.FAULTS,
        "I15",
        "a child that can't be read now is none that is missing",
        "storage/repository.py",
        ('    if fault is not None and fault.kind == "unreadable":\n        raise Unavailable(f"{child'),
        ('    if fault is not None and fault.kind == "none":\n        raise Unavailable(f"{child'),
        ROWS + "test_i5_a_child_that_can_not_be_read_now_is_no_child_that_is_missing",
    ),
    Mutant(
        "mounted-unflushed",
        kinds.FLUSHES,
        "I4",
        "a mount of what is there flushes it",
        "storage/local/blobs.py",
        "            flushed = False\n",
        "            flushed = True\n",
        ROWS + "test_i4_a_mount_of_what_is_there_flushes_it",
    ),
]
