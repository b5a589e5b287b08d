"""What a worker reports to the event loop, and what its supervisor tells the scheduler of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

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


class EventHandler(Protocol):
    """Takes the events of a supervised worker; on the event loop."""

    def on_up(self, ready: Ready) -> None:
        """Batches can be given."""

    def on_renewed(self, ready: Ready) -> None:
        """Another worker has taken over; times of the one before no longer hold."""

    def on_report(self, report: BatchReport) -> None:
        """A batch was run."""

    def on_down(self, lost: Batch | None, unstarted: Sequence[Batch]) -> None:
        """The worker died, or a restart failed.

        Args:
            lost: the batch that it died of, if it died of one.
            unstarted: the other batches that it was given; they are not to blame.
        """

    def on_hopeless(self, error: BaseException) -> None:
        """Restarts in this process keep failing, the last one with this error; called once."""
