"""The examples of the OpenAPI document are real, and its errors are exactly those that can happen."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from prunepool import errors
from prunepool.access import Key, Keyring, Rate, digest_of
from prunepool.api.app import create_app
from prunepool.api.connection import Arrival, set_arrival
from prunepool.api.drain import Drain
from prunepool.metrics import Metrics
from prunepool.testing import FakeService

PROBLEM = "application/problem+json"
KEY = {"X-API-Key": "pp_alice"}


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def examples_of(content: dict[str, Any]) -> dict[str, Any]:
    """All examples of a body, by name."""
    if "example" in content:
        return {"the only one": content["example"]}
    return {name: example["value"] for name, example in content.get("examples", {}).items()}


def media(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body of an operation, asked and answered, by where it is."""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"request {kind}", content
    for status, response in operation["responses"].items():
        for kind, content in response.get("content", {}).items():
            yield f"{status} {kind}", content


def is_bytes(content: dict[str, Any]) -> bool:
    return content["schema"].get("format") == "binary"


def test_every_body_that_is_not_bytes_has_examples(document: dict[str, Any]) -> None:
    missing = [
        f"{name}: {where}"
        for name, operation in operations(document)
        for where, content in media(operation)
        if not is_bytes(content) and not examples_of(content)
    ]
    assert missing == []


def test_every_error_has_an_example_of_each_of_its_codes(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if PROBLEM not in response.get("content", {}):
                continue
            shown = examples_of(response["content"][PROBLEM])
            assert shown, name
            for code, problem in shown.items():
                assert problem["code"] == code
                assert problem["status"] == int(status)
                assert f"`{code}`" in response["description"]


def test_every_example_matches_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for name, operation in operations(document):
        for where, content in media(operation):
            schema = {**content["schema"], "components": document["components"]}
            validator = jsonschema_rs.validator_for(schema)
            for example in examples_of(content).values():
                problems = [error.message for error in validator.iter_errors(example)]
                assert problems == [], f"{name}, {where}"
                checked += 1
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                assert jsonschema_rs.is_valid(parameter["schema"], parameter["example"]), parameter["name"]
    assert checked > 30


async def test_all_parameter_examples_together_are_a_valid_request(
    document: dict[str, Any], http: httpx.AsyncClient
) -> None:
    """Swagger UI fills them in."""
    given = [p for p in document["paths"]["/classify"]["post"]["parameters"] if "example" in p]
    assert len(given) > 4
    response = await http.post(
        "/classify",
        params={p["name"]: str(p["example"]).lower() for p in given if p["in"] == "query"},
        headers={p["name"]: p["example"] for p in given if p["in"] == "header"},
        content=b"photo",
    )
    assert response.status_code == 200, response.text


async def test_the_request_examples_are_accepted(document: dict[str, Any], http: httpx.AsyncClient) -> None:
    content = document["paths"]["/classify"]["post"]["requestBody"]["content"]
    for example in examples_of(content["application/json"]).values():
        response = await http.post("/classify", json=example)
        assert response.status_code == 200, response.text
        for entry in response.json().get("results", []):
            assert "predictions" in entry
    (form,) = examples_of(content["multipart/form-data"]).values()
    files = [("file", base64.b64encode(file.encode())) for file in form.pop("file")]
    assert (await http.post("/classify", files=files, data=form)).status_code == 200


def test_with_keys_the_document_says_which_routes_need_one(
    make_settings: Any, metrics: Metrics, service: FakeService, document: dict[str, Any]
) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    assert all("security" not in operation for _, operation in operations(document))
    keyed = create_app(service, make_settings(), metrics, keyring=Keyring(Keys(), lambda: 0.0)).openapi()
    needing = {name for name, operation in operations(keyed) if operation.get("security")}
    assert needing == {"POST /classify", "GET /models", "GET /models/{name}"}


class Keys:
    """Of one caller who may send one image."""

    def read(self) -> dict[str, Key]:
        return {"alice": Key("alice", digest_of("pp_alice"), Rate(per_s=1e-6, burst=1))}

    def stamp(self) -> object:
        return None


class Breaking(FakeService):
    """Fails unexpectedly once `broken` is set."""

    broken = False

    def _maybe(self) -> None:
        if self.broken:
            raise RuntimeError("broken")

    def models(self) -> Any:
        self._maybe()
        return super().models()

    def model(self, name: str) -> Any:
        self._maybe()
        return super().model(name)

    def readiness(self) -> Any:
        self._maybe()
        return super().readiness()


class World:
    """An app that requires keys everywhere, and every error that it can cause."""

    def __init__(self, make_settings: Any, metrics: Metrics) -> None:
        self.service = Breaking()
        self.drain = Drain(30.0, lambda: 0.0)
        self.metrics = metrics
        settings = make_settings(protect_health=True, protect_metrics=True, max_body_bytes=1000)
        keyring = Keyring(Keys(), lambda: 0.0)
        self.app = create_app(self.service, settings, metrics, self.drain, keyring=keyring)
        self.hurried = False
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self._hurry(self.app)), base_url="http://test", headers=KEY
        )

    def _hurry(self, app: ASGIApp) -> ASGIApp:
        async def hurried(scope: Scope, receive: Receive, send: Send) -> None:
            if self.hurried:
                set_arrival(scope.setdefault("state", {}), Arrival(asyncio.get_running_loop().time()))
            await app(scope, receive, send)

        return hurried

    async def classify(self, **request: Any) -> httpx.Response:
        return await self.http.post("/classify", **{"content": b"photo", **request})

    async def classify_failing(self, error: errors.PrunepoolError) -> httpx.Response:
        self.service.error = error
        return await self.classify()

    async def classify_slowly(self) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        self.hurried = True
        return await self.http.post("/classify", content=body())

    async def classify_twice(self) -> httpx.Response:
        await self.classify()
        return await self.classify()

    async def classify_draining(self) -> httpx.Response:
        self.drain.begin()
        return await self.classify()

    async def get_broken(self, path: str) -> httpx.Response:
        self.service.broken = True
        self.metrics.registry.register(BrokenCollector())
        return await self.http.get(path)

    async def get_without_key(self, path: str) -> httpx.Response:
        return await self.http.get(path, headers={"X-API-Key": ""})

    async def classify_broken(self) -> httpx.Response:
        self.service.broken = True
        return await self.classify()


class BrokenCollector:
    """Fails a scrape, not its own registration."""

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Any:
        raise RuntimeError("broken")


Provoke = Callable[[World], Awaitable[httpx.Response]]


def of_get(path: str) -> dict[str, Provoke]:
    return {
        "unauthorized": lambda world: world.get_without_key(path),
        "internal_error": lambda world: world.get_broken(path),
    }


LATER = {"retry_after": 1.0}
PROVOKED: dict[str, dict[str, Provoke]] = {
    "POST /classify": {
        "unauthorized": lambda world: world.classify(headers={"X-API-Key": "pp_bob"}),
        "rate_limited": World.classify_twice,
        "request_timeout": World.classify_slowly,
        "image_undecodable": lambda world: world.classify(content=b"bad"),
        "model_not_found": lambda world: world.classify(params={"model": "nope"}),
        "body_too_large": lambda world: world.classify(content=b"x" * 1001),
        "image_too_large": lambda world: world.classify_failing(errors.ImageTooLarge("by the engine")),
        "unsupported_media_type": lambda world: world.classify(headers={"Content-Type": "text/plain"}),
        "invalid_parameter": lambda world: world.classify(params={"top_k": 0}),
        "internal_error": World.classify_broken,
        "overloaded": lambda world: world.classify_failing(errors.Overloaded("by the engine", **LATER)),
        "engine_unavailable": lambda world: world.classify_failing(
            errors.EngineUnavailable("by the engine", **LATER)
        ),
        "draining": World.classify_draining,
        "deadline_exceeded": lambda world: world.classify_failing(errors.DeadlineExceeded("by the engine")),
    },
    "GET /models": of_get("/models"),
    "GET /models/{name}": {
        **of_get("/models/fake"),
        "model_not_found": lambda world: world.http.get("/models/nope"),
    },
    "GET /readyz": of_get("/readyz"),
    "GET /metrics": of_get("/metrics"),
    # Nothing that it does can fail.
    "GET /healthz": {"unauthorized": lambda world: world.get_without_key("/healthz")},
}


def test_the_documented_errors_are_those_provoked_here(document: dict[str, Any]) -> None:
    listed = {
        name: {
            code
            for response in operation["responses"].values()
            for code in examples_of(response.get("content", {}).get(PROBLEM, {}))
        }
        for name, operation in operations(document)
    }
    assert listed == {name: set(codes) for name, codes in PROVOKED.items()}


@pytest.mark.parametrize(
    ("name", "code"), [(name, code) for name, codes in PROVOKED.items() for code in codes]
)
async def test_every_documented_error_can_happen(
    make_settings: Any, metrics: Metrics, name: str, code: str
) -> None:
    world = World(make_settings, metrics)
    response = await PROVOKED[name][code](world)
    assert response.json()["code"] == code
    described = dict(operations(world.app.openapi()))[name]["responses"][str(response.status_code)]
    assert response.headers["content-type"] == PROBLEM
    for header in described["headers"]:
        assert header in response.headers
    schema = {**described["content"][PROBLEM]["schema"], "components": world.app.openapi()["components"]}
    assert jsonschema_rs.is_valid(schema, response.json())
