"""KServe's own clients, over HTTP and over gRPC, from a virtual environment of theirs (make interop)."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunepool.core.logits import softmax
from prunepool.serving.options import InferenceOptions
from prunepool.settings import Settings
from prunepool.testing import FakeService, fake_model

SIZE = 8
HTTP_INFERENCES = ["json", "binary", "binary out"]
Serving = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module")
def said(root: Path, serving: Serving) -> dict[str, Any]:
    """Run all clients' calls once; return their results."""
    python = root / ".venv-interop" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs KServe's client (make interop)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = FakeService([fake_model("m", input_size=SIZE)])
    with serving(Settings.model_construct(grpc_port=port), service) as url:
        done = subprocess.run(
            [python, root / "tests/interop/kserve_client.py", url, f"127.0.0.1:{port}", "m", str(SIZE)],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def logits_of(images: list[Any], ratio: float) -> np.ndarray:
    """Return the engine's result, called directly."""
    service = FakeService([fake_model("m", input_size=SIZE)])
    options = InferenceOptions(reduction_ratio=ratio)
    return np.stack([asyncio.run(service.infer(image, options)).logits for image in images])


TENSORS = [np.full((3, SIZE, SIZE), value, np.float32) for value in (1.5, -0.25)]
PHOTOS = [b"\xff\xd8one", b"\xff\xd8two"]


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_health(said: dict[str, Any], transport: str) -> None:
    asked = said[transport]
    assert (asked["live"], asked["ready"]) == (True, True)
    assert asked["models"] == ([True, True, False] if transport == "http" else [True, True])


@pytest.mark.parametrize(
    ("transport", "form"), [*(("http", form) for form in HTTP_INFERENCES), ("grpc", "binary")]
)
def test_tensors_in_every_form(said: dict[str, Any], transport: str, form: str) -> None:
    answer = said[transport][form]
    expected = logits_of(TENSORS, 0.5)
    np.testing.assert_allclose(answer["outputs"]["logits"], expected, rtol=1e-6)
    assert (answer["id"], answer["model"]) == ("7", "m")
    if form != "binary out":  # which asks for the logits alone
        scores = np.stack([softmax(row) for row in expected])
        np.testing.assert_allclose(answer["outputs"]["probabilities"], scores, rtol=1e-6)
    assert ("probabilities" in answer["outputs"]) == (form != "binary out")


@pytest.mark.parametrize(
    ("transport", "form"), [("http", "photos"), ("http", "photos in json"), ("grpc", "photos")]
)
def test_photos(said: dict[str, Any], transport: str, form: str) -> None:
    answer = said[transport][form]
    np.testing.assert_allclose(answer["outputs"]["logits"], logits_of(PHOTOS, 0.25), rtol=1e-6)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_ratio_is_a_parameter(said: dict[str, Any], transport: str) -> None:
    for form, ratio, gmacs in (("binary", 0.5, 1.5), ("photos", 0.25, 1.75)):
        told = said[transport][form]["parameters"]
        assert (float(told["reduction_ratio"]), float(told["gmacs"])) == (ratio, gmacs)
        assert told["reason"] == "requested"


def test_classes(said: dict[str, Any]) -> None:
    ((first, second),) = said["http"]["classes"]["outputs"]["probabilities"]
    scores = softmax(logits_of(TENSORS[:1], 0.5)[0])
    best, next_best = np.argsort(-scores)[:2]
    assert first.split(":")[1:] == [str(best), f"class {best}"]
    assert second.split(":")[1:] == [str(next_best), f"class {next_best}"]


def test_errors_keep_their_messages(said: dict[str, Any]) -> None:
    status, text = said["http"]["unknown model"]
    assert status == 404
    assert text.startswith("no model named 'x' is served; there are: m, m_jpeg")
    status, text = said["http"]["not finite"]
    assert status == 422
    assert text.startswith("image must be")
    assert said["grpc"]["unknown model"] == [
        "NOT_FOUND",
        "no model named 'x' is served; there are: m, m_jpeg",
    ]
