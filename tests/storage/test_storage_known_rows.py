"""What is not parsed again when an index.json changes, and what a copy shares: the same must come out as without."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import product
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.storage.test_storage_index import DIGESTS, EDITS, ROWS, TAGS, document, put, read, row, same
from zotctl.errors import LayoutInvalid
from zotctl.oci.codec import Pairs, pairs_of
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import known_rows
from zotctl.storage.index import Index, parse_index
from zotctl.storage.names import Names
from zotctl.storage.rows import parse_piece, parse_row, piece_of

MARK = known_rows.MARK.decode()


def small(piece_rows: int = 2) -> ExitStack:
    """Pieces of few rows, and copies that are folded or numbered anew all the time."""
    stack = ExitStack()
    for name, value in (
        ("index.PIECE_ROWS", piece_rows), ("index.MOST_GAPS", 1), ("index.FOUND_ROWS", 1), ("names.FEW_CHANGES", 1),
    ):  # fmt: skip
        stack.enter_context(patch(f"zotctl.storage.{name}", value))
    return stack


# -- a file that changed -------------------------------------------------------------------------


def index_of(rows: str, more: str = "") -> bytes:
    return f'{{"schemaVersion":2,"manifests":[{rows}]{more}}}'.encode()


def compact(*rows: object) -> str:
    return json.dumps(rows, separators=(",", ":"))[1:-1]


A, B, C = (compact(row(digest, tag)) for digest, tag in zip(DIGESTS[:3], TAGS[:3], strict=True))


@pytest.mark.parametrize(
    "body",
    [
        index_of(f"{A},{B}"), index_of(f"{B},{A}"), index_of(f"{A},{A},{B}"), index_of(f"{A},{C},{B}"), index_of(B),
        index_of(f"{MARK},{A},{B}"), index_of(MARK, f',"x":[{A},{B}]'), index_of("", f',"x":[{A},{B}]'),
        index_of(f'[{A},{B}],"x"'), index_of(f'{{"x":{A}}},{B}'), index_of(f'"{A}",{B}'), index_of(f"1{A},{B}"),
        index_of(f"{A},{B}1"), index_of(f"{A},,{B}"), index_of(f"{A} {B}"), index_of(f"{A},{B},"),
        index_of(f",{A},{B}"),
        index_of(f'"\\{A},{B}'), index_of(f'"{A},{B}'), index_of(f"{A},{B}")[:-1], index_of(f"{A},{B}") + b"}",
        index_of(f"{A},{B}", ',"manifests":[]'), index_of(f"{A},{B}", ',"Manifests":[]'), index_of(f"{A}\n, {B}"),
        index_of(f"{A},{B}").replace(b'"manifests"', b'"manifest"'), index_of(f"[{A},{B}]"), index_of(f"{A},{B}]],["),
        index_of(f"{A},{B}").replace(b":2", b":1"), b"\xef\xbb\xbf" + index_of(f"{A},{B}"), index_of(f"{A},NaN,{B}"),
        index_of(f"{A},{B}", f',"annotations":{{"a":{MARK}}}'), index_of(f'{A},{B},{{"\\u0064igest":{MARK}}}'),
        index_of(f"{A},{B},{C}").replace(C.encode(), b'{"\xff":1}'), index_of(f"{MARK},{MARK},{A},{B}"),
        index_of("0" * 200_000 + f",{A},{B}"), index_of(f'"{"x" * 200_000}",{A},{B}'), index_of(f"{A},{MARK},{B}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece_rows", [1, 2, 128])
def test_i9_the_same_is_read_as_without_what_is_known(body: bytes, piece_rows: int) -> None:
    with small(piece_rows):
        agrees(body, read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "v2")).copy())
        agrees(body, parse_index(index_of(f"{A},{B}")))


def agrees(body: bytes, known: Index) -> None:
    """Read with and without, the same comes out: an index with the rows that any JSON decoder sees, or an error."""
    before = known.render()
    try:
        wanted = parse_index(body)
    except LayoutInvalid as error:
        with pytest.raises(LayoutInvalid) as raised:
            parse_index(body, known)
        assert raised.value.message == error.message
    else:
        found = parse_index(body, known)
        same(found, wanted)
        rows = dict(pairs_of(body, "it")).get("manifests") or []
        assert [pairs_of(one.raw, "it") for one in found.rows()] == list(rows)
    assert known.render() == before


SNIPPETS = st.sampled_from([
    A, B, C, compact(row(DIGESTS[3])), compact(row(DIGESTS[0], "a/x:v3")), compact(row("md5:00")), MARK, "1", "12",
    "{}",
    f'"{MARK}"', json.dumps(A), f"[{A}]", f"[{A},{B}]", f'{{"manifests":[{A}]}}', '"\\u0041"', "null", "[]", '"[{,"',
])  # fmt: skip
GLUE = st.sampled_from([", ", "\n,", "", " ", "],[", ',"x":['])
MORE = st.sampled_from(["", f',"x":[{A},{B}]', ',"annotations":{"a":"b"}', f',"x":{MARK}', ',"manifests":[]', ","])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The bytes of an index and of another that is made of the same: rows that came, went, moved and changed."""
    rows = draw(st.lists(SNIPPETS, max_size=8))
    now = draw(st.one_of(st.permutations(rows), st.lists(SNIPPETS, max_size=8), st.just(rows)))
    at = draw(st.integers(0, len(now)))
    now = [*now[:at], *draw(st.lists(SNIPPETS, max_size=2)), *now[at + draw(st.integers(0, 2)) :]]
    glue = draw(st.lists(st.tuples(st.integers(0, 12), GLUE), max_size=2))
    parts = [piece for one in now for piece in (",", one)][1:]
    for place, other in glue:
        parts[2 * place + 1 : 2 * place + 2] = [other]
    body = index_of("".join(parts), draw(MORE))
    if draw(st.integers(0, 3)) == 0:
        start, length = draw(st.integers(0, len(body))), draw(st.integers(0, 9))
        body = body[:start] + draw(st.sampled_from([b"", b'"', b"[", b"]", b"\\", b"\xff"])) + body[start + length :]
    return index_of(",".join(rows), draw(MORE)), body


@pytest.mark.parametrize("piece_rows", [1, 2])
def test_i9_any_few_rows_become_any_others(piece_rows: int) -> None:
    lists = [",".join(rows) for count in range(4) for rows in product((A, B, C), repeat=count)]
    with small(piece_rows):
        known = [parse_index(index_of(rows)) for rows in lists]
        for one, after in product(known, known):
            same(parse_index(after.render(), one), after)


@given(bodies(), st.integers(1, 3))
@example((index_of(f"{A},{B}"), index_of(MARK, f',"x":[{A},{B}]')), 2)
def test_i9_whatever_has_changed_the_same_is_read(made: tuple[bytes, bytes], piece_rows: int) -> None:
    with small(piece_rows):
        try:
            known = parse_index(made[0])
        except LayoutInvalid:
            return
        agrees(made[1], known)


def test_only_rows_that_changed_are_parsed() -> None:
    rows = [row(DIGESTS[number % 6], f"t{number}") for number in range(5000)]
    known = parse_index(read(*rows).render())
    draft = known.copy()
    put(draft, DIGESTS[0], "t7", "t1001", "new")
    draft.untag("t4444")
    draft.annotate("a", "b")
    with patch("zotctl.storage.index.parse_piece", side_effect=AssertionError):
        found = parse_index(draft.render(), known)
    same(found, parse_index(draft.render()))
    assert found.annotation("a") == "b"


def test_a_file_that_has_little_in_common_is_read_anew() -> None:
    with small():
        known = read(*(row(DIGESTS[0], f"t{number}") for number in range(200)))
        agrees(document(*(row(DIGESTS[1], f"t{number}") for number in range(200))), known)
        agrees(read(*(row(DIGESTS[number % 2], f"t{number}") for number in range(200))).render(), known)


# -- pieces --------------------------------------------------------------------------------------

STRANGE = [
    *(json.dumps(row(DIGESTS[0]))[:-1] + f", {more}}}" for more in (
        f'"digest": "{DIGESTS[2]}"', f'"Digest": "{DIGESTS[2]}"', f'"\\u0064igest": "{DIGESTS[2]}"', '"a": "\\"b"',
        '"annotations": {"a": "1", "a": "2"}', '"annotations": null', '"annotations": {}', '"mediaType": ""',
    )),
    json.dumps(row(DIGESTS[0])).replace("manifest", "m\\u0061nifest"), '{"digest":"' + DIGESTS[1] + '","size":1}',
    '{"size":1,"digest":"sha256:00"}', "null", "[" * 90 + "]" * 90, "1e999", '"x"',
]  # fmt: skip


@given(st.lists(st.one_of(ROWS.map(json.dumps), st.sampled_from(STRANGE)), max_size=5))
def test_i5_rows_of_a_piece_say_what_each_says_by_itself(rows: list[str]) -> None:
    raws = [text.encode() for text in rows]
    piece = piece_of([b"", *raws, b""])
    assert piece.numbered() == list(enumerate(raws, 1))
    assert parse_piece(piece) == [(place, parse_row(raw)) for place, raw in enumerate(raws, 1)]


# -- copies --------------------------------------------------------------------------------------


@given(st.lists(ROWS, max_size=6), st.lists(st.tuples(EDITS, st.booleans()), max_size=14))
def test_i9_a_draft_of_a_draft_is_what_a_reader_of_its_bytes_sees(
    rows: list[Any], edits: list[tuple[Any, bool]]
) -> None:
    with small():
        draft = read(*rows).copy()
        kept = []
        for (name, *arguments), copied in edits:
            put(draft, arguments[0], *arguments[1]) if name == "put" else getattr(draft, name)(*arguments)
            draft.dirty = False
            same(draft, parse_index(draft.render()))
            if copied:
                kept.append((draft, draft.render()))
                draft = draft.copy()
        for snapshot, body in kept:
            assert snapshot.render() == body
            same(snapshot, parse_index(body))


def test_numbers_of_removed_rows_do_not_add_up() -> None:
    index = read(*(row(DIGESTS[0], f"t{number}") for number in range(10)))
    with small():
        for number in range(100):
            index = index.copy()
            put(index, DIGESTS[number % 2], "moved")
        assert len(index.pieces()) < 20
        same(index.copy(), parse_index(index.render()))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.integers(0, 9)), max_size=30))
def test_names_are_what_a_dictionary_of_sets_is(steps: list[tuple[bool, str, int]]) -> None:
    with small():
        names = Names(["a", None, "a", "b"])
        wanted = {"a": {0, 2}, "b": {3}}
        for copied, name, row_id in steps:
            if copied:
                before, all_before = names, dict(names.all())
                names = names.copy()
            if row_id in wanted.get(name, ()):
                wanted[name].remove(row_id)
                names.remove(name, row_id)
            else:
                wanted.setdefault(name, set()).add(row_id)
                names.add(name, row_id)
            if copied:
                assert before.all() == all_before
            there = {one: tuple(sorted(ids)) for one, ids in wanted.items() if ids}
            assert {one: names.ids(one) for one in "abcd" if one in names} == there
            assert dict(names.several()) == {one: ids for one, ids in there.items() if len(ids) > 1}
            assert names.all().keys() == there.keys()


# -- many rows of one manifest -------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"size": 8}, {"mediaType": "a/b"}])
def test_i4_of_many_rows_a_wrong_one_is_found(wrong: dict[str, Any]) -> None:
    rows = [row(DIGESTS[0], f"t{number}") for number in range(4)]
    for number in range(4):
        index = read(*rows[:number], rows[number] | wrong, *rows[number + 1 :]).copy()
        assert index.media_types_of(DIGESTS[0]) == {OCI_MANIFEST, wrong.get("mediaType", OCI_MANIFEST)}
        index.put(DIGESTS[0], 7, OCI_MANIFEST, ["new"], lambda claim: claim == "a/b")
        assert {(one.size, one.media_type) for one in index.rows()} == {(7, OCI_MANIFEST)}


def test_i4_a_wrong_row_that_came_later_is_found() -> None:
    index = read(row(DIGESTS[0], "v1"), row(DIGESTS[0], "v2")).copy()
    index.put_row(json.dumps(row(DIGESTS[0], size=8)).encode(), "v3")
    put(index.copy(), DIGESTS[0])
    put(index, DIGESTS[0])
    assert [one.size for one in index.rows()] == [7, 7, 7]


def test_a_tag_that_two_rows_have_leads_to_the_last_also_where_the_first_was_corrected() -> None:
    index = read(row(DIGESTS[0], "v1", size=8), row(DIGESTS[1], "v1")).copy()
    put(index, DIGESTS[0])
    found = index.find("v1")
    assert found is not None and found.digest == DIGESTS[1]


def test_a_push_looks_at_few_of_many_rows_of_its_manifest() -> None:
    index = read(*(row(DIGESTS[0], f"t{number}") for number in range(3000))).copy()
    with patch("zotctl.storage.index.parse_row", wraps=parse_row) as parsed:
        put(index, DIGESTS[0], "new")
        assert index.media_types_of(DIGESTS[0]) == {OCI_MANIFEST}
    assert parsed.call_count < 10


def test_pairs_are_compared_as_they_stand() -> None:
    """The comparison above tells repeated keys apart, and 1 from 1.0."""
    assert pairs_of(b'{"a":1}', "it") == Pairs([("a", "1")]) != pairs_of(b'{"a":1.0}', "it")
