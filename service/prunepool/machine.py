"""What a process that runs models asks of the machine: threads that soon sleep, memory that stays."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping

#: How often a waiting thread looks again before it sleeps, some tens of microseconds. Waking a sleeper takes
#: longer than most waits between two operations on small batches.
_LOOKS = 2000
#: glibc maps blocks longer than this singly, and gives them back as soon as they are freed; more it does not allow.
_MAPPED_BYTES = 32 << 20
#: So much free memory stays at the end of a heap: what a layer frees and the next one takes.
_KEPT_BYTES = 64 << 20
#: Cores whose threads share a heap. More than these were not tried.
_CORES_A_HEAP = 8


def set_openmp_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Let the model's threads sleep rather than spin for long while they wait for each other.

    They share the cores with decoding and with the event loop. A spinning thread holds a core that the one it
    waits for may need, and on a busy machine a server that spins answers several times fewer images. OpenMP
    reads this once, when torch is imported. Whoever has set how threads wait keeps what they set.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        # GNU's OpenMP takes this before the policy, others do not know it.
        environment.setdefault("GOMP_SPINCOUNT", str(_LOOKS))


def tune_malloc(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Let what a layer frees stay with the process, for the next layer to use.

    By default glibc learns from what is freed how much to keep, and what it has learnt depends on what the
    process did before. Where that is too little, it gives tens of megabytes back after every layer, and the
    system clears their pages anew, which can take a good part of a batch's time. And each thread has a
    heap of its own, with a rest of its own: together they take longer to fill, and hold more, than one for all,
    which the few long blocks of decoding and of the model do not fight over. To be called before there are
    many threads, for whoever has a heap keeps it. What the environment sets stays as it is set.

    Returns:
        What was asked of glibc, by its own names (mallopt(3)); nothing of another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return ()
    heaps = max(1, len(os.sched_getaffinity(0)) // _CORES_A_HEAP)
    # glibc's number of each, its variable in the environment, and what to set.
    wanted = {
        "mmap_threshold": (-3, "MALLOC_MMAP_THRESHOLD_", _MAPPED_BYTES),
        "trim_threshold": (-1, "MALLOC_TRIM_THRESHOLD_", _KEPT_BYTES),
        "arena_max": (-8, "MALLOC_ARENA_MAX", heaps),
    }
    tunables = environment.get("GLIBC_TUNABLES", "")
    return tuple(
        name
        for name, (number, variable, value) in wanted.items()
        if variable not in environment and f"glibc.malloc.{name}=" not in tunables and mallopt(number, value)
    )


def trim_heap() -> None:
    """Give back what is free in the middle of heaps, where long-lived blocks keep it from their ends.

    It takes some milliseconds, in which whoever asks for memory waits, and what is needed again is cleared anew:
    for once a minute. Another C library than glibc is left as it is.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
