"""Blobs that get their names together: one flush for many, and no name before its bytes are on the device (I2)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple

from zotctl.errors import CannotLink, NotFound
from zotctl.oci.digest import Digest
from zotctl.storage import keys
from zotctl.storage.local.context import LocalContext

MOST = 256
"""Blobs that wait at the most."""
LONGEST = 5.0
"""Seconds that the first one waits at the most, while others come: what lies in `tmp` for a minute may be swept."""


class _Waiting(NamedTuple):
    name: str
    digest: Digest
    temp: str


class LocalGathering:
    """What one job publishes. For several threads; `close` drops what still waits."""

    def __init__(self, context: LocalContext, publish: Callable[[str, Digest, str], None]) -> None:
        """`publish` flushes what is there already, since it need not be what was gathered."""
        self._context, self._publish = context, publish
        self._waiting: list[_Waiting] = []
        self._since = 0.0
        self._mutex = threading.RLock()

    def here(self) -> AbstractContextManager[None]:
        """In this thread, what is published waits for `flush`; so does what needs no flush, but for its own."""
        return self._context.durable.postponing(self)

    def add(self, name: str, digest: Digest, staged: str) -> None:
        """Verified bytes. The staged name may be left over, as after a publication."""
        temp = keys.tmp(self._context.clock.token())
        try:
            self._context.driver.link(staged, temp)
        except CannotLink:
            self._context.driver.rename(staged, temp)
        with self._mutex:
            if not self._waiting:
                self._since = self._context.clock.elapsed()
            self._waiting.append(_Waiting(name, digest, temp))
            if len(self._waiting) >= MOST or self._context.clock.elapsed() - self._since > LONGEST:
                self.flush()

    def flush(self) -> None:
        """See the bytes to the device, and then give them their names. Raises NotFound: a temporary file is gone."""
        with self._mutex:
            durable = self._context.durable
            if not durable.everything(len(self._waiting)):
                for one in self._waiting:
                    durable.flushed(one.temp)
            with durable.postponing():
                for one in self._waiting:
                    self._publish(one.name, one.digest, one.temp)
            self.close()

    def close(self) -> None:
        with self._mutex:
            for one in self._waiting:
                with suppress(NotFound):
                    self._context.driver.unlink(one.temp)
            self._waiting.clear()

    def __enter__(self) -> LocalGathering:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
