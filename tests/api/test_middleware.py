"""Every request has an id, a log line, and a result or a problem document."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from prunepool.metrics import Metrics

Lines = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize("given", ["abc-123", "x" * 128, "with space", "!"])
@pytest.mark.parametrize("path", ["/healthz", "/nope", "/classify"])
async def test_a_given_id_is_echoed_in_every_answer(http: httpx.AsyncClient, path: str, given: str) -> None:
    response = await http.get(path, headers={"X-Request-ID": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "ü", "tab\there", "escape\x1b[31m"])
async def test_a_missing_or_invalid_id_is_replaced(http: httpx.AsyncClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given.encode("utf-8")}
    response = await http.get("/healthz", headers=headers)
    assert uuid.UUID(response.headers["x-request-id"]).version == 4


async def test_one_log_line_per_request(http: httpx.AsyncClient, log_lines: Lines) -> None:
    await http.post("/classify?reduction_ratio=0.5", content=b"photo", headers={"X-Request-ID": "r1"})
    (line,) = log_lines()
    assert line.pop("timestamp")
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "prunepool.http",
        "request_id": "r1",
        "method": "POST",
        "path": "/classify",
        "client": "127.0.0.1",
        "status": 200,
        "model": "fake",
        "ratio": 0.5,
        "batch": 1,
        "decode_ms": 1.0,
        "queue_ms": 0.5,
        "inference_ms": 2.0,
    }


async def test_the_log_line_of_an_error_has_its_code(http: httpx.AsyncClient, log_lines: Lines) -> None:
    await http.post("/classify", content=b"bad")
    (line,) = log_lines()
    assert (line["status"], line["code"]) == (400, "image_undecodable")


async def test_the_log_line_of_several_images_counts_them(http: httpx.AsyncClient, log_lines: Lines) -> None:
    await http.post("/classify", files=[("file", b"one"), ("file", b"bad"), ("file", b"bad too")])
    (line,) = log_lines()
    assert (line["images"], line["failed"], line["codes"]) == (3, 2, "image_undecodable")


async def test_image_data_is_never_logged(http: httpx.AsyncClient, log_lines: Lines) -> None:
    await http.post("/classify", json={"image": "c2VjcmV0LWltYWdl"})
    await http.post("/classify", content=b"bad secret-image")
    assert not any("secret-image" in str(line) or "c2Vj" in str(line) for line in log_lines())


async def test_probes_and_scrapes_are_logged_at_debug_level(
    http: httpx.AsyncClient, log_lines: Lines
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await http.get(path)
    assert log_lines() == []


async def test_control_characters_of_a_path_do_not_reach_the_log(
    http: httpx.AsyncClient, log_lines: Lines
) -> None:
    await http.get("/%1b%5b31m%0aforged")
    (line,) = log_lines()
    assert line["path"] == "/%1B%5B31m%0Aforged"


async def test_an_unknown_path_is_a_problem(http: httpx.AsyncClient) -> None:
    response = await http.get("/nope")
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_a_wrong_method_is_a_problem_that_names_the_right_one(http: httpx.AsyncClient) -> None:
    response = await http.get("/classify")
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_an_error_outside_every_handler_is_a_problem_and_leaks_nothing(
    app: FastAPI, connect: Any, log_lines: Lines
) -> None:
    @app.get("/breaks")
    async def breaks() -> None:
        raise RuntimeError("a secret")

    response = await connect(app).get("/breaks", headers={"X-Request-ID": "r1"})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"] == "r1"
    assert "secret" not in response.text
    error, line = log_lines()
    assert "a secret" in str(error["exception"])
    assert (error["request_id"], line["request_id"], line["status"]) == ("r1", "r1", 500)


@pytest.mark.parametrize("body_complete", [False, True], ids=["while sending", "while waiting"])
async def test_a_client_that_disconnects_gets_no_response_but_a_log_line(
    make_app: Callable[..., FastAPI], held: Any, log_lines: Lines, body_complete: bool
) -> None:
    app = make_app(held)
    await held.start()
    messages = [
        {"type": "http.request", "body": b"photo", "more_body": not body_complete},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "raw_path": b"/classify",
        "query_string": b"",
        "root_path": "",
        "headers": [],
    }
    await app(scope, receive, send)
    (line,) = log_lines()
    assert line["status"] == 499
    assert sent == []


@pytest.mark.parametrize(
    ("method", "path", "body", "counted"),
    [
        ("GET", "/healthz", None, ("/healthz", "200", "ok")),
        ("GET", "/models/fake", None, ("/models/{name}", "200", "ok")),
        ("GET", "/models/made-up", None, ("/models/{name}", "404", "model_not_found")),
        ("GET", "/made-up", None, ("none", "404", "not_found")),
        ("PUT", "/classify", None, ("/classify", "405", "method_not_allowed")),
        ("POST", "/classify", b"photo", ("/classify", "200", "ok")),
        ("POST", "/classify", b"bad", ("/classify", "400", "image_undecodable")),
        ("POST", "/classify?top_k=0", b"photo", ("/classify", "422", "invalid_parameter")),
        ("POST", "/v2/models/fake/infer", b"{}", ("/v2/models/{name}/infer", "422", "invalid_parameter")),
        ("GET", "/v2/made-up", None, ("/v2/{path}", "404", "model_not_found")),
    ],
)
async def test_every_request_is_counted_once_with_few_labels(
    http: httpx.AsyncClient, metrics: Metrics, method: str, path: str, body: bytes | None, counted: Any
) -> None:
    for _ in range(2):
        await http.request(method, path, content=body)
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    (found,) = [sample for sample in samples if sample.name == "prunepool_http_requests_total"]
    assert tuple(found.labels[name] for name in ("route", "status", "code")) == counted
    assert found.value == 2
