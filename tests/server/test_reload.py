"""SIGHUPs that come in a storm are one change."""

from __future__ import annotations

import asyncio

from prunepool.server.reload import Coalesced


class Job:
    """Counts its runs, and waits in each until it may go on."""

    def __init__(self) -> None:
        self.started = self.ended = 0
        self.error: Exception | None = None
        self.may_go_on = asyncio.Event()

    async def __call__(self) -> None:
        self.started += 1
        await self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        self.ended += 1


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_storm_becomes_the_run_that_is_under_way_and_one_more() -> None:
    job = Job()
    run = Coalesced(job)
    run()
    await settle()
    for _ in range(100):
        run()
    await settle()
    assert job.started == 1
    job.may_go_on.set()
    await settle()
    assert job.ended == 2
    run()
    await settle()
    assert job.ended == 3


async def test_a_run_that_fails_is_logged_and_not_the_last() -> None:
    job = Job()
    job.may_go_on.set()
    job.error = RuntimeError("unforeseen")
    run = Coalesced(job)
    run()
    await settle()
    job.error = None
    run()
    await settle()
    assert (job.started, job.ended) == (2, 1)
