"""Which rows of index.json a policy lets go: zot's keys with zot's meaning, and our safety.

Unknown times mean keep. See features.md, 1.1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.jobs.run import matches
from zotctl.jobs.walk import Marks
from zotctl.storage.history import Past

_COSIGN = re.compile(r"sha256-([a-f0-9]{64})\.(sig|sbom|att)")


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
        chosen = self.retention.delay if self.retention else None
        return self.delay if chosen is None else chosen

    def policy(self, name: str) -> Policy | None:
        """The first that matches decides alone; without any policy, untagged manifests go."""
        if self.retention is None or not self.retention.policies:
            return Policy(delete_untagged=self.untagged)
        return next((p for p in self.retention.policies if matches(name, p.repositories)), None)


@dataclass
class Drop:
    """One row that goes: a tag of it, or (tag None) all of it."""

    digest: str
    tag: str | None
    reason: str


def decide(name: str, marks: Marks, past: Past, rules: Rules, now: float) -> list[Drop]:
    """The rows that go now, tags first, and then what that leaves behind; in one pass."""
    policy = rules.policy(name)
    if policy is None:
        return []
    tags = _tags(marks, past, policy, now)
    gone = {drop.tag for drop in tags}
    return tags + _Rows(marks, past, policy, rules, now, gone).drops()


def _tags(marks: Marks, past: Past, policy: Policy, now: float) -> list[Drop]:
    if not policy.keep_tags:
        return []
    drops: list[Drop] = []
    left = {tag: str(row.digest) for tag in marks.index.tags() if (row := marks.index.find(tag)) and row.digest}
    for entry in policy.keep_tags:
        mine = {tag: digest for tag, digest in left.items() if _tag_matches(tag, entry.patterns)}
        left = {tag: digest for tag, digest in left.items() if tag not in mine}
        kept = _kept(entry, mine, past, now)
        drops += [Drop(d, tag, "no rule of its keepTags entry keeps it") for tag, d in mine.items() if tag not in kept]
    return drops + [Drop(d, tag, "no keepTags entry matches it") for tag, d in left.items()]


def _tag_matches(tag: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(re.search(pattern, tag, re.ASCII) for pattern in patterns)


def _kept(entry: KeepTags, tags: dict[str, str], past: Past, now: float) -> set[str]:
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
        # A recent push satisfies pulledWithin too: nobody had the time to pull it.
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
        self, marks: Marks, past: Past, policy: Policy, rules: Rules, now: float, gone: set[str | None]
    ) -> None:
        self._marks, self._past, self._policy, self._rules, self._now = marks, past, policy, rules, now
        index = marks.index
        self._tagged = {d for d in index.digests if any(tag not in gone for tag in index.tags_of(d))}
        self._named = {d for d in index.digests if any(r.tag or r.alias or _has_name(r.raw) for r in index.rows_of(d))}

    def drops(self) -> list[Drop]:
        """Until nothing changes: a referrer of what goes may go too, and a child of an index that went."""
        dropped: dict[str, Drop] = {}
        while fresh := self._round(set(dropped)):
            dropped.update(fresh)
        return list(dropped.values())

    def _round(self, dropped: set[str]) -> dict[str, Drop]:
        rows = set(self._marks.index.digests) - dropped
        listed = {c.digest for d in rows if (f := self._marks.facts.get(d)) for c in f.children}
        found: dict[str, Drop] = {}
        for digest in rows - listed:
            reason = self._referrer(digest, rows) or self._cosign(digest, rows) or self._untagged(digest, rows)
            if reason:
                found[digest] = Drop(digest, None, reason)
        return found

    def _referrer(self, digest: str, rows: set[str]) -> str | None:
        facts = self._marks.facts.get(digest)
        if not (self._policy.delete_referrers and facts and facts.subject) or facts.subject in rows:
            return None
        return "its subject is gone (deleteReferrers)" if self._old(digest, self._rules.untagged_delay) else None

    def _cosign(self, digest: str, rows: set[str]) -> str | None:
        if not self._policy.delete_referrers:
            return None
        found = [m for tag in self._marks.index.tags_of(digest) if (m := _COSIGN.fullmatch(tag))]
        if not found or any(f"sha256:{m[1]}" in rows for m in found) or not self._old(digest, self._rules.delay):
            return None
        return "the image that it signs is gone (deleteReferrers)"

    def _untagged(self, digest: str, rows: set[str]) -> str | None:
        facts = self._marks.facts.get(digest)
        if not self._policy.delete_untagged or digest in self._tagged or (facts and facts.subject):
            return None
        if digest in self._named:
            return None  # a tag that goes now leaves a manifest whose delay begins now
        if digest in self._kept_untagged(rows) or not self._old(digest, self._rules.untagged_delay):
            return None
        return "no tag and no index leads to it (deleteUntagged)"

    def _kept_untagged(self, rows: set[str]) -> set[str]:
        keep = self._policy.keep_untagged
        if keep is None or not _has_rules(keep):
            return set()
        untagged = [digest for digest in rows if digest not in self._tagged]
        return _kept_by(keep, untagged, self._past.pushed.get, self._past.pulled.get, self._now)

    def _old(self, digest: str, delay: float) -> bool:
        """Unknown means keep; a row that was not pushed here goes only if that is asked for."""
        if digest in self._past.here or digest in self._past.pushed:
            at = self._past.pushed.get(digest)
        else:
            if not self._rules.foreign:
                return False
            # Seen for the first time: its delay begins now. So it does when this very run has noted it since.
            at = min(self._past.noted.get(digest, self._now), self._now)
        return at is not None and self._now - at >= delay


def _has_name(raw: bytes) -> bool:
    """Some annotation names it, in a way that is no tag: whoever wrote that wants it kept."""
    return b'"org.opencontainers.image.ref.name"' in raw or b'"io.containerd.image.name"' in raw


def foreign_untagged(marks: Marks, past: Past) -> list[str]:
    """Untagged rows that were not pushed here and are not noted yet."""
    index = marks.index
    known = past.here | past.pushed.keys() | past.noted.keys()
    return [d for d in index.digests if d not in known and not index.tags_of(d)]
