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
from prunepool.server.engine_process import Hosted
from prunepool.serving import LocalEngine
from prunepool.settings import Settings
from prunepool.store import Repository, open_store
from prunepool.transport.messages import (
    Answer,
    Ask,
    Failed,
    State,
    decode_for_engine,
    encode,
    failure_of,
    pixels_of,
)

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
        self._metrics = factory.create_metrics()
        engine = factory.build_engine(settings, self._metrics)
        assert isinstance(engine, LocalEngine)
        models = factory.create_models(settings, engine)
        assert models is not None
        self._engine = engine
        self._hosted = Hosted(engine)
        self._control = factory.create_control(settings, models)
        self._well = time.monotonic()
        await engine.start()
        self._telling = asyncio.create_task(keep_telling(self._name, self._metrics.registry, figures))

    async def reconfigure(self, changed: dict[str, Any]) -> None:
        """Serve other models, without a restart: what `user_config` says of `model` and `models`.

        Raises:
            InvalidParameter: something else in it.
        """
        if other := changed.keys() - {"model", "models"}:
            raise InvalidParameter("user_config", sorted(other), "model and models; settings go into args")
        settings = Settings.model_validate({**self._settings.model_dump(), **changed})
        references = factory.references(settings)
        await self._control.follow(references)
        names = Repository(open_store(settings.model_store)).declare(references)
        if missing := set(names).difference(self._hosted.loads()):
            detail = f"not served: {', '.join(sorted(missing))}; the log says why"
            raise EngineUnavailable(detail, retry_after=1.0)

    async def state(self) -> tuple[str, bytes]:
        """Which replica this is, and how it is doing."""
        offers = tuple(self._hosted.offers())
        return self._name, encode(State(self._engine.default_model, dict(self._hosted.loads()), offers))

    async def answer(self, asked: bytes, pixels: bytes) -> tuple[str, bytes]:
        """Which replica this is, and an image's answer or why there is none."""
        ask = decode_for_engine(asked)
        assert isinstance(ask, Ask)
        try:
            inference = await self._hosted.infer_decoded(
                pixels_of(ask, pixels),
                ask.options,
                arrival=time.monotonic() - ask.arrival,
                decode_s=ask.decode_s,
            )
            load = self._hosted.loads().get(inference.model)
            return self._name, encode(Answer(ask.id, inference, load.drain_s if load else 0.0))
        except PrunepoolError as error:
            return self._name, encode(Failed(ask.id, failure_of(error)))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For :class:`~prunepool.ray_app.autoscaling.ByDrain`: of the model that has the most to do."""
        loads = self._hosted.loads().values()
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
        found = self._engine.readiness()
        now = time.monotonic()
        self._well = now if found.ready else self._well
        if now - self._well > _HOPELESS_S:
            raise EngineUnavailable(", ".join(found.missing), retry_after=1.0)

    async def __del__(self) -> None:
        """Ray has waited for the answers already."""
        if hasattr(self, "_telling"):
            self._telling.cancel()
            await self._engine.close(1.0)
        self._stack.close()

    def _most(self, gauge: Any) -> float:
        return max((sample.value for family in gauge.collect() for sample in family.samples), default=0.0)
