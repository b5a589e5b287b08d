"""The change from a worker to a better one, while the first goes on serving.

A backend may learn that one made now would be faster: its model has been converted meanwhile. The new worker is
made, warmed up and timed beside the old one, which then gets no further batch; when it has reported those that it
was given, the new one takes over. Nothing is refused or run twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from prunepool.core.events import Ended, Event, Ready
from prunepool.core.timer import Timer
from prunepool.core.worker import Worker

log = logging.getLogger(__name__)


class Renewal:
    """At most one worker that is to take over.

    Args:
        name: of the model.
        start_timeout_s: how long it may take to get warm.
    """

    def __init__(self, name: str, start_timeout_s: float) -> None:
        self._name = name
        self._start_timeout_s = start_timeout_s
        self._worker: Worker | None = None
        self._ready: Ready | None = None
        self._timer = Timer()

    @property
    def pending(self) -> bool:
        """Whether the new worker is warm and waits for the old one's batches."""
        return self._ready is not None

    def begin(self, make: Callable[[], Worker]) -> None:
        """Start a worker, unless one is on its way."""
        if self._worker is not None:
            return
        self._worker = make()
        self._timer.start_limit(self._start_timeout_s, self._on_timeout)
        try:
            self._worker.start()
        except RuntimeError:  # the system has no thread left to give
            log.warning("%s: no thread for a better engine; the one that runs stays", self._name)
            self.cancel()

    def handle(self, worker: Worker, event: Event) -> bool:
        """Handle an event of the new worker; False, and nothing is done, for one of another worker."""
        if worker is not self._worker:
            return False
        if isinstance(event, Ready):
            self._timer.cancel()
            self._ready = event
        elif isinstance(event, Ended):
            log.warning(
                "%s: the better engine died; the one that runs stays", self._name, exc_info=event.error
            )
            self.cancel()
        return True

    def complete(self) -> tuple[Worker, Ready]:
        """The new worker, from now on the only one."""
        assert self._worker is not None
        assert self._ready is not None
        taken = self._worker, self._ready
        self._worker = self._ready = None
        return taken

    def cancel(self) -> None:
        """Give the new worker up, if there is one."""
        self._timer.cancel()
        worker, self._worker, self._ready = self._worker, None, None
        if worker is not None:
            worker.abandon()

    def _on_timeout(self) -> None:
        log.warning("%s: the better engine is not warm within %g s", self._name, self._start_timeout_s)
        self.cancel()
