"""The OpenAPI document has everything that client generators need."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from prunepool import errors


@pytest.fixture
async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await http.get("/openapi.json")).json()
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


async def test_it_is_made_and_written_once(app: FastAPI, http: httpx.AsyncClient) -> None:
    made: list[None] = []
    make = app.openapi
    app.openapi = lambda: made.append(None) or make()  # type: ignore[method-assign,func-returns-value]
    found = {(await http.get("/openapi.json")).content for _ in range(3)}
    assert len(found) == len(made) == 1


def test_every_route_of_the_api_is_there(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        "/classify",
        "/healthz",
        "/readyz",
        "/metrics",
        "/models",
        "/models/{name}",
    }


def test_every_form_of_a_body_is_there(document: dict[str, Any]) -> None:
    content = document["paths"]["/classify"]["post"]["requestBody"]["content"]
    assert {"image/jpeg", "application/octet-stream", "multipart/form-data", "application/json"} <= set(
        content
    )


def test_every_option_is_documented_for_every_source(document: dict[str, Any]) -> None:
    operation = document["paths"]["/classify"]["post"]
    content = operation["requestBody"]["content"]
    options = {
        "reduction_ratio",
        "max_reduction_ratio",
        "max_accuracy_drop",
        "top_k",
        "deadline_ms",
        "model",
        "explain",
    }
    assert {p["name"] for p in operation["parameters"] if p["in"] == "query"} == options
    assert set(content["multipart/form-data"]["schema"]["properties"]) == options | {"file"}
    one, several = content["application/json"]["schema"]["oneOf"]
    assert set(one["properties"]) == options | {"image"}
    assert set(several["properties"]) == options | {"images"}


@pytest.mark.parametrize(
    "kind",
    [
        errors.DeadlineExceeded,
        errors.Draining,
        errors.EngineUnavailable,
        errors.ImageTooLarge,
        errors.ImageUndecodable,
        errors.InvalidParameter,
        errors.ModelNotFound,
        errors.Overloaded,
        errors.PrunepoolError,
        errors.RateLimited,
        errors.RequestTimeout,
        errors.Unauthorized,
        errors.UnsupportedMediaType,
    ],
)
def test_every_error_is_there_as_a_problem(
    document: dict[str, Any], kind: type[errors.PrunepoolError]
) -> None:
    response = document["paths"]["/classify"]["post"]["responses"][str(kind.status)]
    assert kind.code in response["description"]
    (content,) = response["content"].items()
    assert content[0] == "application/problem+json"
    assert content[1]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert ("Retry-After" in response["headers"]) == (kind.status in (429, 503))
    assert ("WWW-Authenticate" in response["headers"]) == (kind.status == 401)


def test_every_answer_has_its_id(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for response in operation["responses"].values():
            assert "X-Request-ID" in response["headers"]


def test_no_error_has_the_framework_s_shape(document: dict[str, Any]) -> None:
    assert "ValidationError" not in str(document)


def test_operations_have_short_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert sorted(names) == ["classify", "healthz", "metrics", "model", "models", "readyz"]
