"""`python -m tests.walks [WALK]`: how many files and functions of ours a request or a job goes through below `http/`.

Only Python functions of the product are counted, each once, in all threads; comprehensions belong to the function
around them. A walk begins where a handler or a command calls the storage or the job. A request is one of many: the
process has answered another one on the same repository. A job has just opened the store. With the name of a walk, its
functions are listed in the order of their first call.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType
from typing import Any

from tests import images
from tests.clocks import Hand
from tests.doubles.objects import MemoryObjects
from tests.images import Image
from tests.stores import bucket_store, probed, push_blob, push_image
from zotctl.config import RootConfig, StorageConfig
from zotctl.errors import BlobUnknown
from zotctl.jobs.gc import GcOptions, gc
from zotctl.jobs.retention import Rules
from zotctl.jobs.run import Run
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.oci.reference import parse_name, parse_reference
from zotctl.storage import Store, open_store

PACKAGE = Path(__file__).parent.parent / "zotctl"
ABOVE = tuple(str(PACKAGE / layer) + "/" for layer in ("http", "cli"))
NAME, BLOB, DELAY = "team/app", b"a layer", 3600.0

Place = Callable[[], Store]
"""Opens the same store, as another process does it."""


class Walk:
    """The functions that were called, with the number of ours that were under way on the same stack."""

    def __init__(self) -> None:
        self.depths: dict[tuple[str, str], int] = {}

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(file for file, _ in self.depths))

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Counts what this thread and those that it starts call meanwhile."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (called := _ours(frame)) is None:
            return
        depth, above = 1, frame.f_back
        while above is not None:
            depth += _ours(above) is not None
            above = above.f_back
        self.depths[called] = max(depth, self.depths.get(called, 0))


def _ours(frame: FrameType) -> tuple[str, str] | None:
    code = frame.f_code
    if not code.co_flags & CO_OPTIMIZED or not code.co_filename.startswith(str(PACKAGE)):
        return None  # the body of a module or class, or code of others
    if code.co_filename.startswith(ABOVE) or code.co_name.startswith("<"):
        return None
    return str(Path(code.co_filename).relative_to(PACKAGE)), code.co_qualname


# -- places -----------------------------------------------------------------------------------------


def directory(home: Path) -> Place:
    config = StorageConfig(roots=(RootConfig(path=str(home), create=True),))
    return lambda: open_store(config)


def bucket(clock: Hand) -> Place:
    objects = MemoryObjects(clock.now)
    probed(objects)
    return lambda: bucket_store(objects, clock, delay=DELAY)


# -- walks ------------------------------------------------------------------------------------------


def pull_a_blob(place: Place, walk: Walk) -> None:
    store, digests = place(), [digest_of(blob) for blob in images.image().blobs]
    push_image(store, NAME, "1.0")
    _pull_blob(store, digests[0])
    with walk.measured():
        _pull_blob(store, digests[1])


def push_a_blob(place: Place, walk: Walk) -> None:
    store = place()
    _push_blob(store, b"another layer")
    with walk.measured():
        _push_blob(store, BLOB)


def push_an_image(place: Place, walk: Walk) -> None:
    store = place()
    _push_image(store, "1.0", images.image("before"))
    with walk.measured():
        _push_image(store, "2.0", images.image())


def collect(place: Place, walk: Walk, clock: Hand | None = None) -> None:
    store = place()
    push_image(store, NAME, "1.0")
    push_blob(store.repository_for_push(NAME), BLOB)
    options = GcOptions(delay=DELAY if clock else 0.0, rules=Rules(delay=DELAY))
    if clock is not None:
        _gc(place(), options)
        clock.at += 3 * DELAY
    store = place()
    with walk.measured():
        _gc(store, options)


def _pull_blob(store: Store, digest: Digest) -> None:
    repository = store.repository(parse_name(NAME))
    assert repository.redirect(digest) is None
    with repository.open_blob(digest) as reader:
        if reader.fileno() is None:  # else the kernel sends it
            reader.read_at(0, reader.size)


def _push_image(store: Store, tag: str, image: Image) -> None:
    for blob in image.blobs:
        try:
            store.repository_for_push(parse_name(NAME)).blob(digest_of(blob))
        except BlobUnknown:
            _push_blob(store, blob)
    manifest = check_manifest(image.manifest, OCI_MANIFEST)
    tags = [str(parse_reference(tag))]
    store.repository_for_push(parse_name(NAME)).put_manifest(manifest, image.manifest, tags)


def _push_blob(store: Store, body: bytes) -> None:
    digest = digest_of(body)
    upload_id = store.repository_for_push(parse_name(NAME)).start_upload("sha256")
    with store.repository_for_push(parse_name(NAME)).resume_upload(upload_id) as upload:
        upload.expect(digest, len(body), 0)
        upload.write([body])
        upload.finish(digest)


def _gc(store: Store, options: GcOptions) -> None:
    run = Run("gc", store)
    report = run.finish(lambda: gc(run, lambda _: options))
    assert report.exit_code == 0, report.document()


WALKS: dict[str, Callable[[Path, Hand, Walk], None]] = {
    "pull of a blob, directory": lambda home, _, walk: pull_a_blob(directory(home), walk),
    "pull of a blob, bucket": lambda _, clock, walk: pull_a_blob(bucket(clock), walk),
    "pushed blob, directory": lambda home, _, walk: push_a_blob(directory(home), walk),
    "pushed blob, bucket": lambda _, clock, walk: push_a_blob(bucket(clock), walk),
    "pushed image, directory": lambda home, _, walk: push_an_image(directory(home), walk),
    "pushed image, bucket": lambda _, clock, walk: push_an_image(bucket(clock), walk),
    "gc, directory": lambda home, _, walk: collect(directory(home), walk),
    "gc, bucket": lambda _, clock, walk: collect(bucket(clock), walk, clock),
}


def measure(name: str) -> Walk:
    """One walk, after one that is not counted: what is imported or cached by then is no part of it."""
    for walk in (Walk(), Walk()):
        with tempfile.TemporaryDirectory() as home:
            WALKS[name](Path(home, "root"), Hand(), walk)
    return walk


def table() -> str:
    rows = ["| Walk | files | functions | depth |", "|---|---|---|---|"]
    for name in WALKS:
        walk = measure(name)
        rows.append(f"| {name} | {len(walk.files)} | {len(walk.depths)} | {max(walk.depths.values())} |")
    return "\n".join(rows)


def main(arguments: list[str]) -> None:
    if not arguments:
        print(table())
        return
    walk = measure(arguments[0])
    for (file, function), depth in walk.depths.items():
        print(f"{depth:3}  {file}: {function}")


if __name__ == "__main__":
    main(sys.argv[1:])
