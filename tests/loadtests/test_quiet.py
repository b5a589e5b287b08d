"""The CPU time of other programs is separated from that of our own processes."""

from __future__ import annotations

import pytest
from quiet import Use


def test_our_own_cpu_time_is_not_others() -> None:
    before = Use(own={1: 10.0}, busy=100.0, total=200.0)
    after = Use(own={1: 13.0, 2: 1.0}, busy=106.0, total=210.0)
    assert after.others_since(before) == pytest.approx(0.2)


def test_no_cpu_time_is_used_if_no_time_passed() -> None:
    now = Use(own={}, busy=1.0, total=2.0)
    assert now.others_since(now) == 0.0
