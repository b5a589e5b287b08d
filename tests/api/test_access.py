"""With keys, every path but the public ones needs one; a key has a rate limit in images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from prunepool.access import Key, Keyring, Rate, digest_of
from prunepool.api.app import create_app
from prunepool.metrics import Metrics
from prunepool.testing import FakeService

BEARER = {"Authorization": "Bearer pp_alice"}
OPEN = ["/", "/docs", "/openapi.json", "/static/icon.svg"]
HEALTH = ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"]
METRICS = ["/metrics"]
PROTECTED = ["/models", "/models/fake", "/nope", "/v2", "/v2/models", "/v2/models/fake", "/v2/nope"]
Lines = Callable[[], list[dict[str, Any]]]


class Keys:
    """Of Alice, with a rate that the test sets, and of Bob, without."""

    def __init__(self) -> None:
        self.rate: Rate | None = None

    def read(self) -> dict[str, Key]:
        alice = Key("alice", digest_of("pp_alice"), self.rate)
        return {"alice": alice, "bob": Key("bob", digest_of("pp_bob"))}

    def stamp(self) -> object:
        return self.rate


@pytest.fixture
def keyed(
    make_settings: Any, metrics: Metrics, service: FakeService, clock: Any, connect: Any
) -> Callable[..., httpx.AsyncClient]:
    """A client of an app that requires keys."""

    def make(rate: Rate | None = None, **settings: Any) -> httpx.AsyncClient:
        keys = Keys()
        keys.rate = rate
        app = create_app(service, make_settings(**settings), metrics, keyring=Keyring(keys, clock))
        client: httpx.AsyncClient = connect(app)
        return client

    return make


@pytest.fixture
def http(keyed: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return keyed()


def refusals(metrics: Metrics, code: str) -> float:
    families = metrics.registry.collect()
    samples = [sample for family in families for sample in family.samples]
    return sum(
        s.value for s in samples if s.name == "prunepool_http_requests_total" and s.labels["code"] == code
    )


@pytest.mark.parametrize("path", OPEN + HEALTH + METRICS)
async def test_public_paths_need_no_key(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
async def test_every_other_path_needs_one_even_if_it_does_not_exist(
    http: httpx.AsyncClient, path: str
) -> None:
    response = await http.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="prunepool"'
    assert (await http.get(path, headers=BEARER)).status_code in (200, 404)


def paths_of(routes: Iterable[Any]) -> Iterator[str]:
    """The paths of routes, and of those that have been included from other routers."""
    for route in routes:
        if hasattr(route, "original_router"):
            yield from paths_of(route.original_router.routes)
        else:
            yield route.path


async def test_every_route_that_is_not_public_is_protected(app: FastAPI, http: httpx.AsyncClient) -> None:
    """A new route is found here, whatever it is."""
    paths = set(paths_of(app.routes))
    assert {"/classify", "/models/{name}", "/v2/models/{name}/infer", "/docs"} <= paths
    for path in paths - set(OPEN + HEALTH + METRICS) - {"/static", "/static/docs"}:
        concrete = path.replace("{path:path}", "x").replace("{", "").replace("}", "")
        for method in ("GET", "POST"):
            assert (await http.request(method, concrete)).status_code == 401, (method, concrete)


@pytest.mark.parametrize(
    "path",
    ["//classify", "/./classify", "/static/../classify", "/healthz/../classify", "/healthz/", "/STATIC/x"],
)
async def test_no_other_spelling_of_a_path_avoids_the_key(
    http: httpx.AsyncClient, service: FakeService, path: str
) -> None:
    url = httpx.URL("http://test").copy_with(raw_path=path.encode())
    assert (await http.post(url, content=b"photo")).status_code in (401, 404, 405)
    assert service.calls == []


async def test_a_refusal_is_a_problem_before_the_body_is_read(
    http: httpx.AsyncClient, service: FakeService, metrics: Metrics
) -> None:
    async def body() -> Any:
        pytest.fail("the body was read")
        yield b""

    response = await http.post("/classify", content=body())
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert "x-request-id" in response.headers
    assert service.calls == []
    assert refusals(metrics, "unauthorized") == 1


async def test_the_inference_protocol_has_its_own_shape(http: httpx.AsyncClient) -> None:
    response = await http.post("/v2/models/fake/infer", content=b"{}")
    assert (response.status_code, set(response.json())) == (401, {"error"})
    assert "www-authenticate" in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        BEARER,
        {"Authorization": "bearer pp_alice"},
        {"Authorization": "Bearer  pp_alice "},
        {"X-API-Key": "pp_alice"},
        {"Authorization": "Bearer pp_alice", "X-API-Key": "pp_alice"},
        {"Authorization": "Basic cHJveHk6cHJveHk=", "X-API-Key": "pp_alice"},
    ],
)
async def test_a_key_in_either_header(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await http.post("/classify", content=b"photo", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "pp_alice"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer pp_wrong"},
        {"Authorization": "Basic pp_alice"},
        {"Authorization": "Bearer pp_alice", "X-API-Key": "pp_bob"},
        {"X-API-Key": ""},
        {"X-API-Key": b"\xff\xfe"},
        {"Cookie": "key=pp_alice"},
    ],
)
async def test_anything_else_is_refused(http: httpx.AsyncClient, headers: Any) -> None:
    assert (await http.post("/classify", content=b"photo", headers=headers)).status_code == 401


async def test_a_key_in_the_query_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/models?api_key=pp_alice&key=pp_alice")).status_code == 401


async def test_health_and_metrics_can_be_protected_too(keyed: Callable[..., httpx.AsyncClient]) -> None:
    http = keyed(protect_health=True, protect_metrics=True)
    for path in HEALTH + METRICS:
        assert (await http.get(path)).status_code == 401
        assert (await http.get(path, headers=BEARER)).status_code == 200


async def test_the_log_line_has_the_name_of_the_key_but_never_the_key(
    http: httpx.AsyncClient, log_lines: Lines
) -> None:
    await http.post("/classify", content=b"photo", headers=BEARER)
    await http.post("/classify", content=b"photo", headers={"X-API-Key": "pp_wrong"})
    known, unknown = log_lines()
    assert known["key"] == "alice"
    assert "key" not in unknown
    assert (unknown["status"], unknown["code"]) == (401, "unauthorized")
    assert "pp_" not in str([known, unknown])


async def test_a_rate_counts_images(
    keyed: Callable[..., httpx.AsyncClient], clock: Any, service: FakeService, metrics: Metrics
) -> None:
    http = keyed(Rate(per_s=2, burst=3))
    two = [("file", b"one"), ("file", b"two")]
    assert (await http.post("/classify", files=two, headers=BEARER)).status_code == 200
    refused = await http.post("/classify", files=two, headers=BEARER)
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["retry_after"] == pytest.approx(0.5)
    assert len(service.calls) == 2
    assert refusals(metrics, "rate_limited") == 1
    clock.now = 0.5
    assert (await http.post("/classify", files=two, headers=BEARER)).status_code == 200


async def test_keys_do_not_share_rates(keyed: Callable[..., httpx.AsyncClient]) -> None:
    http = keyed(Rate(per_s=1, burst=1))
    for _ in range(2):
        assert (
            await http.post("/classify", content=b"x", headers={"X-API-Key": "pp_bob"})
        ).status_code == 200
    assert (await http.post("/classify", content=b"x", headers=BEARER)).status_code == 200
    assert (await http.post("/classify", content=b"x", headers=BEARER)).status_code == 429


async def test_a_caller_over_its_rate_is_refused_before_the_body_is_read(
    keyed: Callable[..., httpx.AsyncClient], metrics: Metrics
) -> None:
    http = keyed(Rate(per_s=1, burst=1))
    await http.post("/classify", content=b"photo", headers=BEARER)

    async def body() -> Any:
        pytest.fail("the body was read")
        yield b""

    response = await http.post("/classify", content=body(), headers=BEARER)
    assert response.status_code == 429
    assert (await http.get("/models", headers=BEARER)).status_code == 200
    assert refusals(metrics, "rate_limited") == 1


async def test_a_request_refused_for_another_reason_is_not_charged(
    keyed: Callable[..., httpx.AsyncClient],
) -> None:
    http = keyed(Rate(per_s=1, burst=1))
    for _ in range(3):
        assert (await http.post("/classify?top_k=0", content=b"x", headers=BEARER)).status_code == 422
    assert (await http.post("/classify", content=b"x", headers=BEARER)).status_code == 200


async def test_more_images_than_the_burst_of_a_key(keyed: Callable[..., httpx.AsyncClient]) -> None:
    http = keyed(Rate(per_s=1, burst=1))
    response = await http.post("/classify", files=[("file", b"x")] * 2, headers=BEARER)
    assert (response.status_code, response.json()["parameter"]) == (422, "images")


async def test_the_inference_protocol_is_charged_as_well(
    keyed: Callable[..., httpx.AsyncClient], service: FakeService
) -> None:
    http = keyed(Rate(per_s=1, burst=1))
    image = {"name": "images", "datatype": "BYTES", "shape": [1, 1], "data": ["AAAA"]}
    first, second = [
        await http.post("/v2/models/fake_jpeg/infer", json={"inputs": [image]}, headers=BEARER)
        for _ in range(2)
    ]
    assert first.status_code == 200, first.text
    assert (second.status_code, set(second.json())) == (429, {"error"})
    assert second.headers["retry-after"] == "1"
    two = {**image, "shape": [2, 1], "data": ["AAAA", "AAAA"]}
    refused = await http.post("/v2/models/fake_jpeg/infer", json={"inputs": [two]}, headers={**BEARER})
    assert refused.status_code == 429


async def test_without_a_keys_file_no_key_is_required(
    make_app: Callable[..., FastAPI], service: FakeService, connect: Any
) -> None:
    http = connect(make_app(service))
    response = await http.post("/classify", content=b"x", headers={"Authorization": "Bearer whatever"})
    assert response.status_code == 200


PREFLIGHT = {"Origin": "https://photos.example", "Access-Control-Request-Method": "POST"}


async def test_no_other_origin_by_default(make_app: Any, service: FakeService, connect: Any) -> None:
    http = connect(make_app(service))
    answer = await http.post("/classify", content=b"x", headers=PREFLIGHT)
    preflight = await http.options("/classify", headers=PREFLIGHT)
    assert preflight.status_code == 405
    for response in (answer, preflight):
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_pages_of_allowed_origins(keyed: Any) -> None:
    http = keyed(cors_origins=("https://photos.example",))
    asked = {
        **PREFLIGHT,
        "Access-Control-Request-Headers": "authorization, x-api-key, x-reduction-ratio, traceparent",
    }
    preflight = await http.options("/classify", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://photos.example"
    assert "access-control-allow-credentials" not in preflight.headers
    for headers, status in (({}, 401), (BEARER, 200)):
        origin = {"Origin": "https://photos.example"}
        response = await http.post("/classify", content=b"x", headers={**origin, **headers})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == "https://photos.example"
        assert "Retry-After" in response.headers["access-control-expose-headers"]


async def test_pages_of_no_other_origin(keyed: Any) -> None:
    http = keyed(cors_origins=("https://photos.example",))
    evil = {**PREFLIGHT, "Origin": "https://evil.example"}
    assert (await http.options("/classify", headers=evil)).status_code == 400
    response = await http.post("/classify", content=b"x", headers={**evil, **BEARER})
    assert "access-control-allow-origin" not in response.headers
