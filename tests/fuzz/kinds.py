"""What is fuzzed: the inputs that are valid, and who reads them.

A reader raises nothing but the errors that its docstring names; `Kind.try_one` lets any other one pass, which is a bug.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.fuzz.mutating import mutated
from tests.http.wire import understood
from tests.stores import store_over
from zotctl.auth.passwords import PasswordFile
from zotctl.auth.proxies import TrustedProxies
from zotctl.config import load_config
from zotctl.errors import ConfigError, DigestInvalid, LayoutInvalid, ManifestInvalid, OciError, Unauthorized
from zotctl.http.conditions import names_etag, parse_content_range, parse_ranges
from zotctl.jobs.imports.archives import ArchiveListing, read_archive
from zotctl.jobs.run import Run
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.readings import may_reference
from zotctl.storage.bucket.objects.replies import ErrorReply, error_of, page_of, result_of, undeleted
from zotctl.storage.index import parse_index


class Kind(NamedTuple):
    """`read` gets the fuzzed bytes. `share`: of a whole run, in parts of a thousand."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    share: int

    def try_one(self, number: int, seed: int) -> None:
        """The input of this number; the same again for the same seed."""
        self.read(mutated(Random(f"{seed}/{self.name}/{number}"), self.seeds))


IMAGE = images.image("fuzz", subject=images.image("subject").digest)
INDEX = images.index([(IMAGE.digest, len(IMAGE.manifest))])
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"
REQUESTS = (
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n" * 2,
    b"PUT /v2/a/blobs/uploads/x?digest=y HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    CHUNKED + b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)
RANGES = (b"bytes=0-1", b"bytes=0-1, 5-, -3", b"bytes=5-9,0-3,2-4", b"0-5", b"bytes 0-5/9", b'"sha256:aa", W/"b"', b"*")
ROWS = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [images.row(IMAGE, "v1"), {"mediaType": OCI_INDEX, "digest": "sha256:" + "a" * 64, "size": 7}],
        "annotations": {"a": "b"},
    }
).encode()
OWN = b"""
[storage]
roots = ["/a", { path = "s3://bucket/prefix", s3 = { endpoint = "http://x:1" } }]
gc_delay = "1h30m"
[http]
port = 5000
trusted_proxies = ["10.0.0.0/8"]
auth = { htpasswd = "/u", fail_delay = "1s" }
[[http.access_control.repositories]]
pattern = "team/**"
policies = [{ users = ["ann"], actions = ["read"] }]
"""
ZOT = json.dumps(
    {
        "storage": {"rootDirectory": "/z", "gcDelay": "1h", "subPaths": {"/a": {"rootDirectory": "/b"}},
                    "retention": {"policies": [{"repositories": ["**"], "keepTags": [{"patterns": ["v.*"]}]}]}},
        "http": {"port": "5000", "auth": {"htpasswd": {"path": "/u"}, "failDelay": 5},
                 "accessControl": {"repositories": {"**": {"policies": [{"users": ["a"], "actions": ["read"]}]}},
                                   "groups": {"g": {"users": ["a"]}}, "adminPolicy": {"users": ["r"], "actions": []}}},
        "extensions": {"metrics": {"enable": True}},
    }
).encode()  # fmt: skip
USERS = b"ann:$2b$05$" + b"a" * 53 + b"\n# comment\nbob:$2y$10$" + b"b" * 53 + b"\n"
LIST = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true'
    b"</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>a</Key><Size>1</Size>"
    b"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag></Contents></ListBucketResult>"
)
ERROR = b"<Error><Code>SlowDown</Code><Message>m</Message><RequestId>r</RequestId></Error>"
DELETED = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>m</Message></Error></DeleteResult>"


def _archive() -> bytes:
    with tempfile.TemporaryDirectory() as home:
        layout = images.lay_out(Path(home, "layout"), IMAGE, [images.row(IMAGE, "v1")])
        return _tarred(layout)


def _tarred(layout: Path) -> bytes:
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, str(path.relative_to(layout)), recursive=False)
    return raw.getvalue()


def _ranges(data: bytes) -> None:
    text = data.decode("latin-1")
    with suppress(OciError):
        parse_ranges(text, 10)
    with suppress(OciError):
        parse_content_range(text)
    names_etag(text, '"sha256:aa"')


def _manifest(data: bytes) -> None:
    for media_type in (OCI_MANIFEST, OCI_INDEX, ""):
        with suppress(ManifestInvalid, DigestInvalid):
            check_manifest(data, media_type)
    may_reference(data)


def _index(data: bytes) -> None:
    with suppress(LayoutInvalid):
        index = parse_index(data)
        assert parse_index(index.render()).tags() == index.tags()


def _xml(data: bytes) -> None:
    error_of(500, {}, data)
    undeleted(200, data)
    with suppress(HTTPException):
        page_of(data)
    with suppress(HTTPException, ErrorReply):
        result_of({}, data, "UploadId")


def _proxies(data: bytes) -> None:
    text = data.decode("latin-1")
    TrustedProxies([ip_network("10.0.0.0/8")]).client("10.0.0.1", text, text[::-1])


@contextmanager
def kinds() -> Iterator[list[Kind]]:
    """All of them, with the files that they need for as long as this lasts."""
    run = Run("verify", store_over(MemoryDriver()))
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, "file")

        def config(data: bytes) -> None:
            file.write_bytes(data)
            with suppress(ConfigError):
                load_config(str(file), options={}, environ={})

        def users(data: bytes) -> None:
            file.write_bytes(data)
            with suppress(ConfigError):
                PasswordFile(str(file)).close()

        def archive(data: bytes) -> None:
            with suppress(LayoutInvalid):
                read_archive(run, io.BytesIO(data), "fuzzed", ArchiveListing())

        found = [
            Kind("head", REQUESTS, understood, 150),
            Kind("ranges", RANGES, _ranges, 200),
            Kind("manifests", (IMAGE.manifest, INDEX), _manifest, 200),
            Kind("index", (ROWS,), _index, 150),
            Kind("config", (OWN, ZOT), config, 30),
            Kind("htpasswd", (USERS,), users, 60),
            Kind(
                "proxies",
                (b'for=10.0.0.2, for="[2001:db8::1]:80";proto=https', b"10.0.0.3, 192.0.2.1:80"),
                _proxies,
                80,
            ),
            Kind("xml", (LIST, ERROR, DELETED), _xml, 80),
            Kind("archives", (_archive(), LAYOUT_BYTES), archive, 20),
        ]
        yield [*found, *_tokens(Path(home))]


def _tokens(home: Path) -> list[Kind]:
    """None without the library that reads them."""
    try:
        from joserfc import jwk, jwt
    except ImportError:
        return []
    from zotctl.auth.tokens import TokenVerifier
    from zotctl.config import BearerConfig

    key = jwk.ECKey.generate_key("P-256", private=True)
    (home / "key.pem").write_bytes(key.as_pem(private=False))
    verifier = TokenVerifier(BearerConfig("https://a.example", "registry", cert=str(home / "key.pem")))
    access = [{"type": "repository", "name": "a", "actions": ["pull"]}]
    good = jwt.encode({"alg": "ES256"}, {"aud": "registry", "sub": "a", "access": access}, key).encode()
    none = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"none"}', b"{}", b""))

    def read(data: bytes) -> None:
        with suppress(Unauthorized):
            token = verifier.verify(data.decode("latin-1"))
            assert token.allows("read", "a"), "only the token as it was signed is valid"

    return [Kind("tokens", (good, none), read, 30)]
