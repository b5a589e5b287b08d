"""An engine replica: one device with its models, and the batcher in front of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import ray
from ray.serve.handle import DeploymentHandle

from prunepool.errors import EngineUnavailable, InvalidParameter, PrunepoolError
from prunepool.ray_app.autoscaling import DRAIN_S, SPENT
from prunepool.ray_app.identity import replica_logging
from prunepool.ray_app.metrics_aggregator import keep_telling
from prunepool.server import factory
from prunepool.server.observability import create_metrics
from prunepool.settings import Settings
from prunepool.store import Repository, open_store
from prunepool.transport.inproc import InprocCoreClient
from prunepool.transport.messages import (
    Completed,
    Failed,
    Status,
    Submit,
    decode_for_engine,
    encode,
    failure_of,
    request_of,
)
from prunepool.transport.ray import absolute

#: An engine that is down for longer is not helped by another thread in the same process.
_HOPELESS_S = 15.0


class EngineReplica:
    """One device with its models and our batcher.

    Args:
        settings: everything about it.
        figures: a handle to :class:`~prunepool.ray_app.metrics_aggregator.MetricsAggregator`.
    """

    async def __init__(self, settings: Settings, figures: DeploymentHandle) -> None:  # type: ignore[misc]
        self._stack = ExitStack()
        self._name = replica_logging(settings, self._stack)
        if settings.compute_threads is None:
            cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
            settings = settings.model_copy(update={"compute_threads": max(1, int(cores))})
        self._settings = settings
        self._metrics = create_metrics()
        core = factory.create_core(settings, self._metrics)
        self._core = InprocCoreClient(core)
        self._models = factory.create_desired_models(settings, [factory.create_core_models(settings, core)])
        self._well = time.monotonic()
        await self._core.start()
        self._telling = asyncio.create_task(keep_telling(self._name, self._metrics.registry, figures))

    async def reconfigure(self, changed: dict[str, Any]) -> None:
        """Serve other models, without a restart: what `user_config` says of `model` and `models`.

        Raises:
            InvalidParameter: something else in it.
            EngineUnavailable: one of the models cannot be served.
        """
        if other := changed.keys() - {"model", "models"}:
            raise InvalidParameter("user_config", sorted(other), "model and models; settings go into args")
        settings = Settings.model_validate({**self._settings.model_dump(), **changed})
        await self._models.follow(settings.model_references)
        names = Repository(open_store(settings.model_store)).declare(settings.model_references)
        if missing := set(names).difference(self._core.offers()):
            detail = f"not served: {', '.join(sorted(missing))}; the log says why"
            raise EngineUnavailable(detail, retry_after=1.0)

    async def state(self) -> tuple[str, bytes]:
        """Which replica this is, and its status."""
        offers = tuple(self._core.offers().values())
        return self._name, encode(Status(self._core.default_model, dict(self._core.loads()), offers))

    async def answer(self, submitted: bytes, pixels: bytes) -> tuple[str, bytes]:
        """Which replica this is, and the result of a request or why there is none."""
        message = decode_for_engine(submitted)
        if not isinstance(message, Submit):
            raise TypeError(f"an ingress sent {type(message).__name__} instead of a request")
        submit = absolute(message, time.monotonic())
        request = request_of(submit, pixels)
        model = submit.model
        try:
            with self._core.reserve(
                model, submit.generation, submit.ratio_spec, submit.deadline, 0
            ) as reservation:
                result = await reservation.submit(request)
            load = self._core.loads().get(model)
            return self._name, encode(Completed(submit.id, model, result, load.drain_s if load else 0.0))
        except PrunepoolError as error:
            return self._name, encode(Failed(submit.id, failure_of(error), request.attempts))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For :class:`~prunepool.ray_app.autoscaling.ByDrain`: of the model that has the most to do."""
        loads = self._core.loads().values()
        limit, now = (
            self._most(gauge) for gauge in (self._metrics.auto_ratio_limit, self._metrics.auto_ratio)
        )
        return {
            DRAIN_S: max((load.drain_s for load in loads), default=0.0),
            SPENT: now / limit if limit > 0 else 0.0,
        }

    async def check_health(self) -> None:
        """Have Ray replace a replica whose engine does not recover by itself.

        Raises:
            EngineUnavailable: it does not.
        """
        missing = [load.missing for load in self._core.loads().values() if load.missing]
        now = time.monotonic()
        self._well = self._well if missing else now
        if now - self._well > _HOPELESS_S:
            raise EngineUnavailable(", ".join(missing), retry_after=1.0)

    async def __del__(self) -> None:
        """Ray has waited for the answers already."""
        if hasattr(self, "_telling"):
            self._telling.cancel()
            await self._core.close(1.0)
        self._stack.close()

    def _most(self, gauge: Any) -> float:
        return max((sample.value for family in gauge.collect() for sample in family.samples), default=0.0)
