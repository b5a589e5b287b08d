"""Clients of the service, synchronous and asynchronous.

    with Client("http://127.0.0.1:8000") as client:
        print(client.classify(Path("dog.jpg"), reduction_ratio=0.755).predictions[0].label)

`classify` sends one image, `classify_batch` several in one request, `classify_many` any number in concurrent
requests. The service's errors are raised as the same classes of `prunepool.errors`. Temporary ones (503 and
429) are retried after the time that the service asks for.
"""

from prunepool.client.async_client import AsyncClient
from prunepool.client.client import Client
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
