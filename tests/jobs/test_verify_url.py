"""`zotctl verify URL` beside a registry in memory, which keeps its word but for one answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

import httpx
import pytest

from tests import images
from tests.doubles.filesystem import MemoryDriver
from tests.stores import store_over
from zotctl.errors import NoSuchStore, PermissionRefused, Unavailable
from zotctl.jobs.check import verify_url as job
from zotctl.jobs.check.verify import VerifyOptions
from zotctl.jobs.run import Run
from zotctl.oci.digest import digest_of
from zotctl.oci.media_types import OCI_INDEX, OCI_MANIFEST

IMAGE = images.image("verify")
SBOM = images.image("sbom", layers=1, subject=IMAGE.digest)
CONFIG, LAYER = (digest_of(body) for body in IMAGE.blobs[:2])
INDEX = images.index([(IMAGE.digest, len(IMAGE.manifest))])
ABSENT = digest_of(b"absent")


class Reply(NamedTuple):
    body: bytes
    status: int
    headers: dict[str, str]


Answer = Callable[[httpx.Request], Reply | None]


def answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    told = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return Reply(body, status, told | (headers or {}))


def unknown(code: str) -> Reply:
    return answer(json.dumps({"errors": [{"code": code, "message": "no"}]}).encode(), 404)


def listed(*rows: object) -> Reply:
    return answer(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}).encode())


class Registry:
    """`lie` answers a request, or leaves it to the truth by None. `more`: manifests beside the image, by tag."""

    def __init__(self, lie: Answer, **more: bytes) -> None:
        self.lie, self.tags = lie, {"v1": IMAGE.manifest, **more}
        named = {str(digest_of(body)): body for body in (*self.tags.values(), SBOM.manifest)}
        self.manifests = self.tags | named
        self.blobs = {str(digest_of(body)): body for body in (*IMAGE.blobs, *SBOM.blobs, b"1")}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body, status, headers = self.lie(request) or self.truth(request)
        return httpx.Response(status, stream=httpx.ByteStream(body), headers=headers)

    def truth(self, request: httpx.Request) -> Reply:
        path = request.url.path.removeprefix("/v2/")
        kind, _, reference = path.removeprefix("app/").partition("/")
        if path == "":
            return answer(b"{}")
        if path == "_catalog":
            return answer(b'{"repositories": ["app"]}')
        if not path.startswith("app/"):
            return unknown("NAME_UNKNOWN")
        if kind == "tags":
            return answer(json.dumps({"name": "app", "tags": sorted(self.tags)}).encode())
        if kind == "referrers":
            return listed(*([images.descriptor(SBOM.manifest, OCI_MANIFEST)] if reference == IMAGE.digest else []))
        if kind == "manifests" and reference in self.manifests:
            body = self.manifests[reference]
            return answer(body, 200, {"Content-Type": OCI_INDEX if b"platform" in body else OCI_MANIFEST})
        if kind == "blobs" and reference in self.blobs:
            return self.blob(self.blobs[reference], request.headers.get("Range", ""))
        return unknown(f"{kind[:-1].upper()}_UNKNOWN")

    @staticmethod
    def blob(body: bytes, asked: str) -> Reply:
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if part is None:
            return answer(body)
        first, last = int(part[1]), int(part[2])
        return answer(body[first : last + 1], 206, {"Content-Range": f"bytes {first}-{last}/{len(body)}"})


def told(
    monkeypatch: pytest.MonkeyPatch, lie: Answer, *, url: str = "http://registry/app", deep: bool = False, **more: bytes
) -> list[str]:
    """The reasons of the findings."""
    transport, client = httpx.MockTransport(Registry(lie, **more)), httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **options: client(transport=transport, **options))
    run = Run("verify", store_over(MemoryDriver()))
    try:
        job.verify_url(run, url, VerifyOptions(deep=deep))
    finally:
        monkeypatch.undo()
    return [finding.reason for finding in run.report.findings]


def lying(path: str, found: Reply, method: str = "GET", *, ranges: bool | None = None) -> Answer:
    """An answer to every such request; with `ranges`, to those alone that have a Range, or none."""

    def lie(request: httpx.Request) -> Reply | None:
        hit = request.method == method and request.url.raw_path.decode() == f"/v2/{path}"
        return found if hit and ranges in (None, "Range" in request.headers) else None

    return lie


def truthful(_: httpx.Request) -> None:
    return None


def breaking(path: str) -> Answer:
    """The connection ends when the whole of this is asked for."""

    def lie(request: httpx.Request) -> Reply | None:
        if request.method == "GET" and request.url.path == f"/v2/{path}" and "Range" not in request.headers:
            raise httpx.ReadError("cut off")
        return None

    return lie


def test_a_registry_that_keeps_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://registry/app", "http://registry"):
        assert told(monkeypatch, truthful, url=url, deep=True, many=INDEX) == []


SHOULD = answer(b"{}", 400)
LIES: dict[str, Answer] = {
    "app/manifests/v1: 404, and it is listed": lying("app/manifests/v1", unknown("MANIFEST_UNKNOWN")),
    "404, and GET 200 (Checking if content exists)": lying("app/manifests/v1", answer(b"", 404), "HEAD"),
    "begins otherwise than tags/list": lying("app/tags/list?n=7", answer(b'{"tags": ["other"]}')),
    f"the content of {SBOM.digest} has the digest": lying(f"app/manifests/{SBOM.digest}", answer(IMAGE.manifest)),
    f"referrers of {IMAGE.digest}: 400": lying(f"app/referrers/{IMAGE.digest}", SHOULD),
    f"referrers of {IMAGE.digest}: no image index": lying(f"app/referrers/{IMAGE.digest}", answer(b"[]")),
    f"{SBOM.digest} has {len(SBOM.manifest)} bytes, its index says 7": lying(
        f"app/referrers/{IMAGE.digest}", listed(images.descriptor(SBOM.manifest, OCI_MANIFEST) | {"size": 7})
    ),
    f"{LAYER} has Content-Length 1, its manifest says": lying(f"app/blobs/{LAYER}", answer(b"1"), "HEAD"),
    "bytes 1 to 15: 416": lying(f"app/blobs/{LAYER}", answer(b"", 416), ranges=True),
    "bytes 1 to 15: 3 bytes": lying(f"app/blobs/{LAYER}", answer(b"abc", 206), ranges=True),
    "other bytes than the whole blob has there": lying(f"app/blobs/{LAYER}", answer(bytes(15), 206), ranges=True),
    "Content-Range bytes 0-9/10": lying(
        f"app/blobs/{LAYER}",
        answer(IMAGE.blobs[1][1:16], 206, {"Content-Range": "bytes 0-9/10"}),
        ranges=True,
    ),
    f"{SBOM.digest} is listed as a referrer of {SBOM.digest} and names another subject, or none": lying(
        f"app/referrers/{SBOM.digest}", listed(images.descriptor(SBOM.manifest, OCI_MANIFEST))
    ),
    "another code than MANIFEST_UNKNOWN": lying(f"app/manifests/{job.ABSENT_DIGEST}", unknown("UNKNOWN")),
    "another code than BLOB_UNKNOWN": lying(f"app/blobs/{job.ABSENT_DIGEST}", unknown("UNKNOWN")),
    "another code than NAME_UNKNOWN": lying(f"{job.ABSENT_NAME}/tags/list", unknown("DENIED")),
    f"/v2/app/blobs/{job.ABSENT_DIGEST}: 200 for what can't exist": lying(
        f"app/blobs/{job.ABSENT_DIGEST}", answer(b"{}")
    ),
}


@pytest.mark.parametrize("reason", LIES)
def test_a_lie_is_told(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    found = told(monkeypatch, LIES[reason])
    assert any(reason in one for one in found), found


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        (images.descriptor(IMAGE.manifest, OCI_MANIFEST) | {"size": 7}, " bytes, its index says 7"),
        (images.descriptor(b"absent", OCI_MANIFEST), f"manifests/{ABSENT}: 404, and it is listed"),
        (images.descriptor(b"[]", OCI_MANIFEST), f"{digest_of(b'[]')}: "),
    ],
)  # fmt: skip
def test_what_an_index_says_of_its_children_is_compared(
    monkeypatch: pytest.MonkeyPatch, child: dict[str, object], reason: str
) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child | {"platform": {}}]}).encode()
    found = told(monkeypatch, truthful, many=body, strange=b"[]")
    assert any(reason in one for one in found), found


def test_a_blob_with_another_content_is_told_by_reading_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its length is right, and so is its beginning."""
    lie = lying(f"app/blobs/{LAYER}", answer(IMAGE.blobs[1][:-1] + b"!"), ranges=False)
    assert told(monkeypatch, lie) == []
    (reason,) = told(monkeypatch, lie, deep=True)
    assert f"the content of {LAYER} has the digest" in reason


def test_a_manifest_with_another_digest_or_length_than_it_is_said_to_have_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stated = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(ABSENT)}
    (reason,) = told(monkeypatch, lying("app/manifests/v1", answer(IMAGE.manifest, 200, stated)))
    assert reason.startswith(f"Docker-Content-Digest of v1 is {ABSENT}, the content has {IMAGE.digest}")
    (reason,) = told(monkeypatch, lying("app/manifests/v1", answer(b"", 200, {"Content-Length": "7"}), "HEAD"))
    assert "Content-Length 7, the content has" in reason


def test_a_layer_that_is_kept_elsewhere_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = images.descriptor(b"elsewhere", images.LAYER.replace("layer.v1", "layer.nondistributable.v1"))
    manifest = json.dumps(json.loads(IMAGE.manifest) | {"layers": [layer]}).encode()
    assert told(monkeypatch, truthful, other=manifest) == []


def test_what_is_not_called_a_manifest_and_not_served_is_no_second_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob of an unknown type, which may be one or not."""
    child = images.descriptor(b"absent", "application/x") | {"platform": {}}
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    assert len(told(monkeypatch, truthful, many=body)) == 1


def test_a_byte_has_no_range(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.dumps(json.loads(IMAGE.manifest) | {"layers": [images.descriptor(b"1", images.LAYER)]}).encode()
    asked: list[str] = []

    def note(request: httpx.Request) -> None:
        asked.extend([request.url.path] if "Range" in request.headers else [])

    assert told(monkeypatch, note, tiny=manifest) == []
    assert f"/v2/app/blobs/{digest_of(b'1')}" not in asked and asked


def test_a_referrer_that_has_gone_meanwhile_is_rightly_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tagged, then deleted before its subject's referrers are read."""
    empty = lying(f"app/referrers/{IMAGE.digest}", listed())
    gone = lying(f"app/manifests/{SBOM.digest}", answer(b"", 404), "HEAD")
    assert told(monkeypatch, lambda one: empty(one) or gone(one), sbom=SBOM.manifest) == []
    assert "is missing in the referrers of" in " ".join(told(monkeypatch, empty, sbom=SBOM.manifest))


def test_pages_end_at_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer(b'{"repositories": ["app"]}', 200, {"Link": '</v2/_catalog?last=app>; rel="next"'})
    second = lying("_catalog?last=app", SHOULD)
    both: Answer = lambda one: lying("_catalog", first)(one) or second(one)  # noqa: E731
    assert told(monkeypatch, both, url="http://registry") == []


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (lying("", answer(b"", 401)), PermissionRefused),
        (lying("", answer(b"", 403)), PermissionRefused),
        (lying("", answer(b"", 500)), Unavailable),
        (lying("", answer(b"", 503)), Unavailable),
        (lying("app/tags/list", unknown("NAME_UNKNOWN")), NoSuchStore),
        (breaking(""), Unavailable),
        (breaking(f"app/blobs/{LAYER}"), Unavailable),
    ],
)
def test_what_ends_a_run(monkeypatch: pytest.MonkeyPatch, lie: Answer, error: type[Exception]) -> None:
    with pytest.raises(error):
        told(monkeypatch, lie)


def test_a_blob_that_breaks_off_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the deep look; a range is served before."""
    lie = breaking(f"app/blobs/{LAYER}")
    whole = lying(f"app/blobs/{LAYER}", answer(IMAGE.blobs[1]), ranges=True)
    found = told(monkeypatch, lambda one: whole(one) or lie(one), deep=True)
    assert [one.startswith(f"GET /v2/app/blobs/{LAYER}: ") for one in found] == [True]
