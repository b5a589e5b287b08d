"""A token bucket never exceeds its rate and burst, and never makes a caller wait longer than needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunepool.access.buckets import Bucket, Rate, full, take

rates = st.builds(
    Rate, per_s=st.floats(0.001, 10_000), burst=st.floats(1, 10_000, allow_nan=False, allow_infinity=False)
)
#: Pauses between requests, and the images of each.
requests = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 200)), min_size=1, max_size=40)


def run(rate: Rate, asked: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The times and numbers of accepted images."""
    bucket, now, passed = full(rate, 0.0), 0.0, []
    for pause, images in asked:
        now += pause
        bucket, wait = take(rate, bucket, images, now)
        if not wait:
            passed.append((now, images))
    return passed


@given(rates, requests)
def test_no_period_exceeds_burst_and_rate(rate: Rate, asked: list[tuple[float, int]]) -> None:
    passed = run(rate, asked)
    for first, (start, _) in enumerate(passed):
        images = 0
        for end, count in passed[first:]:
            images += count
            allowed = rate.burst + rate.per_s * (end - start)
            assert images <= allowed * (1 + 1e-9) + 1e-3


@given(rates, st.floats(0, 1), st.integers(1, 200), st.floats(0, 1e6))
def test_the_wait_is_exactly_as_long_as_needed(rate: Rate, share: float, images: int, now: float) -> None:
    images = min(images, int(rate.burst))
    bucket = Bucket(share * rate.burst, now)
    after, wait = take(rate, bucket, images, now)
    if wait:
        assert after.level == bucket.level, "what is refused takes nothing"
        _, still = take(rate, after, images, now + wait)
        # A clock of large values cannot tell shorter times apart.
        assert still * rate.per_s <= 1e-6 + rate.per_s * now * 1e-12
        if wait > 0.01:
            assert take(rate, after, images, now + wait * 0.99)[1] > 0


@given(rates, requests)
def test_a_level_is_never_below_nothing_nor_above_the_burst(
    rate: Rate, asked: list[tuple[float, int]]
) -> None:
    bucket, now = full(rate, 0.0), 0.0
    for pause, images in asked:
        now += pause
        bucket, _ = take(rate, bucket, images, now)
        assert 0 <= bucket.level <= rate.burst


@given(rates)
def test_a_full_bucket_holds_its_burst_and_no_more(rate: Rate) -> None:
    bucket, wait = take(rate, full(rate, 5.0), int(rate.burst), 5.0)
    assert wait == 0
    assert take(rate, bucket, int(rate.burst - bucket.level) + 1, 5.0)[1] > 0


@pytest.mark.parametrize(
    ("after_s", "images", "wait_s"), [(0.0, 1, 0.1), (0.05, 1, 0.05), (0.1, 1, 0.0), (0.1, 2, 0.1), (9, 5, 0)]
)
def test_ten_images_a_second(after_s: float, images: int, wait_s: float) -> None:
    rate = Rate(per_s=10, burst=5)
    empty, _ = take(rate, full(rate, 0.0), 5, 0.0)
    assert take(rate, empty, images, after_s)[1] == pytest.approx(wait_s, abs=1e-6)


def test_a_pause_fills_the_bucket_up_to_the_burst() -> None:
    rate = Rate(per_s=10, burst=5)
    assert take(rate, full(rate, 0.0), 6, 1e6)[1] > 0


def test_a_clock_that_runs_backwards_gives_nothing_and_takes_nothing() -> None:
    rate = Rate(per_s=10, burst=5)
    empty, _ = take(rate, full(rate, 100.0), 5, 100.0)
    refused, wait = take(rate, empty, 1, 50.0)
    assert wait == pytest.approx(0.1)
    assert take(rate, refused, 1, 100.1)[1] == 0
