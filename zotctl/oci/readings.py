"""What other programs read in a manifest where JSON leaves it open: a repeated key, or a key in another case.

Go's decoder accepts a key in any case, and takes the last of repeated keys; other decoders take the first one, or only
the exact one. What a client may follow must not be collected, so the references of all readings are followed. A push
with more than one reading is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from zotctl.errors import ManifestInvalid, quoted
from zotctl.oci.codec import Pairs, fold, names_in, pairs_of
from zotctl.oci.descriptor import Descriptor
from zotctl.oci.media_types import essence

_FIELDS = (
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs", "subject", "annotations",
    "fsLayers",
)  # fmt: skip
_OF_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")
_OF_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant", "features")
_FOLDED = {fold(name): name for name in (*_FIELDS, *_OF_DESCRIPTOR, *_OF_PLATFORM)}
_EXACT = frozenset(_FOLDED.values())
_LISTS = ("layers", "manifests", "blobs")
_REFERENCES = ("config", "layers", "manifests", "blobs", "subject")
_MOST_READINGS = 16
"""How many readings of one descriptor are followed at most."""


def may_reference(body: bytes) -> bool:
    """Whether JSON that is no manifest has anything with a digest where a manifest has its references, or the
    `fsLayers` of schema 1. True also for what is no JSON."""
    try:
        readings = _Readings(pairs_of(body, "the content"))
        return "fsLayers" in readings.fields or any(True for _ in readings.found())
    except ManifestInvalid:
        return True


def irregular_descriptor(raw: bytes) -> str | None:
    """Why programs may read different things in the descriptor `raw`, such as a row of index.json; None: they can't."""
    try:
        found = pairs_of(raw, "the descriptor")
    except ManifestInvalid as error:
        return error.message
    for key, _ in found if isinstance(found, Pairs) else ():
        if not _is_unicode(key):
            return f"{quoted(key)}: a key that is not UTF-8 (RFC 8259, section 8.1)"
    return next(_reasons(found, _OF_DESCRIPTOR), None)


class _Readings:
    """All that any program may read in one manifest."""

    def __init__(self, document: Any) -> None:
        self._top = document if isinstance(document, Pairs) else Pairs()
        self.fields = {_FOLDED.get(fold(key), "") for key, _ in self._top}
        self.types = {essence(text) for text in _values(self._top, "mediaType") if isinstance(text, str)}

    def found(self) -> Iterator[tuple[str, Descriptor]]:
        """Each reference, with the field that it is in. Raises ManifestInvalid."""
        for field in _REFERENCES:
            for value in _values(self._top, field):
                for one in value if field in _LISTS and isinstance(value, list) else [value]:
                    if isinstance(one, Pairs):
                        yield from ((field, descriptor) for descriptor in _described(one))

    def reasons(self) -> Iterator[str]:
        """Each key that is read in more than one way."""
        return _reasons(self._top, _FIELDS)


@dataclass(frozen=True)
class OtherReadings:
    """What other programs read in a manifest beside what our decoder reads.

    `references`: each with the field that it is in. `reasons`: why the readings differ, one for each key. `types`: all
    media types that the manifest calls itself. `fields`: all fields that it has, as the specifications name them.
    """

    references: tuple[tuple[str, Descriptor], ...] = ()
    reasons: tuple[str, ...] = ()
    types: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()


_NONE = OtherReadings()


def other_readings(body: bytes) -> OtherReadings:
    """Find the readings of other programs. Nearly always there are none, which takes one pass. Raises
    ManifestInvalid."""
    names, repeated = names_in(body, "the manifest")
    strange = names - _EXACT
    if not repeated and not any(fold(name) in _FOLDED for name in strange):
        return _NONE
    readings = _Readings(pairs_of(body, "the manifest"))
    reasons = tuple(islice(readings.reasons(), _MOST_READINGS))
    if not reasons:
        return _NONE
    return OtherReadings(tuple(readings.found()), reasons, frozenset(readings.types), frozenset(readings.fields))


_Place = tuple["_Place", str] | None
"""Where a value stands: below that place, with this in its path. It is put into words only for a reason, since keys are
as long as their author likes, and what is below them is as much."""


def _reasons(top: Any, known: tuple[str, ...]) -> Iterator[str]:
    todo: list[tuple[Any, _Place, tuple[str, ...]]] = [(top, None, known)]
    while todo:
        value, place, names = todo.pop()
        if isinstance(value, Pairs):
            yield from _irregular(value, place, names)
            below = ((one, key, _below(names, _FOLDED.get(fold(key), ""))) for key, one in value)
            todo += [(one, (place, f".{key}"), inner) for one, key, inner in below if isinstance(one, list)]
        elif isinstance(value, list):
            todo += [(one, (place, f"[{at}]"), names) for at, one in enumerate(value) if isinstance(one, list)]


def _in_words(place: _Place) -> str:
    steps = []
    while place is not None:
        place, step = place
        steps.append(step)
    return "".join(reversed(steps)).removeprefix(".")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _values(pairs: Pairs, name: str) -> list[Any]:
    return [value for key, value in pairs if _FOLDED.get(fold(key)) == name]


def _described(pairs: Pairs) -> list[Descriptor]:
    digests, types, sizes = (
        dict.fromkeys(value for value in _values(pairs, name) if isinstance(value, str))
        for name in ("digest", "mediaType", "size")
    )
    if len(digests) * max(1, len(types)) * max(1, len(sizes)) > _MOST_READINGS:
        raise ManifestInvalid(f"a descriptor with keys that stand there again and again: {quoted(next(iter(digests)))}")
    numbers = [int(size) for size in sizes if size.isascii() and size.isdigit() and len(size) < 20] or [-1]
    return [Descriptor(kind, digest, size) for digest, kind, size in product(digests, types or [""], numbers)]


def _irregular(pairs: Pairs, place: _Place, names: tuple[str, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for key, _ in pairs:
        meant = _FOLDED.get(fold(key), "")
        if key in seen:
            where = quoted(_in_words((place, f".{key}")))
            yield f"{where}: the same key twice: programs read one or the other (RFC 8259, section 4)"
        elif meant in names and key != meant:
            where = quoted(_in_words((place, f".{key}")))
            yield f"{where}: differs from {meant} only in case: some programs take it for that one"
        seen.add(key)


def _below(names: tuple[str, ...], key: str) -> tuple[str, ...]:
    """The keys that are known in the object, or the objects, under this key."""
    if names is _FIELDS and key in _REFERENCES:
        return _OF_DESCRIPTOR
    return _OF_PLATFORM if names is _OF_DESCRIPTOR and key == "platform" else ()
