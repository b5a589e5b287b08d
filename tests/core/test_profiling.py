from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunepool.core.cost_model import Effort, TimedBatch
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.profiling import profile_batches, worthwhile
from prunepool.core.ratio_policy import DefaultRatio
from prunepool.core.types import Limits, RatioSpec, Request

#: Billions of multiply-accumulates of a dense image.
IMAGE = 1.25


def dense(images: int, seconds: float) -> TimedBatch:
    return TimedBatch(Effort(1, images * IMAGE, 0, 0), seconds)


@given(st.sampled_from([0.0, 0.5, 0.87]), st.integers(1, 600))
def test_from_one_dense_image_up_to_the_largest_batch(max_ratio: float, max_batch_size: int) -> None:
    batches = profile_batches(max_ratio, max_batch_size)
    sizes = [len(batch) for batch in batches]
    assert batches[0] == (0.0,)
    assert sizes == sorted(sizes)
    assert sizes[-1] == max_batch_size
    assert all(0 <= ratio <= max_ratio for batch in batches for ratio in batch)
    assert all(list(batch) == sorted(batch) for batch in batches)
    assert len(batches) == len(set(batches)) <= 10


def test_ends_and_middle_of_the_ratios_in_three_sizes_and_a_mix() -> None:
    batches = profile_batches(0.8, 32)
    assert {(len(batch), batch[0]) for batch in batches if len(set(batch)) == 1} == {
        (size, ratio) for size in (1, 8, 32) for ratio in (0.0, 0.4, 0.8)
    }
    assert [len(set(batch)) for batch in batches if len(set(batch)) > 1] == [4]


def test_the_middle_size_has_eight_images_or_more_where_the_largest_has() -> None:
    for most in (9, 16, 31, 32):
        assert (0.0,) * 8 in profile_batches(0.8, most)
    assert (0.0,) * 64 in profile_batches(0.8, 256)


def test_a_run_grows_no_further_than_images_get_cheaper() -> None:
    processor = [dense(1, 0.012), dense(8, 0.08), dense(32, 0.32)]
    assert worthwhile(processor, IMAGE, 32) == 8
    accelerator = [dense(1, 0.005), dense(64, 0.02), dense(256, 0.07)]
    assert worthwhile(accelerator, IMAGE, 256) == 256
    assert worthwhile([*processor[:2], dense(32, 0.31)], IMAGE, 32) == 8  # 3 % are not worth the wait
    assert worthwhile([*processor[:2], dense(32, 0.30)], IMAGE, 32) == 32


def test_what_is_too_long_to_be_timed_does_not_pay() -> None:
    assert worthwhile([dense(1, 0.07), dense(8, 0.5)], IMAGE, 32) == 8
    assert worthwhile([dense(1, 0.7)], IMAGE, 32) == 8
    others = [TimedBatch(Effort(1, 16 * IMAGE, 3, 0), 0.001), TimedBatch(Effort(1, 16 * IMAGE, 0, 16), 0.001)]
    assert worthwhile([*others, dense(1, 0.7)], IMAGE, 32) == 8


def test_without_any_timing_nothing_is_limited() -> None:
    assert worthwhile([], IMAGE, 32) == 32
    assert worthwhile([dense(1, 0.7)], IMAGE, 4) == 4


def test_eight_images_are_always_allowed() -> None:
    assert worthwhile([dense(1, 0.01), dense(2, 0.02), dense(8, 0.08)], IMAGE, 8) == 8
    assert worthwhile([dense(1, 0.01), dense(2, 0.02), dense(4, 0.04)], IMAGE, 4) == 4
    assert worthwhile([dense(1, 0.01), dense(2, 0.02), dense(8, 0.1)], IMAGE, 8) == 8


@given(
    st.dictionaries(st.integers(1, 64), st.floats(1e-4, 10.0), max_size=6),
    st.integers(1, 64),
)
def test_the_limit_is_one_of_the_timed_sizes_or_the_largest(times: dict[int, float], most: int) -> None:
    found = worthwhile([dense(images, seconds) for images, seconds in times.items()], IMAGE, most)
    assert found in {most, min(8, most), *times}
    assert min(8, most) <= found <= most


class Costs:
    """Of a model that never lets tokens leave."""

    max_ratio = 0.0

    def gmacs(self, ratio: float) -> float:
        return IMAGE


def test_a_long_queue_is_run_in_batches_of_the_size_that_pays() -> None:
    planner = Planner(Costs(), DefaultRatio(0.0), Limits(max_batch_size=32, only_what_pays=True))
    idle = DeviceState((), None)

    def sizes(requests: int) -> list[int]:
        for _ in range(requests):
            planner.add(Request(np.zeros((1, 1, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0), 0.0)
        found = []
        while batch := planner.next_batch(0.0, device=idle, arriving={}):
            found.append(len(batch.items))
        return found

    assert sizes(40) == [32, 8]
    planner.fit_profile([dense(1, 0.012), dense(8, 0.08), dense(32, 0.32)])
    assert sizes(20) == [8, 8, 4]
    for _ in range(8):
        assert not planner.due(0.0, device_busy=True)
        planner.add(Request(np.zeros((1, 1, 3), np.uint8), RatioSpec(0.0, 0.0), 0.0), 0.0)
    assert planner.due(0.0, device_busy=True)


def test_batches_of_a_device_that_is_not_limited_grow_as_they_may() -> None:
    planner = Planner(Costs(), DefaultRatio(0.0), Limits(max_batch_size=32))
    planner.fit_profile([dense(1, 0.012), dense(8, 0.08), dense(32, 0.32)])
    assert planner.predictor.max_images == 32
