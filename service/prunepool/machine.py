"""What a process that runs models asks of the machine: threads that sleep, memory that stays."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping

#: glibc's numbers for mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: At most so much free memory stays at the end of a heap; longer blocks than the second are mapped singly.
_KEPT_BYTES, _MAPPED_BYTES = 512 << 20, 128 << 20


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Let the model's threads sleep rather than spin while they wait for each other.

    They share the cores with decoding and with the event loop. A spinning thread holds a core that the one it
    waits for may need, and on a busy machine a server that spins answers several times fewer images. OpenMP
    reads this once, when torch is imported. Whoever has set it keeps what they set.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let freed memory stay with the process, for the next batch to use.

    A forward pass on the CPU takes and frees the same tens of megabytes block after block. By default glibc
    gives blocks of that length back to the system each time, which then has to clear every page anew: a sixth
    of the time of a batch of 32 (DeiT-S). Whoever has tuned malloc by the environment keeps what they set.

    Returns:
        Whether it is so now; another C library than glibc is left as it is.
    """
    if any(key in environment for key in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return False
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
    )
