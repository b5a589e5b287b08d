"""The contract between the façade and the cores that compute, whatever lies between them.

Data flow::

    InferenceService ──reserve, submit──▶ CoreClient ──(call, ZeroMQ, Ray)──▶ Core
          ▲                                   │
          └──────────── Result ◀──────────────┘

A new transport is one file that implements :class:`CoreClient`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from prunepool.core.model_info import ModelInfo
from prunepool.core.types import RatioSpec, Request, Result
from prunepool.imaging import Preprocess


class ModelOffer(msgspec.Struct, frozen=True):
    """A served model, as far as it does not change by the second.

    Attributes:
        info: what callers may know of it.
        preprocess: how its crop is made of a photo.
        generation: differs between two models of one name.
    """

    info: ModelInfo
    preprocess: Preprocess
    generation: str = ""


class ModelLoad(msgspec.Struct, frozen=True):
    """The load of a served model.

    Attributes:
        missing: why it takes no request, in words; None if it does.
        drain_s: predicted seconds to answer everything accepted.
        image_s: predicted seconds for one image by itself.
    """

    missing: str | None
    drain_s: float
    image_s: float


class Reservation(Protocol):
    """A request that was accepted before it was decoded."""

    async def submit(self, request: Request) -> Result:
        """Answer it. `request.attempts` says afterwards how many devices it was on.

        Raises:
            ModelReplaced: the generation that it was prepared for is served no longer.
            PrunepoolError: why it cannot be answered.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """


class CoreClient(Protocol):
    """One way to the cores that serve models."""

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""

    def offers(self) -> Mapping[str, ModelOffer]:
        """What is served, by name; what was served last, while no core can be reached."""

    def loads(self) -> Mapping[str, ModelLoad]:
        """The load of each served model, by name: that of the core that would be asked next."""

    def failures(self) -> Mapping[str, str]:
        """Why models that are to be served are not on some core, by name."""

    def reserve(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None, in_flight: int
    ) -> AbstractContextManager[Reservation]:
        """Accept a request that may still have to be decoded.

        Args:
            model: its name.
            generation: the one that the options were resolved for.
            ratio_spec: what the request asks for.
            deadline: seconds of the monotonic clock when an answer becomes worthless, or None.
            in_flight: requests that the caller has in flight, this one included.

        Raises:
            ModelNotFound: no core serves a model of that name.
            ModelReplaced: cores serve other generations of it only.
            Draining: the core is stopping.
            EngineUnavailable: no core takes requests for it.
            Overloaded: there is more to do than the limits allow.
            DeadlineExceeded: by prediction its answer would come too late.
        """

    async def start(self) -> None:
        """Connect; returns as soon as one core can be asked."""

    def begin_drain(self) -> None:
        """Refuse new requests; those that were accepted are still answered."""

    async def close(self, timeout_s: float) -> bool:
        """Disconnect, or stop what is in this process; whether all that was accepted was answered."""
