"""What a rehearsal leaves alone, what a purge acts on and counts, and what the history may forget."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

RECHECKS = "tests/jobs/test_gc_rechecks.py::"

MUTANTS = [
    Mutant(
        "rehearsal-purges",
        kinds.ANSWERS,
        "I15",
        "a rehearsal purges nothing",
        "jobs/local/gc.py",
        ("        if not self._dry_run:\n            purge"),
        ("        if True:\n            purge"),
        RECHECKS + "test_a_rehearsal_purges_nothing",
    ),
    Mutant(
        "rehearsal-notes",
        kinds.ANSWERS,
        "I15",
        "a rehearsal notes nothing from which a delay would run",
        "jobs/gc.py",
        "        if not self._run.dry_run:\n            self._note(",
        "        if True:\n            self._note(",
        RECHECKS + "test_a_rehearsal_notes_nothing",
    ),
    Mutant(
        "refused-drop-untold",
        kinds.ANSWERS,
        "I15",
        "a commit that is refused is told",
        "jobs/gc.py",
        "    if outcome is not None:\n        raise outcome\n",
        "",
        RECHECKS + "test_a_refusal_of_the_commit_is_told",
    ),
    Mutant(
        "purge-waits-without-a-delay",
        kinds.DELAY,
        "I11",
        "without a delay nothing waits for an upload",
        "jobs/local/gc.py",
        "if chosen.options.delay > 0 and trashed >= chosen",
        "if trashed >= chosen",
        RECHECKS + "test_without_a_delay_nothing_that_has_just_been_trashed_waits_for_an_upload",
    ),
    Mutant(
        "purge-counts-shared",
        kinds.LINKS,
        "I15",
        "what another repository has is not freed by a purge",
        "jobs/local/gc.py",
        "sizes[digest].size if sizes[digest].nlink <= 2 else 0",
        "sizes[digest].size",
        RECHECKS + "test_what_another_repository_has_too_is_not_counted_as_freed_by_a_purge",
    ),
    Mutant(
        "purge-of-the-gone-waits",
        kinds.FAULTS,
        "I11",
        "what lies in the trash of a repository that is gone goes",
        "jobs/local/gc.py",
        "return None if marker.has_index() else set()",
        "return None",
        RECHECKS + "test_what_lies_in_the_trash_of_a_repository_that_is_gone_goes",
    ),
    Mutant(
        "purge-by-unflushed-index",
        kinds.FLUSHES,
        "I5",
        "a purge acts on an index.json that is on the device",
        "jobs/local/gc.py",
        ("            local.context.durable.flush_index(folder.name)\n            gone"),
        "            gone",
        RECHECKS + "test_no_index_that_a_power_cut_could_take_back_is_purged_by",
    ),
    Mutant(
        "compacted-without-lock",
        kinds.LOCKS,
        "I6",
        "of the history, what is there now is asked for under the lock",
        "jobs/local/gc.py",
        "        with self._local.context.locks.hold(self._name):\n            marks = self._marker.now()",
        "        if True:\n            marks = self._marker.now()",
        RECHECKS + "TestHistory::test_it_looks_at_what_is_there_under_the_lock_and_keeps_nobody_waiting",
    ),
    Mutant(
        "compacted-by-what-was-there-before",
        kinds.LOCKS,
        "I6",
        "and after the history was read, for a commit that is under way has noted what it is about to do",
        "storage/local/history.py",
        (
            "            size = old.info().size\n            events = events_of(_read(old, max(0, size - LARGEST_HISTORY_BYTES), size))\n"
            "            if (found := here()) is None:\n                return\n"
        ),
        (
            "            if (found := here()) is None:\n                return\n"
            "            size = old.info().size\n            events = events_of(_read(old, max(0, size - LARGEST_HISTORY_BYTES), size))\n"
        ),
        "tests/storage/test_history.py::test_a_push_that_is_noted_while_what_is_there_is_asked_for_stays[memory]",
    ),
    Mutant(
        "compacted-despite-faults",
        kinds.FAULTS,
        "I5",
        "nothing is forgotten where something is unknown",
        "jobs/local/gc.py",
        "if marks.faults or self._local.indexes.unmerged(self._name):",
        "if self._local.indexes.unmerged(self._name):",
        RECHECKS + "TestHistory::test_i5_nor_where_something_is_unknown",
    ),
    Mutant(
        "compacted-before-it-is-taken-over",
        kinds.RETENTION,
        "I6",
        "nor while rows of another tool are not merged yet",
        "jobs/local/gc.py",
        "if marks.faults or self._local.indexes.unmerged(self._name):",
        "if marks.faults:",
        RECHECKS + "TestHistory::test_i6_nothing_is_forgotten_while_rows_of_another_tool_are_owed",
    ),
    Mutant(
        "compacted-without-tags",
        kinds.RETENTION,
        "I4",
        "the pushes of tags are remembered",
        "jobs/local/gc.py",
        "Here(marks.reachable, set(marks.index.tags()))",
        "Here(marks.reachable, set())",
        RECHECKS + "TestHistory::test_it_keeps_what_is_there_with_its_tags",
    ),
    Mutant(
        "compacted-to-rows",
        kinds.RETENTION,
        "I6",
        "so is what has no row, and is reachable",
        "jobs/local/gc.py",
        "Here(marks.reachable, set",
        "Here(set(marks.index.digests), set",
        RECHECKS + "TestHistory::test_it_keeps_what_is_there_with_its_tags",
    ),
]
