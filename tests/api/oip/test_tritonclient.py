"""The real clients of Triton, over a socket, against a server in a thread."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from prunepool.core.logits import softmax
from prunepool.errors import Overloaded
from prunepool.testing import FakeService, fake_model

CODINGS = [None, "gzip", "deflate"]
#: Of a request and of its answer.
PAIRS = [(None, None), ("gzip", "deflate"), ("deflate", "gzip")]
PHOTOS = np.array([[b"\xff\xd8one"], [b"\xff\xd8two"]], np.object_)


@pytest.fixture(autouse=True)
def quiet(log_lines: object) -> None:
    """Discard the server's log."""


@pytest.fixture
def service() -> FakeService:
    return FakeService([fake_model("m", input_size=8)])


@pytest.fixture
def address(live: Callable[..., Any], service: FakeService) -> str:
    host, port = live(service).address[:2]
    return f"{host}:{port}"


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address, concurrency=2) as made:
        yield made


@pytest.fixture
async def aio(address: str) -> AsyncIterator[triton_aio.InferenceServerClient]:
    async with triton_aio.InferenceServerClient(address) as made:
        yield made


def tensors(*values: float, binary: bool = True) -> list[triton.InferInput]:
    """An input of as many images as there are values."""
    batch = np.stack([np.full((3, 8, 8), value, np.float32) for value in values])
    given = triton.InferInput("images", batch.shape, "FP32")
    return [given.set_data_from_numpy(batch, binary_data=binary)]


def photos(batch: np.ndarray = PHOTOS) -> list[triton.InferInput]:
    return [triton.InferInput("images", batch.shape, "BYTES").set_data_from_numpy(batch)]


def tensors_seen(service: FakeService) -> list[float]:
    """The value of every image that came, each all of one value."""
    seen: list[float] = []
    for image, _ in service.calls:
        assert isinstance(image, np.ndarray)
        assert image.shape == (3, 8, 8)
        (value,) = np.unique(image)
        seen.append(float(value))
    return seen


def same(result: Any, expected: Sequence[np.ndarray]) -> None:
    """Both outputs of an answer are those of these logits."""
    np.testing.assert_array_equal(result.as_numpy("logits"), np.stack(expected))
    scores = np.stack([softmax(row) for row in expected])
    np.testing.assert_array_equal(result.as_numpy("probabilities"), scores)
    assert result.as_numpy("logits").dtype == result.as_numpy("probabilities").dtype == np.float32


async def logits(service: FakeService) -> list[np.ndarray]:
    """Return the engine's results for every call so far."""
    return [(await service.infer(image, options)).logits for image, options in list(service.calls)]


def test_health(client: triton.InferenceServerClient, service: FakeService) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m_jpeg", "1")
    assert not client.is_model_ready("other")
    service.ready = False
    assert client.is_server_live()
    assert not client.is_server_ready()


def test_metadata_and_configuration(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["name"] == "prunepool"
    assert client.get_model_metadata("m", "1")["inputs"][0]["shape"] == [-1, 3, 8, 8]
    config = client.get_model_config("m_jpeg")
    assert config["max_batch_size"] == 128
    assert (config["input"][0]["name"], config["output"][0]["name"]) == ("images", "logits")


def test_repository(client: triton.InferenceServerClient) -> None:
    assert [one["name"] for one in client.get_model_repository_index()] == ["m", "m_jpeg"]
    client.load_model("m")
    with pytest.raises(InferenceServerException, match="m cannot be unloaded"):
        client.unload_model("m")
    with pytest.raises(InferenceServerException, match=r"parameters\.config must be left out"):
        client.load_model("m", config="{}")


@pytest.mark.parametrize(("request_coding", "response_coding"), PAIRS)
@pytest.mark.parametrize("binary", [True, False])
async def test_tensors_in_any_form_and_coding(
    client: triton.InferenceServerClient,
    service: FakeService,
    binary: bool,
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    result = client.infer(
        "m",
        tensors(1.5, -0.25, binary=binary),
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    assert tensors_seen(service) == [1.5, -0.25]
    same(result, await logits(service))


@pytest.mark.parametrize("binary", [True, False])
async def test_outputs_in_any_form(
    client: triton.InferenceServerClient, service: FakeService, binary: bool
) -> None:
    outputs = [
        triton.InferRequestedOutput("logits", binary_data=binary),
        triton.InferRequestedOutput("probabilities", binary_data=not binary),
    ]
    same(client.infer("m", tensors(1.0), outputs=outputs), await logits(service))


@pytest.mark.parametrize("coding", CODINGS)
async def test_photos(client: triton.InferenceServerClient, service: FakeService, coding: str | None) -> None:
    result = client.infer("m_jpeg", photos(), request_compression_algorithm=coding)
    assert [image for image, _ in service.calls] == [b"\xff\xd8one", b"\xff\xd8two"]
    same(result, await logits(service))


@pytest.mark.parametrize("binary", [True, False])
async def test_classes(client: triton.InferenceServerClient, service: FakeService, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
    result = client.infer("m_jpeg", photos(), outputs=outputs).as_numpy("probabilities")
    assert result.shape == (2, 3)
    for row, of_image in zip(result, await logits(service), strict=True):
        texts = [text.decode() if binary else text for text in row]
        scores = softmax(of_image)
        best = np.argsort(-scores)[:3]
        assert [text.split(":")[1:] for text in texts] == [[str(i), f"class {i}"] for i in best]
        assert [float(text.split(":")[0]) for text in texts] == pytest.approx(scores[best])


def test_a_single_output(client: triton.InferenceServerClient) -> None:
    result = client.infer("m", tensors(1.0), outputs=[triton.InferRequestedOutput("logits")])
    assert result.as_numpy("logits").shape == (1, 10)
    assert result.as_numpy("probabilities") is None


@pytest.mark.parametrize(("ratio", "applied"), [(0.5, 0.5), ("0.25", 0.25), ("auto", 0.5), (0, 0)])
def test_the_ratio_is_a_parameter(client: triton.InferenceServerClient, ratio: Any, applied: float) -> None:
    response = client.infer("m", tensors(1.0), parameters={"reduction_ratio": ratio}).get_response()
    told = response["parameters"]
    assert told["reduction_ratio"] == applied
    assert told["gmacs"] == pytest.approx(1 - applied / 2)
    assert told["reason"] == ("auto:default" if ratio == "auto" else "requested")


def test_parameters_that_the_client_adds_are_no_error(client: triton.InferenceServerClient) -> None:
    result = client.infer(
        "m", tensors(1.0), sequence_id=7, sequence_start=True, priority=1, timeout=1000, model_version="1"
    )
    assert result.as_numpy("logits").shape == (1, 10)


@pytest.mark.parametrize("identifier", ["7", "ü" * 100])
def test_the_id_comes_back(client: triton.InferenceServerClient, identifier: str) -> None:
    assert client.infer("m", tensors(1.0), request_id=identifier).get_response()["id"] == identifier


async def test_requests_that_overlap(client: triton.InferenceServerClient, service: FakeService) -> None:
    pending = [client.async_infer("m", tensors(value), request_id=str(value)) for value in range(8)]
    results = {int(one.get_response()["id"]): one for one in (each.get_result() for each in pending)}
    assert sorted(tensors_seen(service)) == sorted(results) == list(range(8))
    for value, of_image in zip(tensors_seen(service), await logits(service), strict=True):
        same(results[int(value)], [of_image])


@pytest.mark.parametrize(
    ("name", "inputs", "more", "status", "said"),
    [
        ("other", tensors(1.0), {}, "404", "no model named 'other' is served; there are: m, m_jpeg"),
        ("m", tensors(1.0), {"model_version": "2"}, "404", "m has no version '2'; there is: 1"),
        ("m", photos(), {}, "422", "inputs.images.datatype must be FP32; got 'BYTES'"),
        ("m", tensors(float("nan")), {}, "422", "image must be"),
        ("m", tensors(float("inf"), binary=True), {}, "422", "image must be"),
        ("m_jpeg", photos(np.array([[b"bad"]], np.object_)), {}, "400", "3 bytes are not an image"),
        ("m", tensors(1.0), {"parameters": {"reduction_ratio": 2}}, "422", "reduction_ratio must be"),
        ("m", tensors(1.0), {"outputs": [triton.InferRequestedOutput("x")]}, "422", "outputs must be any of"),
    ],
)
def test_an_error_is_the_client_s_exception_with_the_message(
    client: triton.InferenceServerClient, name: str, inputs: Any, more: Any, status: str, said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(name, inputs, **more)
    assert caught.value.status() == status
    assert caught.value.message().startswith(said)


def test_shared_memory_is_refused_by_name(client: triton.InferenceServerClient) -> None:
    (given,) = tensors(1.0)
    given.set_shared_memory("region", 768)
    with pytest.raises(InferenceServerException, match="shared_memory_region must be left out"):
        client.infer("m", [given])
    with pytest.raises(InferenceServerException, match="nothing is served at GET"):
        client.get_system_shared_memory_status()


def test_overload_is_the_client_s_exception(
    client: triton.InferenceServerClient, service: FakeService
) -> None:
    service.error = Overloaded("full", retry_after=1.0)
    with pytest.raises(InferenceServerException, match="full") as caught:
        client.infer("m", tensors(1.0))
    assert caught.value.status() == "503"


def test_statistics(client: triton.InferenceServerClient) -> None:
    client.infer("m", tensors(1.0, 2.0, 3.0))
    client.infer("m_jpeg", photos())
    listed = client.get_inference_statistics()["model_stats"]
    assert [(one["name"], one["inference_count"]) for one in listed] == [("m", 3), ("m_jpeg", 2)]
    (one,) = client.get_inference_statistics("m", "1")["model_stats"]
    stats = one["inference_stats"]
    assert stats["success"]["count"] == stats["queue"]["count"] == stats["compute_infer"]["count"] == 1
    assert stats["success"]["ns"] > 0
    assert stats["cache_hit"] == stats["cache_miss"] == {"count": 0, "ns": 0}


# This client asks for health and drops the answer without reading it, which aiohttp minds.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_aio_every_call_but_inference(aio: triton_aio.InferenceServerClient) -> None:
    assert await aio.is_server_live()
    assert await aio.is_server_ready()
    assert await aio.is_model_ready("m")
    assert (await aio.get_server_metadata())["name"] == "prunepool"
    assert (await aio.get_model_metadata("m"))["versions"] == ["1"]
    assert (await aio.get_model_config("m"))["max_batch_size"] > 1
    assert len(await aio.get_model_repository_index()) == 2
    assert len((await aio.get_inference_statistics())["model_stats"]) == 2
    await aio.load_model("m_jpeg")
    gc.collect()  # so that this test is minded, and not the next


@pytest.mark.parametrize(("request_coding", "response_coding"), PAIRS)
@pytest.mark.parametrize("binary", [True, False])
async def test_aio_tensors_in_any_form_and_coding(
    aio: triton_aio.InferenceServerClient,
    service: FakeService,
    binary: bool,
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    result = await aio.infer(
        "m",
        tensors(1.5, -0.25, binary=binary),
        request_id="7",
        parameters={"reduction_ratio": "0.5"},
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    assert tensors_seen(service) == [1.5, -0.25]
    same(result, await logits(service))
    assert (result.get_response()["id"], result.get_response()["parameters"]["reduction_ratio"]) == ("7", 0.5)


async def test_aio_photos_and_classes(aio: triton_aio.InferenceServerClient, service: FakeService) -> None:
    outputs = [triton.InferRequestedOutput("logits", class_count=1)]
    result = (await aio.infer("m_jpeg", photos(), outputs=outputs)).as_numpy("logits")
    assert [image for image, _ in service.calls] == [b"\xff\xd8one", b"\xff\xd8two"]
    best = [row.argmax() for row in await logits(service)]
    assert [int(row[0].decode().split(":")[1]) for row in result] == best


async def test_aio_errors(aio: triton_aio.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no model named 'other'") as caught:
        await aio.infer("other", tensors(1.0), response_compression_algorithm="gzip")
    assert caught.value.status() == "404"
