"""The list of a bucket's repositories, and what comes before its first write: one edit at a time."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

NAMES = "tests/storage/test_bucket_names.py::"
FIRST = "tests/storage/test_bucket_first_write.py::"

MUTANTS = [
    Mutant(
        "list-of-pushes-believed",
        kinds.BELIEVED,
        "I9",
        "a list that nobody has made is no list of what is there",
        "storage/bucket/catalog.py",
        "        if self._is_made():\n            names",
        "        if True:\n            names",
        NAMES + "test_names_of_pushes_only_are_no_list",
    ),
    Mutant(
        "list-walked-each-time",
        kinds.FLUSHES,
        "I9",
        "that the list is made is written down",
        "storage/bucket/catalog.py",
        ('                self._context.objects.put(keys.NAMES_MADE, b"")\n                self._made = True'),
        "                pass",
        NAMES + "test_it_is_made_by_a_walk_and_read_from_then_on",
    ),
    Mutant(
        "half-a-list-made",
        kinds.FLUSHES,
        "I9",
        "that the list is made is written when all names are",
        "storage/bucket/catalog.py",
        (
            "                self._context.each(\n"
            '                    [partial(self._context.objects.put, keys.listed_name(name), b"") for name in lacking]\n'
            "                )\n"
            '                self._context.objects.put(keys.NAMES_MADE, b"")\n'
        ),
        (
            '                self._context.objects.put(keys.NAMES_MADE, b"")\n'
            "                self._context.each(\n"
            '                    [partial(self._context.objects.put, keys.listed_name(name), b"") for name in lacking]\n'
            "                )\n"
        ),
        NAMES + "test_a_list_that_was_half_made_is_made_again",
    ),
    Mutant(
        "list-never-completed",
        kinds.APPEARED,
        "I9",
        "a job adds to the list what came by other ways",
        "storage/bucket/catalog.py",
        "lacking = [name for name in found if name not in listed]",
        "lacking = []",
        NAMES + "test_a_job_adds_what_came_by_other_ways",
    ),
    Mutant(
        "page-begins-with-the-last",
        kinds.ANSWERS,
        "I9",
        "a page goes on behind the last name",
        "storage/bucket/catalog.py",
        "self._context.objects.list(keys.below(keys.NAMES), after=after)",
        "self._context.objects.list(keys.below(keys.NAMES))",
        NAMES + "test_a_page_goes_on_behind_the_last_one",
    ),
    Mutant(
        "reader-writes-a-list",
        kinds.CLAIMS,
        "I13",
        "who only reads writes no list",
        "storage/bucket/catalog.py",
        "if self._context.writes() and not self._context.read_only and (lacking",
        "if self._context.writes() and (lacking",
        NAMES + "test_a_process_that_only_reads_writes_no_list",
    ),
    Mutant(
        "store-below-taken-in",
        kinds.FOREIGN,
        "I9",
        "a store below this one is left out",
        "storage/bucket/catalog.py",
        "if directory and is_folder and name == keys.HIDDEN:",
        "if False:",
        NAMES + "test_a_store_below_is_left_out_and_told_once",
    ),
    Mutant(
        "names-by-bytes",
        kinds.ANSWERS,
        "I9",
        "names are in the order of their components",
        "storage/bucket/catalog.py",
        'return sorted(names, key=lambda name: name.split("/"))',
        "return sorted(names)",
        NAMES + "test_it_is_made_by_a_walk_and_read_from_then_on",
    ),
    Mutant(
        "written-where-it-is-only-read",
        kinds.CLAIMS,
        "I13",
        "nothing is written where it is only read",
        "storage/bucket/objects/wrappers.py",
        "self._write(partial(self.inner.execute, presigned))",
        "self._read(partial(self.inner.execute, presigned))",
        FIRST + "test_nothing_is_written_where_it_is_only_read[execute]",
    ),
    Mutant(
        "put-before-what-comes-first",
        kinds.EARLY,
        "I4",
        "each write waits for what comes first",
        "storage/bucket/objects/wrappers.py",
        "        self.ready()\n        return call()",
        "        return call()",
        FIRST + "test_each_write_waits_for_what_comes_first[put]",
    ),
    Mutant(
        "copy-before-what-comes-first",
        kinds.EARLY,
        "I4",
        "a copy waits for what comes first, too",
        "storage/bucket/objects/wrappers.py",
        "self._write(partial(self.inner.copy, source, target))",
        "self._read(partial(self.inner.copy, source, target))",
        FIRST + "test_each_write_waits_for_what_comes_first[copy]",
    ),
    Mutant(
        "parts-before-what-comes-first",
        kinds.EARLY,
        "I4",
        "parts wait for what comes first, too",
        "storage/bucket/objects/wrappers.py",
        "self._write(partial(self.inner.start_parts, key))",
        "self._read(partial(self.inner.start_parts, key))",
        FIRST + "test_each_write_waits_for_what_comes_first[start_parts]",
    ),
    Mutant(
        "delete-before-what-comes-first",
        kinds.EARLY,
        "I4",
        "a delete waits for what comes first, too",
        "storage/bucket/objects/wrappers.py",
        "self._write(partial(self.inner.delete, key))",
        "self._read(partial(self.inner.delete, key))",
        FIRST + "test_each_write_waits_for_what_comes_first[delete]",
    ),
    Mutant(
        "unfit-server-used",
        kinds.FAULTS,
        "I4",
        "a server that was found unfit is not used",
        "storage/bucket/objects/wrappers.py",
        "                self._unfit = error\n                raise\n",
        "                self._unfit = error\n                self.crossed = True\n                raise\n",
        FIRST + "test_an_unfit_server_stays_unfit_and_one_that_is_away_is_asked_again[error0]",
    ),
    Mutant(
        "server-that-was-away-unfit",
        kinds.FAULTS,
        "I4",
        "a server that was away is asked again",
        "storage/bucket/objects/wrappers.py",
        "            except StorageError:\n                raise\n",
        "",
        FIRST + "test_an_unfit_server_stays_unfit_and_one_that_is_away_is_asked_again[error1]",
    ),
    Mutant(
        "reader-takes-a-lease-away",
        kinds.LOCKS,
        "I4",
        "only who has written leaves",
        "storage/bucket/objects/wrappers.py",
        "        if self.crossed:\n            self._leave()",
        "        self._leave()",
        FIRST + "test_only_who_has_written_leaves[False]",
    ),
]
