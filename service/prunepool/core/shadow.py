"""Shadow accuracy: a sample of the reduced answers, compared with the dense model when there is time.

What a ratio costs was measured on some images; these are the ones that really come. A sampled image waits,
in a queue that is short and drops what it cannot take, until the device is idle, and is then run dense by
itself. Nobody waits for it: at worst the next batch starts one dense image later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from prunepool.core.logits import best_class
from prunepool.core.types import Pixels, RatioSpec, Request, Result
from prunepool.metrics import Metrics, reduction_band

#: Samples that wait; of 224-pixel crops about 5 MB.
_MOST_WAITING = 32
#: Of an image in the running mean, once enough were seen: about the last hundred count.
_WEIGHT = 0.02


class Answered(Protocol):
    """What :class:`asyncio.Future` has of use here."""

    def add_done_callback(self, callback: Callable[[Answered], object], /) -> object:
        """Have it called once there is an answer."""

    def cancelled(self) -> bool:
        """Whether there will be none."""

    def exception(self) -> BaseException | None:
        """Why there is none."""

    def result(self) -> Result:
        """The answer."""


class IdleDevice(Protocol):
    """What a scheduler is to the shadow."""

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""

    def when_idle(self, callback: Callable[[], object]) -> None:
        """Have this called whenever that comes about."""

    def spare(self, request: Request) -> Answered:
        """Run one image by itself."""


@dataclass(frozen=True, slots=True)
class _Sample:
    pixels: Pixels
    band: str
    best: int


class Shadow:
    """Runs samples of one model's traffic again.

    Args:
        device: that runs them.
        model: the value of the label.
        share: of the reduced answers that are sampled, 0 … 1.
        metrics: the service's series.
        random: decides which.
        clock: seconds, as the device's.
    """

    def __init__(
        self,
        device: IdleDevice,
        model: str,
        share: float,
        *,
        metrics: Metrics,
        random: Random,
        clock: Callable[[], float],
    ) -> None:
        self._device = device
        self._model = model
        self._share = share
        self._metrics = metrics
        self._random = random
        self._clock = clock
        self._waiting: deque[_Sample] = deque()
        self._seen: dict[str, tuple[int, float]] = {}
        device.when_idle(self._next)

    def offer(self, pixels: Pixels, done: Result) -> None:
        """Consider an answer for the sample; the dense model's own answers are not of it."""
        if done.ratio <= 0 or self._random.random() >= self._share:
            return
        if len(self._waiting) == _MOST_WAITING:
            self._metrics.shadow_dropped.labels(self._model).inc()
            return
        self._waiting.append(_Sample(pixels, reduction_band(done.ratio), best_class(done.output.logits)))
        self._next()

    def _next(self) -> None:
        if self._waiting and self._device.idle:
            sample = self._waiting.popleft()
            answer = self._device.spare(Request(sample.pixels, RatioSpec(0.0, 0.0), self._clock()))
            answer.add_done_callback(partial(self._compare, sample))

    def _compare(self, sample: _Sample, answer: Answered) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._metrics.shadow_dropped.labels(self._model).inc()
        else:
            dense = answer.result()
            agrees = best_class(dense.output.logits) == sample.best
            self._metrics.shadow_seconds.labels(self._model).inc(dense.inference_s)
            self._metrics.shadow_images.labels(self._model, sample.band, str(agrees).lower()).inc()
            self._metrics.shadow_agreement.labels(self._model, sample.band).set(
                self._mean(sample.band, agrees)
            )
        self._next()

    def _mean(self, band: str, agrees: bool) -> float:
        """The mean of a band with one more image: of all at first, later of the latest mostly."""
        images, mean = self._seen.get(band, (0, 0.0))
        mean += (agrees - mean) * max(_WEIGHT, 1 / (images + 1))
        self._seen[band] = images + 1, mean
        return mean
