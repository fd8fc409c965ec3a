"""What is done before the first write to a bucket, and where it is only read (zotctl.storage.bucket.objects)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.doubles.objects import MemoryObjects
from zotctl.errors import ConfigError, ReadOnlyStorage, Unavailable, ZotctlError
from zotctl.storage.bucket.objects.seam import MD5, Objects
from zotctl.storage.bucket.objects.wrappers import FirstWriteGate

WRITES: dict[str, Callable[[Objects, str], object]] = {
    "put": lambda objects, _: objects.put("new", b"x"),
    "trial": lambda objects, _: objects.trial("new", b"x", checksum=MD5),
    "delete": lambda objects, _: objects.delete("file"),
    "copy": lambda objects, _: objects.copy("file", "new"),
    "start_parts": lambda objects, _: objects.start_parts("new"),
    "put_part": lambda objects, upload: objects.put_part("part", upload, 2, b"x"),
    "complete_parts": lambda objects, upload: objects.complete_parts("part", upload, [ETAG]),
    "abort_parts": lambda objects, upload: objects.abort_parts("part", upload),
    "execute": lambda objects, _: objects.execute(objects.sign_deletes(["file"], 30)),
}
READS: list[Callable[[Objects], object]] = [
    lambda objects: objects.head("file"),
    lambda objects: objects.get("file"),
    lambda objects: objects.open("file").read_at(0, 1),
    lambda objects: list(objects.list("")),
    lambda objects: list(objects.names("")),
    lambda objects: objects.presign_get("file", 30),
    lambda objects: objects.sign_deletes(["file"], 30),
    lambda objects: objects.date(),
]
ETAG = '"9dd4e461268c8034f5c8564e155c67a6"'


def bucket() -> tuple[MemoryObjects, str]:
    """With a file, and a part of an upload that was begun."""
    memory = MemoryObjects()
    memory.put("file", b"x")
    upload = memory.start_parts("part")
    memory.put_part("part", upload, 1, b"x")
    return memory, upload


def state(memory: MemoryObjects) -> object:
    return dict(memory.stored), {upload: (key, dict(parts)) for upload, (key, parts) in memory.parts.items()}


@pytest.mark.parametrize("write", WRITES)
def test_each_write_waits_for_what_comes_first(write: str) -> None:
    memory, upload = bucket()
    before, seen = state(memory), list[object]()
    gate = FirstWriteGate(memory, lambda: seen.append(state(memory)))
    WRITES[write](gate, upload)
    assert seen == [before] and gate.crossed
    gate.put("another", b"x")
    assert len(seen) == 1


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_where_it_is_only_read(write: str) -> None:
    memory, upload = bucket()
    before, gate = state(memory), FirstWriteGate(memory, None)
    with pytest.raises(ReadOnlyStorage):
        WRITES[write](gate, upload)
    assert state(memory) == before and not gate.crossed


def test_who_reads_waits_for_nothing() -> None:
    memory, _ = bucket()
    gate = FirstWriteGate(memory, lambda: pytest.fail("this is no write"))
    for read in READS:
        read(gate)
    assert not gate.crossed


@pytest.mark.parametrize("error", [ConfigError("unfit"), Unavailable("away")])
def test_an_unfit_server_stays_unfit_and_one_that_is_away_is_asked_again(error: ZotctlError) -> None:
    memory, _ = bucket()
    asked: list[None] = []

    def prepare() -> None:
        asked.append(None)
        if len(asked) == 1:
            raise error

    gate = FirstWriteGate(memory, prepare)
    with pytest.raises(type(error)):
        gate.put("new", b"x")
    assert "new" not in memory.stored and not gate.crossed
    if isinstance(error, ConfigError):
        with pytest.raises(ConfigError):
            gate.put("new", b"x")
        assert "new" not in memory.stored and len(asked) == 1
    else:
        gate.put("new", b"x")
        assert "new" in memory.stored and len(asked) == 2


@pytest.mark.parametrize("writes", [False, True])
def test_only_who_has_written_leaves(writes: bool) -> None:
    left: list[None] = []
    gate = FirstWriteGate(bucket()[0], lambda: None, lambda: left.append(None))
    if writes:
        gate.put("new", b"x")
    gate.close()
    assert len(left) == writes
