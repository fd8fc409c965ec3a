"""index.json in memory: looked up in O(1), changed in O(change), written back byte for byte but for what changed.

A rewrite is ready pieces (`rows.Piece`), of which only those are made anew whose rows changed. A draft shares with its
original everything that did not change (docs/design/local.md#indexjson).
Spec: image-spec image-layout.md, "index.json file", and image-index.md.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from zotctl.errors import IndexMissing, LayoutInvalid, ManifestInvalid, quoted
from zotctl.oci.codec import fold, pairs_of
from zotctl.oci.digest import Digest
from zotctl.oci.media_types import OCI_INDEX
from zotctl.storage import known_rows
from zotctl.storage.keys import layout
from zotctl.storage.names import Ids, Names
from zotctl.storage.rows import (
    Piece,
    Row,
    annotations_in,
    corrected,
    decode_fields,
    encode,
    key_of,
    new_row,
    parse_piece,
    parse_row,
    piece_of,
    renamed,
    said_of,
    taken_over,
    why_nameless,
)

_decode_list = msgspec.json.Decoder(list[msgspec.Raw] | None).decode

_has_escaped_letter = re.compile(rb"\\u00[4-7]").search
"""Finds an escaped letter, which may be part of a key though no encoder writes one."""

_OF_EVERY_INDEX = ("schemaVersion", "mediaType", "manifests")
_REFERENCE_FIELDS = frozenset(map(fold, ("config", "layers", "blobs", "subject", "fsLayers")))
_NOTHING = (b"null", b"[]", b"{}")

LARGEST_INDEX_BYTES = 256 << 20
"""A larger index.json is refused."""
OUR_ANNOTATIONS = "dev.zotctl."
"""The prefix of the annotations that are about one store or archive: no other takes them over."""
REPOSITORY = f"{OUR_ANNOTATIONS}repository"
"""The annotation of an archive of one repository that has its name, since no path does."""

PIECE_ROWS = 128
"""Rows whose bytes are kept as one piece, and written by each rewrite as they are, until one of them changes."""
LEAST_ROWS = 16
"""An index takes as much memory besides its rows as so many rows: of 100,000 small ones a cache keeps a part."""
FOUND_ROWS = 256
"""Rows that are kept parsed, of those that were looked for first."""
MOST_MOVED = 256
"""Names that may have come or gone until the sorted list of tags is made anew."""
MOST_GAPS = 1000
"""Rows are numbered anew when this many numbers more than there are rows, and than half of all, are of removed rows."""


class Index:
    """The rows of one index.json. A snapshot that was handed out is never changed: edit a `copy()`."""

    __slots__ = (
        "_aliases", "_bare", "_count", "_digests", "_fields", "_found", "_listed", "_nameless", "_next", "_pieces",
        "_tags", "_uneven", "dirty", "edits",
    )  # fmt: skip

    def __init__(self, fields: dict[str, bytes], raws: Sequence[bytes | msgspec.Raw] = ()) -> None:
        """`raws`: the bytes of the rows, each one JSON value."""
        self._fields = fields
        pieces = [piece_of(raws[start : start + PIECE_ROWS]) for start in range(0, len(raws), PIECE_ROWS)]
        self._pieces: tuple[list[Piece], dict[int, Row | None]] = (pieces, {})
        """Pieces that copies share and nobody changes, and the rows that have changed since, by number; None: it was
        removed. Rows are numbered in the order of the file; those of a piece follow one another."""
        self._next = self._count = len(raws)
        self._listed: tuple[list[str], set[str]] | None = None
        """The tags, sorted, as they were, and the names that may have come or gone since."""
        self._found: dict[str, Row] = {}
        """Rows that were looked for, parsed."""
        self._learn_names()
        self.edits = 0
        self.dirty = False

    def _learn_names(self) -> None:
        tags, aliases, digests, bare = (list[str | None]() for _ in range(4))
        said, types = list[tuple[int, str]](), dict[str, str]()
        for _, row in self._numbered():
            tags.append(row.tag)
            aliases.append(row.alias)
            digests.append(row.digest)
            bare.append(row.digest if _is_bare(row) else None)
            said.append((row.size, types.setdefault(row.media_type, row.media_type)))
        self._tags, self._aliases, self._digests, self._bare = Names(tags), Names(aliases), Names(digests), Names(bare)
        self._nameless = frozenset(row_id for row_id, digest in enumerate(digests) if digest is None)
        """The rows without a digest."""
        self._uneven = {digest for digest, ids in self._digests.several() if len({said[row_id] for row_id in ids}) > 1}
        """The digests whose rows may differ in size or media type; those of all others are equal in both."""

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        """All rows with their numbers."""
        for number, piece in enumerate(self.pieces()):
            for place, row in parse_piece(piece):
                yield number * PIECE_ROWS + place, row

    def _raw(self, row_id: int) -> bytes:
        """The bytes of a row; none if it was removed."""
        pieces, changed = self._pieces
        if row_id in changed:
            return row.raw if (row := changed[row_id]) is not None else b""
        return pieces[row_id // PIECE_ROWS].row(row_id % PIECE_ROWS)

    def _row(self, row_id: int) -> Row:
        """A row that is there, as those are that names lead to."""
        return self._pieces[1].get(row_id) or parse_row(self._raw(row_id))

    def _rows(self, ids: Iterable[int]) -> list[Row]:
        return list(map(self._row, ids))

    # -- looking --------------------------------------------------------------------------------

    def find(self, reference: str) -> Row | None:
        """The row of a digest or of a tag; of two rows with one tag the last (it was appended)."""
        row = self._found.get(reference)
        if row is None and (row := self._look_for(reference)) is not None and len(self._found) < FOUND_ROWS:
            self._found[reference] = row
        return row

    def _look_for(self, reference: str) -> Row | None:
        if ":" in reference:
            ids = self._digests.get(reference)
            return None if ids is None else self._row(ids if isinstance(ids, int) else ids[0])
        ids = self._tags.get(reference)
        return self._by_alias(reference) if ids is None else self._row(ids if isinstance(ids, int) else ids[-1])

    def __contains__(self, digest: str) -> bool:
        return digest in self._digests

    def __len__(self) -> int:
        return self._count

    @property
    def weight(self) -> int:
        """What it takes in a cache, in rows."""
        return self._count + LEAST_ROWS

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of the file. They are parsed each time."""
        return (row for _, row in self._numbered())

    def rows_of(self, digest: str, most: int | None = None) -> list[Row]:
        """The rows of one digest; the first `most` of them."""
        return self._rows(self._digests.ids(digest)[:most])

    def count_of(self, digest: str) -> int:
        """The number of rows of one digest."""
        return len(self._digests.ids(digest))

    def media_types_of(self, digest: str) -> set[str]:
        """What the rows of a digest call it."""
        return {row.media_type for row in self.rows_of(digest, None if digest in self._uneven else 1)}

    @property
    def by_digest(self) -> Names:
        """The rows of each digest; not to be changed. Cheap, where `digests` takes linear time after a change."""
        return self._digests

    @property
    def digests(self) -> dict[str, Ids]:
        """Keyed by digest; for set operations, not to be changed."""
        return self._digests.all()

    def tags(self) -> list[str]:
        """All tags in byte order, each once (distribution-spec, "Listing Tags"). Not to be changed."""
        if self._listed is None:
            tags, aliases = self._tags.all(), self._aliases.all()
            listed = sorted([*tags, *(alias for alias in aliases if alias not in tags and self._is_tag(alias))])
        else:
            listed, moved = self._listed
            if moved:
                listed = self._put_right(listed.copy(), moved)
        self._listed = listed, set()
        return listed

    def _put_right(self, listed: list[str], moved: Iterable[str]) -> list[str]:
        """A sorted list in which only these names may be wrong."""
        for name in moved:
            place = bisect_left(listed, name)
            is_there = listed[place : place + 1] == [name]
            if self._is_tag(name) is not is_there:
                listed[place : place + is_there] = [] if is_there else [name]
        return listed

    def _is_tag(self, name: str) -> bool:
        if name in self._tags:
            return True
        ids = self._aliases.get(name)
        return ids is not None and (isinstance(ids, int) or self._by_alias(name) is not None)

    def tags_of(self, digest: str) -> list[str]:
        """The tags that lead to a digest, sorted."""
        names = (row.tag or row.alias for row in self.rows_of(digest))
        return sorted({n for n in names if n and (found := self.find(n)) and found.digest == digest})

    def nameless(self) -> list[Row]:
        """The rows without a digest, in which other programs may find one."""
        return self._rows(sorted(self._nameless))

    def unclear(self) -> Iterator[str]:
        """The reasons why not all references of this index can be known: rows without a digest, and fields in which
        other manifests have references, as of an image that was written over an index.json."""
        yield from map(why_nameless, self.nameless())
        for name, raw in self._fields.items():
            if fold(name) in _REFERENCE_FIELDS and raw not in _NOTHING:
                yield f"index.json has {quoted(name)}, in which other programs may find what is needed"

    def says_all_of(self, other: Index) -> bool:
        """Has this index all fields and annotations of `other`, apart from its rows?"""
        mine, theirs = annotations_in(self._fields), annotations_in(other._fields)
        fields = [name for name in other._fields if name not in (*_OF_EVERY_INDEX, "annotations")]
        own = [name for name in theirs if not name.startswith(OUR_ANNOTATIONS)]
        return all(self._fields.get(name) == other._fields[name] for name in fields) and all(
            name in mine and bytes(mine[name]) == bytes(theirs[name]) for name in own
        )

    def says_all_of_row(self, other: Row) -> bool:
        """Says a row of the same manifest here all that `other` says of it, apart from names?"""
        said = said_of(other)
        here = map(said_of, self.rows_of(other.digest or ""))
        return not said or any(all(key in mine and mine[key] == said[key] for key in said) for mine in here)

    def duplicate_tags(self) -> list[str]:
        """Tags that several rows have, sorted."""
        return sorted(tag for tag, _ in self._tags.several())

    def _by_alias(self, tag: str) -> Row | None:
        """A full name answers to its tag only if that is unique in the layout."""
        rows = self._rows(self._aliases.ids(tag))
        return rows[-1] if rows and len({row.digest for row in rows}) == 1 else None

    # -- changing a copy ------------------------------------------------------------------------

    def copy(self) -> Index:
        """A copy to be edited; takes the time of what has changed in its original since that was read."""
        if self._next - self._count > max(MOST_GAPS, self._count):
            return Index(self._fields, [row.raw for row in self.rows()])
        twin = Index(self._fields)
        pieces, changed = self._pieces
        twin._pieces = (pieces, changed.copy())
        twin._next, twin._count = self._next, self._count
        twin._tags, twin._aliases = self._tags.copy(), self._aliases.copy()
        twin._digests, twin._bare = self._digests.copy(), self._bare.copy()
        twin._nameless, twin._uneven = self._nameless, self._uneven.copy()
        if self._listed is not None and len(self._listed[1]) <= MOST_MOVED:
            twin._listed = self._listed[0], self._listed[1].copy()
        return twin

    def now(self, body: bytes) -> Index | None:
        """The index of a file that other processes have made of this one, of which only the rows are parsed that differ
        from ours; None: too many do, or in a way in which we make no changes. Raises LayoutInvalid: `body` may be no
        index."""
        twin = self.copy()
        found = known_rows.cut(body, twin.pieces())
        if found is None:
            return None
        fields, raws = _split(found.rest)
        changes = known_rows.changes(found, raws, twin.pieces(), PIECE_ROWS)
        if changes is None:
            return None
        twin._fields = fields
        for row_id, raw in changes.of_rows:
            twin._replace(row_id, parse_row(raw) if raw else None)
        for raw in changes.appended:
            twin._append(parse_row(raw))
        twin.pieces()  # made at once, since threads that share a snapshot must not change it
        twin.dirty, twin.edits = False, 0
        return twin

    def put(
        self, digest: Digest, size: int, media_type: str, tags: Iterable[str] = (),
        is_wrong: Callable[[str], bool] = lambda claim: False,
    ) -> None:  # fmt: skip
        """Give a manifest its row, or one row for each tag; the manifest that had the tag keeps an untagged row.

        Rows of this manifest with another size are corrected, and so are those whose media type `is_wrong`, or else it
        would be served with that by its digest (I8).
        """
        for row_id in self._digests.ids(digest):
            row = self._row(row_id)
            called = media_type if is_wrong(row.media_type) else row.media_type
            if (row.size, row.media_type) != (size, called):
                self._replace(row_id, corrected(row, size, called))
            elif digest not in self._uneven:
                break
        for tag in tags:
            if not self._points(tag, digest, media_type):
                self._vacate(self._tags.ids(tag))
                self._give_row(digest, size, media_type, tag)
        if digest not in self._digests:
            self._append(new_row(digest, size, media_type, None))

    def put_row(self, raw: bytes, tag: str | None) -> None:
        """Take over a row of another layout with all its fields, as `tag` or without a name. A row that is there
        already, or says nothing new, is not added again; the manifest that had the tag keeps an untagged row."""
        row = taken_over(parse_row(raw), tag)
        if row.digest is None:
            return
        bare = renamed(row, None).raw
        plain = new_row(row.digest, row.size, row.media_type, None).raw
        if tag is None:
            known = {renamed(there, None).raw for there in self.rows_of(row.digest)}
            if bare not in known and not (known and bare == plain):
                self._append(row)
        elif not self._points(tag, row.digest, row.media_type):
            self._vacate(self._tags.ids(tag))
            self._put_over(row, row.digest, (bare, plain))

    def adopt_fields(self, other: Index) -> None:
        """Take over the fields of `other` that this index lacks, such as annotations, but no references, since their
        content is not taken over with them."""
        lacking = {
            name: raw
            for name, raw in _without_ours(other._fields).items()
            if name not in self._fields and fold(name) not in _REFERENCE_FIELDS
        }
        if lacking:
            self._fields = self._fields | lacking
            self.dirty = True

    def field(self, name: str) -> bytes:
        """The JSON of a field of the index; "null" if there is none."""
        return self._fields.get(name, b"null")

    def annotation(self, name: str) -> str:
        """An annotation of the index; "" if there is none. Raises LayoutInvalid if the annotations are no object."""
        raw = self._own_annotations().get(name)
        try:
            value = msgspec.json.decode(raw) if raw is not None else ""
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""
        return value if isinstance(value, str) else ""

    def annotate(self, name: str, value: str) -> None:
        """Set an annotation of the index. It does not make the index dirty. Raises LayoutInvalid like `annotation`."""
        annotations = self._own_annotations() | {name: msgspec.Raw(encode(value))}
        self._fields = self._fields | {"annotations": encode(annotations)}

    def forget_ours(self) -> None:
        """Remove the annotations of the index that are about the store that it lies in."""
        self._fields = _without_ours(self._fields)

    def _own_annotations(self) -> dict[str, msgspec.Raw]:
        try:
            return annotations_in(self._fields)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LayoutInvalid(
                f"index.json: annotations are no object (image-spec, image-index.md): {error}"
            ) from error

    def _put_over(self, row: Row, digest: Digest, nameless: tuple[bytes, ...]) -> None:
        """Put a row in the place of one that says the same without a name, or else at the end."""
        for row_id in self._bare.ids(digest):
            if renamed(self._row(row_id), None).raw in nameless:
                self._replace(row_id, row)
                return
        self._append(row)

    def untag(self, tag: str) -> None:
        """Take a tag away; its manifest stays as an untagged row unless it has another row."""
        self._vacate((*self._tags.ids(tag), *self._aliases.ids(tag)))

    def drop(self, digest: str) -> None:
        """Remove every row of a manifest."""
        for row_id in self._digests.ids(digest):
            self._replace(row_id, None)

    def adopt(self, rows: Iterable[Row]) -> None:
        """Add rows that this index lacks, from a foreign tool's late write; those without a digest to the letter."""
        nameless = {row.raw for row in self.nameless()}
        for row in rows:
            if row.digest is None:
                known = row.raw in nameless
            else:
                name = row.tag or row.alias
                known = (self.find(name) if name else self.find(row.digest)) is not None
            if not known:
                self._append(row)

    def adopt_untagged(self, rows: Iterable[Row]) -> None:
        """Add rows whose manifest has none here, without their names: another manifest has these by now."""
        self.adopt(renamed(row, None) for row in rows if row.digest is not None and row.digest not in self)

    def merge(self, before: Index, after: Index) -> None:
        """Apply the changes that another program made from `before` to `after`, of rows and of fields. What changed
        here since stays: a manifest whose tag is taken keeps an untagged row."""
        had, has = ({key_of(row): row for row in index.rows()} for index in (before, after))
        for row_id, row in list(self._numbered()):
            was, now = had.get(key := key_of(row)), has.get(key)
            if was is not None and now is None:
                self._replace(row_id, None)
            elif was is not None and now is not None and row.raw == was.raw != now.raw:
                self._replace(row_id, now)
        new = after.new_rows(before)
        self.adopt(new)
        self.adopt_untagged(new)
        self._merge_fields(before._fields, after._fields)

    def _merge_fields(self, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        unchanged_here = {name for name in changed if self._fields.get(name) == before.get(name)}
        if unchanged_here:
            theirs = {name: after[name] for name in changed if name in unchanged_here and name in after}
            kept = {name: raw for name, raw in self._fields.items() if name in after or name not in unchanged_here}
            self._fields, self.dirty = kept | theirs, True

    def new_rows(self, before: Index) -> list[Row]:
        """The rows of this index that `before` lacks."""
        had = {key_of(row) for row in before.rows()}
        return [row for row in self.rows() if key_of(row) not in had]

    def _points(self, tag: str, digest: Digest, media_type: str) -> bool:
        rows = self._rows(self._tags.ids(tag))
        return len(rows) == 1 and rows[0].digest == digest and rows[0].media_type == media_type

    def _vacate(self, row_ids: Iterable[int]) -> None:
        for row_id in row_ids:
            row = self._row(row_id)
            last = row.digest is not None and isinstance(self._digests.get(row.digest), int)
            self._replace(row_id, renamed(row, None) if last else None)

    def _give_row(self, digest: Digest, size: int, media_type: str, tag: str) -> None:
        for row_id in self._bare.ids(digest):
            if (row := self._row(row_id)).media_type == media_type:
                self._replace(row_id, renamed(row, tag))
                return
        self._append(new_row(digest, size, media_type, tag))

    def _append(self, row: Row) -> None:
        self._next += 1
        self._put_in(self._next - 1, row)

    def _replace(self, row_id: int, row: Row | None) -> None:
        """Put a row in the place of another, or remove it."""
        for names, name in self._names_of(self._row(row_id)):
            names.remove(name, row_id)
            self._note_moved(names, name)
        self._nameless -= {row_id}
        self._count -= 1
        self._put_in(row_id, row)

    def _put_in(self, row_id: int, row: Row | None) -> None:
        self.dirty, self._found = True, {}
        self.edits += 1
        self._pieces[1][row_id] = row
        if row is None:
            return
        self._count += 1
        if row.digest is None:
            self._nameless |= {row_id}
        elif any((other.size, other.media_type) != (row.size, row.media_type) for other in self.rows_of(row.digest, 1)):
            self._uneven.add(row.digest)
        for names, name in self._names_of(row):
            names.add(name, row_id)
            self._note_moved(names, name)

    def _note_moved(self, names: Names, name: str) -> None:
        if self._listed is not None and names in (self._tags, self._aliases):
            self._listed[1].add(name)

    def _names_of(self, row: Row) -> Iterator[tuple[Names, str]]:
        bare = row.digest if _is_bare(row) else None
        keyed = ((self._digests, row.digest), (self._bare, bare), (self._tags, row.tag), (self._aliases, row.alias))
        return ((names, name) for names, name in keyed if name is not None)

    # -- bytes ----------------------------------------------------------------------------------

    def render(self) -> bytes:
        """The whole file; `manifests` is an array even when it is empty (image-index.md)."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes]:
        """The whole file in pieces."""
        rows = [piece.raw for piece in self.pieces() if piece.raw]
        rows[:1] = [raw[1:] for raw in rows[:1]]
        parts = [b"{"]
        for name, raw in self._fields.items():
            parts.append(encode(name) + b":" if len(parts) == 1 else b"," + encode(name) + b":")
            parts += [b"[", *rows, b"]"] if name == "manifests" else [raw]
        return [*parts, b"}"]

    def pieces(self) -> list[Piece]:
        """All rows, in pieces. Not to be changed."""
        pieces, changed = self._pieces
        if changed:
            made = pieces.copy()
            for number in sorted({row_id // PIECE_ROWS for row_id in changed}):
                ids = range(number * PIECE_ROWS, min((number + 1) * PIECE_ROWS, self._next))
                made[number : number + 1] = [piece_of([self._raw(row_id) for row_id in ids])]
            # Threads that share a snapshot may all do this; each puts the same in its place, by one assignment.
            self._pieces = pieces, changed = made, {}
        return pieces


def _is_bare(row: Row) -> bool:
    """Has it a digest, and no name?"""
    return row.digest is not None and row.tag is None and row.alias is None


def empty_index() -> Index:
    """The index of a new repository."""
    return Index({"schemaVersion": b"2", "mediaType": encode(OCI_INDEX), "manifests": b"[]"})


def index_missing(name: str) -> IndexMissing:
    """The error for a repository that has content and no index.json."""
    return IndexMissing(
        f"index.json is missing in {name}, whose content is there (image-spec, image-layout.md): put it back from a "
        f"copy, or remove {layout(name)} to begin with no tags"
    )


def parse_index(body: bytes, known: Index | None = None) -> Index:
    """Read an index.json of any program. Rows that `known` has to the letter need not be parsed again.

    Raises LayoutInvalid: not JSON, not an object, or not what image-index.md asks for.
    """
    if known is not None:
        with suppress(LayoutInvalid):  # which is raised below, with the place where it is
            if (found := known.now(body)) is not None:
                return found
    return Index(*_split(body))


def _split(body: bytes) -> tuple[dict[str, bytes], list[msgspec.Raw]]:
    """The fields of an index, `manifests` without its rows, and the bytes of the rows. Raises LayoutInvalid."""
    try:
        found = decode_fields(body)
        if "manifests" not in found:  # some of its programs write null for none, but all write it
            raise LayoutInvalid("index.json: manifests is missing, which is REQUIRED (image-spec, image-index.md)")
        rows = found["manifests"]
        fields = {name: b"[]" if name == "manifests" else bytes(raw) for name, raw in found.items()}
        if fields.get("schemaVersion") != b"2":
            raise LayoutInvalid("index.json: schemaVersion is not 2 (image-spec, image-index.md)")
        _require_one_list(fields, body)
        return {**fields, "manifests": b"[]"}, _decode_list(rows) or []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LayoutInvalid(f"index.json is not an image index: {error}") from error


def _require_one_list(fields: Mapping[str, bytes], body: bytes) -> None:
    """Raise LayoutInvalid for a second list of rows, which only some programs see: our writes would lose its rows, and
    a collector their content."""
    if strange := [name for name in fields if fold(name) == "manifests" and name != "manifests"]:
        raise LayoutInvalid(f"index.json: {quoted(strange[0])} differs from manifests only in case")
    if body.count(b'"manifests"') <= 1 and not _has_escaped_letter(body):
        return
    try:
        names = [key for key, _ in pairs_of(body, "index.json")]
    except ManifestInvalid as error:
        raise LayoutInvalid(error.message) from error
    if names.count("manifests") > 1:
        raise LayoutInvalid("index.json: has the key manifests twice: programs read one or the other")


def _without_ours(fields: dict[str, bytes]) -> dict[str, bytes]:
    """The fields of an index without OUR_ANNOTATIONS. Annotations that are no object are left as they are."""
    try:
        annotations = annotations_in(fields)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return fields
    others = {name: raw for name, raw in annotations.items() if not name.startswith(OUR_ANNOTATIONS)}
    if len(others) == len(annotations):
        return fields
    kept = {name: raw for name, raw in fields.items() if others or name != "annotations"}
    return kept | ({"annotations": encode(others)} if others else {})
