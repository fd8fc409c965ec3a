"""What other programs wrote beside ours is taken over, once and whole; a repository comes to be."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

OVER = "tests/storage/test_storage_taking_over.py::"
SWAPPING = "tests/storage/test_storage_swapping.py::"
FOREIGN = "tests/storage/test_storage_foreign.py::"

MUTANTS = [
    Mutant(
        "late-write-of-a-taken-tag",
        kinds.FOREIGN,
        "I4",
        "what a late write gives a tag that is taken keeps a row",
        "storage/local/index_file.py",
        "        draft.adopt_untagged(there)\n",
        "",
        OVER + "test_i4_what_a_late_write_gives_a_tag_that_is_taken_stays_without_one[ours]",
    ),
    Mutant(
        "late-write-of-what-is-gone",
        kinds.FOREIGN,
        "I5",
        "but not if it is gone",
        "storage/local/index_file.py",
        "        draft.adopt_untagged(there)\n",
        "        draft.adopt_untagged(rows)\n",
        OVER + "test_a_late_write_leaves_no_row_of_what_is_gone",
    ),
    Mutant(
        "late-writes-watched-once",
        kinds.FOREIGN,
        "I4",
        "each of several late writes is merged",
        "storage/local/index_file.py",
        "return (old._replace(known=written) if now <= old.until else None), rows",
        "return None, rows",
        OVER + "test_i4_each_of_several_late_writes_is_merged",
    ),
    Mutant(
        "late-writes-merged-again",
        kinds.FOREIGN,
        "I6",
        "a late write is merged once",
        "storage/local/index_file.py",
        "return (old._replace(known=written) if now <= old.until else None), rows",
        "return (old if now <= old.until else None), rows",
        OVER + "test_i6_a_late_write_is_merged_once",
    ),
    Mutant(
        "late-writes-without-patience",
        kinds.FOREIGN,
        "I4",
        "a tool that takes its time is waited for",
        "storage/local/index_file.py",
        "return (old if now <= old.until + (FOREIGN_WRITE_TIMEOUT_S if changed else 0) else None), []",
        "return (old if now <= old.until else None), []",
        OVER + "test_i4_a_late_write_that_takes_its_time_is_waited_for",
    ),
    Mutant(
        "late-writes-fail-a-commit",
        kinds.FAULTS,
        "I4",
        "what can't be merged fails no commit",
        "storage/local/protocol.py",
        "            except ZotctlError as error:\n                if is_gone",
        "            except NotFound as error:\n                if is_gone",
        OVER + "test_a_late_write_that_can_not_be_merged_fails_no_commit[create]",
    ),
    Mutant(
        "refused-merge-is-done",
        kinds.FAULTS,
        "I4",
        "a merge that is refused leaves the file",
        "storage/local/index_file.py",
        (
            "                (outcome,) = self._commit(held, [_merged(before, after)], transaction)\n"
            "                if outcome is not None:\n"
            "                    raise outcome\n"
        ),
        "                self._commit(held, [_merged(before, after)], transaction)\n",
        OVER + "test_i4_a_merge_that_is_refused_leaves_the_file",
    ),
    Mutant(
        "merged-without-a-look",
        kinds.RESTORES,
        "I5",
        "what is merged comes back from the trash",
        "storage/local/index_file.py",
        (
            "        for row in after.new_rows(before):\n"
            "            _is_gone(tx, row)  # takes what it leads to back from the trash; a missing blob stays missing\n"
        ),
        "",
        OVER + "test_i5_what_is_merged_comes_back_from_the_trash",
    ),
    Mutant(
        "came-out-and-thrown-away",
        kinds.FOREIGN,
        "I4",
        "what came out of a swap that failed is kept",
        "storage/local/index_file.py",
        "        if now is not None and same_file(now, written):\n",
        "        if now is not None:\n",
        OVER + "test_i4_what_came_out_of_a_swap_that_failed_is_not_thrown_away",
    ),
    Mutant(
        "came-out-and-not-looked-at",
        kinds.FOREIGN,
        "I4",
        "is what came out what was read?",
        "storage/local/index_file.py",
        "                is_known = same_file(reader.info(), was)",
        "                is_known = bool(same_file(reader.info(), reader.info()))",
        SWAPPING + "test_i4_a_tag_that_was_renamed_in_at_the_last_moment_is_there_when_we_answer",
    ),
    Mutant(
        "unmerged-though-never-named",
        kinds.FOREIGN,
        "I4",
        "an index that never got its name is no debt",
        "storage/local/index_file.py",
        "if not info.is_file or info.mtime_ns in (swap.ours, swap.before):",
        "if not info.is_file or info.mtime_ns == swap.before:",
        OVER + "test_an_index_that_never_got_its_name_is_no_debt",
    ),
    Mutant(
        "unmerged-though-it-was-read",
        kinds.FOREIGN,
        "I6",
        "the index that ours was made of is no debt",
        "storage/local/index_file.py",
        "if not info.is_file or info.mtime_ns in (swap.ours, swap.before):",
        "if not info.is_file or info.mtime_ns == swap.ours:",
        SWAPPING + "test_the_index_that_ours_was_made_of_is_no_debt",
    ),
    Mutant(
        "debt-discarded-before-it-is-paid",
        kinds.FLUSHES,
        "I4",
        "what can't be taken over now is the next time",
        "storage/local/index_file.py",
        (
            "                (outcome,) = self._commit(held, [adopted(wanted, left_over=True)], transaction)\n"
            "                if outcome is not None:\n"
            "                    raise outcome\n"
            "                self._context.discard(key)\n"
        ),
        (
            "                self._context.discard(key)\n"
            "                (outcome,) = self._commit(held, [adopted(wanted, left_over=True)], transaction)\n"
            "                if outcome is not None:\n"
            "                    raise outcome\n"
        ),
        OVER + "test_i4_what_can_not_be_taken_over_now_is_the_next_time",
    ),
    Mutant(
        "debt-refused-is-paid",
        kinds.FAULTS,
        "I4",
        "what can't be looked at is taken over the next time",
        "storage/local/index_file.py",
        (
            "                (outcome,) = self._commit(held, [adopted(wanted, left_over=True)], transaction)\n"
            "                if outcome is not None:\n"
            "                    raise outcome\n"
            "                self._context.discard(key)\n"
        ),
        (
            "                self._commit(held, [adopted(wanted, left_over=True)], transaction)\n"
            "                self._context.discard(key)\n"
        ),
        OVER + "test_i4_nor_what_can_not_be_looked_at",
    ),
    Mutant(
        "debt-of-what-is-gone",
        kinds.CHILDREN,
        "I5",
        "a row whose content is gone is not taken over",
        "storage/local/index_file.py",
        "draft.adopt(there if left_over else rows)",
        "draft.adopt(rows)",
        OVER + "test_i5_a_row_whose_content_is_gone_is_not_taken_over",
    ),
    Mutant(
        "debt-of-links",
        kinds.FOREIGN,
        "I14",
        "nothing is taken over in a repository that is a link",
        "storage/local/protocol.py",
        "        if unmerged and self.owns(name):",
        "        if unmerged:",
        OVER + "test_i14_nothing_is_taken_over_in_a_repository_that_is_a_link",
    ),
    Mutant(
        "index-written-over-a-foreign-one",
        kinds.SECOND_LOOK,
        "I4",
        "the index is looked at again before it is replaced",
        "storage/local/index_file.py",
        "            if self._now(name).generation != before.file.generation or held.too_long():",
        "            if held.too_long():",
        FOREIGN + "test_i4_a_write_before_the_rename_is_merged[before the check]",
    ),
    Mutant(
        "commit-by-an-old-list-of-the-trash",
        kinds.RESTORES,
        "I6",
        "a commit lists the trash anew",
        "storage/local/protocol.py",
        "return self._protocol.blobs.find(self._held.name, digest, fresh=True)",
        "return self._protocol.blobs.find(self._held.name, digest)",
        OVER + "test_i6_a_commit_finds_what_was_trashed_just_now",
    ),
    Mutant(
        "flush-by-an-old-list-of-the-trash",
        kinds.RESTORES,
        "I6",
        "a flush lists the trash anew",
        "storage/local/blobs.py",
        (
            "                if not self._trash.restore(name, digest, fresh=True):\n"
            "                    raise\n"
            "            else:\n"
            "                return"
        ),
        (
            "                if not self._trash.restore(name, digest):\n"
            "                    raise\n"
            "            else:\n"
            "                return"
        ),
        OVER + "test_i6_a_flush_finds_what_was_trashed_just_now",
    ),
    Mutant(
        "deletion-by-an-old-list-of-the-trash",
        kinds.RESTORES,
        "I7",
        "a deletion lists the trash anew",
        "storage/local/protocol.py",
        "            if not self.trash.restore(name, digest, fresh=True):",
        "            if not self.trash.restore(name, digest):",
        OVER + "test_i7_a_deletion_finds_what_was_trashed_just_now",
    ),
    Mutant(
        "layout-before-its-index",
        kinds.FLUSHES,
        "I1",
        "index.json comes before oci-layout",
        "storage/local/index_file.py",
        (
            "    if context.stat(keys.index(name)) is None:\n"
            "        _place(context, name, keys.index(name), empty_index().render())\n"
            "        if context.commit:\n"
            "            context.durable.flush_names(name)\n"
            "    if context.stat(keys.layout(name)) is None:\n"
            "        _place(context, name, keys.layout(name), LAYOUT_BYTES)\n"
        ),
        (
            "    if context.stat(keys.layout(name)) is None:\n"
            "        _place(context, name, keys.layout(name), LAYOUT_BYTES)\n"
            "    if context.stat(keys.index(name)) is None:\n"
            "        _place(context, name, keys.index(name), empty_index().render())\n"
            "        if context.commit:\n"
            "            context.durable.flush_names(name)\n"
        ),
        OVER + "test_i1_a_layout_is_made_in_order_under_its_lock",
    ),
    Mutant(
        "layout-without-a-lock",
        kinds.LOCKS,
        "I1",
        "a layout is made under its lock",
        "storage/local/index_file.py",
        (
            "    if held is None:\n"
            "        with context.locks.hold(name) as taken:\n"
            "            return make_layout(context, name, algorithm, taken)\n"
        ),
        "",
        OVER + "test_i1_a_layout_is_made_in_order_under_its_lock",
    ),
    Mutant(
        "layout-before-its-index-on-the-device",
        kinds.FLUSHES,
        "I1",
        "index.json is on the device before oci-layout is seen",
        "storage/local/index_file.py",
        (
            "        _place(context, name, keys.index(name), empty_index().render())\n"
            "        if context.commit:\n            context.durable.flush_names(name)\n"
        ),
        "        _place(context, name, keys.index(name), empty_index().render())\n",
        OVER + "test_i1_a_layout_is_made_in_order_under_its_lock",
    ),
    Mutant(
        "layout-not-on-the-device",
        kinds.FLUSHES,
        "I4",
        "a layout is on the device before a push is answered",
        "storage/local/index_file.py",
        (
            "        _place(context, name, keys.layout(name), LAYOUT_BYTES)\n"
            "    if context.commit:\n        context.durable.flush_names(name)\n"
        ),
        "        _place(context, name, keys.layout(name), LAYOUT_BYTES)\n",
        OVER + "test_i1_a_layout_is_made_in_order_under_its_lock",
    ),
    Mutant(
        "layout-of-unflushed-bytes",
        kinds.FLUSHES,
        "I3",
        "the files of a layout are flushed before they are seen",
        "storage/local/index_file.py",
        ("            writer.write([body])\n            writer.sync()\n"),
        "            writer.write([body])\n",
        OVER + "test_i1_a_layout_is_made_in_order_under_its_lock",
    ),
    Mutant(
        "layout-left-half-made",
        kinds.FAULTS,
        "I1",
        "a half-made layout is made whole",
        "storage/local/index_file.py",
        "    if context.stat(keys.layout(name)) is not None and context.stat(keys.index(name)) is not None:",
        "    if context.stat(keys.layout(name)) is not None:",
        OVER + "test_i3_a_half_made_layout_gets_its_index",
    ),
    Mutant(
        "late-writes-of-the-oldest-lost",
        kinds.FOREIGN,
        "I4",
        "of too many, the oldest is looked at before it is let go",
        "storage/local/index_file.py",
        "                self._look_last(self._old.pop(0))",
        "                self._old.pop(0).reader.close()",
        OVER + "test_i4_of_too_many_that_are_watched_the_oldest_is_looked_at",
    ),
    Mutant(
        "damaged-is-not-taken-over",
        kinds.FOREIGN,
        "I4",
        "a row whose manifest is damaged is taken over",
        "storage/local/index_file.py",
        "        with suppress(Damaged):  # it heals, and every other row of it stays\n            tx.require(row.digest)\n    except NotFound:",
        "        tx.require(row.digest)\n    except (NotFound, Damaged):",
        OVER + "test_i4_a_row_whose_manifest_is_damaged_is_taken_over",
    ),
    Mutant(
        "late-writes-lost-for-room",
        kinds.FOREIGN,
        "I4",
        "what was written late is read before a full disk takes the file",
        "storage/local/index_file.py",
        "            for one in old:\n                self._look_last(one)",
        "            for one in old:\n                one.reader.close()",
        OVER + "test_i4_what_was_written_late_is_read_before_a_full_disk_takes_the_file",
    ),
    Mutant(
        "late-writes-tried-once",
        kinds.FOREIGN,
        "I4",
        "a late write that can't be merged now is merged later",
        "storage/local/protocol.py",
        "                    self.indexes.put_back(written, rows)\n",
        "",
        OVER + "test_i4_a_late_write_that_can_not_be_merged_now_is_merged_later[create]",
    ),
    Mutant(
        "late-writes-bring-back",
        kinds.RESTORES,
        "I6",
        "a late write that is merged later brings back nothing that was removed since",
        "storage/local/protocol.py",
        "self.history.removed_since(written, since) if since is not None else set[str]()",
        "set[str]()",
        OVER + "test_i6_a_late_write_that_is_merged_later_brings_back_nothing_that_was_removed",
    ),
    Mutant(
        "late-writes-of-others-lost",
        kinds.FOREIGN,
        "I4",
        "what was found waits for its own turn",
        "storage/local/index_file.py",
        "            self._late = [one for one in self._late if one not in late]",
        "            self._late = []",
        OVER + "test_i4_of_too_many_that_are_watched_the_oldest_is_looked_at",
    ),
    Mutant(
        "index-unflushed",
        kinds.FLUSHES,
        "I3",
        "an index is on the device before it has its name",
        "storage/local/index_file.py",
        ("                writer.sync()\n                written"),
        "                written",
        OVER + "test_i3_an_index_is_on_the_device_before_it_has_its_name",
    ),
    Mutant(
        "index-with-the-old-time-stamp",
        kinds.IDENTITY,
        "I9",
        "two indexes of one moment have two time stamps",
        "storage/local/index_file.py",
        "writer.set_attributes(like, swap.ours)",
        "writer.set_attributes(like, like.mtime_ns)",
        OVER + "test_two_indexes_of_one_moment_have_two_time_stamps",
    ),
    Mutant(
        "commit-under-a-lock-held-too-long",
        kinds.LOCKS,
        "I10",
        "a lock that was held too long is taken anew",
        "storage/local/index_file.py",
        "            if self._now(name).generation != before.file.generation or held.too_long():",
        "            if self._now(name).generation != before.file.generation:",
        OVER + "test_i10_a_lock_that_was_held_too_long_is_taken_anew_before_the_rename",
    ),
    Mutant(
        "commit-without-a-renewal",
        kinds.LOCKS,
        "I10",
        "a lock that was held too long is taken anew",
        "storage/local/index_file.py",
        ("            if held.too_long():\n                self._context.locks.renew(held)\n"),
        "",
        OVER + "test_i10_a_lock_that_was_held_too_long_is_taken_anew_before_the_rename",
    ),
    Mutant(
        "remembered-under-another-file",
        kinds.IDENTITY,
        "I9",
        "what is remembered is what is there",
        "storage/local/index_file.py",
        "        if now is not None and FileIdentity.of(now).content == FileIdentity.of(written).content:",
        "        if now is not None:",
        OVER + "test_i9_what_a_tool_renames_in_right_after_us_is_served",
    ),
]
