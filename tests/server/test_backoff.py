"""Pauses before a process is started again."""

from __future__ import annotations

from prunepool.server.backoff import MAX_DELAY_S, STABLE_S, RestartBackoff


def test_a_process_that_is_never_ready_is_tried_less_and_less() -> None:
    backoff = RestartBackoff()
    delays = [backoff.died(0.0) for _ in range(20)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY_S


def test_one_that_served_for_some_seconds_is_replaced_at_once_however_often_it_is_killed() -> None:
    backoff = RestartBackoff()
    assert {backoff.died(STABLE_S + 0.1) for _ in range(20)} == {0.1}


def test_one_that_served_ends_a_row_of_failures() -> None:
    backoff = RestartBackoff()
    for _ in range(5):
        backoff.died(0.0)
    backoff.died(STABLE_S + 0.1)
    assert backoff.died(0.0) == 0.1
