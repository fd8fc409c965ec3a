"""The repositories of a bucket, from the list in `.zotctl/names/` (s3.md 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zotctl.storage import keys
from zotctl.storage.s3.site import Site


class Listed:
    def __init__(self, site: Site) -> None:
        self._site = site

    def walk(self, last: str | None = None, wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
        """In the order of their components, which is not that of a bucket: so all are listed, 1000 to a request."""
        prefix = f"{keys.NAMES}/"
        names = [keys.name_of(found.key.removeprefix(prefix)) for found in self._site.objects.list(prefix)]
        after = last.split("/") if last else []
        for name in sorted(names, key=lambda name: name.split("/")):
            if name.split("/") > after and (wanted is None or wanted(name)):
                yield name
