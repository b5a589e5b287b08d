"""Decoding threads, and one scheduler with its device thread for each model."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

from prunepool.core.cost_model import TimedBatch, effort
from prunepool.core.device_share import SharedDevice
from prunepool.core.ratio_policy import RatioPolicy
from prunepool.core.scheduler import Scheduler
from prunepool.core.types import Pixels, Request, Result
from prunepool.errors import InvalidParameter, PrunepoolError
from prunepool.imaging import decode
from prunepool.metrics import Metrics
from prunepool.serving.answer import classification, inference
from prunepool.serving.decode_pool import Decode, Decoders, decode_threads
from prunepool.serving.escalation import Escalation
from prunepool.serving.policies import policy_for
from prunepool.serving.registry import ModelEntry, ModelRegistry
from prunepool.serving.served_model import EngineConfig, ServedModel
from prunepool.serving.shadow import Shadow
from prunepool.serving.types import (
    Classification,
    Image,
    Inference,
    ModelInfo,
    Options,
    Readiness,
    ResolvedOptions,
    Timing,
    resolve,
)

Policy = Callable[[ModelInfo], RatioPolicy]


@dataclass(slots=True)
class _Progress:
    """How far an image came."""

    request: Request | None = None
    answered: bool = False

    @property
    def reached_device(self) -> bool:
        return self.answered or (self.request is not None and self.request.attempts > 0)


class LocalEngine:
    """The `Engine` whose models run in threads of this process.

    Args:
        models: what is served, the default first; at least one.
        config: how.
        metrics: the service's series.
        decode: makes a model's crop of an encoded image; called in a thread of the pool.
        policy: makes a model's ratio policy; the one that holds the target, where there is one, if not given.
        clock: seconds, monotonic.
        warm_up_profiles: what an engine before it was timed with on these devices, by model.
        random: decides which images are watched; one of its own, if not given.

    Raises:
        InvalidParameter: the default ratio is more than a model can do.
    """

    def __init__(
        self,
        models: Iterable[ServedModel],
        *,
        config: EngineConfig,
        metrics: Metrics,
        decode: Decode = decode,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
        warm_up_profiles: Mapping[str, Sequence[TimedBatch]] | None = None,
        random: Random | None = None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._policy = policy or (lambda info: policy_for(info, config.limits.target_s))
        self._clock = clock
        models = tuple(models)
        for model in models:
            self._check_default(model)
        self._warm_up_profiles = dict(warm_up_profiles or {})
        #: By device: models on one device see each other's backlog.
        self._devices: defaultdict[str, SharedDevice] = defaultdict(SharedDevice)
        self._when_hopeless: Callable[[str], object] = lambda why: None
        self._random = random or Random()  # noqa: S311 - it draws a sample, no secret
        self._lineup = ModelRegistry(models, self._line, config.unload_timeout_s)
        threads = decode_threads(config.decode_threads)
        self._decoders = Decoders(threads, config.image_limits, clock, decode)

    @property
    def default_model(self) -> str:
        """Name of the model that answers when a request names none."""
        return self._lineup.default

    def models(self) -> tuple[ModelInfo, ...]:
        """All served models."""
        return tuple(self.model(name) for name in self._lineup.names)

    def model(self, name: str) -> ModelInfo:
        """One served model.

        Raises:
            ModelNotFound: none of that name is served.
        """
        line = self._lineup.find(name)
        return replace(line.model.info(), ready=line.scheduler.ready)

    @property
    def lines(self) -> tuple[ModelEntry, ...]:
        """Every served model and what answers for it."""
        return self._lineup.lines

    def readiness(self) -> Readiness:
        """Whether every model can be asked now."""
        missing = tuple(why for line in self._lineup.lines if (why := line.scheduler.missing))
        return Readiness(not missing, missing)

    async def start(self) -> None:
        """Load and warm up every model, one after the other; returns when all are ready.

        Raises:
            Exception: whatever kept the first that failed from getting warm; the others are stopped.
        """
        try:
            await self._lineup.start()
        except BaseException:
            await self.close(0.0)
            raise

    def when_hopeless(self, callback: Callable[[str], object]) -> None:
        """Have this called, with the reason, when a model's restarts in this process keep failing."""
        self._when_hopeless = callback

    def begin_drain(self) -> None:
        """Refuse what comes from now on; what was accepted is still answered."""
        self._lineup.begin_drain()

    async def close(self, timeout_s: float) -> bool:
        """Answer what was accepted within `timeout_s`, then stop; whether all of it was answered."""
        answered = await self._lineup.close(timeout_s)
        self._decoders.close()
        return answered

    def serves(self, model: ServedModel) -> bool:
        """Whether this very version of a model is served."""
        return self._lineup.has(model)

    async def load(self, model: ServedModel) -> None:
        """Serve a model as soon as it is warm; one of its name answers until then, and is let go.

        Calls must not overlap.

        Raises:
            InvalidParameter: the default ratio is more than it can do.
            Exception: whatever kept it from getting warm; what was served is served on.
        """
        self._check_default(model)
        await self._lineup.load(model)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; what it had accepted is still answered, and then it is let go.

        Raises:
            ModelNotFound: none of that name is served.
            RequestError: it is the default model.
        """
        await self._lineup.unload(name)

    def prefer(self, name: str) -> None:
        """Have a served model answer requests that name none."""
        self._lineup.prefer(name)

    async def classify(self, image: bytes, options: Options) -> Classification:
        """Classify one encoded image.

        Raises:
            PrunepoolError: why it cannot be.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """
        model, wanted, answer = await self._answer(image, options)
        return classification(answer, model.info().labels, wanted.top_k)

    async def infer(self, image: Image, options: Options) -> Inference:
        """The logits of one image, encoded or normalised.

        Raises:
            PrunepoolError: why there are none.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """
        return (await self._answer(image, options))[2]

    async def infer_decoded(
        self, pixels: Pixels, options: Options, *, arrival: float, decode_s: float
    ) -> Inference:
        """The logits of an image that another process has decoded.

        Args:
            pixels: the model's crop, or what a caller made of it.
            options: the caller's choice.
            arrival: when the image came, on a clock that this engine shares.
            decode_s: how long decoding took.

        Raises:
            PrunepoolError: why there are none.
            asyncio.CancelledError: the caller went away; its place in the queue is given up.
        """
        return (await self._answer(pixels, options, arrival, decode_s))[2]

    async def _answer(
        self,
        image: Image | Pixels,
        options: Options,
        arrival: float | None = None,
        decode_s: float | None = None,
    ) -> tuple[ServedModel, ResolvedOptions, Inference]:
        arrival = self._clock() if arrival is None else arrival
        name = self.default_model if options.model is None else options.model
        # A name that callers made up must not become a label: there is no end to those.
        label = name if name in self._lineup.names else "unknown"
        with self._counted(label) as progress:
            line = self._lineup.find(name)
            model, scheduler = line.model, line.scheduler
            wanted = self._resolve(options, model)
            deadline = None if wanted.deadline_s is None else arrival + wanted.deadline_s
            with scheduler.accept(wanted.ratio_spec, deadline):
                pixels = await self._decoders.pixels(image, model.preprocess, arrival, deadline)
                if decode_s is None:
                    decode_s = self._clock() - arrival
                progress.request = Request(pixels, wanted.ratio_spec, arrival, deadline, options.explain)
                done = await scheduler.answer(progress.request)
            progress.answered = True
            done = await line.second_look(progress.request, done)
            total_s = self._clock() - arrival
            timing = self._timing(name, decode_s, done, total_s)
            return model, wanted, inference(model, wanted, done, timing)

    def _timing(self, name: str, decode_s: float, done: Result, total_s: float) -> Timing:
        # The request's arrival, from which its wait counts, was before the decoding.
        stages = {
            "decode": decode_s,
            "queue": max(0.0, done.queue_s - decode_s),
            "inference": done.inference_s,
            "total": total_s,
        }
        for stage, seconds in stages.items():
            self._metrics.request_duration.labels(name, stage).observe(seconds)
        return Timing(**{stage: seconds * 1000 for stage, seconds in stages.items()})

    @contextmanager
    def _counted(self, label: str) -> Iterator[_Progress]:
        """Count an image once, however it ends."""
        progress = _Progress()
        outcome = PrunepoolError.code
        try:
            yield progress
            outcome = "ok"
        except PrunepoolError as error:
            outcome = error.code
            if not progress.reached_device:
                self._metrics.rejected.labels(label, outcome).inc()
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.requests.labels(label, outcome).inc()

    def _resolve(self, options: Options, model: ServedModel) -> ResolvedOptions:
        config = self._config
        return resolve(options, model.info(), default_ratio=config.default_ratio, max_ratio=config.max_ratio)

    def _check_default(self, model: ServedModel) -> None:
        """A setting that would fail every request fails the start instead."""
        try:
            self._resolve(Options(), model)
        except InvalidParameter as error:
            limit = f"{error.extra['limit']}, for {model.name}"
            raise InvalidParameter("default_reduction_ratio", error.extra["value"], limit) from None

    def _line(self, model: ServedModel, active: bool) -> ModelEntry:
        """A model with what answers for it, and with what looks again at its answers."""
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
        auto = self._resolve(Options(reduction_ratio="auto"), model).ratio_spec
        info = model.info()
        scheduler = Scheduler(
            model.name,
            model.make_backend,
            image_size=model.preprocess.size,
            costs=model.costs,
            policy=self._policy(info),
            metrics=self._metrics,
            # A GPU that computes ahead hides what a small run costs besides: there, sizes were not compared.
            limits=replace(self._config.limits, only_what_pays=info.device == "cpu"),
            resilience=self._config.resilience,
            auto_maximum=auto.maximum,
            active=active,
            device=self._devices[info.device],
            warm_up_profile=self._timed(model),
            clock=self._clock,
        )
        scheduler.when_hopeless(lambda why: self._when_hopeless(why))
        return scheduler

    def _timed(self, model: ServedModel) -> Sequence[TimedBatch]:
        """What an engine before this one timed a model with; nothing, if that was another one of its name."""
        timed = self._warm_up_profiles.pop(model.name, ())
        dense_image = effort({0.0: 1}, model.costs.gmacs)
        return timed if any(one.effort == dense_image for one in timed) else ()
