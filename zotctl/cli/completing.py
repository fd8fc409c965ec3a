"""What a TAB offers from the store: names of repositories, their tags and digests.

The scripts in completions/ know commands, options and choices by themselves, and run `zotctl __complete KIND WORD...`
only for this; the last WORD is the one to complete. A TAB waits for the answer. So nothing is imported that opens a
store, directories are only read, of a bucket nothing is offered, and what takes too long or goes wrong offers nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from stat import S_ISREG

import msgspec

from zotctl.oci.digest import ALGORITHMS
from zotctl.oci.layout import LAYOUT_FILE
from zotctl.oci.reference import CONTAINERD_NAME, REF_NAME, is_name, tag_names

COMMAND = "__complete"
LIMIT_S = 3.0
"""For so long a TAB waits at most."""
_is_plain = re.compile(r"[A-Za-z0-9._:/@+=-]+").fullmatch
"""What no shell reads anything into, whatever another program has written into an index.json."""


class _Row(msgspec.Struct):
    digest: str = ""
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct):
    manifests: list[_Row] = []


_decode_index = msgspec.json.Decoder(_Index).decode


def complete(kind: str, words: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """What may stand for the last of `words`, which are the command and what follows it, as they were typed.

    `kind` is one of `KINDS`. Never raises for a store that is not there, or not as it should be.
    """
    with suppress(Exception):
        typed = [_unquoted(word) for word in words]
        asked = typed[-1] if typed[-1].startswith("--") else typed[-2]
        line = _Line(typed[:-1], environ, asked.partition("=")[0])
        begun = typed[-1].partition("=")[2] if typed[-1].startswith("--") else typed[-1]
        return sorted({found for found in KINDS[kind](line, begun) if found.startswith(begun) and _is_plain(found)})
    return []


def _unquoted(word: str) -> str:
    """As the shell would pass it; an open quote is part of what is not written yet."""
    try:
        (word,) = shlex.split(word)
    except ValueError:
        word = word.lstrip("'\"")
    return os.path.expanduser(os.path.expandvars(word))


class _Line:
    """The words before the one to complete, and where the store is by them and by the environment. `asked`: the option
    whose value is asked for."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], asked: str) -> None:
        self.words, self._environ, self._asked = words, environ, asked

    def option(self, name: str) -> list[str]:
        """The values of an option."""
        after = [value for word, value in zip(self.words, self.words[1:], strict=False) if word == name]
        return after + [word.partition("=")[2] for word in self.words if word.startswith(f"{name}=")]

    def directories(self) -> list[str]:
        """The roots that are directories."""
        from zotctl.config import is_bucket, load_config

        options: dict[str, object] = {"storage.roots": self.option("--root") or self._target() or None}
        file = next(reversed(self.option("--config")), None)
        storage = load_config(file, options=options, environ=self._environ, serving=False).storage
        paths = [root.path for root in storage.every_root]
        return [path for path in paths if not is_bucket(path)]

    def _target(self) -> list[str]:
        """What `verify DIR` checks, and from what `import-layout DIR --only` takes."""
        named = self.words[0] == "verify" or self._asked == "--only"
        return [word for word in self.words[1:] if os.path.isdir(word)] if named else []


# -- what there is --------------------------------------------------------------------------------


def _repositories(line: _Line, begun: str) -> Iterator[str]:
    for root in line.directories():
        yield from _layouts(root, begun)


def _present(line: _Line, begun: str) -> Iterator[str]:
    """NAME, NAME:TAG, NAME@DIGEST or DIGEST of what can be pulled."""
    name, mark = _parts(begun)
    for root in line.directories():
        if not mark:
            yield from _layouts(root, begun)
        elif is_name(name):
            rows = _rows(os.path.join(root, name))
            yield from (f"{name}{mark}{end}" for end in (_tags(rows) if mark == ":" else _digests(rows)))
        if name in ALGORITHMS and mark == ":":
            for repository in _layouts(root, ""):
                yield from _digests(_rows(os.path.join(root, repository)))


def _past(line: _Line, begun: str) -> Iterator[str]:
    """The same, and of one repository also what it had; gc takes that with --history only."""
    if "--history" not in line.words:
        return
    yield from _changed(line, begun)


def _changed(line: _Line, begun: str) -> Iterator[str]:
    yield from _present(line, begun)
    name, mark = _parts(begun)
    if mark and is_name(name):
        yield from (f"{name}{mark}{end}" for end in _remembered(line.directories(), name, mark))


def _restorable(line: _Line, begun: str) -> Iterator[str]:
    """The same, and the runs of collectors and the repositories that are in the trash."""
    yield from _changed(line, begun)
    if not _parts(begun)[1]:
        from zotctl.storage import keys

        for root in line.directories():
            trash = os.path.join(root, keys.TRASH)
            for run in _folders(trash):
                yield run
                yield from _layouts(os.path.join(trash, run), begun, "blobs")


def _target_tags(line: _Line, begun: str) -> Iterator[str]:
    """Of the layout that is imported, or else of the repository that it goes to."""
    sources = [word for word in line.words[1:] if os.path.isfile(os.path.join(word, LAYOUT_FILE))]
    targets = [os.path.join(root, name) for name in line.option("--repo") for root in line.directories()]
    for layout in sources or targets:
        yield from _tags(_rows(layout))


KINDS: dict[str, Callable[[_Line, str], Iterable[str]]] = {
    "repositories": _repositories,
    "present": _present,
    "past": _past,
    "restorable": _restorable,
    "tags": _target_tags,
}
"""By the word that the scripts use."""


def _parts(begun: str) -> tuple[str, str]:
    """The name in NAME:TAG or NAME@DIGEST, and what stands behind it; "" if nothing does yet."""
    for mark in "@:":
        name, found, _ = begun.partition(mark)
        if found:
            return name, mark
    return begun, ""


def _remembered(roots: Iterable[str], name: str, mark: str) -> Iterator[str]:
    """Tags or digests that the history of a repository knows."""
    from zotctl.storage.clock import Clock
    from zotctl.storage.opening import directory, root_over

    for root in roots:
        past = root_over(directory(root), Clock()).history.timeline(name)
        yield from past.tagged if mark == ":" else past.pushed


# -- a directory ----------------------------------------------------------------------------------


def _layouts(root: str, begun: str, sign: str = LAYOUT_FILE, name: str = "") -> Iterator[str]:
    """The directories with a `sign` in them whose names begin so; only what may lead to one is looked into."""
    try:
        entries = list(os.scandir(os.path.join(root, name)))
    except OSError:
        return
    if name.startswith(begun) and name and any(entry.name == sign for entry in entries):
        yield name
    if name and os.path.islink(os.path.join(root, name)):
        return  # what lies below one is not served, and could lead in a circle
    for entry in entries:
        inner = f"{name}/{entry.name}".lstrip("/")
        if (inner.startswith(begun) or begun.startswith(f"{inner}/")) and is_name(inner) and entry.is_dir():
            yield from _layouts(root, begun, sign, inner)


def _folders(directory: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _rows(layout: str) -> list[_Row]:
    """The rows of an index.json; none of one that can't be read."""
    with suppress(OSError, ValueError), open(os.path.join(layout, "index.json"), "rb", opener=_at_once) as file:
        if S_ISREG(os.fstat(file.fileno()).st_mode):
            return _decode_index(file.read()).manifests
    return []


def _at_once(path: str, flags: int) -> int:
    """Without waiting for a writer, where a FIFO is in the place of a file."""
    return os.open(path, flags | os.O_NONBLOCK)


def _tags(rows: Iterable[_Row]) -> Iterator[str]:
    for row in rows:
        said = row.annotations or {}
        yield from filter(None, tag_names(said.get(REF_NAME), said.get(CONTAINERD_NAME)))


def _digests(rows: Iterable[_Row]) -> Iterator[str]:
    return (row.digest for row in rows)
