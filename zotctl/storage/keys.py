"""The only builder of keys. The tree of one root (docs/design/local.md#the-tree):

    ROOT/
      NAME/                           a repository = an OCI image layout
        oci-layout  index.json  blobs/ALG/ENC
        .index.json.zotctl-TOKEN      only between write and rename
      .zotctl/                        what is ours; no truth about content lies in it
        version                       format of this directory, and the sign of a mounted root
        lock                          one byte per repository
        uploads/ID.KEY                resumable uploads; KEY stands for the repository's name
        pool/ALG/EE/ENC               one more hard link of each content
        trash/RUN/NAME/blobs/ALG/ENC  trashed, by run
        trash/deleted-RUN/...         deleted on purpose: reads don't look there
        damaged/ALG/ENC/N             one more hard link of each damaged inode
        damaged/moved/                damaged files moved aside where links don't work
        leases/JOB  reserve  spare/  tmp/  history/  scrub/  runs/JOB  clock

The tree of a bucket (docs/design/bucket.md#the-tree) has the same repositories, and beside them:

    ROOT/
      _blobs/ALG/ENC                  dedupe = true: configs and layers, once per store
      .zotctl/
        version  capabilities  leases/JOB  history/  scrub/  runs/JOB  damaged/  clock
        reservations/ALG/ENC/a:b      repository a/b may read it; reserved at its LastModified
        intents/TOKEN                 what a collector is deleting just now
        gc/seen/KEY  gc/checkpoint    since when something has been unreachable; where a run was cut short
        gc/facts/KEY                  what the manifests of a repository say: a cache
        uploads/ID  staged/ID         an open upload: its state and tail; its parts
        names/a!b                     the list of repositories; a cache of what a walk would find
        names/_whole                  a walk has filled that list once
        origins                       where the content of zot's stubs lies
        tmp/trial                     is any write answered?
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from zotctl.errors import NameInvalid
from zotctl.oci.digest import Digest
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import parse_name

HIDDEN = ".zotctl"
VERSION = f"{HIDDEN}/version"
LOCK = f"{HIDDEN}/lock"
UPLOADS = f"{HIDDEN}/uploads"
POOL = f"{HIDDEN}/pool"
TRASH = f"{HIDDEN}/trash"
DAMAGED = f"{HIDDEN}/damaged"
DAMAGED_MOVED = f"{DAMAGED}/moved"
LEASES = f"{HIDDEN}/leases"
TMP = f"{HIDDEN}/tmp"
WRITE_TRIAL = f"{TMP}/trial"
"""Written in a bucket to see whether it answers writes; never read."""
HISTORY = f"{HIDDEN}/history"
SCRUB = f"{HIDDEN}/scrub"
SCRUB_STATE = f"{SCRUB}/state"
"""What was hashed when."""
SCRUB_FINDINGS = f"{SCRUB}/findings.json"
"""Since when each finding has been known."""
RUNS = f"{HIDDEN}/runs"
"""What the last run of a job did, for people."""
RESERVE = f"{HIDDEN}/reserve"
SPARE = f"{HIDDEN}/spare"
"""Empty files, whose inodes are kept back."""
CLOCK = f"{HIDDEN}/clock"
"""What the clock said when a job last looked at it."""

SHARED = "_blobs"
RESERVATIONS = f"{HIDDEN}/reservations"
INTENTS = f"{HIDDEN}/intents"
NAMES = f"{HIDDEN}/names"
NAMES_MADE = f"{NAMES}/_whole"
STAGED = f"{HIDDEN}/staged"
ORIGINS = f"{HIDDEN}/origins"
CAPABILITIES = f"{HIDDEN}/capabilities"
COLLECTION = f"{HIDDEN}/gc"
FIRST_SEEN = f"{COLLECTION}/seen"
"""What collectors on a bucket remember from one run to the next."""

INDEX_TEMP_PREFIX = ".index.json.zotctl-"
DELETED_PREFIX = "deleted-"
REPLACED_RUN = "replaced"
"""The folder of the trash for what is just getting the name of another blob."""

_OWNER_BITS = 31
_UPLOAD_ALGORITHMS = ("sha256", "sha512", "blake3")
"""By number, so entries may only be appended."""

_upload_id = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
_swap = re.compile(rf"{re.escape(INDEX_TEMP_PREFIX)}(\w+)-([0-9a-f]{{1,16}})-([0-9a-f]{{1,16}})(-was)?").fullmatch


def parent(key: str) -> str:
    """The key of the directory that holds `key`; "" is the root."""
    return key.rpartition("/")[0]


def within(directory: str, key: str) -> str:
    """A key below `directory`, which may be "", the root."""
    return f"{directory}/{key}" if directory else key


def below(directory: str) -> str:
    """The prefix of all keys below a directory, for a list of a bucket."""
    return f"{directory}/"


def repository_of(key: str) -> str:
    """The repository of a blob, by the key of the blob or of what lies there; "" for any other key."""
    return key.rpartition("/blobs/")[0]


def index(name: str) -> str:
    """The index.json of a repository."""
    return f"{name}/index.json"


def index_temp(name: str, token: str) -> str:
    """What becomes the index.json: beside it, so that a rename needs no other directory."""
    return f"{name}/{INDEX_TEMP_PREFIX}{token}"


def index_set_aside(name: str) -> str:
    """The index.json of a layout of which a `--move` is removing what it has imported."""
    return index_temp(name, "moved")


class Swap(NamedTuple):
    """The name of a file that is swapped with index.json: a token, and the time stamps (nanoseconds) of the new and of
    the old index.json. A file that is left under this name is the one or the other by its own time stamp, or else was
    put there by another program. `was`: the name under which index.json is set aside by a request of its own."""

    token: str
    ours: int
    before: int
    was: bool = False

    def key(self, name: str) -> str:
        """Of the file in the repository `name`."""
        return index_temp(name, f"{self.token}-{self.ours:x}-{self.before:x}{'-was' if self.was else ''}")


def parse_swap(file: str) -> Swap | None:
    """Parse the name of a file; None: it is no name of this kind."""
    found = _swap(file)
    return Swap(found[1], int(found[2], 16), int(found[3], 16), bool(found[4])) if found else None


def layout(name: str) -> str:
    """The oci-layout of a repository."""
    return f"{name}/{LAYOUT_FILE}"


def blobs(name: str) -> str:
    """The directory of all blobs of a repository."""
    return f"{name}/blobs"


def blobs_of(name: str, algorithm: str) -> str:
    """The directory of its blobs with digests of one algorithm."""
    return f"{name}/blobs/{algorithm}"


def blob(name: str, digest: Digest) -> str:
    """A blob or manifest of a repository."""
    return f"{name}/blobs/{digest.replace(':', '/')}"


def blob_in_layout(digest: Digest) -> str:
    """The path of a blob within its layout."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def pool_of(algorithm: str, first: str = "") -> str:
    """The directory of an algorithm in the pool, or of those contents there whose digests begin with `first`, two
    digits."""
    return f"{POOL}/{algorithm}/{first}" if first else f"{POOL}/{algorithm}"


def pool(digest: Digest) -> str:
    """The pool's link of a content."""
    encoded = digest.encoded
    return f"{POOL}/{digest.algorithm}/{encoded[:2]}/{encoded}"


def trash_run(run: str) -> str:
    """The folder of one run in the trash."""
    return f"{TRASH}/{run}"


def trashed(run: str, name: str, digest: Digest) -> str:
    """A blob of a repository in the trash."""
    return f"{TRASH}/{run}/{blob(name, digest)}"


def damaged_of(algorithm: str) -> str:
    """The directory of all damaged content with digests of one algorithm."""
    return f"{DAMAGED}/{algorithm}"


def moved_aside(digest: Digest, token: str) -> str:
    """A damaged file that was moved away from its name, where links don't work."""
    return f"{DAMAGED_MOVED}/{digest.encoded}.{token}"


def damaged_links(digest: Digest) -> str:
    """The directory of the links to damaged files that should have this digest."""
    return f"{DAMAGED}/{digest.algorithm}/{digest.encoded}"


@lru_cache(4096)
def name_key(name: str) -> str:
    """Stands for a repository's name, which may be too long for a file: 32 digits of its SHA-256."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def upload_file(file: str) -> str:
    """The key of a file that was listed in `UPLOADS`."""
    return f"{UPLOADS}/{file}"


def upload(name: str, upload_id: str) -> str:
    """The bytes of a resumable upload on a directory."""
    return f"{UPLOADS}/{upload_id}.{name_key(name)}"


def history(name: str) -> str:
    """The history of a repository: a file, or on a bucket a prefix."""
    return f"{HISTORY}/{name_key(name)}"


def renewed(key: str) -> str:
    """What is to take the place of a file of our own, whole and flushed: until then, and if that was cut short."""
    return f"{key}.new"


# -- on a bucket (docs/design/bucket.md#the-tree) --------------------------------------------------


def shared(digest: Digest) -> str:
    """dedupe = true: a config or layer, once for the whole store; the shape of skopeo's --src-shared-blob-dir."""
    return f"{SHARED}/{digest.algorithm}/{digest.encoded}"


def component(name: str) -> str:
    """A repository's name as one component: an object store of files can't hold `a` beside `a/b`."""
    return name.replace("/", ":")


def name_of(component: str) -> str:
    """The repository; "" if no repository has this component, as in an object of another program."""
    try:
        return parse_name(component.replace(":", "/"))
    except NameInvalid:
        return ""


def reservations(digest: Digest) -> str:
    """Prefix of the reservations of one digest: which repositories may use it."""
    return f"{RESERVATIONS}/{digest.algorithm}/{digest.encoded}/"


def reservation(digest: Digest, name: str) -> str:
    """Says that a repository may use a blob."""
    return f"{reservations(digest)}{component(name)}"


def reserved_for(key: str) -> str:
    """The repository that a reservation is for; "" if it is no reservation."""
    return name_of(key.rpartition("/")[2])


def first_seen(name: str) -> str:
    """Since when something is known to be unreachable: of a repository, or SHARED for the pool."""
    return f"{FIRST_SEEN}/{name_key(name)}"


def facts(name: str) -> str:
    """What the manifests of a repository say, for the next reader."""
    return f"{COLLECTION}/facts/{name_key(name)}"


def checkpoint() -> str:
    """Where a collection was cut short."""
    return f"{COLLECTION}/checkpoint"


def intent(token: str) -> str:
    """A deletion intent."""
    return f"{INTENTS}/{token}"


def listed_name(name: str) -> str:
    """Lists a repository for the catalog. "!" comes before all that a name may have, as a component comes before what
    goes on, so that a list has the names in the order of their components."""
    return f"{NAMES}/{name.replace('/', '!')}"


def name_listed(key: str) -> str:
    """The repository that a key of the list is about; "" if it is about none."""
    with suppress(NameInvalid):
        return parse_name(key.removeprefix(f"{NAMES}/").replace("!", "/"))
    return ""


def session(upload_id: str) -> str:
    """The state of an upload on a bucket, and its tail."""
    return f"{UPLOADS}/{upload_id}"


def staged(upload_id: str) -> str:
    """Bytes of an upload whose digest is not known yet."""
    return f"{STAGED}/{upload_id}"


def damaged(digest: Digest, name: str) -> str:
    """Says that a copy of this digest is damaged: that of a repository, or SHARED for the pool's."""
    return f"{DAMAGED}/{digest.algorithm}/{digest.encoded}/{component(name)}"


def trial(token: str) -> str:
    """Where `verify --probe` tries out a root without a hidden directory; removed afterwards."""
    return f"{HIDDEN}-probe-{token}"


def tmp(token: str) -> str:
    """A temporary file."""
    return f"{TMP}/{token}"


def spare(name: int | str) -> str:
    """One of the empty files that keep inodes back."""
    return f"{SPARE}/{name}"


def lease(job: str) -> str:
    """The lease of a job; on a directory, `JOB.holder` beside it names its process."""
    return f"{LEASES}/{job}"


def last_run(job: str) -> str:
    """What the last run of a job did."""
    return f"{RUNS}/{job}"


# -- the id of an upload ----------------------------------------------------------------------------


class UploadId(NamedTuple):
    """The id of an upload session says when it began and with which algorithm, so that a session is one file.

    A UUID of version 8 (RFC 9562, section 5.8): 48 bits of milliseconds since 1970, then four bits that number the
    algorithm, 39 random bits, and 31 bits of a hash of all that and of the user who began it. Only that user goes on
    with the upload: another one who learns the id cannot make an id of their own of it, since the whole id names the
    session. `started` in seconds since 1970, by the server that began it.
    """

    text: str
    started: float
    algorithm: str


def make_upload_id(algorithm: str, now: float, owner: str = "") -> str:
    """A fresh id for the user `owner`; "" is a client without a login.

    Raises ValueError for an algorithm that has no number.
    """
    chance = int.from_bytes(os.urandom(5), "big")
    value = int(now * 1000) % (1 << 48) << 80 | 8 << 76 | _UPLOAD_ALGORITHMS.index(algorithm) << 72
    value |= (chance >> 32) << 64 | 2 << 62 | (chance % (1 << 31)) << _OWNER_BITS
    return str(uuid.UUID(int=value | _owner_mark(value, owner)))


def is_upload_of(text: str, owner: str) -> bool:
    """Whether the user `owner` began this upload; False for an id that `make_upload_id` has not made."""
    if not _upload_id(text):
        return False
    value = uuid.UUID(text).int
    mark = value % (1 << _OWNER_BITS)
    return mark == _owner_mark(value - mark, owner)


def _owner_mark(value: int, owner: str) -> int:
    text = value.to_bytes(16, "big") + owner.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") % (1 << _OWNER_BITS)


def parse_upload_id(text: str) -> UploadId:
    """Raises ValueError for anything that `make_upload_id` has not made."""
    if not _upload_id(text):
        raise ValueError(f"{text[:64]!r} is no id of an upload")
    value = uuid.UUID(text).int
    number = value >> 72 & 15
    if number >= len(_UPLOAD_ALGORITHMS):
        raise ValueError(f"{text!r} is an upload with an unknown algorithm")
    return UploadId(text, (value >> 80) / 1000, _UPLOAD_ALGORITHMS[number])
