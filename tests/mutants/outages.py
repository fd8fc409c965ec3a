"""A root, a source or an object store that is lost in the middle of a job."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

BUCKET = "tests/jobs/test_bucket_away.py::"
IMPORT = "tests/jobs/test_import_away.py::"
ROOT = "tests/jobs/test_root_away.py::test_it_is_told_once_and_the_other_is_done"
RETRYING = "tests/storage/test_bucket_retrying.py::"


def _outage(name: str, promise: str, path: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(name, kinds.ANSWERS, "I11", promise, path, old, new, test)


MUTANTS = [
    _outage(
        "credentials-of-before-a-fork",
        "a process that is forked late takes the credentials of now",
        "storage/bucket/objects/connection.py",
        "if session is not None and _states(session) == files else None",
        "if session is not None else None",
        "tests/storage/test_bucket_credentials.py"
        "::test_a_session_that_was_prepared_before_its_files_changed_is_not_used",
    ),
    _outage(
        "credentials-that-are-over-are-a-bug",
        "a service whose credentials have expired already is as good as away",
        "storage/bucket/objects/connection.py",
        "boto.ClientError, OSError, RuntimeError) as error:",
        "boto.ClientError, OSError) as error:",
        "tests/storage/test_bucket_credentials.py::test_credentials_that_are_over_when_they_come",
    ),
    _outage(
        "replaced-worker-in-a-hurry",
        "a worker that is replaced leaves its clients time for their next request",
        "http/worker.py",
        "loop.add_signal_handler(REPLACED, self._stop_within, REPLACED_FAREWELL_S)",
        "loop.add_signal_handler(REPLACED, self._stop_within, FAREWELL_S)",
        "tests/http/test_http_workers.py::test_a_client_that_pauses_over_a_reload_is_answered",
    ),
    _outage(
        "accepted-at-the-last-moment-lost",
        "a worker that stops takes first what waits in its queue",
        "http/worker.py",
        "        await _one_more_turn()\n        listener.close()\n",
        "        listener.close()\n",
        "tests/http/test_http_workers.py::test_a_connection_that_a_stopping_worker_took_at_the_last_moment_is_answered",
    ),
    _outage(
        "handshakes-cut-off-at-once",
        "a worker that stops finishes the handshakes that it has taken on",
        "http/worker.py",
        " or listener.beginning",
        "",
        "tests/http/test_http_options.py::test_a_handshake_on_its_way_is_finished_by_a_worker_that_stops",
    ),
    _outage(
        "outage-told-for-each",
        "a root that is lost is told once",
        "jobs/run.py",
        "if root is None or not self.is_lost(root, error):",
        "if True:",
        BUCKET + "test_an_outage_that_begins_with_a_manifest",
    ),
    _outage(
        "outage-taken-for-damage",
        "what can't be read while the root is away gets no result",
        "jobs/check/hashing.py",
        "            if self._run.is_lost(root, error):\n                raise  # which says nothing of this blob\n",
        "",
        BUCKET + "test_the_inspector_gives_no_verdict_on_what_a_lost_root_has",
    ),
    _outage(
        "outage-ends-the-run",
        "a root that is lost takes nothing from others that wait for the same worker",
        "jobs/check/scrub.py",
        "                with self._run.guarded(repo.name, repo.root):\n"
        "                    result = self._inspector.blob_in_time(repo.root, repo.name, digest)\n"
        "                    self._left_to_next |= result is None\n",
        "                result = self._inspector.blob_in_time(repo.root, repo.name, digest)\n",
        BUCKET + "test_a_root_that_is_lost_between_two_others",
    ),
    _outage(
        "outage-of-writes-overlooked",
        "a bucket may be away for writes only",
        "jobs/run.py",
        "state = root.state() or self._why_unwritable(root)",
        "state = root.state()",
        BUCKET + "test_a_bucket_that_takes_no_writes_any_more",
    ),
    _outage(
        "outage-of-one-object",
        "the root is asked itself before it is called away",
        "jobs/run.py",
        "first = isinstance(state, Unavailable) and root.label not in self.away",
        "first = root.label not in self.away",
        BUCKET + "test_one_object_that_can_not_be_hashed_is_no_outage",
    ),
    _outage(
        "unmounted-unseen",
        "in the place of a directory that was unmounted, all is only absent",
        "jobs/run.py",
        "        for root in self._there:\n",
        "        for root in ():\n",
        ROOT,
    ),
    _outage(
        "lost-before-the-first-step",
        "a root that is lost before its first repository spares the others, too",
        "jobs/run.py",
        "            if not self.is_lost(root, error):\n                raise\n",
        "            raise\n",
        "tests/jobs/test_root_away.py::test_it_is_lost_while_room_is_looked_for",
    ),
    _outage(
        "lost-when-asked-for-rights",
        "whether a repository may be written is asked as part of its turn",
        "jobs/local/dedupe.py",
        "self._run.owns(root, name)",
        "root.owns(name)",
        "tests/jobs/test_root_away.py::test_it_is_lost_when_a_job_asks_whether_it_may_write",
    ),
    _outage(
        "hang-for-each-object",
        "a store that hangs is waited for once",
        "storage/bucket/objects/retry.py",
        "        self._require(began)\n",
        "",
        RETRYING + "test_a_store_that_hangs_is_waited_for_once_and_not_for_each_object",
    ),
    _outage(
        "hang-looked-at-by-all",
        "one of those who wait looks whether the store is back",
        "storage/bucket/objects/retry.py",
        "            self._away = (now + AWAY_LOOK_EVERY_S, error)\n        self._look_around()",
        "        self._look_around()",
        RETRYING + "test_one_of_many_looks_whether_a_store_that_hangs_is_back",
    ),
    _outage(
        "hang-of-one-object",
        "one object that can't be had does not delay the others",
        "storage/bucket/objects/retry.py",
        "        try:\n            self._probe()\n        except Unavailable as error:\n",
        '        try:\n            raise Unavailable("away")\n        except Unavailable as error:\n',
        RETRYING + "test_one_object_that_can_not_be_had_does_not_delay_the_others",
    ),
    _outage(
        "reads-hide-lost-writes",
        "an answered read does not make each write wait anew",
        "storage/bucket/objects/retry.py",
        "return self._writes.make(call)",
        "return self._reads.make(call)",
        RETRYING + "test_a_store_that_takes_no_writes_is_waited_for_once_too",
    ),
    _outage(
        "lost-source-taken-for-a-choice",
        "what a source that is away does not show decides nothing",
        "jobs/imports/job.py",
        "    if graph.faults:\n        layout.require()\n",
        "",
        IMPORT + "test_a_lone_layout_that_is_unmounted_is_no_wrong_choice",
    ),
    _outage(
        "lost-source-called-incomplete",
        "what a source that is away does not show is not called missing",
        "jobs/imports/repository.py",
        "        self.layout.require()\n        self.root.require()\n",
        "",
        IMPORT + "test_a_blob_that_is_copied_begins_the_outage",
    ),
    _outage(
        "lost-source-told-for-each",
        "a source that is away ends the import",
        "jobs/imports/job.py",
        "        require()\n        lost =",
        "        lost =",
        IMPORT + "test_a_directory_that_is_unmounted_meanwhile",
    ),
    _outage(
        "lost-target-told-for-each",
        "a root that is away is told instead of each layout that was to go there",
        "jobs/imports/job.py",
        "if not (isinstance(error, Unavailable) and any(lost)):",
        "if True:",
        IMPORT + "test_a_bucket_that_is_imported_into",
    ),
]
