"""What a process that runs models asks of the machine: threads that soon sleep, memory that stays."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, MutableMapping

#: glibc maps blocks longer than this singly, and gives them back as soon as they are freed; more it does not allow.
_MAPPED_BYTES = 32 << 20
#: So much free memory stays at the end of a heap: what a layer frees and the next one takes.
_KEPT_BYTES = 64 << 20
#: glibc's numbers for mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

#: How often a waiting thread looks again before it sleeps, some tens of microseconds. Waking a sleeper takes
#: longer than most waits between two operations on small batches.
_LOOKS = 2000


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Let the model's threads sleep rather than spin for long while they wait for each other.

    They share the cores with decoding and with the event loop. A spinning thread holds a core that the one it
    waits for may need, and on a busy machine a server that spins answers several times fewer images. OpenMP
    reads this once, when torch is imported. Whoever has set how threads wait keeps what they set.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        # GNU's OpenMP takes this before the policy, others do not know it.
        environment.setdefault("GOMP_SPINCOUNT", str(_LOOKS))


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let what a layer frees stay with the process, for the next layer to use.

    By default glibc learns from what is freed how much to keep, and what it has learnt depends on what the
    process did before. Where that is too little, it gives tens of megabytes back after every layer, and the
    system clears their pages anew: a fifth of the time of a batch of eight (DeiT-S). And each thread has a
    heap of its own, with a rest of its own: together they take longer to fill, and hold more, than one for all,
    which the few long blocks of decoding and of the model do not fight over. Whoever tunes malloc by the
    environment keeps what they set.

    Returns:
        Whether it is so now; a C library without glibc's `mallopt` is left as it is.
    """
    if any(key.startswith("MALLOC_") for key in environment):
        return False
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    wanted = ((_M_MMAP_THRESHOLD, _MAPPED_BYTES), (_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_ARENA_MAX, 1))
    return mallopt is not None and all(bool(mallopt(*one)) for one in wanted)
