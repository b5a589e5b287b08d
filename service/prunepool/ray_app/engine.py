"""An engine replica: one device with its models, and the batcher in front of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import ray
import structlog
from ray.serve.handle import DeploymentHandle

from prunepool.errors import EngineUnavailable, InvalidParameter, PrunepoolError
from prunepool.logs import exit_now
from prunepool.ray_app.autoscaling import DRAIN_S, SPENT
from prunepool.ray_app.identity import replica_logging
from prunepool.ray_app.metrics_aggregator import report_metrics
from prunepool.server import factory
from prunepool.server.desired_models import DesiredModels
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

#: A core that is down for longer is not helped by another thread in the same process: its device hangs.
_MOST_DOWN_S = 15.0
_log = structlog.stdlib.get_logger("prunepool.ray")


class EngineReplica:
    """One device with its models and our batcher.

    Ray makes it, calls `reconfigure` if there is a `user_config`, then `check_health`, and only then sends
    requests. The core starts in the first of the two, so that only models that are wanted are loaded.

    Args:
        settings: everything about it.
        aggregator: a handle to :class:`~prunepool.ray_app.metrics_aggregator.MetricsAggregator`.
    """

    _core: InprocCoreClient
    _models: DesiredModels

    def __init__(self, settings: Settings, aggregator: DeploymentHandle) -> None:
        self._stack = ExitStack()
        self._metrics = create_metrics()
        self._name = replica_logging(settings, self._metrics, self._stack)
        if settings.compute_threads is None:
            cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
            settings = settings.model_copy(update={"compute_threads": max(1, int(cores))})
        self._settings = settings
        self._aggregator = aggregator
        self._reporting: asyncio.Task[None] | None = None
        self._ready_at = time.monotonic()

    async def reconfigure(self, changed: dict[str, Any]) -> None:
        """Serve the models of `user_config`, from the start or without a restart.

        Args:
            changed: `user_config`: the settings `model` and `models`.

        Raises:
            InvalidParameter: another setting in it.
            ModelNotFound: one of the models is not in the store.
            EngineUnavailable: one of the models cannot be served.
        """
        if other := changed.keys() - {"model", "models"}:
            raise InvalidParameter("user_config", sorted(other), "model and models; settings go into args")
        settings = Settings.model_validate({**self._settings.model_dump(), **changed})
        if not self._started:
            await self._start(settings)
            return
        await self._models.follow(settings.model_references)
        names = Repository(open_store(settings.model_store)).declare(settings.model_references)
        if missing := set(names).difference(self._core.offers()):
            detail = f"not served: {', '.join(sorted(missing))}; the log says why"
            raise EngineUnavailable(detail, retry_after=1.0)

    async def status(self) -> tuple[str, bytes]:
        """The name of this replica, and its encoded `Status`."""
        offers = tuple(self._core.offers().values())
        loads, failures = dict(self._core.loads()), dict(self._core.failures())
        return self._name, encode(Status(self._core.default_model, loads, offers, failures=failures))

    async def submit(self, submitted: bytes, pixels: bytes) -> tuple[str, bytes]:
        """Answer a request.

        Args:
            submitted: an encoded `Submit`, its times relative to now.
            pixels: of its image.

        Returns:
            The name of this replica, and an encoded `Completed` or `Failed`.
        """
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
        """The load of the busiest model, for :class:`.ByDrain`; {} before the start."""
        if not self._started:
            return {}
        loads = self._core.loads().values()
        limit, now = (_highest(gauge) for gauge in (self._metrics.auto_ratio_limit, self._metrics.auto_ratio))
        return {
            DRAIN_S: max((load.drain_s for load in loads), default=0.0),
            SPENT: now / limit if limit > 0 else 0.0,
        }

    async def check_health(self) -> None:
        """Have Ray replace a replica whose device hangs; start it where there is no `user_config`.

        Raises:
            EngineUnavailable: a model has taken no requests for longer than recovery may take.
        """
        if not self._started:
            await self._start(self._settings)
        missing = [load.missing for load in self._core.loads().values() if load.missing]
        now = time.monotonic()
        self._ready_at = self._ready_at if missing else now
        if now - self._ready_at > _MOST_DOWN_S:
            raise EngineUnavailable(", ".join(missing), retry_after=1.0)

    async def __del__(self) -> None:
        """Stop; Ray has waited for the answers already."""
        if self._reporting is not None:
            self._reporting.cancel()
            await self._core.close(1.0)
        self._stack.close()

    @property
    def _started(self) -> bool:
        return self._reporting is not None

    async def _start(self, settings: Settings) -> None:
        core = factory.create_core(settings, self._metrics)
        core.when_hopeless(_give_up)
        self._core = InprocCoreClient(core)
        self._models = factory.create_desired_models(settings, [factory.create_core_models(settings, core)])
        await self._core.start()
        if failures := self._core.failures():  # Ray keeps the replicas that it had
            await self._core.close(0.0)
            raise EngineUnavailable(
                ", ".join(f"{name}: {why}" for name, why in failures.items()), retry_after=1.0
            )
        self._ready_at = time.monotonic()
        self._reporting = asyncio.create_task(
            report_metrics(self._name, self._metrics.registry, self._aggregator, self._metrics.refresh)
        )


def _give_up(why: str) -> None:
    """End this process: Ray starts another replica, and an ingress asks others meanwhile.

    A failed health check would do the same only after three periods.
    """
    _log.error("the engine does not recover in this process", why=why)
    exit_now(1)


def _highest(gauge: Any) -> float:
    return max((sample.value for family in gauge.collect() for sample in family.samples), default=0.0)
