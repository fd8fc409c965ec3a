"""Objects that are written in parts. All parts but the last have the same size, since R2 takes no others.

`Parts` is one multipart upload. `replace` writes bytes under a key only if they have the right digest (I2): a small
object by one PUT, a larger one by parts that become an object after all were hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from zotctl.errors import Changed, DigestInvalid, NotFound, OutcomeUnknown, SizeInvalid, StorageError
from zotctl.oci.digest import Digest, digest_of_hash, new_hash
from zotctl.storage.bucket.objects.seam import Object, Objects
from zotctl.storage.driver import hash_of

PART_BYTES = 16 << 20
"""The size of a part, unless the memory for uploads is small or the blob very large."""
SMALLEST_PART_BYTES = 5 << 20
"""S3 refuses smaller ones, but for the last."""
MOST_PARTS = 10_000
"""The most parts that S3 takes for one object."""
MOST_BYTES = 5 << 40
"""The largest object of all that take parts: 5 TiB."""
COMPLETE_ATTEMPTS = 3


class Parts:
    """A multipart upload of the object `target` with the id `upload`, of which the parts with `etags` were sent.

    With `senders`, each part is sent by one of its threads; without, `send` returns when it is there. For one caller
    at a time.
    """

    def __init__(
        self, objects: Objects, target: str, upload: str, etags: Sequence[str], senders: ThreadPoolExecutor | None
    ) -> None:
        self.target, self.upload = target, upload
        self._objects, self._senders = objects, senders
        self._etags = list(etags)
        self.completed = False
        """Did this process complete it? Then there is nothing to abort."""
        self._sending: dict[int, tuple[int, Future[str]]] = {}

    def send(self, half: int, body: memoryview) -> None:
        """The next part, out of a half of the buffer, which must not change before `wait` returns for it. Raises
        SizeInvalid, and NotFound if the upload was ended."""
        if len(self._etags) >= MOST_PARTS - 1:
            size = f"{MOST_PARTS} parts of {len(body)} bytes"
            raise SizeInvalid(f"a blob of unknown size can have {size} at the most; send it with a Content-Length")
        self._etags.append("")
        number = len(self._etags)
        if self._senders is None:
            self._etags[-1] = self._put(number, body)
        else:
            self._sending[half] = (number, self._senders.submit(self._put, number, body))

    def _put(self, number: int, body: memoryview) -> str:
        with body:
            return self._objects.put_part(self.target, self.upload, number, body)

    def wait(self, half: int) -> None:
        """Wait until the part in this half was sent. Raises what sending it raised."""
        if half in self._sending:
            number, sent = self._sending.pop(half)
            self._etags[number - 1] = sent.result()

    def settle(self) -> tuple[str, ...]:
        """Wait until all parts were sent, and return their ETags. Raises what sending one raised."""
        for half in list(self._sending):
            self.wait(half)
        return tuple(self._etags)

    def abandon(self) -> None:
        """Wait until no thread uses the buffer any more, and ignore errors of its parts."""
        for _, sent in self._sending.values():
            if not sent.cancel():
                sent.exception()
        self._sending.clear()

    def complete(self, last: memoryview, size: int) -> Object | None:
        """Make the object of `size` bytes out of the parts and of what is left. The last part is not noted, so that
        more can follow if this fails. None: another request has ended the upload, and the target, if there is one,
        has another size."""
        etags = self.settle()
        try:
            if len(last):
                etags += (self._objects.put_part(self.target, self.upload, len(etags) + 1, last),)
            return Object(self.target, size, self._complete(etags), 0.0, 0.0)
        except NotFound:
            pass
        # Also after a Complete whose answer was lost: MinIO and others know nothing of it when they are asked again.
        try:
            found = self._objects.head(self.target)
        except NotFound:
            return None
        return found if found.size == size else None

    def _complete(self, etags: tuple[str, ...]) -> str:
        for _ in range(COMPLETE_ATTEMPTS):
            try:
                etag = self._objects.complete_parts(self.target, self.upload, etags)
                self.completed = True
                return etag
            except OutcomeUnknown as error:  # asked again, a Complete that was done is NotFound
                failure = error
        raise failure


def replace_object(
    objects: Objects,
    key: str,
    digest: Digest,
    chunks: Iterable[bytes],
    part_bytes: int = PART_BYTES,
    *,
    match: str = "",
) -> None:
    """Write `chunks` under `key`; with `match`, only in place of an object with this ETag. Parts know no condition, so
    for them that is looked at before the request that makes the object. Raises DigestInvalid if the bytes do not have
    this digest, NotFound or Changed if the object that `match` means is not there any more, and nothing has changed;
    StorageError where the object cannot be written."""
    state, tail, size, parts = new_hash(digest.algorithm), bytearray(), 0, None
    try:
        for chunk in chunks:
            state.update(chunk)
            tail += chunk
            size += len(chunk)
            while len(tail) > part_bytes:
                parts = parts or Parts(objects, key, objects.start_parts(key), (), None)
                parts.send(0, memoryview(bytes(tail[:part_bytes])))
                del tail[:part_bytes]
        if state.hexdigest() != digest.encoded:
            raise DigestInvalid(f"these bytes are not {digest}", digest)
        if parts is None:
            objects.put(key, bytes(tail), match=match, sha256=digest.encoded if digest.algorithm == "sha256" else "")
            return
        if match and objects.head(key).etag != match:
            raise Changed(f"{key} was replaced meanwhile")
        done = parts.complete(memoryview(bytes(tail)), size)
        if done is None or not (parts.completed or digest_of_object(objects, key, digest.algorithm) == digest):
            raise StorageError(f"{key}: another process ended its upload; run it again")
    except BaseException:
        if parts is not None:
            parts.abandon()
            objects.abort_parts(key, parts.upload)
        raise


def digest_of_object(objects: Objects, key: str, algorithm: str) -> Digest:
    """Read an object whole and return its digest. Raises NotFound."""
    with objects.open(key) as reader:
        reader.once()
        return digest_of_hash(algorithm, hash_of(reader, algorithm))
