"""The models of one process: one device, or several models that share a processor."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from prunepool.core.cost_model import TimedBatch, effort
from prunepool.core.device_share import SharedDevice
from prunepool.core.escalation import Escalation
from prunepool.core.in_flight import Hold
from prunepool.core.model_info import ModelInfo
from prunepool.core.policies import policy_for
from prunepool.core.ratio_policy import RatioPolicy
from prunepool.core.registry import ModelEntry, ModelRegistry
from prunepool.core.resilience import Resilience
from prunepool.core.scheduler import Scheduler
from prunepool.core.served_model import ServedModel
from prunepool.core.shadow import Shadow
from prunepool.core.types import Limits, RatioSpec, Request, Result
from prunepool.errors import ModelReplaced
from prunepool.metrics import Metrics

Policy = Callable[[ModelInfo], RatioPolicy]


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """How a core serves its models.

    Attributes:
        max_ratio: upper bound of `auto`; None: the model's own limit.
        limits: of each model's queue and batches.
        resilience: time-outs and pauses around a failing device.
        escalate_below: images whose best two probabilities are closer than this are run again, unreduced;
            None: none.
        shadow_sample: share of the reduced images that an idle device runs again, unreduced.
        unload_timeout_s: how long a model that is unloaded or replaced may take to answer what it had accepted.
    """

    max_ratio: float | None = None
    limits: Limits = field(default_factory=Limits)
    resilience: Resilience = field(default_factory=Resilience)
    escalate_below: float | None = None
    shadow_sample: float = 0.0
    unload_timeout_s: float = 30.0


class CoreReservation:
    """A request that a core has accepted; a context that gives it up at its end.

    Args:
        entry: the model.
        hold: its in-flight hold.
    """

    def __init__(self, entry: ModelEntry, hold: Hold) -> None:
        self._entry = entry
        self._hold = hold

    async def submit(self, request: Request) -> Result:
        """Answer it.

        Raises:
            PrunepoolError: why it cannot be answered.
            asyncio.CancelledError: the caller went away.
        """
        result = await self._entry.scheduler.answer(request, self._hold)
        self._hold.release()
        return await self._entry.second_pass(request, result)

    def __enter__(self) -> CoreReservation:
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.release()


class Core:
    """Schedules what a process computes; all calls come from one event loop.

    Args:
        models: what is served from the start, the default first; at least one.
        config: of all models.
        metrics: the service's series.
        policy: makes a model's ratio policy; if not given, the one that holds the latency target, if there is
            one.
        clock: seconds, monotonic; arrivals and deadlines are on it.
        profiles: warm-up profiles of an earlier process on these devices, by model.
        random: draws the shadow sample; one of its own, if not given.
    """

    def __init__(
        self,
        models: Iterable[ServedModel],
        *,
        config: CoreConfig,
        metrics: Metrics,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
        profiles: Mapping[str, Sequence[TimedBatch]] | None = None,
        random: Random | None = None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._policy = policy or (lambda info: policy_for(info, config.limits.target_s))
        self._clock = clock
        self._profiles = dict(profiles or {})
        #: By device: models on one device see each other's backlog.
        self._devices: defaultdict[str, SharedDevice] = defaultdict(SharedDevice)
        self._when_hopeless: Callable[[str], object] = lambda why: None
        self._random = random or Random()  # noqa: S311 - it draws a sample, no secret
        self._registry = ModelRegistry(models, self._entry, config.unload_timeout_s)

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._registry.default

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model that is served, with its scheduler."""
        return self._registry.entries

    def reserve(
        self, model: str, generation: str, ratio_spec: RatioSpec, deadline: float | None
    ) -> CoreReservation:
        """Accept a request that may still have to be decoded.

        Args:
            model: its name.
            generation: the one that the options and the crop are made for.
            ratio_spec: what it asks for.
            deadline: when an answer becomes worthless, or None.

        Raises:
            ModelNotFound: none of that name is served.
            ModelReplaced: another generation is served now.
            Draining, EngineUnavailable, Overloaded, DeadlineExceeded: as :meth:`Scheduler.accept`.
        """
        entry = self._registry.find(model)
        if generation != entry.model.generation:
            raise ModelReplaced(f"{model} has been replaced since its options were read", retry_after=0.1)
        return CoreReservation(entry, entry.scheduler.accept(ratio_spec, deadline))

    @property
    def failures(self) -> Mapping[str, str]:
        """Why models that are to be served are not, by name."""
        return self._registry.failures

    async def start(self, *, needs_default: bool = True) -> None:
        """Load and warm up every model, one after the other; see :meth:`ModelRegistry.start`."""
        await self._registry.start(needs_default=needs_default)

    def when_hopeless(self, callback: Callable[[str], object]) -> None:
        """Have this called, with the reason, when a model's restarts in this process keep failing."""
        self._when_hopeless = callback

    def serves(self, model: ServedModel) -> bool:
        """Whether this very generation of a model is served."""
        return self._registry.has(model)

    async def prepare(self, model: ServedModel) -> None:
        """Warm a model up beside those that are served; calls must not overlap."""
        await self._registry.prepare(model)

    async def commit(self, name: str) -> None:
        """Serve a prepared model, in the place of the one of its name."""
        await self._registry.commit(name)

    async def abort(self, name: str) -> None:
        """Forget a prepared model, if there is one."""
        await self._registry.abort(name)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; see :meth:`ModelRegistry.unload`."""
        await self._registry.unload(name)

    def set_default(self, name: str) -> None:
        """Have a model answer requests that name none; see :meth:`ModelRegistry.set_default`."""
        self._registry.set_default(name)

    def note_failure(self, name: str, why: str) -> None:
        """Say of a model that is to be served, and could not be loaded, why it is not."""
        self._registry.note_failure(name, why)

    def begin_drain(self) -> None:
        """Refuse new requests; those that were accepted are still answered."""
        self._registry.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered."""
        return await self._registry.close(timeout_s)

    def _entry(self, model: ServedModel, active: bool) -> ModelEntry:
        config, name = self._config, model.name
        metrics, clock = self._metrics, self._clock
        scheduler = self._scheduler(model, active)
        escalation, shadow = None, None
        if (below := config.escalate_below) is not None:
            escalation = Escalation(
                scheduler, name, below, limits=config.limits, metrics=metrics, clock=clock
            )
        if (share := config.shadow_sample) > 0:
            shadow = Shadow(scheduler, name, share, metrics=metrics, random=self._random, clock=clock)
        return ModelEntry(model, scheduler, escalation, shadow)

    def _scheduler(self, model: ServedModel, active: bool) -> Scheduler:
        info = model.info()
        scheduler = Scheduler(
            model,
            policy=self._policy(info),
            metrics=self._metrics,
            # On a CPU alone: a GPU launches the next batch during the current one, which hides per-batch overhead,
            # so that warm-up timings do not tell which batch size pays.
            limits=replace(self._config.limits, only_what_pays=info.device == "cpu"),
            resilience=self._config.resilience,
            auto_maximum=info.auto_limit(self._config.max_ratio),
            active=active,
            device=self._devices[info.device],
            warm_up_profile=self._profile(model),
            clock=self._clock,
        )
        scheduler.when_hopeless(lambda why: self._when_hopeless(why))
        return scheduler

    def _profile(self, model: ServedModel) -> Sequence[TimedBatch]:
        """The warm-up profile of an earlier process; empty if it is that of a different model of the same name."""
        timed = self._profiles.pop(model.name, ())
        dense_image = effort({0.0: 1}, model.costs.gmacs)
        return timed if any(one.effort == dense_image for one in timed) else ()
