"""Nothing is collected beside writers where the object store carries out deletes that were signed too long ago."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from tests.buckets import Bucket, bucket  # noqa: F401 - a fixture
from tests.cli.running import PATIENCE_S
from tests.clocks import Hand
from tests.counting import Counted
from tests.doubles.objects import MemoryObjects
from tests.jobs.test_gc import collect
from tests.object_faults import Forgetful
from tests.object_proxy import Proxy
from tests.stores import bucket_root, bucket_store, push_blob, push_image
from zotctl.errors import ConfigError
from zotctl.jobs.dedupe import dedupe as into_pool
from zotctl.jobs.explain import explain
from zotctl.jobs.gc import GcOptions
from zotctl.jobs.run import Run
from zotctl.jobs.schedule import log_report
from zotctl.oci.digest import Digest
from zotctl.storage import Store, keys
from zotctl.storage.bucket.intents import INTENT_LIFETIME_S
from zotctl.storage.bucket.objects.retry import Retrying
from zotctl.storage.bucket.probe import PROBE_KEPT_S

DELAY = 100.0


class Unprobed:
    """A bucket of which nobody has found out yet what its server does with late deletes."""

    def __init__(self, kind: type[MemoryObjects], *, dedupe: bool = False, single_writer: bool = False) -> None:
        self.clock, self.single_writer, self.dedupe = Hand(), single_writer, dedupe
        self.memory = kind(self.clock.now)
        self.objects = Counted(self.memory)
        self.store = self.another()

    def another(self) -> Store:
        options: dict[str, Any] = {"dedupe": self.dedupe, "delay": DELAY, "single_writer": self.single_writer}
        return Store([bucket_root(self.objects, self.clock, **options)], self.clock)  # type: ignore[arg-type]

    def later(self, delays: float = 1.5) -> None:
        self.clock.at += delays * DELAY

    def ripe(self, body: bytes = b"stray", *names: str) -> list[Digest]:
        """What the next run deletes."""
        found = [push_blob(self.store.repository_for_push(name), body) for name in names or ("a",)]
        self.later()
        collect(self.store)
        self.later()
        self.objects.taken()
        return found

    def content(self) -> dict[str, bytes]:
        return {key: one.body for key, one in self.memory.stored.items()
                if "blobs/" in key or key.startswith((keys.RESERVATIONS, keys.INTENTS))}  # fmt: skip

    def asked(self) -> tuple[int, int]:
        """How often what is known was read, and how many requests the tries took, since the last time."""
        made, self.objects.requests = self.objects.requests, []
        return (
            sum(method == "get" and key == keys.CAPABILITIES for method, key in made),
            sum(key.startswith(f"{keys.TMP}/probe-") for _, key in made),
        )


@pytest.fixture(params=[False, True], ids=["own", "pool"])
def dedupe(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_where_late_deletes_are_carried_out_nothing_goes_and_the_way_out_is_told(dedupe: bool) -> None:
    world = Unprobed(Forgetful, dedupe=dedupe)
    push_image(world.store, "a", "v1")
    world.ripe(b"stray", "a", "b", "c")
    before = world.content()
    report = collect(world.store)
    assert report.exit_code == ConfigError.exit_code
    assert report.summary["purged"] == 0 and world.content() == before
    (error,) = report.errors
    assert error["repository"] == "s3://memory/test"
    for word in ("signed deletes", "signed too long ago", "single_writer = true", "ZOTCTL_SINGLE_WRITER=true"):
        assert word in error["reason"]


def test_it_is_told_once_in_the_log_of_a_server(caplog: pytest.LogCaptureFixture) -> None:
    world = Unprobed(Forgetful)
    world.ripe(b"stray", "a", "b", "c")
    report = collect(world.store)
    with caplog.at_level(logging.ERROR, "zotctl.jobs"):
        log_report(report, world.store.roots[0])
    (line,) = caplog.messages
    assert "signed deletes" in line


def test_the_rest_of_such_a_run_is_done() -> None:
    """Tags are dropped and dead uploads go: that needs no signed delete. Other roots are collected."""
    world, good = Unprobed(Forgetful), Unprobed(MemoryObjects)
    good.clock = world.clock
    good.memory.clock = world.clock.now
    good.memory.label = "s3://memory/good"
    upload = world.store.repository_for_push("b").start_upload()
    world.ripe(b"stray", "a")
    world.later(20)
    stray = push_blob(good.another().repository_for_push("g"), b"stray")
    both = Store([world.store.roots[0], good.another().roots[0]], world.clock)
    world.later()
    collect(both)
    world.later()
    report = collect(both)
    assert report.exit_code == ConfigError.exit_code
    assert keys.session(upload) not in world.memory.stored
    assert keys.blob("g", stray) not in good.memory.stored


def test_a_single_writer_may_and_nothing_is_tried_out(dedupe: bool) -> None:
    world = Unprobed(Forgetful, dedupe=dedupe, single_writer=True)
    world.ripe()
    report = collect(world.store)
    assert (report.errors, report.summary["purged"]) == ([], 1)
    assert world.asked() == (0, 0)


def test_what_was_found_is_known_for_a_day(dedupe: bool) -> None:
    world = Unprobed(MemoryObjects, dedupe=dedupe)
    world.ripe()
    assert collect(world.store).summary["purged"] == 1
    assert world.asked()[1] > 0
    assert not [key for key in world.memory.stored if key.startswith(keys.TMP)]
    world.ripe(b"another", "a", "b")
    assert collect(world.another()).summary["purged"] == (1 if dedupe else 2)
    assert world.asked() == (1, 0), "one GET in a run, however many batches it has"
    world.clock.at += PROBE_KEPT_S
    world.ripe(b"one more")
    assert collect(world.store).summary["purged"] == 1
    assert world.asked()[1] > 0


def test_who_has_nothing_to_delete_asks_nothing() -> None:
    world = Unprobed(Forgetful)
    push_image(world.store, "a", "v1")
    push_blob(world.store.repository_for_push("a"), b"stray")
    world.objects.taken()
    world.later()
    report = collect(world.store)
    assert (report.errors, report.summary["unreachable"]) == ([], 1)
    assert world.asked() == (0, 0)


def test_who_only_looks_asks_nothing() -> None:
    world = Unprobed(Forgetful)
    (stray,) = world.ripe()
    before = world.content()
    assert collect(world.store, dry_run=True).errors == []
    run = Run("gc", world.store)
    assert run.finish(lambda: explain(run, str(stray), lambda _: GcOptions(DELAY))).errors == []
    assert world.asked() == (0, 0)
    assert world.content() == before


def test_what_is_left_of_a_try_that_was_killed_is_swept() -> None:
    world = Unprobed(MemoryObjects)
    push_image(world.store, "a", "v1")
    for at in (0.0, 2 * INTENT_LIFETIME_S):
        world.clock.at += at
        world.memory.put(keys.tmp(f"probe-{at:g}"), b"x")
    world.clock.at += 1
    collect(world.store)
    assert [key for key in world.memory.stored if key.startswith(keys.TMP)] == [
        keys.tmp(f"probe-{2 * INTENT_LIFETIME_S:g}")
    ]


def test_dedupe_drops_nothing_there_either() -> None:
    world = Unprobed(Forgetful)
    push_image(world.store, "a", "v1")
    before = world.content()
    run = Run("dedupe", world.store)
    report = run.finish(lambda: into_pool(run))
    assert report.exit_code == ConfigError.exit_code and world.content() == before
    assert "signed deletes" in report.errors[0]["reason"] and len(report.errors) == 1


def gc(place: Bucket, *words: str, **environ: str) -> tuple[int, dict[str, Any]]:
    time.sleep(1.1)  # a server's times have whole seconds
    command = [sys.executable, "-m", "zotctl.cli", "gc", "--root", place.url, "--delay", "0s", "--json", *words]
    done = subprocess.run(
        command, env=os.environ | place.environment | environ, capture_output=True, check=False, timeout=PATIENCE_S
    )
    return done.returncode, json.loads(done.stdout)


def test_the_command_is_refused_before_a_real_server_that_forgets(bucket: Bucket) -> None:  # noqa: F811
    store = bucket_store(Retrying(bucket.client()))
    push_image(store, "a", "v1")
    stray = push_blob(store.repository_for_push("a"), b"stray")
    store.close()
    with closing(Proxy(bucket.server.endpoint, expiry=False)) as proxy:
        unfit = Bucket(replace(bucket.settings, endpoint=proxy.endpoint), bucket.server)
        code, told = gc(unfit)
        assert code == ConfigError.exit_code, told
        assert "signed deletes" in told["errors"][0]["reason"] and told["summary"]["purged"] == 0
        assert bucket.path(keys.blob("a", stray)).exists()
        code, told = gc(unfit, ZOTCTL_SINGLE_WRITER="true")
        assert (code, told["summary"]["purged"]) == (0, 1), told
        assert not bucket.path(keys.blob("a", stray)).exists()


def test_a_dry_run_writes_nothing_where_something_would_go(bucket: Bucket) -> None:  # noqa: F811
    store = bucket_store(Retrying(bucket.client()))
    push_blob(store.repository_for_push("a"), b"stray")
    store.close()
    bucket.requests()
    code, told = gc(bucket, "--dry-run")
    assert (code, told["summary"]["unreachable"]) == (0, 1), told
    assert {request.operation for request in bucket.requests()} <= {"GetObject", "HeadObject", "ListObjectsV2"}


def test_versitygw_is_asked_once_a_day(bucket: Bucket) -> None:  # noqa: F811
    for wanted in (True, False):
        store = bucket_store(Retrying(bucket.client()))
        push_blob(store.repository_for_push("a"), b"stray")
        store.close()
        bucket.requests()
        code, told = gc(bucket)
        assert (code, told["summary"]["purged"]) == (0, 1), told
        tries = [request for request in bucket.requests() if f"{keys.TMP}/probe-" in request.key]
        assert bool(tries) is wanted
        assert json.loads(bucket.path(keys.CAPABILITIES).read_bytes())["signed_deletes"] is True
