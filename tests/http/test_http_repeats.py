"""What is asked again in the same words is answered by two looks, and yet as it is now."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import pytest

from tests import images
from tests.http.test_http_service import asked
from tests.stores import push_blob, push_image, store_over
from zotctl.config import HttpConfig, RateLimit
from zotctl.errors import StorageError
from zotctl.http import repeats
from zotctl.http.answer import JOINED_BYTES
from zotctl.http.ratelimit import SharedRates
from zotctl.oci.digest import Digest, digest_of
from zotctl.oci.manifest import check_manifest
from zotctl.oci.media_types import OCI_MANIFEST
from zotctl.storage import Repository, Store, keys
from zotctl.storage.driver import Driver, Info
from zotctl.storage.file_identity import HeldFile
from zotctl.storage.local.context import SETTLED_S
from zotctl.storage.local.driver import LocalDriver
from zotctl.storage.local.protocol import LocalProtocol

IMAGE = images.image("one", layers=1)
BLOB = digest_of(IMAGE.blobs[0])
TAG, BY_DIGEST, OF_BLOB = "/v2/app/manifests/v1", f"/v2/app/manifests/{IMAGE.digest}", f"/v2/app/blobs/{BLOB}"
WAYS = [("GET", TAG), ("HEAD", TAG), ("GET", BY_DIGEST), ("HEAD", OF_BLOB)]


class Place(NamedTuple):
    """A store whose last root has the image."""

    store: Store
    roots: tuple[Path, ...]
    looks: Counter[str]
    """How often a repository was looked for."""

    def file(self, digest: Digest) -> Path:
        return self.roots[-1] / keys.blob("app", digest)

    @property
    def protocol(self) -> LocalProtocol:
        return cast(LocalProtocol, self.store.roots[-1].protocol)


def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Place:
    roots = tuple(tmp_path / name for name in names)
    for root in roots:
        root.mkdir()
    store = store_over(*(LocalDriver(str(root)) for root in roots))
    push_image(store_over(LocalDriver(str(roots[-1]))), "app", "v1", seed="one", layers=1)
    time.sleep(2 * SETTLED_S)  # what was written just now is not remembered
    looks, real = Counter[str](), Store.repository

    def repository(store: Store, name: str, *, wait: bool = True) -> Repository:
        looks[name] += 1
        return real(store, name, wait=wait)

    monkeypatch.setattr(Store, "repository", repository)
    return Place(store, roots, looks)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make(tmp_path, monkeypatch, "root")


def ask_around(
    place: Place, way: tuple[str, str], change: Callable[[], None], config: HttpConfig | None = None, **options: Any
) -> tuple[httpx.Response, httpx.Response]:
    """The answers before and after a change, which comes when the answer is given again."""
    answers = []

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            answers.append(await client.request(*way))
        assert all(answer.status_code == 200 for answer in answers)
        looked = place.looks["app"]
        answers.append(await client.request(*way))
        assert place.looks["app"] == looked, "it is not given again"
        change()
        answers.append(await client.request(*way))

    asked(cast(Any, place.store), ask, config, **options)
    for one in answers[1:-1]:
        assert (one.status_code, one.content) == (200, answers[0].content)
        assert {**one.headers, "date": ""} == {**answers[0].headers, "date": ""}
    return answers[0], answers[-1]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_it_is_given_again_while_nothing_changes(place: Place, way: tuple[str, str]) -> None:
    first, last = ask_around(place, way, lambda: None)
    assert (last.status_code, last.content) == (200, first.content)
    assert first.content == (IMAGE.manifest if way[0] == "GET" else b"")
    assert last.headers["content-length"] == str(len(IMAGE.manifest if way[1] != OF_BLOB else IMAGE.blobs[0]))


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("how", ["gone", "cut", "marked"])
def test_what_is_lost_is_not_given_again(place: Place, way: tuple[str, str], how: str) -> None:
    digest = BLOB if way[1] == OF_BLOB else IMAGE.digest

    def change() -> None:
        if how == "gone":
            place.file(digest).unlink()
        elif how == "cut":
            os.truncate(place.file(digest), 5)
        else:
            with place.protocol.driver.open(keys.blob("app", digest)) as reader:
                assert place.protocol.damaged.mark(digest, keys.blob("app", digest), HeldFile(reader))

    assert ask_around(place, way, change)[1].status_code == 404


def test_a_mark_in_the_same_tick(place: Place) -> None:
    """A file system may give a file the same time twice, so that its times don't show a new link."""
    protocol, key = place.protocol, keys.blob("app", IMAGE.digest)
    sighting = place.store.repository("app").sighting(IMAGE.digest, len(IMAGE.manifest), is_manifest=True)
    assert sighting is not None and sighting.holds()
    stat = protocol.driver.stat
    as_before = stat(key).ctime_ns

    class Coarse:
        def stat(self, key: str) -> Info:
            return stat(key)._replace(ctime_ns=as_before) if "/blobs/" in key else stat(key)

    coarse = replace(sighting, driver=cast(Driver, Coarse()))
    assert coarse.holds()
    with protocol.driver.open(key) as reader:
        assert protocol.damaged.mark(IMAGE.digest, key, HeldFile(reader))
    assert not sighting.holds() and not coarse.holds()


def test_what_is_replaced_before_the_look_is_not_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.protocol, "now", lambda: time.time() + 3600)
    repository = place.store.repository("app")
    assert repository.sighting(IMAGE.digest, len(IMAGE.manifest), is_manifest=True) is not None
    os.truncate(place.file(IMAGE.digest), 5)
    assert repository.sighting(IMAGE.digest, len(IMAGE.manifest), is_manifest=True) is None


def test_an_index_that_a_tool_may_write_again_within_the_tick(place: Place) -> None:
    """What was read of it may be the same file by its times, and yet older."""
    file = place.roots[0] / keys.index("app")
    file.write_bytes(file.read_bytes())
    sighting = place.store.repository("app").sighting(IMAGE.digest, len(IMAGE.manifest), is_manifest=True)
    assert sighting is not None and not sighting.holds()


def test_a_look_that_fails_costs_no_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is there already; it is only not kept."""
    looked, answers = count(), []

    def fails(*_: object) -> None:
        next(looked)
        raise StorageError("the root is away")

    async def ask(client: httpx.AsyncClient) -> None:
        answers.extend([(await client.request(*way)).status_code for way in WAYS * 4])

    monkeypatch.setattr(place.protocol, "sighting", fails)
    asked(cast(Any, place.store), ask)
    assert answers == [200] * len(answers) and next(looked) > 0


def test_behind_a_network_nothing_is_looked_at(place: Place) -> None:
    repository, wanted = place.store.repository("app"), (IMAGE.digest, len(IMAGE.manifest))
    assert place.store.sighting(repository, *wanted, is_manifest=True) is not None
    place.store.nonblocking = False
    assert place.store.sighting(repository, *wanted, is_manifest=True) is None


def test_a_mark_that_is_half_made(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is made, the file has a name in `tmp` already. Then it loses that one and gets the other in the same
    tick, so that it looks as it did."""
    changed = place.file(IMAGE.digest).stat().st_ctime
    for age, is_kept in (SETTLED_S / 2, False), (SETTLED_S * 2, True):
        monkeypatch.setattr(place.protocol, "now", partial(float, changed + age))
        sighting = place.store.repository("app").sighting(IMAGE.digest, len(IMAGE.manifest), is_manifest=True)
        assert (sighting is not None) == is_kept


def test_a_blob_whose_manifest_is_healed(place: Place) -> None:
    """What a manifest says of its length is known from then on, and index.json is the same."""
    manifest, blob = place.file(IMAGE.digest), place.file(BLOB)
    manifest.unlink()
    os.truncate(blob, 5)
    statuses = []

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            statuses.append((await client.head(OF_BLOB)).status_code)
        manifest.write_bytes(IMAGE.manifest)
        statuses.append((await client.head(OF_BLOB)).status_code)

    time.sleep(2 * SETTLED_S)
    asked(cast(Any, place.store), ask)
    assert statuses == [200, 200, 200, 200, 404]


def test_a_manifest_to_which_nothing_leads_any_more(place: Place) -> None:
    """One without a row, by a subject without one: that is deleted, and index.json is the same."""
    child, repository = images.image("child", layers=1), place.store.repository("app")
    subject = images.index([(child.digest, len(child.manifest))])
    for body in (*child.blobs, child.manifest, subject):
        push_blob(repository, body)
    push_image(place.store, "app", seed="referrer", layers=1, subject=digest_of(subject))
    statuses = []

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            statuses.append((await client.get(f"/v2/app/manifests/{child.digest}")).status_code)
        statuses.append((await client.delete(f"/v2/app/manifests/{digest_of(subject)}")).status_code)
        statuses.append((await client.get(f"/v2/app/manifests/{child.digest}")).status_code)

    time.sleep(2 * SETTLED_S)
    asked(cast(Any, place.store), ask)
    assert statuses == [200, 200, 200, 200, 202, 404]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_tag_that_another_program_moves(place: Place, method: str) -> None:
    """One that replaces index.json, without a lock."""
    other = images.image("two", layers=1)
    file = place.roots[0] / keys.index("app")

    def change() -> None:
        for body in (*other.blobs, other.manifest):
            place.file(digest_of(body)).write_bytes(body)
        index = json.loads(file.read_bytes())
        index["manifests"][0] |= {"digest": other.digest, "size": len(other.manifest)}
        (new := file.with_name("new")).write_text(json.dumps(index))
        new.replace(file)

    _, last = ask_around(place, (method, TAG), change)
    assert last.headers["docker-content-digest"] == other.digest


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_root_before_it_that_gets_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: tuple[str, str]
) -> None:
    """The first root that has a name is served, so that a repository of a later one is looked for each time."""
    place = make(tmp_path, monkeypatch, "first", "second")
    found = []

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            assert (await client.request(*way)).status_code == 200
        push_image(store_over(LocalDriver(str(place.roots[0]))), "app", "v2", seed="two")
        found.append((await client.request(*way)).status_code)

    asked(cast(Any, place.store), ask)
    assert found == [404]


def test_rates_count_it(place: Place) -> None:
    rates = SharedRates(RateLimit(rate=5.0), lambda: 0)
    _, last = ask_around(place, ("GET", TAG), lambda: None, rates=rates)
    assert last.status_code == 429


def test_a_pull_is_noted_again_a_minute_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention and the caches learn that it is still asked for."""
    now, pulled = [1000.0], Counter[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Repository, "note_pull", lambda repository, digest: pulled.update([digest]))
    before = []

    def change() -> None:
        before.append(pulled.total())
        now[0] += repeats.KEPT_FOR_S

    ask_around(place, ("GET", TAG), change)
    assert [pulled.total()] == [before[0] + 1]


@pytest.mark.parametrize("size", [JOINED_BYTES, JOINED_BYTES + 1])
def test_what_is_large_is_read_each_time(place: Place, size: int) -> None:
    extra = size - len(images.image("large", layers=1, annotations={"x": ""}).manifest)
    image = images.image("large", layers=1, annotations={"x": "x" * extra})
    repository = place.store.repository_for_push("app")
    for body in image.blobs:
        push_blob(repository, body)
    repository.put_manifest(check_manifest(image.manifest, OCI_MANIFEST), image.manifest)
    time.sleep(2 * SETTLED_S)

    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            assert (await client.get(f"/v2/app/manifests/{image.digest}")).content == image.manifest
        looked = place.looks["app"]
        await client.get(f"/v2/app/manifests/{image.digest}")
        assert place.looks["app"] == looked + (size > JOINED_BYTES)

    asked(cast(Any, place.store), ask)


def test_a_head_of_many_fields_weighs_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "KEPT_BYTES", 20_000)
    fields = {f"a{number}": "1" for number in range(75)}

    async def ask(client: httpx.AsyncClient) -> None:
        for way in WAYS[1], WAYS[3]:
            for _ in range(4):
                await client.request(*way, headers=fields)
            looked = place.looks["app"]
            await client.request(*way, headers=fields)
            assert place.looks["app"] == looked
        await client.request(*WAYS[1], headers=fields)
        assert place.looks["app"] == looked + 1, "both are kept"

    asked(cast(Any, place.store), ask)


def test_what_names_a_secret_is_not_kept(place: Place) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for _ in range(5):
            looked = place.looks["app"]
            assert (await client.get(TAG, headers={"Authorization": "Bearer x"})).status_code == 200
            assert place.looks["app"] > looked

    asked(cast(Any, place.store), ask)
