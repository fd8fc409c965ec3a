"""The rows of index.json: what the bytes of each say, and how a row changes with its name.

Each row keeps the bytes it was read from, so fields, annotations and an order that other tools made survive our
writes (I9). Spec: image-spec image-index.md, and descriptor.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from zotctl.errors import DigestInvalid, quoted
from zotctl.oci.codec import load_json
from zotctl.oci.digest import Digest, parse_digest
from zotctl.oci.readings import irregular_descriptor
from zotctl.oci.reference import CONTAINERD_NAME, REF_NAME, tag_names

decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
encode = msgspec.json.Encoder().encode


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


class Piece(NamedTuple):
    """Rows that follow one another, as they stand in the file: the only form in which they are kept."""

    raw: bytes
    """Each row after a comma."""
    ends: array[int]
    """Where each row ends. One that was removed ends where the one before it does."""

    def row(self, place: int) -> bytes:
        """The bytes of a row; none if it was removed."""
        return self.raw[(self.ends[place - 1] if place else 0) + 1 : self.ends[place]]

    def numbered(self) -> list[tuple[int, bytes]]:
        """The places and bytes of the rows that are there."""
        return [(place, raw) for place in range(len(self.ends)) if (raw := self.row(place))]


def piece_of(raws: Sequence[bytes | msgspec.Raw]) -> Piece:
    """Make a piece of the bytes of rows; of one that was removed there are none."""
    rows = [b"," + raw if raw else b"" for raw in map(bytes, raws)]
    return Piece(b"".join(rows), array("I", accumulate(map(len, rows))))


def parse_piece(piece: Piece) -> list[tuple[int, Row]]:
    """The places and the meaning of the rows that are there: that of `parse_row`, in a third of its time where every
    row has nothing but what each row has."""
    raws = piece.numbered()
    try:
        found = _decode_rows(b"[" + piece.raw[1:] + b"]")
        # No row has fewer quotes than its fields need, so where the sums are equal, all are.
        if piece.raw.count(b'"') == sum(map(_quotes, found)):
            return [(place, _row_of(raw, fields)) for (place, raw), fields in zip(raws, found, strict=True)]
    except _UNREADABLE:
        pass
    return [(place, parse_row(raw)) for place, raw in raws]


class _RowFields(msgspec.Struct, rename="camel", gc=False):
    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] | None = None


class _Annotated(msgspec.Struct, gc=False):
    annotations: dict[str, str] | None = None


_decode_row = msgspec.json.Decoder(_RowFields).decode
_decode_rows = msgspec.json.Decoder(list[_RowFields]).decode
_decode_annotated = msgspec.json.Decoder(_Annotated).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, DigestInvalid)


def parse_row(raw: bytes) -> Row:
    """Parse a row. One without a valid digest, or with different ones for different programs, is kept for other readers
    but can't be addressed."""
    try:
        fields = _decode_row(raw)
        if raw.count(b'"') != _quotes(fields) and irregular_descriptor(raw) is not None:
            return Row(raw, None, -1, "", None, None)
        return _row_of(raw, fields)
    except _UNREADABLE:
        return Row(raw, None, -1, "", None, None)


def _row_of(raw: bytes, fields: _RowFields) -> Row:
    """Raises DigestInvalid."""
    digest, annotations = parse_digest(fields.digest), fields.annotations or {}
    tag, alias = tag_names(annotations.get(REF_NAME), annotations.get(CONTAINERD_NAME))
    return Row(raw, digest, fields.size, fields.media_type, tag, alias)


def _quotes(fields: _RowFields) -> int:
    """The number of quotes in a row with these fields alone: then no key is there twice, or in another case."""
    annotations = fields.annotations
    return 6 + (4 if fields.media_type else 0) + (0 if annotations is None else 2 + 4 * len(annotations))


def why_nameless(row: Row) -> str:
    """Why a row has no digest, so that its references can't be known."""
    reason = irregular_descriptor(row.raw)
    what = f"has {reason}" if reason else "names no digest that is known here"
    return f"a row of index.json {what}: {quoted(row.raw.decode(errors='replace'))}"


def annotations_of(row: Row) -> dict[str, str]:
    """The annotations of a row that names a digest."""
    return _decode_annotated(row.raw).annotations or {}


def key_of(row: Row) -> tuple[Digest | bytes, str | None, str | None]:
    """What makes two rows of different files the same."""
    return row.digest or row.raw, row.tag, row.alias


def with_media_type(row: Row, media_type: str) -> Row:
    """A row that lacks its media type, which descriptor.md requires, with the one that its manifest has."""
    return corrected(row, row.size, media_type)


def new_row(digest: Digest, size: int, media_type: str, tag: str | None) -> Row:
    """A row with nothing but what it needs."""
    descriptor: dict[str, object] = {"mediaType": media_type, "digest": str(digest), "size": size}
    if tag is not None:
        descriptor["annotations"] = {REF_NAME: tag}
    return Row(encode(descriptor), digest, size, media_type, tag, None)


def renamed(row: Row, tag: str | None) -> Row:
    """The row with another name; unknown fields and annotations stay."""
    fields = decode_fields(row.raw)
    annotations = annotations_in(fields)
    for name in (REF_NAME, CONTAINERD_NAME):
        annotations.pop(name, None)
    if tag is not None:
        annotations[REF_NAME] = msgspec.Raw(encode(tag))
    fields.pop("annotations", None)
    if annotations:
        fields["annotations"] = msgspec.Raw(encode(annotations))
    return Row(encode(fields), row.digest, row.size, row.media_type, tag, None)


def taken_over(row: Row, tag: str | None) -> Row:
    """A row of another layout under this tag, unchanged if it has it. A full name stays beside the tag."""
    if row.digest is None or (row.tag == tag and tag is not None):
        return row
    fields = decode_fields(row.raw)
    annotations = annotations_in(fields)
    if tag is None:
        return renamed(row, None) if annotations.keys() & {REF_NAME, CONTAINERD_NAME} else row
    annotations[REF_NAME] = msgspec.Raw(encode(tag))
    fields["annotations"] = msgspec.Raw(encode(annotations))
    return Row(encode(fields), row.digest, row.size, row.media_type, tag, None)


def said_of(row: Row) -> dict[tuple[str, str], object]:
    """What a row says of its manifest beside its descriptor and its names: fields, and each annotation of its own."""
    try:
        fields = load_json(row.raw)
    except ValueError:
        return {("", ""): row.raw}
    annotations = fields.pop("annotations", None)
    table = annotations if isinstance(annotations, dict) else {}
    said = {("annotations", name): value for name, value in table.items() if name not in (REF_NAME, CONTAINERD_NAME)}
    return said | {("", name): value for name, value in fields.items() if name not in ("mediaType", "digest", "size")}


def annotations_in(fields: Mapping[str, msgspec.Raw | bytes]) -> dict[str, msgspec.Raw]:
    """The annotations among the fields of a row or an index, as they stand there. Raises what decoding raises."""
    raw = fields.get("annotations")
    return decode_fields(raw) if raw is not None and bytes(raw) != b"null" else {}


def corrected(row: Row, size: int, media_type: str) -> Row:
    """The row with this size and media type."""
    fields = decode_fields(row.raw) | {"size": msgspec.Raw(encode(size))}
    if media_type != row.media_type:
        fields["mediaType"] = msgspec.Raw(encode(media_type))
    return Row(encode(fields), row.digest, size, media_type, row.tag, row.alias)
