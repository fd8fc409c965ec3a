"""Is this the file whose bytes were looked at, and does it still have those bytes?

An inode number names a file only while that file lives: ext4 gives a freed number to the next file, at once. A time of
modification alone says little, for tools that unpack or restore set it. So there are three rules, and no other place
compares inode numbers:

1. An open descriptor, or a name that is only ours, *holds* a file: no other file can get its number. Two names looked
   at while one of them holds the file lead to the same file exactly when device and number are equal (`same_file`).
2. A file that was held since its bytes were looked at has the same bytes while its size and time of modification are
   the same (`HeldFile`). Its link count and its time of change say nothing: links, renames and changes of mode, by
   any process, move both and touch no byte.
3. A file that was *not* held since is the same only if nothing at all has happened to it, its time of change
   included (`FileIdentity.is_untouched`). Otherwise what was found of it is void, and it has to be read again.

Rot moves no time stamp, so no rule sees it; that takes a hash. An object of a bucket has no links: its number stands
for one write of one key, its times don't move, and the same rules hold.
"""

from __future__ import annotations

from typing import NamedTuple

from zotctl.storage.driver import Info, Reader


class FileIdentity(NamedTuple):
    """Identifies one content of one file after it is no longer held."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, info: Info) -> FileIdentity:
        """The identity of a file as `info` shows it."""
        return cls(info.dev, info.ino, info.size, info.mtime_ns, info.ctime_ns)

    @property
    def content(self) -> FileIdentity:
        """The identity without the change time: enough to leave a file alone, never to act on it (rule 3)."""
        return self._replace(ctime_ns=0)

    def is_untouched(self, now: Info | None) -> bool:
        """Rule 3: nothing has happened to it. False may also mean that it got or lost a name."""
        return now is not None and FileIdentity.of(now) == self


class HeldFile:
    """A file that is held while its bytes are looked at and until all is done that follows from them (rules 1 and 2).

    The reader holds it; its opener closes it, but not before. `info` is what the file was like when it was
    taken, which is before its bytes were read. Safe between threads.
    """

    __slots__ = ("info", "reader")

    def __init__(self, reader: Reader) -> None:
        self.reader: Reader | None = reader
        self.info = reader.info()

    @classmethod
    def unopened(cls, info: Info) -> HeldFile:
        """A file that can't be opened, so nothing holds it: `info` has to be fresh."""
        held = cls.__new__(cls)
        held.reader, held.info = None, info
        return held

    def is_at(self, now: Info | None) -> bool:
        """Does a name lead to this file, with these bytes? `now`: what the name leads to, looked at since."""
        return now is not None and FileIdentity.of(now).content == FileIdentity.of(self.info).content


def same_file(one: Info | None, other: Info | None) -> bool:
    """Do two names lead to one file? Rule 1: both looked at while one of them held it. Where nothing held it, the
    answer may be a wrong yes, which is good for counting and for hints only."""
    return one is not None and other is not None and file_number(one) == file_number(other)


def file_number(info: Info) -> tuple[int, int]:
    """Device and inode, as a key for files that are all held, or are only counted (rule 1)."""
    return info.dev, info.ino
