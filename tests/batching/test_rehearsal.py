from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prunepool.batching.rehearsal import rehearsal


@given(st.sampled_from([0.0, 0.5, 0.87]), st.integers(1, 600))
def test_from_one_dense_image_up_to_the_largest_batch(max_ratio: float, max_batch_size: int) -> None:
    batches = rehearsal(max_ratio, max_batch_size)
    sizes = [len(batch) for batch in batches]
    assert batches[0] == (0.0,)
    assert sizes == sorted(sizes)
    assert sizes[-1] == max_batch_size
    assert all(0 <= ratio <= max_ratio for batch in batches for ratio in batch)
    assert all(list(batch) == sorted(batch) for batch in batches)
    assert len(batches) == len(set(batches)) <= 10


def test_ends_and_middle_of_the_dial_in_three_sizes_and_a_mix() -> None:
    batches = rehearsal(0.8, 32)
    assert {(len(batch), batch[0]) for batch in batches if len(set(batch)) == 1} == {
        (size, ratio) for size in (1, 8, 32) for ratio in (0.0, 0.4, 0.8)
    }
    assert [len(set(batch)) for batch in batches if len(set(batch)) > 1] == [4]
