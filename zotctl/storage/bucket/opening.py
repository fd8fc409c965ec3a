"""A bucket becomes a root: reached, looked at, and tried out before the first write.

Five requests at the most, however much is stored (I12). botocore is loaded with the first client, so opening
no bucket doesn't wait for it.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from zotctl.config import Address, RootConfig, Route, S3Config, parse_address
from zotctl.errors import Changed, ConfigError, NoBucket, NoSuchStore, NotFound, Unavailable
from zotctl.storage import keys
from zotctl.storage.bucket.context import PARALLEL_REQUESTS, BucketContext
from zotctl.storage.bucket.lease import SingleWriterLease, refuse_beside_one
from zotctl.storage.bucket.objects.client import BucketSettings, Client
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import Objects
from zotctl.storage.bucket.objects.wrappers import FirstWriteGate
from zotctl.storage.bucket.probe import probe, require_shared, require_whole
from zotctl.storage.bucket.protocol import BucketProtocol
from zotctl.storage.bucket.uploads.buffer import MemoryBudget
from zotctl.storage.bucket.workers import SERVER_DAMAGE, SERVER_DELETIONS, SERVER_LOSSES
from zotctl.storage.clock import Clock
from zotctl.storage.distribution import ROOT, is_tree, way_over
from zotctl.storage.root import FORMAT_BODY, Root, refuse_unknown_format
from zotctl.storage.turns import SERVER_TURNS, at_once

log = logging.getLogger("zotctl.storage")
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
"""It warns of each connection beyond those that are kept, which is no fault: slow clients have one each."""


def open_bucket(
    settings: RootConfig,
    clock: Clock,
    *,
    read_only: bool = False,
    serving: bool = False,
    foreign: bool = False,
    route: Route | None = None,
) -> Root:
    """Open one bucket. `serving`: one that is away now will be there later, and one that can't be shared is refused at
    once. `foreign`: also the storage of another registry, to be read by an import. Raises Unavailable, NoSuchStore,
    PermissionRefused with the identity that was refused, ConfigError."""
    s3 = settings.s3 or S3Config()
    client = Client(bucket_settings(parse_address(settings.path), s3), clock)
    objects = Retrying(client, clock)
    # The processes of a server, which follow each other, are one.
    process = os.getppid() if serving else os.getpid()
    writer = SingleWriterLease(objects, clock, process) if s3.single_writer else None
    gate = FirstWriteGate(
        objects,
        None if read_only else partial(_prepare, objects, clock, client, writer),
        writer.release if writer else lambda: None,
    )
    context = BucketContext(
        gate,
        clock,
        dedupe=settings.dedupe,
        delay=settings.gc_delay,
        read_only=read_only,
        writes=lambda: serving or gate.crossed,
        single_writer=s3.single_writer,
        server=client.endpoint,
        direct=client if serving else None,  # a job waits until the bucket is there again
        deletions=SERVER_DELETIONS,
        lost=SERVER_LOSSES,
        marked=SERVER_DAMAGE,
        turn=SERVER_TURNS.of(objects.label, clock) if serving else at_once,
        threads=ThreadPoolExecutor(PARALLEL_REQUESTS, "bucket"),
    )
    _look_in(context, gate, serving=serving, create=settings.create, foreign=foreign)
    redirect_lifetime_s = s3.redirect_lifetime if s3.redirect else None
    return Root(
        BucketProtocol(context, MemoryBudget(s3.upload_memory), redirect_lifetime_s), read_only, settings, route
    )


def preload_bucket(settings: RootConfig) -> None:
    """Before processes are forked: what they share of the way to a bucket. Asks nothing of it."""
    from zotctl.storage.bucket.objects.connection import prepare

    prepare(bucket_settings(parse_address(settings.path), settings.s3 or S3Config()))


def bucket_settings(address: Address, s3: S3Config) -> BucketSettings:
    """As the configuration has it. Raises nothing: what can't be used, the client says."""
    return BucketSettings(
        bucket=address.bucket,
        prefix=address.prefix,
        endpoint=s3.endpoint,
        region=s3.region,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
        session_token=s3.session_token,
        profile=s3.profile,
        addressing=s3.addressing,
        dual_stack=s3.dual_stack,
        accelerate=s3.accelerate,
        verify=False if s3.insecure else s3.ca or True,
        storage_class=s3.storage_class,
        encryption=s3.encryption,
        kms_key=s3.kms_key,
        acl=s3.acl,
        max_connections=s3.max_connections,
    )


def _look_in(context: BucketContext, gate: FirstWriteGate, *, serving: bool, create: bool, foreign: bool) -> None:
    """Is it there, and of a format that we know? A server is to start beside an object store that is still starting,
    so it asks once and goes on; a job waits as for any other request."""
    try:
        used = _is_used(context.direct or context.objects)
        if not (used or serving or create) and next(context.objects.names(""), None) is None:
            raise NoSuchStore(f"nothing is stored at {context.objects.label}: is that the right bucket and prefix?")
        if not (used or foreign):
            _refuse_distribution(context.direct or context.objects)
        context.look_for_pool()
        if serving and not context.read_only:
            gate.ready()
    except NoBucket as error:
        raise NoSuchStore(error.message) from error
    except Unavailable as error:
        if not serving:
            raise
        log.warning(f"{context.objects.label} is away, and is served as soon as it is there: {error.message}")


def _is_used(objects: Objects) -> bool:
    """Has it a `version`? Raises ConfigError for a format of a later version, and what the bucket raises."""
    with suppress(NotFound):
        found = objects.get(keys.VERSION)
        refuse_unknown_format(found[1] if found else b"", objects.label)
        return True
    return False


def _refuse_distribution(objects: Objects) -> None:
    """Raise ConfigError for the storage of another registry, which would be served as an empty store."""
    if is_tree(objects.names(ROOT)):
        raise ConfigError(way_over(objects.label))


def _prepare(objects: Objects, clock: Clock, client: Client, writer: SingleWriterLease | None) -> None:
    """What has to be known before anything is written. `writer`: no other process writes there.

    Raises ConfigError where two processes would lose each other's writes, naming what is missing, and HeldElsewhere
    beside a single writer.
    """
    used = _is_used(objects)
    if not used and (above := client.store_above()) is not None:
        raise ConfigError(f"{objects.label} lies in the store {above}: name that one, and what to look at by --repo")
    if not used:
        _refuse_distribution(objects)
    if writer is None:
        refuse_beside_one(objects)
    else:
        writer.refuse_beside_another()
    found = probe(objects, clock, client.endpoint)
    require_whole(objects.label, found)
    require_shared(objects.label, found, single_writer=writer is not None)
    if writer is not None:
        writer.claim()
    if not used:
        with suppress(Changed):
            objects.put(keys.VERSION, FORMAT_BODY, absent=True)
