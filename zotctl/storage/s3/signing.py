"""Requests that are signed now and sent later, by whoever has them: AWS Signature Version 4 in the query.

The time of the signature is an argument, so that a deadline can be one by the server's clock (s3.md 5); botocore
takes this machine's. https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"


class Identity(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None
    region: str


def signed(
    method: str,
    url: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    who: Identity,
    at: float,
    seconds: int,
) -> str:
    """The URL, which is good for `seconds` after `at` (since 1970). `url` has no query; its path is quoted.
    `headers`, in lower case, must be sent as they are."""
    parts = urlsplit(url)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    scope = f"{stamp[:8]}/{who.region}/s3/aws4_request"
    covered = {"host": parts.netloc, **headers}
    names = ";".join(sorted(covered))
    values = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{who.access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": names,
        **({"X-Amz-Security-Token": who.token} if who.token else {}),
    }
    asked = "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(values[name], safe='-_.~')}" for name in values))
    lines = "".join(f"{name}:{covered[name].strip()}\n" for name in sorted(covered))
    canonical = "\n".join([method, parts.path or "/", asked, lines, names, "UNSIGNED-PAYLOAD"])
    text = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    return f"{url}?{asked}&X-Amz-Signature={_signature(who, stamp[:8], text)}"


def _signature(who: Identity, day: str, text: str) -> str:
    key = f"AWS4{who.secret_key}".encode()
    for part in (day, who.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
