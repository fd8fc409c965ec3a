"""The trash, what restores from it, leftovers, sessions of uploads and locks."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "purge-restores-deleted",
        kinds.RESTORES,
        "I7",
        "what a client has deleted comes back by no purge",
        "storage/local/trash.py",
        "if digest in needed and not folder.deleted}",
        "if digest in needed}",
        "tests/jobs/test_gc_trash.py::test_i7_what_was_deleted_on_purpose_comes_back_by_no_read_and_no_purge",
    ),
    Mutant(
        "delete-lists-trash-from-memory",
        kinds.SECOND_LOOK,
        "I7",
        "a deletion lists the trash anew",
        "storage/local/trash.py",
        ("for run in self.runs(fresh=True):\n"
         "            self._site.discard"),
        ("for run in self.runs():\n"
         "            self._site.discard"),
        "tests/jobs/test_gc_trash.py::test_i7_a_deletion_finds_what_a_stale_list_does_not_have",
    ),
    Mutant(
        "delete-leaves-trash",
        kinds.RESTORES,
        "I7",
        "a deletion takes what is condemned first, so that no read brings it back",
        "storage/local/trash.py",
        ("        for run in self.runs(fresh=True):\n"
         "            self._site.discard(keys.condemned(run, held.name, digest))\n"
         "        blob"),
        "        blob",
        "tests/jobs/test_gc_trash.py::test_i7_a_deletion_finds_what_a_stale_list_does_not_have",
    ),
    Mutant(
        "delete-over-older-name",
        kinds.RESTORES,
        "I7",
        "an older name in the trash goes before the rename",
        "storage/local/trash.py",
        ("            self._site.make_dirs(keys.parent(kept))\n"
         "            self._site.discard(kept)\n"),
        "            self._site.make_dirs(keys.parent(kept))\n",
        "tests/jobs/test_gc_trash.py::test_deleted_pushed_and_deleted_again_within_the_hour",
    ),
    Mutant(
        "condemn-over-older-name",
        kinds.RESTORES,
        "I10",
        "the same for a collector",
        "storage/local/trash.py",
        ("        # nothing. While the blob has its own name, nobody needs the other.\n"
         "        self._site.discard(kept)\n"),
        "        # nothing. While the blob has its own name, nobody needs the other.\n",
        "tests/jobs/test_gc_trash.py::test_what_was_restored_is_condemned_again_in_the_same_run",
    ),
    Mutant(
        "delete-needs-space",
        kinds.RESTORES,
        "I11",
        "on a full disk a deletion needs no room",
        "storage/local/trash.py",
        ("        except NoSpace:\n"
         "            # A full"),
        ("        except ZeroDivisionError:\n"
         "            # A full"),
        "tests/jobs/test_gc_trash.py::test_a_blob_can_be_deleted_on_a_full_disk",
    ),
    Mutant(
        "reads-bring-back-deleted",
        kinds.RESTORES,
        "I7",
        "reads do not look into what was deleted",
        "storage/local/trash.py",
        "[name for name in names if not name.startswith(keys.DELETED_PREFIX)])",
        "names)",
        "tests/jobs/test_gc_trash.py::test_i7_a_deletion_finds_what_a_stale_list_does_not_have",
    ),
    Mutant(
        "restore-read-only-fails",
        kinds.RESTORES,
        "I15",
        "nothing comes back on a root that can't be written",
        "storage/local/trash.py",
        "except (NotFound, ReadOnlyStorage, PermissionRefused):",
        "except NotFound:",
        "tests/jobs/test_gc_trash.py::test_a_root_that_became_read_only_has_no_such_blob[link]",
    ),
    Mutant(
        "restore-needs-link",
        kinds.LINKS,
        "I6",
        "where no link is to be had, the name moves back",
        "storage/local/trash.py",
        "return self._rename_back(source, blob)",
        "return False",
        "tests/jobs/test_gc_trash.py::test_without_links_what_was_condemned_comes_back_by_its_name",
    ),
    Mutant(
        "trash-remembered-too-soon",
        kinds.IDENTITY,
        "I6",
        "within a tick of the clock a list is not remembered",
        "storage/local/trash.py",
        "stamp = info.generation if self._site.is_settled(info) else None",
        "stamp = info.generation",
        "tests/jobs/test_gc_trash.py::test_a_list_of_the_trash_within_one_tick_of_the_clock_is_not_remembered",
    ),
    Mutant(
        "trash-list-remembered-for-ever",
        kinds.IDENTITY,
        "I6",
        "the trash is listed again when its time stamp has moved",
        "storage/local/trash.py",
        "if fresh or self._runs[0] != info.generation:",
        "if self._runs[0] is None:",
        "tests/jobs/test_gc_trash.py::test_a_run_that_is_new_is_found_by_who_has_listed_before",
    ),
    Mutant(
        "trash-first-run-only",
        kinds.RESTORES,
        "I6",
        "every run is looked into",
        "storage/local/trash.py",
        "return any(self.restore_from(run, name, digest) for run in self.runs(fresh=fresh))",
        "return any(self.restore_from(run, name, digest) for run in self.runs(fresh=fresh)[:1])",
        "tests/jobs/test_gc_trash.py::test_every_run_is_looked_into",
    ),
    Mutant(
        "trash-now-by-host",
        kinds.DELAY,
        "I6",
        "the delay is measured by the clock of the storage",
        "storage/local/trash.py",
        "                return writer.info().mtime_ns",
        "                return self._site.clock.now_ns()",
        "tests/jobs/test_gc_trash.py::test_each_hour_of_deletions_has_its_own_delay",
    ),
    Mutant(
        "trash-stamp-of-run",
        kinds.DELAY,
        "I6",
        "a folder is as old as what came last",
        "jobs/gc_local.py",
        "if (info := root.local.site.stat(folder.key)) is None:",
        "if (info := root.local.site.stat(keys.trash_run(folder.run))) is None:",
        "tests/jobs/test_gc_trash.py::test_a_folder_is_as_old_as_the_last_thing_that_came_into_it",
    ),
    Mutant(
        "deleted-run-shared",
        kinds.DELAY,
        "I10",
        "each hour of deletions has a folder of its own",
        "storage/local/trash.py",
        "int(self._site.clock.now() // 3600):08x",
        "0:08x",
        "tests/jobs/test_gc_trash.py::test_each_hour_of_deletions_has_its_own_delay",
    ),
    Mutant(
        "restore-dry-run-acts",
        kinds.RESTORES,
        "I15",
        "a rehearsal restores nothing",
        "jobs/restore.py",
        ("    if run.dry_run:\n"
         "        return\n"
         "    root.local"),
        "    root.local",
        "tests/jobs/test_gc_trash.py::test_a_rehearsal_brings_nothing_back",
    ),
    Mutant(
        "restore-without-layout",
        kinds.RESTORES,
        "I1",
        "what comes back lies in a repository",
        "jobs/restore.py",
        "    root.local.layouts.make(folder.name, digest.algorithm, None)\n",
        "",
        "tests/jobs/test_gc_trash.py::test_it_comes_back_where_the_repository_is_gone",
    ),
    Mutant(
        "restore-other-repositories",
        kinds.RESTORES,
        "I7",
        "--repo is about what comes back, too",
        "jobs/restore.py",
        "if not run.covers(folder.name) or (name and",
        "if (name and",
        "tests/jobs/test_gc_trash.py::test_only_what_was_named_comes_back",
    ),
    Mutant(
        "restore-ignores-name",
        kinds.RESTORES,
        "I7",
        "only what was named comes back",
        "jobs/restore.py",
        " or (name and folder.name != name) or",
        " or",
        "tests/jobs/test_gc_trash.py::test_only_what_was_named_comes_back",
    ),
    Mutant(
        "restore-no-row",
        kinds.RESTORES,
        "I5",
        "a manifest gets its row again",
        "jobs/restore.py",
        ("    if facts is not None:\n"
         "        (outcome,)"),
        ("    if False:\n"
         "        (outcome,)"),
        "tests/jobs/test_gc_trash.py::test_a_manifest_comes_back_with_all_that_it_needs",
    ),
    Mutant(
        "restore-blobs-not-required",
        kinds.RESTORES,
        "I5",
        "its blobs come back with it",
        "jobs/restore.py",
        ("                if not is_nondistributable(blob.media_type):\n"
         "                    tx.require(parse_digest(blob.digest))"),
        "                pass",
        "tests/jobs/test_gc_trash.py::test_a_manifest_comes_back_with_all_that_it_needs",
    ),
    Mutant(
        "restore-grandchildren-not-followed",
        kinds.CHILDREN,
        "I5",
        "and what the manifests below it need",
        "jobs/restore.py",
        ("        for found in graph.facts.values():\n"
         "            for blob in found.blobs:"),
        ("        for found in [facts]:\n"
         "            for blob in found.blobs:"),
        "tests/jobs/test_gc_trash.py::test_a_manifest_comes_back_with_all_that_it_needs",
    ),
    Mutant(
        "restore-foreign-layers-required",
        kinds.RESTORES,
        "I5",
        "layers that need not be here are not required",
        "jobs/restore.py",
        ("                if not is_nondistributable(blob.media_type):\n"
         "                    tx.require"),
        ("                if True:\n"
         "                    tx.require"),
        "tests/jobs/test_gc_trash.py::test_a_layer_that_need_not_be_here_is_not_required",
    ),
    Mutant(
        "restore-unnoted",
        kinds.RESTORES,
        "I5",
        "what comes back has its delay again",
        "jobs/restore.py",
        '        root.history.note(tx.name, "push", digest)  # before the rename, as for a push\n',
        "",
        "tests/jobs/test_gc_trash.py::test_what_comes_back_has_its_delay_again",
    ),
    Mutant(
        "restore-error-untold",
        kinds.ANSWERS,
        "I15",
        "what could not come back is told",
        "jobs/restore.py",
        "            run.error(folder.name, outcome, root)",
        "            pass",
        "tests/jobs/test_gc_trash.py::test_i5_a_manifest_gets_no_row_when_something_of_it_is_gone[_lacks_a_blob]",
    ),
    Mutant(
        "restore-large-json",
        kinds.RESTORES,
        "I11",
        "a large layer is not read for a manifest",
        "jobs/restore.py",
        "reader_of(root.protocol, name)(digest, False)",
        "reader_of(root.protocol, name)(digest, True)",
        "tests/jobs/test_gc_trash.py::test_a_large_layer_is_not_read_to_see_that_it_is_no_manifest",
    ),
    Mutant(
        "upload-swept-while-written",
        kinds.UPLOADS,
        "I6",
        "a session that a request holds is not swept",
        "jobs/leftovers.py",
        ("                if root.driver.capabilities.locks and not writer.try_lock():\n"
         "                    continue\n"),
        "",
        "tests/jobs/test_gc_leftovers.py::test_an_upload_that_a_request_is_writing_is_not_swept",
    ),
    Mutant(
        "upload-age-from-start",
        kinds.UPLOADS,
        "I6",
        "a session is as old as its last byte",
        "jobs/leftovers.py",
        (
            "        if not ages.is_old(upload.moved, max(delay, JUST_BEGUN)):\n"
            "            continue"
        ),
        (
            "        if not ages.is_old(upload.started, max(delay, JUST_BEGUN)):\n"
            "            continue"
        ),
        "tests/jobs/test_gc_leftovers.py::test_an_upload_is_as_old_as_its_last_byte",
    ),
    Mutant(
        "upload-just-begun-swept",
        kinds.UPLOADS,
        "I6",
        "a session that has just begun is left alone",
        "jobs/leftovers.py",
        (
            "        if not ages.is_old(upload.moved, max(delay, JUST_BEGUN)):\n"
            "            continue"
        ),
        (
            "        if not ages.is_old(upload.moved, delay):\n"
            "            continue"
        ),
        "tests/jobs/test_gc_leftovers.py::test_an_upload_that_has_just_begun_is_somebodys_even_without_a_delay",
    ),
    Mutant(
        "upload-swept-young",
        kinds.UPLOADS,
        "I6",
        "a session is kept for the delay",
        "jobs/leftovers.py",
        (
            "        if not ages.is_old(upload.moved, max(delay, JUST_BEGUN)):\n"
            "            continue\n"
        ),
        "",
        "tests/jobs/test_gc_leftovers.py::test_an_upload_is_as_old_as_its_last_byte",
    ),
    Mutant(
        "moving-other-owner",
        kinds.UPLOADS,
        "I6",
        "a session holds back its own repository",
        "jobs/leftovers.py",
        'return self._began.get(keys.name_key(name), float("inf"))',
        'return self._began.get(name, float("inf"))',
        "tests/jobs/test_gc_leftovers.py::test_an_upload_holds_back_its_own_repository_only",
    ),
    Mutant(
        "moving-latest-start",
        kinds.UPLOADS,
        "I6",
        "the oldest of several sessions counts",
        "jobs/leftovers.py",
        'min(upload.started, self._began.get(upload.owner, float("inf")))',
        "upload.started",
        "tests/jobs/test_gc_rechecks.py::test_the_oldest_of_two_uploads_counts",
    ),
    Mutant(
        "moving-by-start",
        kinds.UPLOADS,
        "I6",
        "a session that moves is somebody's, however old it is",
        "jobs/leftovers.py",
        "moving = not ages.is_old(upload.moved, max",
        "moving = not ages.is_old(upload.started, max",
        "tests/jobs/test_gc.py::test_i6_a_moving_upload_keeps_what_its_push_has_sent",
    ),
    Mutant(
        "moving-for-ever",
        kinds.UPLOADS,
        "I11",
        "for a day at the most",
        "jobs/leftovers.py",
        " and not ages.is_old(upload.started, GREATEST_AGE):",
        ":",
        "tests/jobs/test_gc_leftovers.py::test_an_upload_that_lasts_longer_than_a_day_holds_nothing_back",
    ),
    Mutant(
        "tmp-by-mtime",
        kinds.IDENTITY,
        "I3",
        "a link into tmp is as old as its ctime",
        "jobs/leftovers.py",
        "ages.is_old(ages.changed(key, info), delay)",
        "ages.is_old(ages.written(key, info), delay)",
        "tests/jobs/test_gc_leftovers.py::test_a_link_into_tmp_is_as_old_as_the_link",
    ),
    Mutant(
        "tmp-no-minute",
        kinds.DELAY,
        "I3",
        "a temporary file has a minute",
        "jobs/leftovers.py",
        "_sweep_tmp(root, max(delay, 60.0), ages)",
        "_sweep_tmp(root, delay, ages)",
        "tests/jobs/test_gc_leftovers.py::test_a_temporary_file_has_a_minute_even_without_a_delay",
    ),
    Mutant(
        "index-temp-young",
        kinds.DELAY,
        "I3",
        "so has that of an index.json",
        "jobs/leftovers.py",
        "ages.is_old(ages.written(key, info), max(delay, 60.0))",
        "ages.is_old(ages.written(key, info), delay)",
        "tests/jobs/test_gc_leftovers.py::test_a_temporary_file_has_a_minute_even_without_a_delay",
    ),
    Mutant(
        "index-temp-any-age",
        kinds.DELAY,
        "I3",
        "whatever its name",
        "jobs/leftovers.py",
        "if info is not None and ages.is_old(ages.written(key, info), max(delay, 60.0)):",
        "if info is not None:",
        "tests/jobs/test_gc_leftovers.py::test_a_temporary_file_has_a_minute_even_without_a_delay",
    ),
    Mutant(
        "index-temp-without-lock",
        kinds.LOCKS,
        "I3",
        "it is removed under the lock of who may be about to rename it",
        "jobs/leftovers.py",
        (
            "                with root.local.site.locks.hold(name):\n"
            "                    root.local.site.discard(key)"
        ),
        "                root.local.site.discard(key)",
        "tests/jobs/test_gc_leftovers.py::test_what_a_dead_process_was_about_to_rename_is_removed_under_the_lock",
    ),
    Mutant(
        "pool-swept-with-a-reader",
        kinds.LINKS,
        "I2",
        "a name in the pool goes when it is the last",
        "jobs/leftovers.py",
        "if info is not None and info.nlink == 1:",
        "if info is not None and info.nlink <= 2:",
        "tests/jobs/test_gc_leftovers.py::test_a_copy_in_the_pool_that_a_repository_uses_stays_there",
    ),
    Mutant(
        "zot-uploads-young",
        kinds.UNKNOWN,
        "I9",
        "uploads of a zot beside us are left while they are young",
        "jobs/leftovers.py",
        "info.is_file and ages.is_old(ages.written(key, info), delay):",
        "info.is_file:",
        "tests/jobs/test_gc_leftovers.py::test_the_uploads_of_a_zot_beside_us_go_when_they_are_old",
    ),
    Mutant(
        "offset-of-published",
        kinds.IDENTITY,
        "I2",
        "a file with two names is no session any more",
        "storage/local/uploads.py",
        "if info is None or info.nlink > 1:",
        "if info is None:",
        "tests/storage/test_storage_sessions.py::test_i2_a_file_that_has_a_blobs_name_already_is_no_session_any_more",
    ),
    Mutant(
        "resume-of-published",
        kinds.IDENTITY,
        "I2",
        "nothing is appended to a file that has become a blob",
        "storage/local/uploads.py",
        ("        if info.nlink > 1:\n"
         "            # Published"),
        ("        if False:\n"
         "            # Published"),
        "tests/storage/test_storage_sessions.py::test_i2_a_file_that_has_a_blobs_name_already_is_no_session_any_more",
    ),
    Mutant(
        "two-writers",
        kinds.LOCKS,
        "I2",
        "a session has one writer",
        "storage/local/uploads.py",
        "            return writer.try_lock()",
        ("            writer.try_lock()\n"
         "            return True"),
        "tests/storage/test_storage_sessions.py::test_a_session_has_one_writer",
    ),
    Mutant(
        "claims-ignored",
        kinds.LOCKS,
        "I2",
        "also where there are no locks",
        "storage/locks.py",
        ("            if name in self._taken:\n"
         "                return None\n"),
        "",
        "tests/storage/test_storage_sessions.py::test_without_locks_a_session_has_one_writer_in_its_process",
    ),
    Mutant(
        "hash-of-another-offset",
        kinds.IDENTITY,
        "I2",
        "a hash that is remembered is that of so many bytes",
        "storage/local/uploads.py",
        "if known is not None and known[0] == offset:",
        "if known is not None:",
        "tests/storage/test_storage_sessions.py::test_a_hash_that_is_remembered_is_that_of_so_many_bytes",
    ),
    Mutant(
        "hash-forgotten",
        kinds.UPLOADS,
        "I2",
        "what another process took is read and hashed",
        "storage/local/uploads.py",
        "return self.hash_file(name, upload.text, upload.algorithm) if offset else new_hash(upload.algorithm)",
        "return new_hash(upload.algorithm)",
        "tests/storage/test_storage_sessions.py::test_another_process_hashes_what_has_arrived",
    ),
    Mutant(
        "write-error-not-cut-back",
        kinds.UPLOADS,
        "I2",
        "after an error the file is as long as what is hashed",
        "storage/local/uploads.py",
        ("            self._writer.truncate(self.offset)\n"
         "            raise"),
        "            raise",
        "tests/storage/test_storage_sessions.py::test_after_an_error_the_session_is_as_long_as_what_is_hashed",
    ),
    Mutant(
        "write-no-space-keeps",
        kinds.UPLOADS,
        "I11",
        "a full disk gets the bytes of the session back",
        "storage/local/uploads.py",
        ("        except NoSpace:\n"
         "            self.cancel()\n"
         "            raise\n"
         "        except StorageError:\n"
         "            self._writer.trunc"),
        ("        except StorageError:\n"
         "            self._writer.trunc"),
        "tests/storage/test_storage_sessions.py::test_a_full_disk_frees_the_bytes_of_a_session_at_once",
    ),
    Mutant(
        "write-reserve-unchecked",
        kinds.UPLOADS,
        "I11",
        "the room that is to stay free is looked at in between",
        "storage/local/uploads.py",
        ("                self._uploads.reserve.check()\n"
         "                self._unchecked = 0"),
        "                self._unchecked = 0",
        "tests/storage/test_storage_sessions.py::test_the_room_that_is_to_stay_free_is_looked_at_while_a_large_blob_comes",
    ),
    Mutant(
        "finish-unverified",
        kinds.UPLOADS,
        "I2",
        "what has arrived is what the digest says",
        "storage/local/uploads.py",
        ("            self._verify(digest)\n"
         "            self._flush()"),
        "            self._flush()",
        "tests/storage/test_storage_sessions.py::test_i2_what_is_no_such_blob_is_refused_and_nothing_of_it_is_left",
    ),
    Mutant(
        "finish-changed-file",
        kinds.UPLOADS,
        "I2",
        "and is as long as what was hashed",
        "storage/local/uploads.py",
        "if self._writer.info().size != self.offset:",
        "if False:",
        "tests/storage/test_storage_sessions.py::test_i2_a_file_that_somebody_else_has_written_to_is_refused",
    ),
    Mutant(
        "finish-other-algorithm",
        kinds.UPLOADS,
        "I2",
        "by whatever algorithm",
        "storage/local/uploads.py",
        "            hasher = self._uploads.hash_file(self._name, self.id, digest.algorithm)\n",
        "            pass\n",
        "tests/storage/test_storage_sessions.py::test_i2_a_digest_by_another_algorithm_is_computed",
    ),
    Mutant(
        "finish-unflushed",
        kinds.FLUSHES,
        "I3",
        "with commit, a blob is flushed before it has its name",
        "storage/local/uploads.py",
        ("            self._verify(digest)\n"
         "            self._flush()"),
        "            self._verify(digest)",
        "tests/storage/test_storage_sessions.py::test_with_commit_a_blob_is_flushed_before_it_has_its_name",
    ),
    Mutant(
        "flush-error-keeps-session",
        kinds.FLUSHES,
        "I3",
        "after a flush that failed nothing is believed any more",
        "storage/local/uploads.py",
        ("            # fsync(2): after an error the next one may report success for bytes that never arrived.\n"
         "            self.cancel()\n"
         "            raise"),
        "            raise",
        "tests/storage/test_storage_sessions.py::test_after_a_flush_that_failed_the_session_is_gone",
    ),
    Mutant(
        "wrong-digest-keeps-session",
        kinds.UPLOADS,
        "I11",
        "of a wrong blob nothing is left",
        "storage/local/uploads.py",
        ("        except (DigestInvalid, NoSpace):\n"
         "            self.cancel()\n"
         "            raise\n"
         "        self.cancel()"),
        ("        except NoSpace:\n"
         "            self.cancel()\n"
         "            raise\n"
         "        self.cancel()"),
        "tests/storage/test_storage_sessions.py::test_i2_what_is_no_such_blob_is_refused_and_nothing_of_it_is_left",
    ),
    Mutant(
        "session-left-after-finish",
        kinds.UPLOADS,
        "I11",
        "of a finished session nothing is left",
        "storage/local/uploads.py",
        ("            raise\n"
         "        self.cancel()\n"
         "\n"
         "    def _flush"),
        ("            raise\n"
         "        self._release()\n"
         "\n"
         "    def _flush"),
        "tests/storage/test_storage_sessions.py::test_a_finished_session_is_gone",
    ),
    Mutant(
        "lock-byte-shared",
        kinds.LOCKS,
        "I11",
        "each repository has a lock of its own",
        "storage/locks.py",
        '[:8], "big") >> 2',
        '[:1], "big") >> 2',
        "tests/storage/test_storage_sessions.py::test_each_repository_has_a_lock_of_its_own",
    ),
    Mutant(
        "lock-not-released",
        kinds.LOCKS,
        "I11",
        "a lock is free after an error",
        "storage/locks.py",
        ("        try:\n"
         "            yield held\n"
         "        finally:\n"
         "            held.lock.release()"),
        ("        yield held\n"
         "        held.lock.release()"),
        "tests/storage/test_storage_sessions.py::test_a_lock_is_free_after_an_error",
    ),
    Mutant(
        "lock-never-too-long",
        kinds.LOCKS,
        "I4",
        "a lock that was held for long is not relied on",
        "storage/locks.py",
        "return self._clock.elapsed() - self.since > TOO_LONG",
        "return False",
        "tests/storage/test_storage_sessions.py::test_a_lock_that_was_held_for_long_may_have_been_lost",
    ),
    Mutant(
        "renewed-keeps-since",
        kinds.LOCKS,
        "I4",
        "one that was taken again is young",
        "storage/locks.py",
        "held.lock, held.since = self._take(held.name), self._clock.elapsed()",
        "held.lock = self._take(held.name)",
        "tests/storage/test_storage_sessions.py::test_a_lock_that_was_held_for_long_may_have_been_lost",
    ),
    Mutant(
        "stale-lock-file",
        kinds.LOCKS,
        "I4",
        "a lock on a file without a name is none",
        "storage/locks.py",
        ("                if lock.current():\n"
         "                    return lock\n"
         "                lock.release()"),
        "                return lock",
        "tests/storage/test_storage_sessions.py::test_a_lock_on_a_file_that_has_lost_its_name_is_none",
    ),
    Mutant(
        "lock-without-deadline",
        kinds.LOCKS,
        "I11",
        "a lock that is held for long makes a request busy",
        "storage/locks.py",
        ("            if self._clock.elapsed() > until:\n"
         "                raise Busy"),
        ("            if False:\n"
         "                raise Busy"),
        "tests/storage/test_storage_sessions.py::test_a_lock_that_another_process_holds_for_long_is_busy",
    ),
]
