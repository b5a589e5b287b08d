"""Clients of the service, for plain and for asynchronous code.

    with Client("http://127.0.0.1:8000") as client:
        print(client.classify(Path("dog.jpg"), reduction_ratio=0.755).predictions[0].label)

`classify` sends one image, `classify_batch` several in one request, `classify_many` any number, a few
requests at a time. An error of the service is raised as the class of `prunepool.errors` that it was there.
One that passes (503 and 429) is tried again after as long as the service says.
"""

from prunepool.client.clients import AsyncClient, Client
from prunepool.client.retries import Retries
from prunepool.client.types import (
    Classification,
    Classified,
    ClassifyOptions,
    ImageUnreadable,
    Model,
    ModelDetails,
    Plan,
    Prediction,
    Readiness,
    Reduction,
    ServerUnreachable,
    Stage,
    SurvivingToken,
    Timing,
    TokenMap,
    UnexpectedAnswer,
)

__all__ = [
    "AsyncClient",
    "Classification",
    "Classified",
    "ClassifyOptions",
    "Client",
    "ImageUnreadable",
    "Model",
    "ModelDetails",
    "Plan",
    "Prediction",
    "Readiness",
    "Reduction",
    "Retries",
    "ServerUnreachable",
    "Stage",
    "SurvivingToken",
    "Timing",
    "TokenMap",
    "UnexpectedAnswer",
]
