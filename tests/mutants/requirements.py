"""What a manifest needs before it gets its row; what a limit, a delay and a remembered answer are exactly."""

from __future__ import annotations

from tests.mutants import kinds
from tests.mutants.mutant import Mutant

LISTS = "tests/http/test_http_lists.py::"
NEEDS = "tests/storage/test_storage_requirements.py::"
QUOTA = "tests/storage/test_storage_quota.py::"
RULES = "tests/jobs/test_retention_rules.py::"
UNITS = "tests/http/test_http_units.py::"

MUTANTS = [
    Mutant(
        "longer-than-its-descriptor",
        kinds.CLAIMS,
        "I5",
        "content that a manifest needs is exactly as long as the descriptor says",
        "storage/repository.py",
        "    if size != descriptor.size:\n        return digest",
        "    if size < descriptor.size:\n        return digest",
        NEEDS + "test_i5_so_is_a_child[directory--1]",
    ),
    Mutant(
        "missing-child",
        kinds.CHILDREN,
        "I5",
        "an index gets no row before each of its children is there",
        "storage/repository.py",
        " + list(one.children)",
        "",
        NEEDS + "test_i5_so_is_a_child[bucket-1]",
    ),
    Mutant(
        "child-without-its-content",
        kinds.CHILDREN,
        "I5",
        "a child that no row keeps has what it needs, too",
        "storage/repository.py",
        "if facts is not None and child.digest not in draft and child.digest not in seen:",
        "if False:",
        NEEDS + "test_i5_a_child_without_a_row_needs_what_it_names[directory]",
    ),
    Mutant(
        "manifest-of-another-length",
        kinds.CLAIMS,
        "I2",
        "a manifest is as long as its row says, or not served",
        "storage/repository.py",
        "if row is not None and len(body) != row.size:",
        "if False:",
        NEEDS + "test_i2_a_manifest_that_is_not_as_long_as_its_row_says_is_not_served[bucket]",
    ),
    Mutant(
        "unknown-age-counts-as-old",
        kinds.RETENTION,
        "I15",
        "a rule of ages takes no tag whose push is not known",
        "jobs/retention.py",
        "kept = {name for name in names if pushed(name) is None}",
        "kept = set[str]()",
        RULES + "test_a_tag_that_was_not_pushed_here_is_kept_by_any_rule",
    ),
    Mutant(
        "either-subject-lost",
        kinds.RETENTION,
        "I15",
        "a referrer goes when nothing that it is about is here",
        "jobs/retention.py",
        "lost = bool(subjects) and not any(",
        "lost = bool(subjects) and not all(",
        RULES + "test_a_referrer_whose_subject_field_is_repeated_stays_with_either",
    ),
    Mutant(
        "quota-without-children",
        kinds.ACCESS,
        "I14",
        "what an index lists counts against a quota",
        "storage/quota.py",
        "for one in (*manifest.blobs, *manifest.children)}",
        "for one in manifest.blobs}",
        QUOTA + "test_what_an_index_lists_counts_though_no_manifest_of_the_repository_named_it[directory]",
    ),
    Mutant(
        "own-repository-counted-beside-itself",
        kinds.ACCESS,
        "I14",
        "a repository that its first blob has made is not counted beside itself",
        "storage/quota.py",
        "if other != name]) >= limit",
        "]) >= limit",
        QUOTA + "test_one_that_its_first_blob_has_made_is_not_counted_beside_itself[directory]",
    ),
    Mutant(
        "page-without-progress",
        kinds.WIRE,
        "I8",
        "a page of referrers has one at least",
        "http/lists.py",
        "(position and size > PAGE_BYTES)",
        "size > PAGE_BYTES",
        UNITS + "test_a_page_ends_by_count_or_by_bytes_and_is_never_empty",
    ),
    Mutant(
        "let-in-too-late",
        kinds.WIRE,
        "I8",
        "Retry-After is rounded up",
        "http/ratelimit.py",
        "math.ceil(wait)",
        "int(wait)",
        UNITS + "test_a_client_that_waits_as_it_was_told_to_is_let_in",
    ),
    Mutant(
        "remembered-list-of-another-type",
        kinds.WIRE,
        "I8",
        "a list that is remembered is of the type that was asked for",
        "http/lists.py",
        '("referrers", name, digest, wanted)',
        '("referrers", name, digest)',
        LISTS + "test_a_list_of_referrers_that_is_remembered_is_of_its_type_and_subject",
    ),
]
