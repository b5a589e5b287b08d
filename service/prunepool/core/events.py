"""What a worker reports to the event loop: it is ready, a batch was run, it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from prunepool.core.cost_model import TimedBatch
from prunepool.core.types import Batch, Output


class RunningBatch(NamedTuple):
    """The batch that the device computes now.

    Attributes:
        since: when the device began it.
        idle_before: whether the device was idle for :data:`~prunepool.core.cost_model.IDLE_S` before.
    """

    since: float
    idle_before: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """The backend is warm.

    Attributes:
        profile: the batches timed at warm-up; the first is a single dense image.
    """

    profile: tuple[TimedBatch, ...]


@dataclass(frozen=True, slots=True)
class BatchReport:
    """A batch was run.

    Attributes:
        batch: as given to the worker.
        ran: the part of it that reached the device; requests whose deadline had passed are left out.
        outputs: one per item of `ran`; None where the device had no memory for it.
        started: when the device began it.
        finished: when its outputs were in host memory.
        idle_before: whether the device was idle for :data:`~prunepool.core.cost_model.IDLE_S` before.
    """

    batch: Batch
    ran: Batch
    outputs: Sequence[Output] | None
    started: float
    finished: float
    idle_before: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker's thread is over and its backend is closed.

    Attributes:
        error: what ended it; None if it was told to stop.
        batch: the batch whose launch or computation raised that error; None if no batch did.
    """

    error: BaseException | None
    batch: Batch | None = None


Event: TypeAlias = Ready | BatchReport | Ended
