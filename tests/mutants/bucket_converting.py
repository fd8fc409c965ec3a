"""Conversions of a bucket (docs/design/bucket.md#the-tree)."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

STEPS = "tests/storage/test_bucket_converting.py::"

MUTANTS = [
    Mutant(
        "prepared-after-one-intent",
        kinds.INTENTS,
        "I6",
        "a copy waits for each intent",
        "storage/bucket/pool.py",
        "        while self._intents.wait_out([keys.blob(name, digest)]):",
        "        if self._intents.wait_out([keys.blob(name, digest)]):",
        STEPS + "test_a_repository_reserves_what_it_is_about_to_get_after_each_intent",
    ),
    Mutant(
        "prepared-without-a-reservation-anew",
        kinds.LOOKED_AT_AGAIN,
        "I6",
        "and is reserved anew after it",
        "storage/bucket/pool.py",
        (
            "        while self._intents.wait_out([keys.blob(name, digest)]):\n"
            "            self._reservations.ensure(name, digest)"
        ),
        ("        self._intents.wait_out([keys.blob(name, digest)])\n        if False:\n            pass"),
        STEPS + "test_a_repository_reserves_what_it_is_about_to_get_after_each_intent",
    ),
    Mutant(
        "copy-believed-unread",
        kinds.BELIEVED,
        "I2",
        "a copy without a checksum is read",
        "storage/bucket/pool.py",
        "            right = sound(target, digest)",
        "            right = True",
        STEPS + "test_a_copy_that_came_out_wrong_is_gone_again",
    ),
    Mutant(
        "wrong-copy-stays",
        kinds.OBJECTS,
        "I2",
        "a copy that came out wrong is gone again",
        "storage/bucket/pool.py",
        ("        if not right:\n            self._context.objects.delete(target)\n"),
        "",
        STEPS + "test_a_copy_that_came_out_wrong_is_gone_again",
    ),
    Mutant(
        "dropped-for-a-stub",
        kinds.OBJECTS,
        "I5",
        "an empty object in the pool is no copy",
        "storage/bucket/pool.py",
        "if there is None or is_stub(digest, there.size) or there.key in announced:",
        "if there is None or there.key in announced:",
        STEPS + "test_a_copy_stays_that_may_be_the_only_one",
    ),
    Mutant(
        "dropped-for-what-is-announced",
        kinds.INTENTS,
        "I5",
        "nor is one that is announced",
        "storage/bucket/pool.py",
        " or there.key in announced:\n",
        "  :\n",
        STEPS + "test_a_copy_stays_that_may_be_the_only_one",
    ),
    Mutant(
        "dropped-without-a-reservation",
        kinds.LOOKED_AT_AGAIN,
        "I5",
        "nor one that the repository doesn't reservation",
        "storage/bucket/pool.py",
        ("            if self._context.head(keys.reservation(digest, name)) is not None:\n                yield"),
        ("            if True:\n                yield"),
        STEPS + "test_a_copy_stays_that_may_be_the_only_one",
    ),
    Mutant(
        "dropped-at-once",
        kinds.DUE,
        "I5",
        "a copy goes when all servers know of the pool",
        "storage/bucket/pool.py",
        "yield digest, max(0.0, age - there.age)",
        "yield digest, 0.0",
        STEPS + "test_nor_does_it_go_before",
    ),
    Mutant(
        "dropped-on-an-old-reservation",
        kinds.LOOKED_AT_AGAIN,
        "I6",
        "its reservation is written anew before",
        "storage/bucket/pool.py",
        "partial(self._reservations.renew, name, digest)",
        "partial(self._reservations.ensure, name, digest)",
        STEPS + "test_a_reservation_is_written_anew_before_a_copy_goes",
    ),
    Mutant(
        "dropped-without-a-second-look",
        kinds.SECOND_LOOK,
        "I5",
        "and the pool looked at again after that",
        "storage/bucket/pool.py",
        "still = [digest for digest, wait in self.droppable(name, some, age) if not wait]",
        "still = list(some)",
        STEPS + "test_a_copy_stays_if_the_pool_is_announced_while_it_is_reserved_anew",
    ),
    Mutant(
        "copy-deleted-unsigned",
        kinds.DELETES,
        "I5",
        "a copy goes by a delete that was signed before",
        "storage/bucket/pool.py",
        "self._context.each([partial(self._context.carry_out, presigned_deletes[digest]) for digest in still])",
        ("self._context.each([partial(self._context.objects.delete, keys.blob(name, digest)) for digest in still])"),
        STEPS + "test_a_process_that_was_frozen_deletes_no_copy",
    ),
    Mutant(
        "pool-not-looked-into",
        kinds.OBJECTS,
        "I2",
        "from the first copy on the pool is looked into",
        "storage/bucket/pool.py",
        "        self._context.pooled |= target == keys.shared(digest)\n",
        "",
        STEPS + "test_from_the_first_copy_on_the_pool_is_looked_into",
    ),
]
