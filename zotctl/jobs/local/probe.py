"""Tries what the file system of a directory can do, with a few small files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from zotctl.errors import CannotLink, StorageError
from zotctl.storage import keys
from zotctl.storage.file_identity import same_file
from zotctl.storage.local.context import LocalContext
from zotctl.storage.local.network import detect
from zotctl.storage.local.protocol import local_of
from zotctl.storage.locks import Locks
from zotctl.storage.root import Root

LOCKED_BYTE = 7
_OTHER_PROCESS = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, int(sys.argv[2]), 1, 0))
    print("free")
except BlockingIOError:
    print("held")
"""
"""With the standard library alone: where zotctl is installed is nothing that another process need know."""


def probe(root: Root) -> tuple[dict[str, Any], str]:
    """The answers by ability, and what they mean."""
    found = _Probe(root).all()
    return found, result(found)


def result(found: dict[str, Any]) -> str:
    """One sentence that says what the answers mean for an operator."""
    if found["rename"] is not True:
        return "not fit: a file can't be replaced atomically"
    if found["locks"] is not True:
        return "one process only, and no job beside it: there are no locks between processes"
    parts = ["good for any number of servers and jobs"]
    if found["filesystem"].startswith("fuse"):
        parts = ["good for any number of processes of this host; never share a FUSE mount between hosts"]
    if found["links"] is not True:
        parts.append("no deduplication: there are no hard links")
    if found["flush"] is not True:
        parts.append("no protection from power cuts: it can't flush")
    return "; ".join(parts)


class _Probe:
    def __init__(self, root: Root) -> None:
        clock = local_of(root).context.clock
        self._root, self._driver = root, detect(root.label)
        self._context = LocalContext(self._driver, clock, Locks(self._driver, clock))
        self._token = clock.token()
        self._has_hidden = self._context.stat(keys.TMP) is not None
        self._directory = keys.TMP if self._has_hidden else keys.trial(self._token)

    def all(self) -> dict[str, Any]:
        """Raises StorageError where nothing can be written at all."""
        if not self._has_hidden:
            self._driver.mkdir(self._directory)
        try:
            space = self._driver.space()
            return {
                "filesystem": self._driver.filesystem or "unknown",
                "rename": self._answer(self._rename),
                "links": self._answer(self._links),
                "reflinks": self._answer(self._reflinks),
                "locks": self._answer(self._locks),
                "flush": self._answer(self._flush),
                "clock_skew_s": round(self._skew(), 3),
                "free_bytes": space.free,
                "free_inodes": space.free_inodes,
            }
        finally:
            for name in ("a", "b"):
                with suppress(StorageError):
                    self._driver.unlink(self._key(name))
            if not self._has_hidden:
                self._driver.rmdir(self._directory)

    def _key(self, name: str) -> str:
        return f"{self._directory}/probe-{self._token}-{name}"

    def _answer(self, ask: Callable[[], bool]) -> bool | str:
        """Yes, no, or why not."""
        try:
            return ask()
        except StorageError as error:
            return error.message

    def _write(self, name: str, body: bytes) -> None:
        self._context.discard(self._key(name))
        with self._driver.create(self._key(name)) as writer:
            writer.write([body])

    def _rename(self) -> bool:
        self._write("a", b"new")
        self._write("b", b"old")
        self._driver.rename(self._key("a"), self._key("b"))
        with self._driver.open(self._key("b")) as reader:
            return reader.read_at(0, 9) == b"new" and self._context.stat(self._key("a")) is None

    def _links(self) -> bool:
        self._write("a", b"x")
        self._context.discard(self._key("b"))
        try:
            self._driver.link(self._key("a"), self._key("b"))
        except CannotLink:
            return False
        return same_file(self._driver.stat(self._key("a")), self._driver.stat(self._key("b")))

    def _reflinks(self) -> bool:
        self._write("a", b"x" * 65536)
        self._write("b", b"")
        with self._driver.open(self._key("a")) as reader, self._driver.append(self._key("b")) as writer:
            return writer.copy(reader)

    def _locks(self) -> bool:
        """Held here, asked for in another process: that is what servers and jobs do."""
        self._write("a", b"")
        mine = self._driver.lock(self._key("a"), LOCKED_BYTE)
        if mine is None:
            return False
        try:
            path = os.path.join(self._root.label, self._key("a"))
            command = [sys.executable, "-I", "-c", _OTHER_PROCESS, path, str(LOCKED_BYTE)]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "held"
        finally:
            mine.release()

    def _flush(self) -> bool:
        with self._driver.append(self._key("a")) as writer:
            writer.write([b"x"])
            writer.sync()
        self._driver.sync_dir(self._directory)
        return True

    def _skew(self) -> float:
        """Seconds by which the storage's clock is ahead of this host's."""
        self._context.discard(self._key("a"))
        with self._driver.create(self._key("a")) as writer:
            return writer.info().mtime_ns / 1e9 - time.time()
