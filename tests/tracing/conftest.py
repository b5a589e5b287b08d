"""An app whose spans stay in memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from prunepool.api.app import Tracing, create_app
from prunepool.metrics import Metrics
from prunepool.settings import Settings
from prunepool.testing import FakeService
from prunepool.tracing.spans import TracedService, log_fields

#: When the first image of a test is asked for; each further look at the clock is a second later.
EPOCH_NS = 1_700_000_000 * 10**9


@dataclass
class Traced:
    """A client, and the spans that its requests have made, in the order of their ends."""

    http: httpx.AsyncClient
    exporter: InMemorySpanExporter

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    for name in list(os.environ):
        if name.startswith(("PRUNEPOOL_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Settings()


@pytest.fixture
def make(settings: Settings, service: FakeService, metrics: Metrics) -> Iterator[Callable[..., Traced]]:
    """Make an app with tracing."""
    providers = []

    def make(sampler: Sampler | None = None) -> Traced:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        providers.append(provider)
        seconds = itertools.count(0, 10**9)

        def clock_ns() -> int:
            return EPOCH_NS + next(seconds)

        tracing = Tracing(provider, log_fields, lambda service: TracedService(service, provider, clock_ns))
        app = create_app(tracing.traced(service), settings, metrics, tracing=tracing)
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
        return Traced(http, exporter)

    yield make
    for provider in providers:
        provider.shutdown()


@pytest.fixture
async def traced(make: Callable[..., Traced]) -> AsyncIterator[Traced]:
    made = make()
    yield made
    await made.http.aclose()
