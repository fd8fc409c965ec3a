"""The reader of content that a digest names, wherever its object lies by now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zotctl.errors import Changed, IoFailed, NotFound
from zotctl.storage.driver import Info, Reader, Stream, StreamedReader

REOPENINGS = 3
"""How often one piece is looked for in another object. Each time the last one was replaced or removed meanwhile."""

T = TypeVar("T")


class ContentReader:
    """`Reader` of a blob or a manifest. For one thread at a time.

    Where an answer of the object store broke off, the rest is asked for by another request. By then a push may have put
    the same content there anew, or `dedupe` may have moved it. Every object that may be read under the digest has its
    bytes, so the reader goes on in the one that is there now. Each method may raise what `reopen` raises.
    """

    def __init__(self, reopen: Callable[[], Reader]) -> None:
        """`reopen`: looks for the object and opens it. It is called for the first time here."""
        self._reopen, self._inner = reopen, reopen()
        self.size = self._inner.size

    def info(self) -> Info:
        """Of the object that is open now."""
        return self._inner.info()

    def fileno(self) -> int | None:
        """None: there is no file."""
        return self._inner.fileno()

    def read_at(self, offset: int, count: int) -> bytes:
        """In the next object as a whole, if this one is gone."""
        return self._read(lambda reader: reader.read_at(offset, count))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """In the next object as a whole, if this one is gone, which may have left anything in `buffer`."""
        return self._read(lambda reader: reader.read_into(offset, buffer))

    def stream(self, offset: int) -> Stream | None:
        """From the next object, if this one is gone before it begins; what ends early is read on by `read_at`."""
        return self._read(lambda reader: reader.stream(offset) if isinstance(reader, StreamedReader) else None)

    def passed(self, count: int) -> None:
        """Told to the reader of the stream."""
        if isinstance(self._inner, StreamedReader):
            self._inner.passed(count)

    def _read(self, step: Callable[[Reader], T]) -> T:
        for left in reversed(range(REOPENINGS + 1)):
            if self._inner.size != self.size:  # asked each time: after this error, too
                raise IoFailed(f"{self._inner.size} bytes are where {self.size} were, under the same digest")
            try:
                return step(self._inner)
            except (Changed, NotFound):
                if not left:
                    raise
                self._inner.close()
                self._inner = self._reopen()
        raise AssertionError("the last look returns or raises")

    def once(self) -> None:
        """Nothing is kept of what was read."""

    def uncache(self) -> None:
        """The same."""

    def labels(self) -> dict[str, bytes]:
        """None: objects have no extended attributes."""
        return {}

    def close(self) -> None:
        """Close the object that is open now."""
        self._inner.close()

    def __enter__(self) -> ContentReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
