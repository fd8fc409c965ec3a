"""What pushes and crashes leave behind on a bucket: dead uploads and intents, names of repositories that are gone."""

from __future__ import annotations

from contextlib import suppress

from zotctl.errors import StorageError
from zotctl.jobs.bucket.ahead import Ahead
from zotctl.jobs.bucket.eligibility import Reached
from zotctl.jobs.run import Run
from zotctl.jobs.uploads import JUST_BEGUN
from zotctl.storage import keys
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.protocol import bucket_of
from zotctl.storage.root import Root


def sweep(run: Run, root: Root, delay: float, known: Reached, ahead: Ahead) -> None:
    """Everything that is older than the grace period and that no client continues."""
    _uploads(run, root, max(delay, JUST_BEGUN), ahead)
    _gone_by(root, keys.INTENTS, ahead)  # of collectors that have died
    _gone_by(root, keys.TMP, ahead)  # of those who died while they tried out the server
    if run.whole:
        _names(root, delay, known, ahead)


def _uploads(run: Run, root: Root, older_than: float, ahead: Ahead) -> None:
    for purged in bucket_of(root).uploads.purge(older_than, ahead.age):
        run.item(action="purge_upload", upload=purged.id, size_bytes=purged.size)
        run.add("uploads")
        run.add("purged_bytes", purged.size)
        run.check()


def _gone_by(root: Root, directory: str, ahead: Ahead) -> None:
    """Twice as old as an intent that counts, so that no collector is in the middle of it."""
    objects = bucket_of(root).context.objects
    for found in objects.list(f"{directory}/"):
        if ahead.age(found) > 2 * INTENT_LIFETIME_S:
            objects.delete(found.key)


def _names(root: Root, delay: float, known: Reached, ahead: Ahead) -> None:
    """Of repositories without an index.json. Who makes one just now writes its name first; taken away all the same,
    it is missing in lists until the next run of a job (`storage.bucket.catalog`)."""
    context = bucket_of(root).context
    for found in context.objects.list(f"{keys.NAMES}/"):
        name = keys.name_of(found.key.removeprefix(f"{keys.NAMES}/"))
        if not name or name in known.walked or ahead.age(found) < delay:
            continue
        with suppress(StorageError):
            if context.head(keys.index(name)) is None:
                context.objects.delete(found.key)
                context.objects.delete(keys.first_seen(name))
                context.objects.delete(keys.facts(name))
                for event in context.objects.list(f"{keys.history(name)}/"):
                    context.objects.delete(event.key)
