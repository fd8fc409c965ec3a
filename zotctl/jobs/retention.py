"""Which rows of index.json a policy lets go: zot's keys with zot's meaning, and our safety.

Unknown times mean keep.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.jobs.reachable import Attachments, Reachable
from zotctl.jobs.run import matches
from zotctl.storage.history import Timeline
from zotctl.storage.index import Row


@dataclass(frozen=True)
class Rules:
    """What decides in one run. `foreign`: rows that were not pushed here go too, when they were noted
    longer ago than the delay."""

    retention: Retention | None = None
    delay: float = 3600.0
    foreign: bool = False
    untagged: bool = True

    @property
    def untagged_delay(self) -> float:
        """Seconds for which manifests without a tag stay: zot's `retention.delay`, or else the grace period."""
        chosen = self.retention.delay if self.retention else None
        return self.delay if chosen is None else chosen

    def policy(self, name: str) -> Policy | None:
        """The first that matches decides alone; without any policy, untagged manifests go."""
        if self.retention is None or not self.retention.policies:
            return Policy(delete_untagged=self.untagged)
        return next((p for p in self.retention.policies if matches(name, p.repositories)), None)

    def called(self, name: str) -> str:
        """The policy that decides about a repository, in words for people: policies have no names."""
        policy = self.policy(name)
        if policy is None or self.retention is None or policy not in self.retention.policies:
            return "gc"
        globs = ", ".join(policy.repositories)
        return f"retention: policy {self.retention.policies.index(policy) + 1} ({globs})"


@dataclass
class Drop:
    """One row that goes: a tag of it, or (tag None) all of it."""

    digest: str
    tag: str | None
    reason: str


def decide(name: str, marks: Reachable, past: Timeline, rules: Rules, now: float) -> list[Drop]:
    """The rows that go now, tags first, and then what that leaves behind; in one pass.

    Never a row that what stays leads to: an index to its children, a referrer to its subject.
    """
    policy = rules.policy(name)
    if policy is None:
        return []
    attachments = Attachments(marks)
    tags = _tags(marks, attachments, past, policy, now)
    return tags + _Rows(marks, attachments, past, policy, rules, now).drops()


def _tags(marks: Reachable, attachments: Attachments, past: Timeline, policy: Policy, now: float) -> list[Drop]:
    """A tag that says what its manifest is about is no image's: it counts nowhere, and no pattern need match it."""
    if not policy.keep_tags:
        return []
    drops: list[Drop] = []
    all_tags = {tag: str(row.digest) for tag in marks.index.tags() if (row := marks.index.find(tag)) and row.digest}
    images = {tag: digest for tag, digest in all_tags.items() if not attachments.is_digest_tag(tag)}
    left = dict(images)
    for entry in policy.keep_tags:
        mine = {tag: digest for tag, digest in left.items() if _tag_matches(tag, entry.patterns)}
        left = {tag: digest for tag, digest in left.items() if tag not in mine}
        kept = _kept(entry, mine, past, now)
        drops += [Drop(d, tag, "no rule of its keepTags entry keeps it") for tag, d in mine.items() if tag not in kept]
    drops += [Drop(d, tag, "no keepTags entry matches it") for tag, d in left.items()]
    going = {drop.tag for drop in drops}
    gone = {drop.digest for drop in drops} - {digest for tag, digest in images.items() if tag not in going}
    named = [(tag, all_tags[tag]) for tag in attachments.names]
    return drops + [Drop(digest, tag, "the other tags of its manifest go") for tag, digest in named if digest in gone]


def _tag_matches(tag: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(re.search(pattern, tag, re.ASCII) for pattern in patterns)


def _kept(entry: KeepTags, tags: dict[str, str], past: Timeline, now: float) -> set[str]:
    pushed: Callable[[str], float | None] = past.tagged.get

    def pulled(tag: str) -> float | None:
        return past.pulled.get(tags[tag])

    return _kept_by(entry, tags, pushed, pulled, now)


def _kept_by(
    keep: Keep, names: Iterable[str], pushed: Callable[[str], float | None],
    pulled: Callable[[str], float | None], now: float,
) -> set[str]:  # fmt: skip
    """Any rule keeps; no rule keeps all; what has no known push time is kept."""
    names = list(names)
    if not _has_rules(keep):
        return set(names)
    kept = {name for name in names if pushed(name) is None}
    for name in names:
        last_push, last_pull = pushed(name), pulled(name)
        # A recent push satisfies pulledWithin too: there was no time to pull it.
        recent = max(last_push or 0.0, last_pull or 0.0)
        if keep.pulled_within is not None and now - recent <= keep.pulled_within:
            kept.add(name)
        if keep.pushed_within is not None and now - (last_push or 0.0) <= keep.pushed_within:
            kept.add(name)
    kept |= _latest(names, pulled, keep.most_recently_pulled_count)
    return kept | _latest(names, pushed, keep.most_recently_pushed_count)


def _has_rules(keep: Keep) -> bool:
    times = keep.pulled_within is not None or keep.pushed_within is not None
    return times or bool(keep.most_recently_pulled_count or keep.most_recently_pushed_count)


def _latest(names: list[str], when: Callable[[str], float | None], count: int) -> set[str]:
    known = [(at, name) for name in names if (at := when(name)) is not None]
    return {name for _, name in sorted(known, reverse=True)[:count]}


class _Rows:
    """Untagged manifests and referrers of one repository."""

    def __init__(
        self, marks: Reachable, attachments: Attachments, past: Timeline, policy: Policy, rules: Rules, now: float
    ) -> None:
        self._marks, self._attachments = marks, attachments
        self._past, self._policy, self._rules, self._now = past, policy, rules, now
        self._index = marks.index
        self._held = {digest for digest in marks.index.digests if self._is_held(digest)}
        self._untagged = self._kept_untagged()

    def drops(self) -> list[Drop]:
        """What nothing that stays leads to, and of what stays the tags whose images have gone."""
        reached, met = self._attachments.reach(digest for digest in self._index.digests if self._stays(digest))
        rows = [Drop(digest, None, self._reason(digest)) for digest in self._index.digests if digest not in reached]
        return rows + [drop for drop in self._tags_of_others(met) if drop.digest in reached]

    def _tags_of_others(self, met: set[str]) -> Iterator[Drop]:
        for tag, target in self._attachments.tags.items() if self._policy.delete_referrers else ():
            row = self._index.find(tag)
            if target not in met and row is not None and row.digest and self._old(row.digest, self._rules.delay):
                yield Drop(row.digest, tag, "the image that it is about is gone (deleteReferrers)")

    def _reason(self, digest: str) -> str:
        if self._attachments.is_attached(digest):
            return "what it is about is gone (deleteReferrers)"
        return "no tag and no index leads to it (deleteUntagged)"

    def _stays(self, digest: str) -> bool:
        """By itself, whatever leads to it."""
        facts = self._marks.facts.get(digest)
        subjects = [subject.digest for subject in facts.subjects] if facts else []
        lost = bool(subjects) and not any(map(self._attachments.is_here, subjects))
        if digest in self._held and not lost:
            return True
        if self._attachments.is_attached(digest):
            delay = self._rules.untagged_delay if subjects else self._rules.delay
            return not self._policy.delete_referrers or not self._old(digest, delay)
        if not self._policy.delete_untagged or digest in self._untagged:
            return True
        return not self._old(digest, self._rules.untagged_delay)

    def _is_held(self, digest: str) -> bool:
        """By a name of its own. A tag that goes in this run is one: from now on the delay of its manifest runs."""
        return any(self._is_name(row) for row in self._index.rows_of(digest))

    def _is_name(self, row: Row) -> bool:
        """Also one that is no tag, or one that a later row has, too: its author wants it kept."""
        tag = row.tag or row.alias
        if tag is None:
            return _has_name(row.raw)
        found = self._index.find(tag)
        return tag not in self._attachments.tags or found is None or found.digest != row.digest

    def _kept_untagged(self) -> set[str]:
        """By the policy, which counts images only: neither what is about others, nor the children of an index."""
        keep = self._policy.keep_untagged
        if keep is None or not _has_rules(keep):
            return set()
        children = {child.digest for facts in self._marks.facts.values() for child in facts.children}
        untagged = [
            digest for digest in self._index.digests
            if digest not in self._held and digest not in children and not self._attachments.is_attached(digest)
        ]  # fmt: skip
        return _kept_by(keep, untagged, self._past.pushed.get, self._past.pulled.get, self._now)

    def _old(self, digest: str, delay: float) -> bool:
        """Unknown means keep; a row that was not pushed here goes only if that is asked for."""
        at = self._past.pushed.get(digest)
        if at is None:
            if not self._rules.foreign:
                return False
            # Seen for the first time: its delay begins now. So it does when this very run has noted it since.
            at = min(self._past.noted.get(digest, self._now), self._now)
        return self._now - at >= delay


def _has_name(raw: bytes) -> bool:
    """Some annotation names it, in a way that is no tag: its author wants it kept."""
    return b'"org.opencontainers.image.ref.name"' in raw or b'"io.containerd.image.name"' in raw


def foreign_untagged(marks: Reachable, past: Timeline) -> list[str]:
    """Rows that were not pushed here, are not noted yet, and have no tag that is the name of an image."""
    index, attached = marks.index, Attachments(marks).tags
    known = past.here | past.pushed.keys() | past.noted.keys()
    return [d for d in index.digests if d not in known and attached.keys() >= set(index.tags_of(d))]
