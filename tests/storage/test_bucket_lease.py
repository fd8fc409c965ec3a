"""The lease of a job on a bucket, step by step (docs/design/bucket.md#the-tree)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.storage.test_bucket_core import World
from zotctl.errors import HeldElsewhere, OutcomeUnknown
from zotctl.storage import keys
from zotctl.storage.bucket.lease import JOB_LEASE_S, _Lease

KEY = keys.lease("gc")


@pytest.fixture
def world() -> World:
    return World(dedupe=False)


def another(world: World) -> _Lease:
    return _Lease(world.protocol().context, "gc")


def test_it_is_held_as_long_as_it_is_renewed(world: World) -> None:
    held = another(world)
    held.take()
    for _ in range(3):
        world.later(JOB_LEASE_S - 1)
        with pytest.raises(HeldElsewhere):
            another(world).take()
        held.renew()
    world.later(JOB_LEASE_S)
    another(world).take()


def test_one_that_was_lost_is_neither_renewed_nor_given_back(world: World) -> None:
    lost, held = another(world), another(world)
    lost.take()
    world.later(JOB_LEASE_S)
    held.take()
    taken = world.memory.stored[KEY]
    for _ in range(2):
        lost.renew()
        assert world.memory.stored[KEY] == taken
    lost.give_back()
    assert world.memory.stored[KEY] == taken
    held.give_back()
    assert KEY not in world.memory.stored


def test_of_two_that_take_it_at_once_one_has_it(world: World) -> None:
    for expired in (False, True):
        first = another(world)
        wanted = [True]

        def before(method: str, _: tuple[Any, ...], first: _Lease = first, wanted: list[bool] = wanted) -> None:
            if method == "put" and wanted:
                wanted.clear()
                first.take()

        world.objects.before = before
        with pytest.raises(HeldElsewhere):
            another(world).take()
        assert first._token in world.memory.stored[KEY].body.decode(), expired
        world.later(JOB_LEASE_S)


def test_a_renewal_without_an_answer_is_found_again(world: World) -> None:
    held = another(world)
    held.take()
    put = world.memory.put

    def unanswered(*args: Any, **options: Any) -> str:
        put(*args, **options)
        raise OutcomeUnknown("no answer")

    world.memory.put = unanswered  # type: ignore[method-assign]
    held.renew()
    world.memory.put = put  # type: ignore[method-assign]
    held.renew()
    before = world.memory.stored[KEY]
    world.later(5)
    held.renew()
    assert world.memory.stored[KEY].modified > before.modified


def test_each_renewal_has_other_bytes(world: World) -> None:
    held = another(world)
    held.take()
    before = world.memory.stored[KEY].etag
    held.renew()
    assert world.memory.stored[KEY].etag != before


@pytest.mark.parametrize("where", ["here", "elsewhere", ""])
def test_one_whose_holder_has_died_here_is_free(world: World, where: str) -> None:
    another(world).take()
    stored = world.memory.stored[KEY]
    who = json.loads(stored.body) | {"pid": 1 << 30}
    who["system"] = who["system"] if where == "here" else where
    world.memory.put(KEY, json.dumps(who).encode())
    if where == "here":
        another(world).take()
    else:
        with pytest.raises(HeldElsewhere):
            another(world).take()
