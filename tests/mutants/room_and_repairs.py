"""What is compared, what is kept back on a disk, and one repair step by step."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

COMPARING = "tests/storage/test_storage_comparing.py::"
RESERVE = "tests/storage/test_storage_reserve.py::"
STEPS = "tests/jobs/test_healing_steps.py::"

MUTANTS = [
    Mutant(
        "compared-in-the-first-block",
        kinds.BELIEVED,
        "I2",
        "a copy is compared to its end",
        "storage/local/site.py",
        "steps = range(0, one.size, COMPARE_BLOCK)",
        "steps = range(0, min(one.size, COMPARE_BLOCK), COMPARE_BLOCK)",
        COMPARING + "test_to_its_end",
    ),
    Mutant(
        "compared-as-far-as-it-goes",
        kinds.BELIEVED,
        "I2",
        "a copy that is shorter is no copy",
        "storage/local/site.py",
        (
            "                if one.size != b.size:\n"
            "                    return False\n"
        ),
        "",
        COMPARING + "test_to_its_end",
    ),
    Mutant(
        "unreadable-copy-fails-a-push",
        kinds.BELIEVED,
        "I2",
        "a copy that can't be read is none",
        "storage/local/site.py",
        (
            "    except IoFailed:\n"
            "        return None"
        ),
        (
            "    except IoFailed:\n"
            "        raise"
        ),
        COMPARING + "test_what_can_not_be_read_is_no_copy",
    ),
    Mutant(
        "reserve-of-any-size",
        kinds.ANSWERS,
        "I11",
        "on a small file system the reserve is small",
        "storage/local/reserve.py",
        "min(self._want, self._site.driver.space().total // SHARE)",
        "self._want",
        RESERVE + "test_on_a_small_file_system_it_is_small",
    ),
    Mutant(
        "spare-inodes-from-few",
        kinds.ANSWERS,
        "I11",
        "inodes are kept from plenty only",
        "storage/local/reserve.py",
        (
            "        if not self._site.driver.space().free_inodes >= SHARE * INODES // 2:\n"
            "            return\n"
        ),
        "",
        RESERVE + "test_inodes_are_kept_where_they_are_counted_and_from_plenty",
    ),
    Mutant(
        "spare-inodes-inverted",
        kinds.ANSWERS,
        "I10",
        "inodes are kept where they are counted",
        "storage/local/reserve.py",
        "if not self._site.driver.space().free_inodes >= SHARE * INODES // 2:",
        "if self._site.driver.space().free_inodes >= SHARE * INODES // 2:",
        RESERVE + "test_inodes_are_kept_where_they_are_counted_and_from_plenty",
    ),
    Mutant(
        "reserve-of-one-size",
        kinds.ANSWERS,
        "I10",
        "the reserve grows with the largest index",
        "storage/local/reserve.py",
        "if 2 * index_size > self._want:",
        "if index_size > 1 << 40:",
        RESERVE + "test_it_grows_with_the_largest_index",
    ),
    Mutant(
        "reserve-too-short",
        kinds.ANSWERS,
        "I10",
        "to more than its size",
        "storage/local/reserve.py",
        "self._want = 4 * index_size",
        "self._want = index_size // 4",
        RESERVE + "test_it_grows_with_the_largest_index",
    ),
    Mutant(
        "reserve-grown-not-made",
        kinds.ANSWERS,
        "I10",
        "what was given back to grow is made anew",
        "storage/local/reserve.py",
        (
            "            self._site.discard(keys.RESERVE)\n"
            "            self._kept = False\n"
        ),
        "            self._site.discard(keys.RESERVE)\n",
        RESERVE + "test_it_grows_with_the_largest_index",
    ),
    Mutant(
        "reserve-fails-what-goes-on",
        kinds.ANSWERS,
        "I11",
        "a reserve that can't be made fails nothing",
        "storage/local/reserve.py",
        (
            "        except StorageError:\n"
            "            pass\n"
            "\n"
            "    def _keep_inodes"
        ),
        (
            "        except NotFound:\n"
            "            pass\n"
            "\n"
            "    def _keep_inodes"
        ),
        RESERVE + "test_where_it_can_not_be_made_nothing_fails_and_it_is_tried_again",
    ),
    Mutant(
        "min-free-of-zero",
        kinds.ANSWERS,
        "I11",
        "a min_free of zero is one",
        "storage/local/reserve.py",
        "self._min_free if self._min_free is not None else min(",
        "self._min_free or min(",
        RESERVE + "test_an_upload_is_refused_when_less_is_free_than_is_kept_back",
    ),
    Mutant(
        "min-free-not-looked-at",
        kinds.ANSWERS,
        "I10",
        "an upload is refused before the disk is full",
        "storage/local/reserve.py",
        "if space.free < least:",
        "if space.free < least // 1000:",
        RESERVE + "test_an_upload_is_refused_when_less_is_free_than_is_kept_back",
    ),
    Mutant(
        "min-free-of-a-large-disk",
        kinds.ANSWERS,
        "I11",
        "on a small file system less is kept back",
        "storage/local/reserve.py",
        "else min(2 * self._want, space.total // (SHARE // 2))",
        "else max(2 * self._want, space.total // (SHARE // 2))",
        RESERVE + "test_an_upload_is_refused_when_less_is_free_than_is_kept_back",
    ),
    Mutant(
        "reserve-not-made-again",
        kinds.ANSWERS,
        "I10",
        "what was given back is made anew",
        "storage/local/reserve.py",
        "        self._kept = self._kept and not held\n",
        "",
        RESERVE + "test_it_is_given_back_whole_and_made_anew",
    ),
    Mutant(
        "reserve-keeps-its-inodes",
        kinds.ANSWERS,
        "I10",
        "inodes are given back with the bytes",
        "storage/local/reserve.py",
        'held = [f"{keys.SPARE}/{entry.name}" for entry in self._spare()]',
        "held = list[str]()",
        RESERVE + "test_it_is_given_back_whole_and_made_anew",
    ),
    Mutant(
        "reserve-not-told",
        kinds.ANSWERS,
        "I10",
        "a commit says how large an index is",
        "storage/local/index_file.py",
        "        self._reserve.grow(sum(map(len, body)))\n",
        "",
        RESERVE + "test_a_commit_says_how_large_an_index_is",
    ),
    Mutant(
        "reserve-not-maintained",
        kinds.ANSWERS,
        "I10",
        "a server sees to the reserve",
        "storage/local/protocol.py",
        "        self.reserve.keep()\n",
        "",
        RESERVE + "test_a_commit_says_how_large_an_index_is",
    ),
    Mutant(
        "upload-begins-on-a-full-disk",
        kinds.UPLOADS,
        "I10",
        "no upload begins on a full disk",
        "storage/local/uploads.py",
        (
            "        self.reserve.check()\n"
            "        upload_id"
        ),
        "        upload_id",
        RESERVE + "test_no_upload_begins_on_a_full_disk",
    ),
    Mutant(
        "heal-whatever-is-there",
        kinds.IDENTITY,
        "I2",
        "a repair is about the file that was looked at",
        "storage/local/upkeep.py",
        (
            "            if not self._bad.mark(digest, blob, damaged):\n"
            "                return []\n"
        ),
        "            self._bad.mark(digest, blob, damaged)\n",
        STEPS + "test_where_the_name_leads_elsewhere_by_now_nothing_is_done",
    ),
    Mutant(
        "heal-beside-a-rotten-pool",
        kinds.BELIEVED,
        "I2",
        "a damaged copy leaves the pool",
        "storage/local/upkeep.py",
        (
            "            self.drop_from_pool(digest, damaged)\n"
            "            protocol"
        ),
        "            protocol",
        STEPS + "test_everybody_gets_good_bytes_and_so_does_the_pool",
    ),
    Mutant(
        "heal-without-an-offer",
        kinds.BELIEVED,
        "I11",
        "a good one comes into the pool",
        "storage/local/upkeep.py",
        "            protocol.pool.offer(digest, staged, Found(Copy.ABSENT))\n",
        "",
        STEPS + "test_everybody_gets_good_bytes_and_so_does_the_pool",
    ),
    Mutant(
        "heal-what-was-deleted",
        kinds.RESTORES,
        "I7",
        "what a client deletes meanwhile stays away",
        "storage/local/upkeep.py",
        "if not self._bad.holds(digest, damaged.info) and self._site.stat(blob) is None:",
        "if self._site.stat(blob) is None:",
        STEPS + "test_i7_what_a_client_deletes_meanwhile_stays_away",
    ),
    Mutant(
        "heal-fills-the-disk",
        kinds.ANSWERS,
        "I10",
        "repairs leave the room that is kept back",
        "storage/local/upkeep.py",
        "                self._protocol.reserve.check()\n",
        "",
        STEPS + "test_a_full_disk_is_not_filled_by_repairs",
    ),
    Mutant(
        "heal-with-any-bytes",
        kinds.BELIEVED,
        "I2",
        "bytes are hashed before they heal anything",
        "storage/local/upkeep.py",
        (
            "        if state.hexdigest() != digest.encoded:\n"
            "            raise"
        ),
        (
            "        if False:\n"
            "            raise"
        ),
        STEPS + "test_i2_other_bytes_heal_nothing",
    ),
]
