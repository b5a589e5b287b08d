"""An app over a fake engine without a socket, and a real server over an engine that holds its results."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from fastapi import FastAPI

from prunepool.api.app import create_app
from prunepool.api.listening import claim
from prunepool.api.server import Server
from prunepool.logs import logging_to
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Classification, Service
from prunepool.settings import Settings
from prunepool.testing import FakeService

#: Long enough for a slow machine; nothing waits for it to pass.
TIMEOUT_S = 20.0

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeSettings:
    """Make settings from defaults and keywords, without the environment."""
    for name in list(os.environ):
        if name.startswith("PRUNEPOOL_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Settings


class Clock:
    """A monotonic clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until the test moves it."""
    return Clock()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def make_app(make_settings: MakeSettings, metrics: Metrics) -> Callable[..., FastAPI]:
    """Make an app over an engine, with settings as keywords."""
    return lambda service, **settings: create_app(service, make_settings(**settings), metrics)


@pytest.fixture
def app(service: FakeService, make_app: Callable[..., FastAPI]) -> FastAPI:
    return make_app(service)


Connect = Callable[[FastAPI], httpx.AsyncClient]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """A client of an app, without a socket."""
    clients = []

    def connect(app: FastAPI) -> httpx.AsyncClient:
        clients.append(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test"))
        return clients[-1]

    yield connect
    for client in clients:
        await client.aclose()


@pytest.fixture
async def http(app: FastAPI, connect: Connect) -> httpx.AsyncClient:
    """A client of the app over the fake engine."""
    return connect(app)


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What has been logged so far, each line as the JSON it is."""
    stream = StringIO()
    with logging_to(stream, "json", "info"):
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


class HeldEngine(FakeService):
    """Accepts at once, answers when released; safe to watch from another thread.

    Images that begin with `free` are answered at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.Semaphore(0)
        self.dropped = threading.Semaphore(0)
        self._released: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._released = asyncio.Event()

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        answer = await super().classify(image, options)
        if image.startswith(b"free"):
            return answer
        assert self._released is not None
        self.held.release()
        try:
            await self._released.wait()
        except asyncio.CancelledError:
            self.dropped.release()
            raise
        return answer

    def release(self) -> None:
        assert self._loop is not None
        assert self._released is not None
        self._loop.call_soon_threadsafe(self._released.set)

    def wait_held(self, requests: int = 1) -> None:
        for _ in range(requests):
            assert self.held.acquire(timeout=TIMEOUT_S), "no request reached the engine"

    def wait_dropped(self) -> None:
        assert self.dropped.acquire(timeout=TIMEOUT_S), "the request was not given up"


@dataclass
class Live:
    """A server that runs in a thread.

    Attributes:
        url: where.
        address: the same for a plain socket.
        stop: begins the drain.
        join: waits for its end; how many requests were left unanswered.
    """

    url: str
    address: tuple[str, int]
    stop: Callable[[], None]
    join: Callable[[], int]


@contextmanager
def _running(service: Service, settings: Settings, metrics: Metrics) -> Iterator[Live]:
    server: Server = factory.create_server(settings, service, metrics)
    bound = claim(settings.host, 0)
    ready = threading.Event()
    left: list[int] = []

    def run() -> None:
        left.append(uvloop.run(server.serve_until_signal(bound.sockets, ready.set)))

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(TIMEOUT_S), "the server did not start"

    def stop() -> None:
        if thread.is_alive():
            server.stop("test")

    def join() -> int:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "the server did not end"
        return left[0]

    try:
        yield Live(bound.url, bound.addresses[0], stop, join)
    finally:
        stop()
        join()


@pytest.fixture
def live(make_settings: MakeSettings, metrics: Metrics) -> Iterator[Callable[..., Live]]:
    """Start a real server over an engine, with settings as keywords."""
    with ExitStack() as stack:
        yield lambda service, **settings: stack.enter_context(
            _running(service, make_settings(**{"drain_timeout_s": 1, **settings}), metrics)
        )


@pytest.fixture
def held() -> HeldEngine:
    return HeldEngine()
