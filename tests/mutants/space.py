"""What uses the space, and what goes next."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

USAGE = "tests/jobs/test_usage.py::"
REPORT = "tests/web/test_report.py::"


def _space(name: str, promise: str, path: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(f"space-{name}", kinds.FIGURES, "I15", promise, path, old, new, test)


MUTANTS = [
    _space(
        "links-counted-twice",
        "what the disk has once is counted once",
        "jobs/local/stored.py",
        "            return known\n",
        "            pass\n",
        USAGE + "test_what_is_shared_by_links_is_counted_once_and_frees_nothing",
    ),
    _space(
        "shared-is-own",
        "what another repository has is not own",
        "jobs/check/usage.py",
        "own = contents.sum(number for number in one.contents if contents.users[number] == 1)",
        "own = contents.sum(one.contents)",
        USAGE + "test_what_is_shared_by_links_is_counted_once_and_frees_nothing",
    ),
    _space(
        "shared-is-freed",
        "what another repository has is not freed",
        "jobs/check/usage.py",
        "if self.users[number] == 1 and not self.held[number])",
        "if not self.held[number])",
        USAGE + "test_what_is_shared_by_links_is_counted_once_and_frees_nothing",
    ),
    _space(
        "trash-is-freed",
        "what the trash keeps is not freed",
        "jobs/check/usage.py",
        "if self.users[number] == 1 and not self.held[number])",
        "if self.users[number] == 1)",
        USAGE + "test_the_trash_keeps_what_else_would_be_free",
    ),
    _space(
        "trash-is-elsewhere",
        "what lies in the trash is said to",
        "jobs/check/usage.py",
        "            self.places[number] = min(rank, self.places[number] or rank)\n",
        "            self.places[number] = max(rank, self.places[number])\n",
        USAGE + "test_what_has_several_names_is_in_the_first_place",
    ),
    _space(
        "blocks-left-out",
        "the places add up to the disk",
        "jobs/check/usage.py",
        'places["directories and blocks"] = contents.disk - sum(contents.size)',
        'places["directories and blocks"] = 0',
        USAGE + "test_what_is_shared_by_links_is_counted_once_and_frees_nothing",
    ),
    _space(
        "only-what-the-run-covers",
        "what is shared is shared with repositories that the run does not cover",
        "jobs/check/usage.py",
        "            self._look_into(name, blobs)\n",
        "            if self._run.covers(name):\n                self._look_into(name, blobs)\n",
        USAGE + "test_what_is_shared_by_links_is_counted_once_and_frees_nothing",
    ),
    _space(
        "tags-share-nothing",
        "what another tag leads to is not own",
        "jobs/check/usage.py",
        "number for number in share.own if led[number] == 1",
        "number for number in share.own",
        USAGE + "test_tags_share_layers_and_a_signature_belongs_to_its_image",
    ),
    _space(
        "unclear-is-unreachable",
        "what can't be known is not said to be garbage",
        "jobs/check/usage.py",
        "            self._note(self._contents.unclear, repository.contents)\n",
        "            pass\n",
        USAGE + "test_what_can_not_be_known_is_an_error_and_not_said_to_be_unreachable",
    ),
    _space(
        "others-left-out",
        "the map adds up to the disk also where the run covers a part",
        "jobs/check/usage.py",
        "others=sum(size for size, count in users if count == 1) - sum(one.sizes.own for one in repositories),",
        "others=0,",
        REPORT + "test_the_space_is_what_verify_usage_says",
    ),
    _space(
        "report-adds-errors",
        "what a report measures adds nothing to the run that it shows",
        "web/report.py",
        "found, look = list[RootUsage](), run.look()",
        "found, look = list[RootUsage](), run",
        REPORT + "test_what_can_not_be_looked_at_is_counted",
    ),
    _space(
        "next-by-other-settings",
        "what goes next is said by the settings of the run",
        "web/report.py",
        "            options = settings(root) if run.dry_run or not root.read_only else None\n",
        "            options = GcOptions()\n",
        REPORT + "test_what_collections_remove_next_is_what_they_remove",
    ),
    _space(
        "next-too-late",
        "nothing goes before the time that is said",
        "jobs/forecast.py",
        "        return times[bisect_left(times, True, hi=len(times) - 1, key=goes)]\n",
        "        return times[-1]\n",
        REPORT + "test_what_collections_remove_next_is_what_they_remove",
    ),
    _space(
        "next-of-a-dry-run",
        "where retention.dry_run is set, nothing goes",
        "web/report.py",
        "if options is not None and not options.dry_run else ()",
        "if options is not None else ()",
        REPORT + "test_a_page_lists_what_goes_first",
    ),
]
