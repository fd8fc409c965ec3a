"""What saves requests on a bucket, and must decide nothing."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

RECALL = "tests/storage/test_s3_recall.py::"
MANY = "tests/jobs/test_gc_bucket_many.py::"
ROUNDS = "tests/storage/test_s3_rounds.py::"

MUTANTS = [
    Mutant(
        "refuse-by-a-glance",
        kinds.SWAPS,
        "I4",
        "what a push has read of index.json beforehand refuses nothing",
        "storage/s3/index_object.py",
        "if not is_sure and (any(outcomes) or not draft.dirty):",
        "if not is_sure and False:",
        ROUNDS + "test_m1_nothing_is_refused_by_a_glance",
    ),
    Mutant(
        "replace-a-hold-unseen",
        kinds.HOLDS,
        "I6",
        "a hold is written without a look only if there is none",
        "storage/s3/promises.py",
        "self._site.objects.put(key, self._site.clock.token().encode(), absent=True)",
        "self._site.objects.put(key, self._site.clock.token().encode())",
        ROUNDS + "test_p1_a_hold_that_came_since_it_was_looked_for_is_not_replaced",
    ),
    Mutant(
        "go-on-with-a-finished-upload",
        kinds.SESSIONS,
        "I2",
        "an upload that is being removed is known to nobody",
        "storage/s3/uploads.py",
        "        self._ended.add(session.id)\n",
        "",
        ROUNDS + "test_an_upload_that_was_finished_is_unknown_at_once",
    ),
    Mutant(
        "progress-of-the-last-that-ended",
        kinds.SENTENCES,
        "I11",
        "a run that is cut short goes on behind what is done without a gap",
        "jobs/bucket/collector.py",
        "            while self._begun and self._begun[0] in self._ended:\n",
        "            self._begun.remove(name)\n            self._begun.appendleft(name)\n"
        "            while self._begun and self._begun[0] in self._ended:\n",
        MANY + "test_progress_is_told_as_far_as_all_is_done",
    ),
    Mutant(
        "batches-side-by-side",
        kinds.SENTENCES,
        "I6",
        "deletes are signed and carried out for one batch at a time",
        "jobs/bucket/collector.py",
        "        with self._deleting:\n            self._carry_out(condemned)",
        "        self._carry_out(condemned)",
        MANY + "test_batches_are_deleted_one_after_the_other",
    ),
    Mutant(
        "go-on-after-the-end",
        kinds.SENTENCES,
        "I11",
        "a run that is stopped begins nothing more",
        "jobs/gc.py",
        "        workers.close()\n",
        "        pass\n",
        MANY + "test_a_run_that_is_stopped_begins_nothing_more_and_goes_on_later",
    ),
    Mutant(
        "fence-by-what-is-remembered",
        kinds.BELIEVED,
        "I5",
        "what is deleted is decided by bytes that were read in this run",
        "jobs/bucket/deletion.py",
        "Marker(self._root, name, certain=True)",
        "Marker(self._root, name)",
        RECALL + "test_i5_what_is_only_remembered_is_no_reason_to_collect",
    ),
    Mutant(
        "delete-by-what-is-remembered",
        kinds.BELIEVED,
        "I5",
        "what was only remembered is read again before a deletion",
        "storage/graphs.py",
        "        if self._recalled:\n",
        "        if False:\n",
        RECALL + "test_i5_a_deletion_by_a_client_goes_by_bytes_too",
    ),
    Mutant(
        "recall-without-a-look",
        kinds.BELIEVED,
        "I5",
        "a remembered manifest lies where it lay, as the object that it was",
        "storage/s3/recall.py",
        "return self._lying.get(digest) == one.lying and digest not in",
        "return digest not in",
        RECALL + "test_i5_a_manifest_that_is_not_as_it_was_is_noticed",
    ),
    Mutant(
        "recall-what-is-marked",
        kinds.BELIEVED,
        "I5",
        "what is known to be damaged is not remembered",
        "storage/s3/recall.py",
        " and digest not in self._site.bad",
        "",
        RECALL + "test_i5_a_manifest_that_is_not_as_it_was_is_noticed",
    ),
    Mutant(
        "recall-without-a-checksum",
        kinds.BELIEVED,
        "I5",
        "what is remembered has a checksum",
        "storage/recalled.py",
        'head != b"%s %s" % (_MAGIC, _checksum(name, packed))',
        "not head.startswith(_MAGIC)",
        RECALL + "test_what_is_wrong_with_it_costs_time_only",
    ),
    Mutant(
        "recall-by-other-code",
        kinds.BELIEVED,
        "I5",
        "what other code has read in a manifest is read again",
        "storage/recalled.py",
        "[_code().encode(), name.encode(), packed]",
        "[name.encode(), packed]",
        RECALL + "test_what_other_code_has_read_is_read_again",
    ),
]
