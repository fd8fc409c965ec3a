"""Replies that get lost, requests that come through late, and what is told by a glance: one edit at a time."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

SWAPS = "tests/storage/test_bucket_swaps.py::"
STEPS = "tests/storage/test_bucket_upload_steps.py::"
SINGLE_WRITER = "tests/storage/test_bucket_single_writer.py::"
DELETING = "tests/storage/test_storage_deleting.py::"
RETRYING = "tests/storage/test_bucket_retrying.py::"
REPLACING = "tests/storage/test_bucket_multipart.py::"
RECALL = "tests/storage/test_bucket_recall.py::"
SHARED = "tests/storage/test_bucket_shared.py::"
HISTORY = "tests/storage/test_bucket_history.py::"

MUTANTS = [
    Mutant(
        "index-known-by-its-length",
        kinds.SWAPS,
        "I4",
        "a swap without an answer is looked up to the last byte",
        "storage/bucket/index.py",
        "if sent.body == got[1]), None)",
        "if len(sent.body) == len(got[1])), None)",
        SWAPS + "test_another_index_of_equal_length_is_not_ours",
    ),
    Mutant(
        "index-built-upon-forgotten",
        kinds.SWAPS,
        "I4",
        "a swap that others have built upon was done",
        "storage/bucket/index.py",
        "), None) or _built_upon(got[1], tried)",
        "), None)",
        SWAPS + "test_a_swap_that_another_one_was_built_upon_was_done",
    ),
    Mutant(
        "fence-forgets-its-first-attempt",
        kinds.SWAPS,
        "C4",
        "a fence that came through late is looked up",
        "storage/bucket/index.py",
        "return done or (len(tried) > 1 and self._done(name, tried) is not None)",
        "return done",
        SWAPS + "test_a_fence_that_came_through_after_its_repetition_had_begun_is_done",
    ),
    Mutant(
        "unknown-manifest-deleted",
        kinds.ANSWERS,
        "I1",
        "what is not there is not said to be deleted",
        "storage/bucket/index.py",
        "[None if unsure and isinstance(outcome, ManifestUnknown) else outcome",
        "[None if isinstance(outcome, ManifestUnknown) else outcome",
        SWAPS + "test_what_is_not_there_is_not_deleted_and_said_to_be",
    ),
    Mutant(
        "own-delete-refused",
        kinds.ANSWERS,
        "I1",
        "a delete that was done without an answer is not refused for that",
        "storage/bucket/index.py",
        "[None if unsure and isinstance(outcome, ManifestUnknown) else outcome for outcome in outcomes]",
        "outcomes",
        SWAPS + "test_a_delete_whose_reply_was_lost_is_not_refused_for_being_done",
    ),
    Mutant(
        "removed-repository-known",
        kinds.SWAPS,
        "M1",
        "a repository that was removed has an index.json before it has bytes again",
        "storage/bucket/index.py",
        ("            self._cache.drop(name)\n            self._known.drop(name)"),
        "            self._cache.drop(name)",
        SWAPS + "test_a_repository_that_was_removed_has_an_index_before_it_has_bytes_again",
    ),
    Mutant(
        "glance-says-nothing-is-to-be-done",
        kinds.SWAPS,
        "M1",
        "without a swap nothing is answered by a glance",
        "storage/bucket/index.py",
        "if not is_sure and not draft.dirty:",
        "if not is_sure and any(outcomes):",
        SWAPS + "test_m1_that_nothing_is_to_be_done_is_not_said_by_a_glance",
    ),
    Mutant(
        "session-begun-twice",
        kinds.SESSIONS,
        "I1",
        "a session is created only where there is none",
        "storage/bucket/uploads/sessions.py",
        "match=match, absent=not match, metadata",
        "match=match, metadata",
        STEPS + "test_a_session_is_begun_once[layouts]",
    ),
    Mutant(
        "purged-session-conflicts",
        kinds.SESSIONS,
        "I1",
        "a session that was purged before it was stored is unknown",
        "storage/bucket/uploads/sessions.py",
        "        if not match:  # no other request",
        "        if False:  # no other request",
        STEPS + "test_a_session_is_begun_once[layouts]",
    ),
    Mutant(
        "session-discarded-first",
        kinds.SESSIONS,
        "I6",
        "a session goes after what it has stored, which is found by it",
        "storage/bucket/uploads/sessions.py",
        (
            "        if session.multipart and not completed:\n"
            "            self.context.objects.abort_parts(session.target, session.multipart)\n"
        ),
        (
            "        if session.etag:\n"
            "            self.context.objects.delete(keys.session(session.id))\n"
            "        if session.multipart and not completed:\n"
            "            self.context.objects.abort_parts(session.target, session.multipart)\n"
        ),
        STEPS + "test_a_session_goes_after_what_it_has_stored[layouts-abort_parts]",
    ),
    Mutant(
        "deleted-subject-remembered",
        kinds.BELIEVED,
        "I5",
        "what a manifest said that was deleted is not remembered of it",
        "storage/graph.py",
        ("            if self._graph.reaches(digest):\n                self._begin()"),
        "            pass",
        DELETING + "test_what_a_deleted_subject_has_needed_is_free",
    ),
    Mutant(
        "single-writer-goes-on",
        kinds.LOCKS,
        "I4",
        "what was given back is not renewed",
        "storage/bucket/lease.py",
        ("        self._over.set()\n        with"),
        "        with",
        SINGLE_WRITER + "test_it_is_not_renewed_after_it_was_given_back",
    ),
    Mutant(
        "single-writer-renews-what-is-over",
        kinds.LOCKS,
        "I4",
        "a renewal looks whether it is over",
        "storage/bucket/lease.py",
        "        elif not self._over.is_set():",
        "        else:",
        SINGLE_WRITER + "test_it_is_not_renewed_after_it_was_given_back",
    ),
    Mutant(
        "removed-object-swapped-again",
        kinds.SWAPS,
        "I4",
        "what was to be replaced and is gone, is not made anew",
        "storage/bucket/objects/retry.py",
        '            return "" if self.match else None',
        "            return None",
        RETRYING + "test_an_index_that_is_gone_after_a_swap_without_an_answer_is_not_made_anew[never arrived]",
    ),
    Mutant(
        "unsure-complete-believed",
        kinds.OBJECTS,
        "I2",
        "after a Complete without an answer what is there is hashed",
        "storage/bucket/objects/multipart.py",
        "if done is None or not (parts.completed or digest_of_object(objects, key, digest.algorithm) == digest):",
        "if done is None:",
        REPLACING + "test_what_is_there_after_an_unsure_complete_is_read_before_it_is_believed[another's]",
    ),
    Mutant(
        "facts-without-a-time",
        kinds.CLAIMS,
        "I5",
        "what is remembered of a manifest is that of an object of this time",
        "storage/bucket/facts.py",
        "Stamp(found.etag, found.size, int(found.modified))",
        "Stamp(found.etag, found.size, 0)",
        RECALL + "test_i5_a_manifest_that_is_not_as_it_was_is_noticed[rotten]",
    ),
    Mutant(
        "history-of-others",
        kinds.RETENTION,
        "I5",
        "what is not written yet is told of its own repository",
        "storage/bucket/history.py",
        'events = [event for event in self._events if event["r"] == name]',
        "events = list(self._events)",
        HISTORY + "test_what_is_not_written_yet_is_told_of_its_own_repository_only",
    ),
    Mutant(
        "own-swap-taken-for-anothers",
        kinds.SWAPS,
        "I4",
        "a swap that fails behind one without an answer is looked up",
        "storage/bucket/objects/retry.py",
        ("            except Changed:\n                if not self.unsure:\n                    raise"),
        ("            except Changed:\n                raise"),
        RETRYING + "test_a_first_attempt_that_comes_through_behind_a_look_is_ours[options0]",
    ),
    Mutant(
        "mark-changes-once",
        kinds.RESERVATIONS,
        "I6",
        "what workers remember is void after each deletion of another one",
        "storage/bucket/workers.py",
        "        self._page[:MARK_BYTES] = os.urandom(MARK_BYTES)",
        '        self._page[:MARK_BYTES] = b"1" * MARK_BYTES',
        SHARED + "test_a_mark_is_another_one_after_each_change",
    ),
]
