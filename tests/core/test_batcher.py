from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from prunepool.core.batcher import Batcher, expired, trim
from prunepool.core.cost_model import CostModel, Effort, TimedBatch
from prunepool.core.prediction import Predictor
from prunepool.core.ratio_policy import RatioChoice
from prunepool.core.types import Batch, BatchItem, Limits, RatioSpec, Request

PIXELS = np.zeros((1, 1, 3), np.uint8)


class Costs:
    """1 GMAC dense, falling to 0 at ratio 1: exact in binary for the ratios used here."""

    max_ratio = 0.875

    def gmacs(self, ratio: float) -> float:
        return 1.0 - ratio


def request(arrival: float = 0.0, *, ratio: float | None = 0.0, deadline: float | None = None) -> Request:
    return Request(PIXELS, RatioSpec(ratio, 0.875), arrival, deadline)


def choose(request: Request) -> RatioChoice:
    return RatioChoice(
        0.5 if request.ratio_spec.requested is None else request.ratio_spec.requested, "chosen"
    )


def predictor(limits: Limits) -> Predictor:
    """A run takes a second for each GMAC."""
    model = CostModel()
    model.fit([TimedBatch(Effort(1, 1, 0, 0), 1.0)])
    return Predictor(Costs(), limits, model)


def batcher(**limits: float) -> Batcher:
    bounds = Limits(**limits)  # type: ignore[arg-type]
    return Batcher(bounds, predictor(bounds))


def add(queue: Batcher, *requests: Request) -> None:
    for one in requests:
        queue.add(one, choose(one).ratio)


def members(batch: Batch | None) -> list[Request]:
    return [] if batch is None else [item.request for item in batch.items]


def works(*requests: Request) -> list[BatchItem]:
    return [BatchItem(one, one.ratio_spec.requested or 0.0, "requested") for one in requests]


def test_an_empty_queue_has_no_batch() -> None:
    assert batcher().next_batch(0.0, choose) is None


def test_what_is_there_goes_at_once() -> None:
    queue = batcher()
    first, second = request(), request()
    add(queue, first, second)
    assert members(queue.next_batch(0.0, choose)) == [first, second]


def test_a_batch_is_bounded_by_images() -> None:
    queue = batcher(max_batch_size=2)
    requests = [request() for _ in range(3)]
    add(queue, *requests)
    assert members(queue.next_batch(0.0, choose)) == requests[:2]


def test_what_did_not_fit_comes_next() -> None:
    queue = batcher(max_batch_size=2)
    requests = [request() for _ in range(3)]
    add(queue, *requests)
    queue.next_batch(0.0, choose)
    assert members(queue.next_batch(0.0, choose)) == requests[2:]


def test_a_batch_may_take_exactly_the_bound() -> None:
    queue = batcher(max_batch_s=2.0)
    add(queue, request(), request())
    assert len(members(queue.next_batch(0.0, choose))) == 2


def test_a_batch_never_takes_more_than_the_bound() -> None:
    queue = batcher(max_batch_s=1.75)
    add(queue, request(), request())
    assert len(members(queue.next_batch(0.0, choose))) == 1


def test_a_cheaper_request_does_not_overtake_one_that_does_not_fit() -> None:
    queue = batcher(max_batch_s=1.5)
    requests = [request(), request(), request(ratio=0.75)]
    add(queue, *requests)
    assert members(queue.next_batch(0.0, choose)) == requests[:1]


def test_an_image_over_the_bound_goes_alone() -> None:
    queue = batcher(max_batch_s=0.5)
    big, small = request(), request(ratio=0.875)
    add(queue, big, small)
    assert members(queue.next_batch(0.0, choose)) == [big]


def test_the_batch_says_what_it_costs() -> None:
    queue = batcher()
    add(queue, request(ratio=0.25), request(ratio=0.5))
    batch = queue.next_batch(0.0, choose)
    assert batch is not None
    assert batch.gmacs == 1.25


def test_one_ratio_is_next_to_each_other_in_order_of_arrival() -> None:
    queue = batcher()
    a, b, c, d = request(ratio=0.5), request(ratio=0.25), request(ratio=0.5), request(ratio=0.25)
    add(queue, a, b, c, d)
    assert members(queue.next_batch(0.0, choose)) == [b, d, a, c]


def test_the_ratio_is_chosen_when_the_batch_is_formed() -> None:
    queue = batcher()
    queue.add(request(ratio=None), 0.0)
    batch = queue.next_batch(0.0, lambda _: RatioChoice(0.75, "auto:load"))
    assert batch is not None
    assert batch.items[0].ratio == 0.75


def test_each_considered_request_is_chosen_for_once() -> None:
    queue = batcher(max_batch_size=2)
    requests = [request() for _ in range(3)]
    add(queue, *requests)
    seen: list[Request] = []
    queue.next_batch(0.0, lambda one: (seen.append(one), choose(one))[1])
    assert seen == requests[:2]


def test_what_waits_is_counted_by_ratio() -> None:
    queue = batcher()
    add(queue, request(ratio=0.25), request(ratio=None), request(ratio=None))
    queue.put_back(works(request(ratio=0.75)))
    assert queue.images(lambda ratio_spec: 0.5 if ratio_spec.requested is None else ratio_spec.requested) == {
        0.25: 1,
        0.5: 2,
        0.75: 1,
    }


def test_a_request_that_would_cost_a_deadline_is_left_for_the_next_batch() -> None:
    queue = batcher()
    hurried, other, third = request(deadline=12.5), request(), request()
    add(queue, hurried, other, third)
    assert members(queue.next_batch(10.0, choose, free_at=10.5)) == [hurried, other]


def test_a_deadline_that_cannot_be_kept_anyway_keeps_no_request_away() -> None:
    queue = batcher()
    late, other = request(deadline=10.5), request()
    add(queue, late, other)
    assert members(queue.next_batch(10.0, choose)) == [late, other]


def test_a_cancelled_request_is_in_no_batch() -> None:
    queue = batcher()
    gone, stays = request(), request()
    add(queue, gone, stays)
    queue.cancel(gone)
    assert members(queue.next_batch(0.0, choose)) == [stays]


def test_cancelling_says_whether_it_waited() -> None:
    queue = batcher()
    one = request()
    add(queue, one)
    assert [queue.cancel(one), queue.cancel(one)] == [True, False]


@pytest.mark.parametrize(("now", "late"), [(0.999999, False), (1.0, True), (1.5, True)])
def test_a_request_expires_at_its_deadline_not_before(now: float, late: bool) -> None:
    queue = batcher()
    one = request(deadline=1.0)
    add(queue, one)
    assert queue.expire(now) == ([one] if late else [])


def test_an_expired_request_is_in_no_batch() -> None:
    queue = batcher()
    add(queue, request(deadline=1.0))
    queue.expire(1.0)
    assert queue.next_batch(1.0, choose) is None


def test_the_earliest_deadline_expires_first() -> None:
    queue = batcher()
    later, sooner = request(deadline=2.0), request(deadline=1.0)
    add(queue, later, sooner)
    assert queue.expire(3.0) == [sooner, later]


def test_a_request_that_was_taken_does_not_expire() -> None:
    queue = batcher()
    add(queue, request(deadline=1.0))
    queue.next_batch(0.0, choose)
    assert queue.expire(2.0) == []


@pytest.mark.parametrize(("now", "goes"), [(10.004999, False), (10.005, True)])
def test_the_batching_window_starts_with_the_oldest_arrival(now: float, goes: bool) -> None:
    queue = batcher(max_wait_s=0.005)
    add(queue, request(10.0), request(10.004))
    assert (queue.next_batch(now, choose) is not None) == goes


def test_a_full_batch_waits_for_no_window() -> None:
    queue = batcher(max_wait_s=1.0, max_batch_size=2)
    add(queue, request(0.0), request(0.0))
    assert len(members(queue.next_batch(0.0, choose))) == 2


def test_the_next_event_is_the_end_of_the_batching_window() -> None:
    queue = batcher(max_wait_s=0.5)
    add(queue, request(10.0), request(10.25))
    assert queue.next_event(10.25) == 10.5


def test_the_next_event_is_the_earliest_deadline() -> None:
    queue = batcher()
    add(queue, request(deadline=3.0), request(deadline=2.0))
    assert queue.next_event(0.0) == 2.0


def test_an_event_that_has_come_is_not_next() -> None:
    queue = batcher(max_wait_s=0.5)
    add(queue, request(10.0))
    assert queue.next_event(10.5) is None


def test_the_deadline_of_a_cancelled_request_is_no_event() -> None:
    queue = batcher()
    one = request(deadline=1.0)
    add(queue, one)
    queue.cancel(one)
    assert queue.next_event(0.0) is None


@pytest.mark.parametrize(
    ("limits", "count", "full"),
    [
        ({}, 0, False),
        ({"max_batch_size": 2}, 1, False),
        ({"max_batch_size": 2}, 2, True),
        ({"max_batch_s": 2.0}, 1, False),
        ({"max_batch_s": 2.0}, 2, True),
    ],
)
def test_full_is_when_more_requests_would_not_fit(limits: dict[str, float], count: int, full: bool) -> None:
    queue = batcher(**limits)
    add(queue, *(request() for _ in range(count)))
    assert queue.full is full


def test_works_that_came_back_go_first() -> None:
    queue = batcher()
    back, new = request(), request()
    add(queue, new)
    queue.put_back(works(back))
    assert members(queue.next_batch(0.0, choose)) == [back]


def test_works_that_came_back_keep_their_ratio() -> None:
    queue = batcher()
    queue.put_back([BatchItem(request(ratio=None), 0.75, "auto:load")])
    batch = queue.next_batch(0.0, choose)
    assert batch is not None
    assert batch.ratios == (0.75,)


def test_works_that_came_back_apart_stay_apart() -> None:
    queue = batcher()
    first, second = request(), request()
    queue.put_back(works(first))
    queue.put_back(works(second))
    assert [members(queue.next_batch(0.0, choose)) for _ in range(2)] == [[first], [second]]


def test_works_that_came_back_can_be_cancelled() -> None:
    queue = batcher()
    gone, stays = request(), request()
    queue.put_back(works(gone, stays))
    queue.cancel(gone)
    assert members(queue.next_batch(0.0, choose)) == [stays]


def test_works_that_came_back_expire() -> None:
    queue = batcher()
    one = request(deadline=1.0)
    queue.put_back(works(one))
    assert queue.expire(1.0) == [one]


def test_clear_forgets_and_returns_everything() -> None:
    queue = batcher()
    back, new = request(), request()
    add(queue, new)
    queue.put_back(works(back))
    assert (queue.clear(), len(queue), queue.next_batch(0.0, choose)) == ([back, new], 0, None)


def test_a_request_that_is_gone_is_not_held_till_its_deadline() -> None:
    queue = batcher()
    gone = request(deadline=1e9)
    watch = weakref.ref(pixels := np.zeros((1, 1, 3), np.uint8))
    gone.pixels = pixels
    add(queue, gone)
    queue.cancel(gone)
    del gone, pixels
    for _ in range(20):
        one = request(deadline=1e9)
        add(queue, one)
        queue.cancel(one)
    gc.collect()
    assert watch() is None


def test_trim_leaves_out_what_is_not_kept() -> None:
    stays, goes = request(ratio=0.25), request(ratio=0.5)
    batch = Batch(tuple(works(stays, goes)), 1.25)
    assert trim(batch, lambda one: one is stays, Costs()) == Batch(tuple(works(stays)), 0.75)


@pytest.mark.parametrize(
    ("deadline", "now", "late"), [(None, 1e9, False), (1.0, 0.999, False), (1.0, 1.0, True)]
)
def test_expired(deadline: float | None, now: float, late: bool) -> None:
    assert expired(request(deadline=deadline), now) is late


class Interleavings(RuleBasedStateMachine):
    """Any order of operations against a list: nothing is lost or doubled, and the bounds hold."""

    MAX_SIZE, MAX_S, MAX_WAIT = 4, 2.5, 0.5

    def __init__(self) -> None:
        super().__init__()
        self.queue = batcher(max_batch_size=self.MAX_SIZE, max_batch_s=self.MAX_S, max_wait_s=self.MAX_WAIT)
        self.now = 0.0
        self.waiting: list[Request] = []
        self.returned: list[list[BatchItem]] = []
        self.running: list[list[BatchItem]] = []
        self.charged: list[Request] = []
        self.ran: list[Request] = []

    def _all(self) -> list[Request]:
        return [item.request for group in self.returned for item in group] + self.waiting

    def _forget(self, gone: Callable[[Request], bool]) -> None:
        self.waiting = [one for one in self.waiting if not gone(one)]
        kept = ([item for item in group if not gone(item.request)] for group in self.returned)
        self.returned = [group for group in kept if group]

    @rule(
        ratio=st.sampled_from([None, 0.0, 0.25, 0.5, 0.75]),
        within=st.none() | st.sampled_from([0.25, 0.5, 1.0, 4.0]),
    )
    def arrive(self, ratio: float | None, within: float | None) -> None:
        deadline = None if within is None else self.now + within
        one = request(self.now, ratio=ratio, deadline=deadline)
        add(self.queue, one)
        self.waiting.append(one)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if everything := self._all():
            one = data.draw(st.sampled_from(everything))
            assert self.queue.cancel(one)
            self._forget(lambda other: other is one)

    @rule(step=st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        due = [one for one in self._all() if one.deadline is not None and one.deadline <= self.now]
        late = self.queue.expire(self.now)
        assert len(late) == len(due)
        assert set(late) == set(due)
        self._forget(lambda one: one in due)

    @rule()
    def take(self) -> None:
        batch = self.queue.next_batch(self.now, choose, charge=self.charged.extend)
        if self.returned:
            expected = self.returned.pop(0)
            assert batch is not None
            assert sorted(map(id, members(batch))) == sorted(id(item.request) for item in expected)
        elif batch is None:
            # Only a batch whose window is still open may be kept back.
            assert len(self.waiting) < self.MAX_SIZE
            assert sum(1 - choose(one).ratio for one in self.waiting) < self.MAX_S
            assert not self.waiting or self.now < self.waiting[0].arrival + self.MAX_WAIT
            return
        else:
            got = members(batch)
            # The oldest, no other, and each ratio in order of arrival.
            assert set(got) == set(self.waiting[: len(got)])
            order = {one: i for i, one in enumerate(self.waiting)}
            places = [(item.ratio, order[item.request]) for item in batch.items]
            assert places == sorted(places)
            assert len(got) <= self.MAX_SIZE
            assert batch.gmacs <= self.MAX_S or len(got) == 1
            assert batch.gmacs == sum(1 - item.ratio for item in batch.items)
            rest = self.waiting[len(got) :]
            if rest and len(got) < self.MAX_SIZE:  # as many as fit without costing anybody's deadline
                longer = batch.gmacs + 1 - choose(rest[0]).ratio
                kept = [
                    one.deadline for one in got if one.deadline and self.now + batch.gmacs <= one.deadline
                ]
                assert longer > self.MAX_S or any(self.now + longer > deadline for deadline in kept)
            self.waiting = rest
            self.ran += got
        assert batch is not None
        self.running.append(list(batch.items))

    @rule(apart=st.booleans())
    def come_back(self, apart: bool) -> None:
        if self.running:
            batch = self.running.pop()
            open_ = [item for item in batch if not expired(item.request, self.now)]
            for group in [[item] for item in open_] if apart else [open_] if open_ else []:
                self.queue.put_back(group)
                self.returned.append(group)

    @rule()
    def finish(self) -> None:
        if self.running:
            self.running.pop()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self._all())
        ratios = [item.ratio for group in self.returned for item in group]
        ratios += [choose(one).ratio for one in self.waiting]
        assert self.queue.images(
            lambda ratio_spec: choose(Request(PIXELS, ratio_spec, 0.0)).ratio
        ) == Counter(ratios)
        assert self.queue.ratio_specs == Counter(one.ratio_spec for one in self.waiting)

    @invariant()
    def what_runs_is_charged_once(self) -> None:
        assert Counter(self.charged) == Counter(self.ran)

    @invariant()
    def nothing_that_waits_is_without_an_event(self) -> None:
        event = self.queue.next_event(self.now)
        assert event is None or event > self.now
        if self.waiting and not self.queue.ready(self.now):
            assert event is not None


TestInterleavings = Interleavings.TestCase
