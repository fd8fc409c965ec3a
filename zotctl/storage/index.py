"""index.json in memory: parsed once, looked up in O(1), written back byte for byte but for what changed.

Each row keeps the bytes it was read from, so fields, annotations and an order that other tools made
survive our writes (I9), and a rewrite is ready pieces, of which only those are made anew whose rows changed
(docs/design/local.md#indexjson).
Spec: image-spec image-layout.md, "index.json file", and image-index.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from zotctl.errors import DigestInvalid, LayoutInvalid, ManifestInvalid, quoted
from zotctl.oci.codec import fold, pairs_of
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.media_types import OCI_INDEX
from zotctl.oci.readings import irregular_descriptor
from zotctl.oci.reference import CONTAINERD_NAME, REF_NAME, tag_names

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_encode = msgspec.json.Encoder().encode

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
"""Rows whose bytes are joined once and then written by each rewrite as they are, until one of them changes."""
LEAST_ROWS = 16
"""An index takes as much memory besides its rows as so many rows: of 100,000 small ones a cache keeps a part."""
GROWTH_ROWS = 1000
"""Up to this many new rows at the end of a file are added one by one."""


class _RowFields(msgspec.Struct, rename="camel", gc=False):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None


_decode_row = msgspec.json.Decoder(_RowFields).decode


class Row(msgspec.Struct, frozen=True, gc=False):
    """One descriptor of index.json. `tag` is a legal tag; `alias` is the tag within a full name.

    `digest` None: it has no digest that is known here, or programs differ about which it is (`why_nameless`).
    """

    raw: bytes
    digest: Digest | None
    size: int
    media_type: str
    tag: str | None
    alias: str | None


class _Pieces(NamedTuple):
    """The bytes of each PIECE_ROWS rows, by their numbers, as they stand in the file, each row after a comma; `stale`:
    those that are not made yet, or a row of which has changed since."""

    made: list[bytes]
    stale: set[int]

    def copy(self) -> _Pieces:
        return _Pieces(self.made.copy(), self.stale.copy())


class _Annotated(msgspec.Struct, gc=False):
    annotations: dict[str, str] | None = None


_decode_annotated = msgspec.json.Decoder(_Annotated).decode


def why_nameless(row: Row) -> str:
    """Why a row has no digest, so that its references can't be known."""
    reason = irregular_descriptor(row.raw)
    what = f"has {reason}" if reason else "names no digest that is known here"
    return f"a row of index.json {what}: {quoted(row.raw.decode(errors='replace'))}"


def annotations_of(row: Row) -> dict[str, str]:
    """The annotations of a row that names a digest."""
    return _decode_annotated(row.raw).annotations or {}


class Index:
    """The rows of one index.json. A snapshot that was handed out is never changed: edit a `copy()`."""

    __slots__ = (
        "_aliases", "_digests", "_fields", "_next", "_pieces", "_rows", "_sorted", "_tags", "dirty", "edits",
    )  # fmt: skip

    def __init__(self, fields: dict[str, bytes], rows: Iterable[Row]) -> None:
        self._fields = fields
        self._rows: dict[int, Row] = dict(enumerate(rows))
        self._tags = self._ids(row.tag for row in self._rows.values())
        self._aliases = self._ids(row.alias for row in self._rows.values())
        self._digests = self._ids(row.digest for row in self._rows.values())
        self._sorted: list[str] | None = None
        self._next = len(self._rows)
        self._pieces = _Pieces([], set(range(-(-self._next // PIECE_ROWS))))
        self.edits = 0
        self.dirty = False

    @staticmethod
    def _ids(names: Iterable[str | None]) -> dict[str, tuple[int, ...]]:
        """The rows by name. Collected in lists first, so that many tags of one manifest take linear time."""
        found: dict[str, list[int]] = {}
        for row_id, name in enumerate(names):
            if name is not None:
                found.setdefault(name, []).append(row_id)
        return {name: tuple(ids) for name, ids in found.items()}

    # -- looking --------------------------------------------------------------------------------

    def find(self, reference: str) -> Row | None:
        """The row of a digest or of a tag; of two rows with one tag the last (it was appended)."""
        if ":" in reference:
            ids = self._digests.get(reference)
            return self._rows[ids[0]] if ids else None
        ids = self._tags.get(reference)
        return self._rows[ids[-1]] if ids else self._by_alias(reference)

    def __contains__(self, digest: str) -> bool:
        return digest in self._digests

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def weight(self) -> int:
        """What it takes in a cache, in rows."""
        return len(self._rows) + LEAST_ROWS

    def rows(self) -> Iterator[Row]:
        """All rows, in the order of the file."""
        return iter(self._rows.values())

    def rows_of(self, digest: str, most: int | None = None) -> list[Row]:
        """The rows of one digest; the first `most` of them."""
        return [self._rows[i] for i in self._digests.get(digest, ())[:most]]

    @property
    def digests(self) -> dict[str, tuple[int, ...]]:
        """Keyed by digest, in the order of the rows; for set operations, not to be changed."""
        return self._digests

    def tags(self) -> list[str]:
        """All tags in byte order, each once (distribution-spec, "Listing Tags"). Not to be changed."""
        if self._sorted is None:
            aliases = (a for a in self._aliases if a not in self._tags and self._by_alias(a))
            self._sorted = sorted([*self._tags, *aliases])
        return self._sorted

    def tags_of(self, digest: str) -> list[str]:
        """The tags that lead to a digest, sorted."""
        names = (row.tag or row.alias for row in self.rows_of(digest))
        return sorted({n for n in names if n and (found := self.find(n)) and found.digest == digest})

    def nameless(self) -> list[Row]:
        """The rows without a digest, in which other programs may find one."""
        return [row for row in self._rows.values() if row.digest is None]

    def unclear(self) -> Iterator[str]:
        """The reasons why not all references of this index can be known: rows without a digest, and fields in which
        other manifests have references, as of an image that was written over an index.json."""
        yield from map(why_nameless, self.nameless())
        for name, raw in self._fields.items():
            if fold(name) in _REFERENCE_FIELDS and raw not in _NOTHING:
                yield f"index.json has {quoted(name)}, in which other programs may find what is needed"

    def says_all_of(self, other: Index) -> bool:
        """Has this index all fields and annotations of `other`, apart from its rows?"""
        mine, theirs = _annotations(self._fields), _annotations(other._fields)
        fields = [name for name in other._fields if name not in (*_OF_EVERY_INDEX, "annotations")]
        own = [name for name in theirs if not name.startswith(OUR_ANNOTATIONS)]
        return all(self._fields.get(name) == other._fields[name] for name in fields) and all(
            name in mine and bytes(mine[name]) == bytes(theirs[name]) for name in own
        )

    def duplicate_tags(self) -> list[str]:
        """Tags that several rows have, sorted."""
        return sorted(tag for tag, ids in self._tags.items() if len(ids) > 1)

    def _by_alias(self, tag: str) -> Row | None:
        """A full name answers to its tag only if that is unique in the layout."""
        rows = [self._rows[i] for i in self._aliases.get(tag, ())]
        return rows[-1] if rows and len({row.digest for row in rows}) == 1 else None

    # -- changing a copy ------------------------------------------------------------------------

    def copy(self) -> Index:
        """A copy to be edited; O(rows), without parsing."""
        twin = Index(self._fields, ())
        twin._rows, twin._next = self._rows.copy(), self._next
        twin._tags, twin._aliases = self._tags.copy(), self._aliases.copy()
        twin._digests = self._digests.copy()
        twin._pieces = self._pieces.copy()
        return twin

    def grown(self, fields: dict[str, bytes]) -> Index | None:
        """The index of a file whose rows are ours, byte for byte, and some more after them; else None. Most changes by
        other processes are like that, and then none of our rows has to be parsed."""
        rows, end = fields["manifests"], 1
        for piece in self._made_pieces():
            if not rows.startswith(piece, end):
                return None
            end += len(piece)
        if end == 1 or rows[end : end + 1] not in (b",", b"]"):
            return None
        twin = self.copy()
        twin._fields = fields
        raws = (_decode_rows(b"[" + rows[end + 1 :]) if rows[end] == ord(",") else None) or []
        if len(raws) > GROWTH_ROWS:
            return None
        for raw in raws:
            twin._append(_parse_row(bytes(raw)))
        # Made at once, since threads that share a snapshot must not change it.
        twin._made_pieces()
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
        for row_id in self._digests.get(digest, ()):
            row = self._rows[row_id]
            called = media_type if is_wrong(row.media_type) else row.media_type
            if (row.size, row.media_type) != (size, called):
                self._replace(row_id, _corrected(row, size, called))
        for tag in tags:
            if not self._points(tag, digest, media_type):
                self._vacate(self._tags.get(tag, ()))
                self._give_row(digest, size, media_type, tag)
        if digest not in self._digests:
            self._append(_new_row(digest, size, media_type, None))

    def put_row(self, raw: bytes, tag: str | None) -> None:
        """Take over a row of another layout with all its fields, as `tag` or without a name. A row that is there
        already, or says nothing new, is not added again; the manifest that had the tag keeps an untagged row."""
        row = _taken_over(_parse_row(raw), tag)
        if row.digest is None:
            return
        bare = _renamed(row, None).raw
        plain = _new_row(row.digest, row.size, row.media_type, None).raw
        if tag is None:
            known = {_renamed(there, None).raw for there in self.rows_of(row.digest)}
            if bare not in known and not (known and bare == plain):
                self._append(row)
        elif not self._points(tag, row.digest, row.media_type):
            self._vacate(self._tags.get(tag, ()))
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
        annotations = self._own_annotations() | {name: msgspec.Raw(_encode(value))}
        self._fields = self._fields | {"annotations": _encode(annotations)}

    def forget_ours(self) -> None:
        """Remove the annotations of the index that are about the store that it lies in."""
        self._fields = _without_ours(self._fields)

    def _own_annotations(self) -> dict[str, msgspec.Raw]:
        try:
            return _annotations(self._fields)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LayoutInvalid(
                f"index.json: annotations are no object (image-spec, image-index.md): {error}"
            ) from error

    def _put_over(self, row: Row, digest: Digest, nameless: tuple[bytes, ...]) -> None:
        """Put a row in the place of one that says the same without a name, or else at the end."""
        for row_id in self._digests.get(digest, ()):
            there = self._rows[row_id]
            if there.tag is None and there.alias is None and _renamed(there, None).raw in nameless:
                self._replace(row_id, row)
                return
        self._append(row)

    def untag(self, tag: str) -> None:
        """Take a tag away; its manifest stays as an untagged row unless it has another row."""
        self._vacate((*self._tags.get(tag, ()), *self._aliases.get(tag, ())))

    def drop(self, digest: str) -> None:
        """Remove every row of a manifest."""
        for row_id in self._digests.get(digest, ()):
            self._replace(row_id, None)

    def adopt(self, rows: Iterable[Row]) -> None:
        """Add rows that this index lacks, from a foreign tool's late write."""
        for row in rows:
            name = row.tag or row.alias
            known = row.digest is None or (name and self.find(name)) or (not name and row.digest in self)
            if not known:
                self._append(row)

    def merge(self, before: Index, after: Index) -> None:
        """Apply the changes that another program made from `before` to `after`. What changed here since stays: a
        manifest whose tag is taken keeps an untagged row."""
        gone = {_key(row) for row in before.rows()} - {_key(row) for row in after.rows()}
        for row_id, row in list(self._rows.items()):
            if row.digest is not None and _key(row) in gone:
                self._replace(row_id, None)
        new = after.new_rows(before)
        self.adopt(new)
        self.adopt(_renamed(row, None) for row in new if row.digest is not None and row.digest not in self)

    def new_rows(self, before: Index) -> list[Row]:
        """The rows of this index that `before` lacks."""
        had = {_key(row) for row in before.rows()}
        return [row for row in self.rows() if _key(row) not in had]

    def _points(self, tag: str, digest: Digest, media_type: str) -> bool:
        rows = [self._rows[i] for i in self._tags.get(tag, ())]
        return len(rows) == 1 and rows[0].digest == digest and rows[0].media_type == media_type

    def _vacate(self, row_ids: Iterable[int]) -> None:
        for row_id in row_ids:
            row = self._rows[row_id]
            last = row.digest is not None and len(self._digests[row.digest]) == 1
            self._replace(row_id, _renamed(row, None) if last else None)

    def _give_row(self, digest: Digest, size: int, media_type: str, tag: str) -> None:
        for row_id in self._digests.get(digest, ()):
            row = self._rows[row_id]
            if row.tag is None and row.alias is None and row.media_type == media_type:
                self._replace(row_id, _renamed(row, tag))
                return
        self._append(_new_row(digest, size, media_type, tag))

    def _append(self, row: Row) -> None:
        self._replace(self._next, row)
        self._next += 1

    def _replace(self, row_id: int, row: Row | None) -> None:
        """Put a row in the place of another, or remove it; a dictionary keeps the place of a key."""
        self.dirty, self._sorted = True, None
        self._pieces.stale.add(row_id // PIECE_ROWS)
        self.edits += 1
        if (old := self._rows.get(row_id)) is not None:
            for names, name in self._names(old):
                left = tuple(i for i in names.pop(name) if i != row_id)
                if left:
                    names[name] = left
        if row is None:
            del self._rows[row_id]
            return
        self._rows[row_id] = row
        for names, name in self._names(row):
            names[name] = (*names.get(name, ()), row_id)

    def _names(self, row: Row) -> Iterator[tuple[dict[str, tuple[int, ...]], str]]:
        keyed = ((self._digests, row.digest), (self._tags, row.tag), (self._aliases, row.alias))
        return ((names, name) for names, name in keyed if name is not None)

    # -- bytes ----------------------------------------------------------------------------------

    def render(self) -> bytes:
        """The whole file; `manifests` is an array even when it is empty (image-index.md)."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes]:
        """The whole file in pieces."""
        parts = [b"{"]
        for name, raw in self._fields.items():
            parts.append(_encode(name) + b":" if len(parts) == 1 else b"," + _encode(name) + b":")
            parts += [b"[", *self._made_pieces(), b"]"] if name == "manifests" else [raw]
        return [*parts, b"}"]

    def _made_pieces(self) -> list[bytes]:
        """The bytes of all rows with commas between them, in pieces."""
        if self._pieces.stale:
            fresh = self._pieces.copy()
            fresh.made.extend([b""] * (max(fresh.stale) + 1 - len(fresh.made)))
            for number in fresh.stale:
                ids = range(number * PIECE_ROWS, (number + 1) * PIECE_ROWS)
                raws = [row.raw for row in map(self._rows.get, ids) if row is not None]
                fresh.made[number] = b",".join([b"", *raws])
            # Threads that share a snapshot may all do this; each puts the same in its place, by one assignment.
            self._pieces = _Pieces(fresh.made, set())
        made = [piece for piece in self._pieces.made if piece]
        return [made[0][1:], *made[1:]] if made else []


def _key(row: Row) -> tuple[Digest | None, str | None, str | None]:
    return row.digest, row.tag, row.alias


def with_media_type(row: Row, media_type: str) -> Row:
    """A row that lacks its media type, which descriptor.md requires, with the one that its manifest has."""
    return _corrected(row, row.size, media_type)


def empty_index() -> Index:
    """The index of a new repository."""
    fields = {"schemaVersion": b"2", "mediaType": _encode(OCI_INDEX), "manifests": b"[]"}
    return Index(fields, ())


def parse_index(body: bytes, known: Index | None = None) -> Index:
    """Read an index.json of any program. Rows that `known` has to the letter are not parsed again.

    Raises LayoutInvalid: not JSON, not an object, or not what image-index.md asks for.
    """
    try:
        fields = {name: bytes(raw) for name, raw in _decode_fields(body).items()}
        if fields.get("schemaVersion") != b"2":
            raise LayoutInvalid("index.json: schemaVersion is not 2 (image-spec, image-index.md)")
        _require_one_list(fields, body)
        fields.setdefault("manifests", b"[]")
        if known is not None and (grown := known.grown(fields)) is not None:
            return grown
        raws = _decode_rows(fields["manifests"]) or []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LayoutInvalid(f"index.json is not an image index: {error}") from error
    cache = {row.raw: row for row in known.rows()} if known else {}
    return Index(fields, (cache.get(raw) or _parse_row(raw) for raw in map(bytes, raws)))


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


def _parse_row(raw: bytes) -> Row:
    """Parse a row. One without a valid digest, or with different ones for different programs, is kept for other readers
    but can't be addressed."""
    try:
        fields = _decode_row(raw)
        digest = parse_digest(fields.digest)
        if raw.count(b'"') != _quotes(fields) and irregular_descriptor(raw) is not None:
            return Row(raw, None, -1, "", None, None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DigestInvalid):
        return Row(raw, None, -1, "", None, None)
    annotations = fields.annotations or {}
    tag, alias = tag_names(annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME))
    return Row(raw, digest, fields.size, fields.media_type, tag, alias)


def _quotes(fields: _RowFields) -> int:
    """The number of quotes in a row with these fields alone: then no key is there twice, or in another case."""
    annotations = fields.annotations
    return 6 + (4 if fields.media_type else 0) + (0 if annotations is None else 2 + 4 * len(annotations))


def _new_row(digest: Digest, size: int, media_type: str, tag: str | None) -> Row:
    descriptor: dict[str, object] = {"mediaType": media_type, "digest": str(digest), "size": size}
    if tag is not None:
        descriptor["annotations"] = {REF_NAME: tag}
    return Row(_encode(descriptor), digest, size, media_type, tag, None)


def _renamed(row: Row, tag: str | None) -> Row:
    """The row with another name; unknown fields and annotations stay."""
    fields = _decode_fields(row.raw)
    annotations = _annotations(fields)
    for name in (REF_NAME, CONTAINERD_NAME):
        annotations.pop(name, None)
    if tag is not None:
        annotations[REF_NAME] = msgspec.Raw(_encode(tag))
    fields.pop("annotations", None)
    if annotations:
        fields["annotations"] = msgspec.Raw(_encode(annotations))
    return Row(_encode(fields), row.digest, row.size, row.media_type, tag, None)


def _taken_over(row: Row, tag: str | None) -> Row:
    """A row of another layout under this tag, unchanged if it has it. A full name stays beside the tag."""
    if row.digest is None or (row.tag == tag and tag is not None):
        return row
    fields = _decode_fields(row.raw)
    annotations = _annotations(fields)
    if tag is None:
        return _renamed(row, None) if annotations.keys() & {REF_NAME, CONTAINERD_NAME} else row
    annotations[REF_NAME] = msgspec.Raw(_encode(tag))
    fields["annotations"] = msgspec.Raw(_encode(annotations))
    return Row(_encode(fields), row.digest, row.size, row.media_type, tag, None)


def _annotations(fields: Mapping[str, msgspec.Raw | bytes]) -> dict[str, msgspec.Raw]:
    raw = fields.get("annotations")
    return _decode_fields(raw) if raw is not None and bytes(raw) != b"null" else {}


def _without_ours(fields: dict[str, bytes]) -> dict[str, bytes]:
    """The fields of an index without OUR_ANNOTATIONS. Annotations that are no object are left as they are."""
    try:
        annotations = _annotations(fields)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return fields
    others = {name: raw for name, raw in annotations.items() if not name.startswith(OUR_ANNOTATIONS)}
    if len(others) == len(annotations):
        return fields
    kept = {name: raw for name, raw in fields.items() if others or name != "annotations"}
    return kept | ({"annotations": _encode(others)} if others else {})


def _corrected(row: Row, size: int, media_type: str) -> Row:
    fields = _decode_fields(row.raw) | {"size": msgspec.Raw(_encode(size))}
    if media_type != row.media_type:
        fields["mediaType"] = msgspec.Raw(_encode(media_type))
    return Row(_encode(fields), row.digest, size, media_type, row.tag, row.alias)
