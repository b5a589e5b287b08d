"""The spans of images: one for each stage, with a link to the batch that the image ran in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, Tracer, TracerProvider

from prunepool.core.model_info import ModelInfo
from prunepool.errors import PrunepoolError
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Classification, Image, Inference, Readiness, Service

#: Number of batches whose spans are remembered. The images of a batch return together, so few suffice.
_REMEMBERED_BATCHES = 256


class TracedService:
    """A `Service` that adds the spans of images to those of requests; requests that are not sampled get none.

    A batch runs for several requests, so it belongs to the trace of none of them. It has a trace of its own, to
    which the spans of its images link.

    Args:
        service: the engine that runs inference.
        provider: makes spans.
        clock_ns: clock, in nanoseconds since the epoch.
    """

    def __init__(
        self, service: Service, provider: TracerProvider, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._engine = service
        self._tracer: Tracer = provider.get_tracer("prunepool")
        self._clock_ns = clock_ns
        self._batches: OrderedDict[tuple[str, int], SpanContext] = OrderedDict()

    @property
    def default_model(self) -> str:
        """Name of the engine's default model."""
        return self._engine.default_model

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the engine's models."""
        return self._engine.models()

    def model(self, name: str) -> ModelInfo:
        """Return one of the engine's models."""
        return self._engine.model(name)

    def readiness(self) -> Readiness:
        """Return the engine's readiness."""
        return self._engine.readiness()

    async def start(self) -> None:
        """Start the engine."""
        await self._engine.start()

    def begin_drain(self) -> None:
        """Begin to drain the engine."""
        self._engine.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Close the engine."""
        return await self._engine.close(timeout_s)

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        """Classify by the engine, with spans."""
        start_ns = self._clock_ns()
        with self._image() as span:
            result = await self._engine.classify(image, options)
            self._describe(span, start_ns, result)
        return result

    async def infer(self, image: Image, options: InferenceOptions) -> Inference:
        """Infer by the engine, with spans."""
        start_ns = self._clock_ns()
        with self._image() as span:
            result = await self._engine.infer(image, options)
            self._describe(span, start_ns, result)
        return result

    @contextmanager
    def _image(self) -> Iterator[Span]:
        """Open the span of one image within that of the request, if that one is recorded."""
        if not trace.get_current_span().is_recording():
            yield trace.INVALID_SPAN
            return
        with self._tracer.start_as_current_span(
            "image", record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except PrunepoolError as error:
                span.set_attribute("error.type", error.code)
                span.set_status(Status(StatusCode.ERROR, error.detail))
                raise
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    def _describe(self, span: Span, start_ns: int, result: Classification | Inference) -> None:
        if not span.is_recording():
            return
        reduction, timing = result.reduction, result.timing_ms
        span.set_attributes(
            {
                "prunepool.model": result.model,
                "prunepool.reduction.requested": str(reduction.requested),
                "prunepool.reduction.applied": reduction.applied,
                "prunepool.reduction.reason": reduction.reason,
                "prunepool.gmacs": reduction.gmacs,
            }
        )
        decoded_ns = start_ns + _ns(timing.decode)
        begun_ns = decoded_ns + _ns(timing.queue)
        done_ns = begun_ns + _ns(timing.inference)
        self._stage("decode", start_ns, decoded_ns)
        self._stage("queue", decoded_ns, begun_ns)
        self._stage("inference", begun_ns, done_ns, Link(self._batch(result, begun_ns, done_ns)))

    def _stage(self, name: str, start_ns: int, end_ns: int, *links: Link) -> None:
        self._tracer.start_span(name, start_time=start_ns, links=links).end(end_ns)

    def _batch(self, result: Classification | Inference, start_ns: int, end_ns: int) -> SpanContext:
        """Return the span of the batch, made when the first of its images returns."""
        key = (result.model, result.batch)
        if key not in self._batches:
            attributes: dict[str, str | int] = {
                "prunepool.model": result.model,
                "prunepool.batch.number": result.batch,
                "prunepool.batch.size": result.batch_size,
            }
            span = self._tracer.start_span(
                "batch", context=Context(), start_time=start_ns, attributes=attributes
            )
            span.end(end_ns)
            self._batches[key] = span.get_span_context()
            if len(self._batches) > _REMEMBERED_BATCHES:
                self._batches.popitem(last=False)
        return self._batches[key]


def log_fields() -> dict[str, str]:
    """Return the ids of the current trace and span, for log lines; nothing outside a trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _ns(ms: float) -> int:
    return round(ms * 1e6)
