"""A model on a device, under the real scheduler, that is busy and fails when a test says so."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from prunepool.core.backend import Backend, OutOfMemory
from prunepool.core.profiling import WARM_UP
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Batch, BatchItem, Output
from prunepool.imaging import Preprocess
from prunepool.testing.fake_models import PATCHES, FakeCosts, fake_gmacs, fake_model, fake_token_map


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
        removed = math.floor(item.ratio * PATCHES)
        kept = PATCHES - removed
        return Output(
            logits=-distance.astype(np.float32),
            tokens=(1 + PATCHES, 1 + kept),
            gmacs=fake_gmacs(item.ratio),
            pruned=removed // 2,
            pooled=removed - removed // 2,
            token_map=fake_token_map(kept) if item.request.explain else None,
        )


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
