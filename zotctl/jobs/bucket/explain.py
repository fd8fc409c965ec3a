"""`gc --explain` for what no manifest of a repository on a bucket reaches: by which rule it goes, and when."""

from __future__ import annotations

from collections.abc import Iterator

from zotctl.jobs.bucket.eligibility import SHARED_BY_ZOT, Eligibility
from zotctl.jobs.bucket.first_unreachable import SLACK, FirstUnreachable
from zotctl.jobs.report import time_of
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.bucket.objects.seam import Object
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.root import Root


def fate(run: Run, root: Root, name: str, digest: Digest, delay: float) -> Iterator[dict[str, object]]:
    """For its own copy, and for the pool's if the repository holds it."""
    context, judge = bucket_of(root).context, Eligibility(run, bucket_of(root).context, delay)
    reservation = context.head(keys.reservation(digest, name))
    if (own := context.head(keys.blob(name, digest))) is not None:
        if bucket_of(root).stubs.remain():
            yield {"verdict": "kept", "why": SHARED_BY_ZOT}
            return
        yield _item(judge, name, own, reservation, FirstUnreachable(context, name).at(own.key))
    elif reservation is not None and (shared := context.head(keys.shared(digest))) is not None:
        others = [other for other in bucket_of(root).grants.of_digest(digest) if other != name]
        seen = FirstUnreachable(context, keys.SHARED)
        since = [at for key in (shared.key, reservation.key) if (at := seen.at(key)) is not None]
        yield _item(judge, name, shared, reservation, max(since, default=None), others)


def _item(
    judge: Eligibility,
    name: str,
    blob: Object,
    reservation: Object | None,
    seen: float | None,
    others: list[str] | None = None,
) -> dict[str, object]:
    newest = max(blob.modified, reservation.modified if reservation else 0.0)
    why = "no manifest reaches it"
    if others:
        why += f" here; its bytes stay in the pool while others need them: {', '.join(others)}"
    if not judge.is_old(name, blob):
        why += "; it is younger than the delay, or than an upload into this repository that is still moving"
    if seen is not None and newest + judge.window + SLACK > seen:
        why, seen = f"{why}; it was asked for since it was seen, so its delay begins anew", None
    found: dict[str, object] = {"verdict": "goes", "why": why}
    if seen is not None:
        found["first_seen_at"] = time_of(seen)
    begins = seen if seen is not None else max(judge.now, newest + judge.delay)
    return found | {"purged_after_at": time_of(begins + judge.delay)}
