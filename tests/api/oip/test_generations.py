"""A model that is replaced while a request of the protocol is being answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Image, Inference
from prunepool.testing import FakeService, fake_model

OLD = fake_model("m", classes=2, input_size=4)


class Replaced(FakeService):
    """Describes the old model, and answers by these generations, the last one again and again."""

    def __init__(self, *generations: int) -> None:
        super().__init__([OLD])
        self.generations = list(generations)
        self.ran = 0

    async def infer(self, image: Image, options: InferenceOptions) -> Inference:
        answer = await super().infer(image, options)
        self.ran += 1
        now = self.generations.pop(0) if len(self.generations) > 1 else self.generations[0]
        classes = 2 + now
        logits = np.arange(classes, dtype=np.float32)
        labels = tuple(f"{now}:{i}" for i in range(classes))
        return replace(answer, logits=logits, labels=labels, generation=str(now))


Ask = Callable[..., Any]


@pytest.fixture
def ask(make_app: Callable[..., FastAPI], connect: Any) -> Ask:
    """Ask for the best class of some images."""

    async def ask(service: Replaced, images: int) -> httpx.Response:
        body = {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "FP32",
                    "shape": [images, 3, 4, 4],
                    "data": [0.0] * 48 * images,
                }
            ],
            "outputs": [{"name": "logits", "parameters": {"classification": 2}}],
        }
        client: httpx.AsyncClient = connect(make_app(service))
        return await client.post("/v2/models/m/infer", content=orjson.dumps(body))

    return ask


def texts(response: httpx.Response) -> Sequence[str]:
    assert response.status_code == 200, response.text
    data: Sequence[str] = response.json()["outputs"][0]["data"]
    return data


async def test_labels_are_those_of_the_model_that_answered(ask: Ask) -> None:
    """And not of the one that was served when the request came: it has fewer classes, and other names."""
    assert texts(await ask(Replaced(3), 1)) == ["4.0:4:3:4", "3.0:3:3:3"]


async def test_images_of_one_request_are_answered_by_one_generation(ask: Ask) -> None:
    service = Replaced(1, 3)
    assert texts(await ask(service, 2)) == ["4.0:4:3:4", "3.0:3:3:3"] * 2
    assert service.ran == 4


async def test_a_model_that_is_replaced_again_and_again_is_unavailable(ask: Ask) -> None:
    response = await ask(Replaced(*range(100)), 2)
    assert response.status_code == 503
    assert "m was replaced 5 times while this request was answered" in response.json()["error"]
