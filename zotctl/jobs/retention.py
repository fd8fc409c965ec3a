"""Decides which rows of index.json a retention policy drops: zot's keys with zot's meaning.

What has no known time is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.config.globs import matches
from zotctl.jobs.reachable import Attachments, Reachable
from zotctl.storage.history import Timeline
from zotctl.storage.rows import Row


@dataclass(frozen=True)
class Rules:
    """What one run decides by. `delay`: the grace period in seconds. `foreign`: untagged rows that were not pushed here
    go too, a delay after a run first noted them. `untagged`: whether untagged manifests go where no policy is set."""

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
        """The first policy that matches the repository, or a default one if there are no policies. None: none matches,
        so everything stays."""
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
    """A row that goes: one tag of it, or, if `tag` is None, the whole row."""

    digest: str
    tag: str | None
    reason: str


def decide(name: str, marks: Reachable, past: Timeline, rules: Rules, now: float) -> list[Drop]:
    """The rows that go now: first tags, then untagged rows and attachments.

    No row goes that a kept row leads to, as an index leads to its children and a referrer to its subject. `now`:
    seconds since 1970.
    """
    policy = rules.policy(name)
    if policy is None:
        return []
    attachments = Attachments(marks)
    tags = _tags(marks, attachments, past, policy, now)
    return tags + _Rows(marks, attachments, past, policy, rules, now).drops()


def _tags(marks: Reachable, attachments: Attachments, past: Timeline, policy: Policy, now: float) -> list[Drop]:
    """The tags that no entry of `keep_tags` keeps. Tags that name a digest need no entry, and are not counted."""
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
    """The names that any rule of `keep` keeps. Without rules all are kept, and so is what has no known push time."""
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
    """Decides about the untagged manifests and the attachments of one repository."""

    def __init__(
        self, marks: Reachable, attachments: Attachments, past: Timeline, policy: Policy, rules: Rules, now: float
    ) -> None:
        self._marks, self._attachments = marks, attachments
        self._past, self._policy, self._rules, self._now = past, policy, rules, now
        self._index = marks.index
        self._held = {digest for digest in marks.index.digests if self._is_held(digest)}
        self._untagged = self._kept_untagged()

    def drops(self) -> list[Drop]:
        """The rows that no kept row leads to, and tags of kept rows whose targets are gone."""
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
        """Whether a row stays by itself, whatever leads to it."""
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
        """Whether a row has a name of its own. A tag that goes in this run counts: its manifest has the delay from now
        on."""
        return any(self._is_name(row) for row in self._index.rows_of(digest))

    def _is_name(self, row: Row) -> bool:
        """Whether a row is named. A name that is no tag, or that a later row has too, counts: its author wants it
        kept."""
        tag = row.tag or row.alias
        if tag is None:
            return _has_name(row.raw)
        found = self._index.find(tag)
        return tag not in self._attachments.tags or found is None or found.digest != row.digest

    def _kept_untagged(self) -> set[str]:
        """The untagged rows that the policy keeps. It counts neither attachments nor the children of an index."""
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
        """Whether a row was pushed `delay` seconds ago. A row that was not pushed here counts only with `foreign`."""
        at = self._past.pushed.get(digest)
        if at is None:
            if not self._rules.foreign:
                return False
            # If it is seen for the first time, its delay begins now, also if this run has noted it meanwhile.
            at = min(self._past.noted.get(digest, self._now), self._now)
        return self._now - at >= delay


def why_kept(name: str, marks: Reachable, rules: Rules, digest: str) -> str:
    """Why a row without a tag stays by these rules, in words."""
    policy = rules.policy(name)
    if policy is None:
        return "no retention policy matches this repository, so everything in it stays"
    if any(_has_name(row.raw) for row in marks.index.rows_of(digest)):
        return "its row in index.json has a name, though not one that is a tag"
    if Attachments(marks).is_attached(digest):
        return "it is about another manifest, and stays until that goes and deleteReferrers is set"
    if not policy.delete_untagged:
        if rules.retention is not None and rules.retention.policies:
            return "the retention policy of this repository keeps untagged manifests (deleteUntagged is false)"
        return "untagged manifests are kept here (gc_untagged is none)"
    if policy.keep_untagged is not None:
        return "the retention policy keeps it (keepUntagged), or it was not pushed here"
    return "it was not pushed here, and such manifests are kept unless gc_untagged is all"


def _has_name(raw: bytes) -> bool:
    """Whether an annotation gives the row a name, even one that is no tag."""
    return b'"org.opencontainers.image.ref.name"' in raw or b'"io.containerd.image.name"' in raw


def foreign_untagged(marks: Reachable, past: Timeline) -> list[str]:
    """Rows that were not pushed here, are not noted yet, and have no tag but those that name a digest."""
    index, attached = marks.index, Attachments(marks).tags
    known = past.here | past.pushed.keys() | past.noted.keys()
    return [d for d in index.digests if d not in known and attached.keys() >= set(index.tags_of(d))]
