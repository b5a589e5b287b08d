"""A better backend takes over between two batches, while the first serves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from prunepool.core.types import Limits


async def until(reached: Any) -> None:
    """Wait for something that a thread does, on a loop whose clock stands still."""
    for _ in range(20_000):
        if reached():
            return
        await asyncio.sleep(0)
        threading.Event().wait(0.0005)
    raise AssertionError("it did not happen")


async def test_the_next_batch_is_the_new_backend_s(rig: Any) -> None:
    scheduler = await rig.start()
    (task,) = await rig.submit(scheduler, 1)
    await task
    scheduler.renew()
    await until(lambda: len(rig.backends) == 2 and rig.backends[0].closed)
    (task,) = await rig.submit(scheduler, 2)
    assert int(np.argmax((await task).output.logits)) == 2
    _, second = rig.backends
    assert [int(item.request.pixels.flat[0]) for batch in second.batches for item in batch.items] == [2]
    assert rig.sample("engine_restarts_total") == 0


async def test_under_load_nothing_is_refused_lost_or_run_twice(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=1))
    tasks = await rig.submit(scheduler, *range(40))
    scheduler.renew()
    tasks += await rig.submit(scheduler, *range(40, 80))
    await until(lambda: len(rig.backends) == 2 and rig.backends[0].closed)
    tasks += await rig.submit(scheduler, *range(80, 90))
    values = [int(np.argmax((await task).output.logits)) for task in tasks]
    assert values == list(range(90))
    assert sorted(value for batch in rig.ran for value in batch) == values
    assert len(rig.backends[1].batches) >= 10


async def test_a_better_one_that_cannot_be_made_changes_nothing(
    rig: Any, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = await rig.start({}, {"error": ValueError("no such file")})
    scheduler.renew()
    await until(lambda: "the better engine died" in caplog.text)
    (task,) = await rig.submit(scheduler, 7)
    assert int(np.argmax((await task).output.logits)) == 7
    assert len(rig.backends) == 1
    scheduler.renew()  # and may be tried again
    await until(lambda: len(rig.backends) == 2 and rig.backends[0].closed)


async def test_if_the_old_one_dies_meanwhile_it_is_replaced_as_ever(rig: Any) -> None:
    error = RuntimeError("broken")
    scheduler = await rig.start({"fail": lambda batch: error})
    (task,) = await rig.submit(scheduler, 5)
    scheduler.renew()
    await until(lambda: task.done())
    assert int(np.argmax((await task).output.logits)) == 5
    assert scheduler.ready


async def test_while_it_drains_nothing_is_renewed(rig: Any) -> None:
    scheduler = await rig.start()
    scheduler.begin_drain()
    scheduler.renew()
    await asyncio.sleep(0)
    assert len(rig.backends) == 1


async def test_closing_gives_up_the_one_that_is_on_its_way(rig: Any) -> None:
    scheduler = await rig.start()
    scheduler.renew()
    assert await scheduler.close(1.0)
    await until(lambda: all(backend.closed for backend in rig.backends))
