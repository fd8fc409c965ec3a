"""`import-layout --move`: removes a layout that was imported, once all of it is in the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress

from zotctl.config import is_bucket
from zotctl.errors import LayoutInvalid, NotEmpty, NotFound, StorageError, UsageError, ZotctlError
from zotctl.jobs.imports.repository import RepositoryImport
from zotctl.jobs.imports.sources import StoredLayout, is_archive, store_above
from zotctl.jobs.run import Run
from zotctl.oci.digest import check_digest
from zotctl.storage import Store, keys
from zotctl.storage.digests import Digests
from zotctl.storage.driver import Driver, Info, place, read
from zotctl.storage.file_identity import same_file
from zotctl.storage.index import LARGEST_INDEX_BYTES, parse_index


def move(run: Run, layout: StoredLayout, importing: list[RepositoryImport], reason: str) -> None:
    """Remove the source, if all of it is in the store: what was left out exists nowhere else. `reason`: why it
    stays."""
    if not reason and any(True for _ in layout.index.unclear()):
        reason = "not all of it was imported"
    indexes = [one.index() for one in importing] if not reason else []
    if not reason and not any(index.says_all_of(layout.index) for index in indexes):
        reason = "what its index.json says beside its rows was not imported"
    if not reason and not all(any(index.says_all_of_row(row) for index in indexes) for row in layout.index.rows()):
        reason = "what a row of its index.json says beside its manifest was not imported"
    if reason:
        run.item(action="stay", source=layout.label, reason=f"{reason}, so it is left in place")
        return
    digests = Digests(digest for one in importing for digest in one.verified)
    for one in importing:
        one.root.maintenance.flush(one.name, one.verified)  # or a power cut could take both away

    def taken() -> None:
        """Raise UsageError if setting the source's index aside has removed the repository's: then the two are one."""
        for one in importing:
            if not one.has_all():
                raise UsageError(f"{layout.label} is the repository {one.name} itself, by another path: it stays")

    remove_layout(layout, digests, taken)
    run.item(action="remove", source=layout.label, blobs=len(digests))


def refuse_move(source: str) -> None:
    """Raise UsageError if a source can't be moved. Only a layout outside of any store can: clients of a store may rely
    on what would be removed (I6)."""
    if is_bucket(source):
        raise UsageError(f"--move removes image layouts in directories, not in buckets: {source}")
    real = os.path.realpath(source)
    if is_archive(source):
        raise UsageError(f"--move removes image layouts in directories, not archives: {source}")
    if (store := store_above(real)) is not None:
        raise UsageError(f"{source} belongs to the store {store}: import it without --move, then delete it there")


def refuse_served(store: Store, layout: StoredLayout) -> None:
    """Raise UsageError if a layout is a repository of the store by another path, such as a bind mount: its content
    would count as imported, and be removed."""
    here = [info_of(layout.driver, key) for key in (layout.name, keys.blobs(layout.name))]
    for root in (root for root in store.roots if not root.by_requests):
        for name in root.catalog.everything():
            there = [info_of(root.driver, key) for key in (name, keys.blobs(name))]
            if any(same_file(one, other) for one, other in zip(here, there, strict=True)):
                raise UsageError(f"{layout.label} is the repository {name} of the store {root.label}, by another path")


def info_of(driver: Driver, key: str) -> Info | None:
    """What a key leads to; None: nothing, or that can't be told."""
    with suppress(StorageError):
        return driver.stat(key)
    return None


def remove_layout(layout: StoredLayout, digests: Collection[str], taken: Callable[[], None]) -> None:
    """Remove the files of a layout that was imported, and no others.

    Its index is set aside first, so that no reader sees a layout without blobs, and a run that was killed can continue.
    Then `taken` is called; it raises ZotctlError if what was imported is not in the store any more. Raises
    LayoutInvalid if the layout was changed meanwhile.
    """
    driver, name = layout.driver, layout.name
    aside = keys.index_set_aside(name)
    with suppress(NotFound):  # set aside by a run that was cut
        driver.rename(keys.index(name), aside)
    try:
        _require_same(layout, aside)
        taken()
    except ZotctlError:
        _put_back(driver, aside, keys.index(name))
        raise
    for digest in digests:
        _discard(driver, keys.blob(name, check_digest(digest)))
    for key in (keys.layout(name), aside):
        _discard(driver, key)
    algorithms = sorted({digest.partition(":")[0] for digest in digests})
    folders = [*(keys.blobs_of(name, algorithm) for algorithm in algorithms), keys.blobs(name), name]
    for folder in folders:
        with suppress(NotFound, NotEmpty, StorageError):
            driver.rmdir(folder)


def _require_same(layout: StoredLayout, key: str) -> None:
    """Raise LayoutInvalid if the index was changed. It is read after it was set aside, when no tool can change it."""
    now = parse_index(read(layout.driver, key, LARGEST_INDEX_BYTES))
    if now.render() != layout.index.render():
        raise LayoutInvalid(f"{layout.label} was changed while it was imported; it is left in place, run it again")


def _put_back(driver: Driver, aside: str, key: str) -> None:
    """Put an index back, unless a tool has written a new one meanwhile."""
    place(driver, aside, key)
    _discard(driver, aside)


def _discard(driver: Driver, key: str) -> None:
    with suppress(NotFound):
        driver.unlink(key)
