"""Parses the answers of an object store: objects, lists, errors.

An answer that lacks what it must have counts as half an answer, and raises HTTPException: the request may have been
done. XML is parsed by the standard library, as UTF-8, without a document type and so without entities, and never more
than `LARGEST_XML_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from zotctl.storage.bucket.objects.seam import Object

METADATA = "x-amz-meta-"
LARGEST_XML_BYTES = 16 << 20
"""A page of 1,000 keys of 1,024 bytes each, all of them quoted, takes four mebibytes."""


class ErrorReply(Exception):
    """An error reply of S3. `code` is the status where the reply has no code, as for a HEAD. `region`: where the bucket
    is, if the reply says so. `request_id` is for the operator of the store."""

    def __init__(self, status: int, code: str, message: str = "", request_id: str = "", region: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message
        self.request_id, self.region = request_id, region

    def __str__(self) -> str:
        named = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.code}: {self.message}{named}"


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> ErrorReply:
    """Parse an error reply, of S3 or of a proxy on the way."""
    said: Mapping[str, str] = {}
    words = ""
    if body:
        try:
            said = fields(parse(body))
        except ValueError:
            words = "an answer that is not S3's"
    code = said.get("Code", "") or str(status)
    # Amazon has a header for the region; others say it in their words alone, some of them in those of any error.
    region = headers.get("x-amz-bucket-region") or (
        said.get("Region", "") if code == "AuthorizationHeaderMalformed" else ""
    )
    request_id = headers.get("x-amz-request-id") or said.get("RequestId", "")
    return ErrorReply(status, code, said.get("Message", words), request_id, region)


def result_of(headers: Mapping[str, str], body: bytes, *names: str) -> str:
    """The first of these values in an answer of status 200. Raises ErrorReply for an error in its place: a server may
    begin to answer before it knows the result."""
    try:
        root = parse(body)
    except ValueError as error:
        raise HTTPException(f"a success without {names[0]}: {error}") from error
    if local_name(root.tag) == "Error":
        raise error_of(500, headers, body)
    said = fields(root)
    for name in names:
        if value := said.get(name):
            return value
    raise HTTPException(f"a success without {names[0]}")


# -- XML ------------------------------------------------------------------------------------------


def parse(body: bytes) -> ElementTree.Element:
    """Raises ValueError: it is no XML, or has a document type."""
    text = body.decode("utf-8-sig").strip()  # a server that is not done yet may send blanks first
    if "<!DOCTYPE" in text:
        raise ValueError("a document type")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError) as error:  # the second: of an unknown encoding
        raise ValueError(f"no XML: {error}") from error


def local_name(tag: str) -> str:
    """A tag without its namespace, which not every server gives."""
    return tag.rpartition("}")[2]


def fields(node: ElementTree.Element) -> dict[str, str]:
    """The texts of the children of an element, by name."""
    return {local_name(child.tag): child.text or "" for child in node}


# -- objects --------------------------------------------------------------------------------------


def etag_of(headers: Mapping[str, str]) -> str:
    """The ETag of an object that was written. Raises HTTPException: there is none, though it may have been written."""
    if not (value := headers.get("etag", "")):
        raise HTTPException("an object was written, but the answer has no ETag")
    return value


def object_of(key: str, headers: Mapping[str, str]) -> Object:
    """The object that an answer describes. Raises HTTPException: it lacks size or time."""
    try:
        size, modified = int(headers["content-length"]), parse_time(headers["last-modified"])
    except (KeyError, ValueError) as error:
        raise HTTPException(f"an object without size or time: {error}") from error
    named = {name.lower(): value for name, value in headers.items()}
    metadata = {name.removeprefix(METADATA): named[name] for name in named if name.startswith(METADATA)}
    return Object(key, size, headers.get("etag", ""), modified, date_of(headers) - modified, metadata)


def date_of(headers: Mapping[str, str]) -> float:
    """The server's clock when it answered, in whole seconds since 1970. Raises HTTPException: there is no date."""
    try:
        return parse_time(headers["date"])
    except (KeyError, ValueError) as error:
        raise HTTPException(f"an answer without a date: {error}") from error


def parse_time(text: str) -> float:
    """An ISO time or an HTTP date, in seconds since 1970. Raises ValueError."""
    try:
        told = datetime.fromisoformat(text) if text[4:5] == "-" else parsedate_to_datetime(text)
    except OverflowError as error:
        raise ValueError(f"no time: {error}") from error
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


# -- lists ----------------------------------------------------------------------------------------


class ListedObject(NamedTuple):
    """A row of a list. `modified` in seconds since 1970."""

    key: str
    size: int
    etag: str
    modified: float


class ListingPage(NamedTuple):
    """One page of a list. `below`: the common prefixes of keys, up to the delimiter. `token`: of the next page, "" at
    the end."""

    rows: list[ListedObject]
    below: list[str]
    token: str


def page_of(body: bytes) -> ListingPage:
    """Parse a page of ListObjectsV2. Raises HTTPException: it is no list, or can't be continued and must not pass for
    the whole."""
    try:
        return _page_of(parse(body))
    except (LookupError, ValueError) as error:
        raise HTTPException(f"a list that is none, or has an object without name, size or time: {error}") from error


def _page_of(root: ElementTree.Element) -> ListingPage:
    if local_name(root.tag) != "ListBucketResult":
        raise HTTPException(f"{local_name(root.tag)} in the place of a list")
    space = root.tag.removesuffix("ListBucketResult")
    name = unquote_plus if root.findtext(f"{space}EncodingType") == "url" else str
    more = root.findtext(f"{space}IsTruncated") == "true"
    token = root.findtext(f"{space}NextContinuationToken", "") if more else ""
    if more and not token:
        raise HTTPException("a list that has more, but doesn't say how to ask for it")
    below = [name(prefix.text or "") for prefix in root.iterfind(f"{space}CommonPrefixes/{space}Prefix")]
    return ListingPage(list(_rows(root, space, name)), below, token)


def _rows(root: ElementTree.Element, space: str, name: Callable[[str], str]) -> Iterator[ListedObject]:
    for row in root.iterfind(f"{space}Contents"):
        said = {child.tag: child.text or "" for child in row}
        modified = parse_time(said[f"{space}LastModified"])
        yield ListedObject(name(said[f"{space}Key"]), int(said[f"{space}Size"]), said.get(f"{space}ETag", ""), modified)


# -- deletes --------------------------------------------------------------------------------------


class Undeleted(NamedTuple):
    """A key that was not deleted, or perhaps not; "" stands for all keys."""

    key: str
    code: str
    message: str


def undeleted(status: int, body: bytes) -> list[Undeleted]:
    """The keys that were not deleted, by the answer to a DeleteObject or DeleteObjects. An absent key counts as
    deleted."""
    if status == 204 or (status == 200 and not body):
        return []
    try:
        root = parse(body)
    except ValueError:
        return [Undeleted("", "", "an answer that is not S3's")]
    if local_name(root.tag) == "Error":
        return [_undeleted(root)]
    if status != 200 or local_name(root.tag) != "DeleteResult":
        return [Undeleted("", "", "an answer that is not S3's")]
    rows = [_undeleted(child) for child in root if local_name(child.tag) == "Error"]
    return [row for row in rows if row.code not in ("NoSuchKey", "NoSuchVersion")]


def _undeleted(node: ElementTree.Element) -> Undeleted:
    said = fields(node)
    return Undeleted(said.get("Key", ""), said.get("Code", ""), said.get("Message", ""))
