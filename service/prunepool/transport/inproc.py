"""A core in this process: a call, and nothing between."""

from __future__ import annotations

from collections.abc import Mapping

from prunepool.core.core import Core, CoreReservation
from prunepool.core.types import RatioSpec
from prunepool.transport.client import ModelLoad, ModelOffer


class InprocCoreClient:
    """The `CoreClient` of a core in this process.

    Args:
        core: what computes.
    """

    def __init__(self, core: Core) -> None:
        self.core = core

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self.core.default_model

    def offers(self) -> Mapping[str, ModelOffer]:
        """What is served, by name."""
        return {
            entry.model.name: ModelOffer(entry.model.info(), entry.model.preprocess, entry.model.generation)
            for entry in self.core.entries
        }

    def loads(self) -> Mapping[str, ModelLoad]:
        """The load of each served model, by name."""
        return {
            entry.model.name: ModelLoad(
                entry.scheduler.missing, entry.scheduler.drain_s, entry.scheduler.dense_image_s
            )
            for entry in self.core.entries
        }

    def failures(self) -> Mapping[str, str]:
        """Why models that are to be served are not, by name."""
        return self.core.failures

    def reserve(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None, in_flight: int
    ) -> CoreReservation:
        """Accept a request; see :meth:`prunepool.transport.client.CoreClient.reserve`."""
        return self.core.reserve(model, generation, ratio_spec, deadline)

    async def start(self) -> None:
        """Load and warm up every model.

        Raises:
            Exception: whatever kept the first that failed from getting warm.
        """
        await self.core.start()

    def begin_drain(self) -> None:
        """Refuse new requests; those that were accepted are still answered."""
        self.core.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered."""
        return await self.core.close(timeout_s)
