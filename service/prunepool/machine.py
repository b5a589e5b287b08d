"""What a process that runs models asks of the machine: threads that soon sleep."""

from __future__ import annotations

from collections.abc import MutableMapping

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
