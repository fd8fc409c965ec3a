"""Where the store of a soak lies, and how to look at what is left there."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from tests import buckets
from tests.http.serving import WITHOUT_JOBS


class Place:
    """`address` is what `--root` gets; `delay`, seconds, is the collection's."""

    address: str
    delay = 6.0
    servers = 2
    unlikely: tuple[str, ...] = ()
    """What takes so long that it is not waited for."""
    environ: Mapping[str, str] = WITHOUT_JOBS

    def suffer(self) -> str:
        """Do something to the storage itself; what, or nothing."""
        return ""

    def recover(self) -> None:
        """The storage is as it should be again."""


class Directory(Place):
    def __init__(self, root: Path) -> None:
        self.root, self.address = root, str(root)
        root.mkdir()


class InBucket(Place):
    """Three servers, and an S3 server that is restarted, throttled and frozen now and then."""

    delay = 12.0
    servers = 3
    unlikely = ("dedupe 0",)
    """It waits a minute for readers of old copies, if nobody kills it."""

    def __init__(self, bucket: buckets.Bucket, *, dedupe: bool) -> None:
        self.bucket, self.address = bucket, bucket.url
        self.environ = {
            **WITHOUT_JOBS,
            **bucket.environment,
            "ZOTCTL_STORAGE_DEDUPE": str(dedupe).lower(),
            "ZOTCTL_STORAGE_GC_DELAY": f"{self.delay:.0f}s",
        }

    def suffer(self) -> str:
        options = random.choice([(), ("--max-requests", "4"), ()])
        self.bucket.server.restart(*options)
        return f"S3 server restarted {' '.join(options)}"

    def recover(self) -> None:
        self.bucket.server.restart()
