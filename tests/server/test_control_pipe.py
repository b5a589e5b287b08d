"""Calls over a pipe, both ways, and the news that the other end is gone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from typing import Any

import pytest

from prunepool.errors import EngineUnavailable, PrunepoolError, WeightsInvalid
from prunepool.server.control_pipe import ControlPipe


class Ends:
    """Two ends of a pipe in one process."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        one, other = multiprocessing.Pipe()
        self.one = ControlPipe(one, self.handlers("one"), lambda: self.closed.append("one"))
        self.other = ControlPipe(other, self.handlers("other"), lambda: self.closed.append("other"))

    def handlers(self, name: str) -> dict[str, Any]:
        async def echo(*words: str) -> list[str]:
            return [name, *words]

        async def fail() -> None:
            raise WeightsInvalid("the weights have changed")

        async def stumble() -> None:
            raise KeyError("unforeseen")

        async def hang() -> None:
            await asyncio.Event().wait()

        return {"echo": echo, "fail": fail, "stumble": stumble, "hang": hang}


@pytest.fixture
async def ends() -> Any:
    made = Ends()
    yield made
    made.one.close()
    made.other.close()


async def test_both_can_call_at_the_same_time(ends: Ends) -> None:
    answers = await asyncio.gather(
        *(ends.one.call("echo", str(i)) for i in range(20)),
        *(ends.other.call("echo", str(i)) for i in range(20)),
    )
    assert answers == [["other", str(i)] for i in range(20)] + [["one", str(i)] for i in range(20)]


async def test_an_error_of_ours_arrives_as_one(ends: Ends) -> None:
    with pytest.raises(PrunepoolError, match="the weights have changed"):
        await ends.one.call("fail")


async def test_an_unforeseen_one_does_too(ends: Ends) -> None:
    with pytest.raises(PrunepoolError, match="KeyError"):
        await ends.one.call("stumble")
    assert await ends.one.call("echo") == ["other"]


async def test_who_waits_is_told_when_the_other_end_is_gone(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.one.call("hang"))
    await asyncio.sleep(0)
    ends.other.close()
    with pytest.raises(EngineUnavailable):
        await waiting
    assert ends.closed == ["one"]
    with pytest.raises(EngineUnavailable):
        await ends.one.call("echo")


async def test_a_call_that_takes_too_long_is_given_up(ends: Ends) -> None:
    with pytest.raises(EngineUnavailable, match="asked to hang has not done so within"):
        await ends.one.call("hang", timeout_s=0.01)
    assert await ends.one.call("echo", timeout_s=5.0) == ["other"]


async def test_a_message_longer_than_the_pipe_arrives(ends: Ends) -> None:
    word = "é" * 1_000_000
    assert await ends.one.call("echo", word, timeout_s=20.0) == ["other", word]


async def test_an_end_that_is_stopped_holds_nobody() -> None:
    """Neither one that reads no more, nor one that was stopped within a message that it was sending."""
    one, other = multiprocessing.Pipe()
    pipe = ControlPipe(one, {}, lambda: None)
    started = time.monotonic()
    os.write(other.fileno(), b"\0\0")  # of a length
    for _ in range(3):
        with pytest.raises(EngineUnavailable, match="has not done so"):
            await pipe.call("echo", "é" * 1_000_000, timeout_s=0.01)
    assert time.monotonic() - started < 5.0
    pipe.close()
    other.close()


async def test_who_goes_on_gets_every_message_whole_and_in_order(ends: Ends) -> None:
    words = [str(number) * 100_000 for number in range(10)]
    said = [asyncio.create_task(ends.one.call("echo", word)) for word in words]
    back = [asyncio.create_task(ends.other.call("echo", word)) for word in words]
    assert await asyncio.gather(*said) == [["other", word] for word in words]
    assert await asyncio.gather(*back) == [["one", word] for word in words]


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\x01\xc1", b"\0\0\0\x02\xc0"])
async def test_an_end_that_closes_in_the_middle_or_says_nonsense_is_gone(sent: bytes) -> None:
    gone: list[str] = []
    one, other = multiprocessing.Pipe()
    pipe = ControlPipe(one, {}, lambda: gone.append("gone"))
    waiting = asyncio.create_task(pipe.call("echo"))
    await asyncio.sleep(0)
    if sent:
        os.write(other.fileno(), sent)
    other.close()
    with pytest.raises(EngineUnavailable):
        await waiting
    assert gone == ["gone"]
