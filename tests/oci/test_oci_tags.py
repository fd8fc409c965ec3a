"""What the tools write as ref.name, and the tag that it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.oci.reference import is_tag
from zotctl.oci.tags import tag_names

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("ref_name", "containerd_name", "tags"),
    [
        (None, None, (None, None)),
        ("", "", (None, None)),
        ("v1", None, ("v1", None)),
        ("v1", "docker.io/library/a:v2", ("v1", None)),
        (None, "docker.io/library/a:v2", (None, "v2")),
        ("docker.io/library/a:v1", None, (None, "v1")),
        ("docker.io/library/a:v1", "docker.io/library/a:v2", (None, "v2")),
        ("a:v1", "not a name", (None, "v1")),
        ("localhost:5000/a:v1", None, (None, "v1")),
        ("localhost:5000/a", None, (None, None)),
        ("library/alpine", None, (None, None)),
        (f"a@{DIGEST}", None, (None, None)),
        (f"a:v1@{DIGEST}", None, (None, None)),
        (DIGEST, None, (None, None)),
        ("a:", None, (None, None)),
        (":v1", None, (None, None)),
        ("a:v1+build", None, (None, None)),
        ("sha256-" + "0" * 64, None, ("sha256-" + "0" * 64, None)),
    ],
)
def test_golden(ref_name: str | None, containerd_name: str | None, tags: tuple[str | None, str | None]) -> None:
    assert tag_names(ref_name, containerd_name) == tags


@given(st.none() | st.text(), st.none() | st.text())
def test_only_tags_and_at_most_one(ref_name: str | None, containerd_name: str | None) -> None:
    found = [tag for tag in tag_names(ref_name, containerd_name) if tag is not None]
    assert len(found) <= 1
    assert all(map(is_tag, found))
