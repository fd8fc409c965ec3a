"""index.json in memory: what other tools wrote survives (I9), and every edit does what a dictionary would."""

from __future__ import annotations

import json
import random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.filesystem import MemoryDriver
from tests.storage.model import Rows
from tests.stores import push_image, store_over
from zotctl.errors import LayoutInvalid
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.storage.index import MOST_MOVED, Index, empty_index, parse_index
from zotctl.storage.local import index_file
from zotctl.storage.names import Names
from zotctl.storage.rows import why_nameless

REF = "org.opencontainers.image.ref.name"
CONTAINERD = "io.containerd.image.name"
DIGESTS = [digest_of(bytes([number])) for number in range(6)]
TAGS = ["v1", "v2", "latest", "a_b", "0"]


def row(digest: str = DIGESTS[0], name: str | None = None, **fields: object) -> dict[str, Any]:
    made: dict[str, Any] = {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": 7, **fields}
    if name is not None:
        made["annotations"] = {REF: name, **made.get("annotations", {})}
    return made


def document(*rows: object, **fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(rows), **fields}).encode()


def read(*rows: object, **fields: object) -> Index:
    return parse_index(document(*rows, **fields))


def rendered(index: Index) -> dict[str, Any]:
    found = json.loads(index.render())
    assert isinstance(found, dict)
    return found


def put(index: Index, digest: Digest, *tags: str) -> None:
    index.put(digest, 7, OCI_MANIFEST, tags)


# -- what other tools wrote ---------------------------------------------------------------------


def test_i9_unknown_fields_and_their_order_survive() -> None:
    body = (
        b'{"annotations":{"org.olareg.referrer.convert":"true"},"x-number":1.50,"manifests":[],'
        b'"schemaVersion":2,"x-text":"\\u00e4\\/","org.olareg.history":{"b":1,"a":[null]}}'
    )
    assert parse_index(body).render() == body
    index = parse_index(body).copy()
    put(index, DIGESTS[0], "v1")
    before, after = index.render().split(b'"manifests":[')
    assert before == body.split(b'"manifests":[')[0]
    assert after.endswith(body.split(b'"manifests":[]')[1])


def test_i9_a_row_that_is_not_touched_keeps_each_byte() -> None:
    strange = (
        b'{ "size":7 , "digest":"%s","mediaType":"%s",\n\t"platform":{"os":"linux", "architecture":"amd64"},'
        b'"annotations":{"b":"\\u0041","a":"x"}, "urls":["http://x"],"data":"e30="}'
    ) % (DIGESTS[0].encode(), OCI_MANIFEST.encode())
    index = parse_index(b'{"schemaVersion":2,"manifests":[' + strange + b"]}").copy()
    put(index, DIGESTS[1], "new")
    index.untag("new")
    assert strange in index.render()


def test_i9_an_indented_file_survives_a_commit() -> None:
    rows = [row(DIGESTS[0], "v1", annotations={"other": "x"}), row(DIGESTS[1])]
    body = json.dumps({"schemaVersion": 2, "annotations": {"k": "v"}, "manifests": rows}, indent="\t")
    index = parse_index(body.encode()).copy()
    put(index, DIGESTS[2], "v2")
    found = rendered(index)
    assert found["manifests"][:2] == rows
    assert found["annotations"] == {"k": "v"}
    assert list(found) == ["schemaVersion", "annotations", "manifests"]


def test_i9_the_order_of_rows_survives() -> None:
    index = read(*(row(digest, tag) for digest, tag in zip(DIGESTS, "edcba9", strict=True))).copy()
    put(index, DIGESTS[1], "x")
    put(index, DIGESTS[5], "c")
    index.drop(DIGESTS[3])
    assert [(r["digest"], r.get("annotations", {}).get(REF)) for r in rendered(index)["manifests"]] == [
        (DIGESTS[0], "e"), (DIGESTS[1], "d"), (DIGESTS[2], None), (DIGESTS[4], "a"), (DIGESTS[5], "9"),
        (DIGESTS[1], "x"), (DIGESTS[5], "c"),
    ]  # fmt: skip


def test_null_manifests_read_as_none_and_are_written_as_an_array() -> None:
    """So does a Go program write them."""
    index = parse_index(b'{"schemaVersion":2,"manifests":null}')
    assert (len(index), index.tags()) == (0, [])
    assert rendered(index)["manifests"] == []


def test_a_new_index_is_an_image_index() -> None:
    assert rendered(empty_index()) == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'{"schemaVersion":2}', b"\xff\xfe{}",
        b'{"schemaVersion":1,"manifests":[]}', b'{"manifests":[]}',
        b'{"schemaVersion":"2","manifests":[]}', b'{"schemaVersion":2,"manifests":{}}',
        b'{"schemaVersion":2,"manifests":"x"}', b'{"schemaVersion":2,"manifests":[]}}',
        b'{"schemaVersion":2,"manifests":[]', b'{"schemaVersion":2,"manifests":[,]}',
        b'{"schemaVersion":2,"manifests":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"\x00" * 200,
    ],
)  # fmt: skip
def test_what_is_no_index_is_refused(body: bytes) -> None:
    with pytest.raises(LayoutInvalid):
        parse_index(body)


@pytest.mark.parametrize("name", ["manifests", "Manifests", "MANIFESTS", "manife\u017fts", "\\u006danifests"])
def test_i5_rows_that_only_some_programs_see(name: str) -> None:
    """Go's decoder takes them, and what they lead to would be collected."""
    body = f'{{"schemaVersion": 2, "manifests": [], "{name}": []}}'.encode()
    with pytest.raises(LayoutInvalid, match=r"only in case|twice"):
        parse_index(body)


@pytest.mark.parametrize(
    "more",
    [
        f'"digest": "{DIGESTS[2]}"', f'"Digest": "{DIGESTS[2]}"', f'"dige\u017ft": "{DIGESTS[2]}"',
        f'"\\u0064igest": "{DIGESTS[2]}"', '"mediaType": "x/y"', '"Annotations": {}',
        '"annotations": {"a": "1", "a": "2"}', f'"artifactType": "x/y", "Digest": "{DIGESTS[2]}"',
    ],
)  # fmt: skip
def test_i5_a_row_in_which_programs_read_different_things_names_no_digest(more: str) -> None:
    """What one of them finds there would be collected."""
    strange = json.dumps(row(DIGESTS[0]))[:-1] + f", {more}}}"
    index = parse_index(f'{{"schemaVersion": 2, "manifests": [{strange}, {json.dumps(row(DIGESTS[1]))}]}}'.encode())
    assert list(index.digests) == [DIGESTS[1]]
    (found,) = index.nameless()
    assert found.raw == strange.encode() in index.copy().render()
    assert "twice" in why_nameless(found) or "only in case" in why_nameless(found)


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": {"digest": "Digest", "Digest": 'a "quoted" digest'}}, {"artifactType": "x/y", "urls": ["a:b"]},
        {"platform": {"os": "linux", "architecture": "x", "os.version": "1"}}, {"x": {"Digest": 1}, "data": ""},
    ],
)  # fmt: skip
def test_a_row_with_more_in_it_names_its_digest(more: dict[str, Any]) -> None:
    assert list(read(row(DIGESTS[0], **more)).digests) == [DIGESTS[0]]


def test_i5_a_row_with_a_key_that_is_not_utf_8_names_no_digest() -> None:
    raw = json.dumps(row(name="v1"))[:-1].encode() + b',"\xff":1}'
    body = b'{"schemaVersion":2,"manifests":[' + raw + b"]}"
    index = parse_index(body).copy()
    assert index.tags() == [] and index.render() == body
    assert "not UTF-8" in why_nameless(next(index.rows()))
    index.put_row(raw, "v2")
    put(index, DIGESTS[0], "v1")
    index.untag("v1")
    assert raw in index.render()


@pytest.mark.parametrize("annotations", [5, "a", []])
def test_annotations_that_are_no_object(annotations: object) -> None:
    index = read(annotations=annotations)
    with pytest.raises(LayoutInvalid, match="annotations"):
        index.annotation("a")
    with pytest.raises(LayoutInvalid, match="annotations"):
        index.copy().annotate("a", "b")
    with pytest.raises(LayoutInvalid, match="annotations"):
        parse_index(b'{"schemaVersion":2,"manifests":[],"annotations":{"\xff":"a"}}').annotation("a")


def test_a_name_within_is_no_second_list() -> None:
    body = b'{"schemaVersion": 2, "manifests": [], "annotations": {"manifests": "", "Manifests": ""}}'
    assert len(parse_index(body)) == 0


@pytest.mark.parametrize(
    "strange",
    [
        {}, 7, "text", None, [], {"digest": 7}, {"digest": "sha256:abc", "size": 1}, row("md5:00"), row("../../x"),
        {"digest": DIGESTS[0]}, {"digest": DIGESTS[0], "size": "7"}, row(size=1.5), row(annotations={"a": 1}),
        row(mediaType=7),
    ],
)  # fmt: skip
def test_i9_a_row_that_means_nothing_here_is_kept_to_the_letter(strange: object) -> None:
    index = read(strange, row(DIGESTS[1], "v1"), strange).copy()
    assert index.tags() == ["v1"]
    assert list(index.digests) == [DIGESTS[1]]
    put(index, DIGESTS[2], "v1")
    index.drop(DIGESTS[2])
    index.untag("v1")
    assert [r for r in rendered(index)["manifests"] if r == strange] == [strange, strange]


def test_i9_annotations_of_a_row_stay_when_its_tag_goes_or_comes() -> None:
    annotations = {"org.opencontainers.image.created": "2026", "k": "v"}
    index = read(row(DIGESTS[0], "v1", annotations=annotations, platform={"os": "linux"}, artifactType="a/b"))
    index = index.copy()
    index.untag("v1")
    untagged = row(DIGESTS[0], annotations=annotations, platform={"os": "linux"}, artifactType="a/b")
    assert rendered(index)["manifests"] == [untagged]
    put(index, DIGESTS[0], "v2")
    assert rendered(index)["manifests"] == [untagged | {"annotations": {**annotations, REF: "v2"}}]


@pytest.mark.parametrize("annotations", [None, {}])
def test_a_row_with_null_or_empty_annotations_takes_a_tag(annotations: object) -> None:
    index = read(row(annotations=annotations)).copy()
    put(index, DIGESTS[0], "v1")
    assert rendered(index)["manifests"] == [row(DIGESTS[0], "v1")]
    index.untag("v1")
    assert rendered(index)["manifests"] == [row()]


# -- names --------------------------------------------------------------------------------------


def test_of_two_rows_with_one_tag_the_last_wins_and_it_is_listed_once() -> None:
    index = read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "v2"), row(DIGESTS[2], "v1"))
    found = index.find("v1")
    assert found is not None and found.digest == DIGESTS[2]
    assert index.tags() == ["v1", "v2"]
    assert index.duplicate_tags() == ["v1"]
    assert (index.tags_of(DIGESTS[0]), index.tags_of(DIGESTS[2])) == ([], ["v1"])


def test_pushing_over_a_duplicate_tag_leaves_one_row_with_it() -> None:
    for again in DIGESTS[:4]:
        index = read(row(DIGESTS[0], "v1"), row(DIGESTS[1]), row(DIGESTS[2], "v1")).copy()
        put(index, again, "v1")
        assert index.duplicate_tags() == []
        found = index.find("v1")
        assert found is not None and found.digest == again
        assert set(index.digests) == {*DIGESTS[:3], again}, "who had the tag keeps a row"
        assert parse_index(index.render()).tags_of(again) == ["v1"]


@pytest.mark.parametrize(
    "name, tag",
    [
        ("docker.io/library/busybox:1.36", "1.36"),
        ("busybox:latest", "latest"),
        ("host:5000/x:v1", "v1"),
        ("[::1]:5000/x/y:v1", "v1"),
        ("host:5000/x", None),
        ("docker.io/library/busybox", None),
        ("x@" + DIGESTS[0], None),
        ("host:5000/x:v1@" + DIGESTS[0], None),
        (DIGESTS[0], None),
        (":v1", None),
        ("x:", None),
        ("x:..", None),
        ("x:" + "y" * 129, None),
        ("", None),
    ],
)
def test_a_full_name_answers_to_its_tag(name: str, tag: str | None) -> None:
    index = read(row(DIGESTS[0], name))
    assert index.tags() == ([] if tag is None else [tag])
    if tag is not None:
        found = index.find(tag)
        assert found is not None and found.digest == DIGESTS[0] and found.tag is None
    assert index.find(name if ":" not in name else "no") is None
    assert DIGESTS[0] in index, "by digest it is reachable in any case"


def test_an_alias_that_is_not_unique_is_no_tag() -> None:
    index = read(row(DIGESTS[0], "a/x:v1"), row(DIGESTS[1], "b/y:v1"), row(DIGESTS[2], "c:v2"))
    assert index.tags() == ["v2"]
    assert index.find("v1") is None
    same = read(row(DIGESTS[0], "a/x:v1"), row(DIGESTS[0], "b/y:v1"))
    assert same.tags() == ["v1"]


def test_a_tag_goes_before_an_alias() -> None:
    index = read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "a/x:v1"), row(DIGESTS[2], "b/x:v1"))
    found = index.find("v1")
    assert found is not None and found.digest == DIGESTS[0]
    assert index.tags() == ["v1"]
    assert index.tags_of(DIGESTS[1]) == []


def test_buildkits_two_annotations() -> None:
    both = {REF: "v1", CONTAINERD: "docker.io/library/x:v1"}
    index = read(row(DIGESTS[0], annotations=both), row(DIGESTS[1], annotations={CONTAINERD: "docker.io/l/x:v2"}))
    assert index.tags() == ["v1", "v2"]
    index = index.copy()
    index.untag("v2")
    index.untag("v1")
    assert index.tags() == []
    assert rendered(index)["manifests"] == [row(DIGESTS[0]), row(DIGESTS[1])], "no name may lead there again"


def test_an_untagged_alias_does_not_come_back() -> None:
    index = read(row(DIGESTS[0], "x:v1")).copy()
    put(index, DIGESTS[1], "v1")
    index.untag("v1")
    for again in (index, parse_index(index.render())):
        assert again.tags() == []
        assert again.find("v1") is None


# -- edits --------------------------------------------------------------------------------------


def test_an_untagged_push_is_a_row_and_a_tag_takes_it_over() -> None:
    index = empty_index()
    put(index, DIGESTS[0])
    put(index, DIGESTS[0])
    assert rendered(index)["manifests"] == [row()]
    put(index, DIGESTS[0], "v1")
    put(index, DIGESTS[0])
    assert rendered(index)["manifests"] == [row(DIGESTS[0], "v1")]


def test_a_tag_that_moves_leaves_an_untagged_row_only_if_it_was_the_last() -> None:
    index = empty_index()
    put(index, DIGESTS[0], "v1", "v2")
    put(index, DIGESTS[1], "v1")
    assert rendered(index)["manifests"] == [row(DIGESTS[0], "v2"), row(DIGESTS[1], "v1")]
    put(index, DIGESTS[1], "v2")
    assert index.tags_of(DIGESTS[1]) == ["v1", "v2"]
    assert row(DIGESTS[0]) in rendered(index)["manifests"]


def test_one_tag_given_twice_is_one_row() -> None:
    index = empty_index()
    put(index, DIGESTS[0], "v1", "v1")
    assert rendered(index)["manifests"] == [row(DIGESTS[0], "v1")]


def test_a_push_that_changes_nothing_is_not_dirty() -> None:
    index = read(row(DIGESTS[0], "v1"), row(DIGESTS[1])).copy()
    put(index, DIGESTS[0], "v1")
    put(index, DIGESTS[1])
    index.untag("nobody")
    index.drop(DIGESTS[5])
    assert not index.dirty
    put(index, DIGESTS[0], "v2")
    assert index.dirty


def test_i4_a_push_corrects_a_row_with_a_wrong_size() -> None:
    for wrong in ([row(DIGESTS[0], "v1", size=99)], [row(size=99), row(DIGESTS[0], "v1")]):
        index = read(*wrong).copy()
        put(index, DIGESTS[0], "v1")
        assert {r["size"] for r in rendered(index)["manifests"]} == {7}
        assert index.tags() == ["v1"]
        assert [r.size for r in parse_index(index.render()).rows_of(DIGESTS[0])] == [7] * len(index)


def test_a_snapshot_is_not_changed_by_its_copy() -> None:
    index = read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "x:v9"), row(DIGESTS[2]))
    before, tags = index.render(), list(index.tags())
    twin = index.copy()
    put(twin, DIGESTS[3], "v1", "v9")
    twin.drop(DIGESTS[2])
    twin.untag("v9")
    assert (index.render(), index.tags(), len(index)) == (before, tags, 3)
    found = index.find("v9")
    assert found is not None and found.digest == DIGESTS[1]


def test_drop_takes_every_row_of_a_manifest_and_no_other() -> None:
    index = read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "v2"), row(DIGESTS[0], "x:v3"), row(DIGESTS[0])).copy()
    index.drop(DIGESTS[0])
    assert rendered(index)["manifests"] == [row(DIGESTS[1], "v2")]
    assert (DIGESTS[0] in index, index.find("v3"), index.tags()) == (False, None, ["v2"])


def test_adopt_takes_what_is_missing_and_moves_nothing() -> None:
    ours = read(row(DIGESTS[0], "v1"), row(DIGESTS[1])).copy()
    theirs = read(
        row(DIGESTS[2], "v1"), row(DIGESTS[3], "v2", annotations={"k": "v"}), row(DIGESTS[1]), row(DIGESTS[4]),
        {"digest": "no"}, row(DIGESTS[5], "a/x:v3"),
    )  # fmt: skip
    ours.adopt(theirs.rows())
    assert rendered(ours)["manifests"] == [
        row(DIGESTS[0], "v1"), row(DIGESTS[1]), row(DIGESTS[3], "v2", annotations={"k": "v"}), row(DIGESTS[4]),
        {"digest": "no"}, row(DIGESTS[5], "a/x:v3"),
    ]  # fmt: skip
    twin = ours.copy()
    twin.adopt(theirs.rows())
    assert not twin.dirty


def test_rows_that_are_known_are_not_parsed_again_and_mean_the_same() -> None:
    first = read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "v2"))
    body = document(row(DIGESTS[1], "v2"), row(DIGESTS[2], "v3"), row(DIGESTS[0], "v1"))
    again = parse_index(body, first)
    assert again.render() == parse_index(body).render()
    assert next(again.rows()) == first.rows_of(DIGESTS[1])[0]


def same(one: Index, other: Index) -> None:
    assert one.render() == other.render()
    assert list(one.rows()) == list(other.rows()) and one.digests.keys() == other.digests.keys()
    assert all(one.rows_of(digest) == other.rows_of(digest) for digest in one.digests)
    assert one.tags() == other.tags() and one.duplicate_tags() == other.duplicate_tags()
    assert [one.find(tag) for tag in one.tags()] == [other.find(tag) for tag in other.tags()]
    assert not one.dirty


def test_of_an_index_that_has_grown_only_the_new_rows_are_looked_at() -> None:
    first = read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "v2"))
    draft = first.copy()
    put(draft, DIGESTS[2], "v3")
    draft.annotate("more", "said")
    body = draft.render()
    for known in (first, draft.copy(), parse_index(body)):
        again = parse_index(body, known)
        same(again, parse_index(body))
        assert again.annotation("more") == "said" and again.find("v1") == known.find("v1")
        put(more := again.copy(), DIGESTS[3], "v4")
        same(parse_index(more.render(), again), parse_index(more.render()))
    same(first, read(row(DIGESTS[0], "v1"), row(DIGESTS[1], "v2")))


@pytest.mark.parametrize("before", [b"", b"1", b"1,2", b'{"digest":"x"}', b"[1", b'"a'])
@pytest.mark.parametrize("after", [b"", b"1", b"12", b"1 ,2", b"1,2,3", b" 1,2", b'{"a":"x"} , 1', b"1, 2", b"null"])
def test_what_only_looks_like_growth_is_none(before: bytes, after: bytes) -> None:
    bodies = [b'{"schemaVersion":2,"manifests":[' + rows + b"]}" for rows in (before, after)]
    try:
        known = parse_index(bodies[0])
    except LayoutInvalid:
        return
    same(parse_index(bodies[1], known), parse_index(bodies[1]))


@patch("zotctl.storage.index.PIECE_ROWS", 2)
@given(st.lists(st.tuples(st.sampled_from(DIGESTS), st.sampled_from([*TAGS, None, "a/x:v3"])), max_size=8), st.data())
def test_i9_whatever_was_known_the_same_is_read(wanted: list[tuple[Digest, str | None]], data: st.DataObject) -> None:
    rows = [row(digest, tag) for digest, tag in wanted]
    known = Index(
        {"schemaVersion": b"2", "manifests": b"[]"},
        [found.raw for found in read(*rows[: data.draw(st.integers(0, 8))]).rows()],
    )
    for _ in range(data.draw(st.integers(0, 3))):
        known.render()
        known = known.copy()
        put(known, data.draw(st.sampled_from(DIGESTS)), *data.draw(st.lists(st.sampled_from(TAGS), max_size=2)))
    known.render()
    compact = json.dumps({"schemaVersion": 2, "manifests": rows}, separators=(",", ":")).encode()
    for body in (compact, document(*rows), known.render()):
        same(parse_index(body, known), parse_index(body))


def test_a_great_growth_is_read_anew() -> None:
    known = read(row(DIGESTS[0], "v1"))
    draft = known.copy()
    put(draft, DIGESTS[1], *(f"t{number}" for number in range(5000)))
    same(parse_index(draft.render(), known), parse_index(draft.render()))


@pytest.mark.parametrize("same_digest", [False, True])
def test_ten_thousand_rows(same_digest: bool) -> None:
    """Quadratic work in rows of one digest would be caught by the time-out of the suite."""
    digests = [digest_of(str(0 if same_digest else number).encode()) for number in range(10_000)]
    index = read(*(row(digest, f"t{number}") for number, digest in enumerate(digests))).copy()
    put(index, digests[5000], "new")
    index.untag("t0")
    assert len(index.tags()) == 10_000
    for number in (1, 4999, 9999):
        found = index.find(f"t{number}")
        assert found is not None and found.digest == digests[number]
    assert len(parse_index(index.render(), index)) == len(index) == (10_000 if same_digest else 10_001)


# -- against a dictionary -----------------------------------------------------------------------


EDITS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(DIGESTS), st.lists(st.sampled_from(TAGS), max_size=3)),
    st.tuples(st.just("untag"), st.sampled_from(TAGS)),
    st.tuples(st.just("drop"), st.sampled_from(DIGESTS)),
)
NAMES = st.one_of(
    st.none(),
    st.sampled_from([*TAGS, "x:v1", "host/y:v1", "docker.io/library/z:v2", "host:5000/x", "x@" + DIGESTS[0]]),
)
ROWS = st.one_of(
    st.builds(row, st.sampled_from(DIGESTS), NAMES),
    st.sampled_from([{}, 7, {"digest": "no"}, row("md5:00"), row(annotations=None), row(artifactType="a/b")]),
)


def meaning(index: Index) -> Rows:
    return Rows((row.digest, row.tag, row.alias) for row in index.rows())


def check(index: Index, model: Rows) -> None:
    tags = model.tags()
    assert [(r.digest, r.tag, r.alias) for r in index.rows()] == model.rows
    assert index.tags() == sorted(tags)
    assert set(index.digests) == model.digests()
    for tag in [*TAGS, "nobody"]:
        found = index.find(tag)
        assert (found.digest if found else None) == tags.get(tag), tag
    for digest in DIGESTS:
        assert index.tags_of(digest) == sorted(t for t, d in tags.items() if d == digest)
        assert (digest in index) == (digest in model.digests())
        assert {r.digest for r in index.rows_of(digest)} <= {digest}


@patch("zotctl.storage.index.PIECE_ROWS", 2)
@given(st.lists(ROWS, max_size=8), st.lists(EDITS, max_size=12))
def test_i9_any_edits_of_any_index_do_what_a_dictionary_does(rows: list[Any], edits: list[Any]) -> None:
    start = parse_index(document(*rows, **{"x-kept": {"y": [1.0]}}))
    model, draft = meaning(start), start.copy()
    strange = [r for r in rows if not isinstance(r, dict) or r.get("digest") not in DIGESTS]
    for name, *arguments in edits:
        if name == "put":
            put(draft, arguments[0], *arguments[1])
            model.put(*arguments)
        else:
            getattr(draft, name)(*arguments)
            getattr(model, name)(*arguments)
        check(draft, model)
        assert b"[" + b",".join(row.raw for row in draft.rows()) + b"]" in draft.render()
    written = rendered(draft)
    assert written["x-kept"] == {"y": [1.0]}
    assert [r for r in written["manifests"] if r in strange] == strange
    assert len(written["manifests"]) == len(draft) and len(list(draft.rows())) == len(draft)
    check(parse_index(draft.render()), model)
    check(parse_index(draft.render(), start), model)
    check(start, meaning(start))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(JSON_VALUES | ROWS, max_size=6),
    st.dictionaries(st.text(max_size=6).filter(lambda k: k not in ("manifests", "schemaVersion")), JSON_VALUES),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_i9_render_and_parse_is_the_same_document(
    rows: list[Any], fields: dict[str, Any], indent: Any, ascii_only: bool
) -> None:
    wanted = {"schemaVersion": 2, "manifests": rows, **fields}
    body = json.dumps(wanted, indent=indent, ensure_ascii=ascii_only).encode()
    once = parse_index(body).render()
    assert json.loads(once) == wanted
    assert list(json.loads(once)) == list(wanted)
    assert parse_index(once).render() == once
    assert parse_index(once, parse_index(body)).render() == once


def named(*pairs: tuple[str, str | None]) -> Index:
    return read(*(row(digest, tag) for digest, tag in pairs))


def pairs_of(index: Index) -> set[tuple[str | None, str | None]]:
    return {(found.digest, found.tag) for found in index.rows()}


def test_merge_does_what_another_program_did_and_keeps_what_changed_here() -> None:
    a, b, c, d, e = DIGESTS[:5]
    before = named((a, "moved"), (b, "removed"), (c, "both"), (e, None))
    theirs = named((b, "moved"), (d, "both"), (d, "new"), (e, None))
    ours = named((a, "moved"), (b, "removed"), (e, "both"), (c, None), (e, "ours"))
    ours.merge(before, theirs)
    assert pairs_of(ours) == {(b, "moved"), (e, "both"), (c, None), (d, "new"), (e, "ours")}
    assert ours.dirty
    again = ours.copy()
    again.merge(before, theirs)
    assert pairs_of(again) == pairs_of(ours)


def test_merge_keeps_what_lost_the_race_for_a_tag() -> None:
    a, b, c = DIGESTS[:3]
    ours = named((c, "v1"), (a, None))
    ours.merge(named((a, "v1")), named((b, "v1")))
    assert pairs_of(ours) == {(c, "v1"), (a, None), (b, None)}


def test_of_many_small_repositories_a_cache_keeps_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index without rows takes as much memory as some rows; a job meets 100,000 of them."""
    monkeypatch.setattr(index_file, "CACHED_ROWS", 100)
    driver = MemoryDriver()
    for number in range(20):
        push_image(store_over(driver), f"r{number}", "t")
    (root,) = store_over(driver).roots
    kept = [(name, root.protocol.indexes.read(name).index) for name in root.catalog.everything()]
    again = [index for name, index in kept if root.protocol.indexes.read(name).index is index]
    assert len(kept) == 20 and len(again) <= 100 // 16


def test_tags_of_a_copy_are_put_right_and_not_sorted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 100,000 tags, asked for after each push."""
    index, wanted, numbers = empty_index(), dict[str, bool](), random.Random(5)
    index.tags()
    monkeypatch.setattr("zotctl.storage.index.sorted", lambda _: pytest.fail("sorted again"), raising=False)
    for step in range(300):
        index, tag = index.copy(), f"t{numbers.randrange(40)}"
        if numbers.random() < 0.6:
            index.put(digest_of(str(step).encode()), 1, OCI_MANIFEST, [tag])
            wanted[tag] = True
        else:
            index.untag(tag)
            wanted.pop(tag, None)
        if step % 3 == 0:
            seen = index.tags()
            assert seen == [*dict(sorted_pairs(wanted))] and seen is index.tags()


def sorted_pairs(tags: dict[str, bool]) -> list[tuple[str, bool]]:
    return sorted(tags.items())


def test_after_many_changes_the_list_of_tags_is_made_anew() -> None:
    index = empty_index()
    for step in range(MOST_MOVED + 50):
        index = index.copy()
        if step == 3:
            index.tags()
        index.put(digest_of(str(step).encode()), 1, OCI_MANIFEST, [f"t{step:04}"])
    assert index.tags() == [f"t{step:04}" for step in range(MOST_MOVED + 50)]


def test_what_has_changed_among_names_is_told_without_a_look_at_all() -> None:
    names = Names(map(str, range(1000)))
    (later := names.copy()).remove("5", 5)
    later.add("new", 1000)
    assert set(later.changed_since(names)) == {"5", "new"} == set(names.changed_since(later))
    assert set(later.copy().changed_since(later.copy())) == {"5", "new"}
    other = Names(["5"])
    other.add("more", 1)
    assert set(other.changed_since(later)) == {*map(str, range(1000)), "new", "more"}
