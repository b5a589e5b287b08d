"""The results of overhead.py: medians of the rounds, the verdict, and tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from closed_loop import Phase as Seen
from cpu_use import CLIENT, DECODING, IDLE, LOOPS, MODEL, OTHERS, PARTS, REST, Spent

#: The share of the bare model's throughput that HTTP must reach.
LEAST = 0.90
#: The parts of a phase add up to the cores' time within this.
MOST_OFF = 0.05
_WORDS = {
    MODEL: "model, with batches stacked and pixels normalised",
    DECODING: "decoding",
    LOOPS: "HTTP, batching, answers (the event loop)",
    REST: "other threads of the service",
    CLIENT: "load client",
    OTHERS: "other programs, the system",
    IDLE: "idle",
}


@dataclass(frozen=True, slots=True)
class Phase(Seen):
    """The clients' measurements of a phase, and its use of the cores.

    Attributes:
        spent: what became of the cores.
    """

    spent: Spent

    @property
    def without_client(self) -> float:
        """Estimated images/s if the service had the client's share of the cores."""
        return self.images_per_s / (1 - self.spent.share(CLIENT))


@dataclass(frozen=True, slots=True)
class Overhead:
    """HTTP against the bare model, at one ratio.

    Attributes:
        flags: of the server.
        ratio: as it was asked for.
        cores: that bare model and service share in turns.
        batch: images in a run of the bare model.
        bare: images/s of it in each round.
        http: images/s over HTTP in each round.
        kept: the median over the rounds of HTTP over bare.
        lowest: of the rounds.
        highest: of the rounds.
        kept_without_client: the median, with the client's time counted out.
        ms: core milliseconds an image by part, medians.
        stack_ms: of the model's: to stack an image's pixels into a batch, timed at the bare model.
        accounted: the share of the cores' time that the parts add up to, where it is furthest from 1.
        errors: what came instead of answers.
    """

    flags: str
    ratio: str
    cores: int
    batch: int
    bare: tuple[float, ...]
    http: tuple[float, ...]
    kept: float
    lowest: float
    highest: float
    kept_without_client: float
    ms: Mapping[str, float]
    stack_ms: float
    accounted: float
    errors: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """Return whether HTTP reaches its share, every request was answered, and the parts add up."""
        return self.kept >= LEAST and not self.errors and abs(self.accounted - 1) <= MOST_OFF


def overhead(
    flags: str,
    ratio: str,
    batch: int,
    bare: Sequence[float],
    stack_ms: Sequence[float],
    http: Sequence[Phase],
) -> Overhead:
    """Summarise the rounds of the bare model and of HTTP, both in the same order.

    Raises:
        ValueError: a round without an answer.
    """
    if not all(phase.images_per_s for phase in http):
        raise ValueError(f"a phase at ratio {ratio} has no answer: {sorted({*_errors(http)})[:3]}")
    kept = [phase.images_per_s / base for phase, base in zip(http, bare, strict=True)]
    alone = [phase.without_client / base for phase, base in zip(http, bare, strict=True)]
    return Overhead(
        flags,
        ratio,
        http[0].spent.cores,
        batch,
        tuple(bare),
        tuple(phase.images_per_s for phase in http),
        statistics.median(kept),
        min(kept),
        max(kept),
        statistics.median(alone),
        {part: statistics.median(_ms(phase, part) for phase in http) for part in PARTS},
        statistics.median(stack_ms),
        max((phase.spent.accounted for phase in http), key=lambda share: abs(share - 1)),
        tuple(sorted({*_errors(http)})),
    )


def latency(flags: str, ratio: str, clients: int, phases: Sequence[Phase]) -> dict[str, Any]:
    """Summarise the phases at one number of clients; latencies are of all phases together."""
    waits = sorted(wait * 1000 for phase in phases for wait in phase.latencies)
    last = len(waits) - 1
    return {
        "flags": flags,
        "ratio": ratio,
        "clients": clients,
        "images_per_s": statistics.median(phase.images_per_s for phase in phases),
        "answers": len(waits),
        "p50_ms": waits[round(0.5 * last)] if waits else None,
        "p99_ms": waits[round(0.99 * last)] if waits else None,
        "errors": sorted({*_errors(phases)}),
    }


def as_json(one: Overhead) -> dict[str, Any]:
    """Return the report as JSON."""
    return {**asdict(one), "shown": one.shown}


def tables(found: Sequence[Overhead], latencies: Sequence[Mapping[str, Any]]) -> str:
    """Return all tables, in Markdown."""
    return "\n\n".join("\n".join(table) for table in (_kept(found), _parts(found), _latency(latencies)))


def _kept(found: Sequence[Overhead]) -> Iterator[str]:
    yield "| ratio | bare, images/s (batch) | HTTP, images/s | HTTP / bare | lowest–highest | client counted out |"
    yield "|---|---|---|---|---|---|"
    for one in found:
        bare, http = statistics.median(one.bare), statistics.median(one.http)
        yield (
            f"| {_label(one.flags, one.ratio)} | {bare:.1f} ({one.batch}) | {http:.1f} | {one.kept:.2f} "
            f"| {one.lowest:.2f}–{one.highest:.2f} | {one.kept_without_client:.2f} |"
        )


def _parts(found: Sequence[Overhead]) -> Iterator[str]:
    yield "| core milliseconds an image | " + " | ".join(_label(o.flags, o.ratio) for o in found) + " |"
    yield "|---|" + "---|" * len(found)
    for part in PARTS:
        yield f"| {_WORDS[part]} | " + " | ".join(f"{one.ms[part]:.1f}" for one in found) + " |"
    yield "| sum over what the cores had | " + " | ".join(f"{one.accounted:.1%}" for one in found) + " |"
    bare = (one.cores * 1000 / statistics.median(one.bare) for one in found)
    yield "| for comparison: the bare model | " + " | ".join(f"{ms:.1f}" for ms in bare) + " |"
    yield "| for comparison: stacking a batch | " + " | ".join(f"{o.stack_ms:.2f}" for o in found) + " |"


def _latency(latencies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| ratio | clients | images/s | p50 ms | p99 ms | answers |"
    yield "|---|---|---|---|---|---|"
    for one in latencies:
        yield (
            f"| {_label(one['flags'], one['ratio'])} | {one['clients']} | {one['images_per_s']:.1f} "
            f"| {one['p50_ms'] or 0:,.0f} | {one['p99_ms'] or 0:,.0f} | {one['answers']} |"
        )


def _label(flags: str, ratio: str) -> str:
    return f"{ratio} ({flags})" if flags else ratio


def _ms(phase: Phase, part: str) -> float:
    return phase.spent.seconds[part] / (phase.images_per_s * phase.spent.wall) * 1000


def _errors(phases: Sequence[Phase]) -> Iterator[str]:
    for phase in phases:
        yield from phase.errors
