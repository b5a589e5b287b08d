"""What a process that runs models asks of the machine."""

from __future__ import annotations

import pytest

from prunepool.machine import share_cores


def test_waiting_threads_soon_sleep_unless_told_otherwise() -> None:
    environment: dict[str, str] = {}
    share_cores(environment)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 0 < int(environment["GOMP_SPINCOUNT"]) <= 10_000


@pytest.mark.parametrize("policy", ["ACTIVE", "PASSIVE"])
def test_what_the_operator_set_stays(policy: str) -> None:
    environment = {"OMP_WAIT_POLICY": policy}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": policy}


def test_how_long_the_operator_lets_threads_look_stays() -> None:
    environment = {"GOMP_SPINCOUNT": "7"}
    share_cores(environment)
    assert environment["GOMP_SPINCOUNT"] == "7"
