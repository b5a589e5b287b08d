"""The backend for a device that computes beside its thread, over a device that is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunepool.backends.cuda_capture import PassOutputs, buckets
from prunepool.backends.cuda_graphs import CudaGraphBackend
from prunepool.backends.torch_cpu import TorchBackend
from prunepool.core.backend import AsynchronousBackend, OutOfMemory
from prunepool.core.types import Batch, BatchItem, Output, RatioSpec, Request
from prunepool.models.loaded_model import LoadedModel

RATIOS = (0.0, 0.5, 0.755)


@dataclass
class Passed:
    """An event after work that is done when it is asked for."""

    waits: list[str]

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        self.waits.append("wait")


@dataclass
class FakeAccelerator:
    """A device in the processor: a captured graph writes its result into the tensors of its recording.

    As on a GPU, they hold garbage until a replay, and the replay of another run spoils them again.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    room: int = 10**6
    largest: int = 10**6
    waits: list[str] = field(default_factory=list)
    captured: list[PassOutputs] = field(default_factory=list)
    replays: int = 0
    inside: int = 0
    closed: bool = False

    @contextmanager
    def active(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.empty(tuple(shape), dtype=dtype)

    def upload(self, host: Tensor) -> Tensor:
        return host.clone()

    def capture(self, function: Callable[[], PassOutputs]) -> tuple[PassOutputs, Callable[[], None]]:
        if len(self.captured) == self.room:
            raise torch.OutOfMemoryError("full")
        static = function()
        if len(static.logits) > self.largest:
            raise torch.OutOfMemoryError("full")
        self.captured.append(static)
        _spoil(static)

        def replay() -> None:
            assert self.inside, "a replay belongs on the computing stream"
            self.replays += 1
            for other in self.captured:
                _spoil(other)
            fresh = function()
            static.logits.copy_(fresh.logits)
            static.decisions.copy_(fresh.decisions)
            for to, stage in zip(static.stages, fresh.stages, strict=True):
                for target, source in zip(
                    (*to.indices, to.pruned, to.variance),
                    (*stage.indices, stage.pruned, stage.variance),
                    strict=True,
                ):
                    target.copy_(source)

        return static, replay

    def event(self) -> Passed:
        return Passed(self.waits)

    def used(self) -> int:
        return 10 * len(self.captured)

    def close(self) -> None:
        self.closed = True


def _spoil(computed: PassOutputs) -> None:
    computed.logits.fill_(float("nan"))
    computed.decisions.fill_(True)
    for stage in computed.stages:
        stage.pruned.logical_not_()


def backend_of(
    model: LoadedModel,
    *,
    most: int = 100,
    ratios: Sequence[float] = RATIOS,
    accelerator: FakeAccelerator | None = None,
) -> CudaGraphBackend:
    backend = CudaGraphBackend(
        model, accelerator or FakeAccelerator(), ratios=ratios, max_batch_size=4, most_graphs=most
    )
    with torch.inference_mode():
        backend.graphs.capture(model.plan(ratio) for ratio in ratios)
    return backend


@pytest.fixture(scope="module")
def backend(tiny: LoadedModel) -> CudaGraphBackend:
    return backend_of(tiny)


def batch_of(*ratios: float, explain: bool = False) -> Batch:
    rng = np.random.default_rng(len(ratios))
    pixels = rng.integers(0, 256, (len(ratios), 224, 224, 3), dtype=np.uint8)
    requests = [
        Request(one, RatioSpec(ratio, ratio), 0.0, explain=explain)
        for one, ratio in zip(pixels, ratios, strict=True)
    ]
    return Batch(
        tuple(
            BatchItem(request, ratio, "requested") for request, ratio in zip(requests, ratios, strict=True)
        ),
        0.0,
    )


def run(backend: CudaGraphBackend | TorchBackend, batch: Batch) -> list[Output]:
    return list(backend.run(batch, backend.prepare(batch)))


def alike(ours: Output, theirs: Output) -> None:
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)
    for name in ("tokens", "gmacs", "pruned", "pooled"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_it_is_one_that_computes_beside_its_thread(backend: CudaGraphBackend, tiny: LoadedModel) -> None:
    assert isinstance(backend, AsynchronousBackend)
    assert not isinstance(TorchBackend(tiny, max_batch_size=1), AsynchronousBackend)


@given(ratios=st.lists(st.sampled_from([0.0, 0.5, 0.755, 0.3, 0.8]), min_size=1, max_size=4).map(sorted))
@examples(0.2)
def test_answers_are_those_of_the_plain_backend(
    backend: CudaGraphBackend, tiny: LoadedModel, ratios: list[float]
) -> None:
    batch = batch_of(*ratios)
    plain = TorchBackend(tiny, max_batch_size=4)
    for ours, theirs, ratio in zip(run(backend, batch), run(plain, batch), ratios, strict=True):
        alike(ours, theirs)
        assert ours.graph_replayed == (ratio in RATIOS)


def test_a_token_map_is_not_spoilt_by_what_ran_after_it(backend: CudaGraphBackend, tiny: LoadedModel) -> None:
    batch = batch_of(0.5, 0.755, 0.755, explain=True)
    first = backend.launch(batch, backend.prepare(batch))
    run(backend, batch_of(0.0, 0.5, 0.755))
    plain = TorchBackend(tiny, max_batch_size=4)
    for ours, theirs in zip(backend.collect(batch, first), run(plain, batch), strict=True):
        alike(ours, theirs)
        assert ours.token_map is not None
        assert theirs.token_map is not None
        assert ours.token_map.tokens == theirs.token_map.tokens
        assert [s.action for s in ours.token_map.stages] == [s.action for s in theirs.token_map.stages]


@pytest.mark.parametrize("normalised", [(True, True, True), (False, True, False), (True, False, True)])
def test_normalised_pixels_may_stand_beside_others(
    backend: CudaGraphBackend, tiny: LoadedModel, normalised: tuple[bool, ...]
) -> None:
    crops = batch_of(0.0, 0.0, 0.5)
    items = []
    for item, as_tensor in zip(crops.items, normalised, strict=True):
        pixels = item.request.pixels
        if as_tensor:
            pixels = tiny.normalise(torch.from_numpy(pixels[None]))[0].numpy()
        items.append(BatchItem(Request(pixels, item.request.ratio_spec, 0.0), item.ratio, item.reason))
    for ours, theirs in zip(run(backend, Batch(tuple(items), 0.0)), run(backend, crops), strict=True):
        alike(ours, theirs)


def test_between_launch_and_collection_nothing_waits(tiny: LoadedModel) -> None:
    accelerator = FakeAccelerator()
    backend = backend_of(tiny, accelerator=accelerator, ratios=(0.0,), most=1)
    batch = batch_of(0.0, 0.5)
    launched = backend.launch(batch, backend.prepare(batch))
    assert accelerator.waits == []
    assert backend.done(launched)
    backend.collect(batch, launched)
    assert accelerator.waits == ["wait"]


@pytest.mark.parametrize("most", [1, 5, 20, 32, 256])
def test_buckets_end_with_the_largest_batch(most: int) -> None:
    found = buckets(most)
    assert found[0] == 1
    assert found[-1] == most
    assert all(b <= max(a + 1, 1.5 * a) for a, b in pairwise(found))
    assert len(found) <= 2 * most.bit_length()


def test_a_batch_takes_the_smallest_graph_with_room(backend: CudaGraphBackend, tiny: LoadedModel) -> None:
    plan = tiny.plan(0.5)
    images = [graph.images for n in (1, 2, 3, 4) if (graph := backend.graphs.find(plan, n)) is not None]
    assert images == [1, 2, 3, 4]
    assert backend.graphs.find(plan, 5) is None
    assert backend.graphs.find(tiny.plan(0.3), 1) is None


def test_the_bound_keeps_the_most_important_and_the_largest_come_first(tiny: LoadedModel) -> None:
    backend = backend_of(tiny, most=5)
    captured = [(graph.plan, graph.images) for graph in backend.graphs.all]
    assert [images for _, images in captured] == [4, 3, 2, 1, 1]
    assert {plan for plan, images in captured if images > 1} == {tiny.plan(0.0)}
    assert [graph.bytes for graph in backend.graphs.all] == [10] * 5


def test_without_graphs_everything_goes_eagerly(tiny: LoadedModel) -> None:
    accelerator = FakeAccelerator()
    backend = backend_of(tiny, most=0, accelerator=accelerator)
    assert [output.graph_replayed for output in run(backend, batch_of(0.0, 0.755))] == [False, False]
    assert accelerator.replays == 0


def test_what_does_not_fit_is_left_out_and_smaller_ones_are_captured(
    tiny: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    backend = backend_of(tiny, accelerator=FakeAccelerator(largest=2))
    assert [graph.images for graph in backend.graphs.all] == [2] * len(RATIOS) + [1] * len(RATIOS)
    assert "no memory for 6 CUDA graphs of 3 to 4 images" in caplog.text
    assert len(run(backend, batch_of(0.0, 0.755, 0.755, 0.755))) == 4


def test_a_device_without_memory_for_graphs_serves_eagerly(tiny: LoadedModel) -> None:
    backend = backend_of(tiny, accelerator=FakeAccelerator(room=0))
    assert backend.graphs.all == ()
    assert [output.graph_replayed for output in run(backend, batch_of(0.0, 0.755))] == [False, False]


def _memory_for(monkeypatch: pytest.MonkeyPatch, model: LoadedModel, images: int) -> None:
    """From now on a forward pass of more images runs out of memory."""
    inner = model.vit.forward

    def forward(batch: Tensor, groups: object) -> object:
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(batch, groups)

    monkeypatch.setattr(model.vit, "forward", forward)


def test_warming_up_leaves_out_the_sizes_that_do_not_fit(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _memory_for(monkeypatch, tiny, images=2)
    backend = CudaGraphBackend(tiny, FakeAccelerator(), ratios=(0.0,), max_batch_size=8, most_graphs=100)
    backend.warm_up()
    assert [graph.images for graph in backend.graphs.all] == [2, 1]
    assert "no memory for a batch of 8 when warming up" in caplog.text
    assert len(run(backend, batch_of(0.0, 0.0))) == 2


def test_without_memory_for_a_single_image_there_is_no_start(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _memory_for(monkeypatch, tiny, images=0)
    backend = CudaGraphBackend(tiny, FakeAccelerator(), ratios=(0.0,), max_batch_size=2, most_graphs=100)
    with pytest.raises(OutOfMemory):
        backend.warm_up()


def test_warming_up_captures_and_then_serving_captures_nothing(tiny: LoadedModel) -> None:
    accelerator = FakeAccelerator()
    backend = CudaGraphBackend(tiny, accelerator, ratios=(0.0, 0.5), max_batch_size=2, most_graphs=100)
    backend.warm_up()
    assert len(accelerator.captured) == 4
    run(backend, batch_of(0.3, 0.8))
    assert len(accelerator.captured) == 4


def test_only_the_thread_that_made_it_may_use_it(backend: CudaGraphBackend, tiny: LoadedModel) -> None:
    seen: list[BaseException] = []

    def elsewhere() -> None:
        try:
            backend.graphs.find(tiny.plan(0.0), 1)
        except AssertionError as error:
            seen.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(seen) == 1


def test_out_of_memory_is_told_apart(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    backend = backend_of(tiny, most=0)
    monkeypatch.setattr(tiny.vit, "forward", full)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        run(backend, batch_of(0.0))


def test_no_room_for_the_pixels_is_told_apart(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    accelerator = FakeAccelerator()
    backend = backend_of(tiny, most=0, accelerator=accelerator)
    monkeypatch.setattr(accelerator, "upload", full)
    with pytest.raises(OutOfMemory, match="CUDA out of memory"):
        backend.prepare(batch_of(0.0))


def test_closing_lets_go_of_everything(tiny: LoadedModel) -> None:
    accelerator = FakeAccelerator()
    backend = backend_of(tiny, ratios=(0.0,), accelerator=accelerator)
    backend.close()
    assert accelerator.closed
    assert backend.graphs.all == ()
