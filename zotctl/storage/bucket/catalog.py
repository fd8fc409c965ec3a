"""The repositories of a bucket (docs/design/bucket.md#the-tree): from the list in `.zotctl/names/`, which costs a
request for a thousand that are asked for, or by a walk, which costs one each.

The list is a cache. What came here by other ways than a push, it does not have: so it is made by a walk when there was
none, and each job walks, and adds to it what it lacks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from zotctl.errors import NameInvalid, StorageError
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name
from zotctl.storage import keys
from zotctl.storage.bucket.context import BucketContext
from zotctl.storage.protocol import OnSkipped

log = logging.getLogger("zotctl.storage")

FOLDERS_AT_ONCE = 64
"""So many are listed side by side."""


class BucketCatalog:
    """`Catalog` on a bucket. Safe between threads; each method may raise what a list raises."""

    def __init__(self, context: BucketContext) -> None:
        self._context = context
        self._stores: set[str] = set()
        self._made = False
        """The list was made once: it has at least what was here then, and what was pushed."""

    def walk(self, last: str | None = None, wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
        """In the order of their components, which is that of the list: 1000 to a request, as they are asked for."""
        if self._is_made():
            names = self._listed(last)
        else:
            after = last.split("/") if last else []
            names = (name for name in self.everything() if name.split("/") > after)
        yield from names if wanted is None else filter(wanted, names)

    def everything(self, on_skipped: OnSkipped | None = None) -> Iterator[str]:
        """What is really there, as jobs want it; then the list has it, too. A bucket is seen whole, or not at all, so
        nothing is ever skipped."""
        found = _sorted(self._walk())
        self._complete(found, set(self._listed()))
        yield from found

    def _is_made(self) -> bool:
        self._made = self._made or self._context.head(keys.NAMES_MADE) is not None
        return self._made

    def _listed(self, last: str | None = None) -> Iterator[str]:
        after = keys.listed_name(last) if last else ""
        for found in self._context.objects.list(keys.below(keys.NAMES), after=after):
            if found.key == keys.NAMES_MADE:
                self._made = True
            elif name := keys.name_listed(found.key):
                yield name

    def _complete(self, found: list[str], listed: set[str]) -> None:
        """Never raises: without it, the next one walks, too."""
        lacking = [name for name in found if name not in listed]
        with suppress(StorageError):
            if self._context.writes() and not self._context.read_only and (lacking or not self._made):
                self._context.each(
                    [partial(self._context.objects.put, keys.listed_name(name), b"") for name in lacking]
                )
                self._context.objects.put(keys.NAMES_MADE, b"")
                self._made = True

    def _walk(self) -> Iterator[str]:
        """Level by level, many directories at once."""
        level = [""]
        while level:
            below: list[str] = []
            for start in range(0, len(level), FOLDERS_AT_ONCE):
                some = level[start : start + FOLDERS_AT_ONCE]
                found = self._context.each([partial(self._scan, directory) for directory in some])
                for directory, (is_layout, inside) in zip(some, found, strict=True):
                    below += inside
                    if is_layout:
                        yield directory
            level = below

    def _scan(self, directory: str) -> tuple[bool, list[str]]:
        """Is it a layout, and which directories are below it that have the name of a repository?"""
        is_layout, below = False, list[str]()
        for name, is_folder in self._context.objects.names(directory):
            if directory and is_folder and name == keys.HIDDEN:
                self._report_store(directory)
                return False, []
            is_layout = is_layout or (name == LAYOUT_FILE and bool(directory))
            with suppress(NameInvalid):
                if is_folder:
                    below.append(parse_name(f"{directory}/{name}" if directory else name))
        return is_layout, below

    def _report_store(self, directory: str) -> None:
        """A store of its own below this one: its servers make their reservations there, where no job of ours looks."""
        if directory not in self._stores:
            self._stores.add(directory)
            label = self._context.objects.label
            log.warning(f"{label}/{directory} is a store of its own and is left out: name it by its own address")


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: name.split("/"))
