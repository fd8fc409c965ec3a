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
        "jobs/gc_local.py",
        (
            "        if not self._chosen.dry_run(self._run):\n"
            "            purge"
        ),
        (
            "        if True:\n"
            "            purge"
        ),
        RECHECKS + "test_a_rehearsal_purges_nothing",
    ),
    Mutant(
        "rehearsal-notes",
        kinds.ANSWERS,
        "I15",
        "a rehearsal notes nothing from which a delay would run",
        "jobs/gc_plan.py",
        (
            "        if self._run.dry_run:\n"
            "            return\n"
            "        for digest in foreign"
        ),
        "        for digest in foreign",
        RECHECKS + "test_a_rehearsal_notes_nothing",
    ),
    Mutant(
        "refused-drop-untold",
        kinds.ANSWERS,
        "I15",
        "a commit that is refused is told",
        "jobs/gc_plan.py",
        (
            "        if outcome is not None:\n"
            "            raise outcome\n"
        ),
        "",
        RECHECKS + "test_a_refusal_of_the_commit_is_told",
    ),
    Mutant(
        "purge-waits-without-a-delay",
        kinds.DELAY,
        "I11",
        "without a delay nothing waits for an upload",
        "jobs/gc_local.py",
        "if chosen.options.delay > 0 and condemned >= chosen",
        "if condemned >= chosen",
        RECHECKS + "test_without_a_delay_nothing_that_has_just_been_condemned_waits_for_an_upload",
    ),
    Mutant(
        "purge-counts-shared",
        kinds.LINKS,
        "I15",
        "what another repository has is not freed by a purge",
        "jobs/gc_local.py",
        "sizes[digest].size if sizes[digest].nlink <= 2 else 0",
        "sizes[digest].size",
        RECHECKS + "test_what_another_repository_has_too_is_not_counted_as_freed_by_a_purge",
    ),
    Mutant(
        "purge-of-the-gone-waits",
        kinds.FAULTS,
        "I11",
        "what lies in the trash of a repository that is gone goes",
        "jobs/gc_local.py",
        (
            "    except NotFound:\n"
            "        return set()\n"
        ),
        (
            "    except NotFound:\n"
            "        return None\n"
        ),
        RECHECKS + "test_what_lies_in_the_trash_of_a_repository_that_is_gone_goes",
    ),
    Mutant(
        "purge-by-unflushed-index",
        kinds.FLUSHES,
        "I5",
        "a purge acts on an index.json that is on the device",
        "jobs/gc_local.py",
        (
            "            local.site.durable.index(folder.name)\n"
            "            gone"
        ),
        "            gone",
        RECHECKS + "test_no_index_that_a_power_cut_could_take_back_is_purged_by",
    ),
    Mutant(
        "compacted-without-lock",
        kinds.LOCKS,
        "I6",
        "the history is compacted under the lock",
        "jobs/gc_local.py",
        (
            "            with self._local.site.locks.hold(self._name), suppress(NotFound):\n"
            "                marks"
        ),
        (
            "            with suppress(NotFound):\n"
            "                marks"
        ),
        RECHECKS + "TestHistory::test_it_does_so_under_the_lock",
    ),
    Mutant(
        "compacted-despite-faults",
        kinds.FAULTS,
        "I5",
        "nothing is forgotten where something is unknown",
        "jobs/gc_local.py",
        "if not (marks.faults or self._local.indexes.owed(self._name)):",
        "if not self._local.indexes.owed(self._name):",
        RECHECKS + "TestHistory::test_i5_nor_where_something_is_unknown",
    ),
    Mutant(
        "compacted-before-it-is-taken-over",
        kinds.RETENTION,
        "I6",
        "nor while rows of another tool are owed",
        "jobs/gc_local.py",
        "if not (marks.faults or self._local.indexes.owed(self._name)):",
        "if not marks.faults:",
        RECHECKS + "TestHistory::test_i6_nothing_is_forgotten_while_rows_of_another_tool_are_owed",
    ),
    Mutant(
        "compacted-without-tags",
        kinds.RETENTION,
        "I4",
        "the pushes of tags are remembered",
        "jobs/gc_local.py",
        "marks.reachable, set(marks.index.tags()))",
        "marks.reachable, set())",
        RECHECKS + "TestHistory::test_it_keeps_what_is_there_with_its_tags",
    ),
    Mutant(
        "compacted-to-rows",
        kinds.RETENTION,
        "I6",
        "so is what has no row, and is reachable",
        "jobs/gc_local.py",
        "history.compact(self._name, marks.reachable, set",
        "history.compact(self._name, set(marks.index.digests), set",
        RECHECKS + "TestHistory::test_it_keeps_what_is_there_with_its_tags",
    ),
]
