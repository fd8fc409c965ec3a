"""index.json on disk: replaced, never edited (I3), by the steps of docs/design/local.md#indexjson; and how the layout
around it comes to be (I1)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from zotctl.errors import (
    CannotExchange,
    Damaged,
    IndexMissing,
    LayoutInvalid,
    NoSpace,
    NotFound,
    NotYetReadable,
    StorageError,
    ZotctlError,
)
from zotctl.oci.digest import ALGORITHMS
from zotctl.oci.layout import LAYOUT_BYTES, check_layout
from zotctl.storage import keys
from zotctl.storage.cache import Lru
from zotctl.storage.driver import Generation, Info, Reader, place, read, scan_or_empty
from zotctl.storage.file_identity import FileIdentity, same_file
from zotctl.storage.index import LARGEST_INDEX_BYTES, Index, empty_index, index_missing, parse_index
from zotctl.storage.local.context import COARSE_NS, FINE_NS, SETTLED_S, LocalContext, has_coarse_times, settle_s
from zotctl.storage.local.reserve import Reserve
from zotctl.storage.locks import Held, ReadTurns
from zotctl.storage.protocol import Change, Outcome, Snapshot, Transaction, WouldBlock, apply
from zotctl.storage.rows import Row

LARGEST_LAYOUT_BYTES = 4096
FOREIGN_WRITE_TIMEOUT_S = 2.0
"""How long a foreign tool may write in place before half a file counts as damage."""
FOREIGN_WRITE_POLL_S = 0.02
SETTLE_TIMEOUT_S = 10.0
"""How long a commit waits, under the lock, for a foreign tool that writes in place again and again."""
LOOKS_AT_SWAPPED = 2
MISSING_TIMEOUT_S = 1.0
"""How long a reader looks again for an index.json that is missing beside content, on a network."""
CUT_TIMEOUT_S = 15.0
"""And how long for one that a commit has taken away, where only others can put it back. Longer than a lock is kept by a
process that is in trouble."""
LATE_WRITES_WATCHED_S = 1.0
WATCHED_FILES = 64
"""Old index files that are kept open at the most: each is a descriptor, and a job commits to one repository after
another."""
UNCACHED_BYTES = 1 << 20
"""An old index file that is larger gives back its pages at once: the next one is made of them, where new pages cost
twice as much as the write into them."""
CACHED_ROWS = 500_000

log = logging.getLogger("zotctl.storage")


@dataclass(frozen=True, slots=True)
class _State(Snapshot):
    """One state of the file. While it is not settled, each reading of it has a generation of its own."""

    file: Info
    """As it was when it was read."""
    settled: bool
    """Does whatever is written since change `file.generation`?"""


class _Old(NamedTuple):
    """An index.json that our rename replaced; a tool that had it open may still write into it."""

    name: str
    reader: Reader
    known: _State
    """Its state, as far as its rows were taken over."""
    until: float

    def written(self) -> bool:
        # Not by the whole generation: losing its name has changed the inode's ctime.
        now, was = self.reader.info(), self.known.file
        return (now.size, now.mtime_ns) != (was.size, was.mtime_ns)

    def parse(self) -> _State | None:
        """Its rows now; None: the writer has not finished."""
        try:
            info = self.reader.info()
            return _State(parse_index(self.reader.read_at(0, info.size)), info.generation, info, settled=False)
        except LayoutInvalid:
            return None


class _Known(NamedTuple):
    """One state of the file that this process has read: its rows, or why it is not served."""

    generation: Generation
    found: _State | LayoutInvalid
    seen: float
    """Since when the file is seen with this generation, by `clock.elapsed`."""

    def tells(self, generation: Generation) -> bool:
        """Need a file of this generation not be read?"""
        settled = isinstance(self.found, LayoutInvalid) or self.found.settled
        return settled and self.generation == generation

    @property
    def rows(self) -> Index | None:
        return self.found.index if isinstance(self.found, _State) else None

    def get(self) -> _State:
        if isinstance(self.found, LayoutInvalid):
            raise LayoutInvalid(self.found.message)
        return self.found


class _CameOut(NamedTuple):
    """A file of another program that came out of our swap, and the index that both it and ours were made from."""

    key: str
    before: Index


Begin = Callable[[Held], Transaction]


class IndexFiles:
    """The index.json files of one root, with a cache of their parses. Safe between threads and processes."""

    def __init__(self, context: LocalContext, reserve: Reserve) -> None:
        self._context, self._reserve = context, reserve
        self._cache: Lru[str, _Known] = Lru(CACHED_ROWS)
        self._old: list[_Old] = []
        self._late: list[tuple[str, list[Row]]] = []
        """Rows found in an old file that is no longer watched, or not merged yet."""
        self._came_out: dict[str, list[_CameOut]] = {}
        """By repository; its lock is held while there is an entry."""
        self._unfinished: set[str] = set()
        """Repositories that a reader found without index.json, and with a swap to finish."""
        self._mutex = threading.Lock()
        self._turns = ReadTurns(context.clock)
        self._unsettled = count()

    # -- reading --------------------------------------------------------------------------------

    def read(self, name: str, *, wait: bool = True) -> Snapshot:
        """The index as it is now: one `stat` if it has not changed. Raises NotFound: there is no repository;
        IndexMissing: there is one, and NotYetReadable: it will be put back."""
        try:
            return self._read(name, wait=wait)
        except NotFound:
            if self._context.stat(keys.layout(name)) is None:
                raise
            if not wait:
                raise WouldBlock(name) from None
        return self._read_missing(name)

    def _read(self, name: str, *, wait: bool = True) -> Snapshot:
        info = self._context.driver.stat(keys.index(name))
        generation = info.generation
        known = self._cache.get(name)
        if known is not None and known.tells(generation):
            return known.get()
        if not info.is_file:
            raise _not_a_file(keys.index(name))
        if not wait:
            raise WouldBlock(name)
        with self._turns.of(name), suppress(LayoutInvalid), self._context.driver.open(keys.index(name)) as reader:
            return self._parse_once(name, reader, reader.info())
        with self._context.driver.open(keys.index(name)) as reader:
            return self._parse(name, reader)

    def _read_missing(self, name: str) -> Snapshot:
        """Look again for an index.json that was not there. An NFS client that replaces a file that is open on its host
        takes the name away first, so the swap is still to be seen then."""
        began = self._context.clock.elapsed()
        while True:
            try:
                return self._read(name)
            except NotFound:
                if (missing := _missing_index(self._context, name)) is None:
                    raise
            is_cut, waited = bool(_could_return(self._context, name)), self._context.clock.elapsed() - began
            if is_cut and waited > (CUT_TIMEOUT_S if self._context.read_only else MISSING_TIMEOUT_S):
                self._unfinished.add(name)
                what = f"index.json is missing in {name}, since a commit was cut short"
                raise NotYetReadable(f"{what}; a server or `zotctl gc` puts it back; try again")
            if not is_cut and (not _finishes_swaps(self._context) or waited > MISSING_TIMEOUT_S):
                raise missing
            self._context.clock.sleep(FOREIGN_WRITE_POLL_S)

    def unfinished(self) -> list[str]:
        """Repositories whose index.json a commit is to put back, each told once."""
        found = list(self._unfinished)
        self._unfinished.difference_update(found)
        return found

    def is_missing(self, name: str) -> bool:
        """Is there a layout with content, and no index.json?"""
        return self._context.stat(keys.index(name)) is None and _missing_index(self._context, name) is not None

    def served(self, count: int) -> list[str]:
        """The `count` repositories that this process has read last."""
        return self._cache.latest(count)

    def _parse(self, name: str, reader: Reader) -> _State:
        """Raises NotFound; LayoutInvalid: damaged; NotYetReadable: a tool has been writing all the while."""
        began, first = self._context.clock.elapsed(), reader.info().generation
        while True:
            info = reader.info()
            try:
                return self._parse_once(name, reader, info)
            except LayoutInvalid as error:
                # skopeo and oras truncate and write: a file that was touched just now may be half a file.
                age = self._context.storage_clock.now() - info.mtime_ns / 1e9
                if age > FOREIGN_WRITE_TIMEOUT_S or self._context.clock.elapsed() > began + FOREIGN_WRITE_TIMEOUT_S:
                    if isinstance(error, _OtherFile):
                        raise
                    if info.generation != first:
                        raise _not_yet_readable(name) from error
                    self._cache.put(name, _Known(info.generation, error, began))
                    raise
            self._context.clock.sleep(FOREIGN_WRITE_POLL_S)

    def _parse_once(self, name: str, reader: Reader, info: Info) -> _State:
        known = self._cache.get(name)
        if known is not None and known.tells(info.generation):
            return known.get()
        if info.size > LARGEST_INDEX_BYTES:
            raise LayoutInvalid(f"index.json has {info.size} bytes, more than {LARGEST_INDEX_BYTES}")
        self._check_layout(name)
        now = self._context.clock.elapsed()
        seen = known.seen if known is not None and known.generation == info.generation else now
        settled = _is_stamped_by_us(info) or now - seen > settle_s(info)
        body = reader.read_at(0, info.size)
        # Not after the parse: one that takes longer than others take to commit would never be kept, and each reader
        # would parse all rows again.
        is_whole = reader.info().generation == info.generation
        index = parse_index(body, known.rows if known else None)
        generation = info.generation if settled else (*info.generation, next(self._unsettled))
        state = _State(index, generation, info, settled)
        if is_whole and self._cache.get(name) is known:  # or else a later one was read meanwhile
            self._cache.put(name, _Known(info.generation, state, seen), index.weight)
        return state

    def _check_layout(self, name: str) -> None:
        """Raises NotFound: no layout. LayoutInvalid: none to serve, until that other file is changed."""
        if not self._context.driver.stat(keys.layout(name)).is_file:
            raise _not_a_file(keys.layout(name))
        try:
            check_layout(read(self._context.driver, keys.layout(name), LARGEST_LAYOUT_BYTES))
        except LayoutInvalid as error:
            raise _OtherFile(error.message) from error
        for directory in (keys.blobs(name), *(keys.blobs_of(name, algorithm) for algorithm in ALGORITHMS)):
            found = self._context.stat(directory)
            if found is not None and not found.is_dir:
                # A link could lead out of the store (I14).
                what = "a file, not a directory" if found.is_file else "not a directory"
                raise _OtherFile(f"{directory} is {what} (image-spec, image-layout.md)")

    # -- committing -----------------------------------------------------------------------------

    def commit(self, name: str, changes: Sequence[Change], transaction: Begin) -> list[Outcome]:
        """Apply all changes that are not refused by one rename. Every check and the rename are under one lock."""
        with self._context.locks.hold(name) as held:
            outcomes = self._commit(held, changes, transaction)
            self._take_in(held, transaction)
        self._context.durable.flush_new_names(name)
        return outcomes

    def _commit(self, held: Held, changes: Sequence[Change], transaction: Begin) -> list[Outcome]:
        while True:
            if held.too_long():
                self._context.locks.renew(held)
            outcomes = self._try_commit(held, changes, transaction(held))
            if outcomes is not None:
                return outcomes

    def _try_commit(self, held: Held, changes: Sequence[Change], tx: Transaction) -> list[Outcome] | None:
        with ExitStack() as stack:
            try:
                reader = stack.enter_context(self._context.driver.open(keys.index(held.name)))
                before = self._parse_settled(held.name, reader)
            except NotFound:  # of either file: a process that made the layout may have died between the two
                self._refuse_what_is_no_file(held.name)
                if self._finish_swap(held):
                    return None
                return self._begin(held, changes, tx)
            draft = before.index.copy()
            try:
                with self._context.durable.names_once():
                    outcomes = [apply(change, tx, draft) for change in changes]
            except NotFound:
                return None  # what was published went again, with its directory
            if draft.dirty:
                body = draft.parts()
                try:
                    replaced = self._replace(held, reader, before, draft, body)
                except NotFound:  # index.json, or ours: somebody who has been frozen, or has lost the lock, was faster
                    replaced = False
                if not replaced:
                    self._context.conflict()
                    return None
                stack.pop_all()
                self._watch(held.name, reader, before)
            return outcomes

    def _parse_settled(self, name: str, reader: Reader) -> _State:
        """The state to go on from. A foreign tool that writes in place after it gives the file another generation.
        Raises NotYetReadable: one has been writing all the while."""
        until, seen = self._context.clock.elapsed() + SETTLE_TIMEOUT_S, None
        while not (before := self._parse(name, reader)).settled and before.file.generation != seen:
            if self._context.clock.elapsed() > until:
                raise _not_yet_readable(name)
            seen = before.file.generation  # what the cache knows of it, other repositories may drop
            self._context.clock.sleep(SETTLED_S + settle_s(before.file))
        return before

    def _finish_swap(self, held: Held) -> bool:
        """Put an index.json back that a commit has taken away and died, where a file is replaced by two requests. No
        commit came after what such commits have left (`_remove_swaps`). False: nothing is missing but the whole layout.
        Raises IndexMissing: something is, and nothing tells what it was, so nobody may go by an empty one."""
        name, context = held.name, self._context
        if context.stat(keys.layout(name)) is None:
            return False
        if context.stat(keys.index(name)) is not None:
            return True  # it came between the two looks: a foreign tool replaces it by two calls
        if (missing := _missing_index(context, name)) is None:
            make_layout(context, name, "sha256", held)  # cut short while it was made: it has nothing yet
            return True
        for left in _could_return(context, name):
            try:
                parse_index(read(context.driver, left.key, LARGEST_INDEX_BYTES))
            except LayoutInvalid:
                continue  # its writer died before it was whole, so it took no name away
            # Never over another file: a foreign tool may be making one.
            if not place(context.driver, left.key, keys.index(name)):
                return True
            context.durable.flush_names(name)
            context.discard(left.key)
            log.warning(f"{name}: index.json was missing, since a commit was cut short; {left.key} took its name")
            return True
        raise missing

    def _refuse_what_is_no_file(self, name: str) -> None:
        """Raise LayoutInvalid for a link or a FIFO: opening it finds nothing, and no layout can be made over it."""
        for key in (keys.index(name), keys.layout(name)):
            if (found := self._context.stat(key)) is not None and not found.is_file:
                raise _not_a_file(key)

    def _begin(self, held: Held, changes: Sequence[Change], tx: Transaction) -> list[Outcome] | None:
        """Commit to a repository that is not there: it is made if some change is not refused, and then all start
        again."""
        draft = empty_index()
        outcomes = [apply(change, tx, draft) for change in changes]
        if not draft.dirty:
            if self._context.stat(keys.blobs(held.name)) is not None:
                # What the checks took back from the trash lies in a repository, or no collector would find it.
                make_layout(self._context, held.name, "sha256", held)
            return outcomes
        make_layout(self._context, held.name, "sha256", held)
        return None

    def _replace(self, held: Held, reader: Reader, before: _State, draft: Index, body: list[bytes]) -> bool:
        """Write beside, flush, look again, swap or rename (LP). False: a foreign writer came between."""
        try:
            return self._rename_over(held, reader.info(), before, draft, body)
        except NoSpace:
            # The indexes that lost their names keep their room for as long as they are watched.
            if sum(map(len, body)) > reader.size or not (self.close() | self._reserve.release()):
                raise
            return self._rename_over(held, reader.info(), before, draft, body)

    def _rename_over(self, held: Held, like: Info, before: _State, draft: Index, body: list[bytes]) -> bool:
        driver, name = self._context.driver, held.name
        # A time stamp of our own: inode numbers are used again, and two indexes of one size within a tick of the
        # kernel's clock would look like one.
        ours = _own_stamp(self._context.storage_clock.now_ns(), before.file)
        swap = keys.Swap(self._context.clock.token(), ours, before.file.mtime_ns)
        temp = swap.key(name)
        try:
            with driver.create(temp) as writer:
                writer.write(body)
                writer.set_attributes(like, swap.ours)
                writer.sync()
                written = writer.info()
            if self._now(name).generation != before.file.generation or held.too_long():
                driver.unlink(temp)
                return False
            self._remove_swaps(name, swap)
        except BaseException:
            self._context.discard(temp)
            raise
        try:
            came_out = self._give_name(name, swap)
        except _MadeAnew as error:
            # Who made it saw none, and knew no row of the old one.
            self._came_out.setdefault(name, []).append(_CameOut(error.key, empty_index()))
            self._context.discard(temp)
            return False
        except BaseException:
            self._discard_ours(temp, written)
            raise
        if came_out is not None:
            self._look_at_old(name, came_out, like, before)
        self._remember(name, draft, written)
        self._reserve.grow(sum(map(len, body)))
        return True

    def _remove_swaps(self, name: str, ours: keys.Swap) -> None:
        """Remove what commits have left that died before their rename, while index.json is known to be there: none of
        it may become the index.json after this commit (`_finish_swap`). And who wrote it may be frozen, and have lost
        the lock: its rename then finds nothing, and undoes no commit."""
        kept = {ours.key(name), *(one.key for one in self._came_out.get(name, ()))}
        for left in _left_in(self._context, name):
            if left.key not in kept and left.is_superseded:
                self._context.driver.unlink(left.key)

    def _give_name(self, name: str, swap: keys.Swap) -> str | None:
        """Give the new file its name. Returns where the old file is now; None: it was replaced.

        Where a client would replace it by two requests, these are ours, so that each state between them can be told,
        and ended by others: a request that its client sends for a process that has died may come after the commits of
        others, and must take nothing away for good, nor over anything. Raises _MadeAnew: a foreign tool has made
        another index.json between the two.
        """
        driver, temp, index = self._context.driver, swap.key(name), keys.index(name)
        if driver.capabilities.exchange:
            with suppress(CannotExchange):
                driver.exchange(temp, index)
                return temp
        if driver.capabilities.replaces:
            driver.rename(temp, index)
            return None
        aside = swap._replace(was=True).key(name)
        driver.rename(index, aside)
        if not place(driver, temp, index):
            raise _MadeAnew(aside)
        self._context.discard(temp)
        return aside

    def _discard_ours(self, temp: str, written: Info) -> None:
        """Remove our file after an error. The swap may have been done: then this is the name of another file. Half of
        it may have been done, on NFS: then this is all that is left of index.json, and is kept."""
        now = self._context.stat(temp)
        if _finishes_swaps(self._context) and self._context.stat(keys.index(keys.parent(temp))) is None:
            return
        if now is not None and same_file(now, written):
            self._context.discard(temp)

    # -- a foreign tool that renames its own file in, between our last look and the swap -----------

    def _look_at_old(self, name: str, temp: str, was: Info, before: _State) -> None:
        """Look at the file that came out of the swap. The one that was read is removed (`late_writes` finds what is
        written into it later); another one is kept until its rows are merged. Never raises: the commit is done. After
        an error it is tried again."""
        for attempt in range(1, LOOKS_AT_SWAPPED + 1):
            try:
                with self._context.driver.open(temp) as reader:
                    is_known = same_file(reader.info(), was)  # which the caller holds
                if is_known:
                    self._context.driver.unlink(temp)
                else:
                    self._came_out.setdefault(name, []).append(_CameOut(temp, before.index))
                return
            except StorageError as error:
                if attempt == LOOKS_AT_SWAPPED:
                    log.warning(f"{temp} is left there, for gc to look at: {error.message}")

    def _take_in(self, held: Held, transaction: Begin) -> None:
        """Merge what another program did to the index that ours was made from. Never raises: what can't be merged is
        left for gc (`unmerged`)."""
        while came_out := self._came_out.get(held.name):
            key, before = came_out.pop(0)
            try:
                with self._context.driver.open(key) as reader:
                    after = self._foreign(reader)
                (outcome,) = self._commit(held, [_merged(before, after)], transaction)
                if outcome is not None:
                    raise outcome
                self._context.discard(key)
            except ZotctlError as error:
                what = f"{key}, which another program had put in the place of index.json"
                log.warning(f"{what}, is kept until gc can take it over: {error.message}")
        self._came_out.pop(held.name, None)

    def _foreign(self, reader: Reader) -> Index:
        """The rows of another program's file. Raises LayoutInvalid when it stays half a file."""
        until = self._context.clock.elapsed() + FOREIGN_WRITE_TIMEOUT_S
        while True:
            try:
                return parse_index(reader.read_at(0, min(reader.info().size, LARGEST_INDEX_BYTES)))
            except LayoutInvalid:
                if self._context.clock.elapsed() > until:
                    raise
            self._context.clock.sleep(FOREIGN_WRITE_POLL_S)

    def unmerged(self, name: str) -> list[str]:
        """The files of other programs whose rows were never taken over, since a process died."""
        return [key for entry in self._context.driver.scan(name) if self.is_unmerged(key := f"{name}/{entry.name}")]

    def is_unmerged(self, key: str) -> bool:
        """Is this a file of another program whose rows were never taken over? Not if it is no index, since a process or
        the other program died while writing it: it has no rows, and goes when it is old enough."""
        if (swap := keys.parse_swap(key.rpartition("/")[2])) is None or (info := self._context.stat(key)) is None:
            return False
        if not info.is_file or info.mtime_ns in (swap.ours, swap.before):
            return False
        with suppress(NotFound, LayoutInvalid), self._context.driver.open(key) as reader:
            parse_index(reader.read_at(0, min(reader.size, LARGEST_INDEX_BYTES)))
            return True
        return False

    def take_over(self, name: str, transaction: Begin, removed_since: Callable[[str, float], set[str]]) -> None:
        """Take over the rows of `unmerged` files, except what was removed here since. A file of our own that a process
        died writing, with another time stamp, can't be parsed, or has known rows only."""
        with self._context.locks.hold(name) as held:
            for key in self.unmerged(name):
                with self._context.driver.open(key) as reader:
                    gone = removed_since(name, reader.info().ctime_ns / 1e9)
                    try:
                        rows = list(parse_index(reader.read_at(0, min(reader.size, LARGEST_INDEX_BYTES))).rows())
                    except LayoutInvalid:
                        continue  # another program has begun to write it since
                wanted = [row for row in rows if not {row.tag, row.alias, row.digest} & gone]
                (outcome,) = self._commit(held, [adopted(wanted, left_over=True)], transaction)
                if outcome is not None:
                    raise outcome
                self._context.discard(key)
                self._take_in(held, transaction)

    def _now(self, name: str) -> Info:
        """The index.json now, by open and fstat: the cached `stat` of a network client may be old."""
        with self._context.driver.open(keys.index(name)) as reader:
            return reader.info()

    def _remember(self, name: str, draft: Index, written: Info) -> None:
        now = self._context.stat(keys.index(name))
        if now is not None and FileIdentity.of(now).content == FileIdentity.of(written).content:
            draft.dirty = False
            state = _State(draft, now.generation, now, _is_stamped_by_us(now))
            self._cache.put(name, _Known(now.generation, state, self._context.clock.elapsed()), draft.weight)

    # -- a foreign tool that opened the file before our rename ----------------------------------

    def _watch(self, name: str, reader: Reader, before: _State) -> None:
        """Keep the old file open for a second. Of too many, the oldest is looked at now, and closed."""
        if reader.size >= UNCACHED_BYTES:
            reader.uncache()
        with self._mutex:
            self._old.append(_Old(name, reader, before, self._context.clock.elapsed() + LATE_WRITES_WATCHED_S))
            while len(self._old) > WATCHED_FILES:
                self._look_last(self._old.pop(0))

    def _look_last(self, old: _Old) -> None:
        """Close a file. What was written into it waits to be merged."""
        _, rows = self._look(old)
        self._late += [(old.name, rows)] if rows else []
        old.reader.close()

    def put_back(self, name: str, rows: list[Row]) -> None:
        """Rows of `late_writes` that could not be merged: the next call returns them again."""
        with self._mutex:
            self._late.append((name, rows))

    def late_writes(self, name: str | None = None) -> list[tuple[str, list[Row]]]:
        """Rows that foreign tools wrote into files that had lost their name, for the caller to merge: of one
        repository, or of all."""
        with self._mutex:
            late = [one for one in self._late if name in (None, one[0])]
            self._late = [one for one in self._late if one not in late]
            kept = []
            for old in self._old:
                watched: _Old | None = old
                if name in (None, old.name):
                    watched, rows = self._look(old)
                    late += [(old.name, rows)] if rows else []
                if watched is not None:
                    kept.append(watched)
                else:
                    old.reader.close()
            self._old = kept
        return late

    def _look(self, old: _Old) -> tuple[_Old | None, list[Row]]:
        """The file to watch further, if any, and the rows written into it. A tool that is still writing gets more
        time."""
        now = self._context.clock.elapsed()
        try:
            changed = old.written()
            written = old.parse() if changed else None
        except StorageError:
            return None, []
        if written is None:
            return (old if now <= old.until + (FOREIGN_WRITE_TIMEOUT_S if changed else 0) else None), []
        rows = written.index.new_rows(old.known.index)  # what a tool only kept may have been deleted here since
        return (old._replace(known=written) if now <= old.until else None), rows

    def close(self) -> bool:
        """Close all watched files. False: there was none."""
        with self._mutex:
            old, self._old = self._old, []
            for one in old:
                self._look_last(one)
        return bool(old)


def make_layout(context: LocalContext, name: str, algorithm: str, held: Held | None = None) -> None:
    """Make what is missing of a layout: directories first, then index.json, and `oci-layout` last (I1), for until that
    is there no reader takes the directory for a layout. Under the lock, since a collector removes empty ones under it.
    """
    if held is None:
        with context.locks.hold(name) as taken:
            return make_layout(context, name, algorithm, taken)
    context.make_dirs(keys.blobs_of(name, algorithm))
    if context.stat(keys.layout(name)) is not None and context.stat(keys.index(name)) is not None:
        return None
    if context.stat(keys.index(name)) is None and (missing := _missing_index(context, name)) is not None:
        raise missing  # an empty one would lose its tags, and then its content
    # [commit] At once, even where the flush of blobs is postponed: `oci-layout` comes after index.json.
    if context.stat(keys.index(name)) is None:
        _place(context, name, keys.index(name), empty_index().render())
        if context.commit:
            context.durable.flush_names(name)
    if context.stat(keys.layout(name)) is None:
        _place(context, name, keys.layout(name), LAYOUT_BYTES)
    if context.commit:
        context.durable.flush_names(name)
    return None


def _place(context: LocalContext, name: str, key: str, body: bytes) -> None:
    """Write a file that is missing, without replacing one: another tool may be making this layout, with rows (I4)."""
    driver, temp = context.driver, keys.index_temp(name, context.clock.token())
    try:
        with driver.create(temp) as writer:
            writer.write([body])
            writer.sync()
            writer.set_attributes(None, _own_stamp(context.storage_clock.now_ns(), writer.info()))
        place(driver, temp, key)
    finally:
        context.discard(temp)


def _missing_index(context: LocalContext, name: str) -> IndexMissing | None:
    """Why a layout without index.json can't be taken for an empty one. None: there is no layout; it is being made or
    removed, and is empty; or a move has set the index aside, with its content in another place."""
    if context.stat(keys.layout(name)) is None or context.stat(keys.index_set_aside(name)) is not None:
        return None
    folders = [keys.blobs_of(name, entry.name) for entry in scan_or_empty(context.driver, keys.blobs(name))]
    if not (any(scan_or_empty(context.driver, folder) for folder in folders) or _left_in(context, name)):
        return None
    return index_missing(name)


def _finishes_swaps(context: LocalContext) -> bool:
    """Only where a rename may take a name away and die is an old swap more likely than a foreign tool's removal."""
    return not context.driver.capabilities.local


def _could_return(context: LocalContext, name: str) -> list[_Left]:
    """What could be the index.json that is missing, the latest first. What was set aside was that, also for a server on
    the host of the files, whose own commits set nothing aside."""
    return [left for left in _left_in(context, name) if left.swap.was or _finishes_swaps(context)]


class _Left(NamedTuple):
    """A file that a commit has left: written to become the index.json, or set aside when it was that."""

    key: str
    swap: keys.Swap
    info: Info

    @property
    def is_superseded(self) -> bool:
        """Is it, beside an index.json, no more than what that was made from, or would have been? Not if a request that
        came late has set aside what others had committed, or what another program had made."""
        return self.info.mtime_ns == (self.swap.before if self.swap.was else self.swap.ours)


def _left_in(context: LocalContext, name: str) -> list[_Left]:
    """What could be an index.json that is missing, the latest first: that got its name or was written last, by the
    storage's own clock, or, within a tick of it, has the later stamp."""
    found = []
    for entry in scan_or_empty(context.driver, name):
        if (swap := keys.parse_swap(entry.name)) is not None:
            info = context.stat(key := f"{name}/{entry.name}")
            if info is not None and info.is_file and (swap.was or info.mtime_ns == swap.ours):
                found.append(_Left(key, swap, info))
    return sorted(found, key=lambda left: (left.info.ctime_ns, left.info.mtime_ns), reverse=True)


def _own_stamp(now: int, before: Info) -> int:
    """A time stamp, in nanoseconds, that neither the kernel gives to a write from now on, nor we gave lately, and that
    the file system keeps as it is. To the microsecond, or else further in the past than that of the file that is
    replaced, if it is as new as that."""
    if not has_coarse_times(before):
        return now // FINE_NS * FINE_NS
    newest = before.mtime_ns if before.ctime_ns > now - 2 * COARSE_NS else now
    return min(newest, now) // COARSE_NS * COARSE_NS - COARSE_NS


def _is_stamped_by_us(info: Info) -> bool:
    """Does a write that comes after this look always change the generation? Only a write in place, within the same tick
    of the kernel's clock, may leave it as it is, and such a write has equal stamps; ours has a time of its own."""
    return info.mtime_ns != info.ctime_ns


class _MadeAnew(Exception):
    """`key`: of the file that was index.json."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class _OtherFile(LayoutInvalid):
    """A file beside index.json is wrong, so nothing may be remembered by the generation of index.json."""


def _not_yet_readable(name: str) -> NotYetReadable:
    return NotYetReadable(f"{keys.index(name)} is not yet readable: another program is writing it; try again")


def _not_a_file(key: str) -> LayoutInvalid:
    return _OtherFile(f"{key} is not a regular file")


def _merged(before: Index, after: Index) -> Change:
    """The change that another program made between the two, as if it had come before our commit."""

    def change(tx: Transaction, draft: Index) -> None:
        for row in after.new_rows(before):
            _is_gone(tx, row)  # takes what it leads to back from the trash; a missing blob stays missing
        draft.merge(before, after)

    return change


def adopted(rows: Sequence[Row], *, left_over: bool = False) -> Change:
    """The change that adds rows which another program wrote late. A tag that is here stays as it is, since who wrote
    late may have read long ago; what it was given then stays as an untagged row, or a collector would take it.

    `left_over`: they are of a file that was left for long, so what is gone meanwhile stays so.
    """

    def change(tx: Transaction, draft: Index) -> None:
        there = [row for row in rows if not _is_gone(tx, row)]
        draft.adopt(there if left_over else rows)
        draft.adopt_untagged(there)

    return change


def _is_gone(tx: Transaction, row: Row) -> bool:
    if row.digest is None:
        return False
    try:
        with suppress(Damaged):  # it heals, and every other row of it stays
            tx.require(row.digest)
    except NotFound:
        return True
    return False
