"""What a list of objects says (ListObjectsV2), one page of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree


class ListedObject(NamedTuple):
    key: str
    size: int
    etag: str
    modified: float


class ListingPage(NamedTuple):
    """`below`: prefixes that keys have in common, to the delimiter. `token` of the next page, "" at the end."""

    rows: list[ListedObject]
    below: list[str]
    token: str


def read(body: bytes) -> ListingPage:
    """Raises HTTPException: it is no list, or one that can't be continued, which must not pass for the whole."""
    try:
        return _read(ElementTree.fromstring(body))
    except ElementTree.ParseError as error:
        raise HTTPException(f"a list that is no XML: {error}") from error
    except (LookupError, ValueError) as error:
        raise HTTPException(f"a list with an object without name, size or time: {error}") from error


def _read(root: ElementTree.Element) -> ListingPage:
    if plain(root.tag) != "ListBucketResult":
        raise HTTPException(f"{plain(root.tag)} in the place of a list")
    space = root.tag.removesuffix("ListBucketResult")
    name = unquote_plus if root.findtext(f"{space}EncodingType") == "url" else str
    more = root.findtext(f"{space}IsTruncated") == "true"
    token = root.findtext(f"{space}NextContinuationToken", "") if more else ""
    if more and not token:
        raise HTTPException("a list that has more, but doesn't say how to ask for it")
    return ListingPage(
        list(_rows(root, space, name)),
        [name(found.text or "") for found in root.iterfind(f"{space}CommonPrefixes/{space}Prefix")],
        token,
    )


def _rows(root: ElementTree.Element, space: str, name: Callable[[str], str]) -> Iterator[ListedObject]:
    for found in root.iterfind(f"{space}Contents"):
        said = {child.tag: child.text or "" for child in found}
        modified = datetime.fromisoformat(said[f"{space}LastModified"])
        since = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
        yield ListedObject(name(said[f"{space}Key"]), int(said[f"{space}Size"]), said.get(f"{space}ETag", ""), since)


def plain(tag: str) -> str:
    """Without its namespace, which not every server gives."""
    return tag.rpartition("}")[2]
