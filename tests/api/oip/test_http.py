"""The protocol over plain HTTP: responses, errors, and invalid requests."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from budget import examples
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from prunepool.api.app import create_app
from prunepool.errors import DeadlineExceeded, Overloaded
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.settings import Settings
from prunepool.testing import FakeService, Gate, fake_model

Binary = Callable[..., tuple[bytes, dict[str, str]]]
PHOTO = {"inputs": [{"name": "images", "shape": [1, 1], "datatype": "BYTES", "data": ["cGhvdG8="]}]}
INFER = "/v2/models/fake_jpeg/infer"


def error(response: httpx.Response) -> str:
    """Return the message of an error of the protocol."""
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document) == {"error"}
    message = document["error"]
    assert isinstance(message, str)
    return message


async def test_the_server_describes_itself(http: httpx.AsyncClient) -> None:
    document = (await http.get("/v2")).json()
    assert document["name"] == "prunepool"
    assert {"classification", "binary_tensor_data", "model_configuration", "statistics"} <= set(
        document["extensions"]
    )


async def test_alive_and_ready_are_both_status_and_json(http: httpx.AsyncClient) -> None:
    live, ready = await http.get("/v2/health/live"), await http.get("/v2/health/ready")
    assert (live.status_code, live.json()) == (200, {"live": True})
    assert (ready.status_code, ready.json()) == (200, {"ready": True})


async def test_not_ready_is_both_status_and_json(http: httpx.AsyncClient, service: FakeService) -> None:
    service.ready = False
    live, ready = await http.get("/v2/health/live"), await http.get("/v2/health/ready")
    assert (live.status_code, live.json()) == (200, {"live": True})
    assert (ready.status_code, ready.json()) == (503, {"ready": False})


@pytest.mark.parametrize(("loaded", "status"), [(True, 200), (False, 503)])
async def test_a_model_is_ready_by_itself(
    make_app: Callable[..., FastAPI], connect: Any, loaded: bool, status: int
) -> None:
    http = connect(make_app(FakeService([fake_model("a"), fake_model("b", ready=loaded)])))
    response = await http.get("/v2/models/b/ready")
    assert (response.status_code, response.json()) == (status, {"name": "b", "ready": loaded})


async def test_a_draining_server_is_alive_and_not_ready(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.state.context.drain.begin()
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/fake/ready")
    assert [(await http.get(path)).status_code for path in paths] == [200, 503, 503]


async def test_both_views_of_every_model_are_listed(make_app: Callable[..., FastAPI], connect: Any) -> None:
    http = connect(make_app(FakeService([fake_model("a"), fake_model("b")])))
    assert (await http.get("/v2/models")).json() == {"models": ["a", "a_jpeg", "b", "b_jpeg"]}


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_inputs_and_outputs_of_tensors(http: httpx.AsyncClient, version: str) -> None:
    document = (await http.get(f"/v2/models/fake{version}")).json()
    assert document == {
        "name": "fake",
        "versions": ["1"],
        "platform": "prunepool",
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        ],
    }


async def test_inputs_of_encoded_images(http: httpx.AsyncClient) -> None:
    document = (await http.get("/v2/models/fake_jpeg")).json()
    assert document["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1, 1]}]


@pytest.mark.parametrize("version", ["", "/versions/1"])
async def test_the_configuration_of_tensors(http: httpx.AsyncClient, version: str) -> None:
    document = (await http.get(f"/v2/models/fake{version}/config")).json()
    assert document["input"] == [
        {"name": "images", "data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": [3, 224, 224]}
    ]
    assert document["output"] == [
        {"name": "logits", "data_type": "TYPE_FP32", "dims": [10]},
        {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [10]},
    ]
    assert document["parameters"]["mean"] == {"string_value": "0.5,0.5,0.5"}
    assert document["parameters"]["crop_pct"] == {"string_value": "0.9"}
    assert document["parameters"]["crop_mode"] == {"string_value": "center"}
    assert document["parameters"]["interpolation"] == {"string_value": "bicubic"}
    assert document["parameters"]["max_reduction_ratio"] == {"string_value": "0.872449"}


async def test_the_configuration_of_encoded_images(http: httpx.AsyncClient) -> None:
    document = (await http.get("/v2/models/fake_jpeg/config")).json()
    assert (document["input"][0]["data_type"], document["input"][0]["dims"]) == ("TYPE_STRING", [1])


async def test_max_batch_size_is_limited_by_the_body(make_app: Callable[..., FastAPI], connect: Any) -> None:
    http = connect(make_app(FakeService(), max_body_bytes=3 * 602112, max_images_per_request=100))
    configs = [(await http.get(f"/v2/models/{name}/config")).json() for name in ("fake", "fake_jpeg")]
    assert [config["max_batch_size"] for config in configs] == [3, 100]


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v2/models/nope", "no model named 'nope' is served; there are: fake, fake_jpeg"),
        ("GET", "/v2/models/nope/ready", "no model named 'nope'"),
        ("GET", "/v2/models/nope/config", "no model named 'nope'"),
        ("GET", "/v2/models/nope/stats", "no model named 'nope'"),
        ("POST", "/v2/models/nope/infer", "no model named 'nope'"),
        ("GET", "/v2/models/fake/versions/2", "fake has no version '2'; there is: 1"),
        ("POST", "/v2/models/fake/versions/2/infer", "fake has no version '2'"),
        ("POST", "/v2/repository/models/nope/load", "no model named 'nope'"),
        ("POST", "/v2/repository/models/nope/unload", "no model named 'nope'"),
        ("GET", "/v2/trace/setting", "nothing is served at GET /v2/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status", "nothing is served"),
        ("GET", "/v2/models/fake/infer", "nothing is served at GET /v2/models/fake/infer"),
        ("DELETE", "/v2/models/fake", "nothing is served at DELETE"),
        ("GET", "/v2/", "nothing is served at GET /v2/"),
    ],
)
async def test_an_unknown_path_is_an_error_of_the_protocol(
    http: httpx.AsyncClient, method: str, path: str, said: str
) -> None:
    response = await http.request(method, path)
    assert response.status_code == 404
    assert said in error(response)


async def test_an_image_in_json(http: httpx.AsyncClient, service: FakeService) -> None:
    response = await http.post(INFER, json=PHOTO)
    assert response.status_code == 200
    assert [output["shape"] for output in response.json()["outputs"]] == [[1, 10], [1, 10]]
    assert service.calls == [(b"photo", InferenceOptions(model="fake"))]


async def test_an_image_alone_and_nothing_else(http: httpx.AsyncClient, service: FakeService) -> None:
    response = await http.post(INFER, content=b"photo", headers={"Inference-Header-Content-Length": "0"})
    length = int(response.headers["inference-header-content-length"])
    document = json.loads(response.content[:length])
    assert [output["parameters"] for output in document["outputs"]] == [{"binary_data_size": 40}] * 2
    assert len(response.content) == length + 80
    assert service.calls == [(b"photo", InferenceOptions(model="fake"))]


async def test_the_content_type_is_ignored(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await http.post(INFER, content=json.dumps(PHOTO), headers=headers)).status_code == 200


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_the_length_of_the_json_is_that_before_compression(
    http: httpx.AsyncClient, service: FakeService, binary: Binary, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    body, headers = binary(b"\x05\x00\x00\x00photo", shape=[1, 1], datatype="BYTES")
    response = await http.post(INFER, content=pack(body), headers={**headers, "Content-Encoding": coding})
    assert response.status_code == 200
    assert service.calls[0][0] == b"photo"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("images", [1, 128], ids=["small", "large"])
async def test_an_answer_is_compressed_as_a_whole(
    make_app: Callable[..., FastAPI], connect: Any, coding: str, images: int
) -> None:
    http = connect(make_app(FakeService([fake_model(classes=1000)])))
    given = {"name": "images", "shape": [images, 1], "datatype": "BYTES", "data": ["cGhvdG8="] * images}
    document = {"inputs": [given], "parameters": {"binary_data_output": True}}
    response = await http.post(INFER, json=document, headers={"Accept-Encoding": coding})
    assert response.headers["content-encoding"] == coding
    length = int(response.headers["inference-header-content-length"])
    outputs = json.loads(response.content[:length])["outputs"]
    assert len(response.content) == length + 2 * images * 4000
    assert outputs[0]["shape"] == [images, 1000]


async def test_errors_and_other_answers_are_never_compressed(http: httpx.AsyncClient) -> None:
    headers = {"Accept-Encoding": "gzip, deflate"}
    responses = [
        await http.post(INFER, content=b"{", headers=headers),
        await http.get("/v2", headers=headers),
        await http.get("/v2/models/fake/config", headers=headers),
        await http.get("/v2/models/stats", headers=headers),
    ]
    assert not any("content-encoding" in response.headers for response in responses)


@pytest.fixture
def limited(make_app: Callable[..., FastAPI], service: FakeService, connect: Any) -> httpx.AsyncClient:
    """A client of an app that takes 1000 bytes and four images."""
    client: httpx.AsyncClient = connect(make_app(service, max_body_bytes=1000, max_images_per_request=4))
    return client


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_bomb_is_refused(limited: httpx.AsyncClient, pack: Callable[[bytes], bytes]) -> None:
    coding = "gzip" if pack is gzip.compress else "deflate"
    body = pack(bytes(900_000))
    assert len(body) < 1000
    response = await limited.post(INFER, content=body, headers={"Content-Encoding": coding})
    assert response.status_code == 413
    assert "more than the limit of 1000 bytes" in error(response)


async def test_a_long_body_is_refused(limited: httpx.AsyncClient, service: FakeService) -> None:
    for path in (INFER, "/v2/repository/index", "/v2/repository/models/fake/load"):
        response = await limited.post(path, content=b"x" * 1001)
        assert response.status_code == 413
        assert "the limit is 1000" in error(response)
    assert service.calls == []


async def test_too_many_images_are_refused(limited: httpx.AsyncClient, service: FakeService) -> None:
    given = {"name": "images", "shape": [5, 1], "datatype": "BYTES", "data": ["cGhvdG8="] * 5}
    response = await limited.post(INFER, json={"inputs": [given]})
    assert "with n from 1 to 4" in error(response)
    assert service.calls == []


async def test_another_coding_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(INFER, content=b"x", headers={"Content-Encoding": "br"})
    assert response.status_code == 415
    assert "Content-Encoding must be gzip, deflate or identity; got 'br'" in error(response)


@pytest.mark.parametrize("ratio", [0.5, "0.5", 0, "auto"])
async def test_a_ratio_is_a_number_or_a_text(
    http: httpx.AsyncClient, service: FakeService, ratio: float | str
) -> None:
    response = await http.post(INFER, json={**PHOTO, "parameters": {"reduction_ratio": ratio}})
    assert response.json()["parameters"]["reason"] == ("auto:default" if ratio == "auto" else "requested")
    assert service.calls[0][1].reduction_ratio == ("auto" if ratio == "auto" else float(ratio))


async def test_every_option_can_be_a_text(http: httpx.AsyncClient, service: FakeService) -> None:
    parameters = {"reduction_ratio": "auto", "max_reduction_ratio": "0.25", "deadline_ms": "500"}
    response = await http.post(INFER, json={**PHOTO, "parameters": parameters})
    assert response.json()["parameters"]["reduction_ratio"] == 0.25
    expected = InferenceOptions("fake", reduction_ratio="auto", max_reduction_ratio=0.25, deadline_ms=500.0)
    assert service.calls[0][1] == expected


@pytest.mark.parametrize(
    "where", [{"params": {"reduction_ratio": 0.5, "other": 1}}, {"headers": {"X-Reduction-Ratio": "0.5"}}]
)
async def test_a_client_without_parameters_has_the_query_and_the_header(
    http: httpx.AsyncClient, service: FakeService, where: Any
) -> None:
    await http.post(INFER, json=PHOTO, **where)
    assert service.calls[0][1].reduction_ratio == 0.5


async def test_different_values_are_refused(http: httpx.AsyncClient) -> None:
    document = {**PHOTO, "parameters": {"reduction_ratio": 0.25}}
    response = await http.post(INFER, json=document, params={"reduction_ratio": 0.5})
    assert "0.5 (query) and 0.25 (parameters)" in error(response)


async def test_parameters_of_other_servers_are_ignored(http: httpx.AsyncClient) -> None:
    parameters = {
        "sequence_id": 1,
        "sequence_start": True,
        "priority": 2,
        "timeout": 1000,
        "model": "x",
        "explain": 1,
    }
    assert (await http.post(INFER, json={**PHOTO, "parameters": parameters})).status_code == 200


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"reduction_ratio": 0.9}, "reduction_ratio must be auto or a number between 0 and 0.8724; got 0.9"),
        ({"reduction_ratio": "most"}, "reduction_ratio must be a number or auto; got 'most'"),
        ({"reduction_ratio": True}, "reduction_ratio must be a number or auto; got True"),
        ({"max_reduction_ratio": -1}, "max_reduction_ratio must be a number between"),
        ({"max_accuracy_drop": -1}, "max_accuracy_drop must be a finite number of points"),
        ({"deadline_ms": 0}, "deadline_ms must be a finite number above 0; got 0"),
    ],
)
async def test_an_option_out_of_range_is_named(
    http: httpx.AsyncClient, service: FakeService, parameters: Any, said: str
) -> None:
    response = await http.post(INFER, json={**PHOTO, "parameters": parameters})
    assert response.status_code == 422
    assert said in error(response)
    assert service.calls == []


async def test_a_tensor_that_is_not_finite_is_refused(
    http: httpx.AsyncClient, tensor: Any, binary: Binary
) -> None:
    images = tensor(0, 0)
    images[1, 2, 3, 4] = np.nan
    body, headers = binary(images.tobytes(), shape=images.shape)
    response = await http.post("/v2/models/fake/infer", content=body, headers=headers)
    assert response.status_code == 422
    assert "image 1 of 2, counted from 0: image must be" in error(response)


async def test_a_bad_image_fails_its_request_and_is_named(http: httpx.AsyncClient, binary: Binary) -> None:
    body, headers = binary(b"\x02\x00\x00\x00ok\x03\x00\x00\x00bad", shape=[2, 1], datatype="BYTES")
    response = await http.post(INFER, content=body, headers=headers)
    assert response.status_code == 400
    assert error(response).startswith("image 1 of 2, counted from 0: 3 bytes are not an image")


async def test_a_single_bad_image_needs_no_number(http: httpx.AsyncClient, binary: Binary) -> None:
    body, headers = binary(b"\x03\x00\x00\x00bad", shape=[1, 1], datatype="BYTES")
    assert error(await http.post(INFER, content=body, headers=headers)).startswith("3 bytes are not an image")


@pytest.mark.parametrize("images", [1, 3])
async def test_overload_has_retry_after(http: httpx.AsyncClient, service: FakeService, images: int) -> None:
    service.error = Overloaded("full", retry_after=2.5)
    given = {"name": "images", "shape": [images, 1], "datatype": "BYTES", "data": ["cGhvdG8="] * images}
    response = await http.post(INFER, json={"inputs": [given]})
    assert (response.status_code, response.headers["retry-after"], error(response)) == (503, "3", "full")


async def test_a_missed_deadline_is_an_error(http: httpx.AsyncClient, service: FakeService) -> None:
    service.error = DeadlineExceeded("too late")
    response = await http.post(INFER, json=PHOTO)
    assert (response.status_code, error(response)) == (504, "too late")


async def test_while_draining_new_requests_are_refused(app: FastAPI, http: httpx.AsyncClient) -> None:
    app.state.context.drain.begin()
    response = await http.post(INFER, json=PHOTO)
    assert response.status_code == 503
    assert "the server is stopping" in error(response)
    assert int(response.headers["retry-after"]) >= 1


async def test_an_unexpected_error_has_the_protocol_s_form_and_leaks_nothing(
    http: httpx.AsyncClient, service: FakeService, log_lines: Any
) -> None:
    service.error = ZeroDivisionError("a secret")  # type: ignore[assignment]
    response = await http.post(INFER, json=PHOTO)
    assert response.status_code == 500
    assert "secret" not in error(response)
    unexpected, line = log_lines()
    assert "a secret" in str(unexpected["exception"])
    assert line["code"] == "internal_error"


async def test_a_response_has_a_request_id_and_a_log_line(http: httpx.AsyncClient, log_lines: Any) -> None:
    response = await http.post(
        INFER, json={**PHOTO, "parameters": {"reduction_ratio": 0.5}}, headers={"X-Request-ID": "r1"}
    )
    assert response.headers["x-request-id"] == "r1"
    (line,) = log_lines()
    assert (line["model"], line["images"], line["ratio"], line["batch"]) == ("fake_jpeg", 1, 0.5, 1)


async def test_the_repository_lists_every_view_and_its_state(
    make_app: Callable[..., FastAPI], connect: Any
) -> None:
    http = connect(make_app(FakeService([fake_model("a"), fake_model("b", ready=False)])))
    listed = (await http.post("/v2/repository/index")).json()
    assert [(one["name"], one["version"], one["state"]) for one in listed] == [
        ("a", "1", "READY"),
        ("a_jpeg", "1", "READY"),
        ("b", "1", "UNAVAILABLE"),
        ("b_jpeg", "1", "UNAVAILABLE"),
    ]
    ready = (await http.post("/v2/repository/index", json={"ready": True})).json()
    assert [one["name"] for one in ready] == ["a", "a_jpeg"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("index", '{"ready": null}'),
        ("models/fake/load", '{"parameters": {"config": null}}'),
        ("index", "\ufeff{}"),
    ],
)
async def test_null_is_as_left_out_of_a_repository_request(
    http: httpx.AsyncClient, path: str, body: str
) -> None:
    assert (await http.post(f"/v2/repository/{path}", content=body.encode())).status_code == 200


async def test_an_option_that_is_null_is_as_left_out(http: httpx.AsyncClient, service: FakeService) -> None:
    parameters = dict.fromkeys(["reduction_ratio", "max_reduction_ratio", "max_accuracy_drop", "deadline_ms"])
    assert (await http.post(INFER, json={**PHOTO, "parameters": parameters})).status_code == 200
    assert [options for _, options in service.calls] == [InferenceOptions("fake")]


@pytest.mark.parametrize("body", ["[]", "{", '{"ready": 1}', '{"ready": true, "ready": false}', "[" * 1001])
async def test_an_invalid_repository_request_is_refused(http: httpx.AsyncClient, body: str) -> None:
    response = await http.post("/v2/repository/index", content=body)
    assert response.status_code == 422
    assert error(response)


@pytest.mark.parametrize("body", ["", "{}", '{"parameters": {}}'])
async def test_loading_a_loaded_model_does_nothing(http: httpx.AsyncClient, body: str) -> None:
    response = await http.post("/v2/repository/models/fake/load", content=body)
    assert (response.status_code, response.json()) == (200, {"name": "fake", "load": True})


@pytest.mark.parametrize("parameters", [{"config": "{}"}, {"file:1/model": "x"}, [1]])
async def test_loading_with_parameters_is_refused(http: httpx.AsyncClient, parameters: Any) -> None:
    response = await http.post("/v2/repository/models/fake/load", json={"parameters": parameters})
    assert response.status_code == 422
    assert "parameters" in error(response)


async def test_unloading_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post("/v2/repository/models/fake/unload", json={"parameters": {}})
    assert response.status_code == 403
    assert "fake cannot be unloaded" in error(response)


def stats(response: httpx.Response) -> Any:
    (found,) = response.json()["model_stats"]
    return found


async def test_statistics_count_images_and_the_batches_they_shared(
    scheduled: httpx.AsyncClient, gate: Gate, binary: Binary, tensor: Any
) -> None:
    images = tensor(1, 2, 3, 4, 5, size=4)
    body, headers = binary(images.tobytes(), shape=images.shape)
    response = await scheduled.post("/v2/models/m/infer", content=body, headers=headers)
    best = [np.argmax(row) for row in np.reshape(response.json()["outputs"][0]["data"], (5, 10))]
    assert best == [1, 2, 3, 4, 5]
    found = stats(await scheduled.get("/v2/models/m/stats"))
    assert (found["inference_count"], found["execution_count"]) == (5, gate.arrivals)
    sizes = {one["batch_size"]: one["compute_infer"]["count"] for one in found["batch_stats"]}
    assert sum(size * count for size, count in sizes.items()) == 5
    assert max(sizes) == 3


async def test_statistics_time_requests(scheduled: httpx.AsyncClient, binary: Binary, tensor: Any) -> None:
    images = tensor(1, 2, size=4)
    body, headers = binary(images.tobytes(), shape=images.shape)
    for _ in range(3):
        await scheduled.post("/v2/models/m/infer", content=body, headers=headers)
    found = stats(await scheduled.get("/v2/models/m/stats"))["inference_stats"]
    stages = ("queue", "compute_input", "compute_infer", "compute_output")
    assert [found[stage]["count"] for stage in ("success", *stages)] == [3] * 5
    assert 0 < sum(found[stage]["ns"] for stage in stages) <= found["success"]["ns"]


async def test_a_photo_and_a_tensor_in_one_batch_are_counted_apart(
    scheduled: httpx.AsyncClient, gate: Gate, binary: Binary, tensor: Any, metrics: Metrics
) -> None:
    gate.close()
    one, one_headers = binary(tensor(3, size=4).tobytes(), shape=[1, 3, 4, 4])
    other, other_headers = binary(b"\x01\x00\x00\x00\x04", shape=[1, 1], datatype="BYTES")

    def post(name: str, body: bytes, headers: dict[str, str]) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(scheduled.post(f"/v2/models/{name}/infer", content=body, headers=headers))

    first = post("m", one, one_headers)
    await gate.arrived(1)
    rest = [post("m", one, one_headers), post("m_jpeg", other, other_headers)]
    queue = ("prunepool_queue_requests", {"model": "m"})
    while metrics.registry.get_sample_value(*queue) != 2:  # noqa: ASYNC110 - it is a thread that decodes
        await asyncio.sleep(0)
    gate.open()
    responses = await asyncio.gather(first, *rest)
    assert [np.argmax(one.json()["outputs"][0]["data"]) for one in responses] == [3, 3, 4]
    listed = (await scheduled.get("/v2/models/stats")).json()["model_stats"]
    told = {one["name"]: (one["inference_count"], one["execution_count"]) for one in listed}
    assert told == {"m": (2, 2), "m_jpeg": (1, 1)}


async def test_statistics_count_failures_apart(http: httpx.AsyncClient) -> None:
    await http.post(INFER, content=b"{")
    await http.post(INFER, json=PHOTO)
    found = stats(await http.get("/v2/models/fake_jpeg/stats"))
    assert found["inference_count"] == 1
    assert found["inference_stats"]["fail"]["count"] == found["inference_stats"]["success"]["count"] == 1
    assert found["inference_stats"]["fail"]["ns"] > 0


async def test_a_client_that_disconnects_is_not_counted_as_a_failure(
    scheduled: httpx.AsyncClient, gate: Gate, binary: Binary, tensor: Any, log_lines: Any
) -> None:
    gate.close()
    body, headers = binary(tensor(1, size=4).tobytes(), shape=[1, 3, 4, 4])
    sent: list[Any] = []
    arrived = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if arrived.is_set():
            await gate.arrived(1)
            return {"type": "http.disconnect"}
        arrived.set()
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/v2/models/m/infer"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    transport = scheduled._transport
    assert isinstance(transport, httpx.ASGITransport)
    await transport.app(scope, receive, send)
    assert sent == []
    assert log_lines()[-1]["status"] == 499
    gate.open()
    found = stats(await scheduled.get("/v2/models/m/stats"))["inference_stats"]
    assert found["success"]["count"] == found["fail"]["count"] == 0


APP = create_app(
    FakeService([fake_model("m", input_size=2)]),
    Settings.model_construct(max_body_bytes=2000),
    Metrics(CollectorRegistry()),
)
codings = st.sampled_from([None, "gzip", "deflate", "br"])


def post(path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://test") as client:
            return await client.post(path, content=body, headers=headers)

    return asyncio.run(send())


@given(st.data(), st.sampled_from(["m", "m_jpeg"]), codings)
@examples(4)
def test_no_request_causes_a_server_error(data: st.DataObject, name: str, coding: str | None) -> None:
    tensors = name == "m"
    attached = bytes(48) if tensors else b"\x05\x00\x00\x00photo"
    given = {
        "name": "images",
        "shape": [1, 3, 2, 2] if tensors else [1, 1],
        "datatype": "FP32" if tensors else "BYTES",
        "parameters": {"binary_data_size": len(attached)},
    }
    text = json.dumps({"inputs": [given], "parameters": {"reduction_ratio": 0.5}}).encode()
    body = bytearray(text + attached)
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    headers = {
        "Inference-Header-Content-Length": str(data.draw(st.just(len(text)) | st.integers(-1, 2 * len(body))))
    }
    packed = bytes(body)
    if coding is not None:
        headers["Content-Encoding"] = coding
        packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(packed)
    packed = packed[: data.draw(st.just(len(packed)) | st.integers(0, len(packed)))]
    response = post(f"/v2/models/{name}/infer", packed, headers)
    assert response.status_code < 500
    if response.status_code != 200:
        assert error(response)
