"""AWS Signature Version 4: in a header for a request that is sent at once, in the query for one that is sent later.

The time of a signature is an argument, so that it can expire by the server's clock (docs/design/bucket.md#c6); botocore
takes this machine's clock, and twenty times as long.
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
"""Bytes are not hashed for a signature: those that matter have a digest of their own."""


class Credentials(NamedTuple):
    """Who signs. `token`: of credentials that expire."""

    access_key: str
    secret_key: str
    token: str | None = None


class _Scope(NamedTuple):
    stamp: str
    text: str


def signed_headers(
    method: str, host: str, path: str, query: str, headers: Mapping[str, str], who: Credentials, region: str, at: float
) -> dict[str, str]:
    """These headers, in lower case, and those that make a request of them that is good for minutes around `at`
    (seconds since 1970). `path` is quoted, `query` by `query_of`."""
    scope = _scope(region, at)
    sent = {**headers, "host": host, "x-amz-content-sha256": UNSIGNED, "x-amz-date": scope.stamp}
    if who.token:
        sent["x-amz-security-token"] = who.token
    names, signature = _sign(method, path, query, sent, who, scope)
    credential = f"Credential={who.access_key}/{scope.text}"
    sent["authorization"] = f"{ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"
    return sent


def presigned_url(
    method: str,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    who: Credentials,
    region: str,
    at: float,
    seconds: int,
) -> str:
    """The URL, which is good for `seconds` after `at` (since 1970). `url` has no query; its path is quoted.
    `headers`, in lower case, must be sent as they are."""
    parts, scope = urlsplit(url), _scope(region, at)
    covered = {"host": parts.netloc, **headers}
    values = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{who.access_key}/{scope.text}",
        "X-Amz-Date": scope.stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": ";".join(sorted(covered)),
        **({"X-Amz-Security-Token": who.token} if who.token else {}),
    }
    asked = query_of(values)
    return f"{url}?{asked}&X-Amz-Signature={_sign(method, parts.path or '/', asked, covered, who, scope)[1]}"


def query_of(values: Mapping[str, str]) -> str:
    """The query string, as it is signed and sent."""
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(values[name], safe='-_.~')}" for name in values))


def _scope(region: str, at: float) -> _Scope:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    return _Scope(stamp, f"{stamp[:8]}/{region}/s3/aws4_request")


def _sign(
    method: str, path: str, query: str, headers: Mapping[str, str], who: Credentials, scope: _Scope
) -> tuple[str, str]:
    """The names of the headers that are covered, and the signature."""
    ordered = sorted(headers)
    names, lines = ";".join(ordered), "".join(f"{name}:{headers[name].strip()}\n" for name in ordered)
    canonical = "\n".join([method, path, query, lines, names, UNSIGNED])
    text = "\n".join([ALGORITHM, scope.stamp, scope.text, hashlib.sha256(canonical.encode()).hexdigest()])
    return names, hmac.digest(_key(who.secret_key, scope.text), text.encode(), "sha256").hex()


@lru_cache(16)
def _key(secret: str, scope: str) -> bytes:
    """The signing key, which is the same all day."""
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
