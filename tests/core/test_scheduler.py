from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from prunepool.core.ratio_policy import LoadSnapshot, RatioChoice
from prunepool.core.types import Batch, Limits, Output, RatioSpec, Request
from prunepool.errors import (
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    ModelReplaced,
    Overloaded,
    PrunepoolError,
)
from prunepool.testing import FakeBackend, Gate

DENSE = RatioSpec(0.0, 0.0)
Tasks = list[asyncio.Task[Any]]
Top = Callable[[asyncio.Task[Any]], int]


class Timed(FakeBackend):
    """Every batch takes two seconds a GMAC of the test's time."""

    clock: Any

    def run(self, batch: Batch, prepared: object) -> list[Output]:
        outputs = list(super().run(batch, prepared))
        self.clock.now += 2 * sum(output.gmacs for output in outputs)
        return outputs


async def answers(tasks: Tasks) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def busy(rig: Any, scheduler: Any, value: int = 200) -> Tasks:
    """Occupy the device with one image until the gate opens."""
    rig.gate.close()
    tasks: Tasks = await rig.submit(scheduler, value)
    await rig.gate.arrived(1)
    return tasks


async def test_the_neighbours_of_a_client_that_left_get_their_answers(rig: Any, top: Top) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    tasks = await rig.submit(scheduler, 1, 2, 3)
    tasks[1].cancel()
    rig.gate.open()
    await answers(tasks)
    assert [top(tasks[0]), top(tasks[2])] == [1, 3]


async def test_a_client_that_left_the_queue_never_reaches_the_device(rig: Any) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    tasks = await rig.submit(scheduler, 1, 2, 3)
    tasks[1].cancel()
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[200], [1, 3]]


async def test_a_client_that_leaves_in_the_turn_in_which_its_batch_is_formed_is_left_out(rig: Any) -> None:
    scheduler = await rig.start()
    tasks = [asyncio.create_task(scheduler.submit(rig.request(value))) for value in (1, 2)]
    asyncio.get_running_loop().call_soon(
        tasks[0].cancel
    )  # runs after both came in, before the batch is formed
    await answers(tasks)
    assert rig.ran == [[2]]


async def test_a_client_that_leaves_while_its_batch_runs_harms_no_neighbour(rig: Any, top: Top) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    tasks = await rig.submit(scheduler, 1, 2)
    await rig.gate.arrived(1)
    tasks[0].cancel()
    rig.gate.open()
    await answers(tasks)
    assert top(tasks[1]) == 2


async def test_a_client_that_left_gives_its_place_back(rig: Any, top: Top) -> None:
    scheduler = await rig.start(limits=Limits(max_queue_requests=2))
    await busy(rig, scheduler)
    (gone,) = await rig.submit(scheduler, 1)
    gone.cancel()
    await answers([gone])
    (task,) = await rig.submit(scheduler, 2)
    rig.gate.open()
    await task
    assert top(task) == 2


async def test_each_request_gets_its_own_answer(rig: Any, top: Top) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=3))
    tasks = []
    for value in range(20):
        tasks += await rig.submit(scheduler, value, ratio=(value % 3) / 4)
    await answers(tasks)
    assert [top(task) for task in tasks] == list(range(20))


async def test_an_idle_device_takes_one_image_at_once(rig: Any) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)  # although nothing else ever comes, and no time passes
    assert rig.ran == [[1]]


async def test_requests_collect_while_the_device_runs(rig: Any) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    tasks = await rig.submit(scheduler, 1) + await rig.submit(scheduler, 2)
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[200], [1, 2]]


async def test_what_comes_in_one_turn_of_the_loop_is_one_batch(rig: Any) -> None:
    scheduler = await rig.start()
    await answers(await rig.submit(scheduler, 1, 2, 3))
    assert rig.ran == [[1, 2, 3]]


async def test_a_full_batch_is_given_ahead_while_another_runs(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=2))
    await busy(rig, scheduler)
    await rig.submit(scheduler, 1, 2)
    assert rig.sample("queue_requests") == 0


@pytest.mark.parametrize(("run_s", "sizes"), [(0.0, [8, 8, 4]), (0.05, [20])])
async def test_a_crowd_makes_batches_of_the_size_that_pays(rig: Any, run_s: float, sizes: list[int]) -> None:
    class Paced(FakeBackend):
        """A hundredth of a second for an image, besides what any run takes."""

        def run(self, batch: Batch, prepared: object) -> list[Output]:
            rig.clock.now += run_s + 0.01 * len(batch.items)
            return list(super().run(batch, prepared))

    limits = Limits(max_batch_size=32, max_queue_s=1000.0, only_what_pays=True)
    scheduler = await rig.start({"make": Paced}, limits=limits)
    await answers(await rig.submit(scheduler, *range(20)))
    assert [len(batch) for batch in rig.ran] == sizes


async def test_a_partial_batch_stays_open_to_latecomers(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=2))
    await busy(rig, scheduler)
    await rig.submit(scheduler, 1, 2)
    tasks = await rig.submit(scheduler, 3)
    tasks += await rig.submit(scheduler, 4)
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[200], [1, 2], [3, 4]]


async def test_no_more_than_one_batch_is_given_ahead(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=2))
    await busy(rig, scheduler)
    await rig.submit(scheduler, 1, 2, 3, 4)
    assert rig.sample("queue_requests") == 2


async def test_an_idle_device_waits_for_the_batching_window(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_wait_s=0.5))
    tasks = await rig.submit(scheduler, 1)
    await rig.clock.advance(0.499)
    tasks += await rig.submit(scheduler, 2)
    await rig.clock.advance(0.001)
    await answers(tasks)
    assert rig.ran == [[1, 2]]


async def test_the_batching_window_ends_on_time(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_wait_s=0.5))
    rig.gate.close()
    await rig.submit(scheduler, 1)
    await rig.clock.advance(0.5)
    await rig.gate.arrived(1)
    assert rig.ran == [[1]]


async def test_the_ratio_of_auto_is_decided_when_the_batch_is_formed(rig: Any) -> None:
    class Late:
        now = 0.25

        def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
            return lambda request: RatioChoice(self.now, "auto:load")

        def charge(self, requests: Any, predictor: Any) -> None:
            pass

        def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
            return self.now

    policy = Late()
    scheduler = await rig.start(policy=policy)
    await busy(rig, scheduler)
    (task,) = await rig.submit(scheduler, 1, ratio=None)
    policy.now = 0.75
    rig.gate.open()
    assert (await task).ratio == 0.75


async def test_a_policy_sees_what_waits_and_what_runs(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Witness:
        seen: list[tuple[int, int, float]] = []  # noqa: RUF012

        def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
            self.seen.append((len(load.waiting), sum(load.ratio_specs.values()), load.busy_s))
            return lambda request: RatioChoice(0.0, "requested")

        def charge(self, requests: Any, predictor: Any) -> None:
            pass

        def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
            return 0.0

    monkeypatch.setattr(Timed, "clock", rig.clock, raising=False)
    scheduler = await rig.start({"make": Timed}, policy=Witness(), limits=Limits(max_batch_size=2))
    await busy(rig, scheduler)
    await rig.submit(scheduler, 1, 2, 3)
    assert Witness.seen == [(1, 1, 0.0), (3, 3, 2.0)]


async def test_a_full_queue_refuses(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_queue_requests=2))
    await busy(rig, scheduler)
    await rig.submit(scheduler, 1)
    with pytest.raises(Overloaded, match="2 is the limit"):
        await scheduler.submit(rig.request(2))


async def test_the_refused_are_told_the_predicted_drain_before_any_batch_was_run(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timed, "clock", rig.clock, raising=False)
    scheduler = await rig.start({"make": Timed}, limits=Limits(max_queue_requests=3))
    await busy(rig, scheduler)
    await rig.submit(scheduler, 1, 2, ratio=0.5)
    with pytest.raises(Overloaded) as refusal:
        await scheduler.submit(rig.request(3))
    assert refusal.value.retry_after == pytest.approx(2 * (1.0 + 0.75 + 0.75))


async def test_the_deadline_of_who_waits_is_kept_to_the_moment(rig: Any) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    (task,) = await rig.submit(scheduler, 1, within=0.5)
    await rig.clock.advance(0.499)
    before = task.done()
    await rig.clock.advance(0.001)
    assert (before, task.done()) == (False, True)


async def test_who_expires_is_told_the_deadline_and_the_wait(rig: Any) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    (task,) = await rig.submit(scheduler, 1, within=0.5)
    await rig.clock.stand_still(0.625)
    with pytest.raises(DeadlineExceeded, match=r"500 ms.*625 ms"):
        await task


async def test_the_expired_never_reach_the_device(rig: Any) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    tasks = await rig.submit(scheduler, 1, within=0.5) + await rig.submit(scheduler, 2)
    await rig.clock.advance(0.5)
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[200], [2]]


async def test_what_expires_in_a_batch_given_ahead_does_not_reach_the_device(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=2))
    await busy(rig, scheduler)
    tasks = await rig.submit(scheduler, 1, within=0.5) + await rig.submit(scheduler, 2)
    await rig.clock.advance(0.5)
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[200], [2]]


async def test_who_expires_in_a_batch_given_ahead_is_told(rig: Any) -> None:
    scheduler = await rig.start(limits=Limits(max_batch_size=2))
    await busy(rig, scheduler)
    (task, _) = await rig.submit(scheduler, 1, 2, within=0.5)
    await rig.clock.advance(0.5)
    rig.gate.open()
    with pytest.raises(DeadlineExceeded):
        await task


async def test_an_answer_that_was_on_the_device_in_time_is_given_however_late(rig: Any, top: Top) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    (task,) = await rig.submit(scheduler, 1, within=0.5)
    await rig.gate.arrived(1)
    await rig.clock.advance(9.0)
    rig.gate.open()
    await task
    assert top(task) == 1


async def test_a_deadline_that_has_passed_is_refused(rig: Any) -> None:
    scheduler = await rig.start()
    with pytest.raises(DeadlineExceeded):
        await scheduler.submit(rig.request(1, within=0.0))


async def test_a_completion_says_how_it_was_computed(rig: Any) -> None:
    scheduler = await rig.start()
    await busy(rig, scheduler)
    task, _ = await rig.submit(scheduler, 1, 2, ratio=None)
    await rig.clock.advance(0.5)
    rig.gate.let()  # the one before
    await rig.gate.arrived(2)
    await rig.clock.advance(0.25)
    rig.gate.open()
    done = await task
    assert (done.ratio, done.reason, done.batch_size) == (0.5, "auto:default", 2)
    assert (done.queue_s, done.inference_s) == (0.5, 0.25)


async def test_before_the_start_there_is_no_engine(rig: Any) -> None:
    with pytest.raises(EngineUnavailable, match="not started"):
        await rig.make().submit(rig.request())


async def test_it_is_ready_once_started(rig: Any) -> None:
    scheduler = rig.make()
    before = scheduler.ready
    await scheduler.start()
    assert (before, scheduler.ready) == (False, True)


async def test_a_draining_scheduler_refuses(rig: Any) -> None:
    scheduler = await rig.start()
    scheduler.begin_drain()
    with pytest.raises(Draining):
        await scheduler.submit(rig.request())


async def test_a_draining_scheduler_is_not_ready(rig: Any) -> None:
    scheduler = await rig.start()
    scheduler.begin_drain()
    assert scheduler.missing == "m: draining"


async def test_who_has_a_place_when_draining_begins_is_answered(rig: Any) -> None:
    scheduler = await rig.start()
    with scheduler.accept(DENSE) as hold:
        scheduler.begin_drain()
        done = await scheduler.answer(rig.request(7), hold)
    assert done.output.logits.argmax() == 7


async def test_closing_answers_all_that_wait(rig: Any, top: Top) -> None:
    scheduler = await rig.start()
    tasks = await busy(rig, scheduler)
    tasks += await rig.submit(scheduler, 1, 2)
    closing = asyncio.create_task(scheduler.close(30.0))
    rig.gate.open()
    assert await closing
    await answers(tasks)
    assert [top(task) for task in tasks] == [200, 1, 2]


async def test_closing_waits_for_those_who_still_decode(rig: Any) -> None:
    scheduler = await rig.start()
    with scheduler.accept(DENSE) as hold:
        closing = asyncio.create_task(scheduler.close(30.0))
        await rig.clock.advance(29.0)
        await scheduler.answer(rig.request(), hold)
    assert await closing


async def test_closing_gives_up_after_its_time(rig: Any) -> None:
    scheduler = await rig.start(stop_timeout_s=1.0)
    await busy(rig, scheduler)
    closing = asyncio.create_task(scheduler.close(30.0))
    await rig.clock.advance(0.0)
    await rig.clock.advance(30.0)
    rig.gate.open()
    assert not await closing


async def test_who_is_not_answered_in_time_is_told_that_the_server_stops(rig: Any) -> None:
    scheduler = await rig.start()
    tasks = await busy(rig, scheduler)
    tasks += await rig.submit(scheduler, 1)
    closing = asyncio.create_task(scheduler.close(0.0))
    found = await answers(tasks)
    rig.gate.open()
    await closing
    assert [type(one) for one in found] == [Draining, Draining]


async def test_an_engine_that_hangs_does_not_keep_closing_from_an_end(rig: Any) -> None:
    scheduler = await rig.start(stop_timeout_s=1.0)
    await busy(rig, scheduler)
    closing = asyncio.create_task(scheduler.close(0.0))
    for _ in range(3):
        await rig.clock.advance(1.0)
    assert not await closing


async def test_closing_twice_gives_the_same_answer(rig: Any) -> None:
    scheduler = await rig.start()
    assert [await scheduler.close(1.0), await scheduler.close(1.0)] == [True, True]


async def test_a_scheduler_that_was_never_started_can_be_closed(rig: Any) -> None:
    assert await rig.make().close(1.0)


async def test_closing_while_starting_ends_the_start(rig: Any) -> None:
    warm = Gate(is_open=False)

    class Slow(FakeBackend):
        def warm_up(self) -> None:
            warm.pass_through()

    scheduler = rig.make({"make": Slow})
    starting = asyncio.create_task(scheduler.start())
    await warm.arrived(1)
    closing = asyncio.create_task(scheduler.close(0.0))
    await rig.clock.advance(0.0)
    warm.open()
    await closing
    with pytest.raises(RuntimeError, match="stopped while it was starting"):
        await starting


async def test_no_thread_is_left_after_closing(rig: Any) -> None:
    before = {thread for thread in threading.enumerate() if thread.name.startswith("prunepool")}
    scheduler = await rig.start()
    await answers(await rig.submit(scheduler, 1))
    await scheduler.close(1.0)
    assert {thread for thread in threading.enumerate() if thread.name.startswith("prunepool")} == before


async def test_closing_frees_the_device(rig: Any) -> None:
    scheduler = await rig.start()
    await scheduler.close(1.0)
    assert rig.backends[0].closed


async def test_a_closed_scheduler_refuses(rig: Any) -> None:
    scheduler = await rig.start()
    with scheduler.accept(DENSE) as hold:
        await scheduler.close(0.0)
        with pytest.raises(Draining):
            await scheduler.answer(rig.request(), hold)


async def test_a_policy_that_fails_leaves_nobody_waiting(rig: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def plan(self, load: LoadSnapshot) -> Callable[[Request], RatioChoice]:
            raise ZeroDivisionError

        def charge(self, requests: Any, predictor: Any) -> None:
            pass

        def forecast(self, ratio_spec: RatioSpec, now: float) -> float:
            return 0.0

    scheduler = await rig.start(policy=Broken())
    found = await answers(await rig.submit(scheduler, 1, 2))
    assert [type(one) for one in found] == [PrunepoolError, PrunepoolError]


async def test_a_second_close_shortens_the_first(rig: Any) -> None:
    scheduler = await rig.start()
    rig.gate.close()
    (task,) = await rig.submit(scheduler, 1)
    patient = asyncio.create_task(scheduler.close(30.0))
    await rig.clock.advance(1.0)
    hasty = asyncio.create_task(scheduler.close(2.0))
    await asyncio.sleep(0)
    await rig.clock.advance(2.0)
    assert (task.done(), isinstance(task.exception(), Draining)) == (True, True)
    rig.gate.open()
    assert (await patient, await hasty) == (False, False)


async def test_a_retired_scheduler_says_that_its_model_was_replaced(rig: Any) -> None:
    scheduler = await rig.start()
    with scheduler.accept(DENSE) as hold:
        scheduler.retire()
        await scheduler.close(0.0)
        with pytest.raises(ModelReplaced):
            await scheduler.answer(rig.request(), hold)
    with pytest.raises(ModelReplaced):
        scheduler.accept(DENSE)
