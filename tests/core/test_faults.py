"""The scheduler over engines that fail to start, die, hang, or run out of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from prunepool.core.backend import OutOfMemory
from prunepool.core.ratio_policy import DefaultRatio, LoadSnapshot
from prunepool.core.types import Batch, Limits, Output, RatioSpec
from prunepool.core.worker import Worker
from prunepool.errors import DeadlineExceeded, EngineUnavailable, PrunepoolError
from prunepool.testing import FakeBackend, Gate

Tasks = list[asyncio.Task[Any]]
Top = Callable[[asyncio.Task[Any]], int]
Until = Callable[[Callable[[], bool]], Any]


async def answers(tasks: Tasks) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def poison(value: int) -> Callable[[Batch], BaseException | None]:
    """Kills the engine when the image of this value is in the batch."""

    def fail(batch: Batch) -> BaseException | None:
        hit = any(int(item.request.pixels.flat[0]) == value for item in batch.items)
        return RuntimeError(f"image {value} kills") if hit else None

    return fail


DIES = {"fail": lambda batch: RuntimeError("boom")}


async def down(rig: Any, until: Until, *plans: dict[str, Any], **options: Any) -> tuple[Any, Tasks]:
    """A scheduler whose engine has just died with image 1 on it, and comes back in 2 seconds."""
    scheduler = await rig.start(DIES, *plans, first_delay_s=2.0, **options)
    tasks = await rig.submit(scheduler, 1)
    await until(lambda: not scheduler.ready)
    return scheduler, tasks


async def test_the_first_start_raises_what_the_factory_raised(rig: Any) -> None:
    error = OSError("no weights")
    with pytest.raises(OSError, match="no weights") as raised:
        await rig.start({"error": error})
    assert raised.value is error


async def test_the_first_start_raises_what_the_warm_up_raised(rig: Any) -> None:
    with pytest.raises(ValueError, match="cold"):
        await rig.start({"warm_up_error": ValueError("cold")})


async def test_the_first_start_fails_if_a_single_image_does_not_fit(rig: Any) -> None:
    class Tiny(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> list[Output]:
            raise OutOfMemory("no room at all")

    with pytest.raises(Exception, match="no room for a single image"):
        await rig.start({"make": Tiny})


async def test_an_exit_in_the_engine_does_not_exit_the_server(rig: Any) -> None:
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await rig.start({"warm_up_error": SystemExit(3)})


async def test_a_first_start_that_fails_is_not_tried_again(rig: Any) -> None:
    scheduler = rig.make({"warm_up_error": ValueError("cold")})
    await answers([asyncio.create_task(scheduler.start())])
    await rig.clock.advance(1e6)
    assert len(rig.backends) == 1


async def test_readiness_says_why_the_first_start_failed(rig: Any) -> None:
    scheduler = rig.make({"warm_up_error": ValueError("cold")})
    await answers([asyncio.create_task(scheduler.start())])
    assert scheduler.missing == "m: the engine is failed, after ValueError: cold"


async def test_a_start_that_hangs_fails(rig: Any) -> None:
    gate = Gate(is_open=False)

    class Stuck(FakeBackend):
        def warm_up(self) -> None:
            gate.pass_through()

    starting = asyncio.create_task(rig.start({"make": Stuck}, start_timeout_s=60.0))
    await gate.arrived(1)
    await rig.clock.advance(60.0)
    gate.open()
    with pytest.raises(TimeoutError, match="not warm within 60 s"):
        await starting


async def test_the_batch_of_an_engine_that_died_is_answered_by_the_next(rig: Any, top: Top) -> None:
    scheduler = await rig.start(DIES)
    tasks = await rig.submit(scheduler, 1, 2)
    await answers(tasks)
    assert [top(task) for task in tasks] == [1, 2]


async def test_what_waited_while_the_engine_died_is_answered_by_the_next(rig: Any, top: Top) -> None:
    scheduler = await rig.start(DIES)
    rig.gate.close()
    await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)
    tasks = await rig.submit(scheduler, 2)
    rig.gate.open()
    await answers(tasks)
    assert top(tasks[0]) == 2


async def test_an_engine_that_died_was_closed(rig: Any) -> None:
    scheduler = await rig.start(DIES)
    await answers(await rig.submit(scheduler, 1))
    assert rig.backends[0].closed


async def test_an_engine_that_fails_to_close_is_replaced_all_the_same(rig: Any, top: Top) -> None:
    class Clinging(FakeBackend):
        def close(self) -> None:
            raise OSError("the device does not answer")

    scheduler = await rig.start({"make": Clinging, **DIES})
    tasks = await rig.submit(scheduler, 1)
    await answers(tasks)
    assert top(tasks[0]) == 1


async def test_even_an_exit_of_its_thread_is_a_death_like_others(rig: Any, top: Top) -> None:
    scheduler = await rig.start({"fail": lambda batch: SystemExit(1)})
    tasks = await rig.submit(scheduler, 1)
    await answers(tasks)
    assert top(tasks[0]) == 1


async def test_outputs_that_are_too_few_are_a_death(rig: Any) -> None:
    class Forgetful(FakeBackend):
        def run(self, batch: Batch, prepared: object) -> list[Output]:
            return list(super().run(batch, prepared))[: 1 if len(batch.items) == 1 else -1]

    scheduler = await rig.start({"make": Forgetful})
    await answers(await rig.submit(scheduler, 1, 2))
    assert rig.sample("engine_restarts_total") == 1


async def test_a_restart_is_counted_once(rig: Any) -> None:
    scheduler = await rig.start(DIES)
    await answers(await rig.submit(scheduler, 1, 2))
    assert rig.sample("engine_restarts_total") == 1


async def test_the_gauge_falls_with_the_engine(rig: Any, until: Until) -> None:
    before = await rig.start()
    up = rig.sample("engine_up")
    await before.close(0.0)
    await down(rig, until)
    assert (up, rig.sample("engine_up")) == (1, 0)


async def test_the_gauge_rises_with_the_next_engine(rig: Any) -> None:
    scheduler = await rig.start(DIES)
    await answers(await rig.submit(scheduler, 1))
    assert rig.sample("engine_up") == 1


async def test_readiness_says_what_killed_the_engine(rig: Any, until: Until) -> None:
    scheduler, _ = await down(rig, until)
    assert scheduler.missing == "m: the engine is being restarted, after RuntimeError: boom"


async def test_new_requests_are_refused_while_the_engine_is_down(rig: Any, until: Until) -> None:
    scheduler, _ = await down(rig, until)
    with pytest.raises(EngineUnavailable, match="being restarted"):
        await scheduler.submit(rig.request(2))


async def test_callers_are_not_told_what_killed_the_engine(rig: Any, until: Until) -> None:
    scheduler, _ = await down(rig, until)
    with pytest.raises(EngineUnavailable) as refusal:
        await scheduler.submit(rig.request(2))
    assert "boom" not in refusal.value.detail


async def test_the_refused_are_told_when_the_engine_should_be_back(rig: Any, until: Until) -> None:
    class Slow(FakeBackend):
        def warm_up(self) -> None:
            rig.clock.now += 8.0

    scheduler = await rig.start({"make": Slow, **DIES}, first_delay_s=2.0)
    await rig.submit(scheduler, 1)
    await until(lambda: not scheduler.ready)
    await rig.clock.advance(0.5)
    with pytest.raises(EngineUnavailable) as refusal:
        await scheduler.submit(rig.request(2))
    assert refusal.value.retry_after == 1.5 + 8.0


async def test_an_engine_that_is_down_is_back_after_the_pause_not_before(rig: Any, until: Until) -> None:
    await down(rig, until)
    await rig.clock.advance(1.999)
    before = len(rig.backends)
    await rig.clock.advance(0.001)
    await until(lambda: len(rig.backends) == before + 1)
    assert before == 1


async def test_a_restart_for_which_there_is_no_thread_is_tried_again(
    rig: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Worker.start
    refusals = [RuntimeError("can't start new thread")]

    def reluctant(worker: Worker) -> None:
        if refusals:
            raise refusals.pop()
        start(worker)

    scheduler, _ = await down(rig, until)
    monkeypatch.setattr(Worker, "start", reluctant)
    await rig.clock.advance(2.0)
    await rig.clock.advance(4.0)
    await until(lambda: scheduler.ready)
    assert not refusals


async def test_the_pause_doubles_until_its_limit(rig: Any, until: Until) -> None:
    broken = {"warm_up_error": RuntimeError("still broken")}
    scheduler, _ = await down(rig, until, *[broken] * 3, max_delay_s=6.0)
    for number, pause in enumerate((2.0, 4.0, 6.0, 6.0), start=1):
        await rig.clock.advance(pause - 0.001)
        assert len(rig.backends) == number, f"restart {number} came early"
        await rig.clock.advance(0.001)
        await until(lambda number=number: len(rig.backends) == number + 1)
        await until(lambda number=number: scheduler.ready or "being restarted" in scheduler.missing)
    assert scheduler.ready


async def test_two_failed_restarts_in_a_row_are_hopeless_and_said_once(rig: Any, until: Until) -> None:
    """A CUDA error lasts as long as the process: no restart in it can succeed."""
    sticky = {"error": RuntimeError("CUDA error: illegal memory access")}
    said: list[str] = []
    scheduler = rig.make(DIES, *[sticky] * 4)
    scheduler.when_hopeless(said.append)
    await scheduler.start()
    await rig.submit(scheduler, 1)
    await until(lambda: bool(said))
    assert rig.sample("engine_restarts_total") == 2
    await until(lambda: scheduler.ready)
    cause = "RuntimeError: CUDA error: illegal memory access"
    assert said == [f"m: 2 restarts in a row failed, the last with {cause}"]


async def test_restarts_that_fail_with_a_success_between_are_not_hopeless(rig: Any, until: Until) -> None:
    broken = {"error": RuntimeError("not yet")}
    said: list[str] = []
    scheduler = rig.make(DIES, broken, DIES, broken, {"fail": poison(9)}, broken)
    scheduler.when_hopeless(said.append)
    await scheduler.start()
    (first,) = await answers(await rig.submit(scheduler, 1))
    assert isinstance(first, EngineUnavailable)
    await until(lambda: scheduler.ready)
    await answers(await rig.submit(scheduler, 9))
    await until(lambda: scheduler.ready)
    assert rig.sample("engine_restarts_total") == 6
    assert said == []


async def test_a_first_start_that_fails_is_an_error_of_the_caller_and_not_hopeless(rig: Any) -> None:
    said: list[str] = []
    scheduler = rig.make(*[{"warm_up_error": ValueError("cold")}] * 3)
    scheduler.when_hopeless(said.append)
    await answers([asyncio.create_task(scheduler.start())])
    assert said == []


async def test_the_pause_is_short_again_after_a_success(rig: Any, until: Until) -> None:
    dies_of_9 = {"fail": poison(9)}
    scheduler, tasks = await down(rig, until, dies_of_9)
    await rig.clock.advance(2.0)
    await answers(tasks)
    await rig.submit(scheduler, 9)
    await until(lambda: not scheduler.ready)
    await rig.clock.advance(2.0)
    await until(lambda: scheduler.ready)
    assert len(rig.backends) == 3


async def test_the_accepted_wait_for_the_engine_only_so_long(rig: Any, until: Until) -> None:
    _, (task,) = await down(rig, until, grace_period_s=1.0)
    await rig.clock.advance(0.999)
    before = task.done()
    await rig.clock.advance(0.001)
    assert (before, task.done()) == (False, True)


async def test_who_waited_in_vain_is_told_when_to_come_back(rig: Any, until: Until) -> None:
    _, tasks = await down(rig, until, grace_period_s=0.5)
    await rig.clock.advance(0.5)
    (error,) = await answers(tasks)
    assert isinstance(error, EngineUnavailable)
    assert error.retry_after >= 1.5


async def test_an_image_decoded_after_the_grace_period_does_not_wait(rig: Any, until: Until) -> None:
    scheduler = await rig.start(DIES, first_delay_s=2.0, grace_period_s=0.5)
    with scheduler.accept(RatioSpec(0.0, 0.0)) as hold:
        await rig.submit(scheduler, 1)
        await until(lambda: not scheduler.ready)
        await rig.clock.advance(0.5)
        with pytest.raises(EngineUnavailable):
            await scheduler.answer(rig.request(2), hold)


async def test_an_engine_that_comes_back_late_answers_who_comes_then(
    rig: Any, until: Until, top: Top
) -> None:
    scheduler, _ = await down(rig, until, grace_period_s=1.0)
    await rig.clock.advance(1.0)
    await rig.clock.advance(1.0)
    await until(lambda: scheduler.ready)
    (task,) = await rig.submit(scheduler, 2)
    await task
    assert top(task) == 2


async def test_a_success_renews_the_grace_period(rig: Any, until: Until) -> None:
    scheduler, tasks = await down(rig, until, {"fail": poison(2)}, grace_period_s=3.0)
    await rig.clock.advance(2.0)
    await answers(tasks)
    await rig.clock.advance(9.0)
    (task,) = await rig.submit(scheduler, 2)
    await until(lambda: not scheduler.ready)
    await rig.clock.advance(1.0)
    assert not task.done()


async def test_engines_that_come_back_only_to_die_do_not_renew_the_grace_period(
    rig: Any, until: Until
) -> None:
    gate = Gate(is_open=False)
    scheduler, _ = await down(
        rig, until, {"gate": gate, **DIES}, limits=Limits(max_batch_size=1), grace_period_s=3.0
    )
    await rig.clock.advance(2.0)
    await gate.arrived(1)
    (waits,) = await rig.submit(scheduler, 2)
    await rig.clock.advance(2.0)  # used up while the second engine runs its first batch
    gate.open()
    (error,) = await answers([waits])
    assert isinstance(error, EngineUnavailable)


async def test_an_image_that_kills_engines_fails(rig: Any) -> None:
    scheduler = await rig.start(*[{"fail": poison(2)} for _ in range(3)])
    (error,) = await answers(await rig.submit(scheduler, 2))
    assert isinstance(error, EngineUnavailable)


async def test_an_image_that_kills_engines_is_tried_twice(rig: Any) -> None:
    scheduler = await rig.start(*[{"fail": poison(2)} for _ in range(3)])
    await answers(await rig.submit(scheduler, 2))
    assert rig.ran == [[2], [2]]


async def test_an_image_that_kills_engines_fails_alone(rig: Any, top: Top) -> None:
    scheduler = await rig.start(*[{"fail": poison(2)} for _ in range(3)])
    one, _, three, four = tasks = await rig.submit(scheduler, 1, 2, 3, 4)
    await answers(tasks)
    assert [top(task) for task in (one, three, four)] == [1, 3, 4]


async def test_a_batch_given_ahead_is_not_charged_with_the_death(rig: Any) -> None:
    scheduler = await rig.start(DIES, limits=Limits(max_batch_size=2))
    rig.gate.close()
    tasks = await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)
    tasks += await rig.submit(scheduler, 2, 3)
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[1], [1], [2, 3]]


async def test_who_left_before_the_death_is_not_run_again(rig: Any, until: Until) -> None:
    scheduler = await rig.start(DIES)
    rig.gate.close()
    gone, stays = await rig.submit(scheduler, 1, 2)
    await rig.gate.arrived(1)
    gone.cancel()
    await answers([gone])
    rig.gate.open()
    await stays
    assert rig.ran == [[1, 2], [2]]


@pytest.mark.parametrize("ahead", [False, True])
async def test_who_left_before_the_death_does_not_wait_for_the_next_engine(
    rig: Any, until: Until, ahead: bool
) -> None:
    scheduler = await rig.start(DIES, first_delay_s=2.0, limits=Limits(max_batch_size=2))
    rig.gate.close()
    tasks = await rig.submit(scheduler, 1, 2)
    await rig.gate.arrived(1)
    tasks += await rig.submit(scheduler, 3, 4)
    tasks[3 if ahead else 0].cancel()
    await rig.clock.advance(0.0)
    rig.gate.open()
    await until(lambda: not scheduler.ready)
    assert rig.sample("queue_requests") == 3


async def test_who_left_does_not_count_when_a_batch_is_halved(rig: Any) -> None:
    scheduler = await rig.start({"out_of_memory_above": 3})
    rig.gate.close()
    tasks = await rig.submit(scheduler, 1, 2, 3, 4)
    await rig.gate.arrived(1)
    tasks[0].cancel()
    tasks[1].cancel()
    await rig.clock.advance(0.0)
    rig.gate.open()
    await answers(tasks)
    assert rig.ran == [[1, 2, 3, 4], [3], [4]]


async def test_a_deadline_is_kept_while_the_engine_is_down(rig: Any, until: Until) -> None:
    scheduler = await rig.start(DIES, first_delay_s=2.0)
    tasks = await rig.submit(scheduler, 1, within=0.5)
    await until(lambda: not scheduler.ready)
    await rig.clock.advance(0.5)
    (error,) = await answers(tasks)
    assert isinstance(error, DeadlineExceeded)


async def test_an_engine_that_hangs_is_replaced(rig: Any, top: Top) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0)
    tasks = await rig.submit(scheduler, 1, 2)
    await stuck.arrived(1)
    await rig.clock.advance(60.0)
    await answers(tasks)
    stuck.open()
    assert [top(task) for task in tasks] == [1, 2]


async def test_a_process_that_stood_still_is_not_taken_for_an_engine_that_hangs(rig: Any) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0)
    tasks = await rig.submit(scheduler, 1)
    await stuck.arrived(1)
    await rig.clock.stand_still(3600.0)
    await rig.clock.advance(40.0)
    stuck.open()
    await answers(tasks)
    assert rig.sample("engine_restarts_total") == 0


async def test_a_batch_may_take_its_whole_time(rig: Any) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0)
    tasks = await rig.submit(scheduler, 1)
    await stuck.arrived(1)
    await rig.clock.advance(59.999)
    stuck.open()
    await answers(tasks)
    assert rig.sample("engine_restarts_total") == 0


async def test_the_time_of_a_batch_given_ahead_starts_when_it_runs(rig: Any) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0, limits=Limits(max_batch_size=1))
    tasks = await rig.submit(scheduler, 1, 2)
    await stuck.arrived(1)
    await rig.clock.advance(40.0)
    stuck.let()
    await stuck.arrived(2)
    await rig.clock.advance(40.0)
    stuck.open()
    await answers(tasks)
    assert rig.sample("engine_restarts_total") == 0


async def test_a_batch_given_ahead_is_watched_when_it_runs(rig: Any, top: Top) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0, limits=Limits(max_batch_size=1))
    first, second = await rig.submit(scheduler, 1, 2)
    await stuck.arrived(1)
    stuck.let()
    await first
    await stuck.arrived(2)
    await rig.clock.advance(60.0)
    await second
    stuck.open()
    assert top(second) == 2


async def test_a_start_that_is_over_is_watched_no_more(rig: Any) -> None:
    scheduler = await rig.start(start_timeout_s=60.0)
    await rig.clock.advance(60.0)
    assert scheduler.ready


async def test_what_a_replaced_engine_says_late_is_not_heard(rig: Any, top: Top) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0)
    rig.gate.close()
    (task,) = await rig.submit(scheduler, 1)
    await stuck.arrived(1)
    await rig.clock.advance(60.0)
    await rig.gate.arrived(1)  # the next engine has it
    stuck.open()
    await asyncio.to_thread(lambda: None)
    await rig.clock.advance(0.0)
    early = task.done()
    rig.gate.open()
    await task
    assert not early


async def test_a_replaced_engine_that_wakes_up_goes_away(rig: Any, until: Until) -> None:
    stuck = Gate(is_open=False)
    scheduler = await rig.start({"gate": stuck}, batch_timeout_s=60.0)
    tasks = await rig.submit(scheduler, 1)
    await stuck.arrived(1)
    await rig.clock.advance(60.0)
    await answers(tasks)
    stuck.open()
    await until(lambda: rig.backends[0].closed)
    assert len(rig.backends[0].batches) == 1


async def test_a_batch_that_does_not_fit_is_halved_till_it_does(rig: Any) -> None:
    scheduler = await rig.start({"out_of_memory_above": 2})
    await answers(await rig.submit(scheduler, 1, 2, 3, 4, 5))
    assert rig.ran == [[1, 2, 3, 4, 5], [1, 2, 3], [4, 5], [1, 2], [3]]


async def test_a_batch_that_did_not_fit_is_answered(rig: Any, top: Top) -> None:
    scheduler = await rig.start({"out_of_memory_above": 1})
    tasks = await rig.submit(scheduler, 1, 2, 3)
    await answers(tasks)
    assert [top(task) for task in tasks] == [1, 2, 3]


async def test_running_out_of_memory_is_no_death(rig: Any) -> None:
    scheduler = await rig.start({"out_of_memory_above": 1})
    await answers(await rig.submit(scheduler, 1, 2))
    assert rig.sample("engine_restarts_total") == 0


async def test_an_image_that_does_not_fit_alone_fails(rig: Any) -> None:
    scheduler = await rig.start({"out_of_memory_above": 0})
    (error,) = await answers(await rig.submit(scheduler, 1))
    assert isinstance(error, EngineUnavailable)
    assert "no memory" in error.detail


async def test_closing_waits_for_the_engine_to_come_back_and_answer(rig: Any, until: Until, top: Top) -> None:
    scheduler, (task,) = await down(rig, until)
    closing = asyncio.create_task(scheduler.close(30.0))
    await rig.clock.advance(0.0)
    await rig.clock.advance(2.0)
    assert await closing
    assert top(task) == 1


async def test_closing_while_the_engine_is_down_starts_no_other(rig: Any, until: Until) -> None:
    scheduler, tasks = await down(rig, until)
    await scheduler.close(0.0)
    await answers(tasks)
    await rig.clock.advance(1e6)
    assert len(rig.backends) == 1


async def test_a_request_that_another_process_may_have_died_of_runs_alone(rig: Any) -> None:
    scheduler = await rig.start({"gate": rig.gate})
    rig.gate.close()
    first = await rig.submit(scheduler, 1)
    suspect = rig.request(7)
    suspect.attempts = 1
    tasks = [*first, asyncio.create_task(scheduler.submit(suspect)), *await rig.submit(scheduler, 2, 3)]
    await asyncio.sleep(0)
    rig.gate.open()
    await asyncio.gather(*tasks)
    assert [batch for batch in rig.ran if 7 in batch] == [[7]]
    assert [2, 3] in rig.ran


async def test_a_policy_that_fails_leaves_what_the_device_runs_alone(rig: Any) -> None:
    class Fails(DefaultRatio):
        broken = False

        def plan(self, load: LoadSnapshot) -> Any:
            if self.broken:
                raise ZeroDivisionError
            return super().plan(load)

    policy = Fails(0.5)
    scheduler = await rig.start(policy=policy)
    rig.gate.close()
    (running,) = await rig.submit(scheduler, 1)
    await rig.gate.arrived(1)
    policy.broken = True
    waiting = await rig.submit(scheduler, *range(2, 40))
    rig.gate.open()
    assert (await running).output.logits.argmax() == 1
    failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in failed} == {PrunepoolError}
