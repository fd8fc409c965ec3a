"""What is written to a bucket and believed of it: checksums, halves, what was seen, foreign objects, outages."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

GONE = "tests/storage/test_s3_gone.py::"
HALVES = "tests/storage/test_s3_halves.py::"
HISTORY = "tests/storage/test_s3_history.py::"
RETRYING = "tests/storage/test_s3_retrying.py::"

MUTANTS = [
    Mutant(
        "put-without-checksum",
        kinds.OBJECTS,
        "I2",
        "each put has a checksum that the store verifies",
        "storage/s3/checksums.py",
        'return Sent(body, {"x-amz-checksum-sha256": _base64(digest)})',
        "return Sent(body, {})",
        HALVES + "test_every_put_of_an_object_has_length_and_checksum",
    ),
    Mutant(
        "half-taken-for-whole",
        kinds.SWAPS,
        "I4",
        "after a put without an answer, what is there is compared to its end",
        "storage/s3/retrying.py",
        "if ours and len(content) == len(self.body):",
        "if ours and content:",
        RETRYING + "test_a_conditional_write_is_made_whole_whatever_became_of_it",
    ),
    Mutant(
        "metadata-not-compared",
        kinds.SESSIONS,
        "I2",
        "and so is its metadata",
        "storage/s3/retrying.py",
        "self.metadata.items() <= found.metadata.items() and self.body",
        "self.body",
        RETRYING + "test_an_equal_body_with_other_metadata_is_not_ours",
    ),
    Mutant(
        "other-writer-replaced",
        kinds.SWAPS,
        "I4",
        "what another writer has put meanwhile is not replaced",
        "storage/s3/retrying.py",
        'return None if found.etag == self.match else ""',
        "self.match = found.etag",
        RETRYING + "test_what_another_writer_has_put_since_is_left_alone",
    ),
    Mutant(
        "halves-accepted",
        kinds.OBJECTS,
        "I4",
        "a store that keeps half of an object is refused",
        "storage/s3/probe.py",
        "    if abilities.keeps_halves:\n        reason",
        "    if False:\n        reason",
        HALVES + "test_a_store_that_keeps_halves_is_refused",
    ),
    Mutant(
        "ignored-checksum-believed",
        kinds.OBJECTS,
        "I2",
        "a checksum counts when bytes that don't match were refused",
        "storage/s3/probe.py",
        ("            return True\n"
         "        return False\n\n"
         "    def _cut("),
        ("            return True\n"
         "        return True\n\n"
         "    def _cut("),
        HALVES + "test_a_checksum_that_is_refused_or_ignored_gives_way_to_the_other",
    ),
    Mutant(
        "manifest-on-memory",
        kinds.PROMISES,
        "I5",
        "a manifest is accepted on what is there",
        "storage/s3/promises.py",
        "None if fresh else self.confirmed(name, digest)",
        "self.confirmed(name, digest)",
        GONE + "test_a_manifest_is_accepted_on_what_is_there",
    ),
    Mutant(
        "presence-as-long-as-a-promise",
        kinds.PROMISES,
        "I2",
        "that an object is there is believed for half a minute",
        "storage/s3/promises.py",
        "BELIEVED = 30.0",
        "BELIEVED = 900.0",
        GONE + "test_what_went_is_404_at_every_server_within_half_a_minute",
    ),
    Mutant(
        "mark-against-memory",
        kinds.OBJECTS,
        "I2",
        "a mark of damage is compared with what is there now",
        "storage/s3/promises.py",
        " or digest in self._site.bad:",
        ":",
        GONE + "test_a_mark_is_about_what_is_there_and_not_about_what_is_remembered",
    ),
    Mutant(
        "nothing-found-not-noted",
        kinds.PROMISES,
        "I2",
        "a read that finds nothing ends what was remembered",
        "storage/s3/blobs.py",
        ("        self._promises.forget(name, digest)\n"
         "        raise damaged or"),
        "        raise damaged or",
        GONE + "test_a_get_that_finds_nothing_ends_what_was_remembered",
    ),
    Mutant(
        "short-object-sent",
        kinds.BELIEVED,
        "I2",
        "the length of an object is compared with what manifests say",
        "storage/repository.py",
        "if agrees is None and self._can_tell_sizes(known, digest):",
        "if agrees is None and self._root.protocol.torn:",
        GONE + "test_a_short_object_is_404_at_old_and_fresh_servers",
    ),
    Mutant(
        "wrong-length-believed",
        kinds.BELIEVED,
        "I2",
        "a blob whose length is contradicted is hashed",
        "storage/s3/blobs.py",
        "if found is None or hashed(self._site.objects, found.key, digest.algorithm) == digest:",
        "if True:",
        GONE + "test_a_short_object_that_no_manifest_names_yet_is_hashed_before_it_is_believed",
    ),
    Mutant(
        "manifest-believed-for-ever",
        kinds.BELIEVED,
        "I2",
        "a manifest whose bytes are known is looked for once in half a minute",
        "storage/s3/blobs.py",
        "if until is not None and now < until and digest not in self._site.bad:",
        "if until is not None:",
        GONE + "test_a_manifest_that_went_is_404_though_its_bytes_are_known",
    ),
    Mutant(
        "replaced-without-an-etag",
        kinds.SWAPS,
        "I4",
        "an index.json without an ETag is not replaced",
        "storage/s3/index_object.py",
        "if before is not None and not match:",
        "if False:",
        "tests/storage/test_s3_no_etag.py::test_a_push_is_refused_at_once_with_the_reason",
    ),
    Mutant(
        "foreign-name-for-a-repository",
        kinds.FOREIGN,
        "I5",
        "what has no name of a repository is none",
        "storage/keys.py",
        ("    except NameInvalid:\n"
         '        return ""'),
        ("    except NameInvalid:\n"
         '        return component.replace(":", "/")'),
        "tests/jobs/test_bucket_foreign.py::test_what_is_no_digest_is_named_or_passed_over",
    ),
    Mutant(
        "outage-told-for-each",
        kinds.ANSWERS,
        "I11",
        "a bucket that is lost is told once",
        "jobs/run.py",
        "if root is None or not self.is_lost(root, error):",
        "if True:",
        "tests/jobs/test_bucket_away.py::test_an_outage_that_begins_with_a_manifest",
    ),
    Mutant(
        "bucket-history-drops-the-latest",
        kinds.RETENTION,
        "I6",
        "what was written since the look is kept",
        "storage/s3/history.py",
        "+ events[len(old) :]",
        "",
        HISTORY + "test_what_is_written_while_it_is_made_one_is_kept",
    ),
    Mutant(
        "bucket-history-without-slack",
        kinds.RETENTION,
        "I6",
        "the clock of a process may be behind",
        "storage/s3/history.py",
        "asof - SLACK",
        "asof",
        HISTORY + "test_what_is_written_while_it_is_made_one_is_kept",
    ),
    Mutant(
        "bucket-history-deleted-first",
        kinds.RETENTION,
        "I4",
        "what takes the place of old objects is written first",
        "storage/s3/history.py",
        ("        if kept:\n"
         "            self._write(name, kept)\n"
         "        for found, _ in written:\n"
         "            self._site.objects.delete(found.key)"),
        ("        for found, _ in written:\n"
         "            self._site.objects.delete(found.key)\n"
         "        if kept:\n"
         "            self._write(name, kept)"),
        HISTORY + "test_nothing_is_deleted_before_what_takes_its_place_is_written",
    ),
    Mutant(
        "bucket-history-lost-in-an-outage",
        kinds.RETENTION,
        "I6",
        "what cannot be written now is kept",
        "storage/s3/history.py",
        "self._events[:0] = some",
        "pass",
        HISTORY + "test_what_cannot_be_written_is_kept",
    ),
    Mutant(
        "copied-manifest-counts-as-pushed",
        kinds.RETENTION,
        "I4",
        "a manifest that another tool has put there was not pushed",
        "storage/s3/history.py",
        "if found is not None and PUSHED.items() <= found.metadata.items():",
        "if found is not None:",
        HISTORY + "test_an_untagged_manifest_tells_itself_that_it_was_pushed_here",
    ),
    Mutant(
        "promise-before-its-length",
        kinds.PROMISES,
        "I6",
        "a promise is worth the time from its last look",
        "storage/repository.py",
        "        if self._check_size(digest, size):\n            # The",
        "        if self._check_size(digest, size) and False:\n            # The",
        GONE + "test_i6_a_promise_begins_after_the_manifests_that_tell_the_length_were_read[own]",
    ),
]
