"""What an index.json breaks although it can be parsed, and the sentences that say what a storage is fit for."""

from __future__ import annotations

import json

import pytest

from tests import images
from zotctl.jobs.bucket.jobs import meaning_of
from zotctl.jobs.check.rules import index_findings
from zotctl.jobs.local.probe import result
from zotctl.jobs.report import local_time, time_of
from zotctl.storage.bucket.probe import Abilities
from zotctl.storage.index import parse_index

IMAGE, OTHER = images.image("x"), images.image("y")
TWO_DIGESTS = {"mediaType": "a/b", "digest": "x", "Digest": "y", "size": 1}
ABLE = Abilities(True, True, True, True, True, "sha256", False, True)
FOUND = {"rename": True, "locks": True, "filesystem": "ext4", "links": True, "flush": True}


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"annotations": {"a": 1}}, "invalid_index", "annotations"),
        ({"mediaType": "text/plain"}, "invalid_index", "mediaType is 'text/plain'"),
        (
            {"manifests": [TWO_DIGESTS]},
            "invalid_index",
            "manifests[0] has",
        ),
        ({"manifests": [images.row(IMAGE, "a..b")]}, "bad_ref_name", "against the grammar of names"),
        (
            {"manifests": [images.row(IMAGE, "x/y:v1"), images.row(OTHER, "z/y:v1")]},
            "bad_ref_name",
            "would be the tag v1, and so would that of another row",
        ),
    ],
)
def test_what_an_index_breaks(fields: dict[str, object], kind: str, reason: str) -> None:
    index = parse_index(json.dumps({"schemaVersion": 2, "manifests": [], **fields}).encode())
    found = [(one.kind, one.reason) for one in index_findings("a", index, lambda _: ())]
    assert any(one == kind and reason in said for one, said in found), found


@pytest.mark.parametrize(
    ("able", "words"),
    [
        (ABLE, "good for any number"),
        (ABLE._replace(keeps_halves=True), "not fit: it keeps half"),
        (ABLE._replace(reads_shown=False), "not fit: it answers reads"),
        (ABLE._replace(swaps=False), "one process only"),
        (ABLE._replace(signed_deletes=False), "all servers stopped"),
        (ABLE._replace(checksum=""), "found by scrub only"),
    ],
)
def test_what_a_bucket_is_fit_for(able: Abilities, words: str) -> None:
    assert words in meaning_of(able)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, "good for any number of servers"),
        ({"rename": "no"}, "not fit"),
        ({"locks": False}, "one process only"),
        ({"filesystem": "fuse.sshfs"}, "never share a FUSE mount"),
        ({"links": False}, "no deduplication"),
        ({"flush": "it can't"}, "no protection from power cuts"),
    ],
)
def test_what_a_directory_is_fit_for(found: dict[str, object], words: str) -> None:
    assert words in result(FOUND | found)


def test_a_time_beyond_all_calendars_is_never() -> None:
    assert (time_of(1e300), local_time(1e300), time_of(0)) == ("never", "never", "1970-01-01T00:00:00Z")
