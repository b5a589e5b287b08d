"""A replica in simulated time: the real planner, controller and cost model with a simulated device.

What is made up is how long a run takes, and that nothing else takes any time: `front_s` stands for HTTP and
decoding.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from prunepool.core.batcher import expired, trim
from prunepool.core.cost_model import IDLE_S, TimedBatch, effort
from prunepool.core.planner import DeviceState, Planner
from prunepool.core.profiling import ROUNDS, profile_batches
from prunepool.core.ratio_controller import Controller, ratio_grid
from prunepool.core.ratio_policy import DefaultRatio, RatioPolicy
from prunepool.core.types import Batch, Limits, RatioSpec, Request
from prunepool.reduction.plan import DENSE, default_blocks, max_ratio, plan_for_ratio
from prunepool.server.factory import BATCH_SHARE
from prunepool.store import Geometry

_PIXELS = np.zeros((1, 1, 3), np.uint8)
#: Batches that the worker has at a time: one running, one waiting.
_ROOM = 2
#: DeiT-S with ten classes, as the load tests make it.
DEIT_S = Geometry(
    depth=12,
    width=384,
    heads=6,
    mlp_width=1536,
    patch_size=(16, 16),
    patch_grid=(14, 14),
    prefix_tokens=1,
    classes=10,
)


class Network:
    """The cost of a ratio, from a geometry and the paper's plans."""

    def __init__(self, geometry: Geometry = DEIT_S) -> None:
        self.max_ratio = max_ratio(geometry.patches, len(default_blocks(geometry.depth)))

        def gmacs(ratio: float) -> float:
            patches, depth = geometry.patches, geometry.depth
            return geometry.gmacs(plan_for_ratio(ratio, patches=patches, depth=depth) if ratio else DENSE)

        self.gmacs = lru_cache(maxsize=4096)(gmacs)


@dataclass(frozen=True, slots=True)
class Speed:
    """The time of a batch: that of the cost model, times noise.

    Attributes:
        run_s: of any run.
        gmac_s: of each GMAC.
        reduced_s: of each image whose tokens are reduced.
        idle_penalty_s: what a run takes longer on an idle device.
        image_s: of each image, beside the model: HTTP and decoding take the cores that the model runs on.
        noise: standard deviation of the logarithm of a factor on each run.
        front_s: from a request's arrival to its place in the queue.
    """

    run_s: float
    gmac_s: float
    reduced_s: float
    idle_penalty_s: float
    image_s: float
    noise: float
    front_s: float

    def seconds(
        self, ratios: Sequence[float], network: Network, source: random.Random, *, idle_before: bool = False
    ) -> float:
        """One run of a batch, on an idle device or a busy one."""
        plain = self.plain(ratios, network) + self.idle_penalty_s * idle_before
        return plain * math.exp(source.gauss(0, self.noise))

    def plain(self, ratios: Sequence[float], network: Network) -> float:
        """The same on a busy device, without noise."""
        reduced = sum(ratio > 0 for ratio in ratios)
        each = self.gmac_s * sum(map(network.gmacs, ratios)) + self.image_s * len(ratios)
        return self.run_s + each + self.reduced_s * reduced


@dataclass(frozen=True, slots=True)
class Service:
    """The settings of every replica.

    Attributes:
        target_s: of `auto`.
        ratio: of every request; None: `auto`.
        network: what a ratio costs.
        max_queue_s: as `max_queue_ms`.
    """

    target_s: float
    ratio: float | None
    network: Network
    max_queue_s: float = 10.0

    @property
    def limits(self) -> Limits:
        """Return the limits that the settings make."""
        return Limits(
            max_batch_s=self.target_s * BATCH_SHARE,
            target_s=self.target_s,
            max_queue_s=self.max_queue_s,
            only_what_pays=True,
        )

    @property
    def policy(self) -> RatioPolicy:
        """Make the controller as the engine does."""
        if self.ratio is not None:
            return DefaultRatio(self.ratio)
        return Controller(ratio_grid(self.network.max_ratio), self.target_s)


@dataclass(slots=True)
class Asked:
    """A request in flight.

    Attributes:
        at: when it came to the balancer.
        tries: replicas that it was lost with.
    """

    at: float
    tries: int = 0


class Replica:
    """A scheduler and its worker, without an event loop or a thread."""

    def __init__(self, service: Service, speed: Speed, source: random.Random) -> None:
        self._service = service
        self._speed = speed
        self._source = source
        self._ratio_spec = RatioSpec(service.ratio, service.network.max_ratio)
        self.planner = Planner(service.network, service.policy, service.limits)
        timed = []
        for ratios in profile_batches(service.network.max_ratio, service.limits.max_batch_size):
            best = min(speed.seconds(ratios, service.network, source) for _ in range(ROUNDS))
            timed.append(TimedBatch(effort(Counter(ratios), service.network.gmacs), best))
        self.planner.fit_profile(timed)
        self.given: list[Batch] = []
        self._since: float | None = None
        self._ended = -math.inf
        self._idle_before = False
        self.asked: dict[Request, Asked] = {}
        self.busy_s = 0.0

    def drain_s(self, now: float) -> float:
        """Predicted seconds of work ahead."""
        return self.planner.drain_s(now, device=self._device(now), arriving={})

    def take(self, asked: Asked, now: float) -> None:
        """Accept a request or raise.

        Raises:
            PrunepoolError: it is refused.
        """
        self.planner.admit(
            self._ratio_spec, None, now, device=self._device(now), arriving={}, accepted=len(self.asked)
        )
        request = Request(_PIXELS, self._ratio_spec, asked.at)
        self.asked[request] = asked
        self.planner.add(request, now)

    def pump(self, now: float) -> float | None:
        """Start a batch if the device should run one; return when it ends."""
        starts = not self.given
        while len(self.given) < _ROOM and self.planner.due(now, device_busy=bool(self.given)):
            batch = self.planner.next_batch(now, device=self._device(now), arriving={})
            if batch is None:
                break
            self.given.append(batch)
        return self._run(now) if starts and self.given else None

    def finish(self, now: float) -> tuple[list[tuple[Asked, float]], float | None]:
        """Return the requests answered with their ratios, and when the next batch ends, if there is one."""
        assert self._since is not None
        batch = self.given.pop(0)
        seconds = now - self._since
        self._since, self._ended = None, now
        self.busy_s += seconds
        worked = self.planner.predictor.effort(batch, idle_before=self._idle_before)
        self.planner.cost_model.observe(worked, seconds)
        done = [(self.asked.pop(item.request), item.ratio) for item in batch.items]
        return done, self._run(now) if self.given else None

    def _run(self, now: float) -> float:
        batch = trim(self.given[0], lambda request: not expired(request, now), self._service.network)
        self._since, self._idle_before = now, self._idle(now)
        network = self._service.network
        return now + self._speed.seconds(batch.ratios, network, self._source, idle_before=self._idle_before)

    def _device(self, now: float) -> DeviceState:
        idle_before = self._idle(now) if self._since is None else self._idle_before
        return DeviceState(self.given, self._since, idle_before)

    def _idle(self, now: float) -> bool:
        return now - self._ended >= IDLE_S
