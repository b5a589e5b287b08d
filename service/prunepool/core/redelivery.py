"""What becomes of the requests of a batch that did not run: they go back to the queue, or fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunepool.core.batcher import Batcher
from prunepool.core.grace_period import RestartGrace
from prunepool.core.pending import PendingRequests
from prunepool.core.types import Batch
from prunepool.errors import EngineUnavailable


class Redelivery:
    """Decides for one model.

    Args:
        batcher: the queue.
        pending: the futures of its requests.
        grace: the restart grace period.
        unavailable: builds an error from a message, or from the worker's state if None.
    """

    def __init__(
        self,
        batcher: Batcher,
        pending: PendingRequests,
        grace: RestartGrace,
        unavailable: Callable[[str | None], EngineUnavailable],
    ) -> None:
        self._batcher = batcher
        self._pending = pending
        self._grace = grace
        self._unavailable = unavailable
        self._grace_expired = False

    @property
    def grace_expired(self) -> bool:
        """Whether the grace period expired before the worker was back."""
        return self._grace_expired

    def worker_died(self, lost: Batch | None, unstarted: Sequence[Batch]) -> None:
        """Put back what a worker had when it died.

        Args:
            lost: the batch that it died of, if it died of one.
            unstarted: the other batches that it was given.
        """
        for item in self._pending.still_pending(lost.items if lost else ()):
            item.request.attempts += 1
            if item.request.attempts > 1:
                error = self._unavailable("the engine died twice while it ran this image")
                self._pending.fail([item.request], error)
            else:
                # Alone, so that an image that kills workers takes no other with it a second time.
                self._batcher.put_back([item])
        for batch in unstarted:
            self._batcher.put_back(self._pending.still_pending(batch.items))
        self._grace.engine_died()

    def halve(self, batch: Batch) -> None:
        """Put back a batch that the device had no memory for: each half may fit."""
        items = self._pending.still_pending(batch.items)
        if len(batch.items) == 1:
            error = self._unavailable("the device has no memory left for even this one image")
            self._pending.fail([item.request for item in items], error)
            return
        middle = (len(items) + 1) // 2
        self._batcher.put_back(items[:middle])
        self._batcher.put_back(items[middle:])

    def give_up(self) -> None:
        """Fail the queue: the grace period expired and the worker is not back."""
        self._grace_expired = True
        self._pending.fail(self._batcher.clear(), self._unavailable(None))

    def worker_is_up(self) -> None:
        """Requests may wait again."""
        self._grace_expired = False

    def batch_succeeded(self) -> None:
        """A batch succeeded: cancel the grace period."""
        self._grace.batch_succeeded()

    def cancel(self) -> None:
        """Stop the timer of the grace period."""
        self._grace.cancel()
