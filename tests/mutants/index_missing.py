"""A layout with content and no index.json, and the swap that an NFS client has cut in two."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

TESTS = "tests/storage/test_storage_index_missing.py::"
BUCKET = "tests/storage/test_bucket_index_missing.py::"
INDEX = "storage/local/index_file.py"
OBJECTS = "storage/bucket/index.py"


def _missing(name: str, guards: str, safeguard: str, file: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(f"missing-index-{name}", kinds.FOREIGN, guards, safeguard, file, old, new, TESTS + test)


def _in_bucket(name: str, guards: str, safeguard: str, file: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(f"missing-index-in-bucket-{name}", kinds.FOREIGN, guards, safeguard, file, old, new, BUCKET + test)


MUTANTS = [
    Mutant(
        "swap-finished-through-a-link",
        kinds.FOREIGN,
        "I9",
        "a swap is finished in no repository that is not ours to write",
        "storage/local/protocol.py",
        "        if self.indexes.is_missing(name) and self.owns(name):",
        "        if self.indexes.is_missing(name):",
        "tests/storage/test_storage_index_missing.py::test_i9_nobody_finishes_it_through_a_link",
    ),
    _missing(
        "read-as-absent",
        "I4",
        "a layout that has lost its index.json is no absent repository",
        INDEX,
        "        return self._read_missing(name)\n",
        "        raise NotFound(name)\n",
        "test_i9_a_layout_that_has_lost_it_takes_no_push_and_no_read",
    ),
    _missing(
        "begun-anew",
        "I4",
        "a commit changes nothing where tags were lost",
        INDEX,
        "        raise missing\n\n    def _is_changed_since",
        "        return False\n\n    def _is_changed_since",
        "test_i4_a_commit_that_began_before_does_not_begin_an_empty_one",
    ),
    _missing(
        "made-anew",
        "I4",
        "no empty index.json is made beside content",
        INDEX,
        "        raise missing  # an empty one would lose its tags, and then its content\n",
        "        pass\n",
        "test_i4_a_commit_that_began_before_does_not_begin_an_empty_one",
    ),
    _missing(
        "not-begun",
        "I1",
        "what another program has begun takes a push",
        "storage/root.py",
        "                self.protocol.make_whole(name)\n",
        "                pass\n",
        "test_i3_an_empty_layout_without_one_takes_a_push",
    ),
    _missing(
        "told-as-404",
        "I4",
        "nobody is told that a repository is not there whose tags are not known",
        "storage/store.py",
        "                failure = error  # its tags are not known, so nobody may be told that there are none\n",
        "                continue\n",
        "test_i9_a_layout_that_has_lost_it_takes_no_push_and_no_read",
    ),
    _missing(
        "swap-discarded",
        "I4",
        "after an error, the swap is kept if it is all that is left",
        INDEX,
        "if _finishes_swaps(self._context) and self._context.stat(keys.index(keys.parent(temp))) is None:",
        "if False:",
        "test_i4_gc_finishes_it_before_it_collects[error1]",
    ),
    _missing(
        "swap-swept",
        "I4",
        "gc does not sweep what is left of an index.json",
        "jobs/local/gc.py",
        "if local.context.stat(keys.index(name)) is not None and not ",
        "if not ",
        "test_i4_gc_keeps_what_is_left_of_an_index_that_went_while_it_ran",
    ),
    _missing(
        "swap-left-to-readers",
        "I4",
        "gc finishes a swap that was cut short before it looks",
        "storage/local/protocol.py",
        "        self._finish_swap(name)\n        try:\n            unmerged",
        "        try:\n            unmerged",
        "test_i4_gc_finishes_it_before_it_collects[error0]",
    ),
    _missing(
        "half-a-swap-taken",
        "I3",
        "half a file does not become the index.json",
        INDEX,
        "                continue  # its writer died before it was whole, so it took no name away\n",
        "                pass\n",
        "test_i4_half_a_swap_is_not_taken",
    ),
    _missing(
        "old-swap-taken",
        "I4",
        "a swap from before a later commit does not come back",
        INDEX,
        "            if self._is_changed_since(name, _written_ns(swap, info)):\n",
        "            if False:\n",
        "test_i4_a_swap_from_before_a_later_push_is_not_taken",
    ),
    _missing(
        "swap-taken-for-one-of-its-stamp",
        "I4",
        "where stamps are dated back, the change time tells when a swap was written",
        INDEX,
        "    return info.ctime_ns if has_coarse_times(info) else swap.ours\n",
        "    return swap.ours\n",
        "test_i4_it_is_finished_whatever_time_stamps_the_server_keeps[1000000000]",
    ),
    _missing(
        "stamp-that-is-not-kept",
        "I4",
        "the stamp by which a swap is known is one that the file system keeps",
        INDEX,
        "        return now // FINE_NS * FINE_NS\n",
        "        return now\n",
        "test_i4_it_is_finished_whatever_time_stamps_the_server_keeps[100]",
    ),
    _missing(
        "swap-over-a-file",
        "I4",
        "what another program has made meanwhile is not replaced",
        INDEX,
        "            if not place(context.driver, swap.key(name), keys.index(name)):\n                return True\n",
        "            context.driver.rename(swap.key(name), keys.index(name))\n",
        "test_i4_a_file_that_another_program_makes_meanwhile_stays",
    ),
    _in_bucket(
        "read-as-absent",
        "I9",
        "a repository that has lost its index.json is no absent one",
        OBJECTS,
        "            if self._is_lost(name):\n                raise index_missing(name) from None\n            raise\n",
        "            raise\n",
        "test_i9_it_takes_no_push_and_no_read[own-another]",
    ),
    _in_bucket(
        "begun-anew",
        "I4",
        "no empty index.json is put beside content",
        OBJECTS,
        "        except (Changed, OutcomeUnknown):\n            self._refuse_lost(name)\n",
        "        except (Changed, OutcomeUnknown):\n            pass\n",
        "test_i9_it_takes_no_push_and_no_read[own-another]",
    ),
    _in_bucket(
        "changed-as-empty",
        "I4",
        "a commit changes and notes nothing where tags were lost",
        OBJECTS,
        "            if before is None:\n                self._refuse_lost(name)\n",
        "",
        "test_i4_a_commit_begins_nothing",
    ),
    _in_bucket(
        "taken-too-soon",
        "I4",
        "what another server makes meanwhile is not missing",
        OBJECTS,
        "        return self._context.head(keys.index(name)) is None  # once more",
        "        return True  # once more",
        "test_one_that_is_made_meanwhile_is_not_missing[own]",
    ),
    _in_bucket(
        "content-first",
        "I1",
        "a manifest that needs no blob comes after index.json",
        "storage/bucket/protocol.py",
        "            self.indexes.ensure(name)  # what is needed",
        "            pass  # what is needed",
        "test_a_push_that_dies_leaves_nothing_that_looks_like_that[what references nothing]",
    ),
    _in_bucket(
        "imported-first",
        "I1",
        "an import puts content after index.json",
        "storage/bucket/maintenance.py",
        "        self._protocol.indexes.ensure(name)\n",
        "",
        "test_an_import_that_dies_leaves_nothing_that_looks_like_that",
    ),
    _in_bucket(
        "history-swept",
        "I4",
        "the history of a repository that lost its index.json stays",
        "jobs/bucket/gc.py",
        "if context.head(keys.index(name)) is None and next(context.own_blobs(name), None) is None:",
        "if context.head(keys.index(name)) is None:",
        "test_i4_gc_collects_nothing_of_it_and_keeps_its_history[own]",
    ),
    _missing(
        "gone-for-a-moment",
        "I4",
        "what came back a moment later is not changed as if it were empty",
        INDEX,
        "            return True  # it came between",
        "            return False  # it came between",
        "test_i4_one_that_came_back_meanwhile_is_no_empty_one",
    ),
    Mutant(
        "missing-index-hides-the-others",
        kinds.ANSWERS,
        "I14",
        "a repository that can't be read costs no other its line on the page",
        "web/repositories.py",
        "    except LayoutInvalid:  # of a bucket",
        "    except ZeroDivisionError:  # of a bucket",
        "tests/web/test_views.py::test_a_repository_whose_index_is_missing_or_damaged_costs_no_other_its_line",
    ),
]
