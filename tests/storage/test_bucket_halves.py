"""No half of an object is ever kept, or taken for the whole (zotctl.storage.bucket.objects.requests).

versitygw keeps what has arrived when a connection ends in the middle of a PUT without a checksum, and so do others.
"""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.doubles.objects import MemoryObjects
from tests.object_faults import StillClock
from tests.object_proxy import CUT, ProxiedRequest, Proxy
from tests.stores import bucket_store, push_image
from zotctl.errors import ConfigError, IoFailed
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import MD5, SHA256, UNCHECKED, Objects
from zotctl.storage.bucket.probe import Abilities, probe, require_whole
from zotctl.storage.clock import Clock

LARGE = bytes(range(256)) * 512


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:  # noqa: F811
    made = Proxy(bucket.server.endpoint)
    yield made
    made.close()


def sent(proxy: Proxy) -> list[dict[str, str]]:
    """The headers of each PUT that is to come."""
    seen: list[dict[str, str]] = []

    def look(request: ProxiedRequest) -> str:
        if request.method == "PUT":
            seen.append({name.lower(): text for name, text in request.headers.items()})
        return ""

    proxy.choose = look
    return seen


def test_every_put_of_an_object_has_length_and_checksum(bucket: Bucket, proxy: Proxy) -> None:  # noqa: F811
    client = bucket.client(endpoint=proxy.endpoint)
    seen = sent(proxy)
    push_image(bucket_store(Retrying(client), dedupe=True), "app", "latest")
    assert len(seen) > 10
    for headers in seen:
        assert headers.keys() >= {"content-length", "x-amz-checksum-sha256"}
        assert "x-amz-checksum-sha256" in headers["authorization"]
    client.adapt(checksum=MD5, conditions=True)
    seen.clear()
    client.put("file", b"body", sha256=hashlib.sha256(b"body").hexdigest())
    assert seen[0]["content-md5"] == base64.b64encode(hashlib.md5(b"body").digest()).decode()
    with pytest.raises(IoFailed):
        client.trial("file", b"body", checksum=MD5, wrong=True)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("checksum", [SHA256, MD5, UNCHECKED])
def test_a_put_that_is_cut(bucket: Bucket, checksum: str, conditional: bool) -> None:  # noqa: F811
    """What the probe does, on the server that needs it."""
    client = bucket.client()
    etag = client.put("file", b"whole")
    client.trial("file", LARGE, checksum=checksum, cut=True, match=etag if conditional else "")
    until = time.monotonic() + (0.2 if checksum else 10)
    while time.monotonic() < until and client.head("file").size == 5:
        time.sleep(0.01)
    assert client.head("file").size == (5 if checksum else len(LARGE) // 2)


@pytest.mark.parametrize("dedupe", [False, True])
def test_no_acknowledged_image_is_lost_when_puts_are_cut(bucket: Bucket, proxy: Proxy, dedupe: bool) -> None:  # noqa: F811
    """Of two hundred, 83 were."""
    dice = random.Random(5)
    stores = [bucket_store(Retrying(bucket.client(endpoint=proxy.endpoint)), dedupe=dedupe) for _ in range(2)]
    for number in range(80):  # index.json is larger than what the server reads at once
        push_image(stores[0], "app", f"before-{number}", seed="same")
    proxy.choose = lambda request: CUT if request.method == "PUT" and dice.randrange(4) == 0 else ""
    with ThreadPoolExecutor(4) as pool:
        pushed = list(pool.map(lambda n: push_image(stores[n % 2], "app", f"v{n}", seed=str(n)), range(24)))
    assert len(proxy.faults) > 20
    proxy.choose = lambda _: ""
    repository = bucket_store(bucket.client(), dedupe=dedupe).repository("app")
    assert len(repository.tags()) == 104
    for number, digest in enumerate(pushed):
        assert repository.manifest(f"v{number}").digest == digest


# -- what the probe makes of a store ----------------------------------------------------------------

GOOD = Abilities(True, True, True, True, True, SHA256, False)


def tried(objects: Objects) -> Abilities:
    found = probe(objects, StillClock())
    objects.put("file", b"goes on", absent=True)
    return found


def test_a_checksum_that_is_refused_or_ignored_gives_way_to_the_other() -> None:
    for takes, verified in (((MD5,), (MD5,)), ((SHA256, MD5), (MD5,))):
        found = tried(MemoryObjects(takes=takes, checksums=verified, keeps_halves=True))
        assert found == GOOD._replace(checksum=MD5)
        require_whole("s3://x", found)


def test_a_store_without_any_is_named(caplog: pytest.LogCaptureFixture) -> None:
    for takes in ((), (SHA256, MD5)):
        found = tried(MemoryObjects(takes=takes, checksums=()))
        assert found == GOOD._replace(checksum=UNCHECKED)
        caplog.clear()
        require_whole("s3://x", found)
        assert "s3://x: the object store verifies neither x-amz-checksum-sha256 nor Content-MD5" in caplog.text


@pytest.mark.parametrize("takes", [(), (SHA256, MD5)])
def test_a_store_that_keeps_halves_is_refused(takes: tuple[str, ...]) -> None:
    found = tried(MemoryObjects(takes=takes, checksums=(), keeps_halves=True))
    assert found == GOOD._replace(checksum=UNCHECKED, keeps_halves=True)
    with pytest.raises(ConfigError, match=r"s3://x: .*verifies neither .*half of an object.*whole"):
        require_whole("s3://x", found)


def test_a_good_store_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    found = tried(MemoryObjects(keeps_halves=True))
    assert found == GOOD
    require_whole("s3://x", found)
    assert not caplog.text


def test_versitygw_is_used_with_a_checksum(bucket: Bucket) -> None:  # noqa: F811
    assert probe(Retrying(bucket.client()), Clock()) == GOOD
