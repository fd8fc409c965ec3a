"""index.json files of odd encoders, changed by us, against what a naive program makes of them: it reads with
`json.loads`, changes, and writes with `json.dumps`. Seeded; a long run: ZOTCTL_EXAMPLES=100000."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from tests.storage.test_storage_index import CONTAINERD, DIGESTS, REF
from tests.storage.test_storage_known_rows import small
from zotctl.errors import LayoutInvalid
from zotctl.oci.codec import Pairs, pairs_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage.index import Index, parse_index

COUNT = int(os.environ.get("ZOTCTL_EXAMPLES", "300"))
TAGS = ["v1", "v2", "latest", "0"]
LITERALS = ["1e300", "-0", "1E5", "123456789012345678901234567890", "7.0", "null", "true", "{}", "[]"]
"""Numbers and words that no decoder may round or translate."""
TEXTS = ["", "a\0b", "\u2028", "\u017f", 'é/"\\', *DIGESTS[:2], *TAGS]
NAMES = [*TAGS * 3, "docker.io/x/y:v2", "not a tag", f"x@{DIGESTS[0]}", "bad\0tag"]
_is_tag = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}").fullmatch


# -- an encoder with every freedom that JSON leaves ------------------------------------------------


class Encoder:
    """Writes pairs as objects, so that a key may come twice; blanks and escapes anywhere."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice

    def write(self, value: Any) -> str:
        if isinstance(value, Pairs):
            return self._within("{}", [f"{self._text(key)}{self._blank()}:{self.write(one)}" for key, one in value])
        if isinstance(value, list):
            return self._within("[]", [self.write(one) for one in value])
        if isinstance(value, str):
            return value if value in LITERALS else self._text(value)
        return json.dumps(value)

    def _within(self, brackets: str, parts: list[str]) -> str:
        return brackets[0] + ",".join(f"{self._blank()}{part}{self._blank()}" for part in parts) + brackets[1]

    def _blank(self) -> str:
        return self.dice.choice([" ", "\n", "\t", "\r\n  "]) if self.dice.random() < 0.15 else ""

    def _text(self, text: str) -> str:
        return '"' + "".join(map(self._letter, text)) + '"'

    def _letter(self, letter: str) -> str:
        if letter in '"\\' or (letter == "/" and self.dice.random() < 0.3):
            return f"\\{letter}"
        if letter < " " or self.dice.random() < 0.03:
            return f"\\u{ord(letter):{self.dice.choice(['04x', '04X'])}}"
        return letter


# -- files of other programs ------------------------------------------------------------------------


class Program:
    """Makes files, and rows."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.encoder = Encoder(self.dice)

    def likely(self, share: float) -> bool:
        return self.dice.random() < share

    def value(self, depth: int = 0) -> Any:
        if depth > 2 or self.likely(0.6):
            return self.dice.choice([*LITERALS, *TEXTS])
        inner = [self.value(depth + 1) for _ in range(self.dice.randrange(3))]
        return (
            Pairs((self.dice.choice(["a", "digest", "tag", REF]), one) for one in inner) if self.likely(0.5) else inner
        )

    def row(self) -> Any:
        if self.likely(0.05):
            return self.value()
        choose = self.dice.choice
        fields: list[tuple[str, Any]] = [
            ("mediaType", choose([OCI_MANIFEST] * 4 + [OCI_INDEX, ""])),
            ("digest", choose(DIGESTS)),
        ]
        fields.append(("size", choose([7] * 6 + [8])))
        if self.likely(0.7):
            fields.append(("annotations", self._annotations()))
        if self.likely(0.3):
            fields.append(("platform", Pairs([("architecture", "amd64"), ("os", "linux")])))
        if self.likely(0.2):
            fields.append(("artifactType", "a/b"))
        if self.likely(0.3):
            fields.append((choose(["x-foreign", "data", "urls", "Size", "annotation"]), self.value()))
        if self.likely(0.1):
            fields.append((choose(["digest", "size", "mediaType"]), choose([DIGESTS[0], 7, OCI_MANIFEST])))
        if self.likely(0.3):
            self.dice.shuffle(fields)
        return Pairs(fields)

    def _annotations(self) -> Pairs:
        choose = self.dice.choice
        found = [(REF, choose(NAMES))] if self.likely(0.7) else []
        found += [(CONTAINERD, choose(["docker.io/x/y:v1", "z:latest"]))] if self.likely(0.2) else []
        found += [(choose(["k", "é", "org.x/y\n"]), choose(["1", "\0", "/"]))] if self.likely(0.4) else []
        found += [(REF, choose(TAGS))] if self.likely(0.08) else []
        self.dice.shuffle(found)
        return Pairs(found)

    def file(self, rows: int) -> bytes:
        fields: list[tuple[str, Any]] = [("schemaVersion", 2), ("manifests", [self.row() for _ in range(rows)])]
        for name, more in (("mediaType", OCI_INDEX), ("annotations", Pairs([("a", "é")])), ("é", self.value())):
            if self.likely(0.5):
                fields.insert(self.dice.randrange(len(fields) + 1), (name, more))
        return (self.encoder.write(Pairs(fields)) + ("\n" if self.likely(0.3) else "")).encode()


# -- what has to be equal ---------------------------------------------------------------------------


def fields_of(body: bytes) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in pairs_of(body, "it") if key != "manifests"]


def without_names(raw: bytes) -> str:
    """All of a row but what a commit may change in it; numbers as they are written."""
    found = json.loads(raw, parse_int=str, parse_float=str)
    if not isinstance(found, dict):
        return raw.decode()
    annotations = found.pop("annotations", None) or {}
    kept = {key: value for key, value in annotations.items() if key not in (REF, CONTAINERD)}
    return json.dumps([{k: v for k, v in found.items() if k not in ("size", "mediaType")}, kept], sort_keys=True)


def tags_in(rows: list[Any]) -> dict[str, Any]:
    """As a naive program finds them: the last row of a tag counts."""
    found = {}
    for row in rows:
        name = (row.get("annotations") or {}).get(REF) if isinstance(row, dict) else None
        if isinstance(name, str) and _is_tag(name):
            found[name] = row.get("digest")
    return found


def meaning(index: Index) -> object:
    answers = [(tag, found.raw if (found := index.find(tag)) else None) for tag in TAGS]
    digests = [(d, index.tags_of(d), [row.raw for row in index.rows_of(d)], index.media_types_of(d)) for d in DIGESTS]
    return index.render(), list(index.rows()), index.tags(), len(index), index.duplicate_tags(), answers, digests


def changes(program: Program, draft: Index, tags: dict[str, Any]) -> Iterator[None]:
    """Some changes of ours, which `tags` then has as well."""
    for _ in range(program.dice.randrange(1, 7)):
        if program.likely(0.6):
            digest, wanted = program.dice.choice(DIGESTS), program.dice.sample(TAGS, program.dice.randrange(3))
            draft.put(digest, 7, OCI_MANIFEST, wanted)
            tags.update(dict.fromkeys(wanted, digest))
        else:
            tag = program.dice.choice(TAGS)
            draft.untag(tag)
            tags.pop(tag, None)
        yield


def go_on(program: Program, body: bytes) -> bytes:
    """What a naive program makes of our file."""
    found = json.loads(body)
    rows = found["manifests"]
    if rows and program.likely(0.5):
        rows.pop(program.dice.randrange(len(rows)))
    if program.likely(0.7):
        row = {"mediaType": OCI_MANIFEST, "digest": DIGESTS[1], "size": 7, "annotations": {REF: "theirs"}}
        rows.insert(program.dice.randrange(len(rows) + 1), row)
    if program.likely(0.2):
        program.dice.shuffle(rows)
    ascii_only, separators = program.likely(0.5), program.dice.choice([(",", ":"), (", ", ": ")])
    return json.dumps(found, ensure_ascii=ascii_only, separators=separators).encode()


def try_one(seed: int) -> None:
    program = Program(seed)
    body = program.file(program.dice.randrange(7))
    start = parse_index(body)
    rows = [row.raw for row in start.rows()]
    nameless = [row.raw for row in start.rows() if row.digest is None]
    assert [pairs_of(raw, "it") for raw in rows] == list(dict(pairs_of(body, "it"))["manifests"])

    draft, tags = start.copy(), tags_in(json.loads(body)["manifests"])
    unclear = tags_in(list(map(json.loads, nameless)))
    for _ in changes(program, draft, tags):
        pass
    written = draft.render()
    now = [row.raw for row in draft.rows()]
    assert fields_of(written) == fields_of(body)
    assert [raw for raw in now if raw in nameless] == nameless, "what programs read in different ways stays as it is"
    plain = {without_names(json.dumps({"digest": digest}).encode()) for digest in DIGESTS}
    known = {without_names(raw) for raw in rows} | plain
    assert all(raw in rows or without_names(raw) in known for raw in now), "a field or an annotation of a row is gone"
    assert {row.digest for row in start.rows()} <= {row.digest for row in draft.rows()}, "I4: a manifest lost all rows"
    theirs = tags_in(json.loads(written)["manifests"])
    assert all(theirs.get(tag) == tags.get(tag) for tag in TAGS if tag not in unclear)

    for one in (start, draft, parse_index(written)):
        assert meaning(parse_index(written, one)) == meaning(parse_index(written)) == meaning(draft)
    later = go_on(program, written)
    for one in (start, draft, parse_index(written)):
        assert meaning(parse_index(later, one)) == meaning(parse_index(later))


@pytest.mark.parametrize("piece_rows", [1, 2, 128])
def test_i9_what_we_write_is_what_a_naive_program_would_write(piece_rows: int) -> None:
    with small(piece_rows):
        for number in range(COUNT // 3):
            seed = piece_rows * 1_000_000 + number
            try:
                try_one(seed)
            except (AssertionError, LayoutInvalid) as error:
                raise AssertionError(f"seed {seed}: {error}") from error
