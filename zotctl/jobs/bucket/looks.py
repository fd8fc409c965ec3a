"""Looks at many objects: by a list where enough of them have the beginning of their digest in common, else by a HEAD
each. A collector of 100,000 blobs looks at each of them and its reservation twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from zotctl.oci.digest import Digest
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.bucket.objects.seam import PAGE_KEYS, Object

WORTH_A_LIST = 16
"""So many keys on average have each prefix that is listed."""
DEEPEST = 4
"""Characters of a digest in a prefix."""


def look_at(context: BucketContext, wanted: Iterable[tuple[str, Digest]]) -> dict[str, Object]:
    """Those of these objects that are there, by key. Each key comes with the digest that is in it."""
    digests = dict(wanted)
    calls = [call for prefix, group in _groups(digests) for call in _calls(context, prefix, group)]
    return {found.key: found for each in context.each(calls) for found in each}


def _groups(digests: Mapping[str, Digest]) -> Iterable[tuple[str, list[str]]]:
    """By the longest prefixes that are few enough; of one prefix "", if none are."""
    for depth in range(DEEPEST, 0, -1):
        groups: dict[str, list[str]] = {}
        for key, digest in digests.items():
            groups.setdefault(key[: key.rindex(digest.encoded) + depth], []).append(key)
        if len(groups) * WORTH_A_LIST <= len(digests):
            return groups.items()
    return [("", list(digests))]


def _calls(context: BucketContext, prefix: str, group: list[str]) -> Iterable[partial[list[Object]]]:
    if prefix:
        return [partial(_listed, context, prefix, group)]
    return [partial(_heads, context, [key]) for key in group]


def _listed(context: BucketContext, prefix: str, group: list[str]) -> list[Object]:
    """A single page: what comes and goes between two might be missed, where a store counts its rows."""
    wanted, found = set(group), list[Object]()
    for number, row in enumerate(context.objects.list(prefix), 1):
        if number == PAGE_KEYS:
            return _heads(context, group)
        if row.key in wanted:
            found.append(row)
    return found


def _heads(context: BucketContext, group: list[str]) -> list[Object]:
    return [found for key in group if (found := context.head(key)) is not None]
