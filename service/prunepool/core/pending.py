"""Who waits for which request: each is answered or failed exactly once, or was given up by its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import count

from prunepool.core.events import BatchReport
from prunepool.core.types import BatchItem, Request, Result
from prunepool.errors import DeadlineExceeded, PrunepoolError


class PendingRequests:
    """The open requests of one model, each with the future that its caller awaits; for one event loop."""

    def __init__(self) -> None:
        self._futures: dict[Request, asyncio.Future[Result]] = {}
        self._batches = count()

    def open(self, request: Request) -> asyncio.Future[Result]:
        """Wait for a request's answer."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._futures[request] = future
        return future

    def forget(self, request: Request) -> bool:
        """Wait no more; whether the request was still open."""
        return self._futures.pop(request, None) is not None

    def awaited(self, request: Request) -> bool:
        """Whether a caller still waits."""
        future = self._futures.get(request)
        return future is not None and not future.done()

    def alive(self, items: Iterable[BatchItem]) -> list[BatchItem]:
        """Those whose callers still wait."""
        return [item for item in items if self.awaited(item.request)]

    def fail(self, requests: Iterable[Request], error: PrunepoolError) -> None:
        """Give requests an error for an answer."""
        for request in requests:
            future = self._futures.pop(request, None)
            if future is not None and not future.done():
                future.set_exception(error)

    def fail_all(self, error: PrunepoolError) -> None:
        """Give every open request an error for an answer."""
        self.fail(list(self._futures), error)

    def deliver(self, report: BatchReport) -> None:
        """Answer what was run, and tell those that were left out that they came too late."""
        ran = {item.request for item in report.ran.items}
        batch = next(self._batches)
        for item in report.batch.items:
            if item.request not in ran:
                self.fail([item.request], too_late(item.request, report.started))
        for item, outcome in zip(report.ran.items, report.outputs or (), strict=False):
            future = self._futures.pop(item.request, None)
            if future is not None and not future.done():
                future.set_result(
                    Result(
                        outcome=outcome,
                        ratio=item.ratio,
                        reason=item.reason,
                        batch=batch,
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
