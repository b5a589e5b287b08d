"""The compiled backend's queue: what OpenVINO is given, when, and that each image gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prunepool.backends.compiled_backend import CompiledBackend
from prunepool.backends.compiled_pass import Arrays, CompiledPass, CompiledPasses, StartedRun
from prunepool.backends.plan_family import PlanFamily
from prunepool.core.backend import AsynchronousBackend
from prunepool.core.types import Batch, BatchItem, RatioSpec, Request
from prunepool.store import Manifest, open_store


class Held:
    """A run that ends when a test says so, well or not."""

    def __init__(self, name: str, inputs: Arrays, when_done: Callable[[], object]) -> None:
        self.name = name
        self._inputs = inputs
        self._when_done = when_done
        self._over = threading.Event()
        self.error: RuntimeError | None = None

    def end(self, error: RuntimeError | None = None) -> None:
        self.error = error
        self._over.set()
        if error is None:
            self._when_done()

    def done(self) -> bool:
        return self._over.is_set()

    def outputs(self) -> Arrays:
        assert self._over.wait(10)
        if self.error is not None:
            raise self.error
        images = self._inputs[0]
        logits = np.zeros((len(images), 10), np.float32)
        logits[:, 0] = images[:, 0, 0, 0]
        before = [10**6, *map(len, self._inputs[2:])]
        stages: list[Any] = []
        for m in before[1:]:
            indices = [np.zeros((len(images), m), np.int64)] * 3
            stages += [*indices, np.zeros(len(images), np.bool_), np.zeros(len(images), np.float32)]
        return [logits, *stages]


class Device:
    """Two passes, dense and reducing, whose runs are held."""

    def __init__(self, manifest: Manifest) -> None:
        assert manifest.geometry is not None
        self.runs: list[Held] = []
        families = {"dense": PlanFamily("fuse", ()), "fuse": PlanFamily("fuse", (3, 4, 5, 6, 7, 8, 9, 10))}
        passes = [
            CompiledPass(self._infer(name), family, manifest.geometry) for name, family in families.items()
        ]
        self.backend = CompiledBackend(manifest, CompiledPasses(passes), max_batch_size=8)
        self.woken = 0

    @property
    def names(self) -> list[str]:
        return [run.name for run in self.runs]

    def launch(self, batch: Batch) -> object:
        return self.backend.launch(batch, self.backend.prepare(batch), self._wake)

    def _infer(self, name: str) -> Callable[[Arrays, Callable[[], object]], StartedRun]:
        def infer(inputs: Arrays, when_done: Callable[[], object]) -> StartedRun:
            self.runs.append(Held(name, inputs, when_done))
            return self.runs[-1]

        return infer

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
def device() -> Device:
    return Device(open_store().open("deit_tiny_imagenet1k").manifest)


def batch_of(*ratios: float) -> Batch:
    size = 224
    items = [
        BatchItem(
            Request(np.full((3, size, size), i, np.float32), RatioSpec(ratio, ratio), 0.0), ratio, "requested"
        )
        for i, ratio in enumerate(ratios)
    ]
    return Batch(tuple(items), 0.0)


def first_pixels(outputs: Any) -> list[float]:
    return [float(one.logits[0]) for one in outputs]


def test_all_runs_of_a_pass_are_queued_at_once_and_the_next_batch_behind_them(device: Device) -> None:
    assert isinstance(device.backend, AsynchronousBackend)
    first, second = batch_of(*[0.0] * 12), batch_of(*[0.0] * 3)
    launched = device.launch(first)
    following = device.launch(second)
    assert device.names == ["dense"] * 3, "eight images of this width at most in a run"
    assert not device.backend.done(launched)
    device.runs[0].end()
    assert not device.backend.done(launched)
    device.runs[1].end()
    assert device.backend.done(launched)
    assert device.woken == 2
    assert first_pixels(device.backend.collect(first, launched)) == list(range(12))
    assert not device.backend.done(following)
    device.runs[2].end()
    assert first_pixels(device.backend.collect(second, following)) == [0, 1, 2]


def test_a_run_of_another_pass_waits_for_those_before_it(device: Device) -> None:
    first, second = batch_of(0.0, 0.0, 0.5), batch_of(0.5)
    launched = device.launch(first)
    following = device.launch(second)
    assert device.names == ["dense"], "two passes at once would share the cores"
    device.runs[0].end()
    assert not device.backend.done(launched)
    assert device.names == ["dense", "fuse", "fuse"]
    for run in device.runs[1:]:
        run.end()
    assert first_pixels(device.backend.collect(first, launched)) == [0, 1, 2]
    assert first_pixels(device.backend.collect(second, following)) == [0]


def test_a_batch_is_collected_though_nobody_asked_whether_it_is_done(device: Device) -> None:
    first, second = batch_of(0.0, 0.5), batch_of(0.0)
    launched, following = device.launch(first), device.launch(second)
    collected: list[Any] = []

    def collect() -> None:
        collected.extend(device.backend.collect(first, launched))
        collected.extend(device.backend.collect(second, following))

    thread = threading.Thread(target=collect)
    thread.start()
    for i in range(3):
        while len(device.runs) <= i:
            pass
        device.runs[i].end()
    thread.join(10)
    assert first_pixels(collected) == [0, 1, 0]


def test_a_run_that_fails_fails_its_batch_and_the_backend_still_closes(device: Device) -> None:
    first, second = batch_of(0.0), batch_of(0.0, 0.5)
    launched = device.launch(first)
    device.launch(second)
    device.runs[0].end(RuntimeError("no such shape"))
    assert device.backend.done(launched), "a failure is noticed without a call"
    with pytest.raises(RuntimeError, match="no such shape"):
        device.backend.collect(first, launched)
    device.runs[1].end(RuntimeError("neither"))
    device.backend.close()
    assert device.names == ["dense", "dense"], "what was not started never is"
