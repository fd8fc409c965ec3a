"""What an archive of a store promises: it is whole, or it is not there."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

EXPORT = "tests/jobs/test_export.py::"

MUTANTS = [
    Mutant(
        "export-unhashed",
        kinds.BELIEVED,
        "I2",
        "what goes into an archive is hashed",
        "jobs/imports/export.py",
        "        if digest_of_hash(digest.algorithm, state) != digest:",
        "        if not digest_of_hash(digest.algorithm, state):",
        EXPORT + "test_damage_ends_it[1-flip]",
    ),
    Mutant(
        "export-without-what-is-missing",
        kinds.FAULTS,
        "I5",
        "an archive has all that its rows need",
        "jobs/imports/export.py",
        "        if self._faults:\n            self._refuse_faults()\n",
        "",
        EXPORT + "test_damage_ends_it[1-unlink]",
    ),
    Mutant(
        "export-named-unflushed",
        kinds.FLUSHES,
        "I4",
        "an archive is on the disk before it has its name",
        "jobs/files.py",
        "                file.flush()\n                os.fsync(descriptor)\n                with locked",
        "                file.flush()\n                with locked",
        EXPORT + "test_it_is_on_the_disk_before_it_has_its_name",
    ),
    Mutant(
        "export-replaces-unasked",
        kinds.EARLY,
        "I4",
        "a file that appears meanwhile stays",
        "jobs/files.py",
        "        os.link(part, path)\n",
        "        os.rename(part, path)\n        os.link(path, part)\n",
        EXPORT + "test_a_file_that_is_there_stays[True]",
    ),
    Mutant(
        "export-cuts-what-has-a-name",
        kinds.LINKS,
        "I4",
        "what a killed run has left is not written into",
        "jobs/files.py",
        "        os.unlink(part)  # never cut: it may have a second name already\n"
        "    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)\n",
        "    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)\n",
        EXPORT + "test_killed[True]",
    ),
    Mutant(
        "export-two-at-once",
        kinds.LOCKS,
        "I10",
        "one run at a time writes an archive",
        "jobs/files.py",
        "            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "            os.fstat(left)",
        EXPORT + "test_one_at_a_time",
    ),
    Mutant(
        "export-half-stays",
        kinds.FAULTS,
        "I11",
        "a run that fails leaves nothing",
        "jobs/files.py",
        "            if os.path.samestat(own, os.lstat(part)):\n                os.unlink(part)\n",
        "            os.lstat(part)\n",
        EXPORT + "test_a_full_disk",
    ),
    Mutant(
        "archive-says-any-name",
        kinds.FOREIGN,
        "I14",
        "a name in an archive is checked",
        "jobs/imports/job.py",
        "        said = valid_name(layout.index.annotation(REPOSITORY))",
        "        said = layout.index.annotation(REPOSITORY) or None",
        EXPORT + "test_a_name_that_is_none_is_not_believed",
    ),
    Mutant(
        "archive-name-stays-in-the-store",
        kinds.FOREIGN,
        "I9",
        "what an archive says of itself is not taken over",
        "storage/index.py",
        "            for name, raw in _without_ours(other._fields).items()",
        "            for name, raw in other._fields.items()",
        EXPORT + "test_one_repository_comes_back_under_its_name",
    ),
]
