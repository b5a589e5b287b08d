from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from local_service import LocalService
from PIL import Image

from prunepool.core.ratio_policy import RatioChoice
from prunepool.core.resilience import Resilience
from prunepool.core.served_model import ServedModel
from prunepool.core.types import Batch, Limits, Output, RatioSpec
from prunepool.errors import (
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    ImageUndecodable,
    InvalidParameter,
    ModelHasNoClasses,
    ModelNotFound,
    Overloaded,
    PrunepoolError,
)
from prunepool.imaging import ImageLimits, Preprocess
from prunepool.metrics import Metrics
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Service
from prunepool.testing import FakeBackend, FakeCosts, Gate, fake_model

PREPROCESS = Preprocess(size=4, crop_pct=1.0)
Make = Callable[..., LocalService]


def first_byte(data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
    """Decodes to a crop that is all the first byte."""
    return np.full((preprocess.size, preprocess.size, 3), data[0], np.uint8)


def served(name: str = "m", backend: Callable[[], FakeBackend] = FakeBackend, **changes: Any) -> ServedModel:
    info = fake_model(name, **changes)
    costs = FakeCosts()
    return ServedModel(name, lambda: info, PREPROCESS, costs, lambda ratio: int(ratio * 100) / 100, backend)


@pytest.fixture
async def make(metrics: Metrics) -> AsyncIterator[Make]:
    engines: list[LocalService] = []

    def make(
        *models: ServedModel, decode: Any = first_byte, clock: Any = None, **config: Any
    ) -> LocalService:
        extra = {} if clock is None else {"clock": clock}
        config.setdefault("resilience", Resilience(first_delay_s=0.0))
        service = LocalService(models or (served(),), **config, metrics=metrics, decode=decode, **extra)
        engines.append(service)
        return service

    yield make
    for service in engines:
        await service.close(0.0)


@pytest.fixture
async def service(make: Make) -> LocalService:
    service = make()
    await service.start()
    return service


class Slow:
    """A decoder that stops at a gate."""

    def __init__(self) -> None:
        self.gate = Gate(is_open=False)
        self.threads: set[str] = set()

    def __call__(self, data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
        self.threads.add(threading.current_thread().name)
        self.gate.pass_through()
        return first_byte(data, preprocess, limits)


@pytest.fixture
def slow() -> Iterator[Slow]:
    decoder = Slow()
    yield decoder
    decoder.gate.open()


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"prunepool_{name}", labels)


def counted(metrics: Metrics, outcome: str, model: str = "m") -> float | None:
    return sample(metrics, "requests_total", model=model, outcome=outcome)


def rejected(metrics: Metrics, reason: str) -> float | None:
    return sample(metrics, "rejected_total", model="m", reason=reason)


def test_it_is_an_engine(make: Make) -> None:
    service: Service = make()
    assert service.default_model == "m"


async def test_an_image_gets_its_own_answer(service: LocalService) -> None:
    answer = await service.classify(bytes([7]), InferenceOptions())
    assert answer.predictions[0].index == 7


async def test_five_predictions_unless_told_otherwise(service: LocalService) -> None:
    assert len((await service.classify(b"x", InferenceOptions())).predictions) == 5


async def test_as_many_predictions_as_asked_for(service: LocalService) -> None:
    assert len((await service.classify(b"x", InferenceOptions(top_k=2))).predictions) == 2


async def test_a_fixed_ratio_is_done_as_asked(service: LocalService) -> None:
    reduction = (await service.classify(b"x", InferenceOptions(reduction_ratio=0.5))).reduction
    assert (reduction.requested, reduction.reason, reduction.gmacs) == (0.5, "requested", 0.75)
    assert reduction.tokens == (197, 99)
    assert reduction.macs_saved == 0.25


async def test_what_is_said_to_be_applied_is_what_really_left(service: LocalService) -> None:
    reduction = (await service.classify(b"x", InferenceOptions(reduction_ratio=0.755))).reduction
    assert reduction.applied == 0.75


async def test_the_dense_model_saves_nothing(service: LocalService) -> None:
    reduction = (await service.classify(b"x", InferenceOptions(reduction_ratio=0.0))).reduction
    assert (reduction.applied, reduction.macs_saved) == (0.0, 0.0)


async def test_auto_takes_the_models_default(service: LocalService) -> None:
    reduction = (await service.classify(b"x", InferenceOptions())).reduction
    assert (reduction.requested, reduction.applied, reduction.reason) == ("auto", 0.5, "auto:default")


async def test_auto_keeps_to_the_callers_bound(service: LocalService) -> None:
    answer = await service.classify(b"x", InferenceOptions(reduction_ratio="auto", max_reduction_ratio=0.25))
    assert answer.reduction.applied == 0.25


async def test_a_ratio_from_the_profile_is_put_down_to_accuracy(make: Make) -> None:
    service = make(served(profile=[{"ratio": 0.25, "gmacs": 0.9, "drop": 0.4}]))
    await service.start()
    reduction = (await service.classify(b"x", InferenceOptions(max_accuracy_drop=0.5))).reduction
    assert (reduction.requested, reduction.applied, reduction.reason) == (0.25, 0.25, "accuracy")


async def test_the_servers_ratio_is_for_who_names_none(make: Make) -> None:
    service = make(default_ratio=0.25)
    await service.start()
    assert (await service.classify(b"x", InferenceOptions())).reduction.requested == 0.25


async def test_the_servers_bound_is_for_auto(make: Make) -> None:
    service = make(max_ratio=0.25)
    await service.start()
    assert (await service.classify(b"x", InferenceOptions())).reduction.applied == 0.25


def test_a_servers_ratio_that_a_model_cannot_do_fails_the_start(make: Make) -> None:
    with pytest.raises(InvalidParameter, match=r"default_reduction_ratio .* for m; got 0\.99"):
        make(default_ratio=0.99)


async def test_the_token_map_comes_when_asked_for(service: LocalService) -> None:
    plain = await service.classify(b"x", InferenceOptions(reduction_ratio=0.5))
    explained = await service.classify(b"x", InferenceOptions(reduction_ratio=0.5, explain=True))
    assert plain.token_map is None
    assert explained.token_map is not None
    assert len(explained.token_map.tokens) == 98


async def test_images_that_wait_together_share_a_batch(make: Make, metrics: Metrics) -> None:
    gate = Gate(is_open=False)
    service = make(served(backend=lambda: FakeBackend(gate=gate)))
    await service.start()
    first = asyncio.create_task(service.classify(b"a", InferenceOptions()))
    await gate.arrived(1)
    rest = [asyncio.create_task(service.classify(b"b", InferenceOptions())) for _ in range(3)]
    while sample(metrics, "queue_requests", model="m") != 3:  # noqa: ASYNC110 - it is other threads that decode
        await asyncio.sleep(0)
    gate.open()
    assert [answer.batch_size for answer in await asyncio.gather(first, *rest)] == [1, 3, 3, 3]


async def test_timings_say_where_the_time_went(make: Make) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()

    def decode(data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
        clock.now += 0.5
        return first_byte(data, preprocess, limits)

    class Timed(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> list[Output]:
            clock.now += 2.0
            return list(super().run(batch, prepared))

    service = make(served(backend=Timed), decode=decode, clock=clock)
    await service.start()
    timing = (await service.classify(b"x", InferenceOptions())).timing_ms
    assert (timing.decode, timing.queue, timing.inference, timing.total) == (500, 0, 2000, 2500)


@pytest.mark.parametrize("stage", ["decode", "queue", "inference", "total"])
async def test_each_stage_is_observed_once(service: LocalService, metrics: Metrics, stage: str) -> None:
    await service.classify(b"x", InferenceOptions())
    assert sample(metrics, "request_duration_seconds_count", model="m", stage=stage) == 1


async def test_an_answer_is_counted_once(service: LocalService, metrics: Metrics) -> None:
    await service.classify(b"x", InferenceOptions())
    assert counted(metrics, "ok") == 1


async def test_an_answer_is_no_rejection(service: LocalService, metrics: Metrics) -> None:
    await service.classify(b"x", InferenceOptions())
    assert not [family.samples for family in metrics.rejected.collect() if family.samples]


@pytest.mark.parametrize("ask", ["classify", "infer"])
async def test_a_model_without_classes_is_served_and_refuses_to_classify(make: Make, ask: str) -> None:
    service = make(served("tower", classes=0))
    await service.start()
    assert service.model("tower").labels == ()
    with pytest.raises(
        ModelHasNoClasses, match=r"tower has no classes: its output is an embedding"
    ) as caught:
        await getattr(service, ask)(b"a", InferenceOptions())
    assert (caught.value.status, "/embed" in caught.value.detail) == (422, True)


async def test_an_unknown_model_is_refused_by_name(service: LocalService) -> None:
    with pytest.raises(ModelNotFound, match="'other' is served; there are: m"):
        await service.classify(b"x", InferenceOptions(model="other"))


async def test_a_made_up_model_makes_no_label(service: LocalService, metrics: Metrics) -> None:
    with pytest.raises(ModelNotFound):
        await service.classify(b"x", InferenceOptions(model="other"))
    assert counted(metrics, "model_not_found", model="unknown") == 1


async def test_options_are_validated(service: LocalService) -> None:
    with pytest.raises(InvalidParameter, match="top_k"):
        await service.classify(b"x", InferenceOptions(top_k=11))


async def test_the_named_model_answers(make: Make) -> None:
    service = make(served("a"), served("b"))
    await service.start()
    assert (await service.classify(b"x", InferenceOptions(model="b"))).model == "b"


async def test_the_first_model_is_the_default(make: Make) -> None:
    service = make(served("a"), served("b"))
    await service.start()
    assert (await service.classify(b"x", InferenceOptions())).model == "a"


async def test_what_cannot_be_decoded_is_refused_and_counted(make: Make, metrics: Metrics) -> None:
    def broken(*_: Any) -> np.ndarray:
        raise ImageUndecodable("not an image")

    service = make(decode=broken)
    await service.start()
    with pytest.raises(ImageUndecodable):
        await service.classify(b"x", InferenceOptions())
    assert (counted(metrics, "image_undecodable"), rejected(metrics, "image_undecodable")) == (1, 1)


async def test_a_decoder_that_fails_by_itself_is_counted(make: Make, metrics: Metrics) -> None:
    def broken(*_: Any) -> np.ndarray:
        raise ZeroDivisionError

    service = make(decode=broken)
    await service.start()
    with pytest.raises(ZeroDivisionError):
        await service.classify(b"x", InferenceOptions())
    assert counted(metrics, "internal_error") == 1


async def test_images_in_decoding_take_places(make: Make, slow: Slow, metrics: Metrics) -> None:
    service = make(decode=slow, limits=Limits(max_queue_requests=1))
    await service.start()
    first = asyncio.create_task(service.classify(b"x", InferenceOptions()))
    await slow.gate.arrived(1)
    with pytest.raises(Overloaded):
        await service.classify(b"y", InferenceOptions())
    slow.gate.open()
    await first
    assert rejected(metrics, "overloaded") == 1


async def test_images_are_decoded_in_so_many_threads(make: Make, slow: Slow) -> None:
    service = make(decode=slow, decode_threads=2)
    await service.start()
    tasks = [asyncio.create_task(service.classify(b"x", InferenceOptions())) for _ in range(6)]
    await slow.gate.arrived(2)
    slow.gate.open()
    await asyncio.gather(*tasks)
    assert slow.threads <= {"prunepool-decode_0", "prunepool-decode_1"}


async def test_a_deadline_ends_the_wait_for_decoding(make: Make, slow: Slow) -> None:
    service = make(decode=slow)
    await service.start()
    with pytest.raises(DeadlineExceeded, match="1 ms came before the image was decoded"):
        await service.classify(b"x", InferenceOptions(deadline_ms=1))
    slow.gate.open()


async def test_a_deadline_that_came_during_decoding_keeps_the_image_from_the_device(
    make: Make, metrics: Metrics
) -> None:
    now = [0.0]

    def decode(data: bytes, preprocess: Preprocess, limits: ImageLimits) -> np.ndarray:
        now[0] += 0.5
        return first_byte(data, preprocess, limits)

    service = make(decode=decode, clock=lambda: now[0])
    await service.start()
    with pytest.raises(DeadlineExceeded):
        await service.classify(b"x", InferenceOptions(deadline_ms=500))
    assert (counted(metrics, "deadline_exceeded"), rejected(metrics, "deadline_exceeded")) == (1, 1)


async def test_a_caller_that_left_is_counted_as_such(make: Make, slow: Slow, metrics: Metrics) -> None:
    service = make(decode=slow)
    await service.start()
    task = asyncio.create_task(service.classify(b"x", InferenceOptions()))
    await slow.gate.arrived(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    slow.gate.open()
    assert counted(metrics, "cancelled") == 1


async def test_an_image_whose_caller_left_before_its_turn_is_not_decoded(make: Make, slow: Slow) -> None:
    service = make(decode=slow, decode_threads=1)
    await service.start()
    first, gone, last = (asyncio.create_task(service.classify(b"x", InferenceOptions())) for _ in range(3))
    await slow.gate.arrived(1)
    gone.cancel()
    await asyncio.wait([gone])
    slow.gate.open()
    await asyncio.gather(first, last)
    assert slow.gate.arrivals == 2


async def test_an_answer_that_is_not_finite_is_an_error(make: Make, metrics: Metrics) -> None:
    class Broken(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> list[Output]:
            outcomes = super().run(batch, prepared)
            for outcome in outcomes:
                outcome.logits[0] = np.nan
            return list(outcomes)

    service = make(served(backend=Broken))
    await service.start()
    with pytest.raises(PrunepoolError, match="not finite"):
        await service.classify(b"x", InferenceOptions())
    assert (counted(metrics, "internal_error"), rejected(metrics, "internal_error")) == (1, None)


async def test_an_image_that_the_engine_died_of_is_no_rejection(make: Make, metrics: Metrics) -> None:
    deadly = served(backend=lambda: FakeBackend(fail=lambda batch: RuntimeError("boom")))
    service = make(deadly)
    await service.start()
    with pytest.raises(EngineUnavailable):
        await service.classify(b"x", InferenceOptions())
    assert (counted(metrics, "engine_unavailable"), rejected(metrics, "engine_unavailable")) == (1, None)


async def test_before_the_start_nothing_can_be_asked(make: Make) -> None:
    with pytest.raises(EngineUnavailable):
        await make().classify(b"x", InferenceOptions())


async def test_readiness_says_what_is_missing(make: Make) -> None:
    assert make().readiness().missing == ("m: the engine is not started",)


async def test_it_is_ready_after_the_start(service: LocalService) -> None:
    assert service.readiness().ready


async def test_a_model_is_ready_after_the_start(make: Make) -> None:
    service = make()
    before = service.model("m").ready
    await service.start()
    assert (before, service.model("m").ready) == (False, True)


async def test_all_models_are_listed(make: Make) -> None:
    assert [info.name for info in make(served("a"), served("b")).models()] == ["a", "b"]


async def test_a_start_that_fails_raises_why(make: Make) -> None:
    service = make(served("a", lambda: FakeBackend(warm_up_error=OSError("no weights"))), served("b"))
    with pytest.raises(OSError, match="no weights"):
        await service.start()


async def test_a_start_that_is_given_up_leaves_no_device_behind(make: Make) -> None:
    made: list[FakeBackend] = []
    warming, over = threading.Event(), threading.Event()

    class Slow(FakeBackend):
        def warm_up(self) -> None:
            warming.set()
            over.wait(20.0)

    good = served("a", lambda: made.append(FakeBackend()) or made[0])
    starting = asyncio.create_task(make(good, served("b", Slow)).start())
    await asyncio.to_thread(warming.wait, 20.0)
    starting.cancel()
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert made[0].closed


async def test_who_comes_while_draining_is_refused(service: LocalService) -> None:
    service.begin_drain()
    with pytest.raises(Draining):
        await service.classify(b"x", InferenceOptions())


async def test_a_draining_engine_is_not_ready(service: LocalService) -> None:
    service.begin_drain()
    assert service.readiness().missing == ("m: draining",)


async def test_who_is_decoding_when_draining_begins_is_answered(make: Make, slow: Slow) -> None:
    service = make(decode=slow)
    await service.start()
    task = asyncio.create_task(service.classify(bytes([3]), InferenceOptions()))
    await slow.gate.arrived(1)
    closing = asyncio.create_task(service.close(30.0))
    await asyncio.sleep(0)
    slow.gate.open()
    assert await closing
    assert (await task).predictions[0].index == 3


async def test_closing_says_if_somebody_was_left_unanswered(make: Make, slow: Slow) -> None:
    service = make(decode=slow)
    await service.start()
    task = asyncio.create_task(service.classify(b"x", InferenceOptions()))
    await slow.gate.arrived(1)
    answered = await service.close(0.0)
    slow.gate.open()
    with pytest.raises(Draining):
        await task
    assert not answered


async def test_closing_leaves_no_thread_behind(make: Make) -> None:
    service = make()
    before = set(threading.enumerate())
    await service.start()
    await service.classify(b"x", InferenceOptions())
    mine = set(threading.enumerate()) - before
    await service.close(1.0)
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


async def test_closing_twice_is_as_good_as_once(service: LocalService) -> None:
    assert [await service.close(1.0), await service.close(1.0)] == [True, True]


async def test_a_real_image_goes_all_the_way(metrics: Metrics) -> None:
    photo = io.BytesIO()
    Image.new("RGB", (40, 30), (6, 6, 6)).save(photo, "PNG")
    service = LocalService([served()], metrics=metrics)
    await service.start()
    answer = await service.classify(photo.getvalue(), InferenceOptions())
    await service.close(1.0)
    assert answer.predictions[0].index == 6


async def test_a_policy_of_ones_own_decides(metrics: Metrics) -> None:
    class Fixed:
        def plan(self, load: Any) -> Any:
            return lambda request: RatioChoice(0.75, "auto:load")

        def charge(self, requests: Any, predictor: Any) -> None:
            pass

        def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
            return 0.75

    service = LocalService([served()], metrics=metrics, decode=first_byte, policy=lambda info: Fixed())
    await service.start()
    answer = await service.classify(b"x", InferenceOptions())
    await service.close(1.0)
    assert (answer.reduction.applied, answer.reduction.reason) == (0.75, "auto:load")


def tensor(value: float, *, size: int = 4, dtype: type = np.float32) -> np.ndarray:
    """What a caller may have normalised; `FakeBackend` sees its first number."""
    return np.full((3, size, size), value, dtype)


async def test_a_tensor_gets_its_own_logits(service: LocalService) -> None:
    assert (await service.infer(tensor(7), InferenceOptions())).logits.argmax() == 7


async def test_encoded_bytes_get_their_logits(service: LocalService) -> None:
    answer = await service.infer(bytes([7]), InferenceOptions(reduction_ratio=0.5))
    assert answer.logits.dtype == np.float32
    assert (answer.logits.argmax(), answer.reduction.applied, answer.model) == (7, 0.5, "m")


async def test_a_tensor_and_a_photo_share_a_batch(make: Make, metrics: Metrics) -> None:
    gate = Gate(is_open=False)
    service = make(served(backend=lambda: FakeBackend(gate=gate)))
    await service.start()
    first = asyncio.create_task(service.infer(b"a", InferenceOptions()))
    await gate.arrived(1)
    rest = [
        asyncio.create_task(service.infer(image, InferenceOptions())) for image in (tensor(3), bytes([4]))
    ]
    while sample(metrics, "queue_requests", model="m") != 2:  # noqa: ASYNC110 - it is another thread that decodes
        await asyncio.sleep(0)
    gate.open()
    alone, one, other = await asyncio.gather(first, *rest)
    assert (one.logits.argmax(), other.logits.argmax()) == (3, 4)
    assert one.batch == other.batch != alone.batch


@pytest.mark.parametrize(
    "image",
    [
        tensor(0, size=5),
        tensor(0)[:2],
        tensor(0)[None],
        tensor(0).reshape(4, 4, 3),
        tensor(0, dtype=np.float64),
        tensor(0, dtype=np.uint8),
        tensor(np.nan),
        tensor(-np.inf),
        tensor(3e38),
        tensor(-1001),
    ],
    ids=lambda image: f"{image.dtype} {image.shape} {image.flat[0]}",
)
async def test_a_tensor_that_the_model_cannot_take_is_refused_and_counted(
    service: LocalService, metrics: Metrics, image: np.ndarray
) -> None:
    with pytest.raises(InvalidParameter, match="image must be"):
        await service.infer(image, InferenceOptions())
    assert (counted(metrics, "invalid_parameter"), rejected(metrics, "invalid_parameter")) == (1, 1)


async def test_one_number_that_is_not_finite_spoils_a_tensor(service: LocalService) -> None:
    image = tensor(0)
    image[1, 2, 3] = np.inf
    with pytest.raises(
        InvalidParameter, match="image must be made of normalised numbers, from -1000 to 1000; got 'inf'"
    ):
        await service.infer(image, InferenceOptions())


async def test_options_of_an_inference_are_validated(service: LocalService) -> None:
    with pytest.raises(InvalidParameter, match="reduction_ratio"):
        await service.infer(tensor(0), InferenceOptions(reduction_ratio=0.9))


async def test_an_inference_is_counted_once(service: LocalService, metrics: Metrics) -> None:
    await service.infer(tensor(0), InferenceOptions())
    assert counted(metrics, "ok") == 1


async def test_logits_that_are_not_finite_are_an_error(make: Make) -> None:
    class Broken(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> list[Output]:
            outcomes = super().run(batch, prepared)
            for outcome in outcomes:
                outcome.logits[0] = np.nan
            return list(outcomes)

    service = make(served(backend=Broken))
    await service.start()
    with pytest.raises(PrunepoolError, match="not finite"):
        await service.infer(tensor(0), InferenceOptions())


@pytest.mark.parametrize(("device", "batches"), [("cpu", [1, 8, 4]), ("cuda:0", [1, 12])])
async def test_only_on_a_cpu_batches_stop_growing_where_it_does_not_pay(
    make: Make, device: str, batches: list[int]
) -> None:
    gate = Gate(is_open=False)
    backend = FakeBackend(gate=gate)
    # Time stands still: no run is timed, as on a processor that is too slow for it.
    service = make(
        served(backend=lambda: backend, device=device),
        clock=lambda: 0.0,
        limits=Limits(max_batch_size=32, max_queue_s=10.0),
    )
    await service.start()
    tensor = np.zeros((3, 4, 4), np.float32)  # so that no other thread, decoding, says when it waits
    tasks = [asyncio.create_task(service.infer(tensor, InferenceOptions()))]
    await gate.arrived(1)
    tasks += [asyncio.create_task(service.infer(tensor, InferenceOptions())) for _ in range(12)]
    for _ in range(20):
        await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(*tasks)
    assert [len(batch.items) for batch in backend.batches] == batches


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
async def test_models_on_one_device_reckon_with_each_others_work(make: Make, device: str) -> None:
    """A dense image takes 1 s; the other model has one on the device, so an answer within 1.5 s cannot be had."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, gate = Clock(), Gate()

    class Timed(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> list[Output]:
            outputs = list(super().run(batch, prepared))
            clock.now += 1.0
            return outputs

    service = make(
        served("a", backend=lambda: Timed(gate=gate), device=device),
        served("b", backend=Timed, device=device),
        clock=clock,
        limits=Limits(max_batch_size=1, max_queue_s=100.0),
    )
    await service.start()
    hurried = InferenceOptions(model="b", reduction_ratio=0.0, deadline_ms=1500)
    assert (await service.infer(tensor(0), hurried)).model == "b"
    gate.close()
    busy = asyncio.create_task(service.infer(tensor(0), InferenceOptions(model="a", reduction_ratio=0.0)))
    await gate.arrived(1)
    with pytest.raises(DeadlineExceeded, match="would take 2000 ms"):
        await service.infer(tensor(0), hurried)
    gate.open()
    await busy


async def test_a_request_that_was_accepted_is_answered_though_its_model_is_replaced_as_the_drain_begins(
    make: Make, slow: Slow
) -> None:
    service = make(served(), decode=slow)
    await service.start()
    task = asyncio.create_task(service.classify(bytes([7]), InferenceOptions()))
    await slow.gate.arrived(1)
    replacing = asyncio.create_task(service.load(replace(served(), generation="2")))
    await asyncio.sleep(0)
    service.begin_drain()
    slow.gate.open()
    assert (await task).predictions[0].index == 7
    with suppress(Draining):
        await replacing
