"""How many threads decode, and when freed memory goes back."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from prunepool.imaging import ImageLimits, Preprocess
from prunepool.serving.decode_pool import DecodePool, decode_threads

PREPROCESS = Preprocess(size=4, crop_pct=1.0)


@pytest.mark.parametrize(
    ("cores", "sharers", "threads"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 4), (6, 1, 4), (16, 1, 8), (16, 4, 2), (2, 4, 1)],
)
def test_few_cores_have_a_thread_each_and_many_one_for_two(
    monkeypatch: pytest.MonkeyPatch, cores: int, sharers: int, threads: int
) -> None:
    monkeypatch.setattr("prunepool.serving.decode_pool.available_cores", lambda: cores)
    assert decode_threads(None, sharers) == threads


def test_what_the_operator_sets_is_for_each_process() -> None:
    assert decode_threads(3, 4) == 3


async def test_every_thread_is_there_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit on processes, a thread that is asked for when an image comes cannot be had any more."""
    crop = np.zeros((4, 4, 3), np.uint8)
    both = threading.Barrier(2)

    def decode(*_: Any) -> Any:
        both.wait(10)
        return crop

    decoders = DecodePool(2, ImageLimits(), asyncio.get_running_loop().time, decode)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    work = (decoders.pixels(b"an image", PREPROCESS, 0.0, None) for _ in range(2))
    assert [len(pixels) for pixels in await asyncio.gather(*work)] == [4, 4]
    decoders.close()


@pytest.mark.parametrize("there", [0, 1])
def test_a_system_without_threads_is_noticed_at_the_start(
    monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    real, left = threading.Thread.start, [True] * there

    def start(thread: threading.Thread) -> None:
        return real(thread) if left and left.pop() else no_thread()

    before = set(threading.enumerate())
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        DecodePool(2, ImageLimits(), lambda: 0.0)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def no_thread(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


async def test_free_memory_goes_back_a_minute_after_an_image_and_not_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    given_back = threading.Semaphore(0)
    alarms: list[tuple[float, Any]] = []
    real = loop.call_later

    def call_later(delay: float, callback: Any, *arguments: Any) -> asyncio.TimerHandle:
        if delay < 30:
            return real(delay, callback, *arguments)
        alarms.append((delay, callback))
        return real(3600, callback)

    monkeypatch.setattr("prunepool.serving.decode_pool.trim_heap", given_back.release)
    monkeypatch.setattr(loop, "call_later", call_later)
    crop = np.zeros((4, 4, 3), np.uint8)
    decoders = DecodePool(1, ImageLimits(), loop.time, lambda data, preprocess, limits: crop)
    assert alarms == []
    for image in (b"an image", b"another", np.zeros((3, 4, 4), np.float32)):
        await decoders.pixels(image, PREPROCESS, loop.time(), None)
    ((delay, alarm),) = alarms
    assert delay == 60
    assert not given_back.acquire(blocking=False)
    alarm()
    assert given_back.acquire(timeout=10)
    await decoders.pixels(b"later", PREPROCESS, loop.time(), None)
    assert len(alarms) == 2
    decoders.close()
