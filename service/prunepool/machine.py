"""What a process that runs models asks of the machine: threads that sleep."""

from __future__ import annotations

from collections.abc import MutableMapping


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Let the model's threads sleep rather than spin while they wait for each other.

    They share the cores with decoding and with the event loop. A spinning thread holds a core that the one it
    waits for may need, and on a busy machine a server that spins answers several times fewer images. OpenMP
    reads this once, when torch is imported. Whoever has set it keeps what they set.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
