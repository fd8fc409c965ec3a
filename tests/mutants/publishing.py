"""What gets a name is on the device first; what is known of a repository is what its bytes say now."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

GRAPH = "tests/storage/test_storage_graph_steps.py::"
PUBLISHING = "tests/storage/test_storage_publishing.py::"

MUTANTS = [
    Mutant(
        "manifest-published-unflushed",
        kinds.FLUSHES,
        "I3",
        "a manifest that lay there is flushed before a row leads to it",
        "storage/local/blobs.py",
        "flush = manifest or held is not None or self._context.commit",
        "flush = held is not None or self._context.commit",
        PUBLISHING + "test_i3_what_an_index_is_about_to_lead_to_is_flushed[a manifest-True]",
    ),
    Mutant(
        "published-under-the-lock-unflushed",
        kinds.FLUSHES,
        "I3",
        "what is published under the lock is flushed",
        "storage/local/blobs.py",
        "flush = manifest or held is not None or self._context.commit",
        "flush = manifest or self._context.commit",
        PUBLISHING + "test_i3_what_an_index_is_about_to_lead_to_is_flushed[under the lock-True]",
    ),
    Mutant(
        "committed-blob-unflushed",
        kinds.FLUSHES,
        "I4",
        "with commit, a blob that lay there is flushed",
        "storage/local/blobs.py",
        "flush = manifest or held is not None or self._context.commit",
        "flush = manifest or held is not None",
        PUBLISHING + "test_i3_what_an_index_is_about_to_lead_to_is_flushed[with commit-True]",
    ),
    Mutant(
        "blob-kept-unflushed",
        kinds.FLUSHES,
        "I4",
        "what keeps its name is flushed",
        "storage/local/blobs.py",
        ("                if flush:\n                    self._context.durable.flush(blob)\n            except"),
        ("                flush and None\n            except"),
        PUBLISHING + "test_i3_what_an_index_is_about_to_lead_to_is_flushed[with commit-True]",
    ),
    Mutant(
        "healed-by-unflushed-bytes",
        kinds.FLUSHES,
        "I4",
        "what takes the place of a file is on the device",
        "storage/local/blobs.py",
        (
            "        self._context.durable.replace(self._context.durable.flush(staged), blob)\n"
            "        return True\n"
            "\n"
            "    def mount"
        ),
        ("        self._context.driver.rename(staged, blob)\n        return True\n\n    def mount"),
        PUBLISHING + "test_i4_what_takes_the_place_of_a_file_is_flushed_before[damaged]",
    ),
    Mutant(
        "renamed-without-links-unflushed",
        kinds.FLUSHES,
        "I4",
        "what is renamed into its place is on the device",
        "storage/local/blobs.py",
        (
            "                self._context.durable.replace(self._context.durable.flush(staged), blob)\n"
            "                return True\n"
            "            self._pool"
        ),
        (
            "                self._context.driver.rename(staged, blob)\n"
            "                return True\n"
            "            self._pool"
        ),
        PUBLISHING + "test_i4_what_takes_the_place_of_a_file_is_flushed_before[no links]",
    ),
    Mutant(
        "marked-and-kept",
        kinds.BELIEVED,
        "I6",
        "a push makes readable what is marked",
        "storage/local/blobs.py",
        "good = not self._damaged.has(digest, held.info) and self._context.same_bytes(reader, staged)",
        "good = self._context.same_bytes(reader, staged)",
        PUBLISHING + "test_i6_a_push_of_what_is_marked_makes_it_readable_though_its_bytes_are_right",
    ),
    Mutant(
        "manifest-staged-unflushed",
        kinds.FLUSHES,
        "I3",
        "a manifest is flushed before it is seen",
        "storage/local/protocol.py",
        ("                if not self.context.durable.postponed:\n                    writer.sync()\n"),
        "",
        GRAPH + "test_i3_a_manifest_is_flushed_before_it_is_seen_with_commit_and_without",
    ),
    Mutant(
        "published-and-gone",
        kinds.SECOND_LOOK,
        "I5",
        "a manifest that was published is looked for again",
        "storage/local/protocol.py",
        "            self.require(digest)  # renamed",
        "            pass  # renamed",
        GRAPH + "test_i5_a_manifest_that_was_published_and_is_gone_is_not_there",
    ),
    Mutant(
        "length-by-hearsay",
        kinds.CLAIMS,
        "I2",
        "what was hashed here counts before what manifests say",
        "storage/graph.py",
        "            return size == true\n",
        "            pass\n",
        GRAPH + "test_i2_a_length_is_known_by_hashing_then_by_the_manifests",
    ),
    Mutant(
        "length-of-any-manifest",
        kinds.CLAIMS,
        "I2",
        "a length is one that a manifest says",
        "storage/graph.py",
        "            if said == size:\n                if len(self._said)",
        "            if said >= 0:\n                if len(self._said)",
        GRAPH + "test_i2_a_length_is_known_by_hashing_then_by_the_manifests",
    ),
    Mutant(
        "healed-and-not-looked-at",
        kinds.SECOND_LOOK,
        "I5",
        "what is healed is read again though no index has changed",
        "storage/graph.py",
        "seen[1] == index.edits and not self._healed()",
        "seen[1] == index.edits",
        GRAPH + "test_i5_what_is_healed_is_read_again_though_no_index_has_changed",
    ),
    Mutant(
        "unreadable-for-good",
        kinds.FAULTS,
        "I5",
        "what could not be read for a moment is read again",
        "storage/graph.py",
        "        self._seen = None if self._unreadable() else (index, index.edits)",
        "        self._seen = (index, index.edits)",
        GRAPH + "test_i5_what_can_not_be_read_for_a_moment_is_read_again",
    ),
    Mutant(
        "needed-for-ever",
        kinds.CHILDREN,
        "I5",
        "what lost its row is needed no more",
        "storage/graph.py",
        "        if any(digest not in now for digest in",
        "        if any(digest not in self._rows for digest in",
        GRAPH + "test_what_lost_its_row_is_needed_no_more",
    ),
    Mutant(
        "deleted-beside-the-unreadable",
        kinds.FAULTS,
        "I5",
        "nothing is deleted beside a manifest that can't be read",
        "storage/graph.py",
        ("            if fault.digest != but:\n                reason"),
        ("            if but and fault.digest != but:\n                reason"),
        GRAPH + "test_i5_nothing_is_deleted_beside_a_manifest_that_can_not_be_read",
    ),
    Mutant(
        "deleted-beside-the-damaged",
        kinds.FAULTS,
        "I5",
        "nothing is deleted beside a manifest that is gone",
        "storage/graph.py",
        "        if damaged and faults:",
        "        if False:",
        GRAPH + "test_i5_nothing_is_deleted_beside_a_manifest_that_can_not_be_read",
    ),
    Mutant(
        "the-damaged-can-not-go",
        kinds.ANSWERS,
        "I5",
        "what is damaged itself can be deleted",
        "storage/graph.py",
        "faults = [fault for fault in self._graph.faults.values() if fault.digest != but]",
        "faults = list(self._graph.faults.values())",
        GRAPH + "test_i5_nothing_is_deleted_beside_a_manifest_that_can_not_be_read",
    ),
]
