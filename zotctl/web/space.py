"""What uses the space of a store: own and shared bytes of each repository, as its manifests say. Nothing is hashed."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from zotctl.errors import StorageError, ZotctlError
from zotctl.jobs.run import Run
from zotctl.jobs.stores import jobs_of
from zotctl.storage import Repository
from zotctl.storage.root import Root

MOST_FOLDERS = 10_000
MOST_TRASHED = 10_000
"""Folders of the trash, and blobs of each, whose sizes are added up."""


class RepositorySpace(NamedTuple):
    """A repository. `own`: bytes that no other repository of its root needs. `shared`: bytes that another one needs,
    too."""

    root: str
    name: str
    own: int
    shared: int


class SpaceUsed(NamedTuple):
    """The space of all roots of a run, in bytes. `shared`: what several repositories need, counted once. `unknown`:
    repositories that could not be looked at."""

    repositories: list[RepositorySpace]
    shared: int
    trash: int
    unknown: int

    @property
    def total(self) -> int:
        """In bytes."""
        return sum(one.own for one in self.repositories) + self.shared + self.trash


def space_used(run: Run) -> SpaceUsed:
    """Measure every repository of the run whose storage can be reached. On a root that does not deduplicate, each
    repository has its own copy of everything."""
    repositories: list[RepositorySpace] = []
    shared = trash = unknown = 0
    for root in run.roots:
        if root.label in run.away or root.state() is not None:
            continue
        sizes, failed = _sizes(run, root)
        unknown += failed
        if root.config is not None and not root.config.dedupe:
            repositories += [RepositorySpace(root.label, name, sum(each.values()), 0) for name, each in sizes.items()]
        else:
            owners: dict[str, int] = {}
            for each in sizes.values():
                for digest in each:
                    owners[digest] = owners.get(digest, 0) + 1
            for name, each in sizes.items():
                own = sum(size for digest, size in each.items() if owners[digest] == 1)
                repositories.append(RepositorySpace(root.label, name, own, sum(each.values()) - own))
            several = {d: size for each in sizes.values() for d, size in each.items() if owners[d] > 1}
            shared += sum(several.values())
        trash += _in_trash(root)
    repositories.sort(key=lambda one: (-one.own - one.shared, one.name))
    return SpaceUsed(repositories, shared, trash, unknown)


def _sizes(run: Run, root: Root) -> tuple[dict[str, dict[str, int]], int]:
    """By repository, the size of each digest; and how many could not be looked at."""
    found: dict[str, dict[str, int]] = {}
    failed = 0
    with suppress(StorageError):
        only = run.store.only
        for name in [only] if only is not None else root.catalog.everything():
            if not run.covers(name):
                continue
            try:
                snapshot = root.protocol.indexes.read(name)
                found[name] = Repository(root, name, snapshot, wait=True).usage()
            except ZotctlError:
                failed += 1
    return found, failed


def _in_trash(root: Root) -> int:
    with suppress(StorageError):
        trash = jobs_of(root).trash()
        return sum(one.size for one in trash.look(MOST_FOLDERS, MOST_TRASHED)) if trash is not None else 0
    return 0
