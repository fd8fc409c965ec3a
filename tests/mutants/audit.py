"""Who did it: lines of the audit file, and users in the history."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

LOGS = "tests/cli/test_logs.py::"
ACCESS_LOG = "tests/http/test_http_access_log.py::"
JOBS = "tests/jobs/test_who_did_it.py::"
SUITE = "tests/conformance/test_repositories.py::TestMemory::test_the_history_says_who_pushed_untagged_and_deleted"

MUTANTS = [
    Mutant(
        "log-overtakes-requests",
        kinds.ANSWERS,
        "I15",
        "lines of requests stand before what is logged later",
        "logs.py",
        "            self.write_waiting()\n        except Exception:",
        "            pass\n        except Exception:",
        ACCESS_LOG + "test_lines_stay_in_their_order",
    ),
    Mutant(
        "log-waiting-lines-forgotten",
        kinds.ANSWERS,
        "I15",
        "lines of requests that wait are written when the process ends and before the file is opened anew",
        "logs.py",
        "_writes(self.take_waiting())",
        "_writes([])",
        ACCESS_LOG + "test_no_line_is_lost_when_the_file_is_opened_anew_or_the_process_ends",
    ),
    Mutant(
        "log-torn-in-a-pipe",
        kinds.ANSWERS,
        "I15",
        "a write of several lines has no more bytes than a pipe takes whole",
        "logs.py",
        "        if size > room and place > start:\n",
        "        if False:\n",
        ACCESS_LOG + "test_a_write_has_whole_lines_and_no_more_than_a_pipe_takes_at_once",
    ),
    Mutant(
        "log-waits-for-another-request",
        kinds.ANSWERS,
        "I15",
        "a line of a request is written soon, also if no other follows",
        "http/access.py",
        "            self._loop.call_later(WAIT_S, self._write, log)\n",
        "",
        ACCESS_LOG + "test_a_line_is_written_soon",
    ),
    Mutant(
        "audit-torn-line-given-up",
        kinds.ANSWERS,
        "I15",
        "a line of the audit file that was torn is written once more",
        "logs.py",
        '                    self._waiting[0] = b"\\n" + line.lstrip(b"\\n")',
        "                    self._waiting.popleft()",
        LOGS + "test_a_line_that_was_torn_is_written_once_more_as_a_whole",
    ),
    Mutant(
        "audit-failure-untold",
        kinds.ANSWERS,
        "I15",
        "an audit file that can't be written is counted and named",
        "logs.py",
        "            self._failed(error)\n            return\n",
        "            return\n",
        LOGS + "test_an_audit_file_that_cannot_be_written_is_an_error_and_no_line_is_lost",
    ),
    Mutant(
        "audit-refuses-a-full-disk",
        kinds.ANSWERS,
        "I15",
        "a collection begins although the disk is full",
        "logs.py",
        "            if error.errno not in _FULL:\n                raise\n",
        "            raise\n",
        LOGS + "test_a_full_disk_does_not_keep_a_job_from_its_start",
    ),
    Mutant(
        "audit-purge-of-what-came-back",
        kinds.ANSWERS,
        "I15",
        "content that is in its place again is not told as deleted",
        "jobs/local/gc.py",
        "[digest for digest in gone if local.context.stat(keys.blob(folder.name, digest)) is None]",
        "gone",
        JOBS + "test_what_came_back_is_not_told_as_deleted",
    ),
    Mutant(
        "audit-half-a-batch-untold",
        kinds.ANSWERS,
        "I15",
        "what a batch has moved before it failed is told",
        "jobs/local/gc.py",
        "            gone += [digest for digest in digests if stat(keys.blob(held.name, digest)) is None]\n",
        "            stat(held.name)\n",
        JOBS + "test_what_a_run_has_moved_before_it_failed_is_told",
    ),
    Mutant(
        "audit-policy-unnamed",
        kinds.ANSWERS,
        "I15",
        "a line names the policy that decided",
        "jobs/retention.py",
        "self.retention.policies.index(policy) + 1",
        "1",
        JOBS + "test_a_tag_that_a_policy_drops_is_a_line_that_names_the_policy",
    ),
    Mutant(
        "history-without-the-pusher",
        kinds.RETENTION,
        "I15",
        "the history knows who pushed",
        "storage/repository.py",
        'self.root.history.note(self.name, "push", manifest.digest, before, user=user)',
        'self.root.history.note(self.name, "push", manifest.digest, before)',
        SUITE,
    ),
    Mutant(
        "history-without-the-tags-of-a-manifest",
        kinds.RETENTION,
        "I15",
        "the history knows which tags went with a manifest",
        "storage/repository.py",
        "            if went:\n                # Before",
        "            if not went:\n                # Before",
        SUITE,
    ),
]
