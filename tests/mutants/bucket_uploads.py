"""Uploads into a bucket (docs/design/bucket.md#uploads)."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

STEPS = "tests/storage/test_bucket_upload_steps.py::"

MUTANTS = [
    Mutant(
        "bytes-that-start-elsewhere",
        kinds.SESSIONS,
        "I2",
        "bytes follow those that have arrived",
        "storage/bucket/uploads/upload.py",
        ("        if start is not None and start != self.offset:\n            raise self._conflict()\n"),
        "",
        STEPS + "test_bytes_that_start_elsewhere_are_refused",
    ),
    Mutant(
        "answered-though-collected",
        kinds.RESERVATIONS,
        "I6",
        "an upload is answered while its blob is reserved",
        "storage/bucket/uploads/upload.py",
        "            self._uploads.blobs.still_reserved(self._session.name, digest)",
        "            pass",
        STEPS + "test_an_upload_whose_blob_was_collected_before_its_answer_is_to_be_sent_again",
    ),
    Mutant(
        "session-renewed-late",
        kinds.SESSIONS,
        "I6",
        "a session is renewed in half of a window",
        "storage/bucket/uploads/upload.py",
        "if age > self._context.window / 2 and",
        "if age > self._context.window * 2 and",
        STEPS + "test_a_session_is_renewed_within_half_a_window",
    ),
    Mutant(
        "session-not-renewed-for-a-copy",
        kinds.SESSIONS,
        "I6",
        "it is renewed before a copy though it is the same",
        "storage/bucket/uploads/upload.py",
        "            self._renew(again=True)  # which",
        "            self._renew()  # which",
        STEPS + "test_a_session_is_renewed_before_its_bytes_are_copied",
    ),
    Mutant(
        "session-with-one-token",
        kinds.SESSIONS,
        "I4",
        "two states of a session have two ETags",
        "storage/bucket/uploads/upload.py",
        ("        token = self._context.clock.token()\n        with self._tail.trailed"),
        ("        token = 'x'\n        with self._tail.trailed"),
        STEPS + "test_two_states_of_a_session_have_two_etags",
    ),
    Mutant(
        "offset-from-memory",
        kinds.SESSIONS,
        "I4",
        "the offset is that of the session",
        "storage/bucket/uploads/sessions.py",
        "if idle is None or idle.state.session.etag == session.etag:",
        ("if idle is not None:\n                return idle.state.session.offset\n            if idle is None:"),
        STEPS + "test_the_offset_is_that_of_the_session_whoever_took_the_bytes",
    ),
    Mutant(
        "hash-of-an-earlier-state",
        kinds.SESSIONS,
        "I2",
        "a hash is good for the state that it is of",
        "storage/bucket/uploads/sessions.py",
        "same = known is not None and known.session.etag == session.etag",
        "same = known is not None",
        STEPS + "test_a_hash_is_good_for_the_state_that_it_is_of",
    ),
    Mutant(
        "foreign-object-for-an-upload",
        kinds.UNKNOWN,
        "I9",
        "what is no upload is not purged",
        "storage/bucket/uploads/sessions.py",
        '                parse_id(found.key.removeprefix(f"{directory}/"))\n',
        "",
        STEPS + "test_what_is_no_upload_of_ours_is_not_purged",
    ),
]
