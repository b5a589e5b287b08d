"""`prunepool serve` with the embedded model, asked by Triton's client and by our own route alike."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from PIL import Image

from prunepool.imaging import ImageLimits, decode
from prunepool.models.preprocess import preprocess_of
from prunepool.store import ModelStore

pytestmark = pytest.mark.e2e

MODEL = "deit_tiny_imagenette"
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def address(server: Any) -> str:
    """Where the server listens, as the client wants it."""
    url: str = server.url
    return url.removeprefix("http://")


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address, network_timeout=TIMEOUT_S) as made:
        yield made


def drawn(seed: int) -> bytes:
    """A JPEG of soft colours, another for each seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def classified(address: str, photo: bytes, ratio: float | str) -> dict[str, Any]:
    """Our own answer, all ten classes of it."""
    query = {"reduction_ratio": ratio, "top_k": 10}
    response = httpx.post(f"http://{address}/classify", content=photo, params=query, timeout=TIMEOUT_S)
    answer: dict[str, Any] = response.raise_for_status().json()
    return answer


def scores_of(answer: dict[str, Any]) -> np.ndarray:
    scores = np.zeros(10)
    for prediction in answer["predictions"]:
        scores[prediction["index"]] = prediction["score"]
    return scores


def asked(client: triton.InferenceServerClient, photos: list[bytes], ratio: float | str, **more: Any) -> Any:
    batch = np.array([[photo] for photo in photos], np.object_)
    given = triton.InferInput("images", batch.shape, "BYTES").set_data_from_numpy(batch)
    return client.infer(f"{MODEL}_jpeg", [given], parameters={"reduction_ratio": ratio}, **more)


@pytest.mark.parametrize("ratio", [0, 0.5, "0.755"])
def test_scores_are_those_of_our_own_route(
    address: str, client: triton.InferenceServerClient, ratio: float | str
) -> None:
    photos = [drawn(1), drawn(2), drawn(3)]
    own = [classified(address, photo, ratio) for photo in photos]
    result = asked(client, photos, ratio)
    expected = np.stack([scores_of(answer) for answer in own])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-5)
    told = result.get_response()["parameters"]
    reductions = [answer["reduction"] for answer in own]
    assert told["reduction_ratio"] == reductions[0]["applied"]
    assert told["gmacs"] == pytest.approx(sum(reduction["gmacs"] for reduction in reductions))


def test_a_tensor_that_is_made_as_the_configuration_says_gets_the_same_logits(
    root: Path, client: triton.InferenceServerClient
) -> None:
    manifest = ModelStore(root / "model_store").open(MODEL).manifest
    preprocess = preprocess_of(manifest)
    crop = decode(drawn(4), preprocess, ImageLimits())
    parameters = client.get_model_config(MODEL)["parameters"]
    mean, std = (
        np.array([float(part) for part in parameters[key]["string_value"].split(",")], np.float32)
        for key in ("mean", "std")
    )
    batch = ((crop.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
    given = triton.InferInput("images", batch.shape, "FP32").set_data_from_numpy(np.ascontiguousarray(batch))
    for ratio in (0, 0.755):
        result = client.infer(MODEL, [given], parameters={"reduction_ratio": ratio})
        expected = asked(client, [drawn(4)], ratio)
        np.testing.assert_allclose(result.as_numpy("logits"), expected.as_numpy("logits"), atol=1e-4)


def test_classes_have_the_labels_of_our_own_route(address: str, client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("probabilities", class_count=3)]
    texts = asked(client, [drawn(5)], 0, outputs=outputs).as_numpy("probabilities")[0]
    own = classified(address, drawn(5), 0)["predictions"][:3]
    for text, prediction in zip(texts, own, strict=True):
        value, index, label = text.decode().split(":")
        assert float(value) == pytest.approx(prediction["score"], abs=1e-5)
        assert (int(index), label) == (prediction["index"], prediction["label"])


def test_statistics_are_of_what_was_done(client: triton.InferenceServerClient) -> None:
    def counts() -> tuple[int, int, int]:
        (found,) = client.get_inference_statistics(f"{MODEL}_jpeg")["model_stats"]
        infer_ns: int = found["inference_stats"]["compute_infer"]["ns"]
        return found["inference_count"], found["execution_count"], infer_ns

    before = counts()
    asked(client, [drawn(seed) for seed in range(4)], 0)
    images, executions, ns = (now - then for now, then in zip(counts(), before, strict=True))
    assert images == 4
    assert 1 <= executions <= 4
    assert ns > 0


@pytest.mark.shared
def test_photos_get_the_scores_of_our_own_route(
    address: str, client: triton.InferenceServerClient, shared: Path
) -> None:
    photos = [path.read_bytes() for path in sorted((shared / "images/web").iterdir())[:12]]
    result = asked(client, photos, 0.5, request_compression_algorithm="gzip")
    expected = np.stack([scores_of(classified(address, photo, 0.5)) for photo in photos])
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-5)


def listeners(server: Any, port: int) -> int:
    """How many processes of a server listen on a port."""
    found = 0
    for process in psutil.Process(server.process.pid).children(recursive=True):
        at = [one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        found += port in at
    return found


def test_grpc_of_two_front_ends_has_the_scores_of_our_own_route(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    photos = [drawn(1), drawn(2), drawn(3)]
    batch = np.array([[photo] for photo in photos], np.object_)
    given = triton_grpc.InferInput("images", batch.shape, "BYTES").set_data_from_numpy(batch)
    with start("--grpc-port", str(port), "--frontends", "2") as server:
        assert listeners(server, port) == 2
        address = server.url.removeprefix("http://")
        expected = np.stack([scores_of(classified(address, photo, 0.5)) for photo in photos])
        with triton_grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
            result = client.infer(f"{MODEL}_jpeg", [given], parameters={"reduction_ratio": "0.5"})
        server.process.terminate()
        assert server.process.wait(TIMEOUT_S) == 0
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-5)


def test_the_example_of_the_documentation_runs(default_server: Any, root: Path) -> None:
    page = (root / "docs" / "open-inference-protocol.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    program = example.replace("127.0.0.1:8000", default_server.url.removeprefix("http://"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert "'reason': 'requested'" in done.stdout
