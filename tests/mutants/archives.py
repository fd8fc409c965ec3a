"""What an archive may claim, and what it may cost."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

DOCKER = "tests/jobs/test_import_docker.py::"
TREES = "tests/jobs/test_import_trees.py::"

MUTANTS = [
    Mutant(
        "archive-layer-of-another-image",
        kinds.BELIEVED,
        "I2",
        "a layer matches its diff_id",
        "jobs/imports/docker.py",
        "        if diff_id in (blob.digest, blob.unpacked):",
        "        if diff_id:",
        DOCKER + "test_what_does_not_fit_is_left_out_and_named[<lambda>-digest_mismatch-its config says]",
    ),
    Mutant(
        "archive-config-of-another-image",
        kinds.BELIEVED,
        "I2",
        "a config is what its name says",
        "jobs/imports/docker.py",
        "        if match is not None and match[1] != digest.encoded:",
        "        if match is None and digest.encoded == name:",
        DOCKER + "test_a_config_that_is_not_what_its_name_says",
    ),
    Mutant(
        "archive-link-to-other-bytes",
        kinds.BELIEVED,
        "I2",
        "a link to other bytes is damage",
        "jobs/imports/members.py",
        "        elif blob.digest != digest:",
        "        elif not blob.digest:",
        TREES + "test_i14_a_link_to_other_bytes_is_damage",
    ),
    Mutant(
        "archive-layer-grows-without-end",
        kinds.FOREIGN,
        "I14",
        "a layer is not unpacked to its end if it grows too much",
        "jobs/imports/tar.py",
        (
            "        self._hash.update(piece)\n"
            "        self._count += len(piece)\n"
            "        if self._count > BOMB_FLOOR_BYTES and self._count > BOMB_RATIO * self._packed:"
        ),
        "        self._hash.update(piece)\n        self._count += len(piece)\n        if self._count < 0:",
        DOCKER + "test_i14_a_layer_that_grows_too_much_is_not_unpacked_to_its_end",
    ),
    Mutant(
        "archive-blobs-of-a-neighbour",
        kinds.BELIEVED,
        "I14",
        "a layout in a tree has its own blobs only",
        "jobs/imports/archives.py",
        "        is_own = digest in self.blobs.present and digest not in self.damaged",
        "        is_own = True",
        TREES + "test_an_index_in_a_tree",
    ),
    Mutant(
        "archive-links-without-end",
        kinds.FOREIGN,
        "I14",
        "links are followed as often as Linux does",
        "jobs/imports/members.py",
        "        for _ in range(MOST_HOPS):",
        "        for _ in range(MOST_HOPS * 1000):",
        DOCKER + "test_i14_a_layer_by_many_links",
    ),
    Mutant(
        "archive-links-for-nothing",
        kinds.FOREIGN,
        "I14",
        "links that cost too much end the run",
        "jobs/imports/members.py",
        "            self._steps_left -= 1\n",
        "",
        DOCKER + "test_i14_links_that_cost_too_much",
    ),
    Mutant(
        "archive-layer-comes-twice",
        kinds.FOREIGN,
        "I14",
        "two layers of one name are refused",
        "jobs/imports/archives.py",
        "        if member.path in self.members and self.members.blobs.get(member.path) != blob:\n"
        "            self._refuse_twice(member.path)\n",
        "",
        DOCKER + "test_i14_a_layer_that_comes_twice[False]",
    ),
    Mutant(
        "archive-broken-layout-unsaid",
        kinds.FAULTS,
        "I15",
        "a layout that can't be read is told",
        "jobs/imports/archives.py",
        "                found.problems[place] = error\n",
        "                continue\n",
        TREES + "test_one_broken_layout_costs_no_other",
    ),
    Mutant(
        "archive-image-left-out-with-0",
        kinds.ANSWERS,
        "I15",
        "an image that is left out costs the exit code 0",
        "jobs/imports/job.py",
        (
            '        if finding.action == "skip" and finding.kind not in DAMAGE_KINDS:\n'
            "            run.report.codes.append(5)\n"
        ),
        "",
        DOCKER + "test_i14_a_layer_that_grows_too_much_is_not_unpacked_to_its_end",
    ),
    Mutant(
        "import-follows-to-anything",
        kinds.FOREIGN,
        "I14",
        "a link is followed to a regular file only",
        "storage/local/following.py",
        "        return found if found.is_file or (found.is_dir and _is_folder(key)) else info",
        "        return found",
        "tests/jobs/test_import_links.py::test_i14_a_part_of_a_layout_that_leads_to_no_file[index.json]",
    ),
    Mutant(
        "move-follows-links",
        kinds.UNKNOWN,
        "I4",
        "a move follows no link, so it removes nothing of another tree",
        "jobs/imports/job.py",
        "writable=writable, follow=not options.move)",
        "writable=writable)",
        "tests/jobs/test_import_links.py::test_i4_a_move_follows_no_link",
    ),
    Mutant(
        "import-links-what-is-another-trees",
        kinds.IDENTITY,
        "I4",
        "what a link led to is copied, with --link as well",
        "storage/local/following.py",
        '        """None: read it."""\n        return None',
        '        """None: read it."""\n        return super().fileno()',
        "tests/jobs/test_import_links.py::test_a_layout_of_links[options1-True]",
    ),
    Mutant(
        "verify-takes-links-for-damage",
        kinds.UNKNOWN,
        "I15",
        "a manifest that is a link is missing, and told",
        "jobs/check/repository.py",
        'if fault.kind in ("missing_manifest", "digest_mismatch") and',
        'if fault.kind == "missing_manifest" and',
        "tests/jobs/test_import_links.py::test_i14_what_serves_a_layout_follows_none_and_says_what_to_do",
    ),
]
