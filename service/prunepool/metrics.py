"""Declares every Prometheus series; the rest of the code only counts.

Base units (seconds, ratios, GMACs), few labels, and histograms instead of summaries, so that percentiles can be
aggregated over replicas. The registry is passed in, so a test makes its own.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

#: 1 ms to 10 s, about four buckets per decade.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 2.5, 5, 10)
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ERRORS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


def reduction_band(ratio: float) -> str:
    """Return the label of a ratio: `0` for the dense model, else one of nine fixed bands."""
    if ratio <= 0:
        return "0"
    low = min(int(ratio * 10 + 1e-9), 8)
    return f"{low / 10:.1f}-{(low + 1) / 10:.1f}"


class Metrics:
    """The series of the service on one registry.

    The `multiprocess_mode` of a gauge says how the values of several processes are combined.

    Args:
        registry: the registry; a second instance on the same registry is an error.
        exposed: the registry that a scrape shows, if it is not this process's own.

    Attributes:
        exposed: the registry that a scrape shows.
    """

    def __init__(self, registry: CollectorRegistry, exposed: CollectorRegistry | None = None) -> None:
        self.registry = registry
        self.exposed = registry if exposed is None else exposed
        self._sources: dict[Gauge, Callable[[], float]] = {}
        self._totals: list[tuple[Counter, Callable[[], int]]] = []
        m = ("model",)
        self.requests = Counter(
            "prunepool_requests_total",
            "Images requested, by outcome: ok, or the code of the error.",
            ("model", "outcome"),
            registry=registry,
        )
        self.request_duration = Histogram(
            "prunepool_request_duration_seconds",
            "Time that an image spent in a stage: decode, queue, inference, total.",
            ("model", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "prunepool_images_total",
            "Images answered, by band of the applied reduction ratio.",
            ("model", "reduction"),
            registry=registry,
        )
        self.device_images = Counter(
            "prunepool_device_images_total",
            "Images computed, by launch: recorded (a captured CUDA graph) or kernels (eager).",
            ("model", "launch"),
            registry=registry,
        )
        self.inference_seconds = Counter(
            "prunepool_inference_seconds_total",
            "Device time spent, divided among the images of a batch by their GMACs.",
            ("model", "reduction"),
            registry=registry,
        )
        self.applied_ratio = Histogram(
            "prunepool_applied_reduction_ratio",
            "Reduction ratio applied to an image.",
            m,
            buckets=RATIOS,
            registry=registry,
        )
        self.auto_ratio = Gauge(
            "prunepool_auto_reduction_ratio",
            "Reduction ratio that auto would apply now.",
            m,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.auto_ratio_limit = Gauge(
            "prunepool_auto_reduction_ratio_limit",
            "Largest reduction ratio that auto applies to a request that names none.",
            m,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.target_latency = Gauge(
            "prunepool_target_latency_seconds",
            "Latency that auto tries to hold for every request.",
            m,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.batch_size = Histogram(
            "prunepool_batch_size", "Images in a batch.", m, buckets=BATCH, registry=registry
        )
        self.batch_tokens = Histogram(
            "prunepool_batch_tokens",
            "Tokens of a batch after the last reduction, summed over its images.",
            m,
            buckets=TOKENS,
            registry=registry,
        )
        self.tokens = Counter(
            "prunepool_tokens_total",
            "Tokens by outcome: kept, pruned, pooled.",
            ("model", "fate"),
            registry=registry,
        )
        self.gmacs = Counter(
            "prunepool_gmacs_total",
            "Billions of multiply-accumulates spent, and saved compared to the dense model.",
            ("model", "kind"),
            registry=registry,
        )
        self.queue_requests = Gauge(
            "prunepool_queue_requests",
            "Images accepted and waiting for the device.",
            m,
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.queue_drain = Gauge(
            "prunepool_queue_drain_seconds",
            "Predicted time to answer every queued image.",
            m,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.cost_model = Gauge(
            "prunepool_cost_model_seconds",
            "Predicted time of each part of a batch: one run, one GMAC, one further plan, one reduced image.",
            ("model", "part"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.prediction_error = Histogram(
            "prunepool_prediction_error_ratio",
            "Relative error of the predicted time of a batch: |predicted / actual − 1|.",
            m,
            buckets=ERRORS,
            registry=registry,
        )
        self.rejected = Counter(
            "prunepool_rejected_total",
            "Images refused before they reached the device, by the code of the error.",
            ("model", "reason"),
            registry=registry,
        )
        self.http_requests = Counter(
            "prunepool_http_requests_total",
            "HTTP requests, each counted once, by route, status and error code (ok without an error).",
            ("route", "status", "code"),
            registry=registry,
        )
        self.grpc_calls = Counter(
            "prunepool_grpc_calls_total",
            "gRPC calls by method, status and the code of the error (ok without one).",
            ("method", "status", "code"),
            registry=registry,
        )
        self.body_bytes = Gauge(
            "prunepool_body_bytes",
            "Bytes of request bodies held until their requests are answered.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.escalations = Counter(
            "prunepool_escalations_total",
            "Images with a small margin, by the outcome of escalation: confirmed, changed or skipped.",
            ("model", "outcome"),
            registry=registry,
        )
        self.shadow_images = Counter(
            "prunepool_shadow_images_total",
            "Sampled images run again at ratio 0, by whether the reduced answer agrees: true or false.",
            ("model", "reduction", "agrees"),
            registry=registry,
        )
        self.shadow_agreement = Gauge(
            "prunepool_shadow_agreement",
            "Share of about the last hundred sampled images whose reduced answer agrees with the dense one.",
            ("model", "reduction"),
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.shadow_dropped = Counter(
            "prunepool_shadow_dropped_total",
            "Sampled images not run again because the device was busy.",
            m,
            registry=registry,
        )
        self.shadow_seconds = Counter(
            "prunepool_shadow_seconds_total",
            "Device time of sampled images, in addition to prunepool_inference_seconds_total.",
            m,
            registry=registry,
        )
        self.engine_up = Gauge(
            "prunepool_engine_up",
            "1 while the model's engine can run a batch.",
            m,
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.model_runs = Gauge(
            "prunepool_model_runs",
            "Engines that run the model so: on a device, in a number format, by a backend.",
            ("model", "device", "dtype", "backend"),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.engine_restarts = Counter(
            "prunepool_engine_restarts_total",
            "Restarts of the model's engine after a failure.",
            m,
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "prunepool_log_lines_dropped_total",
            "Log lines dropped because nobody read those before them, or because they could not be written.",
            registry=registry,
        )
        self.build = Info(
            "prunepool_build", "Versions, device and dtype of this process.", registry=self.exposed
        )

    def bind(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Let a gauge call a function for its value at each scrape.

        Args:
            gauge: a gauge without labels, or with all of them set.
            value: returns the current value.
        """
        gauge.set_function(value)
        self._sources[gauge] = value

    def unbind(self, gauge: Gauge) -> None:
        """Release the function of a gauge."""
        self._sources.pop(gauge, None)

    def follow(self, counter: Counter, total: Callable[[], int]) -> None:
        """Let a counter follow what something else counts from 0, at each :meth:`refresh`.

        Args:
            counter: a counter without labels, or with all of them set.
            total: returns the total so far; it may be of what must not wait for a lock, as a counter does.
        """
        seen = 0

        def new() -> int:
            nonlocal seen
            before, seen = seen, total()
            return seen - before

        self._totals.append((counter, new))

    def refresh(self) -> None:
        """Store the current values of all gauges and totals: before a scrape, or for one by another process."""
        for gauge, value in self._sources.items():
            gauge.set(value())
        for counter, new in self._totals:
            counter.inc(new())
