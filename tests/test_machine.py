"""What a process that runs models asks of the machine."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from prunepool.machine import keep_memory, share_cores

#: Prints how many new pages a process needs for layers that take and free the same blocks again and again.
LAYERS = """
import sys, resource
from prunepool.machine import keep_memory
assert keep_memory({"MALLOC_ARENA_MAX": "8"} if sys.argv[1] == "tuned" else {}) is (sys.argv[1] == "kept")
import numpy as np
def layer():
    blocks = [np.ones(10 << 20, np.uint8) for _ in range(5)]
layer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    layer()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back layer by layer")
def test_memory_stays_for_the_next_layer_unless_malloc_is_tuned() -> None:
    def pages(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", LAYERS, how], capture_output=True, text=True, check=True, timeout=60
        )
        return int(done.stdout)

    one_layer = 5 * (10 << 20) // resource.getpagesize()
    assert pages("kept") < one_layer
    assert pages("tuned") > 2 * one_layer


def test_malloc_tuned_by_glibcs_own_variable_stays() -> None:
    assert not keep_memory({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"})
