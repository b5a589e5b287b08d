"""The futures of requests that wait: each is resolved or failed exactly once, or was given up by its caller."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator

from prunepool.core.events import BatchReport
from prunepool.core.types import BatchItem, Request, Result
from prunepool.errors import DeadlineExceeded, PrunepoolError


def _number_batches() -> Iterator[int]:
    """Number the batches of a process from where no other process's numbers start; they fit into 63 bits.

    The start is drawn when the first batch is numbered, not when this module is imported: processes that are forked
    from one that has imported it would all start alike.
    """
    yield from itertools.count(secrets.randbits(30) << 32)


#: One counter for all models of a process: batch ids are unique over engines and reloads.
_batch_ids = _number_batches()


class PendingRequests:
    """The pending requests of one model, each with the future that its caller awaits; for one event loop.

    Args:
        generation: of the model, for the results.
        applied: the share of patch tokens that a ratio really removes.
        batch_ids: numbers batches; those of this process, if not given.
    """

    def __init__(
        self,
        generation: str = "",
        applied: Callable[[float], float] = lambda ratio: ratio,
        batch_ids: Iterator[int] = _batch_ids,
    ) -> None:
        self._generation = generation
        self._applied = applied
        self._batch_ids = batch_ids
        self._futures: dict[Request, asyncio.Future[Result]] = {}

    @property
    def requests(self) -> list[Request]:
        """Every pending request."""
        return list(self._futures)

    def open(self, request: Request) -> asyncio.Future[Result]:
        """A future for a request's result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._futures[request] = future
        return future

    def forget(self, request: Request) -> bool:
        """Drop a request; whether it was still pending."""
        return self._futures.pop(request, None) is not None

    def is_pending(self, request: Request) -> bool:
        """Whether a caller still waits for a request."""
        future = self._futures.get(request)
        return future is not None and not future.done()

    def still_pending(self, items: Iterable[BatchItem]) -> list[BatchItem]:
        """The items whose callers still wait."""
        return [item for item in items if self.is_pending(item.request)]

    def fail(self, requests: Iterable[Request], error: PrunepoolError) -> None:
        """Fail some requests."""
        for request in requests:
            future = self._futures.pop(request, None)
            if future is not None and not future.done():
                future.set_exception(error)

    def fail_all(self, error: PrunepoolError) -> None:
        """Fail every pending request."""
        self.fail(list(self._futures), error)

    def resolve(self, report: BatchReport) -> None:
        """Resolve the requests of a batch that ran; fail those whose deadline came before it did."""
        ran = {item.request for item in report.ran.items}
        batch_id = next(self._batch_ids)
        for item in report.batch.items:
            if item.request not in ran:
                self.fail([item.request], too_late(item.request, report.started))
        for item, output in zip(report.ran.items, report.outputs or (), strict=False):
            future = self._futures.pop(item.request, None)
            if future is not None and not future.done():
                future.set_result(
                    Result(
                        output=output,
                        generation=self._generation,
                        ratio=item.ratio,
                        applied=self._applied(item.ratio),
                        reason=item.reason,
                        batch_id=batch_id,
                        batch_size=len(ran),
                        queue_s=report.started - item.request.arrival,
                        inference_s=report.finished - report.started,
                    )
                )


def too_late(request: Request, now: float) -> DeadlineExceeded:
    """The error of a request whose deadline came first."""
    assert request.deadline is not None
    allowed, waited = ((t - request.arrival) * 1000 for t in (request.deadline, now))
    return DeadlineExceeded(
        f"the deadline of {allowed:.0f} ms came before the device was free; waited {waited:.0f} ms"
    )
