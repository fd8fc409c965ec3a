"""Single events of the history: what they say, and which of them are kept."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

HISTORY = "tests/storage/test_history.py::"

MUTANTS = [
    Mutant(
        "history-unprintable",
        kinds.RETENTION,
        "I15",
        "what no terminal or encoder takes is left out of texts",
        "storage/history.py",
        "    return printable(found) if isinstance(found, str) else found\n",
        "    return found\n",
        HISTORY + "test_what_no_terminal_or_encoder_takes_is_left_out",
    ),
    Mutant(
        "pull-of-the-import",
        kinds.RETENTION,
        "I4",
        "a pull in another store was then",
        "storage/history.py",
        "self.pulled[digest] = max(moment_of(event),",
        "self.pulled[digest] = max(at,",
        HISTORY + "test_what_was_elsewhere_was_then_and_never_later_than_it_was_written_down",
    ),
    Mutant(
        "pull-of-tomorrow",
        kinds.RETENTION,
        "I11",
        "and never later than it was written down",
        "storage/history.py",
        "return at if happened_at is None else min(at, float(happened_at))",
        "return at if happened_at is None else float(happened_at)",
        HISTORY + "test_a_line_that_says_later_than_it_was_written_is_of_then",
    ),
    Mutant(
        "compacted-to-the-last-line",
        kinds.RETENTION,
        "I4",
        "of pulls the latest is kept, not the last line",
        "storage/history.py",
        'when = moment_of if kind == "pulled" else _written',
        "when = _written",
        HISTORY + "test_what_was_elsewhere_was_then_and_never_later_than_it_was_written_down",
    ),
    Mutant(
        "compacted-without-the-unknown",
        kinds.UNKNOWN,
        "I9",
        "what a later version wrote is kept",
        "storage/history.py",
        "        yield str(action), digest  # of a later version",
        "        return",
        HISTORY + "test_a_compaction_keeps_what_only_a_later_version_knows",
    ),
    Mutant(
        "each-pull-is-written",
        kinds.RETENTION,
        "I11",
        "a pull is written once a day",
        "storage/history.py",
        "if self._days.get(key) == day:",
        "if not key:",
        HISTORY + "test_a_pull_is_written_once_a_day_for_each_manifest_of_each_repository",
    ),
    Mutant(
        "pull-of-any-repository",
        kinds.RETENTION,
        "I4",
        "for each repository",
        "storage/history.py",
        "key, day = (name, digest)",
        'key, day = ("", digest)',
        HISTORY + "test_a_pull_is_written_once_a_day_for_each_manifest_of_each_repository",
    ),
    Mutant(
        "removed-by-tag-only",
        kinds.FOREIGN,
        "I6",
        "a deletion by digest is a removal, too",
        "storage/local/history.py",
        'event.get("a") in ("untag", "delete")',
        'event.get("a") == "untag"',
        HISTORY + "test_what_was_removed_since",
    ),
    Mutant(
        "removed-at-any-time",
        kinds.FOREIGN,
        "I4",
        "what was removed before does not count",
        "storage/local/history.py",
        'if event["t"] >= at and event',
        "if event",
        HISTORY + "test_what_was_removed_since",
    ),
]
