"""The swap of index.json, what is ours to write, a root that is away, and a disk without an inode."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

SWAPPING = "tests/storage/test_storage_swapping.py::"
ROOTS = "tests/storage/test_storage_roots.py::"
FULL = "tests/faultproof/test_fulldisk.py::"
OWNED = "tests/storage/test_storage_owned.py::"

MUTANTS = [
    Mutant(
        "swap-not-looked-at",
        kinds.FOREIGN,
        "I4",
        "what comes out of the swap is taken in, if it is another program's",
        "storage/local/index_file.py",
        "            self._take_in(held, transaction)\n        self._context.flush_names(name)",
        "        self._context.flush_names(name)",
        SWAPPING + "test_i4_a_tag_that_was_renamed_in_at_the_last_moment_is_there_when_we_answer",
    ),
    Mutant(
        "swap-removals-forgotten",
        kinds.FOREIGN,
        "I4",
        "what the other program took away goes",
        "storage/index.py",
        "if row.digest is not None and _key(row) in gone:",
        "if row.digest is None and _key(row) in gone:",
        SWAPPING + "test_i4_what_it_took_away_and_moved_is_done_too_and_ours_wins_where_both_changed",
    ),
    Mutant(
        "swap-left-over-not-taken",
        kinds.FOREIGN,
        "I4",
        "gc takes in what a dead process had in its hands, before it collects",
        "jobs/local/gc.py",
        "        if not self._dry_run:\n            self._local.take_over(self._name)\n",
        "",
        SWAPPING + "test_i4_gc_takes_in_what_a_dead_process_had_in_its_hands_before_it_collects",
    ),
    Mutant(
        "swap-left-over-purged",
        kinds.FOREIGN,
        "I4",
        "and before it purges",
        "jobs/local/gc.py",
        "    local.take_over(folder.name)\n",
        "",
        SWAPPING + "test_i4_and_before_it_purges",
    ),
    Mutant(
        "swap-brings-back-deleted",
        kinds.FOREIGN,
        "I6",
        "what was deleted since does not come back with it",
        "storage/local/index_file.py",
        "wanted = [row for row in rows if not {row.tag, row.alias, row.digest} & gone]",
        "wanted = rows",
        SWAPPING + "test_i6_what_was_deleted_since_does_not_come_back",
    ),
    Mutant(
        "read-writes-through-link",
        kinds.FOREIGN,
        "I9",
        "content comes back into a repository that is ours only",
        "storage/local/trash.py",
        "is None or not self._context.owned.has(name):",
        "is None:",
        OWNED + "test_i9_a_read_brings_nothing_back_through_a_link",
    ),
    Mutant(
        "heals-another-store",
        kinds.FOREIGN,
        "I9",
        "healing leaves alone what is not ours",
        "storage/local/heal.py",
        "if not self._context.owned.has(name) or not",
        "if not",
        OWNED + "test_i9_healing_leaves_a_store_below_the_root_alone",
    ),
    Mutant(
        "clock-of-the-trash-needs-an-inode",
        kinds.ANSWERS,
        "I10",
        "gc frees the first inode without one",
        "storage/local/trash.py",
        "            return self._now_by_the_lock()\n",
        "            raise\n",
        FULL + "test_gc_needs_no_inode_to_free_one",
    ),
    Mutant(
        "trash-takes-nothing-from-the-reserve",
        kinds.ANSWERS,
        "I10",
        "the folders of the trash come out of the reserve on a full disk",
        "storage/local/trash.py",
        "self._context.with_room(partial(self._context.make_dirs, folder))",
        "self._context.make_dirs(folder)",
        FULL + "test_gc_with_a_delay_takes_its_folders_from_the_reserve",
    ),
    Mutant(
        "list-without-a-root-that-is-away",
        kinds.ANSWERS,
        "I4",
        "a list of repositories is no answer while a root is away",
        "storage/store.py",
        "                root.require()\n\n    def _names",
        "                pass\n\n    def _names",
        ROOTS + "test_a_list_of_repositories_is_503_while_a_root_is_away_and_names_it",
    ),
    Mutant(
        "root-made-anew",
        kinds.ANSWERS,
        "I4",
        "a root that was there is not made anew by a process of the same server",
        "storage/local/opening.py",
        "        _refuse_what_went_away(path)\n",
        "",
        ROOTS + "test_a_root_that_was_there_is_not_made_anew",
    ),
]
