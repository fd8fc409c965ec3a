"""Sets of digests, numbers by digest, packed references and who makes them: the same as sets, dictionaries and tuples,
in a fraction of the memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest

from zotctl.storage.citations import Citations
from zotctl.storage.digests import DigestMap, Digests, DigestTable, Numbers, raw_of, text_of
from zotctl.storage.driver import Entry, Info, Listing
from zotctl.storage.facts import ManifestFacts
from zotctl.storage.graph import reach
from zotctl.storage.references import NONE, Reference, References

MANY = 5_000


def digest_at(number: int) -> str:
    return "sha256:" + sha256(str(number).encode()).hexdigest()


STRANGE = (
    "", "x", "sha256:", "sha256:" + "A" * 64, "sha256:" + "ab " * 21 + "a", "sha256:" + "g" * 64, "sha512:" + "a" * 128,
    "sha256:" + "é" * 64, "sha256:" + "a" * 63,
)  # fmt: skip
"""What has no 32 bytes, or not by this text."""


def some(numbers: random.Random) -> str:
    # Of two hundred, so that they come again; with beginnings that they share, so that a bucket has several.
    return numbers.choice([digest_at(numbers.randrange(200)), f"sha256:{numbers.randrange(200):064x}", *STRANGE])


def test_only_the_text_of_a_sha256_has_bytes() -> None:
    assert not any(map(raw_of, STRANGE))
    raw = raw_of(digest_at(1))
    assert raw is not None and len(raw) == 32 and text_of(raw) == digest_at(1)


def test_a_set_of_digests_is_a_set_in_the_order_of_its_members() -> None:
    numbers, known, found = random.Random(1), set[str](), Digests()
    for _ in range(3000):
        digest, adds = some(numbers), numbers.random() < 0.6
        (known.add if adds else known.discard)(digest)
        (found.add if adds else found.discard)(digest)
        asked = some(numbers)
        assert (asked in found) == (asked in known)
    assert list(found) == sorted(known) and len(found) == len(known) and found == known
    assert found - Digests(STRANGE) == known - set(STRANGE) and 7 not in found


def test_numbers_by_digest_are_a_dictionary() -> None:
    numbers, known, found = random.Random(2), dict[str, int](), DigestMap()
    for _ in range(3000):
        digest = some(numbers)
        if numbers.random() < 0.7:
            known[digest] = found[digest] = numbers.getrandbits(63) - (1 << 62)
        else:
            assert found.pop(digest, None) == known.pop(digest, None)
        assert found.get(asked := some(numbers)) == known.get(asked) and (asked in found) == (asked in known)
    assert list(found.pairs()) == sorted(known.items()) == sorted(found.items()) and list(found) == sorted(known)
    with pytest.raises(KeyError):
        del found[digest_at(-1)]


def test_a_table_has_values_of_several_numbers() -> None:
    table = DigestTable[Info](f"{len(Info._fields)}q", tuple, Info)
    info = Info(1, 2, -3, 1 << 62, 5, 6, 7, 8, 9)
    table[digest_at(1)] = table["odd"] = info
    assert table[digest_at(1)] == info == table["odd"] and list(table.pairs()) == [("odd", info), (digest_at(1), info)]


def test_numbers_are_a_set() -> None:
    found = Numbers()
    for number in (1, 1 << 63, 1):
        found.add(number)
    assert 1 in found and 1 << 63 in found and 2 not in found and 256 not in found


@pytest.mark.parametrize("strange", [None, Reference("x", 1, "t"), Reference(digest_at(9), 1 << 63, "t")])
def test_packed_references_are_those_that_were_packed(strange: Reference | None) -> None:
    plain = [Reference(digest_at(at % 5), at, f"type/{at % 2}") for at in range(8)] + ([strange] if strange else [])
    packed = References(plain)
    assert list(packed) == plain and packed == plain and len(packed) == len(plain) and packed != plain[1:]
    assert packed[0] == plain[0] and packed[-1] == plain[-1] and packed[2:4] == tuple(plain[2:4])
    assert list(packed.digests()) == [one.digest for one in plain] and hash(packed) == hash(References(plain))
    assert list(packed.sizes(digest_at(2))) == [2, 7] and not list(packed.sizes("y")) and not packed.has(digest_at(77))
    digests = Digests()
    packed.put_into(digests)
    assert digests == {one.digest for one in plain}
    assert not NONE and not list(NONE)


def test_citations_tell_every_manifest_and_every_size() -> None:
    numbers, known, found = random.Random(3), dict[str, set[tuple[str, int]]](), Citations()
    for at in range(300):
        parts = []
        for _ in range(2):
            named = [Reference(some(numbers), numbers.randrange(3), "t") for _ in range(numbers.randrange(6))]
            for one in named:
                known.setdefault(one.digest, set()).add((f"manifest {at}", one.size))
            parts.append(References(named))
        found.enter(f"manifest {at}", *parts)
    for digest in (*known, digest_at(-1), "never"):
        assert set(found.of(digest)) == known.get(digest, set()) and (digest in found) == (digest in known)
    everything = Digests()
    found.put_into(everything)
    assert everything == set(known)


def test_a_digest_with_the_same_first_bytes_is_another() -> None:
    """Records are found by eight bytes, or at a place that is no beginning of one."""
    one, other = "sha256:" + "ab" * 8 + "00" * 24, "sha256:" + "ab" * 8 + "01" * 24
    found = Citations()
    found.enter("a", References([Reference(one, 1, "t")]))
    assert not list(found.of(other)) and list(found.of(one)) == [("a", 1)] and one in found and other not in found
    digests = Digests(["sha256:" + "ab" * 31 + "cd"] * 2 + ["sha256:" + "ab" * 32])
    assert len(digests) == 2 and "sha256:" + "ab" * 30 + "cdab" not in digests


def facts(*blobs: str, children: Sequence[str] = ()) -> ManifestFacts:
    return ManifestFacts("t", True, 1, _named(blobs), _named(children), (), None)


def _named(digests: Sequence[str]) -> References:
    return References(Reference(one, 1, "t") for one in digests)


def test_i5_a_manifest_that_another_calls_a_layer_is_followed_by_its_row() -> None:
    layered, manifest, layer = digest_at(1), digest_at(2), digest_at(3)
    known = {layered: facts(manifest), manifest: facts(layer)}
    for rows in ([layered, manifest], [manifest, layered]):
        assert reach(rows, known) == {layered, manifest, layer}


def test_a_long_list_of_names_is_a_list() -> None:
    entries = [Entry(f"nämé-{at}", at % 3 == 1, at % 3 == 0) for at in range(50)]
    packed = Listing(entries)
    assert list(packed) == entries and len(packed) == 50 and packed[3] == entries[3] and packed[-1] == entries[-1]
    assert packed[2:5] == entries[2:5] and entries[7] in packed and not Listing([])


@pytest.mark.parametrize(
    ("made", "most"),
    [
        (lambda: Digests(map(digest_at, range(MANY))), 60),
        (lambda: _cited(References(Reference(digest_at(at), at << 32, "t") for at in range(MANY))), 80),
    ],
)
def test_they_take_a_fraction_of_what_texts_take(made: Callable[[], object], most: int) -> None:
    """Bytes for each. A text takes 120, and a place in a set 40."""
    tracemalloc.start()
    try:
        kept = made()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept and size < most * MANY


def _cited(references: References) -> tuple[References, Citations]:
    (citations := Citations()).enter("a", references)
    return references, citations
