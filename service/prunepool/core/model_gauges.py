"""The gauges of one model.

While a model is replaced, two schedulers have its name, and so the same labels. Only the active one exports its
gauges; the other keeps their values until it is activated.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Gauge

from prunepool.metrics import Metrics


class ModelGauges:
    """The gauges of one scheduler.

    Args:
        metrics: the service's series.
        model: the value of the label.
        active: whether they are exported.
    """

    def __init__(self, metrics: Metrics, model: str, *, active: bool = True) -> None:
        self._model = model
        self._active = active
        self._metrics = metrics
        self._ratio_now: Callable[[], float] | None = None
        self._values: dict[tuple[Gauge, tuple[str, ...]], float] = {}

    def set(self, gauge: Gauge, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._values[gauge, labels] = value
        if self._active:
            gauge.labels(self._model, *labels).set(value)

    def auto(self, ratio_now: Callable[[], float]) -> None:
        """Export what `auto` would apply, computed at each scrape: it falls while no request comes."""
        self._ratio_now = ratio_now
        if self._active:
            self._metrics.bind(self._auto, ratio_now)

    def activate(self) -> None:
        """Export all gauges from now on."""
        self._active = True
        for (gauge, labels), value in self._values.items():
            gauge.labels(self._model, *labels).set(value)
        if self._ratio_now is not None:
            self._metrics.bind(self._auto, self._ratio_now)

    def deactivate(self) -> None:
        """Export nothing more."""
        self._active = False

    def remove(self) -> None:
        """Remove the exported gauges: the model is served no longer."""
        self.deactivate()
        for gauge, labels in self._values:
            gauge.remove(self._model, *labels)
        self._values.clear()
        if self._ratio_now is not None:
            self._metrics.unbind(self._auto)
            self._metrics.auto_ratio.remove(self._model)
            self._ratio_now = None

    @property
    def _auto(self) -> Gauge:
        return self._metrics.auto_ratio.labels(self._model)
