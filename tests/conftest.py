"""Fixtures that many tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Before torch is imported: test processes share the cores, and should sleep while they wait, not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers run side by side: one thread each, and one for the servers that they start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A model that is not compiled would be converted beside each server that a test starts, half a minute on a core.
# Tests of that say so themselves.
os.environ.setdefault("PRUNEPOOL_CPU_OPENVINO", "false")

# What is kept for later starts is kept for this run alone; what matplotlib found out of fonts stays.
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".config" / "matplotlib"))
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tests-of-prunepool-")

import hypothesis
import pytest
import structlog
import uvloop
from prometheus_client import CollectorRegistry

from prunepool.api.listening import claim
from prunepool.metrics import Metrics
from prunepool.server import factory
from prunepool.serving.types import Service
from prunepool.settings import Settings

atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# How many examples hypothesis tries; a test that needs more takes a multiple of its profile's. None has a deadline
# on the wall clock: a busy machine is not a bug. Every run takes the same few, so that what is red is red for what
# was changed, on every machine; make fuzz looks for new ones, with many, other ones each time.
hypothesis.settings.register_profile("ci", max_examples=30, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1500")),
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("ci")

# An app without a server has no logging of its own; by default, structlog would print each traceback with the value
# of every variable, which takes seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

pytest_plugins = ["networks"]

#: Long enough for a slow machine; nothing waits for it to pass.
TIMEOUT_S = 20.0
ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PRUNEPOOL_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference photos, weights and outputs, kept beside the checkout.

    It cannot be published with the code; without it, what needs it is skipped by name.
    """
    if not (SHARED / "reference" / "ppt_parity.npz").is_file():
        pytest.skip("needs the reference material beside the checkout (../shared, or PRUNEPOOL_SHARED)")
    return SHARED


@pytest.fixture
def metrics() -> Metrics:
    """The series on a registry of their own."""
    return Metrics(CollectorRegistry())


@contextmanager
def _serving(settings: Settings, service: Service) -> Iterator[str]:
    server = factory.create_server(settings, service, Metrics(CollectorRegistry()))
    bound = claim("127.0.0.1", 0)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: uvloop.run(server.serve_until_signal(bound.sockets, ready.set)))
    thread.start()
    assert ready.wait(TIMEOUT_S), "the server did not start"
    try:
        yield bound.url
    finally:
        server.stop("test")
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture(scope="session")
def serving() -> Callable[[Settings, Service], AbstractContextManager[str]]:
    """Runs a server over an engine in a thread of its own while a block lasts; the block gets its URL."""
    return _serving
