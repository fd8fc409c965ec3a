"""What decides at the edges of a collection: attachments, the clock, restores, explanations."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

RULES = "tests/jobs/test_retention_rules.py::"
CLOCK = "tests/jobs/test_clock_check.py::"
TRASH = "tests/jobs/test_gc_trash.py::"
LEFTOVERS = "tests/jobs/test_gc_leftovers.py::"
EXPLAIN = "tests/jobs/test_explain.py::"

MUTANTS = [
    Mutant(
        "cut-digest-is-not-here",
        kinds.RETENTION,
        "I5",
        "a tag may hold the beginning of the digest that it names",
        "jobs/attachments.py",
        "return any(digest.startswith(target) for digest in self._here.get(digest_key(target), ()))",
        "return target in self._here.get(digest_key(target), ())",
        RULES + "test_a_tag_may_name_its_target_by_the_beginning_of_a_longer_digest",
    ),
    Mutant(
        "what-is-here-is-no-target",
        kinds.RETENTION,
        "I5",
        "what names a manifest that is here is about that",
        "jobs/attachments.py",
        "not (self.is_here(named.digest) or _is_attachment(named, row)):",
        "not _is_attachment(named, row):",
        RULES + "test_a_tag_may_name_its_target_by_the_beginning_of_a_longer_digest",
    ),
    Mutant(
        "signed-layer-is-gone",
        kinds.RETENTION,
        "I5",
        "a layer of an image that stays is here",
        "jobs/attachments.py",
        "(*facts.blobs, *facts.children))",
        "facts.children)",
        RULES + "test_what_is_about_a_layer_stays_with_its_image",
    ),
    Mutant(
        "unread-subject-goes",
        kinds.RETENTION,
        "I5",
        "a subject is kept by its row, whatever is known of it",
        "jobs/attachments.py",
        "here = (self._marks.facts, self._marks.index)",
        "here = (self._marks.facts,)",
        RULES + "test_a_subject_stays_whose_row_is_all_that_is_known_of_it",
    ),
    Mutant(
        "subject-without-a-row-leads-nowhere",
        kinds.CHILDREN,
        "I5",
        "what a subject lists is kept, with a row of its own or without",
        "jobs/attachments.py",
        "here = (self._marks.facts, self._marks.index)",
        "here = (self._marks.index,)",
        RULES + "test_what_a_subject_without_a_row_lists_stays",
    ),
    Mutant(
        "patience-by-the-clock",
        kinds.RETENTION,
        "I6",
        "a day is one of the machine",
        "jobs/clock_check.py",
        "return self.up - other.up if self.boot and self.boot == other.boot else self.at - other.at",
        "return self.at - other.at",
        CLOCK + "test_that_it_has_only_gone_on_is_told_by_the_machine",
    ),
    Mutant(
        "no-boot-is-the-same-boot",
        kinds.RETENTION,
        "I11",
        "without a number of its start no machine is the same",
        "jobs/clock_check.py",
        (
            "        if self.boot and self.boot == last.boot:\n"
            "            ran"
        ),
        (
            "        if self.boot == last.boot:\n"
            "            ran"
        ),
        CLOCK + "test_without_a_number_of_its_start_no_machine_is_taken_for_the_same",
    ),
    Mutant(
        "behind-after-a-start",
        kinds.RETENTION,
        "I11",
        "a clock that is behind stops nothing",
        "jobs/clock_check.py",
        "        elif gone > LONGEST_PAUSE:",
        "        elif abs(gone) > LONGEST_PAUSE:",
        CLOCK + "test_a_clock_that_is_behind_after_a_start_stops_nothing",
    ),
    Mutant(
        "doubted-for-ever",
        kinds.RETENTION,
        "I11",
        "a clock that jumped again is doubted from then",
        "jobs/clock_check.py",
        "return doubted if doubted is not None and now.doubt(doubted) is None and now.at >= doubted.at else now",
        "return doubted if doubted is not None else now",
        CLOCK + "test_another_jump_a_day_later_is_doubted_by_itself",
    ),
    Mutant(
        "doubted-since-it-was-ahead",
        kinds.RETENTION,
        "I6",
        "a clock that was put back halfway is doubted from then",
        "jobs/clock_check.py",
        "and now.doubt(doubted) is None and now.at >= doubted.at else now",
        "and now.doubt(doubted) is None else now",
        CLOCK + "test_a_clock_that_was_put_back_halfway_begins_anew",
    ),
    Mutant(
        "believed-after-any-day",
        kinds.RETENTION,
        "I6",
        "only a clock that has gone on is believed after a day",
        "jobs/clock_check.py",
        "(doubted is not None and now.doubt(doubted) is None and now.since",
        "(doubted is not None and now.since",
        CLOCK + "test_another_jump_a_day_later_is_doubted_by_itself",
    ),
    Mutant(
        "server-notes-any-clock",
        kinds.RETENTION,
        "I6",
        "a server notes no clock that is doubtful",
        "jobs/clock_check.py",
        (
            " and now.doubt(last) is None:\n"
            "        _write(root, now, None)"
        ),
        (
            ":\n"
            "        _write(root, now, None)"
        ),
        CLOCK + "test_a_server_notes_no_clock_that_is_doubtful",
    ),
    Mutant(
        "server-notes-once",
        kinds.RETENTION,
        "I6",
        "a server notes the clock after each start of the machine",
        "jobs/clock_check.py",
        "(last is None or last.boot != now.boot)",
        "last is None",
        CLOCK + "test_a_server_notes_after_each_start_of_the_machine",
    ),
    Mutant(
        "server-notes-always",
        kinds.RETENTION,
        "I6",
        "and once, so that small jumps add up",
        "jobs/clock_check.py",
        "(last is None or last.boot != now.boot)",
        "True",
        CLOCK + "test_and_once_so_that_two_small_jumps_are_a_large_one",
    ),
    Mutant(
        "server-notes-where-nothing-is",
        kinds.ANSWERS,
        "I4",
        "nothing is noted where the root is away",
        "jobs/clock_check.py",
        (
            "    if root.state() is not None:\n"
            "        return\n"
        ),
        "",
        CLOCK + "test_a_server_notes_nothing_where_its_root_is_away",
    ),
    Mutant(
        "file-system-behind-only",
        kinds.RETENTION,
        "I6",
        "a file system that is ahead is doubted too",
        "jobs/clock_check.py",
        "if other is not None and not root.is_bucket and abs(other - now.at) > JUMP:",
        "if other is not None and not root.is_bucket and now.at - other > JUMP:",
        CLOCK + "test_a_file_system_that_is_ahead_is_doubted_too",
    ),
    Mutant(
        "full-disk-is-no-doubt",
        kinds.RETENTION,
        "I6",
        "a clock is doubted on a full disk, too",
        "jobs/clock_check.py",
        (
            "    with suppress(StorageError):\n"
            "        root.upkeep.write(keys.CLOCK"
        ),
        (
            "    if True:\n"
            "        root.upkeep.write(keys.CLOCK"
        ),
        CLOCK + "test_a_full_disk_makes_no_clock_right",
    ),
    Mutant(
        "rehearsal-makes-a-file",
        kinds.ANSWERS,
        "I15",
        "a rehearsal makes no file",
        "jobs/clock_check.py",
        (
            "    if not rehearsed:\n"
            "        with suppress(StorageError):\n"
            "            return root"
        ),
        (
            "    if True:\n"
            "        with suppress(StorageError):\n"
            "            return root"
        ),
        CLOCK + "test_a_rehearsal_makes_no_file_to_see_the_clock_of_the_file_system",
    ),
    Mutant(
        "restore-by-a-part-of-a-name",
        kinds.RESTORES,
        "I7",
        "a run has its whole name",
        "jobs/restore.py",
        "(digest is None and folder.run != what)",
        "(digest is None and not folder.run.startswith(what))",
        TRASH + "test_a_run_has_its_whole_name",
    ),
    Mutant(
        "restore-what-lies-beside",
        kinds.RESTORES,
        "I7",
        "nothing comes back but what was named",
        "jobs/restore.py",
        "        if digest is None or candidate == digest:",
        "        if True:",
        TRASH + "test_of_what_lies_beside_it_nothing_comes_back",
    ),
    Mutant(
        "restore-leaves-not-required",
        kinds.RESTORES,
        "I5",
        "what an index lists beside manifests is required, too",
        "jobs/restore.py",
        (
            "        for leaf in graph.leaves:\n"
            "            tx.require(parse_digest(leaf))\n"
        ),
        "",
        TRASH + "test_what_an_index_lists_beside_manifests_comes_back_with_it",
    ),
    Mutant(
        "restore-of-damage-fails",
        kinds.RESTORES,
        "I15",
        "what is damaged comes back for a look",
        "jobs/restore.py",
        (
            "    except (NotFound, Damaged):\n"
            "        return None"
        ),
        (
            "    except NotFound:\n"
            "        return None"
        ),
        TRASH + "test_what_is_damaged_comes_back_as_a_blob",
    ),
    Mutant(
        "list-of-all-trash",
        kinds.ANSWERS,
        "I15",
        "a list of the trash is about what was named",
        "jobs/restore.py",
        "_lying_only_there(root, folder) if run.covers(folder.name) else []",
        "_lying_only_there(root, folder)",
        TRASH + "test_a_list_of_the_trash_is_about_what_was_named",
    ),
    Mutant(
        "zot-directory-stops-gc",
        kinds.UNKNOWN,
        "I9",
        "a directory that is not empty stays and stops nothing",
        "jobs/leftovers.py",
        (
            "    with suppress(NotEmpty, NotFound):\n"
            "        root.driver.rmdir(directory)"
        ),
        (
            "    with suppress(NotFound):\n"
            "        root.driver.rmdir(directory)"
        ),
        LEFTOVERS + "test_a_directory_among_them_is_nobodys_and_stays_with_them",
    ),
    Mutant(
        "explain-by-its-own-row",
        kinds.ANSWERS,
        "I15",
        "what is kept by a row that goes is told to go",
        "jobs/explain.py",
        "if d.digest in {digest, *_digests(chain)}]",
        "if d.digest == digest]",
        EXPLAIN + "test_what_is_kept_by_a_row_that_goes_is_told_so",
    ),
    Mutant(
        "explain-by-tags-only",
        kinds.ANSWERS,
        "I15",
        "a chain may begin at a row without a tag",
        "jobs/explain.py",
        (
            "    above = _above(tagged, digest, marks)\n"
            "    if digest not in above:"
        ),
        (
            "    above = _above(tagged, digest, marks)\n"
            "    if False:"
        ),
        EXPLAIN + "test_what_is_kept_by_a_row_that_goes_is_told_so",
    ),
    Mutant(
        "explain-without-the-delay",
        kinds.ANSWERS,
        "I15",
        "the delay is counted",
        "jobs/explain.py",
        "        at = written + options.delay\n",
        "        at = written\n",
        EXPLAIN + "test_what_nothing_reaches_goes_after_the_delay_and_then_lies_in_the_trash",
    ),
    Mutant(
        "explain-without-the-trash",
        kinds.ANSWERS,
        "I15",
        "and the time in the trash",
        "jobs/explain.py",
        "max(at, now) + options.kept)",
        "max(at, now) + options.delay)",
        EXPLAIN + "test_what_nothing_reaches_goes_after_the_delay_and_then_lies_in_the_trash",
    ),
    Mutant(
        "explain-without-uploads",
        kinds.ANSWERS,
        "I15",
        "an upload that spares something is told of",
        "jobs/explain.py",
        "        if written >= began:",
        "        if written < began:",
        EXPLAIN + "test_an_upload_that_began_before_it_keeps_it",
    ),
    Mutant(
        "explain-by-other-folders",
        kinds.ANSWERS,
        "I15",
        "each folder of the trash is told once",
        "jobs/explain.py",
        "if folder.name == name and root.local",
        "if root.local",
        EXPLAIN + "test_in_the_trash_it_is_told_for_the_repository_in_which_it_lay",
    ),
]
