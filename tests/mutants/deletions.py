"""Deletions by clients, and what a tool writes into an index.json that has lost its name."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

DELETING = "tests/storage/test_storage_deleting.py::"

MUTANTS = [
    Mutant(
        "deletion-by-a-remembered-absence",
        kinds.CHILDREN,
        "I5",
        "before a deletion, a subject that was not there is looked for again",
        "storage/repository.py",
        "self._delete_bytes(digest, ManifestGraph.users, again=True)",
        "self._delete_bytes(digest, ManifestGraph.users, again=False)",
        "tests/conformance/test_repositories.py::TestMemory::"
        "test_i5_what_a_subject_needs_that_came_as_a_blob_is_not_deleted",
    ),
    Mutant(
        "delete-asks-before-the-lock",
        kinds.EARLY,
        "I5",
        "what is asked before a deletion is asked under the lock",
        "storage/local/protocol.py",
        (
            "        with self.context.locks.hold(name) as held:\n"
            "            self._require_name(name, digest)\n"
            "            check(LocalTransaction(self, held), self.indexes.read(name).index)"
        ),
        (
            "        index = self.indexes.read(name).index\n"
            "        with self.context.locks.hold(name) as held:\n"
            "            self._require_name(name, digest)\n"
            "            check(LocalTransaction(self, held), index)"
        ),
        DELETING + "test_i5_what_a_push_has_referenced_meanwhile_is_not_deleted",
    ),
    Mutant(
        "delete-misses-the-trashed",
        kinds.RESTORES,
        "I7",
        "what was trashed can be deleted for good",
        "storage/local/protocol.py",
        ("            if not self.trash.restore(name, digest, fresh=True):\n                raise\n\n    def close"),
        ("            raise\n\n    def close"),
        DELETING + "test_i7_what_was_trashed_is_deleted_for_good",
    ),
    Mutant(
        "delete-unflushed",
        kinds.FLUSHES,
        "I7",
        "with commit, a deletion is on the device when it is told",
        "storage/local/protocol.py",
        (
            "        self.context.durable.flush_new_names(keys.blobs_of(name, digest.algorithm))\n\n    def _require_name"
        ),
        ("\n    def _require_name"),
        DELETING + "test_with_commit_it_is_gone_from_the_device_when_it_is_told",
    ),
    Mutant(
        "delete-of-a-row",
        kinds.CHILDREN,
        "I5",
        "a manifest with a row is in use",
        "storage/repository.py",
        "if digest in index or users:",
        "if users:",
        DELETING + "test_i5_a_manifest_with_a_row_is_no_blob_to_be_deleted",
    ),
    Mutant(
        "late-writes-until-later",
        kinds.FOREIGN,
        "I4",
        "a commit takes in what a tool wrote into the old index",
        "storage/local/protocol.py",
        ("        self.merge_late_writes(name)\n        return outcomes"),
        "        return outcomes",
        DELETING + "test_i4_what_a_tool_wrote_into_the_old_index_is_taken_in[push]",
    ),
    Mutant(
        "late-writes-of-the-last-commit",
        kinds.FOREIGN,
        "I4",
        "so does the end of the process",
        "storage/local/protocol.py",
        ("        self.merge_late_writes()\n        self.indexes.close()"),
        "        self.indexes.close()",
        DELETING + "test_i4_what_a_tool_wrote_into_the_old_index_is_taken_in[close]",
    ),
    Mutant(
        "tags-told-after-the-bytes",
        kinds.ANSWERS,
        "I15",
        "the tags that a deletion took are told whatever happens to the bytes",
        "storage/repository.py",
        '        if gone is not None:\n            gone(went)\n        if ":" in reference:\n            # Its bytes go too, so that what a referrer still calls its subject is not kept alive by that.\n            with suppress(BlobUnknown, Referenced):\n                # Many are deleted one after the other, where a look at each subject that is missing may be a request.\n                self._delete_bytes(parse_digest(reference), ManifestGraph.parents, again=not self.root.by_requests)\n',
        '        if ":" in reference:\n            # Its bytes go too, so that what a referrer still calls its subject is not kept alive by that.\n            with suppress(BlobUnknown, Referenced):\n                # Many are deleted one after the other, where a look at each subject that is missing may be a request.\n                self._delete_bytes(parse_digest(reference), ManifestGraph.parents, again=not self.root.by_requests)\n        if gone is not None:\n            gone(went)\n',
        DELETING + "test_the_tags_that_went_are_told_whatever_happens_to_the_bytes[IoFailed]",
    ),
    Mutant(
        "bytes-that-stay-untold",
        kinds.ANSWERS,
        "I15",
        "a client hears that the bytes of its manifest could not be deleted",
        "storage/repository.py",
        "with suppress(BlobUnknown, Referenced):",
        "with suppress(BlobUnknown, Referenced, Unavailable):",
        DELETING + "test_the_tags_that_went_are_told_whatever_happens_to_the_bytes[Unavailable]",
    ),
    Mutant(
        "deletion-refused-for-its-bytes",
        kinds.ANSWERS,
        "I5",
        "a manifest is deleted though its bytes stay",
        "storage/repository.py",
        "with suppress(BlobUnknown, Referenced):",
        "with suppress(BlobUnknown):",
        DELETING + "test_a_manifest_is_deleted_whatever_becomes_of_its_bytes[True-damaged]",
    ),
    Mutant(
        "deletion-of-what-has-no-bytes",
        kinds.ANSWERS,
        "I5",
        "a manifest is deleted though its bytes are gone already",
        "storage/repository.py",
        "with suppress(BlobUnknown, Referenced):",
        "with suppress(Referenced):",
        DELETING + "test_a_manifest_is_deleted_whatever_becomes_of_its_bytes[False-whole]",
    ),
    Mutant(
        "child-of-a-subject-deleted",
        kinds.CHILDREN,
        "I5",
        "the bytes of a manifest stay while a subject lists it that came as a blob",
        "storage/repository.py",
        "again=not self.root.by_requests)",
        "again=False)",
        DELETING + "test_i5_the_bytes_of_a_child_stay_for_an_index_that_came_as_a_subject",
    ),
    Mutant(
        "tags-of-an-earlier-try",
        kinds.RETENTION,
        "I4",
        "what a deletion tells are the tags of the index.json that it replaced",
        "storage/repository.py",
        "            went.clear()\n",
        "",
        DELETING + "test_the_tags_that_went_are_those_of_the_last_try",
    ),
]
