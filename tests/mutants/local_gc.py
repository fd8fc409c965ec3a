"""The collector of a directory: what it plans, trashes and purges."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "trash-by-first-marks",
        kinds.SECOND_LOOK,
        "I5",
        "the repository is marked again under the lock",
        "jobs/local/gc.py",
        ("                marks = self._marker.now()\n            except NotFound:\n                return  # removed"),
        (
            "                marks = self._marker._marks or self._marker.now()\n"
            "            except NotFound:\n"
            "                return  # removed"
        ),
        "tests/jobs/test_gc_rechecks.py::test_what_a_push_has_referenced_since_the_plan_is_not_trashed",
    ),
    Mutant(
        "trash-whole-batch",
        kinds.SECOND_LOOK,
        "I5",
        "what is reachable by now leaves the batch",
        "jobs/local/gc.py",
        "left = [digest for digest in batch if digest not in marks.reachable]",
        "left = list(batch)",
        "tests/jobs/test_gc_rechecks.py::test_what_a_push_has_referenced_since_the_plan_is_not_trashed",
    ),
    Mutant(
        "purge-needed-once",
        kinds.SECOND_LOOK,
        "I5",
        "what a purge takes is looked up for each batch",
        "jobs/local/gc.py",
        (
            "    for batch in batches(listed, TRASH_BATCH_BLOBS):\n"
            "        sizes = {digest: listed[digest] for digest in batch}\n"
            "        run.check()\n"
            "        with local.context.locks.hold(folder.name) as held:\n"
            "            needed = _needed(marker)\n"
        ),
        (
            "    needed = _needed(marker)\n"
            "    for batch in batches(listed, TRASH_BATCH_BLOBS):\n"
            "        sizes = {digest: listed[digest] for digest in batch}\n"
            "        run.check()\n"
            "        with local.context.locks.hold(folder.name) as held:\n"
        ),
        "tests/jobs/test_gc_rechecks.py::test_it_is_looked_up_for_each_batch_of_a_purge",
    ),
    Mutant(
        "drop-what-was-planned",
        kinds.EARLY,
        "I4",
        "rows are judged again on the index.json that is replaced",
        "jobs/gc.py",
        "return _closed(marks, [drop for drop in again if (drop.digest, drop.tag) in wanted])",
        "return drops",
        "tests/jobs/test_gc_rechecks.py::test_a_row_that_got_a_tag_since_the_plan_is_not_dropped",
    ),
    Mutant(
        "empty-without-lock",
        kinds.EARLY,
        "I4",
        "an empty repository is removed under its lock",
        "jobs/local/gc.py",
        (
            "    with context.locks.hold(name) as held, suppress(NotEmpty, NotFound):\n"
            "        if len(root.protocol.indexes.read(held.name).index)"
        ),
        ("    with suppress(NotEmpty, NotFound):\n        if len(root.protocol.indexes.read(name).index)"),
        "tests/jobs/test_gc_rechecks.py::test_a_repository_is_removed_under_its_lock_and_only_without_rows",
    ),
    Mutant(
        "trash-despite-faults",
        kinds.APPEARED,
        "I5",
        "a fault that is seen under the lock stops the batch",
        "jobs/local/gc.py",
        ("            if marks.faults:\n                return\n            left"),
        "            left",
        "tests/jobs/test_gc_rechecks.py::test_i5_a_fault_that_appears_between_plan_and_deed_stops_it[damaged]",
    ),
    Mutant(
        "purge-despite-faults",
        kinds.APPEARED,
        "I5",
        "nothing is purged while a manifest can't be read",
        "jobs/local/gc.py",
        "return None if marks.faults else marks.reachable",
        "return marks.reachable",
        "tests/jobs/test_gc_rechecks.py::test_i5_nothing_is_purged_while_it_is_not_known_what_is_needed[_unknown]",
    ),
    Mutant(
        "purge-not-needed-on-invalid",
        kinds.APPEARED,
        "I5",
        "nothing is purged while index.json can't be read",
        "jobs/local/gc.py",
        ("    except (LayoutInvalid, ZotctlError):\n        return None\n"),
        ("    except (LayoutInvalid, ZotctlError):\n        return set()\n"),
        "tests/jobs/test_gc_rechecks.py::test_i5_nothing_is_purged_while_it_is_not_known_what_is_needed[_breaks]",
    ),
    Mutant(
        "purge-without-a-marker",
        kinds.UNKNOWN,
        "I5",
        "nothing is purged where only oci-layout is gone",
        "jobs/local/gc.py",
        "return None if marker.has_index() else set()",
        "return set()",
        "tests/jobs/test_gc_rechecks.py::test_i5_nothing_is_purged_while_it_is_not_known_what_is_needed[_has_no_marker]",
    ),
    Mutant(
        "purge-the-copy-of-a-cut-blob",
        kinds.RESTORES,
        "I5",
        "a copy of what is needed and damaged is not purged",
        "jobs/local/gc.py",
        "local.damaged.is_bad(digest, info, trashed.size)",
        "local.damaged.has(digest, info)",
        "tests/jobs/test_gc_rechecks.py::test_a_copy_of_what_is_needed_and_damaged_is_not_purged[False]",
    ),
    Mutant(
        "purge-the-copy-of-a-marked-blob",
        kinds.RESTORES,
        "I5",
        "a copy of what is needed and damaged is not purged",
        "jobs/local/gc.py",
        "local.damaged.is_bad(digest, info, trashed.size)",
        "info.size != trashed.size",
        "tests/jobs/test_gc_rechecks.py::test_a_copy_of_what_is_needed_and_damaged_is_not_purged[True]",
    ),
    Mutant(
        "restore-over-a-cut-blob",
        kinds.RESTORES,
        "I2",
        "what is damaged in its place is healed from the trash",
        "jobs/local/trash.py",
        "not local.damaged.is_bad(found.digest, info, found.size)",
        "not local.damaged.has(found.digest, info)",
        "tests/jobs/test_gc_trash.py::test_what_is_damaged_in_its_place_is_healed_from_the_trash[False]",
    ),
    Mutant(
        "restore-over-a-marked-blob",
        kinds.RESTORES,
        "I2",
        "what is damaged in its place is healed from the trash",
        "jobs/local/trash.py",
        "not local.damaged.is_bad(found.digest, info, found.size)",
        "info.size == found.size",
        "tests/jobs/test_gc_trash.py::test_what_is_damaged_in_its_place_is_healed_from_the_trash[True]",
    ),
    Mutant(
        "plan-despite-faults",
        kinds.FAULTS,
        "I5",
        "with a fault in marking, no row goes either",
        "jobs/gc.py",
        ("            self._refuse(marks)\n            return None\n"),
        "            self._refuse(marks)\n",
        "tests/jobs/test_gc_rechecks.py::test_i5_no_row_goes_where_something_is_unknown",
    ),
    Mutant(
        "refuse-without-exit-code",
        kinds.FAULTS,
        "I15",
        "a repository that is left alone makes exit code 5",
        "jobs/gc.py",
        "        self._run.report.codes.append(5)\n",
        "",
        "tests/jobs/test_gc_rechecks.py::test_i5_no_row_goes_where_something_is_unknown",
    ),
    Mutant(
        "purge-stops-at-fault",
        kinds.FAULTS,
        "I11",
        "what goes wrong in one repository leaves the others their turn",
        "jobs/local/gc.py",
        (
            "        with run.guarded(folder.name, root):\n            _purge_folder(run, root, folder, info.mtime_ns if info else 0)\n"
        ),
        "        _purge_folder(run, root, folder, info.mtime_ns if info else 0)\n",
        "tests/jobs/test_gc_rechecks.py::test_one_repository_that_is_locked_keeps_no_other_from_being_purged",
    ),
    Mutant(
        "trash-directories",
        kinds.UNKNOWN,
        "I9",
        "only files are trashed",
        "jobs/local/gc.py",
        ("if info is not None and info.is_file:\n                written"),
        ("if info is not None:\n                written"),
        "tests/jobs/test_gc_rechecks.py::test_only_what_has_the_name_of_a_blob_is_trashed",
    ),
    Mutant(
        "trash-any-name",
        kinds.UNKNOWN,
        "I9",
        "only what has a digest for a name is trashed",
        "jobs/local/gc.py",
        "yield from map(parse_digest, digests_in(driver, keys.blobs_of(self._name, algorithm), algorithm, but))",
        (
            "yield from (str.__new__(Digest, f'{algorithm}:{entry.name}')"
            " for entry in scan_or_empty(driver, keys.blobs_of(self._name, algorithm)))"
        ),
        "tests/jobs/test_gc_rechecks.py::test_only_what_has_the_name_of_a_blob_is_trashed",
    ),
    Mutant(
        "empty-removed-with-foreign-files",
        kinds.UNKNOWN,
        "I9",
        "a directory with something else in it stays as it is",
        "jobs/local/gc.py",
        (
            "        if {entry.name for entry in context.driver.scan(name) if entry.is_file} - known:\n"
            "            return\n"
        ),
        "",
        "tests/jobs/test_gc_rechecks.py::test_an_empty_repository_with_something_else_in_it_stays_as_it_is",
    ),
    Mutant(
        "empty-removed-with-rows",
        kinds.UNKNOWN,
        "I4",
        "a repository with rows is not empty",
        "jobs/local/gc.py",
        ("        if len(root.protocol.indexes.read(held.name).index):\n            return\n"),
        "",
        "tests/jobs/test_gc_rechecks.py::test_a_repository_with_rows_is_never_removed",
    ),
    Mutant(
        "empty-index-goes-first",
        kinds.UNKNOWN,
        "I4",
        "index.json goes last, when no push can have come in",
        "jobs/local/gc.py",
        (
            "        for entry in context.driver.scan(keys.blobs(name)):\n"
            "            context.driver.rmdir(keys.blobs_of(name, entry.name))\n"
            "        context.driver.rmdir(keys.blobs(name))\n"
            "        context.driver.unlink(keys.layout(name))\n"
            "        context.driver.unlink(keys.index(name))\n"
        ),
        (
            "        context.driver.unlink(keys.layout(name))\n"
            "        context.driver.unlink(keys.index(name))\n"
            "        for entry in context.driver.scan(keys.blobs(name)):\n"
            "            context.driver.rmdir(keys.blobs_of(name, entry.name))\n"
            "        context.driver.rmdir(keys.blobs(name))\n"
        ),
        "tests/jobs/test_gc_rechecks.py::test_a_repository_is_removed_in_an_order_in_which_a_push_stops_it",
    ),
    Mutant(
        "purge-other-repositories",
        kinds.UNKNOWN,
        "I11",
        "--repo is about the trash, too",
        "jobs/local/gc.py",
        "if not run.covers(folder.name) or not",
        "if not",
        "tests/jobs/test_gc_rechecks.py::test_repo_is_about_the_trash_too",
    ),
    Mutant(
        "trash-spares-no-upload",
        kinds.DELAY,
        "I6",
        "what is younger than an active upload is spared",
        "jobs/local/gc.py",
        " and written < since:",
        ":",
        "tests/jobs/test_gc.py::test_i6_a_moving_upload_keeps_what_its_push_has_sent",
    ),
    Mutant(
        "trash-max-for-min",
        kinds.DELAY,
        "I6",
        "the delay holds where no upload is moving",
        "jobs/local/gc.py",
        "self._options.delay) and written < since:",
        "self._options.delay) or written < since:",
        "tests/jobs/test_gc.py::test_fresh_blobs_are_left_alone",
    ),
    Mutant(
        "trash-young",
        kinds.DELAY,
        "I6",
        "what was written within the delay is spared",
        "jobs/local/gc.py",
        "if self._ages.is_old(written, self._options.delay) and written",
        "if written",
        "tests/jobs/test_gc.py::test_fresh_blobs_are_left_alone",
    ),
    Mutant(
        "purge-at-once",
        kinds.DELAY,
        "I6",
        "the trash keeps what it has for the delay",
        "jobs/local/gc.py",
        "    return ages.is_old(trashed, chosen.options.kept)",
        "    return True",
        "tests/jobs/test_gc_rechecks.py::test_what_was_trashed_lies_in_the_trash_for_the_delay",
    ),
    Mutant(
        "purge-delay-not-kept",
        kinds.DELAY,
        "I6",
        "and for longer, if that is configured",
        "jobs/local/gc.py",
        "ages.is_old(trashed, chosen.options.kept)",
        "ages.is_old(trashed, chosen.options.delay)",
        "tests/jobs/test_gc_rechecks.py::test_a_trash_may_keep_longer_than_the_delay_and_never_shorter",
    ),
    Mutant(
        "trash-shorter-than-delay",
        kinds.DELAY,
        "I6",
        "never for less than the delay",
        "jobs/gc.py",
        "return max(self.delay, self.trash or 0.0)",
        "return self.trash or self.delay",
        "tests/jobs/test_gc_rechecks.py::test_a_trash_may_keep_longer_than_the_delay_and_never_shorter",
    ),
    Mutant(
        "purge-beside-upload",
        kinds.DELAY,
        "I6",
        "what was trashed since an active upload began is not purged",
        "jobs/local/gc.py",
        ("    if chosen.options.delay > 0 and trashed >= chosen.active.since(folder.name):\n        return False\n"),
        "",
        "tests/jobs/test_gc_rechecks.py::test_i6_what_a_moving_upload_may_need_is_not_purged_either",
    ),
    Mutant(
        "zero-delay-ignores-trash-setting",
        kinds.DELAY,
        "I6",
        "without a delay, but with a trash, nothing is gone at once",
        "jobs/local/gc.py",
        "if self._options.kept > 0:",
        "if self._options.delay > 0:",
        "tests/jobs/test_gc_rechecks.py::test_without_a_delay_but_with_a_trash_nothing_is_gone_at_once",
    ),
    Mutant(
        "empty-removed-young",
        kinds.DELAY,
        "I6",
        "an empty repository is left for whoever makes it",
        "jobs/local/gc.py",
        ("        if not ages.is_old(ages.written(keys.index(name), info), delay):\n            return\n"),
        "",
        "tests/jobs/test_gc_rechecks.py::test_an_empty_repository_is_one_for_the_delay",
    ),
    Mutant(
        "dry-run-option-ignored",
        kinds.DELAY,
        "I15",
        "a root that is only rehearsed keeps all",
        "jobs/local/gc.py",
        ("        if self._dry_run:\n            return"),
        ("        if self._run.dry_run:\n            return"),
        "tests/jobs/test_gc_rechecks.py::test_a_root_that_is_only_rehearsed_keeps_all",
    ),
    Mutant(
        "unlink-counts-shared",
        kinds.LINKS,
        "I15",
        "bytes that another repository has are not freed",
        "jobs/local/gc.py",
        ("info.size if info.nlink <= 2 else 0)\n\n    def _keep"),
        ("info.size)\n\n    def _keep"),
        "tests/jobs/test_gc_rechecks.py::test_bytes_that_another_repository_has_are_not_counted_as_freed",
    ),
    Mutant(
        "purge-leaves-pool",
        kinds.LINKS,
        "I11",
        "the pool's name goes with the last one",
        "jobs/local/gc.py",
        ("        for digest in gone:\n            local.pool.release(digest)\n            run"),
        ("        for digest in gone:\n            run"),
        "tests/jobs/test_gc_rechecks.py::test_a_purge_frees_the_bytes_and_the_folders_at_once",
    ),
    Mutant(
        "purge-leaves-folders",
        kinds.LINKS,
        "I11",
        "folders of the trash go when they are empty",
        "jobs/local/gc.py",
        "        trash.sweep(folder)\n",
        "",
        "tests/jobs/test_gc_rechecks.py::test_a_purge_frees_the_bytes_and_the_folders_at_once",
    ),
    Mutant(
        "trash-unflushed-index",
        kinds.FLUSHES,
        "I5",
        "index.json is on the device before it is acted on",
        "jobs/local/gc.py",
        "            self._local.context.durable.flush_index(self._name)\n",
        "",
        "tests/jobs/test_gc_rechecks.py::test_no_index_that_a_power_cut_could_take_back_is_acted_on",
    ),
    Mutant(
        "drop-despite-faults",
        kinds.APPEARED,
        "I5",
        "a fault that is seen in the commit stops it",
        "jobs/gc.py",
        (
            "            if marks.faults:\n"
            "                return []  # what a manifest that can't be read needs, is not known (I5)\n"
        ),
        "",
        "tests/jobs/test_gc_rechecks.py::test_i5_no_row_goes_where_something_has_become_unknown_since_the_plan",
    ),
    Mutant(
        "drop-unnoted",
        kinds.RETENTION,
        "I5",
        "a tag that goes is in the history before, so that a delay runs",
        "jobs/gc.py",
        (
            "            if drop.tag is not None:\n"
            '                root.history.note(name, "untag", drop.digest, {drop.tag: drop.digest}, by=by)'
        ),
        "            pass",
        "tests/jobs/test_gc.py::test_a_tag_that_the_policy_drops_is_in_the_history_before_it_goes",
    ),
    Mutant(
        "came-back-outside-any-repository",
        kinds.RESTORES,
        "I5",
        "what a refused push took back from the trash lies in a repository",
        "storage/local/index_file.py",
        '                make_layout(self._context, held.name, "sha256", held)\n            return outcomes',
        "                pass\n            return outcomes",
        "tests/jobs/test_gc_trash.py::test_what_came_back_for_a_push_that_was_refused_lies_in_a_repository",
    ),
    Mutant(
        "tag-restored-twice",
        kinds.RESTORES,
        "I5",
        "a tag that came back with its manifest is not given again",
        "jobs/restore.py",
        "            if _tag_now(run.store.repository_for_push(what).root, what, tag) is None:\n",
        "            if True:\n",
        "tests/jobs/test_restore.py::test_a_tag_that_came_back_with_its_manifest_is_not_given_twice",
    ),
    Mutant(
        "trash-of-some-for-all",
        kinds.FIGURES,
        "I15",
        "a run on some repositories tells nothing of the trash of all",
        "jobs/local/gc.py",
        "look(FOLDERS_TOLD, BLOBS_TOLD)) if self._run.whole else []",
        "look(FOLDERS_TOLD, BLOBS_TOLD))",
        "tests/jobs/test_gc_trash.py::test_how_much_waits_in_the_trash_is_told_of_all_of_it",
    ),
    Mutant(
        "collected-though-off",
        kinds.EARLY,
        "I6",
        "a server collects where gc is on",
        "jobs/schedule.py",
        "    if settings.gc:\n",
        "    if True:\n",
        "tests/jobs/test_schedule.py::test_a_root_gets_the_jobs_that_its_configuration_asks_for",
    ),
]
