"""What is fuzzed: the inputs that are valid, and who reads them.

A reader raises nothing but the errors that its docstring names, and each of them has an answer; `Kind.try_one` lets any
other one pass, which is a bug.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import NamedTuple

import bcrypt

from tests import images
from tests.clocks import Hand
from tests.doubles.filesystem import MemoryDriver
from tests.fuzz.mutating import mutated
from tests.http.wire import understood
from tests.jobs.docker_archives import saved
from tests.jobs.importing import header, members_of, tar_bytes
from tests.stores import closed, push_blob, push_image, root_over, store_over
from zotctl.auth.logins import Logins, PasswordCheck
from zotctl.auth.passwords import PasswordFile
from zotctl.auth.policy import AccessRules
from zotctl.auth.proxies import TrustedProxies
from zotctl.auth.users import User
from zotctl.config import AuthConfig, HttpConfig, load_config, show_config
from zotctl.errors import (
    ConfigError,
    DigestInvalid,
    LayoutInvalid,
    ManifestInvalid,
    MediaTypeUnknown,
    PreconditionFailed,
    RangeInvalid,
    RangeUnsatisfiable,
    TooManyRanges,
    Unauthorized,
    ZotctlError,
)
from zotctl.http.conditions import condition_of_push, names_etag, parse_content_range, parse_ranges
from zotctl.http.errors import render
from zotctl.jobs.imports.archives import ArchiveListing, read_archive
from zotctl.jobs.run import Run
from zotctl.oci.digest import parse_digest
from zotctl.oci.layout import LAYOUT_BYTES
from zotctl.oci.manifest import check_manifest, read_manifest
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST
from zotctl.oci.readings import irregular_descriptor, may_reference
from zotctl.storage import Store, keys
from zotctl.storage.bucket.objects.replies import ErrorReply, error_of, object_of, page_of, result_of, undeleted
from zotctl.storage.facts import facts_of
from zotctl.storage.index import parse_index
from zotctl.storage.rows import annotations_of, why_nameless
from zotctl.web.health import health
from zotctl.web.images import image_page
from zotctl.web.render import render as write_page
from zotctl.web.repositories import repository_lines
from zotctl.web.tags import tag_page


class Kind(NamedTuple):
    """`read` gets the fuzzed bytes. `share`: of a whole run, in parts of a thousand."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    share: int

    def try_one(self, number: int, seed: int) -> None:
        """The input of this number; the same again for the same seed."""
        with closed():
            self.read(mutated(Random(f"{seed}/{self.name}/{number}"), self.seeds))


SUBJECT = images.image("subject").digest
IMAGE = images.image("fuzz", subject=SUBJECT)
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
HELD = parse_index(ROWS)
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
S3 = json.dumps(
    {
        "storage": {"rootDirectory": "/z", "dedupe": False,
                    "storageDriver": {"name": "s3", "region": "us-east-2", "bucket": "zot", "rootdirectory": "/p",
                                      "regionendpoint": "x:1", "secure": "true", "forcepathstyle": True,
                                      "encrypt": False, "keyid": "", "accelerate": False, "storageclass": "STANDARD",
                                      "objectacl": "private", "v4auth": True, "skipverify": False}},
        "http": {"port": 5000, "realm": "zot", "tls": {"cert": "c", "key": "k", "cacert": "a"},
                 "auth": {"mtls": {"identityAttributes": ["CommonName", "URI"], "uriSanPattern": "spiffe://(.*)"}}},
        "log": {"level": "debug"},
    }
).encode()  # fmt: skip
YAML = b"""
storage: &s
  rootDirectory: /z
  gcDelay: 1h
  commit: yes
  subPaths: {/a: {<<: *t, rootDirectory: "/b"}}
http: &t
  port: 0777
  auth: {htpasswd: {path: ~}, failDelay: 5}
log: {level: >-
  warn}
"""
LOGINS = (b"Basic YW5uOnNlY3JldA==", b"ann:secret", b"basic Og==", b"Bearer x")
FORWARDED = (
    b'for=10.0.0.2, for="[2001:db8::1]:80";proto=https',
    b"10.0.0.3, 192.0.2.1:80",
    b"::ffff:10.0.0.1, 10.0.0.9",
)
DATES = (b"Wed, 25 Nov 2026 01:00:00 GMT", b"2026-01-01T00:00:00.000Z", b"25 Nov 2026 01:00:00 +0100", b"1970-01-01")
USERS = b"ann:$2b$05$" + b"a" * 53 + b"\n# comment\nbob:$2y$10$" + b"b" * 53 + b"\n"
LIST = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true'
    b"</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>a</Key><Size>1</Size>"
    b"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag></Contents></ListBucketResult>"
)
ERROR = b"<Error><Code>SlowDown</Code><Message>m</Message><RequestId>r</RequestId></Error>"
DELETED = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>m</Message></Error></DeleteResult>"


def _archive(dialect: int) -> bytes:
    with tempfile.TemporaryDirectory() as home:
        layout = images.lay_out(Path(home, "layout"), IMAGE, [images.row(IMAGE, "v1")])
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=dialect) as tar:
            for path in sorted(layout.rglob("*")):
                tar.add(path, f"{'long' * 30}/{path.relative_to(layout)}", recursive=False)
        return raw.getvalue()


def _saved() -> Iterator[bytes]:
    """Archives of images in each shape, and a tree of layouts with links."""
    for shape in ("docker", "docker-links", "podman", "crane", "rules_oci"):
        yield tar_bytes(saved(shape, (IMAGE, ["a:1"])), tarfile.GNU_FORMAT)
    links = [header("c", tarfile.SYMTYPE, linkname="a"), header("d/blobs", tarfile.SYMTYPE, linkname="../a/blobs")]
    rows = [member for member in members_of(IMAGE, prefix="d/") if "blobs" not in member[0]]
    yield tar_bytes([*members_of(IMAGE, prefix="a/"), *rows, *links])


@contextmanager
def _documented(*errors: type[Exception]) -> Iterator[None]:
    """Let these pass, if the server can tell them."""
    try:
        yield
    except errors as error:
        if isinstance(error, ZotctlError):
            render(error)


def _ranges(data: bytes) -> None:
    text = data.decode("latin-1")
    for size in (0, 10, 2**40):
        with _documented(RangeUnsatisfiable, TooManyRanges):
            parts = parse_ranges(text, size) or []
            assert sum(count for _, count in parts) <= size and all(0 <= at <= at + n <= size for at, n in parts)
    with _documented(RangeInvalid):
        parse_content_range(text)
    names_etag(text, '"sha256:aa"')
    for name in ("if-match", "if-none-match"):
        with _documented(PreconditionFailed):
            check = condition_of_push({name: text}, "v1")
            assert check is not None
            check(HELD)


def _manifest(data: bytes) -> None:
    for media_type in (OCI_MANIFEST, OCI_INDEX, ""):
        with _documented(ManifestInvalid, DigestInvalid):
            check_manifest(data, media_type)
    with _documented(ManifestInvalid, MediaTypeUnknown):
        facts_of(read_manifest(data, IMAGE.digest))
    may_reference(data)
    irregular_descriptor(data)


def _index(data: bytes) -> None:
    with _documented(LayoutInvalid):
        index = parse_index(data)
        assert parse_index(index.render()).tags() == index.tags()
        draft = index.copy()
        for row in index.rows():
            if row.digest is None:
                why_nameless(row)
            else:
                annotations_of(row)
            draft.put_row(row.raw, "again")
            draft.put_row(row.raw, None)
        for tag in index.tags():
            draft.put(IMAGE.digest, 7, OCI_MANIFEST, [tag], lambda claim: claim != OCI_MANIFEST)
            draft.untag(tag)
        draft.adopt_fields(index)
        draft.merge(index, index)
        assert not set(index.tags()) & set(parse_index(draft.render(), index).tags()) - {"again"}
        draft.annotate("a", "b")
        assert draft.annotation("a") == "b"


def _served(data: bytes) -> None:
    """What is asked of a repository of which another program wrote the index.json, and what is pushed to it."""
    driver = MemoryDriver()
    digest = push_image(store_over(driver), "a", "v1", seed="fuzz", subject=SUBJECT)
    driver.unlink(keys.index("a"))
    with driver.create(keys.index("a")) as writer:
        writer.write([data])
    with _documented(ZotctlError):
        repository = store_over(driver, clock=Hand()).repository("a")
        calls: tuple[Callable[[], object], ...] = (
            repository.tags,
            lambda: [repository.manifest(tag) for tag in repository.tags()],
            lambda: repository.manifest(digest),
            lambda: repository.referrers(SUBJECT),
            repository.usage,
            lambda: repository.put_manifest(check_manifest(IMAGE.manifest, OCI_MANIFEST), IMAGE.manifest, ["v1", "v2"]),
            lambda: repository.delete_manifest("v1"),
            lambda: repository.delete_manifest(digest),
        )
        for call in calls:
            with _documented(ZotctlError):
                call()


CONFIG = json.dumps(
    {"os": "linux", "architecture": "arm64", "variant": "v8", "created": "2026-11-29T01:00:00.5Z", "author": "a",
     "config": {"User": "u", "Env": ["A=b"], "Cmd": ["/x"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}},
     "history": [{"created_by": "RUN x"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "COPY"}]}
).encode()  # fmt: skip
STATE = (
    b'{"format":1,"inodes":0,"began":1795967547,"last":1795960000,"total":9,"done":5,"repositories":{"a":1795967547}}\n'
)
FOUND = b'{"[\\"a\\",\\"sha256:%s\\",\\"missing_blob\\",\\"\\"]":"2026-11-29T01:00:00Z"}' % (b"a" * 64)
RAN = json.dumps(
    {"format": 1, "job": "gc", "ended": 1795967547.5, "duration_s": 0.1, "exit_code": 5, "roots": ["r"],
     "summary": {"unreachable": 3, "unreachable_bytes": 70, "purged": 1, "purged_bytes": 9, "dropped": 2},
     "findings": [{"repository": "a", "reason": "r"}], "errors": [{"repository": "", "reason": "`x`"}]}
).encode()  # fmt: skip


def _shown(data: bytes) -> None:
    """A page of what other programs wrote: an index.json, a manifest, a config; and of notes of ours that a disk has
    changed."""
    driver = MemoryDriver()
    root = root_over(driver, Hand())
    store = Store([root], Hand())
    repository = store.repository_for_push("a")
    config, image = push_blob(repository, data), json.loads(IMAGE.manifest)
    image["config"] = {"mediaType": images.CONFIG, "digest": str(config), "size": len(data)}
    body = json.dumps(image).encode()
    rows = []
    for tag, one in (("x", body), ("y", data)):
        push_blob(repository, one)
        row = images.descriptor(one, OCI_MANIFEST)
        rows.append(row | {"annotations": {"org.opencontainers.image.ref.name": tag}})
    for key in (keys.SCRUB_STATE, keys.SCRUB_FINDINGS, keys.last_run("gc")):
        root.maintenance.write(key, [data])
    common = {"site": "", "user": "", "offers_login": False, "shows_health": True}
    for index in (json.dumps({"schemaVersion": 2, "manifests": rows}).encode(), data):
        root.maintenance.write(keys.index("a"), [index])
        store = Store([root_over(driver, Hand())], Hand())
        with _documented(ZotctlError):
            lines = repository_lines(store, ["a"])
            write_page("repositories.html", {**common, "lines": lines, "after": None, "last": None, "wanted": ""})
            found = tag_page(store.repository("a"), None, "")
            pull = {"name": "a", "host": "h", "plain": True, "loopback": False}
            write_page("tags.html", {**common, **pull, "page": found, "wanted": ""})
            for line in found.lines:
                with _documented(ZotctlError):
                    image = image_page(store.repository("a"), line.tag)
                    write_page("image.html", {**common, **pull, "image": image})
        write_page("health.html", {**common, "roots": health(store)})


def _xml(data: bytes) -> None:
    str(error_of(500, {}, data))
    undeleted(200, data)
    with suppress(HTTPException):
        page_of(data)
    with suppress(HTTPException, ErrorReply):
        result_of({}, data, "UploadId")


def _times(data: bytes) -> None:
    text, good = data.decode("latin-1"), DATES[0].decode()
    for told in ({"date": text}, {"content-length": text, "last-modified": text}):
        with suppress(HTTPException):
            object_of("a", {"content-length": "1", "last-modified": good, "date": good, **told})


def _mended(data: bytes) -> bytes:
    """A tar whose headers have the right checksums, so that what is in them is looked at."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(_summed(block) if block[257:262] == b"ustar" and len(block) == 512 else block for block in blocks)


def _summed(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def _proxies(data: bytes) -> None:
    text = data.decode("latin-1")
    proxies = TrustedProxies([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])
    for peer, forwarded, forwarded_for in (("10.0.0.1", text, text[::-1]), ("10.0.0.1", "", text), (text, text, "")):
        proxies.client(peer, forwarded, forwarded_for)


@contextmanager
def kinds() -> Iterator[list[Kind]]:
    """All of them, with the files that they need for as long as this lasts."""
    run = Run("verify", store_over(MemoryDriver()))
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, "file")

        def config(data: bytes, to: Path = file) -> None:
            to.write_bytes(data)
            with _documented(ConfigError):
                found = load_config(str(to), options={}, environ={})
                show_config(found)
                rules = AccessRules(found.http.access_control, login_possible=True)
                rules.allows(rules.user("ann"), "read", "team/app")

        def users(data: bytes) -> None:
            file.write_bytes(data)
            with _documented(ConfigError):
                PasswordFile(str(file)).close()

        def archive(data: bytes) -> None:
            for body in (data, _mended(data), gzip.compress(_mended(data), 1)[: len(data)]):
                with _documented(LayoutInvalid):
                    for layout in read_archive(run, io.BytesIO(body), "fuzzed", ArchiveListing()).layouts.values():
                        for digest in (*layout.blobs.present, *map(parse_digest, layout.blobs.absent)):
                            layout.size(digest)
                            str(layout.absence(digest))

        good = Path(home, "users")
        good.write_bytes(b"ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)))
        logins = Logins(HttpConfig(auth=AuthConfig(htpasswd=str(good))))

        def login(data: bytes) -> None:
            for header in (data.decode("latin-1"), "Basic " + base64.b64encode(data).decode()):
                with _documented(Unauthorized):
                    found = logins.identify(header, None, "")
                    if isinstance(found, PasswordCheck) and found.begin(None).result():
                        assert found.user == "ann"

        tars = (_archive(tarfile.PAX_FORMAT), _archive(tarfile.GNU_FORMAT), *_saved(), LAYOUT_BYTES)
        found = [
            Kind("head", REQUESTS, understood, 150),
            Kind("ranges", RANGES, _ranges, 170),
            Kind("manifests", (IMAGE.manifest, INDEX), _manifest, 170),
            Kind("index", (ROWS,), _index, 100),
            Kind("served", (ROWS,), _served, 20),
            Kind("shown", (ROWS, IMAGE.manifest, INDEX, CONFIG, STATE, FOUND, RAN), _shown, 20),
            Kind("config", (OWN, ZOT, S3), config, 40),
            Kind("yaml", (YAML, ZOT), lambda data: config(data, Path(home, "file.yaml")), 10),
            Kind("htpasswd", (USERS,), users, 50),
            Kind("logins", LOGINS, login, 20),
            Kind("proxies", FORWARDED, _proxies, 80),
            Kind("xml", (LIST, ERROR, DELETED), _xml, 80),
            Kind("times", DATES, _times, 60),
            Kind("archives", tars, archive, 20),
        ]
        try:
            yield [*found, *_tokens(Path(home))]
        finally:
            logins.close()


def _tokens(home: Path) -> list[Kind]:
    """None without the library that reads them."""
    try:
        from joserfc import jwk, jws, jwt
    except ImportError:
        return []
    from zotctl.auth.tokens import TokenVerifier
    from zotctl.config import BearerConfig

    key = jwk.ECKey.generate_key("P-256", private=True)
    (home / "key.pem").write_bytes(key.as_pem(private=False))
    verifier = TokenVerifier(BearerConfig("https://a.example", "registry", cert=str(home / "key.pem")))
    access = [{"type": "repository", "name": "a", "actions": ["pull"]}]
    good = jwt.encode({"alg": "ES256"}, {"aud": "registry", "sub": "a", "access": access}, key).encode()
    claims = json.dumps({"aud": ["registry"], "sub": "a", "exp": 2**33, "nbf": 1, "access": access}).encode()
    none = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"none"}', b"{}", b""))

    def read(data: bytes) -> None:
        with _documented(Unauthorized):
            token = verifier.verify(data.decode("latin-1"))
            assert token.allows("read", "a"), "only the token as it was signed is valid"

    def read_claims(data: bytes) -> None:
        """What a key that is trusted has signed."""
        signed = jws.serialize_compact({"alg": "ES256"}, data, key)
        with _documented(Unauthorized):
            token = verifier.verify(signed)
            token.allows("read", "a")
            User(token.subject).name.encode()

    return [Kind("tokens", (good, none), read, 30), Kind("claims", (claims,), read_claims, 10)]
