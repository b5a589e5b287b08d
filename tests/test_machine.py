"""What a process that runs models asks of the machine."""

from __future__ import annotations

from prunepool.machine import share_cores


def test_waiting_threads_sleep_unless_told_otherwise() -> None:
    environment: dict[str, str] = {}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_what_the_operator_set_stays() -> None:
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE"}
