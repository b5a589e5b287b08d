"""The Prometheus series of one scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from prunepool.core.cost_model import CostModel
from prunepool.core.events import BatchReport
from prunepool.core.model_gauges import ModelGauges
from prunepool.core.model_info import ModelInfo
from prunepool.core.types import Batch, Costs, Output
from prunepool.metrics import Metrics, reduction_band


class SchedulerMetrics:
    """The series of one model.

    Args:
        metrics: the service's series.
        model: the value of the label.
        costs: of each ratio; savings are counted against the dense model.
        gauges: of the same model.
    """

    def __init__(self, metrics: Metrics, model: str, costs: Costs, gauges: ModelGauges | None = None) -> None:
        self._metrics = metrics
        self._model = model
        self._gauges = gauges or ModelGauges(metrics, model)
        self._running: tuple[str, str, str] | None = None
        self._dense_gmacs = costs.gmacs(0.0)
        self._prediction_error = metrics.prediction_error.labels(model)
        self._batch_size = metrics.batch_size.labels(model)
        self._batch_tokens = metrics.batch_tokens.labels(model)
        self._applied_ratio = metrics.applied_ratio.labels(model)
        self._fates = {fate: metrics.tokens.labels(model, fate) for fate in ("kept", "pruned", "pooled")}
        self._launches = {
            graph: metrics.device_images.labels(model, "recorded" if graph else "kernels")
            for graph in (True, False)
        }
        self._gmacs = {kind: metrics.gmacs.labels(model, kind) for kind in ("spent", "saved")}

    def set_targets(self, auto_maximum: float, target_s: float) -> None:
        """Export the limits of `auto`, so that alerts can refer to them."""
        self._gauges.set(self._metrics.auto_ratio_limit, auto_maximum)
        self._gauges.set(self._metrics.target_latency, target_s)

    def set_running(self, info: ModelInfo) -> None:
        """Export where, in which number format and by what the model is computed."""
        now = (info.device, info.dtype, info.backend)
        if self._running is not None and self._running != now:
            self._gauges.set(self._metrics.model_runs, 0, *self._running)
        self._running = now
        self._gauges.set(self._metrics.model_runs, 1, *now)

    def set_queue(self, requests: int, drain_s: float) -> None:
        """Export the length of the queue and the predicted time to drain it."""
        self._gauges.set(self._metrics.queue_requests, requests)
        self._gauges.set(self._metrics.queue_drain, drain_s)

    def set_cost_model(self, cost_model: CostModel) -> None:
        """Export the coefficients, in seconds."""
        for part, seconds in cost_model.coefficients.items():
            self._gauges.set(self._metrics.cost_model, seconds, part)

    def observe_prediction(self, cost_model: CostModel, error: float | None) -> None:
        """Export the coefficients, and the relative error of the last predicted batch where there was one."""
        self.set_cost_model(cost_model)
        if error is not None:
            self._prediction_error.observe(error)

    def observe_batch(self, report: BatchReport) -> None:
        """Count a batch. Images whose client left meanwhile count: the device did the work."""
        outputs = report.outputs or ()
        if not outputs:
            return
        self._batch_size.observe(len(outputs))
        self._batch_tokens.observe(sum(outcome.tokens[-1] for outcome in outputs))
        self._images(report.ran, outputs, report.finished - report.started)
        spent = sum(outcome.gmacs for outcome in outputs)
        self._gmacs["spent"].inc(spent)
        self._gmacs["saved"].inc(max(0.0, self._dense_gmacs * len(outputs) - spent))
        self._fates["kept"].inc(sum(outcome.tokens[-1] for outcome in outputs))
        self._fates["pruned"].inc(sum(outcome.pruned for outcome in outputs))
        self._fates["pooled"].inc(sum(outcome.pooled for outcome in outputs))

    def _images(self, ran: Batch, outputs: Sequence[Output], seconds: float) -> None:
        total = sum(outcome.gmacs for outcome in outputs)
        for item, outcome in zip(ran.items, outputs, strict=True):
            band = reduction_band(item.ratio)
            self._applied_ratio.observe(item.ratio)
            self._launches[outcome.graph_replayed].inc()
            self._metrics.images.labels(self._model, band).inc()
            self._metrics.inference_seconds.labels(self._model, band).inc(seconds * outcome.gmacs / total)
