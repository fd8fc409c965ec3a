"""Deduplication of a bucket, and back, and what is read of two copies: one edit at a time."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

DEDUPE = "tests/jobs/test_bucket_dedupe.py::"
TREE = "tests/storage/test_bucket_tree.py::"

MUTANTS = [
    Mutant(
        "stubs-believed-to-be-none",
        kinds.BELIEVED,
        "I5",
        "stubs are looked for anew before anything is deleted",
        "storage/bucket/pool.py",
        "if not lately or now - self._counted",
        "if now - self._counted",
        TREE + "test_stubs_are_looked_for_anew_before_anything_is_deleted",
    ),
    Mutant(
        "another-object-marked",
        kinds.IDENTITY,
        "I2",
        "only the object that was hashed is marked, cleared or healed",
        "storage/bucket/maintenance.py",
        "return found if found is not None and same_file(info_of(found), info) else None",
        "return found",
        "tests/storage/test_bucket_gone.py::test_what_took_the_place_of_what_was_read_is_neither_marked_nor_healed[own]",
    ),
    Mutant(
        "marks-swept-by-an-old-list",
        kinds.OBJECTS,
        "I2",
        "a mark that another process has made meanwhile is not swept",
        "storage/bucket/maintenance.py",
        "if found is None or not self._damaged.is_marked(digest, found):",
        "if found is None or not self._damaged.has(digest, found):",
        "tests/storage/test_bucket_gone.py::test_a_mark_that_another_process_has_made_meanwhile_is_not_swept[own]",
    ),
    Mutant(
        "stub-read-where-its-content-is-damaged",
        kinds.OBJECTS,
        "I2",
        "a stub is not read in an object that a scrub has marked",
        "storage/bucket/blobs.py",
        "return self._open(name, digest, origin)",
        "return self._context.objects.open(origin)",
        DEDUPE + "test_a_stub_is_not_read_where_its_content_is_damaged",
    ),
    Mutant(
        "pooled-copy-unread",
        kinds.BELIEVED,
        "I2",
        "a copy goes only for one in the pool that was read in this run",
        "jobs/bucket/dedupe.py",
        "sound = [digest for digest in waiting if self._pool_is_sound(digest)]",
        "sound = list(waiting)",
        DEDUPE + "test_a_copy_stays_when_the_damaged_one_of_the_pool_could_not_be_replaced",
    ),
    Mutant(
        "url-of-the-old-copy",
        kinds.DELAY,
        "I6",
        "an old copy stays while a URL of it is valid",
        "jobs/bucket/dedupe.py",
        "return max(POOL_SETTLED_S, s3.redirect_lifetime if s3.redirect else 0.0)",
        "return POOL_SETTLED_S",
        DEDUPE + "test_old_copies_stay_while_a_url_of_them_holds",
    ),
    Mutant(
        "pool-takes-what-is-not-understood",
        kinds.FAULTS,
        "I5",
        "what may be a manifest stays in its repository",
        "jobs/bucket/dedupe.py",
        "manifests = {*graph.facts, *graph.faults,",
        "manifests = {*graph.facts,",
        DEDUPE + "test_a_manifest_that_is_not_understood_stays_in_its_repository",
    ),
    Mutant(
        "stub-filled-without-a-reservation",
        kinds.RESERVATIONS,
        "P1",
        "a repository reserves what it is about to get",
        "jobs/bucket/dedupe.py",
        "        self._steps.prepare(name, digest)\n",
        "",
        DEDUPE + "test_a_stub_is_reserved_before_it_is_filled",
    ),
    Mutant(
        "undo-leaves-what-is-reserved",
        kinds.FAULTS,
        "I6",
        "undo brings back what is reserved, reached or not",
        "jobs/bucket/dedupe.py",
        "wanted = {digest for digest, _ in bucket_of(self._root).grants.of(name)}",
        "wanted = set()",
        DEDUPE + "test_what_a_push_has_sent_before_its_manifest_comes_back_too",
    ),
    Mutant(
        "stub-read-as-content",
        kinds.BELIEVED,
        "I2",
        "an empty object is read where its content is",
        "storage/bucket/tree.py",
        (
            "                if not is_stub(blob[1], reader.size):\n"
            "                    return reader\n"
            "                reader.close()"
        ),
        "                return reader",
        TREE + "test_a_stub_is_read_where_its_content_is[False]",
    ),
    Mutant(
        "lists-another-copy",
        kinds.IDENTITY,
        "I2",
        "of two copies that is listed which is read",
        "storage/bucket/tree.py",
        "found = own | granted if self._context.dedupe else granted | own",
        "found = granted | own",
        TREE + "test_of_two_copies_that_is_listed_which_is_read[True-True]",
    ),
    Mutant(
        "reads-another-copy",
        kinds.IDENTITY,
        "I2",
        "of two copies that is read which is believed",
        "storage/bucket/tree.py",
        "            return None if self._context.dedupe else key",
        "            return key",
        TREE + "test_of_two_copies_that_is_listed_which_is_read[True-False]",
    ),
    Mutant(
        "reads-another-copy-than-listed",
        kinds.IDENTITY,
        "I2",
        "of two copies that is read which was listed",
        "storage/bucket/tree.py",
        "return keys.shared(digest) if pooled else key",
        "return key",
        TREE + "test_of_two_copies_that_is_listed_which_is_read[True-True]",
    ),
]
