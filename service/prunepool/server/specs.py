"""What each process of the server is told when it is started."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from prunepool.machine import compute_threads
from prunepool.settings import Settings
from prunepool.transport.zmq.running_table import RunningTable
from prunepool.transport.zmq.shared_memory import Arena


def needs_processes(settings: Settings) -> bool:
    """Whether the settings ask for processes of their own."""
    return settings.engine == "process" or settings.frontends > 1 or settings.devices is not None


def devices(settings: Settings) -> tuple[str, ...]:
    """The device of each engine process."""
    return settings.devices or (settings.device,)


def share_of_cores(engines: int) -> int:
    """Threads for each of so many engines on one machine, so that together they have a thread for each core."""
    return max(1, compute_threads() // engines)


@dataclass(frozen=True)
class Place:
    """Where a process belongs.

    Attributes:
        name: what it is called in log lines and metrics.
        number: among those of its kind.
        settings: everything about the server.
        folder: the server's sockets and metrics.
        parent: the way to the parent.
        arenas: the shared memory of each front end.
        running: what the device of each engine has.
    """

    name: str
    number: int
    settings: Settings
    folder: Path
    parent: Connection
    arenas: Sequence[Arena]
    running: Sequence[RunningTable]

    @property
    def metrics(self) -> Path:
        """The series of all processes."""
        return self.folder / "metrics"

    @property
    def models(self) -> Path:
        """The models that are to be served, as the parent has pinned them."""
        return self.folder / "models"

    def address(self, engine: int) -> str:
        """Where an engine process listens."""
        return f"ipc://{self.folder}/engine-{engine}.sock"


@dataclass(frozen=True)
class EngineSpec:
    """An engine process.

    Attributes:
        place: where it belongs.
        incarnation: how many there were before it in its place.
    """

    place: Place
    incarnation: int


class EngineReady(NamedTuple):
    """What an engine process says to its parent when it is ready; texts, as every call between them.

    Attributes:
        device: where it computes.
        dtype: the number format that it computes in.
        profiles: its warm-up profiles, JSON.
        models: names of what it serves, separated by commas.
    """

    device: str
    dtype: str
    profiles: str
    models: str


@dataclass(frozen=True)
class FrontendSpec:
    """A front end.

    Attributes:
        place: where it belongs.
        sockets: what it listens on.
    """

    place: Place
    sockets: tuple[socket.socket, ...]
