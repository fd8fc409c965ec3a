"""The last line of `gc --restore`."""

from __future__ import annotations

import pytest

from zotctl.cli.collection import CollectionText
from zotctl.jobs.report import Report


@pytest.mark.parametrize(
    ("tags", "blobs", "said"),
    [(1, 0, "1 tag restored."), (2, 1, "2 tags and 1 blob restored."), (0, 3, "3 blobs restored.")],
)
def test_what_is_restored_is_counted_by_what_it_is(tags: int, blobs: int, said: str) -> None:
    text = CollectionText(True)
    for number in range(tags + blobs):
        what = {"tag": f"v{number}"} if number < tags else {"size_bytes": 1}
        text.item({"action": "restore", "repository": "a", "digest": "sha256:0"} | what)
    assert text.sentence(Report("gc", "0")) == said
