"""A span for each request and image, with the image's stages and a link to its batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from prunepool.errors import Overloaded
from prunepool.logs import logging_to
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Inference
from prunepool.testing import FakeService
from prunepool.tracing.spans import TracedService

from .conftest import EPOCH_NS, Traced

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
MS = 1_000_000


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_and_its_images(traced: Traced) -> None:
    await traced.http.post("/classify?reduction_ratio=0.5", content=b"photo")
    (request,) = traced.named("POST /classify")
    assert request.kind is SpanKind.SERVER
    assert parent(request) is None
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(request)["http.route"] == "/classify"
    (image,) = traced.named("image")
    assert parent(image) == ids(request)
    assert attributes(image) == {
        "prunepool.model": "fake",
        "prunepool.reduction.requested": "0.5",
        "prunepool.reduction.applied": 0.5,
        "prunepool.reduction.reason": "requested",
        "prunepool.gmacs": 0.75,
    }
    stages = [span for span in traced.spans if parent(span) == ids(image)]
    assert [span.name for span in stages] == ["decode", "queue", "inference"]


async def test_the_spans_of_stages_are_consecutive(traced: Traced) -> None:
    await traced.http.post("/classify", content=b"photo")
    times = {
        span.name: (span.start_time - EPOCH_NS, span.end_time - EPOCH_NS)
        for span in traced.spans
        if span.name in ("decode", "queue", "inference", "batch")
    }
    # The fake engine says 1.0, 0.5 and 2.0 ms.
    assert times == {
        "decode": (0, MS),
        "queue": (MS, 3 * MS // 2),
        "inference": (3 * MS // 2, 7 * MS // 2),
        "batch": (3 * MS // 2, 7 * MS // 2),
    }


async def test_the_inference_links_to_its_batch(traced: Traced) -> None:
    await traced.http.post("/classify", content=b"photo")
    (batch,), (inference,) = traced.named("batch"), traced.named("inference")
    (link,) = inference.links
    assert (link.context.trace_id, link.context.span_id) == ids(batch)
    assert parent(batch) is None
    assert ids(batch)[0] != ids(inference)[0], "a batch belongs to no request"
    assert attributes(batch) == {
        "prunepool.model": "fake",
        "prunepool.batch.number": 0,
        "prunepool.batch.size": 1,
    }


class OneBatch(FakeService):
    """Answers all images from the batch with the number 7."""

    async def infer(self, image: Any, options: InferenceOptions) -> Inference:
        answer = await super().infer(image, options)
        return replace(answer, batch=7, batch_size=2)


async def test_images_of_one_batch_link_to_one_span(traced: Traced) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(traced.exporter))
    service = TracedService(OneBatch(), provider)
    tracer = provider.get_tracer("test")
    for _ in range(2):
        with tracer.start_as_current_span("request"):
            await service.infer(b"photo", InferenceOptions())
    (batch,) = traced.named("batch")
    one, other = traced.named("inference")
    assert ids(one)[0] != ids(other)[0]
    for span in (one, other):
        assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [ids(batch)]
    provider.shutdown()


async def test_several_images_have_a_span_each(traced: Traced) -> None:
    await traced.http.post("/classify", files=[("file", b"one"), ("file", b"bad"), ("file", b"two")])
    (request,) = traced.named("POST /classify")
    images = traced.named("image")
    assert [parent(span) for span in images] == [ids(request)] * 3
    failed = [span for span in images if span.status.status_code is StatusCode.ERROR]
    assert [attributes(span) for span in failed] == [{"error.type": "image_undecodable"}]
    assert [len(traced.named(stage)) for stage in ("decode", "queue", "inference")] == [2, 2, 2]
    assert request.status.status_code is StatusCode.UNSET


async def test_the_inference_protocol_is_traced_too(traced: Traced) -> None:
    image = {"name": "images", "datatype": "FP32", "shape": [1, 3, 224, 224]}
    body = {"inputs": [{**image, "data": np.zeros(3 * 224 * 224).tolist()}]}
    response = await traced.http.post("/v2/models/fake/infer", json=body)
    assert response.status_code == 200
    (request,) = traced.named("POST /v2/models/{name}/infer")
    (span,) = traced.named("image")
    assert parent(span) == ids(request)


async def test_a_server_error_is_an_error_of_the_span(traced: Traced, service: FakeService) -> None:
    service.error = Overloaded("full", retry_after=1)
    await traced.http.post("/classify", content=b"photo")
    (request,), (image,) = traced.named("POST /classify"), traced.named("image")
    assert request.status.status_code is StatusCode.ERROR
    assert attributes(image)["error.type"] == "overloaded"
    assert traced.named("inference") == []


async def test_an_unexpected_error_is_recorded_without_its_message(
    traced: Traced, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(service, "classify", fail)
    await traced.http.post("/classify", content=b"photo")
    (image,) = traced.named("image")
    assert attributes(image)["error.type"] == "RuntimeError"
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


async def test_the_caller_s_trace_is_continued(traced: Traced) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1"}
    await traced.http.post("/classify", content=b"photo", headers=headers)
    (request,) = traced.named("POST /classify")
    assert parent(request) == (int(TRACE_ID, 16), int(PARENT_ID, 16))
    assert {ids(span)[0] for span in traced.spans if span.name != "batch"} == {int(TRACE_ID, 16)}


@pytest.mark.parametrize("given", ["", "00-zz-zz-01", f"00-{'0' * 32}-{PARENT_ID}-01", "x" * 1000])
async def test_an_invalid_context_begins_a_new_trace(traced: Traced, given: str) -> None:
    response = await traced.http.post("/classify", content=b"photo", headers={"traceparent": given})
    assert response.status_code == 200
    (request,) = traced.named("POST /classify")
    assert parent(request) is None


async def test_an_unsampled_caller_is_not_recorded(make: Callable[..., Traced]) -> None:
    traced = make(ParentBased(ALWAYS_ON))
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}
    assert (await traced.http.post("/classify", content=b"photo", headers=headers)).status_code == 200
    assert traced.spans == ()


async def test_a_sampler_that_drops_everything(make: Callable[..., Traced]) -> None:
    traced = make(ALWAYS_OFF)
    assert (await traced.http.post("/classify", content=b"photo")).status_code == 200
    assert traced.spans == ()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_and_scrapes_are_not_traced(traced: Traced, path: str) -> None:
    await traced.http.get(path)
    assert traced.spans == ()


async def test_the_log_line_names_the_trace(traced: Traced) -> None:
    stream = StringIO()
    with logging_to(stream, "json", "info"):
        await traced.http.post("/classify", content=b"photo")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    (request,) = traced.named("POST /classify")
    assert (int(line["trace_id"], 16), int(line["span_id"], 16)) == ids(request)


async def test_image_data_is_in_no_span(traced: Traced) -> None:
    await traced.http.post("/classify", json={"image": "c2VjcmV0LWltYWdl"})
    await traced.http.post("/classify", content=b"bad secret-image")
    everything = "".join(span.to_json() for span in traced.spans)
    assert "secret-image" not in everything
    assert "c2Vj" not in everything


async def test_every_other_call_goes_to_the_engine(service: FakeService) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    traced = TracedService(service, provider)
    service.ready = False
    await traced.start()
    assert traced.readiness() == service.readiness()
    assert traced.readiness().ready
    assert (traced.default_model, traced.models()) == (service.default_model, service.models())
    assert traced.model("fake") == service.model("fake")
    traced.begin_drain()
    assert service.draining
    assert await traced.close(1.0)
    assert service.closed
    provider.shutdown()
