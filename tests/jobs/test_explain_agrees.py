"""`gc --explain` on random repositories, then collections at the times that it names: what it said is what they do."""

from __future__ import annotations

import os
from datetime import datetime
from random import Random
from typing import Any

import pytest

from tests import images
from tests.jobs.retaining import KINDS, NAME, Place, cosign_tag
from tests.jobs.test_gc import DELAY
from zotctl.config import Keep, KeepTags, Policy, Retention
from zotctl.errors import ZotctlError
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of, parse_digest
from zotctl.storage import keys

SEEDS = int(os.environ.get("ZOTCTL_EXPLAINED", "40"))
FIELDS = ("removed_after_at", "trashed_after_at", "purged_after_at")
TAGS = ("v1", "v2", "nightly", "latest")


class Drawn:
    """A repository with a past, and rules, drawn from a number."""

    def __init__(self, kind: str, seed: int) -> None:
        self.rng, self.place = Random(seed), Place(kind)
        self.digests: list[Digest] = []
        self.blobs: list[Digest] = []
        self.rules = self._rules()
        for number in range(self.rng.randint(3, 12)):
            self._step(f"{seed}-{number}")
            self.place.clock.at += self.rng.choice([1, 5, 60, DELAY])
        self.place.clock.at += self.rng.choice([0, 0.5, DELAY / 2, DELAY, 5 * DELAY])

    def _rules(self) -> Rules:
        rng = self.rng
        if rng.random() < 0.4:
            return Rules(None, DELAY, foreign=rng.random() < 0.3, untagged=rng.random() < 0.7)

        def keep(**fields: Any) -> dict[str, Any]:
            fields["pushed_within"] = rng.choice([None, 3 * DELAY, 0.0])
            fields["pulled_within"] = rng.choice([None, 4 * DELAY])
            fields["most_recently_pushed_count"] = rng.choice([0, 0, 1, 2])
            return fields

        policy = Policy(
            ("**",), delete_referrers=rng.random() < 0.5, delete_untagged=rng.random() < 0.8,
            keep_tags=rng.choice([(), (KeepTags(**keep(patterns=("v.*", "sha256-.*"))), KeepTags(**keep()))]),
            keep_untagged=rng.choice([None, Keep(**keep())]),
        )  # fmt: skip
        return Rules(Retention(delay=rng.choice([None, 2 * DELAY]), policies=(policy,)), DELAY)

    def _step(self, seed: str) -> None:
        rng, place = self.rng, self.place
        some = rng.choice(self.digests) if self.digests else None
        tags = rng.sample(TAGS, rng.choice([0, 1, 1, 2]))
        action = rng.choice(["image", "image", "image", "index", "signature", "tagged signature", "untag", "delete",
                             "pull", "stray", "upload"])  # fmt: skip
        try:
            if action in ("untag", "delete") and some:
                place.store.repository(NAME).delete_manifest(rng.choice(TAGS) if action == "untag" else some)
            elif action == "pull" and some:
                place.store.repository(NAME).note_pull(some)
            elif action == "index" and some:
                chosen = sorted({some, rng.choice(self.digests)})
                self.digests.append(place.index(*tags, children=chosen))
            elif action == "stray" and some:
                place.store.repository_for_push(NAME).blob(some)
                self.blobs.append(_stray(place, seed))
            elif action == "upload" and some:
                place.store.repository_for_push(NAME).start_upload()
            else:
                subject = some if action == "signature" else None
                tags = [cosign_tag(some)] if action == "tagged signature" and some else tags
                self.digests.append(place.push(*tags, seed=seed, subject=subject))
                self.blobs += [digest_of(body) for body in images.image(seed).blobs]
        except ZotctlError:
            pass  # there is no such tag, or an index lists it

    def explained(self) -> dict[str, dict[str, Any]]:
        self.place.store.close()
        self.place.store = self.place.another()
        found, options = {}, GcOptions(DELAY, rules=self.rules)
        for digest in (*self.digests, *self.blobs):
            run = Run("gc", self.place.store)
            report = run.finish(lambda run=run, d=digest: explain(run, f"{NAME}@{d}", lambda _: options))  # type: ignore[misc]
            assert [e["error"] for e in report.errors] in ([], ["NotFound"]), report.errors
            if report.items:
                (found[str(digest)],) = report.items
        return found

    def collect(self) -> None:
        place = self.place
        place.store.close()
        place.store = place.another()
        from tests.jobs.test_gc import collect

        report = collect(place.store, DELAY, rules=self.rules)
        assert (report.errors, report.findings) == ([], [])

    # -- what is there --------------------------------------------------------------------------

    def in_place(self, digest: str) -> bool:
        return self.place.store.roots[0].stat(keys.blob(NAME, parse_digest(digest))) is not None

    def in_trash(self, digest: str) -> bool:
        if self.place.kind == "bucket":
            return False
        return any(
            key.startswith(keys.TRASH) and key.endswith(digest.partition(":")[2]) for key in self.place.driver.names
        )

    def has_row(self, digest: str) -> bool:
        try:
            return digest in self.place.store.repository(NAME).index()
        except ZotctlError:
            return False


def _stray(place: Place, seed: str) -> Digest:
    from tests.stores import push_blob

    return push_blob(place.store.repository_for_push(NAME), f"stray {seed}".encode())


def at(item: dict[str, Any], field: str) -> float | None:
    return datetime.fromisoformat(item[field]).timestamp() if field in item else None


def disagreements(drawn: Drawn) -> list[str]:
    said = drawn.explained()
    rows = {digest for digest in said if drawn.has_row(digest)}
    named = {t for item in said.values() for field in item if field.endswith("_after_at") if (t := at(item, field))}
    named |= {
        t for item in said.values() for going in item.get("tags_going", ()) if (t := at(going, "removed_after_at"))
    }
    wrong = list[str]()
    for now in sorted({max(t, drawn.place.clock.at) for t in named} | {max(named, default=0.0) + 20 * DELAY}):
        drawn.place.clock.at = max(now, drawn.place.clock.at)
        drawn.collect()
        for digest, item in said.items():
            there = drawn.in_place(digest) or drawn.in_trash(digest)
            if item["verdict"] == "kept" and not drawn.in_place(digest):
                wrong.append(f"{now}: {digest} is gone: {item}")
            if item["verdict"] == "gone" and there:
                wrong.append(f"{now}: {digest} is there: {item}")
            removed, trashed = drawn.has_row(digest), drawn.in_place(digest)
            for field, holds in zip(FIELDS, (removed, trashed, there), strict=True):
                then = at(item, field)
                if then is None or (field == "removed_after_at" and digest not in rows):
                    continue
                if then <= now and holds:
                    wrong.append(f"{now}: {field} was {then}: {digest} {item}")
                if then > now + 1 and not holds:  # reports have whole seconds
                    wrong.append(f"{now}: {field} is {then}, and it is too early: {digest} {item}")
    return wrong


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_what_is_said_is_done_and_not_before(kind: str, first: int) -> None:
    for seed in range(first, first + 10):
        drawn = Drawn(kind, seed)
        assert disagreements(drawn) == [], f"seed {seed}: {drawn.rules}"
