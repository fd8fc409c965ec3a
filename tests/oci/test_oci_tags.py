"""What the tools write as ref.name, and the tag that it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zotctl.oci.reference import digest_key, digest_tag, is_tag, tag_names

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


HEX, LONG = "0123456789abcdef" * 4, "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("tag", "digest", "suffix"),
    [
        (f"sha256-{HEX}", f"sha256:{HEX}", ""),
        (f"sha256-{HEX}.sig", f"sha256:{HEX}", ".sig"),
        (f"sha256-{HEX}.att", f"sha256:{HEX}", ".att"),
        (f"sha256-{HEX}.7f.meta", f"sha256:{HEX}", ".7f.meta"),
        (f"blake3-{HEX}.sbom", f"blake3:{HEX}", ".sbom"),
        (f"sha512-{LONG[:64]}", f"sha512:{LONG[:64]}", ""),
        (f"sha512-{LONG[:117]}.sig", f"sha512:{LONG[:117]}", ".sig"),
        (f"sha512-{LONG[:64]}.sig", f"sha512:{LONG[:64]}", ".sig"),
    ],
)
def test_a_tag_that_names_a_digest(tag: str, digest: str, suffix: str) -> None:
    assert is_tag(tag)
    named = digest_tag(tag)
    assert named == (digest, suffix)
    full = digest if digest.startswith(("sha256", "blake3")) else f"sha512:{LONG}"
    assert named.names(full) and digest_key(full) == digest_key(named.digest)
    assert not named.names(full[:-1] + "z") or len(named.digest) < len(full)
    assert named.is_attachment is (suffix in (".sig", ".att", ".sbom"))


@pytest.mark.parametrize(
    "tag",
    [
        "latest", "sha256-", f"sha256-{HEX[:63]}", f"sha256-{HEX}0", f"sha256-{HEX}sig", f"sha256-{HEX.upper()}",
        f"sha256-{HEX[:63]}g", f"v1-sha256-{HEX}", f"sha384-{HEX}", f"sha512-{HEX[:63]}.sig", f"sha256_{HEX}.sig",
    ],
)  # fmt: skip
def test_a_tag_that_names_none(tag: str) -> None:
    assert digest_tag(tag) is None
