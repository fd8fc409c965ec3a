"""Digests: vectors of the specification and of FIPS 180, and whatever hypothesis thinks of."""

from __future__ import annotations

import ast
import copy
import hashlib
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zotctl
from zotctl.errors import DigestInvalid
from zotctl.oci.digest import ALGORITHMS, Digest, check_digest, digest_named, digest_of, is_stub, new_hash, parse_digest

EMPTY_JSON = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
NOTHING = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC_512 = (
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
)
HEX = "a" * 64


@pytest.mark.parametrize(
    ("data", "algorithm", "digest"),
    [(b"{}", "sha256", EMPTY_JSON), (b"", "sha256", NOTHING), (b"abc", "sha512", ABC_512)],
)
def test_golden_digests(data: bytes, algorithm: str, digest: str) -> None:
    assert digest_of(data, algorithm) == digest
    assert parse_digest(digest) == digest


def test_a_digest_is_its_text() -> None:
    digest = parse_digest(NOTHING)
    assert (digest.algorithm, digest.encoded) == ("sha256", NOTHING[7:])
    assert {NOTHING: 1}[digest] == 1
    assert f"{digest}" == NOTHING
    assert pickle.loads(pickle.dumps(digest)) == digest
    assert type(copy.deepcopy(digest)) is Digest


def test_a_digest_comes_from_a_parser_or_a_hash_and_from_nowhere_else() -> None:
    with pytest.raises(TypeError, match="parse_digest"):
        Digest(NOTHING)  # type: ignore[arg-type]


def test_no_code_makes_one_of_unparsed_text() -> None:
    """Not by the constructor, and not behind its back either."""
    package = Path(zotctl.__file__).parent
    found = {
        f"{path.relative_to(package)}:{node.lineno}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _makes_a_digest(node) and path != package / "oci/digest.py"
    }
    assert not found


def _makes_a_digest(node: ast.Call) -> bool:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    named = [one.id for one in node.args if isinstance(one, ast.Name)]
    return called == "Digest" or (called in ("__new__", "cast") and "Digest" in named)


@pytest.mark.parametrize(("algorithm", "encoded"), [("sha256", ""), ("sha256", "x"), ("", HEX), ("sha256", f"{HEX}/")])
def test_a_name_that_is_none_is_no_digest(algorithm: str, encoded: str) -> None:
    assert digest_named(algorithm, encoded) is None
    assert digest_named("sha256", HEX) == f"sha256:{HEX}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        f":{HEX}",
        f"sha256:{HEX[1:]}",
        f"sha256:{HEX}a",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX}\n",
        f"\nsha256:{HEX}",
        f"sha256:{HEX[2:]}/.",
        f"SHA256:{HEX}",
        f"sha256:{'٣' * 64}",
        f"sha512:{HEX}",
        f"sha256:sha256:{HEX}",
        "sha256:../../../../etc/passwd",
        "sha256:baddigeststring",
        f"blake3:{HEX}a",
        f"sha256+:{HEX}",
        "a..b:c",
        "sha256:" + "\0" * 64,
        "\udcff:a",
    ],
)
def test_refused_by_the_grammar(text: str) -> None:
    for check in (parse_digest, check_digest):
        with pytest.raises(DigestInvalid) as caught:
            check(text)
        assert "\n" not in caught.value.message
        assert "\0" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
    ],
)
def test_unregistered_algorithms_are_well_formed_but_unsupported(text: str) -> None:
    check_digest(text)
    with pytest.raises(DigestInvalid, match="unsupported"):
        parse_digest(text)


def test_algorithms() -> None:
    assert ALGORITHMS[:2] == ("sha256", "sha512")
    for algorithm in ALGORITHMS:
        assert parse_digest(digest_of(b"x", algorithm)).algorithm == algorithm
    with pytest.raises(DigestInvalid, match="unsupported"):
        new_hash("md5")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(DigestInvalid) as caught:
        parse_digest("x" * 1_000_000)
    assert len(caught.value.message) < 300


@given(st.binary(), st.integers(0, 50))
def test_incremental_equals_whole(data: bytes, cut: int) -> None:
    state = new_hash("sha256")
    state.update(memoryview(data)[:cut])
    state.update(data[cut:])
    assert f"sha256:{state.hexdigest()}" == digest_of(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"


@given(st.text() | st.from_regex(r"[a-z0-9+._-]{0,9}:[a-zA-Z0-9=_/.-]{0,9}"))
def test_any_text_is_a_digest_or_digest_invalid(text: str) -> None:
    try:
        digest = parse_digest(text)
    except DigestInvalid:
        return
    assert isinstance(digest, Digest)
    assert "/" not in digest


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_empty_content_is_no_stub_by_any_algorithm(algorithm: str) -> None:
    assert not is_stub(digest_of(b"", algorithm), 0)
    assert is_stub(digest_of(b"content", algorithm), 0)
    assert not is_stub(digest_of(b"content", algorithm), 7)
