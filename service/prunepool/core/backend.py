"""The contract between the core and what computes: a backend is one file that implements :class:`Backend`.

NumPy arrays in, :class:`~prunepool.core.types.Output` out. The worker calls a backend from one thread, its own::

    factory() ──▶ warm_up() ──▶ prepare(batch) ──▶ run(batch, prepared) ──▶ … ──▶ close()

A backend whose device computes while the calling thread goes on implements :class:`AsynchronousBackend` as well;
the worker then prepares and launches a batch while the device computes the one before::

    launch(batch, prepared, wake) ──▶ done(launched)? ──▶ collect(batch, launched)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from prunepool.core.types import Batch, Output


class OutOfMemory(Exception):
    """The device has no memory for this batch; half of it may fit."""


class Backend(Protocol):
    """Owns one model on one device. All calls come from the thread that made it."""

    def warm_up(self) -> None:
        """Do what would make the first batches slow; called once, before readiness.

        Raises:
            Exception: the backend cannot be used; at the first start the model is then not served.
        """

    def prepare(self, batch: Batch) -> object:
        """Copy the pixels of a batch to where the device reads them.

        Returns:
            Anything; it is passed to :meth:`run` or :meth:`AsynchronousBackend.launch` once.

        Raises:
            OutOfMemory: the device has no memory for them.
        """

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Compute a batch.

        Args:
            batch: at least one item; items of one ratio stand next to each other.
            prepared: what :meth:`prepare` returned for it.

        Returns:
            One output per item, in batch order.

        Raises:
            OutOfMemory: the device has no memory for this batch; the scheduler tries its halves.
            Exception: the backend is unusable; the worker closes it and makes another.
        """

    def close(self) -> None:
        """Free the device. Idempotent; also called after an error."""


@runtime_checkable
class AsynchronousBackend(Backend, Protocol):
    """A backend whose device computes one batch while the thread prepares and launches the next.

    At most two batches are launched and not yet collected; they are collected in the order of their launch.

    Attributes:
        poll_s: seconds between two calls of :meth:`done`, while the worker waits for a batch to launch.
        orders_models: whether the device orders the batches of several models itself, as a GPU does; where it does
            not, only one model has batches launched at a time.
    """

    poll_s: float
    orders_models: bool

    def launch(self, batch: Batch, prepared: object, wake: Callable[[], object]) -> object:
        """Queue a batch on the device and return at once.

        Args:
            batch: as for :meth:`run`.
            prepared: what :meth:`prepare` returned for it.
            wake: may be called, from any thread, when it is time to call :meth:`done`.

        Returns:
            Anything; it is passed to :meth:`done` and :meth:`collect`.

        Raises:
            OutOfMemory: the device has no memory for this batch; the scheduler tries its halves.
            Exception: the backend is unusable. Batches launched before are still collected if they can be.
        """

    def done(self, launched: object) -> bool:
        """Whether :meth:`collect` would return without waiting."""

    def collect(self, batch: Batch, launched: object) -> Sequence[Output]:
        """Wait for a launched batch.

        Returns:
            One output per item, in batch order.

        Raises:
            Exception: the backend is unusable.
        """
