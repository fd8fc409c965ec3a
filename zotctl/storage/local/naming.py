"""A verified file gets a name: the file whose bytes were looked at, and no other that took its name meanwhile.

Between a look at a name and a call that uses it, another process may have put something else there. So the file is
first given a name that is only ours (`link` into `tmp`), that name is compared with the file that was held, and then
what has to be done is done with that name: nothing can come between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from zotctl.errors import Changed, Exists
from zotctl.storage import keys
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.context import LocalContext


@contextmanager
def own_name(context: LocalContext, key: str, held: HeldFile) -> Iterator[str]:
    """One more name of a held file that `key` leads to, for as long as the block runs; only ours.

    What is linked or renamed from it is the file that was looked at. Raises Changed if `key` leads to another file by
    now or its bytes were changed, NotFound if it leads nowhere, CannotLink. Safe beside any thread and process.
    """
    temp = keys.tmp(context.clock.token())
    try:
        with suppress(Exists):  # no other process has this name: a network told of an error, and yet it was done
            context.driver.link(key, temp)
        if not held.is_at(context.stat(temp)):
            raise Changed(f"{key} leads to another file than the one that was looked at")
        yield temp
    finally:
        context.discard(temp)
