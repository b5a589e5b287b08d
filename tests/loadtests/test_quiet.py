"""What others take of the processor is told from what our own processes take."""

from __future__ import annotations

import pytest
from quiet import Use


def test_what_our_own_took_is_not_the_others() -> None:
    before = Use(own={1: 10.0}, busy=100.0, total=200.0)
    after = Use(own={1: 13.0, 2: 1.0}, busy=106.0, total=210.0)
    assert after.others_since(before) == pytest.approx(0.2)


def test_nothing_is_taken_where_no_time_passed() -> None:
    now = Use(own={}, busy=1.0, total=2.0)
    assert now.others_since(now) == 0.0
