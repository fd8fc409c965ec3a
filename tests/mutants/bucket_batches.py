"""Collections of a bucket: repositories that no list has, the size of a batch, and what looks like a leftover."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

RECHECKS = "tests/jobs/test_gc_bucket_rechecks.py::"

MUTANTS = [
    Mutant(
        "pool-takes-errors-for-an-empty-repository",
        kinds.FAULTS,
        "I5",
        "a repository in no list that can't be read keeps what it holds",
        "jobs/bucket/pool.py",
        "        except (LayoutInvalid, StorageError):\n            self._known.left_alone.add(name)",
        ("        except (LayoutInvalid, StorageError):\n            self._known.enter(name, (), set(), shared=True)"),
        RECHECKS + "test_i5_a_repository_in_no_list_that_can_not_be_read_is_no_empty_one[_breaks]",
    ),
    Mutant(
        "pool-takes-a-store-that-is-away-for-an-empty-repository",
        kinds.FAULTS,
        "I5",
        "a repository in no list whose index.json isn't answered keeps what it holds",
        "jobs/bucket/pool.py",
        "        except (LayoutInvalid, StorageError):\n            self._known.left_alone.add(name)",
        (
            "        except LayoutInvalid:\n"
            "            self._known.left_alone.add(name)\n"
            "        except StorageError:\n"
            "            self._known.enter(name, (), set(), shared=True)"
        ),
        RECHECKS + "test_i5_a_repository_in_no_list_that_can_not_be_read_is_no_empty_one[away]",
    ),
    Mutant(
        "pool-passes-faults-over",
        kinds.FAULTS,
        "I5",
        "a repository in no list with a manifest that is missing or damaged keeps what it holds",
        "jobs/bucket/pool.py",
        "            if marks.faults:\n                self._known",
        "            if False:\n                self._known",
        RECHECKS + "test_i5_a_repository_in_no_list_that_can_not_be_read_is_no_empty_one[damaged]",
    ),
    Mutant(
        "refused-delete-ends-an-earlier-one",
        kinds.DELETES,
        "C7",
        "a delete that may be carried out once more keeps the intent, whatever comes after it",
        "jobs/bucket/deletion.py",
        "            self.over = before\n            raise",
        "            self.over = True\n            raise",
        RECHECKS + "test_c7_a_refused_delete_does_not_end_another_one_that_may_be_done_yet[own]",
    ),
    Mutant(
        "batch-stays-too-large",
        kinds.DELETES,
        "C6",
        "after deletes that came too late a batch is half as large",
        "jobs/bucket/deletion.py",
        "            except Expired:\n                self._size = max(1, self._size // 2)",
        "            except Expired:\n                pass",
        RECHECKS + "test_after_a_batch_that_was_too_late_the_next_one_is_half_as_large[own]",
    ),
    Mutant(
        "batch-fences-any-number",
        kinds.DELETES,
        "C6",
        "a batch fences no more repositories than it has time for",
        "jobs/bucket/deletion.py",
        " or len(names) > self.MOST_FENCES):",
        "):",
        RECHECKS + "test_a_batch_fences_no_more_repositories_than_it_has_time_for",
    ),
    Mutant(
        "living-intents-swept",
        kinds.INTENTS,
        "C7",
        "an intent is a leftover when it is twice as old as one that counts",
        "jobs/bucket/leftovers.py",
        "if ahead.age(found) > 2 * LIFETIME:",
        "if ahead.age(found) > 0:",
        RECHECKS + "test_an_intent_that_counts_is_nothing_left_behind[own-.zotctl/intents/token]",
    ),
    Mutant(
        "intents-swept-at-their-end",
        kinds.INTENTS,
        "C7",
        "nor is one that another collector has just let die",
        "jobs/bucket/leftovers.py",
        "if ahead.age(found) > 2 * LIFETIME:",
        "if ahead.age(found) > LIFETIME:",
        RECHECKS + "test_an_intent_that_counts_is_nothing_left_behind[own-.zotctl/intents/token]",
    ),
]
