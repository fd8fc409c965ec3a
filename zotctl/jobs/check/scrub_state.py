"""What `scrub` remembers between runs, in `.zotctl/scrub/`. If it is lost, nothing counts as checked or seen before.
`verify` remembers the same of an unfinished pass, elsewhere (`own_state`).

`state`: when each inode was last found good, in twelve bytes. `findings.json`: when each finding was first seen.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from zotctl.errors import DigestInvalid, StorageError
from zotctl.jobs.clock_check import boot_id
from zotctl.jobs.int_map import IntMap
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, check_digest
from zotctl.storage import keys
from zotctl.storage.clock import Clock, is_ahead
from zotctl.storage.driver import Info
from zotctl.storage.file_identity import FileIdentity
from zotctl.storage.root import Root

STATE_BYTES = 256 << 20
"""The largest file that is read; a larger one counts as lost."""
MOST_INODES = 8_000_000
MOST_REPOSITORIES = 500_000
MOST_FINDINGS = 100_000
MOST_DAMAGED = 10_000
_FIGURES = ("began", "last", "total", "done")
SETTLING_S = 300
"""How long the kernel may take to write data to the device, doubled."""
SAVE_EVERY_S = 60.0
"""The work in seconds that a kill may cost."""


class StatePlace(Protocol):
    """Where a state lies."""

    def read(self, most_bytes: int) -> bytes:
        """What was written last. Raises StorageError."""

    def write(self, parts: Sequence[bytes]) -> None:
        """Replace it. Never raises."""


class _InRoot:
    def __init__(self, root: Root) -> None:
        self._root = root

    def read(self, most_bytes: int) -> bytes:
        return self._root.maintenance.read(keys.SCRUB_STATE, most_bytes)

    def write(self, parts: Sequence[bytes]) -> None:
        _write(self._root, keys.SCRUB_STATE, parts)


class Checked:
    """When inodes were last found good, and repositories last checked as a whole. Times in seconds since 1970. `place`:
    a root, or another place. Not safe between threads."""

    def __init__(self, place: Root | StatePlace, clock: Clock) -> None:
        self._place: StatePlace = _InRoot(place) if isinstance(place, Root) else place
        self._clock = clock
        self._stamp_time = place.protocol.now if isinstance(place, Root) else clock.now
        self._times = IntMap()
        """By the key of each inode."""
        self._saved_at = clock.elapsed()
        self.began = self.last = 0
        """When the unfinished pass began (0: there is none), and the last finished one."""
        self.total = self.done = 0
        """Bytes to read in the pass, as measured when it began, and bytes read so far."""
        self.repositories: dict[str, int] = {}
        self.stopped: list[tuple[str, Digest]] = []
        """Repository and digest of blobs in which time was up. They come first in the next run, and are read to their
        end, or a blob that takes longer than a run would never be finished."""
        self._damaged: dict[int, Digest] = {}
        """The digests of the bytes of damaged inodes that were read in the unfinished pass."""
        self._boot, self._alive = "", 0
        """The `boot_id` under which this was last saved, and when, by the clock that stamps the blobs."""
        with suppress(StorageError, DigestInvalid, ValueError, KeyError, TypeError, EOFError, AttributeError):
            self._load(self._place.read(STATE_BYTES))

    def when(self, digest: str, info: Info) -> int:
        """When the blob was last found good; 0: never, or that is not known."""
        return self._times.get(_key(digest, info)) or 0

    def found(self, digest: Digest, info: Info) -> Digest | None:
        """The digest of its bytes, if the blob was read in the current pass."""
        if self.when(digest, info) >= self.began:
            return digest
        return self._damaged.get(_key(digest, info))

    def note_damaged(self, digest: Digest, info: Info, found: Digest) -> None:
        """Note that the bytes of the blob have the digest `found`: it is reported again in this pass, and not read."""
        if len(self._damaged) < MOST_DAMAGED:
            self._damaged[_key(digest, info)] = found

    def note(self, digest: str, info: Info) -> None:
        """Note that the blob was found good just now."""
        self._times.put(_key(digest, info), self._now())

    def note_repository(self, name: str) -> None:
        """Note that the repository was checked as a whole just now."""
        self.repositories[name] = self._now()

    def _now(self) -> int:
        return max(int(self._clock.now()), self.began)

    def begin(self) -> None:
        """Begin a pass, unless one is unfinished."""
        if not self.began:
            # Later than any time that was noted: in whole seconds, a short pass would run into the next.
            latest = max([*self.repositories.values(), max(self._times.arrays()[1], default=0)])
            self.began, self.total, self.done = max(int(self._clock.now()), latest + 1), 0, 0
            self.stopped, self._damaged = [], {}

    def restart(self) -> None:
        """Drop the unfinished pass, so that `begin` begins another."""
        self.began = 0

    def doubtful_since(self) -> int | None:
        """Since when written data may not have reached the device, because the machine was rebooted after the last save
        (docs/design/local.md#without-commit). None: it was not, or nothing is known."""
        return self._alive - SETTLING_S if self._boot not in ("", boot_id()) else None

    def settle(self) -> None:
        """Note that what was doubtful has been checked."""
        self._boot = ""

    def complete(self, *, whole: bool, prune: bool) -> None:
        """End the pass. `whole`: it covered everything. `prune`: nothing failed either, so what was not noted is
        gone."""
        if whole and prune:
            self.forget_before(self.began)
        if whole:
            self.last = self.began
            self.settle()
        self.began, self.stopped, self._damaged = 0, [], {}

    def forget_before(self, at: int) -> None:
        """Forget inodes and repositories that were last noted before `at`."""
        self._times.drop_below(at)
        self.repositories = {name: time for name, time in self.repositories.items() if time >= at}

    def save_now_and_then(self) -> None:
        """Save, if the last save is longer ago than `SAVE_EVERY_S`."""
        if self._clock.elapsed() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write the state. Never raises: without it, the next run only checks more than necessary."""
        self._saved_at = self._clock.elapsed()
        found, times = self._times.arrays()
        if len(found) > MOST_INODES:
            self.forget_before(sorted(times)[-MOST_INODES] + 1)
            found, times = self._times.arrays()
        repositories = self.repositories if len(self.repositories) <= MOST_REPOSITORIES else {}
        if self.doubtful_since() is None:
            with suppress(StorageError):
                self._boot, self._alive = boot_id(), int(self._stamp_time())
        head = {"format": 1, "inodes": len(found), "repositories": repositories}
        head |= {name: getattr(self, name) for name in _FIGURES} | {"boot": self._boot, "alive": self._alive}
        if self.began:
            head |= {"stopped": self.stopped, "damaged": {str(key): found for key, found in self._damaged.items()}}
        self._place.write([json.dumps(head).encode() + b"\n", _little(found), _little(times)])

    def _load(self, body: bytes) -> None:
        line, _, rest = body.partition(b"\n")
        head = load_json(line)
        count = int(head["inodes"])
        if head["format"] != 1 or len(rest) != 12 * count:
            return
        found, times = _array("Q", rest[: 8 * count]), _array("I", rest[8 * count :])
        repositories = {str(name): int(at) for name, at in head["repositories"].items()}
        stopped = [(str(name), check_digest(digest)) for name, digest in head.get("stopped", ())]
        damaged = {int(key): check_digest(found) for key, found in head.get("damaged", {}).items()}
        self.stopped, self._damaged = stopped, damaged
        self.began, self.last, self.total, self.done = (int(head[name]) for name in _FIGURES)
        if is_ahead(max(self.began, self.last), now := self._clock.now()):
            # The clock was wrong: begin the pass anew, and count nothing as checked later than now.
            self.began, self.last, times = 0, 0, array("I", (min(time, int(now)) for time in times))
            repositories = {name: min(at, int(now)) for name, at in repositories.items()}
        self.repositories, self._times = repositories, IntMap(found, times)
        self._boot, self._alive = str(head.get("boot", "")), int(head.get("alive", 0))


def _key(digest: str, info: Info) -> int:
    """The key of one content of a file under a digest. It leaves out the device, whose number may change with a mount,
    and the change time, which moves with each link."""
    _, ino, size, mtime_ns, _ = FileIdentity.of(info)
    return int.from_bytes(blake2b(f"{ino} {size} {mtime_ns} {digest}".encode(), digest_size=8).digest(), "little")


def _array(kind: str, body: bytes) -> array[int]:
    found = array(kind, body)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _little(values: array[int]) -> bytes:
    return _array(values.typecode, values.tobytes()).tobytes()


class FirstSeen:
    """When each finding of one root was first reported, for as long as it is found again."""

    def __init__(self, root: Root, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._known = _findings(root)
        self._found: dict[str, str] = {}
        self._done: set[str] = set()

    def of(self, name: str, digest: str | None, kind: str, where: str) -> str:
        """When a finding was first seen, RFC 3339, UTC; now, if it is new."""
        key = json.dumps([name, digest, kind, where])
        now = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return self._found.setdefault(key, self._known.get(key, now))

    def gone_through(self, name: str) -> None:
        """Note that a repository was checked as a whole: earlier findings that were not found again are over."""
        self._done.add(name)

    def save(self) -> None:
        """Write the times. Never raises: without them, the next run reports damage as new. The file is read again, for
        another job may have written what it found."""
        if not (self._found or self._done):
            return
        with suppress(StorageError):
            self._known = _read_findings(self._root)
        kept = {key: at for key, at in self._known.items() if load_json(key)[0] not in self._done}
        now = dict(list((kept | self._found).items())[:MOST_FINDINGS])
        if now != self._known:
            _write(self._root, keys.SCRUB_FINDINGS, [json.dumps(now, indent=0).encode()])


def _findings(root: Root) -> dict[str, str]:
    try:
        return _read_findings(root)
    except StorageError:
        return {}


def _read_findings(root: Root) -> dict[str, str]:
    """Raises StorageError."""
    body = root.maintenance.read(keys.SCRUB_FINDINGS, STATE_BYTES)
    try:
        found: Any = load_json(body)
        return {key: str(at) for key, at in found.items() if isinstance(load_json(key), list)}
    except (ValueError, AttributeError, TypeError):
        return {}


class StandingFinding(NamedTuple):
    """A finding of the last check of its repository. `where`: the key of a file, if it is not that of the digest.
    `since`: when it was first seen, RFC 3339, UTC."""

    repository: str
    digest: str | None
    kind: str
    where: str
    since: str


def standing_findings(root: Root, most_bytes: int = STATE_BYTES) -> list[StandingFinding] | None:
    """What the last checks of each repository found. None: their file has more than `most_bytes`."""
    with suppress(StorageError):
        info = root.stat(keys.SCRUB_FINDINGS)
        if info is not None and info.size > most_bytes:
            return None
    found = []
    for key, since in _findings(root).items():
        parts = load_json(key)
        if len(parts) == 4:
            name, digest, kind, where = parts
            found.append(StandingFinding(str(name), digest and str(digest), str(kind), str(where or ""), since))
    return found


class Passes(NamedTuple):
    """How far `scrub` has come. Times in seconds since 1970, 0 for none. `last`: when the last finished pass began;
    `began`: when the one under way did, which has read `done` of `total` bytes. `repositories`: when each was last
    checked as a whole, None if they are too many."""

    last: int
    began: int
    done: int
    total: int
    repositories: dict[str, int] | None


def passes(root: Root, most_bytes: int = STATE_BYTES) -> Passes | None:
    """From at most `most_bytes` at the beginning of the state. None: nothing was ever checked, or that is not known."""
    with suppress(StorageError, ValueError, KeyError, TypeError, AttributeError):
        line, newline, _ = root.maintenance.read(keys.SCRUB_STATE, most_bytes).partition(b"\n")
        if not newline:
            return Passes(0, 0, 0, 0, None) if len(line) >= most_bytes else None
        head = load_json(line)
        times = {str(name): int(at) for name, at in head["repositories"].items()}
        return Passes(int(head["last"]), int(head["began"]), int(head["done"]), int(head["total"]), times)
    return None


def _write(root: Root, key: str, parts: Sequence[bytes]) -> None:
    with suppress(StorageError):
        if not root.by_requests:
            root.require()  # nothing is made below a mount point
        root.maintenance.write(key, parts)
