"""Process-wide settings of OpenMP and of the C library's memory allocator, for processes that run models."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping

#: Iterations, some tens of microseconds, for which a waiting thread spins before it sleeps. Waking it takes
#: longer than most waits between two operations on small batches.
_SPIN_COUNT = 2000
#: glibc maps each block longer than this by itself, and unmaps it when it is freed. This is the highest value
#: allowed.
_MMAP_THRESHOLD_BYTES = 32 << 20
#: Free memory that a heap keeps at its end: what one layer frees, the next one allocates.
_TRIM_THRESHOLD_BYTES = 64 << 20
#: Cores whose threads share a heap. No higher number was tried.
_CORES_PER_HEAP = 8


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


def tune_malloc(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Make glibc keep freed memory in the process, and share heaps among threads.

    By default glibc adapts how much freed memory it keeps to what the process has freed before. If that is too
    little, it returns tens of megabytes to the system after every layer, and the kernel clears the pages anew,
    which can take a good part of a batch's time. By default each thread also has a heap of its own with free
    memory of its own, which together hold more than a shared heap. Decoding and the model allocate few, long
    blocks, so they do not contend for it. Call this before threads start, because a thread keeps its heap. What
    the environment sets stays.

    Args:
        environment: environment variables of the process.

    Returns:
        The parameters that were set, by their names in mallopt(3); none with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return ()
    heaps = max(1, len(os.sched_getaffinity(0)) // _CORES_PER_HEAP)
    # For each parameter: its number in malloc.h, its environment variable, its value.
    wanted = {
        "mmap_threshold": (-3, "MALLOC_MMAP_THRESHOLD_", _MMAP_THRESHOLD_BYTES),
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
