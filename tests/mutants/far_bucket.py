"""What saves requests on a bucket, and must decide nothing."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

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
        "glance-for-ever",
        kinds.SWAPS,
        "I4",
        "a glance is good for one commit",
        "storage/s3/index_object.py",
        "        self._glances.drop(name)\n",
        "",
        ROUNDS + "test_m1_a_glance_is_good_for_one_commit_and_not_for_long",
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
]
