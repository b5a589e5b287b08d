"""A discrete-event simulation: the real planner, controller and cost model in front of a made-up device."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, pairwise

import numpy as np

from prunepool.core.batcher import expired, trim
from prunepool.core.cost_model import TimedBatch, effort
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.profiling import profile_batches
from prunepool.core.ratio_controller import Controller, ratio_grid
from prunepool.core.ratio_policy import RatioPolicy
from prunepool.core.types import Batch, Limits, RatioSpec, Request
from prunepool.errors import PrunepoolError

PIXELS = np.zeros((1, 1, 3), np.uint8)
TARGET_S = 0.5
MAX_RATIO = 0.87


AUTO = RatioSpec(None, MAX_RATIO)


class Network:
    """DeiT-Ti's cost, roughly: 1.25 GMACs dense, half of that at the largest ratio."""

    max_ratio = MAX_RATIO

    def gmacs(self, ratio: float) -> float:
        return 1.25 - 0.72 * ratio


@dataclass(frozen=True)
class Ask:
    """A request of the trace: when, with which ratio_spec, and within how many seconds it must be answered."""

    at: float
    ratio_spec: RatioSpec = AUTO
    within: float | None = None


@dataclass
class Fate:
    """What became of a request."""

    ask: Ask
    refusal: PrunepoolError | None = None
    expired: bool = False
    latency: float = math.inf
    ratio: float = math.nan
    reason: str = ""

    @property
    def answered(self) -> bool:
        return self.latency < math.inf


@dataclass
class Machine:
    """A device whose runs take a + b · GMACs, and a little for each image of which tokens leave.

    Attributes:
        slowness: factor on every run that begins at a time.
        noise: standard deviation of the logarithm of another factor.
    """

    run_s: float = 0.0074
    gmac_s: float = 0.0139
    reduced_s: float = 0.0008
    slowness: Callable[[float], float] = lambda now: 1.0
    noise: float = 0.05
    seed: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def seconds(self, ratios: Sequence[float], now: float) -> float:
        gmacs = sum(map(Network().gmacs, ratios))
        plain = self.run_s + self.gmac_s * gmacs + self.reduced_s * sum(ratio > 0 for ratio in ratios)
        return plain * self.slowness(now) * math.exp(self._random.gauss(0, self.noise))

    def capacity(self, ratio: float, batch: int = 6) -> float:
        """Images a second, in batches such as the target allows."""
        quiet = Machine(self.run_s, self.gmac_s, self.reduced_s, noise=0.0)
        return batch / quiet.seconds((ratio,) * batch, 0.0)


@dataclass
class Trace:
    """All that happened.

    Attributes:
        fates: of every request, in order of arrival.
        levels: time and ratio of a request without bounds, at each batch.
        errors: relative error of each prediction, with the time.
    """

    fates: list[Fate]
    levels: list[tuple[float, float]]
    errors: list[tuple[float, float]]

    def between(self, start: float, end: float) -> Trace:
        """What was asked, decided and predicted in a span of time."""
        return Trace(
            [fate for fate in self.fates if start <= fate.ask.at < end],
            [one for one in self.levels if start <= one[0] < end],
            [one for one in self.errors if start <= one[0] < end],
        )

    @property
    def attainment(self) -> float:
        """Share of all requests that were answered within the target."""
        return sum(fate.latency <= TARGET_S for fate in self.fates) / len(self.fates)

    @property
    def refused(self) -> int:
        return sum(fate.refusal is not None for fate in self.fates)

    @property
    def dense(self) -> float:
        """Share of the answered that no token left."""
        answered = [fate for fate in self.fates if fate.answered]
        return sum(fate.ratio == 0 for fate in answered) / len(answered)

    @property
    def mean_ratio(self) -> float:
        answered = [fate.ratio for fate in self.fates if fate.answered]
        return sum(answered) / len(answered)

    @property
    def turns(self) -> int:
        """How often the level went the other way than when it last moved."""
        moves = [b - a for (_, a), (_, b) in pairwise(self.levels) if a != b]
        return sum(one * other < 0 for one, other in pairwise(moves))

    @property
    def swing(self) -> float:
        """The largest level less the smallest."""
        ratios = [ratio for _, ratio in self.levels]
        return max(ratios) - min(ratios)

    def error(self, share: float = 0.9) -> float:
        """A percentile of the prediction errors."""
        ordered = sorted(error for _, error in self.errors)
        return ordered[int(share * (len(ordered) - 1))]


def limits(**changes: float) -> Limits:
    """As a server sets them."""
    usual = {"max_batch_s": TARGET_S / 4, "target_s": TARGET_S, "max_queue_s": 10.0, "only_what_pays": True}
    return Limits(**{**usual, **changes})  # type: ignore[arg-type]


def simulate(
    asks: Iterable[Ask],
    machine: Machine | None = None,
    *,
    bounds: Limits | None = None,
    policy: RatioPolicy | None = None,
) -> Trace:
    """Let a trace arrive at a server that does what `Scheduler` does, without a loop or a thread."""
    return _Simulation(
        machine or Machine(), bounds or limits(), policy or Controller(ratio_grid(MAX_RATIO), TARGET_S)
    ).run(asks)


class _Simulation:
    def __init__(self, machine: Machine, bounds: Limits, policy: RatioPolicy) -> None:
        self.machine = machine
        self.policy = policy
        self.planner = Planner(Network(), policy, bounds)
        self.planner.fit_profile(
            [
                TimedBatch(effort(Counter(ratios), Network().gmacs), machine.seconds(ratios, -1.0))
                for ratios in profile_batches(MAX_RATIO, bounds.max_batch_size)
            ]
        )
        self.given: list[Batch] = []
        self.since = 0.0
        self.accepted = 0
        self.events: list[tuple[float, int, Ask | None]] = []
        self.numbers = count()
        self.fates: dict[Request, Fate] = {}
        self.trace = Trace([], [], [])

    def run(self, asks: Iterable[Ask]) -> Trace:
        for ask in asks:
            heappush(self.events, (ask.at, next(self.numbers), ask))
        while self.events:
            now, _, ask = heappop(self.events)
            if ask is None:
                self._finish(now)
            else:
                self._arrive(ask)
            self._pump(now)
        assert not self.given
        assert not self.planner.batcher
        return self.trace

    @property
    def device(self) -> DeviceState:
        return DeviceState(self.given, self.since)

    def _arrive(self, ask: Ask) -> None:
        fate = Fate(ask)
        self.trace.fates.append(fate)
        deadline = None if ask.within is None else ask.at + ask.within
        try:
            self.planner.admit(
                ask.ratio_spec, deadline, ask.at, device=self.device, arriving={}, accepted=self.accepted
            )
        except PrunepoolError as error:
            fate.refusal = error
            return
        self.accepted += 1
        request = Request(PIXELS, ask.ratio_spec, ask.at, deadline)
        self.fates[request] = fate
        self.planner.add(request, ask.at)

    def _finish(self, now: float) -> None:
        batch = self.given.pop(0)
        seconds = now - self.since
        error = self.planner.cost_model.observe(self.planner.predictor.effort(batch), seconds)
        if error is not None:
            self.trace.errors.append((now, error))
        for item in batch.items:
            fate = self.fates.pop(item.request)
            fate.latency, fate.ratio, fate.reason = now - fate.ask.at, item.ratio, item.reason
            self.accepted -= 1
        if self.given:
            self._start(now)

    def _pump(self, now: float) -> None:
        for request in self.planner.batcher.expire(now):
            self.fates.pop(request).expired = True
            self.accepted -= 1
        while len(self.given) < 2 and self.planner.due(now, device_busy=bool(self.given)):
            batch = self.planner.next_batch(now, device=self.device, arriving={})
            if batch is None:
                break
            self.trace.levels.append((now, self.policy.forecast(AUTO, now)))
            self.given.append(batch)
            if len(self.given) == 1:
                self._start(now)

    def _start(self, now: float) -> None:
        batch = trim(self.given[0], lambda request: not expired(request, now), Network())
        for item in self.given[0].items:
            if expired(item.request, now):
                self.fates.pop(item.request).expired = True
                self.accepted -= 1
        self.given[0] = batch
        self.since = now
        seconds = self.machine.seconds(batch.ratios, now) if batch.items else 0.0
        heappush(self.events, (now + seconds, next(self.numbers), None))


def poisson(rate: Callable[[float], float], seconds: float, seed: int = 1) -> Iterator[float]:
    """Times of arrivals whose rate may change, by thinning."""
    source = random.Random(seed)
    most = max(rate(seconds * i / 1000) for i in range(1000))
    now = 0.0
    while (now := now + source.expovariate(most)) < seconds:
        if source.random() * most < rate(now):
            yield now
