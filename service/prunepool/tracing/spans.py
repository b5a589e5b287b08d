"""The spans of images: each with its stages, and a link to the batch that it shared with others."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Status, StatusCode, Tracer, TracerProvider

from prunepool.errors import PrunepoolError
from prunepool.serving.types import Classification, Engine, Image, Inference, ModelInfo, Options, Readiness

#: Batches whose spans are remembered. Their images come back together, so few suffice.
_REMEMBERED = 256


class TracedEngine:
    """An `Engine` that adds spans to the request that it is asked in; an unrecorded one costs it nothing.

    A batch is computed for several requests at once, so it belongs to the trace of none: it has a trace of
    its own, which the spans of its images link to.

    Args:
        engine: what does the work.
        provider: makes spans.
        clock_ns: nanoseconds since the epoch.
    """

    def __init__(
        self, engine: Engine, provider: TracerProvider, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._engine = engine
        self._tracer: Tracer = provider.get_tracer("prunepool")
        self._clock_ns = clock_ns
        self._batches: OrderedDict[tuple[str, int], SpanContext] = OrderedDict()

    @property
    def default_model(self) -> str:
        """The engine's."""
        return self._engine.default_model

    def models(self) -> tuple[ModelInfo, ...]:
        """The engine's."""
        return self._engine.models()

    def model(self, name: str) -> ModelInfo:
        """The engine's."""
        return self._engine.model(name)

    def readiness(self) -> Readiness:
        """The engine's."""
        return self._engine.readiness()

    async def start(self) -> None:
        """Start the engine."""
        await self._engine.start()

    def begin_drain(self) -> None:
        """Tell the engine."""
        self._engine.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Close the engine."""
        return await self._engine.close(timeout_s)

    async def classify(self, image: bytes, options: Options) -> Classification:
        """The engine's answer, with spans."""
        start_ns = self._clock_ns()
        with self._image() as span:
            answer = await self._engine.classify(image, options)
            self._describe(span, start_ns, answer)
        return answer

    async def infer(self, image: Image, options: Options) -> Inference:
        """The engine's answer, with spans."""
        start_ns = self._clock_ns()
        with self._image() as span:
            answer = await self._engine.infer(image, options)
            self._describe(span, start_ns, answer)
        return answer

    @contextmanager
    def _image(self) -> Iterator[Span]:
        """The span of one image, within that of the request; none where that is not recorded."""
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

    def _describe(self, span: Span, start_ns: int, answer: Classification | Inference) -> None:
        if not span.is_recording():
            return
        reduction, timing = answer.reduction, answer.timing_ms
        span.set_attributes(
            {
                "prunepool.model": answer.model,
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
        self._stage("inference", begun_ns, done_ns, Link(self._batch(answer, begun_ns, done_ns)))

    def _stage(self, name: str, start_ns: int, end_ns: int, *links: Link) -> None:
        self._tracer.start_span(name, start_time=start_ns, links=links).end(end_ns)

    def _batch(self, answer: Classification | Inference, start_ns: int, end_ns: int) -> SpanContext:
        """The batch's span, made when the first of its images comes back."""
        key = (answer.model, answer.batch)
        if key not in self._batches:
            attributes: dict[str, str | int] = {
                "prunepool.model": answer.model,
                "prunepool.batch.number": answer.batch,
                "prunepool.batch.size": answer.batch_size,
            }
            span = self._tracer.start_span(
                "batch", context=Context(), start_time=start_ns, attributes=attributes
            )
            span.end(end_ns)
            self._batches[key] = span.get_span_context()
            if len(self._batches) > _REMEMBERED:
                self._batches.popitem(last=False)
        return self._batches[key]


def log_fields() -> dict[str, str]:
    """What ties a log line to the trace that it was written in; empty outside of one."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def _ns(ms: float) -> int:
    return round(ms * 1e6)
