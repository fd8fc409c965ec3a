"""What the answer of an object store says of an object; one that says nothing is half an answer."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from zotctl.storage.bucket.objects.seam import Object

METADATA = "x-amz-meta-"


def etag(headers: Mapping[str, str]) -> str:
    """Raises HTTPException: it may have been done."""
    if not (value := headers.get("etag", "")):
        raise HTTPException("an object was written, but the answer has no ETag")
    return value


def told(reply: Mapping[str, Any], *path: str) -> str:
    """What botocore has read in an answer. Raises HTTPException: it isn't there, and it may have been done."""
    value: Any = reply
    for name in path:
        value = value.get(name)
        if not value:
            raise HTTPException(f"a success without {name}")
    return str(value)


def found(key: str, headers: Mapping[str, str]) -> Object:
    """What an answer says of its object. Raises HTTPException: it says nothing."""
    try:
        size, modified = int(headers["content-length"]), _seconds(headers["last-modified"])
    except (KeyError, ValueError) as error:
        raise HTTPException(f"an object without size or time: {error}") from error
    named = {name.lower(): value for name, value in headers.items()}
    metadata = {name.removeprefix(METADATA): named[name] for name in named if name.startswith(METADATA)}
    return Object(key, size, headers.get("etag", ""), modified, dated(headers) - modified, metadata)


def dated(headers: Mapping[str, str]) -> float:
    """The server's clock when it answered; to the whole second. Raises HTTPException: it doesn't tell."""
    try:
        return _seconds(headers["date"])
    except (KeyError, ValueError) as error:
        raise HTTPException(f"an answer without a date: {error}") from error


def _seconds(text: str) -> float:
    from zotctl.storage.bucket.objects.connection import moment

    return moment(text).timestamp()
