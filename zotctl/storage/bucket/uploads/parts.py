"""A multipart upload of equal parts (docs/design/bucket.md#uploads): R2 takes no others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from zotctl.errors import NotFound, OutcomeUnknown, SizeInvalid
from zotctl.storage.bucket.objects.seam import Object, Objects

MOST_PARTS = 10_000
"""Of S3."""
ATTEMPTS = 3


class Parts:
    """`etags` of the parts that were sent. Without `senders`, one goes after the other."""

    def __init__(
        self, objects: Objects, target: str, upload: str, etags: Sequence[str], senders: ThreadPoolExecutor | None
    ) -> None:
        self.target, self.upload = target, upload
        self._objects, self._senders = objects, senders
        self._etags = list(etags)
        self.completed = False
        """By us: there is nothing to abort."""
        self._sending: dict[int, tuple[int, Future[str]]] = {}

    @property
    def count(self) -> int:
        """Those under way, too."""
        return len(self._etags)

    def send(self, half: int, body: memoryview) -> None:
        """The next part, out of a half of the tail, which is not to be touched before `wait`. Raises SizeInvalid, and
        NotFound if the upload was ended."""
        if self.count >= MOST_PARTS - 1:
            size = f"{MOST_PARTS} parts of {len(body)} bytes"
            raise SizeInvalid(f"a blob of unknown size can have {size} at the most; send it with a Content-Length")
        self._etags.append("")
        number = self.count
        if self._senders is None:
            self._etags[-1] = self._put_once(number, body)
        else:
            self._sending[half] = (number, self._senders.submit(self._put_once, number, body))

    def wait(self, half: int) -> None:
        """Until the part out of this half was sent."""
        if half in self._sending:
            number, sent = self._sending.pop(half)
            self._etags[number - 1] = sent.result()

    def settle(self) -> tuple[str, ...]:
        """Until all were sent: their ETags."""
        for half in list(self._sending):
            self.wait(half)
        return tuple(self._etags)

    def abandon(self) -> None:
        """Until no thread uses the tail any more, whatever became of it."""
        for _, sent in self._sending.values():
            if not sent.cancel():
                sent.exception()
        self._sending.clear()

    def complete(self, last: memoryview, size: int) -> Object | None:
        """Make the object out of them and of what is left; it is not noted as a part, so that more can follow if
        this fails. None: another request has ended it, and the target does not have this size."""
        etags = self.settle()
        try:
            if len(last):
                etags += (self._put(len(etags) + 1, last),)
            return Object(self.target, size, self._complete(etags), 0.0, 0.0)
        except NotFound:
            return self._there(size)

    def _complete(self, etags: tuple[str, ...]) -> str:
        for _ in range(ATTEMPTS):
            try:
                etag = self._objects.complete_parts(self.target, self.upload, etags)
                self.completed = True
                return etag
            except OutcomeUnknown as error:  # asked again, a Complete that was done is NotFound
                failure = error
        raise failure

    def _there(self, size: int) -> Object | None:
        """A Complete whose answer was lost: MinIO and others know nothing of it any more when they are asked again."""
        try:
            found = self._objects.head(self.target)
        except NotFound:
            return None
        return found if found.size == size else None

    def _put_once(self, number: int, body: memoryview) -> str:
        with body:
            return self._put(number, body)

    def _put(self, number: int, body: memoryview) -> str:
        return self._objects.put_part(self.target, self.upload, number, body)
