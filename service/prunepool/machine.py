"""Cores of this process, and process-wide settings of OpenMP and of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path

#: Iterations, some tens of microseconds, for which a waiting thread spins before it sleeps. Waking it takes
#: longer than most waits between two operations on small batches.
_SPIN_COUNT = 2000
#: glibc maps each block longer than this by itself, and unmaps it when it is freed. This is the highest value
#: allowed.
_MMAP_THRESHOLD_BYTES = 32 << 20
#: The same where no layer allocates and frees such blocks: OpenVINO keeps its own, and takes longer ones at times.
#: What those leave free in the heap would stay there.
_MMAP_THRESHOLD_BYTES_WITHOUT_LAYERS = 1 << 20
#: Free memory that a heap keeps at its end: what one layer frees, the next one allocates.
_TRIM_THRESHOLD_BYTES = 64 << 20
#: Cores whose threads share a heap. No higher number was tried.
_CORES_PER_HEAP = 8
#: Where Linux shows its control groups, and which of them this process is in.
_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

_MEMINFO = Path("/proc/meminfo")
#: From here on the first version of control groups means none.
_NO_LIMIT_V1 = 1 << 60

#: Reads a limit of a control group; None if it has none.
_Read = Callable[[Path], float | None]

#: A number of threads that a machine may have: another one is no operator's choice.
_THREADS = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
#: Where Linux shows which logical cores share a physical one.
_CORES = Path("/sys/devices/system/cpu")


def available_cores() -> int:
    """Cores that this process may keep busy: those of its affinity, at most its CPU quota, rounded up.

    A quota is what Docker's `--cpus` and Kubernetes' limits set. More threads than it allows would use it up early
    in each period and then all stand still.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def compute_threads(environment: Mapping[str, str] = os.environ) -> int:
    """Threads that a model computes with by default: one for each physical core, as far as the CPU quota allows.

    Two threads of one core share its vector units, so the second one adds nothing to a matrix product.

    Args:
        environment: environment variables of the process; OMP_NUM_THREADS is the operator's own number.
    """
    wanted = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    if _THREADS.fullmatch(wanted):
        return int(wanted)
    physical = {_siblings(core) for core in os.sched_getaffinity(0)}
    return min(len(physical), available_cores())


def _siblings(core: int, cores: Path = _CORES) -> str:
    """The logical cores of a core's physical one; the core alone, if the system does not say."""
    try:
        return (cores / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return str(core)


def cpu_quota(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """The CPU quota of this process's control group, in cores; None if it has none.

    The smallest of the group's own and its parents', of both versions of control groups. In a container the path of
    the group may be the host's, which the container does not see; its own group is then the root of what it sees.

    Args:
        cgroups: where control groups are mounted.
        membership: lists the groups of the process, one a line, as `hierarchy:controllers:path`.
    """
    return _limits(cgroups, membership, "cpu", _quota_v2, _quota_v1)


def _limits(cgroups: Path, membership: Path, controller: str, v2: _Read, v1: _Read) -> float | None:
    """The smallest limit of a controller in this process's control groups and their parents."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return None
    limits: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            limits += _quotas(cgroups, path, v2)
        elif controller in controllers.split(","):
            limits += _quotas(cgroups / controllers, path, v1)
            limits += _quotas(cgroups / controller, path, v1)
    return min(limits, default=None)


def _quotas(mount: Path, path: str, read: _Read) -> Iterator[float]:
    """The limits of a control group and of its parents up to the mount point."""
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if folder != mount and mount not in folder.parents:
            return
        try:
            quota = read(folder)
        except (OSError, ValueError):  # the root has none; the host's path is not seen in a container
            continue
        if quota is not None:
            yield quota


def _quota_v2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else None


def memory_limit(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int | None:
    """Bytes of memory that this process's control group may use; None if it has no limit.

    Args:
        cgroups: as for :func:`cpu_quota`.
        membership: as for :func:`cpu_quota`.
    """
    limits = _limits(cgroups, membership, "memory", _memory_v2, _memory_v1)
    return None if limits is None else int(limits)


def available_memory(meminfo: Path = _MEMINFO) -> int | None:
    """Bytes of memory that the machine could give now without swapping; None if the system does not say."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found[1]) * 1024


def _memory_v2(group: Path) -> float | None:
    text = (group / "memory.max").read_text().strip()
    return None if text == "max" else float(text)


def _memory_v1(group: Path) -> float | None:
    limit = float((group / "memory.limit_in_bytes").read_text())
    return limit if limit < _NO_LIMIT_V1 else None


def set_openmp_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Make the model's OpenMP threads sleep instead of spinning while they wait for each other.

    They share the cores with decoding and the event loop. A spinning thread occupies a core that the thread it
    waits for may need: on a busy machine, throughput drops several times. OpenMP reads the variables once, when
    torch is imported. A policy that the user has set stays.

    Args:
        environment: environment variables of the process; changed in place.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        # GNU's OpenMP prefers this to the policy; others ignore it.
        environment.setdefault("GOMP_SPINCOUNT", str(_SPIN_COUNT))


def tune_malloc(environment: Mapping[str, str] = os.environ, *, layers: bool = True) -> tuple[str, ...]:
    """Make glibc keep freed memory in the process, and share heaps among threads.

    By default glibc adapts how much freed memory it keeps to what the process has freed before. If that is too
    little, it returns tens of megabytes to the system after every layer, and the kernel clears the pages anew,
    which can take a good part of a batch's time. By default each thread also has a heap of its own with free
    memory of its own, which together hold more than a shared heap. Decoding and the model allocate few, long
    blocks, so they do not contend for it. Call this before threads start, because a thread keeps its heap. What
    the environment sets stays.

    Args:
        environment: environment variables of the process.
        layers: whether PyTorch computes here, which allocates and frees long blocks at every layer. Otherwise those
            are returned when they are freed.

    Returns:
        The parameters that were set, by their names in mallopt(3); none with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return ()
    heaps = max(1, available_cores() // _CORES_PER_HEAP)
    longest = _MMAP_THRESHOLD_BYTES if layers else _MMAP_THRESHOLD_BYTES_WITHOUT_LAYERS
    # For each parameter: its number in malloc.h, its environment variable, its value.
    wanted = {
        "mmap_threshold": (-3, "MALLOC_MMAP_THRESHOLD_", longest),
        "trim_threshold": (-1, "MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD_BYTES),
        "arena_max": (-8, "MALLOC_ARENA_MAX", heaps),
    }
    tunables = environment.get("GLIBC_TUNABLES", "")
    return tuple(
        name
        for name, (number, variable, value) in wanted.items()
        if variable not in environment and f"glibc.malloc.{name}=" not in tunables and mallopt(number, value)
    )


def trim_heap() -> None:
    """Return free memory in the middle of heaps to the system; long-lived blocks keep it from their ends.

    Call this about once a minute: it takes some milliseconds, in which other threads cannot allocate, and the
    kernel clears the pages anew when they are needed again. It does nothing with another C library than glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
