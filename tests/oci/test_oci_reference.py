"""Names, tags and references."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.errors import DigestInvalid, NameInvalid, TagInvalid
from zotctl.oci.digest import Digest
from zotctl.oci.reference import is_tag, parse_name, parse_reference, parse_tag

# As in distribution-spec, section "Pulling manifests".
NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "alpine",
        "library/alpine",
        "a.b/c_d/e__f/g---h",
        "0/1/2",
        "x" * 255,
        "blobs",
        "blobs/a",
        "index.json/a",
        "oci-layout",
        "a/myblobs",
        "a/blobs2",
        "a/blobs-x/index.json.d",
    ],
)
def test_names(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "A",
        "a b",
        "a.",
        ".a",
        "a..b",
        "a___b",
        "a._b",
        "-a",
        "a-",
        "a\n",
        "a\0",
        "é",
        "..",
        "a/../b",
        ".zotctl",
        "a/.trash",
        "a%2fb",
        "x" * 256,
        "a:b",
        "a@b",
        "\udcff",
    ],
)
def test_names_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        parse_name(name)


@pytest.mark.parametrize("reserved", ["blobs", "index.json", "oci-layout"])
def test_names_inside_the_layout_of_a_parent(reserved: str) -> None:
    for name in (f"a/{reserved}", f"a/{reserved}/b", f"{reserved}/{reserved}", f"a/b/{reserved}/sha256"):
        with pytest.raises(NameInvalid, match="inside the layout"):
            parse_name(name)


@given(st.from_regex(r"[a-z0-9._/-]{1,20}", fullmatch=True))
def test_names_as_in_the_specification(text: str) -> None:
    try:
        accepted = bool(parse_name(text))
    except NameInvalid as error:
        accepted = "inside the layout" in error.message
    assert accepted == bool(NAME.fullmatch(text))


@pytest.mark.parametrize("text", ["a" * 254 + "!", "a-" * 127, "a_" * 127, "a/" * 127, "-" * 255])
def test_no_name_takes_long_to_refuse(text: str) -> None:
    """Of this thread's own time: the machine may be busy."""
    start = time.thread_time()
    with pytest.raises(NameInvalid):
        parse_name(text)
    assert time.thread_time() - start < 0.5


@pytest.mark.parametrize("tag", ["latest", "v1.2.3", "_", "A-b_c.D", "0", "x" * 128])
def test_tags(tag: str) -> None:
    assert is_tag(tag)
    assert parse_tag(tag) == tag
    assert parse_reference(tag) == tag


@pytest.mark.parametrize("text", ["", ".", "..", "-a", ".a", "a b", "a/b", "a+b", "a\n", "x" * 129, "é", "a@b", "\0"])
def test_tags_refused(text: str) -> None:
    assert not is_tag(text)
    with pytest.raises(TagInvalid):
        parse_tag(text)


@given(st.text(max_size=140) | st.from_regex(TAG))
def test_tags_as_in_the_specification(text: str) -> None:
    assert is_tag(text) == bool(TAG.fullmatch(text))


def test_a_colon_means_digest() -> None:
    digest = f"sha256:{'0' * 64}"
    assert isinstance(parse_reference(digest), Digest)
    for text in ("a:b", ":", "sha256:baddigeststring"):
        with pytest.raises(DigestInvalid):
            parse_reference(text)
