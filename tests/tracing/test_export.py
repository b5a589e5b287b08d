"""When tracing is enabled, that traces reach a collector, and that a missing one does no harm."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from prunepool.api.listening import claim
from prunepool.errors import InvalidParameter
from prunepool.tracing.enabled import tracing_enabled

TIMEOUT_S = 30.0
SERVER = Path(__file__).parent.parent / "cli" / "held_server.py"
COLLECTOR = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("endpoint", "environment", "answer"),
    [
        (None, {}, False),
        (COLLECTOR, {}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": COLLECTOR}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, False),
        (COLLECTOR, {"OTEL_SDK_DISABLED": "true"}, False),
        (COLLECTOR, {"OTEL_TRACES_EXPORTER": "none"}, False),
        (COLLECTOR, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_tracing_is_enabled_by_setting_or_variables(
    endpoint: str | None, environment: dict[str, str], answer: bool
) -> None:
    assert tracing_enabled(endpoint, environment) is answer


@pytest.mark.parametrize(
    "environment", [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}]
)
def test_an_unsupported_exporter_is_refused(environment: dict[str, str]) -> None:
    (name,) = environment
    with pytest.raises(InvalidParameter, match=name):
        tracing_enabled(COLLECTOR, environment)
    assert not tracing_enabled(None, environment), "and does not matter where nothing is traced"


class Collector(ThreadingHTTPServer):
    """Receives traces like a collector."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join(TIMEOUT_S)


@contextmanager
def serving(folder: Path, *flags: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real `prunepool serve` over an engine of the tests, and where it is."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNEPOOL_", "OTEL_"))}
    with subprocess.Popen(
        [sys.executable, str(SERVER), "serve", "--port", "0", "--log-format", "json", *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | variables,
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        try:
            yield process, found.group()
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    """Return its log lines after a clean exit."""
    process.terminate()
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    return [json.loads(line) for line in err.splitlines()]


@pytest.mark.e2e
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_traces_reach_a_collector_the_last_ones_too(tmp_path: Path, collector: Collector, by: str) -> None:
    flags = ("--otel-endpoint", collector.url) if by == "flag" else ()
    variables = {} if by == "flag" else {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with serving(tmp_path, *flags, **variables) as (process, url):
        assert httpx.get(f"{url}/models").status_code == 200
        lines = ended(process)
    (scope,) = (
        (resource.resource, span)
        for request in collector.taken
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )
    resource, span = scope
    assert span.name == "GET /models"
    named = {attribute.key: attribute.value.string_value for attribute in resource.attributes}
    assert named["service.name"] == "prunepool"
    assert span.trace_id.hex() in {line.get("trace_id") for line in lines}


@pytest.mark.e2e
def test_a_missing_collector_does_no_harm(tmp_path: Path) -> None:
    with (
        claim("127.0.0.1", 0) as nobody,
        # Seconds for which an export is tried again.
        serving(tmp_path, "--otel-endpoint", nobody.url, OTEL_EXPORTER_OTLP_TIMEOUT="1") as (
            process,
            url,
        ),
    ):
        assert httpx.get(f"{url}/models").status_code == 200
        ended(process)


STARTED = """
import asyncio, sys
from prunepool.server import single
from prunepool.metrics import Metrics
from prunepool.settings import Settings
from prunepool.testing import FakeService

def announce(line):
    print(*(name for name in sys.modules if name.startswith("opentelemetry")))
    sys.stdout.flush()
    import os, signal
    os.kill(os.getpid(), signal.SIGTERM)

single.serve(Settings(port=0), announce, lambda settings, metrics: FakeService())
"""


@pytest.mark.e2e
def test_without_tracing_opentelemetry_is_not_imported(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNEPOOL_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, "-c", STARTED],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    loaded = set(done.stdout.split())
    # FastAPI itself imports the API, which does nothing without the SDK.
    assert not [name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]


@pytest.mark.e2e
@pytest.mark.parametrize("by", ["flag", "variable"])
def test_without_the_extra_our_setting_is_refused_and_the_variables_are_warned_of(
    tmp_path: Path, by: str
) -> None:
    """A failing package of the same name hides the extra from the process."""
    (tmp_path / "hide.py").write_text(
        "import sys\nsys.modules['opentelemetry.exporter'] = None\n"
        "import runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "hide.py", str(SERVER), "serve", "--port", "0", "--log-format", "json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNEPOOL_", "OTEL_"))}
    if by == "flag":
        command += ["--otel-endpoint", COLLECTOR]
    else:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = COLLECTOR
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline():
            process.terminate()
        _, err = process.communicate(timeout=TIMEOUT_S)
    if by == "flag":
        assert process.returncode == 2
        assert "otel_endpoint must be left out where prunepool[otel] is not installed" in err
    else:
        assert process.returncode == 0
        assert json.loads(err.splitlines()[0])["level"] == "warning"


def test_the_last_export_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunepool.tracing import export

    monkeypatch.setattr(export, "_SHUTDOWN_TIMEOUT_S", 0.05)
    stop = threading.Event()

    class Stuck:
        def shutdown(self) -> None:
            stop.wait(TIMEOUT_S)

    export.finish(Stuck())  # type: ignore[arg-type]
    stop.set()
