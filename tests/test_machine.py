"""The settings of OpenMP and malloc."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prunepool.machine import (
    available_cores,
    available_memory,
    compute_threads,
    cpu_quota,
    memory_limit,
    set_openmp_wait_policy,
    trim_heap,
    tune_malloc,
)

#: Prints how many new pages a process needs for layers that take and free the same blocks again and again,
#: and how many heaps four threads have that each keep a block.
LAYERS = """
import sys, resource, threading
from pathlib import Path
from prunepool.machine import tune_malloc
asked = tune_malloc(dict(one.split("=", 1) for one in sys.argv[1:]))
import numpy as np
def layer():
    blocks = [np.ones(10 << 20, np.uint8) for _ in range(5)]
layer()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    layer()
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
kept, all_here = [], threading.Barrier(4)
def keep():
    all_here.wait()
    kept.append(np.ones(1 << 16, np.uint8))
    all_here.wait()
threads = [threading.Thread(target=keep) for _ in range(4)]
[one.start() for one in threads], [one.join() for one in threads]
# All but the first heap are 64 MiB from a multiple of that, of which the rest is not used yet.
lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
spans = [([int(end, 16) for end in line[0].split("-")], line[1]) for line in lines if len(line) == 5]
heaps = sum(
    used == "rw-p" and rest == "---p" and end == begin and start % (64 << 20) == 0 and over == start + (64 << 20)
    for ((start, end), used), ((begin, over), rest) in zip(spans, spans[1:])
)
print(pages, heaps, ",".join(asked) or "nothing")
"""

#: Prints the megabytes that a process holds after blocks of one, half of which are kept, and after giving back.
GAPS = """
import psutil
from prunepool.machine import trim_heap, tune_malloc
tune_malloc()
import numpy as np
blocks = [np.ones(1 << 20, np.uint8) for _ in range(200)]
del blocks[::2]
held = psutil.Process().memory_info().rss
trim_heap()
print(held >> 20, psutil.Process().memory_info().rss >> 20)
"""


def test_waiting_threads_soon_sleep_by_default() -> None:
    environment: dict[str, str] = {}
    set_openmp_wait_policy(environment)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 0 < int(environment["GOMP_SPINCOUNT"]) <= 10_000


@pytest.mark.parametrize("policy", ["ACTIVE", "PASSIVE"])
def test_what_the_operator_set_stays(policy: str) -> None:
    environment = {"OMP_WAIT_POLICY": policy}
    set_openmp_wait_policy(environment)
    assert environment == {"OMP_WAIT_POLICY": policy}


def test_the_operator_s_spin_count_stays() -> None:
    environment = {"GOMP_SPINCOUNT": "7"}
    set_openmp_wait_policy(environment)
    assert environment["GOMP_SPINCOUNT"] == "7"


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is tuned")


def observed(*environment: str) -> tuple[int, int, str]:
    """Return new pages, further heaps, and the parameters that were set."""
    command = [sys.executable, "-c", LAYERS, *environment]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    pages, heaps, asked = done.stdout.split()
    return int(pages), int(heaps), asked


@glibc
def test_memory_stays_for_the_next_layer_in_one_heap() -> None:
    one_layer = 5 * (10 << 20) // resource.getpagesize()
    pages, heaps, asked = observed()
    assert asked == "mmap_threshold,trim_threshold,arena_max"
    assert pages < one_layer
    assert heaps <= available_cores() // 8


@glibc
def test_what_the_operator_tunes_of_malloc_stays() -> None:
    one_layer = 5 * (10 << 20) // resource.getpagesize()
    thresholds = ("MALLOC_TRIM_THRESHOLD_=131072", "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072")
    pages, heaps, asked = observed(*thresholds)
    assert asked == "arena_max"
    assert pages > 2 * one_layer
    assert heaps <= available_cores() // 8
    pages, heaps, asked = observed("MALLOC_ARENA_MAX=2")
    assert asked == "mmap_threshold,trim_threshold"
    assert pages < one_layer
    assert heaps > 0


@glibc
def test_free_memory_between_lasting_blocks_is_returned() -> None:
    command = [sys.executable, "-c", GAPS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    held, left = map(int, done.stdout.split())
    assert left < held - 80


#: Prints the megabytes that a process holds with long blocks and after they were freed, a lasting one behind them.
LONG_BLOCKS = """
import psutil
from prunepool.machine import tune_malloc
tune_malloc(layers=False)
import numpy as np
blocks = [np.ones(4 << 20, np.uint8) for _ in range(25)]
last = np.ones(1 << 16, np.uint8)
held = psutil.Process().memory_info().rss >> 20
del blocks
print(held, psutil.Process().memory_info().rss >> 20)
"""


@glibc
def test_long_blocks_are_returned_at_once_where_no_layer_takes_the_next_ones() -> None:
    command = [sys.executable, "-c", LONG_BLOCKS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    held, left = map(int, done.stdout.split())
    assert left < held - 90


def test_another_c_library_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert tune_malloc({}) == ()
    trim_heap()


def control_groups(
    root: Path, membership: str, files: dict[str, str], read: Callable[[Path, Path], float | None] = cpu_quota
) -> float | None:
    """The limit that is read from these files below a mount point."""
    (root / "membership").write_text(membership)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read(root / "cgroup", root / "membership")


V2 = "0::/kubepods.slice/pod7/container\n"
V1 = "5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        pytest.param("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5, id="v2, a container's own root"),
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, None, id="v2, no quota"),
        pytest.param(
            V2,
            {
                "kubepods.slice/pod7/container/cpu.max": "400000 100000\n",
                "kubepods.slice/pod7/cpu.max": "200000 100000\n",
                "kubepods.slice/cpu.max": "max 100000\n",
            },
            2.0,
            id="v2, the parent has less",
        ),
        pytest.param(V2, {"cpu.max": "50000 100000\n"}, 0.5, id="v2, a path that only the host sees"),
        pytest.param(
            V1,
            {
                "cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
            id="v1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/host/only\n",
            {"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "50000\n"},
            0.5,
            id="v1, mounted by one controller's name",
        ),
        pytest.param("0::/\n", {"cpu.max": "broken\n"}, None, id="unreadable"),
        pytest.param("0::/../..\n", {}, None, id="a group above what the process sees"),
        pytest.param("3:cpuset:/\n", {"cpu.max": "1 1\n"}, None, id="another controller"),
    ],
)
def test_a_quota_is_found_where_each_version_has_it(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    assert control_groups(tmp_path, membership, files) == quota


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "2147483648\n"}, 2 << 30),
        ("0::/\n", {"memory.max": "max\n"}, None),
        (
            V2,
            {"kubepods.slice/memory.max": "4096\n", "kubepods.slice/pod7/container/memory.max": "8192\n"},
            4096,
        ),
        (V1, {"memory/docker/ab/memory.limit_in_bytes": "1048576\n"}, 1 << 20),
        (V1, {"memory/docker/ab/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ],
)
def test_the_limit_of_memory_is_found_where_each_version_has_it(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int | None
) -> None:
    assert control_groups(tmp_path, membership, files, memory_limit) == limit


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  8 kB\nMemAvailable:     5 kB\n")
    assert available_memory(tmp_path / "meminfo") == 5 * 1024
    assert available_memory(tmp_path / "none") is None


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.3, 1), (1.0, 1), (1.5, 2), (3.0, 3), (64.0, 8)])
def test_cores_follow_quota_and_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("prunepool.machine.cpu_quota", lambda: quota)
    assert available_cores() == cores


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (8.0, 4), (2.5, 3)])
def test_a_model_computes_with_one_thread_a_physical_core(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("prunepool.machine.cpu_quota", lambda: quota)
    monkeypatch.setattr("prunepool.machine._siblings", lambda core: f"{core % 4},{core % 4 + 4}")
    assert compute_threads({}) == threads


def test_the_operator_s_number_of_threads_stays() -> None:
    assert compute_threads({"OMP_NUM_THREADS": "3"}) == 3
    assert compute_threads({"OMP_NUM_THREADS": "5,2"}) == 5
    for no_number in ("many", "0", "-3", "9" * 20, "9" * 5000, "٣"):
        assert compute_threads({"OMP_NUM_THREADS": no_number}) == compute_threads({})
