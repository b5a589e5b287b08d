"""Slots of shared memory: what is put in is read, in this process and in another, and nothing is left behind."""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from prunepool.transport.zmq.shared_memory import Arena


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_are_read_as_they_were_put(dtype: type) -> None:
    arena = Arena(slots=2, slot_bytes=4096)
    first, second = (np.full((3, 4, 4), value, dtype) for value in (7, 9))
    with arena.holding(first) as one, arena.holding(second) as other:
        assert one is not None
        assert other is not None
        for slot, pixels in ((one, first), (other, second)):
            read = np.frombuffer(arena.read(slot, pixels.nbytes), dtype).reshape(pixels.shape)
            np.testing.assert_array_equal(read, pixels)


def test_what_is_not_contiguous_is_put_in_order() -> None:
    arena = Arena(slots=1, slot_bytes=4096)
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3).transpose(2, 0, 1)
    with arena.holding(pixels) as slot:
        assert slot is not None
        assert bytes(arena.read(slot, 48)) == pixels.tobytes()


def test_there_are_as_many_slots_as_there_are() -> None:
    arena = Arena(slots=1, slot_bytes=4096)
    pixels = np.zeros(3, np.uint8)
    with arena.holding(pixels) as slot, arena.holding(pixels) as none:
        assert (slot, none, arena.free) == (0, None, 0)
    assert arena.free == 1


def test_what_is_too_large_finds_no_slot() -> None:
    arena = Arena(slots=1, slot_bytes=4096)
    with arena.holding(np.zeros(4097, np.uint8)) as slot:
        assert slot is None


def test_pixels_that_cannot_be_written_find_no_slot_and_the_log_says_so_once() -> None:
    """As where memory is full: they go into the message then, and nobody dies of a page that is not there."""
    arena = Arena(slots=2, slot_bytes=4096)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with capture_logs() as lines:
            for _ in range(3):
                with arena.holding(np.zeros(4096, np.uint8)) as slot:
                    assert slot is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ["pixels go through sockets" in line["event"] for line in lines] == [True]
    with arena.holding(np.ones(4096, np.uint8)) as slot:
        assert slot is not None
        assert bytes(arena.read(slot, 4096)) == bytes([1]) * 4096
    assert arena.free == 2


def test_slots_take_no_addresses() -> None:
    """`ulimit -v` bounds what can be mapped; this would be more than any processor can address."""
    arena = Arena(slots=2**20, slot_bytes=2**40)
    with arena.holding(np.array([1, 2, 3], np.uint8)) as slot:
        assert slot == 0
        assert arena.read(slot, 3) == bytearray([1, 2, 3])


def test_what_was_never_written_is_not_read() -> None:
    with pytest.raises(ValueError, match="no 3 bytes at 0"):
        Arena(slots=1, slot_bytes=4096).read(0, 3)


@pytest.mark.parametrize(("slot", "nbytes"), [(1, 1), (-1, 1), (0, 4097), (0, -1)])
def test_nothing_else_is_read(slot: int, nbytes: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        Arena(slots=1, slot_bytes=4096).read(slot, nbytes)


def answer(arena: Arena, connection: Connection) -> None:
    connection.send(bytes(arena.read(0, 3)))


def test_another_process_sees_what_is_put_and_no_name_is_left() -> None:
    before = set(Path("/dev/shm").iterdir())
    context = multiprocessing.get_context("spawn")
    arena = Arena(slots=1, slot_bytes=4096)
    ours, theirs = context.Pipe()
    with arena.holding(np.array([1, 2, 3], np.uint8)):
        process = context.Process(target=answer, args=(arena, theirs))
        process.start()
        assert ours.poll(30)
        assert ours.recv() == b"\1\2\3"
        process.join(30)
    assert set(Path("/dev/shm").iterdir()) == before
