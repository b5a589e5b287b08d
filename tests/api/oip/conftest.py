"""Requests of the protocol as bytes, and an app over a real scheduler whose device a test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from local_service import LocalService

from prunepool.core.served_model import ServedModel
from prunepool.core.types import Limits
from prunepool.imaging import Preprocess
from prunepool.metrics import Metrics
from prunepool.testing import FakeBackend, FakeCosts, Gate, fake_model

#: Pixels a side of the models below: tensors that a person can count.
SIZE = 4


@pytest.fixture
def tensor() -> Callable[..., np.ndarray]:
    """Pixels as the model takes them, one image for each value; `FakeBackend` sees its first number."""

    def make(*values: float, size: int = 224) -> np.ndarray:
        return np.stack([np.full((3, size, size), value, np.float32) for value in values])

    return make


def body_of(
    data: bytes | None, *, shape: Sequence[int], datatype: str = "FP32", **more: Any
) -> tuple[bytes, dict[str, str]]:
    """A body with one binary input, and its headers; `more` goes into the JSON."""
    given: dict[str, Any] = {"name": "images", "shape": list(shape), "datatype": datatype}
    if data is not None:
        given["parameters"] = {"binary_data_size": len(data)}
    header = orjson.dumps({"inputs": [given], **more})
    return header + (data or b""), {"Inference-Header-Content-Length": str(len(header))}


@pytest.fixture
def binary() -> Callable[..., tuple[bytes, dict[str, str]]]:
    """Make a request body with one binary input."""
    return body_of


@pytest.fixture
def gate() -> Gate:
    """Where batches wait for the test."""
    return Gate()


@pytest.fixture
async def scheduled(
    gate: Gate, make_app: Callable[..., FastAPI], metrics: Metrics, connect: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app over the real scheduler: images of 4 pixels, three to a batch."""
    info = fake_model("m", input_size=SIZE)

    def decode(data: bytes, preprocess: Preprocess, limits: object) -> np.ndarray:
        return np.full((SIZE, SIZE, 3), data[0], np.uint8)

    served = ServedModel(
        "m",
        lambda: info,
        Preprocess(size=SIZE, crop_pct=1.0),
        FakeCosts(),
        lambda ratio: ratio,
        lambda: FakeBackend(gate=gate),
    )
    service = LocalService([served], metrics, decode=decode, limits=Limits(max_batch_size=3))
    await service.start()
    yield connect(make_app(service))
    gate.open()
    await service.close(1.0)
