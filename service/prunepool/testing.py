"""Stand-ins for testing what is built on prunepool, without a model, a device or a thread of their own.

`FakeService` takes the place of an engine under the HTTP layer, or under your own code. `FakeBackend` takes the
place of a model on a device under the real scheduler; its `Gate` makes "the device is busy" something that a
test decides, so that no test needs to sleep.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from prunepool.core.backend import Backend, OutOfMemory
from prunepool.core.logits import softmax
from prunepool.core.model_info import ModelInfo
from prunepool.core.profiling import WARM_UP
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Batch, BatchItem, Output, StageMap, TokenMap
from prunepool.errors import (
    Draining,
    EngineUnavailable,
    ImageUndecodable,
    ModelNotFound,
    PrunepoolError,
)
from prunepool.imaging import Preprocess
from prunepool.serving.options import InferenceOptions, ResolvedOptions, resolve
from prunepool.serving.tensors import checked
from prunepool.serving.types import Classification, Image, Inference, Prediction, Readiness, Reduction, Timing

_PATCHES = 196


def fake_model(name: str = "fake", *, classes: int = 10, **changes: object) -> ModelInfo:
    """A model's description for tests; `changes` are further fields of `ModelInfo`."""
    info = ModelInfo(
        name=name,
        architecture="deit_tiny_patch16_224",
        input_size=224,
        labels=tuple(f"class {i}" for i in range(classes)),
        max_reduction_ratio=171 / _PATCHES,
        default_reduction_ratio=0.5,
        gmacs=fake_gmacs(0.0),
        parameters=5_700_000,
        device="cpu",
        dtype="float32",
        ready=True,
        licence="Apache-2.0",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        crop_pct=0.9,
    )
    return replace(info, **changes)  # type: ignore[arg-type]


def fake_gmacs(ratio: float) -> float:
    """What a fake model's image costs: falls from 1 GMAC as the ratio rises."""
    return 1.0 - 0.5 * ratio


class FakeCosts:
    """The `Costs` of fake models."""

    max_ratio = 171 / _PATCHES

    def gmacs(self, ratio: float) -> float:
        """Billions of multiply-accumulates for one image at this ratio."""
        return fake_gmacs(ratio)


def fake_served(
    name: str = "fake", make_backend: Callable[[], Backend] | None = None, *, size: int = 4, **changes: object
) -> ServedModel:
    """A model for the real core, with a backend that is not real.

    Args:
        name: its name.
        make_backend: makes its backend; a `FakeBackend` of ten classes, if not given.
        size: height and width of its crops, in pixels.
        changes: further fields of `ServedModel`.
    """
    info = fake_model(name, input_size=size)
    model = ServedModel(
        name=name,
        info=lambda: info,
        preprocess=Preprocess(size, 1.0),
        costs=FakeCosts(),
        applied=lambda ratio: ratio,
        make_backend=make_backend or FakeBackend,
    )
    return replace(model, **changes)  # type: ignore[arg-type]


class FakeService:
    """A `Service` that answers at once, the same answer for the same image.

    Bytes that begin with `bad` are not an image; options and tensors are validated as the real engine does.

    Args:
        models: what it serves, the default first; one `fake_model()` unless said.
        error: raised for every image while it is set; it can be changed at any time.
        ready: whether it says that it can serve, and does.

    Attributes:
        calls: every image, in order, with its options.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        models: Sequence[ModelInfo] | None = None,
        *,
        error: PrunepoolError | None = None,
        ready: bool = True,
    ) -> None:
        self._models = {info.name: info for info in models or (fake_model(),)}
        self.error = error
        self.ready = ready
        self.draining = False
        self.closed = False
        self.calls: list[tuple[Image, InferenceOptions]] = []
        self._batches = itertools.count()

    @property
    def default_model(self) -> str:
        """Name of the first model."""
        return next(iter(self._models))

    def models(self) -> tuple[ModelInfo, ...]:
        """All models."""
        return tuple(self._models.values())

    def model(self, name: str) -> ModelInfo:
        """One model, or `ModelNotFound`."""
        if name not in self._models:
            raise ModelNotFound(f"no model named {name!r}; there are: {', '.join(self._models)}")
        return self._models[name]

    def readiness(self) -> Readiness:
        """As told."""
        if self.draining:
            return Readiness(False, ("draining",))
        return Readiness(True) if self.ready else Readiness(False, ("engine",))

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        """An answer made from the bytes, or the error that the test set."""
        wanted, answer = await self._answer(image, options)
        scores = softmax(answer.logits)
        likeliest = np.argsort(-scores, kind="stable")[: wanted.top_k]
        labels = answer.labels
        return Classification(
            model=answer.model,
            predictions=tuple(Prediction(int(i), labels[i], float(scores[i])) for i in likeliest),
            reduction=answer.reduction,
            timing_ms=answer.timing_ms,
            batch=answer.batch,
            batch_size=answer.batch_size,
            token_map=answer.token_map,
        )

    async def infer(self, image: Image, options: InferenceOptions) -> Inference:
        """Logits made from the image, or the error that the test set."""
        return (await self._answer(image, options))[1]

    async def _answer(self, image: Image, options: InferenceOptions) -> tuple[ResolvedOptions, Inference]:
        self.calls.append((image, options))
        await asyncio.sleep(0)  # as the real one, it lets others run
        if self.error is not None:
            raise self.error
        if self.draining:
            raise Draining("the server is stopping", retry_after=1.0)
        if not self.ready:
            raise EngineUnavailable("the engine is not ready", retry_after=1.0)
        info = self.model(options.model or self.default_model)
        wanted = resolve(options, info)
        seed = hashlib.sha256(_content(image, info.input_size)).digest()
        return wanted, _inference(seed, next(self._batches), info, options, wanted)

    async def start(self) -> None:
        """Become ready."""
        self.ready = True

    def begin_drain(self) -> None:
        """Refuse what comes from now on."""
        self.draining = True

    async def close(self, timeout_s: float) -> bool:
        """Nothing is ever left unanswered."""
        self.begin_drain()
        self.closed = True
        return True


def _content(image: Image, size: int) -> bytes:
    """What the answer is made from; refuses what the real engine refuses."""
    if isinstance(image, bytes):
        if image.startswith(b"bad"):
            raise ImageUndecodable(f"{len(image)} bytes are not an image that can be decoded")
        return image
    return checked(image, size).tobytes()


def _inference(
    seed: bytes, batch: int, info: ModelInfo, options: InferenceOptions, wanted: ResolvedOptions
) -> Inference:
    classes = len(info.labels)
    logits = np.array([seed[i % len(seed)] / 64 - i / classes for i in range(classes)], np.float32)
    requested = wanted.requested
    default = min(info.default_reduction_ratio, wanted.ratio_spec.maximum)
    ratio = default if requested == "auto" else requested
    kept = _PATCHES - math.floor(ratio * _PATCHES)
    return Inference(
        model=info.name,
        logits=logits,
        reduction=Reduction(
            requested=requested,
            applied=min(ratio, 1 - kept / _PATCHES),
            reason="auto:default" if requested == "auto" else wanted.reason,
            tokens=(1 + _PATCHES, 1 + kept),
            gmacs=info.gmacs * fake_gmacs(ratio),
            macs_saved=1 - fake_gmacs(ratio),
        ),
        timing_ms=Timing(decode=1.0, queue=0.5, inference=2.0, total=3.5),
        batch=batch,
        batch_size=1,
        token_map=_token_map(kept) if options.explain else None,
        labels=info.labels,
    )


def _token_map(kept: int) -> TokenMap:
    """The first `kept` patches stay, each for itself; the others are pruned at once."""
    tokens = tuple((patch,) for patch in range(kept))
    stage = StageMap(
        block=3, action="prune", variance=1e-4, pruned=tuple(range(kept, _PATCHES)), groups=tokens
    )
    return TokenMap(grid=(14, 14), tokens=tokens, stages=(stage,))


class Gate:
    """Decides when a fake device is busy: batches stop at it until they are let through."""

    def __init__(self, *, is_open: bool = True) -> None:
        self._changed = threading.Condition()
        self._open = is_open
        self._permits = 0
        self._arrivals = 0

    @property
    def arrivals(self) -> int:
        """How many batches have come to the gate."""
        return self._arrivals

    def open(self) -> None:
        """Let everything through from now on, and what waits."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop what comes from now on."""
        with self._changed:
            self._open = False

    def let(self, batches: int = 1) -> None:
        """Let so many batches through a closed gate."""
        with self._changed:
            self._permits += batches
            self._changed.notify_all()

    def pass_through(self) -> None:
        """Come to the gate and wait until let through; for the device's thread."""
        with self._changed:
            self._arrivals += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open or self._permits)
            if not self._open:
                self._permits -= 1

    async def arrived(self, batches: int, *, timeout_s: float = 10.0) -> None:
        """Wait until so many batches in all have come to the gate.

        Raises:
            TimeoutError: they have not.
        """

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: self._arrivals >= batches, timeout_s)

        if not await asyncio.to_thread(wait):
            raise TimeoutError(
                f"{self._arrivals} of {batches} batches came to the gate within {timeout_s:g} s"
            )


class FakeBackend:
    """A `Backend` whose answers show which image they belong to, and which fails on demand.

    The highest logit is that of the class which the image's first byte names (modulo the classes).

    Args:
        classes: length of the logits.
        gate: where each batch stops before it is run; open if not given.
        fail: looks at a batch and returns what to raise instead of running it, or None.
        out_of_memory_above: the largest batch that fits; all fit if not given.
        warm_up_error: raised by `warm_up`.

    Attributes:
        batches: every batch that came to the gate, in order, without warm-ups.
        thread: identifier of the thread that made it.
        closed: whether `close` was called.
    """

    def __init__(
        self,
        classes: int = 10,
        *,
        gate: Gate | None = None,
        fail: Callable[[Batch], BaseException | None] | None = None,
        out_of_memory_above: int | None = None,
        warm_up_error: BaseException | None = None,
    ) -> None:
        self._classes = classes
        self._gate = gate or Gate()
        self._fail = fail
        self._room = out_of_memory_above
        self._warm_up_error = warm_up_error
        self.batches: list[Batch] = []
        self.thread = threading.get_ident()
        self.closed = False

    def warm_up(self) -> None:
        """Nothing to warm, but it can fail."""
        if self._warm_up_error is not None:
            raise self._warm_up_error

    def prepare(self, batch: Batch) -> object:
        """Check that there are pixels; a batch may hold both kinds of them."""
        return [np.asarray(item.request.pixels) for item in batch.items]

    def run(self, batch: Batch, prepared: object) -> Sequence[Output]:
        """Stop at the gate, then fail or answer as told."""
        assert isinstance(prepared, list)
        if batch.items[0].reason != WARM_UP:
            self.batches.append(batch)
            self._gate.pass_through()
            if self._room is not None and len(batch.items) > self._room:
                raise OutOfMemory(f"{len(batch.items)} images, room for {self._room}")
            if self._fail is not None and (error := self._fail(batch)) is not None:
                raise error
        return [self._outcome(item) for item in batch.items]

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def _outcome(self, item: BatchItem) -> Output:
        distance = (np.arange(self._classes) - int(item.request.pixels.flat[0])) % self._classes
        removed = math.floor(item.ratio * _PATCHES)
        kept = _PATCHES - removed
        return Output(
            logits=-distance.astype(np.float32),
            tokens=(1 + _PATCHES, 1 + kept),
            gmacs=fake_gmacs(item.ratio),
            pruned=removed // 2,
            pooled=removed - removed // 2,
            token_map=_token_map(kept) if item.request.explain else None,
        )
