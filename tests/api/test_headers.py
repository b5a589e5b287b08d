"""No header, however odd, is answered with a failure of the server; HEAD is answered wherever GET is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from prunepool.access import Key, Keyring, digest_of
from prunepool.api.app import create_app
from prunepool.api.exposition import encoder_for
from prunepool.api.server import behind_proxies
from prunepool.metrics import Metrics
from prunepool.settings import Settings
from prunepool.testing import FakeService

KEY = "pp_alice"
ROUTES = [
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/models/fake"),
    ("GET", "/docs"),
    ("GET", "/static/icon.svg"),
    ("OPTIONS", "/classify"),
    ("POST", "/classify"),
    ("POST", "/v2/models/fake/infer"),
    ("POST", "/v2/models/fake_jpeg/infer"),
    ("POST", "/v2/repository/models/fake/unload"),
    ("GET", "/nope"),
]
#: Every header that this package, Starlette, FastAPI, uvicorn or OpenTelemetry reads.
HEADERS = [
    "Accept",
    "Accept-Encoding",
    "Access-Control-Request-Headers",
    "Access-Control-Request-Method",
    "Authorization",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Cookie",
    "Host",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Inference-Header-Content-Length",
    "Origin",
    "Range",
    "Traceparent",
    "Tracestate",
    "X-API-Key",
    "X-Forwarded-For",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Reduction-Ratio",
    "X-Request-ID",
]
WORDS = [
    *(
        ";",
        ",",
        "=",
        '"',
        " ",
        "\t",
        "*",
        "/",
        "%",
        "\\",
        ":",
        "-",
        "[",
        "]",
        "\x80",
        "\xff",
        "q=",
        "q=2",
        "version=",
    ),
    *("application/openmetrics-text", "text/plain", "multipart/form-data", "boundary=", "application/json"),
    *(
        "image/jpeg",
        "charset=",
        "escaping=",
        "1.0.0",
        "0",
        "-1",
        "9" * 5000,
        "1e999",
        "nan",
        "gzip",
        "deflate",
    ),
    *(
        "http://",
        "http://[",
        "[::1",
        "127.0.0.1",
        ":99999999",
        "Bearer ",
        "Basic ",
        KEY,
        "bytes=",
        "0-",
        "00-",
        "null",
    ),
]
values = st.lists(
    st.sampled_from(WORDS) | st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=8),
    max_size=8,
).map("".join)


class Control:
    """Can load nothing and unloads what it is asked to."""

    def loadable(self) -> tuple[str, ...]:
        return ()

    async def load(self, name: str) -> None:
        raise AssertionError(name)

    async def unload(self, name: str) -> None:
        pass


class Keys:
    """One key, an admin's."""

    def read(self) -> dict[str, Key]:
        return {"alice": Key("alice", digest_of(KEY), admin=True)}

    def stamp(self) -> object:
        return None


@pytest.fixture(scope="module")
def ask() -> Callable[..., httpx.Response]:
    """Send a request to a server with every feature that reads headers."""
    configured = Settings.model_construct(cors_origins=("*",), trusted_proxies=("127.0.0.0/8",))
    keyring = Keyring(Keys(), count().__next__)
    metrics = Metrics(CollectorRegistry())
    app = create_app(FakeService(), configured, metrics, keyring=keyring, control=Control())
    transport = httpx.ASGITransport(behind_proxies(app, configured))

    def ask(method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
                return await client.send(
                    httpx.Request(method, f"http://test{path}", headers=raw, content=body)
                )

        return asyncio.run(send())

    return ask


@pytest.mark.fuzz
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(ROUTES),
    st.lists(st.tuples(st.sampled_from(HEADERS), values), min_size=1, max_size=4),
    st.sampled_from([b"", b"photo", b'{"image":"AAAA"}']),
    st.booleans(),
)
@example(("GET", "/metrics"), [("Accept", 'application/openmetrics-text; version="1.0.0"')], b"", True)
@example(("GET", "/metrics"), [("Accept", "text/plain; version=x")], b"", True)
@example(("GET", "/metrics"), [("Accept", "text/plain; version=1." + "9" * 5000)], b"", True)
@example(("POST", "/v2/repository/models/fake/unload"), [("Origin", "http://[")], b"", True)
@example(("POST", "/v2/models/fake/infer"), [("Inference-Header-Content-Length", "9" * 5000)], b"{}", True)
@example(("POST", "/classify"), [("Content-Length", "9" * 5000)], b"photo", True)
@example(
    ("POST", "/classify"), [("Content-Type", "multipart/form-data; boundary=" + "x" * 5000)], b"photo", True
)
@example(("GET", "/docs"), [("X-Forwarded-Prefix", '/"><script>')], b"", True)
def test_no_header_makes_the_server_fail(
    ask: Any, route: tuple[str, str], headers: list[tuple[str, str]], body: bytes, keyed: bool
) -> None:
    key = [("X-API-Key", KEY)] if keyed and not {"X-API-Key", "Authorization"} & dict(headers).keys() else []
    response = ask(*route, [*headers, *key], body)
    assert response.status_code < 500, response.text
    assert "<script>" not in response.text or route[1] == "/docs"


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4", "text/plain; version=1.0.0"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        ("Application/OpenMetrics-Text; Version=1.0.0", "application/openmetrics-text; version=1.0.0"),
        ('application/openmetrics-text; version="1.0.0"', "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;version=0.0.1,text/plain", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=9", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=x,text/plain;version=1.0.0", "text/plain; version=1.0.0"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.4",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
    ],
)
def test_the_format_of_metrics_is_the_first_that_is_known(accept: str, taken: str, metrics: Metrics) -> None:
    encode, content_type = encoder_for(accept)
    assert content_type.startswith(taken)
    assert (b"# EOF" in encode(metrics.exposed)) == ("openmetrics" in taken)


GETS = [
    *(
        "/",
        "/docs",
        "/openapi.json",
        "/static/icon.svg",
        "/healthz",
        "/readyz",
        "/metrics",
        "/models",
        "/models/fake",
    ),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/stats", "/v2/models/fake"),
    *(
        "/v2/models/fake/ready",
        "/v2/models/fake/config",
        "/v2/models/fake/stats",
        "/v2/models/fake/versions/1",
    ),
    *("/v2/models/fake/versions/1/ready", "/nope", "/v2/nope", "/models/nope", "/v2/models/nope"),
]


@pytest.fixture(scope="module")
def client(serving: Any) -> Iterator[httpx.Client]:
    """A client of a server with a socket."""
    with serving(Settings.model_construct(), FakeService()) as url, httpx.Client(base_url=url) as made:
        yield made


@pytest.mark.parametrize("path", GETS)
def test_head_is_answered_as_get_is_without_a_body(client: httpx.Client, path: str) -> None:
    """Through a socket: the server, and no route, leaves the body out."""
    by_get, by_head, again = (client.request(method, path) for method in ("GET", "HEAD", "GET"))
    assert (by_head.status_code, by_head.content) == (by_get.status_code, b"")
    differ = {"date", "x-request-id"} | ({"content-length"} if path in ("/metrics", "/v2/nope") else set())
    wanted = {name: value for name, value in by_get.headers.items() if name not in differ}
    assert {name: value for name, value in by_head.headers.items() if name not in differ} == wanted
    assert again.status_code == by_get.status_code


def test_every_path_of_the_description_that_answers_get_is_tried(app: FastAPI) -> None:
    described = {path for path, operations in app.openapi()["paths"].items() if "get" in operations}
    assert {path.replace("{name}", "fake") for path in described} <= set(GETS)
    assert not any("head" in operations for operations in app.openapi()["paths"].values())


async def test_head_of_what_only_post_serves_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.head("/classify")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_a_request_to_metrics_that_fails_is_counted_with_its_code(
    app: FastAPI, http: httpx.AsyncClient, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(accept: str) -> None:
        raise RuntimeError("no series")

    monkeypatch.setattr("prunepool.api.exposition.encoder_for", fail)
    assert (await http.get("/metrics")).status_code == 500
    labels = {"route": "/metrics", "status": "500", "code": "internal_error"}
    assert metrics.registry.get_sample_value("prunepool_http_requests_total", labels) == 1
