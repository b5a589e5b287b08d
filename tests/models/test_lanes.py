"""How a batch is cut into pieces for the cores, and the threads that run them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunepool.models.lanes import Lanes, faster, pieces


@given(images=st.integers(1, 200), lanes=st.integers(1, 16), most=st.integers(1, 9))
def test_every_image_is_in_one_piece(images: int, lanes: int, most: int) -> None:
    cut, rest = pieces(images, lanes, most)
    members = [row for own in cut for row in range(images)[own]] + list(range(images)[rest])
    assert sorted(members) == list(range(images))


@given(images=st.integers(1, 200), lanes=st.integers(2, 16), most=st.integers(1, 9))
def test_no_lane_has_more_to_do_than_another(images: int, lanes: int, most: int) -> None:
    cut, rest = pieces(images, lanes, most)
    sizes = [len(range(images)[own]) for own in cut]
    assert len(cut) % lanes == 0
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(range(images)[rest]) < lanes


def test_one_core_or_one_image_is_not_cut() -> None:
    assert pieces(7, 1) == ([], slice(0, 7))
    assert pieces(1, 4) == ([], slice(0, 1))


def test_a_piece_is_a_sample_of_the_whole_batch() -> None:
    """A batch is sorted by ratio: pieces of neighbours would not take equally long."""
    cut, _ = pieces(8, 2)
    assert [list(range(8))[own] for own in cut] == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made = Lanes(2)
    yield made
    made.close()


def test_a_lane_computes_on_one_core_and_leaves_the_others_theirs(lanes: Lanes) -> None:
    before = torch.get_num_threads()

    def threads(_: int) -> int:
        torch.ones(300, 300) @ torch.ones(300, 300)
        return torch.get_num_threads()

    assert lanes.run(threads, range(8)) == [1] * 8
    assert torch.get_num_threads() == before


def test_results_come_in_order_and_a_failure_is_raised(lanes: Lanes) -> None:
    assert lanes.run(lambda part: part * 10, range(5)) == [0, 10, 20, 30, 40]

    def fails(part: int) -> int:
        raise torch.OutOfMemoryError(f"part {part}")

    with pytest.raises(torch.OutOfMemoryError, match="part 0"):
        lanes.run(fails, range(3))


def test_the_faster_of_two_is_told_by_its_best_time() -> None:
    now = 0.0

    def takes(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert faster(lambda: takes(1.0), lambda: takes(1.5), clock=lambda: now)
    assert not faster(lambda: takes(1.5), lambda: takes(1.0), clock=lambda: now)
