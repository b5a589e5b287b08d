"""What a process that runs models asks of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prunepool.machine import keep_memory, share_cores

_FAULTS = """
import resource, sys
import numpy as np
from prunepool.machine import keep_memory

if sys.argv[1] == "keep":
    assert keep_memory({})
np.ones(40 << 20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(40 << 20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_waiting_threads_sleep_unless_told_otherwise() -> None:
    environment: dict[str, str] = {}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_what_the_operator_set_stays() -> None:
    environment = {"OMP_WAIT_POLICY": "ACTIVE"}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE"}


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_TRIM_THRESHOLD_": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}],
    ids=["variable", "tunable"],
)
def test_a_malloc_that_the_operator_tuned_stays(environment: dict[str, str]) -> None:
    assert not keep_memory(environment)


def test_freed_memory_is_not_fetched_anew_from_the_system() -> None:
    faults = {}
    for mode in ("keep", "as it is"):
        command = [sys.executable, "-c", _FAULTS, mode]
        faults[mode] = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert faults["keep"] < faults["as it is"] / 10
