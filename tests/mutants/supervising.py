"""The parent of the workers: no worker is lost, none hangs for ever, and the jobs go by the configuration in force."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

FAMILY = "tests/http/test_http_supervisor.py::"


def _family(name: str, safeguard: str, old: str, new: str, test: str) -> Mutant:
    file = "http/supervisor.py"
    return Mutant(f"family-{name}", kinds.WIRE, "I10", safeguard, file, old, new, FAMILY + test)


def _few(name: str, safeguard: str, file: str, old: str, new: str) -> Mutant:
    test = "tests/http/test_http_workers.py::test_where_descriptors_are_few_clients_take_turns"
    return Mutant(f"few-descriptors-{name}", kinds.WIRE, "I10", safeguard, file, old, new, test)


MUTANTS = [
    _family(
        "pauses-beyond-the-last",
        "a worker that dies again and again is replaced each time",
        "min(slot.failures, len(BACK_OFF_S) - 1)",
        "min(slot.failures, len(BACK_OFF_S))",
        "test_a_worker_that_dies_again_and_again_is_replaced_again_and_again",
    ),
    _family(
        "no-pause",
        "a worker that dies at once is not forked again without a pause",
        "slot.failures + 1 if lasted < STEADY_S else 0",
        "0",
        "test_a_worker_that_dies_again_and_again_is_replaced_again_and_again",
    ),
    _family(
        "sleeps-over-a-worker",
        "the parent wakes up to replace a worker",
        "        due += [slot.retry_at for slot in self.slots if slot.retry_at is not None]\n",
        "",
        "test_a_worker_that_dies_again_and_again_is_replaced_again_and_again",
    ),
    _family(
        "queue-without-a-worker",
        "no client waits in the queue of a socket without a worker",
        "        if slot.sock is not None and self.rebinds:",
        "        if False:",
        "test_a_worker_that_dies_again_and_again_is_replaced_again_and_again",
    ),
    _family(
        "socket-of-systemd-closed",
        "a socket that was passed is kept, for it is given once",
        "        if slot.sock is not None and self.rebinds:",
        "        if slot.sock is not None:",
        "test_the_socket_of_another_is_kept_though_its_worker_dies",
    ),
    _family(
        "successor-beside-a-retry",
        "a worker that is to be replaced in a moment gets no successor beside",
        "            if slot.sock is not None and slot.retry_at is None:\n",
        "            if slot.sock is not None:\n",
        "test_the_socket_of_another_is_kept_though_its_worker_dies",
    ),
    _family(
        "port-tried-once",
        "a port that is taken meanwhile is tried again",
        "            self._close_queue(slot)\n            slot.retry_at = time.monotonic() + BACK_OFF_S[-1]\n",
        "            self._close_queue(slot)\n",
        "test_a_port_that_another_program_has_taken_is_tried_again",
    ),
    _family(
        "fork-ends-the-server",
        "a server stays though no process can be forked at the moment",
        "    except OSError as error:\n        for descriptor in chain(*made):\n",
        "    except ValueError as error:\n        for descriptor in chain(*made):\n",
        "test_jobs_whose_process_can_not_be_forked_are_tried_again",
    ),
    _family(
        "fork-leaves-pipes",
        "a fork that is refused leaves no descriptor",
        "            os.close(descriptor)\n        raise Unavailable(",
        "            pass\n        raise Unavailable(",
        "test_a_worker_that_can_not_be_forked_is_tried_again",
    ),
    _family(
        "fork-leaves-a-row",
        "a fork that is refused takes no place of those that count",
        "                board.give_back(row)\n            raise",
        "                pass\n            raise",
        "test_a_worker_that_can_not_be_forked_is_tried_again",
    ),
    _family(
        "queue-without-a-fork",
        "no client waits in the queue of a socket whose worker can't be forked",
        "            self._close_queue(slot)\n            slot.retry_at",
        "            slot.retry_at",
        "test_a_worker_that_can_not_be_forked_is_tried_again",
    ),
    _family(
        "reload-ends-the-server",
        "a worker stays though the next one can't be forked",
        "                except Unavailable as error:\n                    self._keep(error)\n",
        "                except ValueError as error:\n                    self._keep(error)\n",
        "test_a_worker_whose_next_one_can_not_be_forked_stays",
    ),
    _family(
        "start-with-some-workers",
        "a server whose workers can't all be forked ends",
        "                self.failed = error\n                self._stop(now=True)\n",
        "                pass\n",
        "test_a_server_whose_workers_can_not_all_be_forked_ends",
    ),
    _family(
        "jobs-wait-after-a-reload",
        "jobs that a reload ends while they start are begun at once",
        "if code not in (0, -signal.SIGTERM):",
        "if code:",
        "test_jobs_that_a_reload_ends_while_they_start_are_begun_at_once",
    ),
    Mutant(
        "jobs-done-when-cut-short",
        kinds.WIRE,
        "I10",
        "a job that was stopped before its end stays due",
        "jobs/schedule.py",
        "            return  # it stays due, for the next process\n",
        '            report = Report(task.name, "")\n',
        "tests/jobs/test_schedule.py::test_a_job_that_was_stopped_stays_due",
    ),
    _family(
        "start-without-an-end",
        "a worker that does not get ready is killed",
        "deadline=now + START_TIMEOUT_S, row=row",
        "row=row",
        "test_a_worker_that_does_not_get_ready_is_killed_and_replaced",
    ),
    _family(
        "retired-for-ever",
        "a worker that was replaced and does not end is killed",
        "            old.deadline = time.monotonic() + self.config.http.drain + AFTER_DRAIN_S\n",
        "",
        "test_workers_are_replaced_one_after_the_other_and_end_or_are_killed",
    ),
    _family(
        "retired-and-forgotten",
        "a worker that was replaced is waited for",
        "            self.retired.append(old)\n",
        "",
        "test_workers_are_replaced_one_after_the_other_and_end_or_are_killed",
    ),
    _family(
        "ready-when-it-is-to-end",
        "a worker that gets ready when it was told to end is killed if it doesn't",
        "            if not self.stopping:  # or else the deadline is that of the end\n                child.deadline = None",
        "            child.deadline = None",
        "test_what_does_not_end_is_killed",
    ),
    _family(
        "reload-at-the-end",
        "a server that stops takes no new configuration, and begins no jobs",
        "        if self.stopping:\n            return\n        self.reload_wanted",
        "        self.reload_wanted",
        "test_a_worker_that_waits_to_be_replaced_is_not_at_the_end",
    ),
    _family(
        "jobs-by-the-old-configuration",
        "after a reload jobs go by the new configuration",
        "            _kill(self.keeper, signal.SIGTERM)  # the next",
        "            pass  # the next",
        "test_jobs_go_by_the_new_configuration",
    ),
    _family(
        "jobs-by-the-old-plan",
        "after a reload jobs are due by the new configuration",
        "        self.plan, self.keeper_at = job_process.Plan(), None\n",
        "",
        "test_a_reload_makes_the_jobs_due_anew",
    ),
    _family(
        "jobs-only-from-the-start",
        "jobs that a reload asks for are begun",
        "        self._plan_jobs()\n        self.restarting",
        "        self.restarting",
        "test_jobs_go_by_the_new_configuration",
    ),
    _family(
        "jobs-without-pause",
        "the jobs have no process while none is due",
        "        due = self.plan.next_due()\n",
        "        due = 0.0\n",
        "test_jobs_have_no_process_until_one_is_due",
    ),
    _family(
        "jobs-only-once",
        "a process that ended without a plan has a successor",
        "        self.keeper_at = due if due < math.inf else None\n",
        "        self.keeper_at = due if 0 < due < math.inf else None\n",
        "test_jobs_have_one_process_as_long_as_workers_serve",
    ),
    Mutant(
        "jobs-lose-audit-lines",
        kinds.WIRE,
        "I10",
        "the process for the jobs stays while lines for the audit file wait in it",
        "http/job_process.py",
        " and audit_trouble() is None)",
        ")",
        "tests/jobs/test_schedule.py::test_the_process_for_the_jobs_ends_between_two_runs",
    ),
    Mutant(
        "jobs-forget-the-plan",
        kinds.WIRE,
        "I10",
        "a job is not run again because its process is another",
        "http/job_process.py",
        "stop.wait, plan.read())",
        "stop.wait)",
        "tests/jobs/test_schedule.py::test_the_process_for_the_jobs_ends_between_two_runs",
    ),
    Mutant(
        "jobs-due-at-once",
        kinds.WIRE,
        "I10",
        "a schedule goes on by the plan of the one before",
        "jobs/schedule.py",
        "(due or {}).get(task.key, self._clock.elapsed())",
        "self._clock.elapsed()",
        "tests/jobs/test_schedule.py::test_a_schedule_goes_on_by_the_plan_of_the_one_before",
    ),
    Mutant(
        "jobs-never-end",
        kinds.WIRE,
        "I10",
        "the process for the jobs ends when nothing is due for a while",
        "jobs/schedule.py",
        "if wait > LONGEST_WAIT_S or self._wait",
        "if self._wait",
        "tests/jobs/test_schedule.py::test_a_schedule_ends_when_nothing_is_due_for_a_while",
    ),
    _family(
        "roots-not-remembered",
        "a root that a worker has made is no empty directory for the next one",
        "            remember_roots(self.config.storage)  # those that the first workers have made, too\n",
        "",
        "test_roots_are_remembered_when_they_may_have_been_made",
    ),
    _family(
        "report-unread",
        "why a worker could not start is told though its end was seen first",
        "                while child.ready is not None:\n                    self._heard_from(child)\n",
        "",
        "test_why_the_first_worker_can_not_start_is_told",
    ),
    _few(
        "taken",
        "a worker takes no more connections than leave descriptors for files",
        "http/listener.py",
        "if len(self._service.connections) + self.beginning >= most:",
        "if False:",
    ),
    _few(
        "kept",
        "a client that keeps its connection doesn't keep it from others that wait",
        "http/service.py",
        "answer.close or self.draining or self._full or last",
        "answer.close or self.draining or last",
    ),
    _few(
        "kept-by-reads",
        "nor by reads that are answered at once",
        "http/service.py",
        "if self.draining or self._full or not self.store.nonblocking",
        "if self.draining or not self.store.nonblocking",
    ),
]
