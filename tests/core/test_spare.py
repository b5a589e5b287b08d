"""Work that only an idle device does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prunepool.core.types import RatioSpec, Request
from prunepool.errors import Draining, EngineUnavailable


def spare(rig: Any, value: int) -> Request:
    return rig.request(value, ratio=0.0)


async def test_an_idle_device_takes_it_at_once(rig: Any) -> None:
    scheduler = await rig.start()
    done = await scheduler.spare(spare(rig, 7))
    assert (done.ratio, done.reason, done.batch_size) == (0.0, "spare", 1)
    assert rig.ran == [[7]]


async def test_it_is_in_no_series_of_what_was_asked_for(rig: Any) -> None:
    scheduler = await rig.start()
    await scheduler.spare(spare(rig, 7))
    assert rig.sample("images_total", reduction="0") is None
    assert rig.sample("batch_size_count") == 0


async def test_a_device_is_not_idle_while_it_runs_something(rig: Any) -> None:
    scheduler = await rig.start()
    assert scheduler.idle
    rig.gate.close()
    (task,) = await rig.submit(scheduler, 1)
    assert not scheduler.idle
    rig.gate.open()
    await task
    assert scheduler.idle


async def test_nor_while_an_image_for_it_is_being_decoded(rig: Any) -> None:
    scheduler = await rig.start()
    with scheduler.accept(RatioSpec(0.0, 0.0)):
        assert not scheduler.idle


async def test_nor_while_it_drains(rig: Any) -> None:
    scheduler = await rig.start()
    scheduler.begin_drain()
    assert not scheduler.idle


async def test_whoever_comes_meanwhile_waits_for_that_one_image(rig: Any) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    future = scheduler.spare(spare(rig, 7))
    await rig.gate.arrived(1)
    tasks = await rig.submit(scheduler, 1, 2)
    rig.gate.open()
    await asyncio.gather(future, *tasks)
    assert rig.ran == [[7], [1, 2]]


async def test_who_waits_for_idleness_is_called_when_the_work_is_done(rig: Any) -> None:
    scheduler = await rig.start()
    idle = asyncio.Event()
    scheduler.when_idle(idle.set)
    rig.gate.close()
    tasks = await rig.submit(scheduler, 1)
    assert not idle.is_set()
    rig.gate.open()
    await tasks[0]
    assert idle.is_set()


async def test_an_engine_that_dies_of_it_is_not_given_it_again(rig: Any) -> None:
    scheduler = await rig.start({"fail": lambda batch: RuntimeError("broken")})
    with pytest.raises(EngineUnavailable, match="died"):
        await scheduler.spare(spare(rig, 7))
    assert rig.ran == [[7]]


async def test_it_holds_up_no_stop(rig: Any) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    future = scheduler.spare(spare(rig, 7))
    await rig.gate.arrived(1)
    closing = asyncio.create_task(scheduler.close(5.0))
    with pytest.raises(Draining):
        await future
    rig.gate.open()
    assert await closing
