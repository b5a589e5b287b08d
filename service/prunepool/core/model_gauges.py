"""What one model's engine is doing now, as gauges.

When a model is replaced, two engines have it for a while, under the same labels: the one that answers is
active, the other keeps its figures to itself.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Gauge

from prunepool.metrics import Metrics


class ModelGauges:
    """The gauges of one engine of a model.

    Args:
        metrics: the service's series.
        model: the value of the label.
        active: whether it is the one that is looked at.
    """

    def __init__(self, metrics: Metrics, model: str, *, active: bool = True) -> None:
        self._model = model
        self._active = active
        self._metrics = metrics
        self._ratio_now: Callable[[], float] | None = None
        self._values: dict[tuple[Gauge, tuple[str, ...]], float] = {}

    def set(self, gauge: Gauge, value: float, *labels: str) -> None:
        """The value of a gauge from now on."""
        self._values[gauge, labels] = value
        if self._active:
            gauge.labels(self._model, *labels).set(value)

    def auto(self, ratio_now: Callable[[], float]) -> None:
        """What `auto` would apply, asked for whenever somebody looks: it falls while nothing happens."""
        self._ratio_now = ratio_now
        if self._active:
            self._metrics.ask(self._auto, ratio_now)

    def activate(self) -> None:
        """Be the one that is looked at."""
        self._active = True
        for (gauge, labels), value in self._values.items():
            gauge.labels(self._model, *labels).set(value)
        if self._ratio_now is not None:
            self._metrics.ask(self._auto, self._ratio_now)

    def deactivate(self) -> None:
        """Let another be looked at."""
        self._active = False

    def remove(self) -> None:
        """Leave nothing behind: the model is served no longer."""
        self.deactivate()
        for gauge, labels in self._values:
            gauge.remove(self._model, *labels)
        self._values.clear()
        if self._ratio_now is not None:
            self._metrics.ask_no_more(self._auto)
            self._metrics.auto_ratio.remove(self._model)
            self._ratio_now = None

    @property
    def _auto(self) -> Gauge:
        return self._metrics.auto_ratio.labels(self._model)
