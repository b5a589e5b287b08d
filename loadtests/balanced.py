"""Simulated replicas behind a load balancer, which sends the requests of a failed replica to another."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from open_loop import Seen
from simulated import Asked, Replica, Service, Speed

from prunepool.errors import PrunepoolError


@dataclass(frozen=True, slots=True)
class Failures:
    """How replicas fail.

    Attributes:
        every_s: mean time between two deaths of one replica; inf: none.
        back_s: from a death to the successor's first request.
    """

    every_s: float = math.inf
    back_s: float = 12.0


class Cluster:
    """Replicas and a load balancer, for a single run.

    Args:
        number: of replicas.
        service: how each is set.
        speed: of each.
        routing: `random`; `two`: the one of two with fewer requests; `least`: the one with the fewest.
        failures: how they die; what a dead one had is asked of another, once.
        seed: of all randomness.
    """

    def __init__(
        self,
        number: int,
        service: Service,
        speed: Speed,
        *,
        routing: str = "random",
        failures: Failures | None = None,
        seed: int = 0,
    ) -> None:
        self._source = random.Random(seed)
        self._service = service
        self._speed = speed
        self._routing = routing
        self._failures = failures or Failures()
        self._replicas: list[Replica | None] = [self._new() for _ in range(number)]
        self._events: list[tuple[float, int, str, int, object]] = []
        self._numbers = count()
        self.seen: list[Seen] = []
        self.deaths = 0
        self.busy_s = 0.0

    def run(self, times: Iterable[float]) -> list[Seen]:
        """Simulate requests that arrive at these times, in ascending order."""
        last = 0.0
        for at in times:
            self._later(at + self._speed.front_s, "arrive", 0, Asked(at))
            last = at
        if self._failures.every_s < math.inf:
            for place in range(len(self._replicas)):
                self._next_death(0.0, place, last)
        while self._events:
            now, _, what, place, about = heappop(self._events)
            if what == "arrive":
                assert isinstance(about, Asked)
                self._arrive(about, now)
            elif what == "finish":
                self._finish(place, about, now)
            elif what == "die":
                self._die(place, now, last)
            else:
                self._replicas[place] = self._new()
        self.busy_s += sum(replica.busy_s for replica in self._replicas if replica is not None)
        return self.seen

    def _new(self) -> Replica:
        return Replica(self._service, self._speed, self._source)

    def _later(self, at: float, what: str, place: int, about: object = None) -> None:
        heappush(self._events, (at, next(self._numbers), what, place, about))

    def _arrive(self, asked: Asked, now: float) -> None:
        place = self._route()
        replica = None if place is None else self._replicas[place]
        if place is None or replica is None:
            self._end(asked, now, 503, "engine_unavailable")
            return
        try:
            replica.take(asked, now)
        except PrunepoolError as error:
            self._end(asked, now, error.status, error.code)
            return
        self._started(place, replica, replica.pump(now))

    def _route(self) -> int | None:
        """Return the index of the replica for the next request; the balancer knows which are down."""
        up = [place for place, replica in enumerate(self._replicas) if replica is not None]
        if not up:
            return None
        if self._routing == "random" or len(up) == 1:
            return self._source.choice(up)
        if self._routing == "two":
            up = self._source.sample(up, 2)
        loads = {place: len(replica.asked) for place in up if (replica := self._replicas[place]) is not None}
        least = min(loads.values())
        return self._source.choice([place for place, load in loads.items() if load == least])

    def _finish(self, place: int, about: object, now: float) -> None:
        replica = self._replicas[place]
        if replica is None or replica is not about:
            return  # it died meanwhile
        done, ends = replica.finish(now)
        for asked, ratio in done:
            self.seen.append(Seen(asked.at, now - asked.at, 200, "", ratio))
        self._started(place, replica, ends)
        self._started(place, replica, replica.pump(now))

    def _started(self, place: int, replica: Replica, ends: float | None) -> None:
        if ends is not None:
            self._later(ends, "finish", place, replica)

    def _next_death(self, now: float, place: int, last: float) -> None:
        at = now + self._source.expovariate(1 / self._failures.every_s)
        if at < last:
            self._later(at, "die", place)

    def _die(self, place: int, now: float, last: float) -> None:
        replica = self._replicas[place]
        assert replica is not None
        self._replicas[place] = None
        self.deaths += 1
        self.busy_s += replica.busy_s
        back = now + self._failures.back_s
        self._later(back, "back", place)
        self._next_death(back, place, last)
        for asked in replica.asked.values():
            asked.tries += 1
            if asked.tries > 1:
                self._end(asked, now, 503, "engine_unavailable")
            else:
                self._arrive(asked, now)

    def _end(self, asked: Asked, now: float, status: int, code: str) -> None:
        self.seen.append(Seen(asked.at, now - asked.at, status, code, None))
