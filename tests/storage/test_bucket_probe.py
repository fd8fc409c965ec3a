"""Object stores that can't be relied on are found before the first write (zotctl.storage.bucket.probe)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.conformance.objects_suite import keys_of
from tests.doubles.objects import MemoryObjects
from tests.object_faults import AWAY, LOST, NEVER, SLOW, FaultyObjects, Forgetful, one_in
from tests.object_proxy import Proxy
from tests.stores import bucket_store, push_image
from zotctl.errors import Changed, ConfigError, NotFound, PermissionRefused, StorageError
from zotctl.jobs.bucket.jobs import meaning_of
from zotctl.storage import keys
from zotctl.storage.bucket.objects.client import Client
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.objects.seam import SHA256, Object
from zotctl.storage.bucket.probe import (
    Abilities,
    probe,
    probe_deletes,
    require_collection,
    require_shared,
    require_whole,
)
from zotctl.storage.clock import Clock
from zotctl.storage.driver import Buffer

ALL = Abilities(True, True, True, True, True, SHA256, False)


class ServerTime:
    """Sleeping lets the server's clock go on."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def clock(self) -> Clock:
        class Sleeping(Clock):
            def sleep(_, seconds: float) -> None:
                self.now += seconds

        return Sleeping()


class Racy(MemoryObjects):
    """Looks, and then writes: what "conditional" is on a server that isn't atomic."""

    def put(
        self,
        key: str,
        body: Buffer,
        *,
        match: str = "",
        absent: bool = False,
        metadata: Mapping[str, str] | None = None,
        sha256: str = "",
    ) -> str:
        try:
            etag = self.head(key).etag
        except NotFound:
            etag = ""
        if (absent and etag) or (match and etag != match):
            raise Changed(key)
        time.sleep(0.005)
        return super().put(key, body, metadata=metadata, sha256=sha256)


def test_a_good_one_and_nothing_is_left_behind() -> None:
    objects = MemoryObjects()
    assert probe(objects, Clock()) == ALL
    assert keys_of(objects.list("")) == [keys.CAPABILITIES]


def test_an_answer_that_gets_lost_settles_nothing() -> None:
    for seed in range(10):
        objects = Retrying(FaultyObjects(MemoryObjects(), one_in(10, seed, (LOST, NEVER))))
        assert probe(objects, Clock()) == ALL


class Torn(MemoryObjects):
    """Answers a GET with the ETag of an object and the bytes that it had before, as a gateway does that looks at a file
    and then opens it."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[str, bytes] = {}

    def put(self, key: str, body: Buffer, **options: Any) -> str:
        if key in self.stored:
            self._before[key] = self.stored[key].body
        return super().put(key, body, **options)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        got = super().get(key, unless=unless)
        return got and (got[0], self._before.get(key, got[1]))


def test_ignored_conditions_are_found() -> None:
    found = probe(MemoryObjects(conditions=False), Clock())
    assert (found.creates_once, found.swaps, found.one_winner) == (False, False, False)


def test_a_race_is_found() -> None:
    found = probe(Racy(), Clock())
    assert (found.creates_once, found.swaps, found.one_winner) == (True, True, False)


def test_reads_of_two_states_are_found() -> None:
    found = probe(Torn(), Clock())
    assert (found.creates_once, found.swaps, found.one_winner) == (True, True, False)


class Late(MemoryObjects):
    """Some of its answers show what was there before the last write of an object."""

    def __init__(self, *late: str) -> None:
        super().__init__()
        self._late = late
        self._before: dict[str, Any] = {}

    def _remember(self, key: str) -> None:
        self._before[key] = self.stored.get(key)

    def put(self, key: str, body: Buffer, **options: Any) -> str:
        self._remember(key)
        return super().put(key, body, **options)

    def delete(self, key: str) -> None:
        self._remember(key)
        super().delete(key)

    def get(self, key: str, *, unless: str = "") -> tuple[Object, bytes] | None:
        if "reads" not in self._late or key not in self._before:
            return super().get(key, unless=unless)
        if (old := self._before[key]) is None:
            raise NotFound(key)
        return self._object(key, old), old.body

    def list(self, prefix: str, *, after: str = "") -> Iterator[Object]:
        if "lists" not in self._late:
            return super().list(prefix, after=after)
        old = {key: self._before.get(key, found) for key, found in self.stored.items()} | self._before
        return iter(
            [self._object(key, found) for key, found in sorted(old.items()) if found and key.startswith(prefix)]
        )


def test_reads_and_lists_that_are_late_are_found() -> None:
    found = probe(Late("lists"), Clock())
    assert found == ALL._replace(lists_shown=False)
    require_whole("s3://x", found)
    with pytest.raises(ConfigError, match=r"lists that show each write at once.*single_writer"):
        require_shared("s3://x", found, single_writer=False)
    require_shared("s3://x", found, single_writer=True)
    late = Late("reads")
    found = probe(late, Clock())
    assert not found.reads_shown and found.lists_shown
    assert keys.CAPABILITIES not in late.stored, "a bad result is not kept"
    with pytest.raises(ConfigError, match=r"s3://x.*before a write.*cache"):
        require_whole("s3://x", found)
    assert meaning_of(found).startswith("not fit")


def test_late_deletes_are_found() -> None:
    for kind, wanted in ((MemoryObjects, True), (Forgetful, False)):
        server = ServerTime()
        objects = kind(lambda server=server: server.now)  # type: ignore[misc]
        found = probe_deletes(objects, server.clock())
        assert found == ALL._replace(signed_deletes=wanted)
        assert keys_of(objects.list("")) == [keys.CAPABILITIES]
    with pytest.raises(ConfigError, match="single_writer"):
        require_collection("s3://x", found, single_writer=False)
    require_collection("s3://x", found, single_writer=True)
    require_collection("s3://x", ALL, single_writer=False)


@pytest.mark.parametrize("fault", [SLOW, AWAY, LOST, NEVER])
def test_a_late_delete_without_an_answer_is_no_verdict(fault: str) -> None:
    """What is wrong with the network is no word on the server."""
    server, made = ServerTime(), list[str]()

    def choose(method: str, _: str) -> str:
        made.append(method)
        return fault if method == "execute" and made.count("execute") == 3 else ""

    objects = FaultyObjects(MemoryObjects(lambda: server.now), choose)
    try:
        assert probe_deletes(objects, server.clock()).signed_deletes  # type: ignore[arg-type]
    except StorageError:
        assert fault in (SLOW, AWAY)
    assert made.count("execute") >= 3
    assert not [key for key in keys_of(objects.list("")) if key != keys.CAPABILITIES]


def test_a_server_whose_clock_stands_still_lets_nothing_expire() -> None:
    ours = ServerTime()

    class Waiting(type(ours.clock())):  # type: ignore[misc]
        def elapsed(self) -> float:
            return ours.now

    found = probe_deletes(MemoryObjects(lambda: 1_700_000_000.0), Waiting())
    assert found.signed_deletes is False


def test_the_result_is_believed_for_a_day_and_for_this_server() -> None:
    server = ServerTime()
    objects = FaultyObjects(MemoryObjects(lambda: server.now), lambda *_: "")

    def requests(address: str) -> int:
        objects.taken()
        assert probe(objects, Clock(), address) == ALL  # type: ignore[arg-type]
        return len(objects.taken())

    assert requests("http://one") > 50
    assert requests("http://one") == 1
    assert requests("http://other") > 50
    server.now += 24 * 3600
    assert requests("http://other") > 50


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"server": "", "more": 1}', b"\xff"])
def test_a_result_that_can_not_be_read_is_none(body: bytes) -> None:
    objects = MemoryObjects()
    objects.put(keys.CAPABILITIES, body)
    assert probe(objects, Clock()) == ALL


def test_a_bad_result_is_not_kept() -> None:
    objects = MemoryObjects(conditions=False)
    probe(objects, Clock())
    assert keys_of(objects.list("")) == []


def test_who_may_not_write_is_told() -> None:
    class Closed(MemoryObjects):
        def put(self, key: str, body: Buffer, **_: object) -> str:  # type: ignore[override]
            raise PermissionRefused("no")

    with pytest.raises(PermissionRefused):
        probe(Closed(), Clock())


def test_sharing_is_refused_with_what_is_missing_and_the_way_out() -> None:
    require_shared("s3://x", ALL, single_writer=False)
    for name, lacking in (
        ("If-None-Match", ALL._replace(creates_once=False)),
        ("If-Match", ALL._replace(swaps=False)),
        ("one winner", ALL._replace(one_winner=False)),
    ):
        with pytest.raises(ConfigError, match=f"s3://x.*{name}.*single_writer = true.*ZOTCTL_SINGLE_WRITER"):
            require_shared("s3://x", lacking, single_writer=False)
        require_shared("s3://x", lacking, single_writer=True)


def test_versitygw_is_good(bucket: Bucket) -> None:  # noqa: F811
    objects = Retrying(bucket.client())
    assert probe_deletes(objects, Clock()) == ALL._replace(signed_deletes=True)
    got = objects.get(keys.CAPABILITIES)
    assert got is not None and json.loads(got[1])["signed_deletes"] is True


def test_a_proxy_that_drops_the_conditions_is_found(bucket: Bucket) -> None:  # noqa: F811
    proxy = Proxy(bucket.server.endpoint, conditions=False)
    try:
        client = Client(replace(bucket.settings, endpoint=proxy.endpoint))
        found = probe(Retrying(client), Clock())
        assert found == Abilities(False, False, False, True, True, SHA256, False)
        proxy.conditions = True
        assert probe(Retrying(client), Clock()) == ALL
        client.close()
    finally:
        proxy.close()


def test_refused_conditions_are_missing_and_a_single_writer_needs_none(bucket: Bucket) -> None:  # noqa: F811
    proxy = Proxy(bucket.server.endpoint, conditions=None)
    try:
        for inner in (MemoryObjects(conditions=None), Client(replace(bucket.settings, endpoint=proxy.endpoint))):
            objects = Retrying(inner)
            found = probe(objects, Clock())
            assert found == Abilities(False, False, False, True, True, SHA256, False)
            with pytest.raises(ConfigError, match="single_writer = true"):
                require_shared("s3://x", found, single_writer=False)
            etag = objects.put("file", b"one", absent=True)
            for condition in ({"absent": True}, {"match": '"other"'}):
                with pytest.raises(Changed):
                    objects.put("file", b"two", **condition)  # type: ignore[arg-type]
            objects.put("file", b"two", match=etag)
            objects.delete("file")
            with pytest.raises(Changed):
                objects.put("file", b"three", match=etag)
            store = bucket_store(objects)
            push_image(store, "app", "v1")
            assert store.repository("app").tags() == ["v1"]
    finally:
        proxy.close()
