"""Load shapes: how load changes over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """A period of constant load.

    Attributes:
        users: that ask at the same time, as a multiple of those asked for.
        share: of the whole time.
    """

    users: float
    share: float


#: Each spans the whole run.
SHAPES: dict[str, tuple[Stage, ...]] = {
    "steady": (Stage(1.0, 1.0),),
    "steps": (Stage(0.25, 0.25), Stage(0.5, 0.25), Stage(0.75, 0.25), Stage(1.0, 0.25)),
    "spike": (Stage(0.1, 0.4), Stage(1.0, 0.2), Stage(0.1, 0.4)),
    "soak": (Stage(0.1, 0.02), Stage(0.5, 0.96), Stage(0.1, 0.02)),
}


def users_at(stages: Sequence[Stage], users: int, seconds: float, now: float) -> int | None:
    """Return the number of users at a time; None after the end.

    Args:
        stages: one of :data:`SHAPES`.
        users: the most.
        seconds: length of the run.
        now: seconds since it began.
    """
    end = 0.0
    for stage in stages:
        end += stage.share * seconds
        if now < end:
            return max(1, round(stage.users * users))
    return None


@dataclass(frozen=True, slots=True)
class Phase:
    """A period in which all requests name one ratio.

    Attributes:
        number: of all phases, from 0.
        round: each round has every ratio once.
        ratio: as it is asked for.
        start: seconds since the run began.
        end: the same.
    """

    number: int
    round: int
    ratio: str
    start: float
    end: float


def phases(ratios: Sequence[str], rounds: int, seconds: float, warm_up_s: float) -> list[Phase]:
    """Alternate the ratios, so that a slow minute of the machine affects all of them.

    Every second round runs backwards, so that none always comes after the same one. A warm-up, which is
    round -1 and does not count, comes first.

    Args:
        ratios: as they are asked for.
        rounds: how often each gets its turn.
        seconds: length of a phase.
        warm_up_s: length of the warm-up, at the first ratio.
    """

    def turns() -> Iterator[tuple[int, str]]:
        for number in range(rounds):
            for ratio in reversed(ratios) if number % 2 else ratios:
                yield number, ratio

    made = [Phase(0, -1, ratios[0], 0.0, warm_up_s)]
    for number, ratio in turns():
        start = made[-1].end
        made.append(Phase(len(made), number, ratio, start, start + seconds))
    return made


def phase_at(made: Sequence[Phase], now: float) -> Phase | None:
    """Return the phase at a time in seconds since the start; None after the last."""
    return next((phase for phase in made if now < phase.end), None)
