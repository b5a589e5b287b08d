"""Processes that do not answer are replaced."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prunepool.errors import EngineUnavailable
from prunepool.server.watchdog import watch


class Process:
    """A process that answers while it is well."""

    name = "engine-0"

    def __init__(self) -> None:
        self.up = True
        self.well = True
        self.pings = 0
        self.replaced = 0

    async def call(self, method: str, *arguments: str, timeout_s: float | None = None) -> object:
        assert method == "ping"
        self.pings += 1
        if not self.well:
            raise EngineUnavailable("no answer", retry_after=1.0)
        return None

    def replace(self) -> None:
        self.replaced += 1
        self.up = False


@pytest.fixture
def process() -> Process:
    return Process()


async def watched(process: Process, pings: int) -> None:
    """Watch until so many pings were sent, or it is replaced."""
    watching = asyncio.create_task(watch(process, ping_s=0.0, most_missed=3))
    while process.pings < pings and not process.replaced:  # noqa: ASYNC110 - it pings by itself
        await asyncio.sleep(0)
    watching.cancel()


async def test_one_that_answers_is_left_alone(process: Process) -> None:
    await watched(process, 20)
    assert not process.replaced


async def test_one_that_does_not_answer_is_replaced_after_some_pings(process: Process) -> None:
    process.well = False
    await watched(process, 20)
    assert (process.replaced, process.pings) == (1, 3)


async def test_a_missed_ping_is_forgiven(process: Process) -> None:
    watching = asyncio.create_task(watch(process, ping_s=0.0, most_missed=3))
    for turn in range(1, 20):
        process.well = turn % 3 != 0
        while process.pings < turn:  # noqa: ASYNC110
            await asyncio.sleep(0)
    watching.cancel()
    assert not process.replaced


async def test_one_that_is_being_started_is_not_pinged(process: Process) -> None:
    process.up, process.well = False, False
    watching = asyncio.create_task(watch(process, ping_s=0.0, most_missed=3))
    for _ in range(50):
        await asyncio.sleep(0)
    watching.cancel()
    assert (process.pings, process.replaced) == (0, 0)


class QuickLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer: nobody waits, and a busy machine changes nothing."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, *arguments: Any, **named: Any) -> asyncio.TimerHandle:
        self.call_soon(self._jump, when)
        return super().call_at(when, *arguments, **named)

    def _jump(self, when: float) -> None:
        self.now = max(self.now, when)


def test_pings_that_time_out_are_a_second_apart_and_not_two() -> None:
    async def replaced_after() -> float:
        process, replaced = Process(), asyncio.Event()

        async def time_out(method: str, *arguments: str, timeout_s: float | None = None) -> object:
            await asyncio.sleep(timeout_s or 0.0)
            raise EngineUnavailable("no answer", retry_after=1.0)

        process.call, process.replace = time_out, replaced.set  # type: ignore[method-assign]
        watching = asyncio.create_task(watch(process, ping_s=1.0, most_missed=10))
        await replaced.wait()
        watching.cancel()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        assert runner.run(replaced_after()) == 11.0
