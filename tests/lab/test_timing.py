"""Timing by turns, with a clock of its own."""

from __future__ import annotations

from prunepool.lab.timing import Sample, take_turns


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_candidates_take_turns_and_the_first_round_does_not_count() -> None:
    clock = _Clock()
    called: list[str] = []
    durations = {"a": iter([9.0, 1.0, 3.0]), "b": iter([9.0, 2.0, 2.0])}

    def candidate(name: str) -> None:
        called.append(name)
        clock.now += next(durations[name])

    samples = take_turns({"a": lambda: candidate("a"), "b": lambda: candidate("b")}, 2, clock=clock)
    assert called == ["a", "b"] * 3
    assert samples["a"] == Sample(median=2.0, low=1.0, high=3.0, rounds=2)
    assert samples["b"].median == 2.0


def test_what_is_short_does_not_pay_for_threads_that_still_spin() -> None:
    clock = _Clock()
    spins = [0.0]

    def spinner() -> None:
        clock.now += 0.5
        spins[0] = 0.25

    def neighbour() -> None:
        clock.now += 0.125 + spins[0]
        spins[0] = 0.0

    samples = take_turns({"spinner": spinner, "neighbour": neighbour}, 3, clock=clock)
    assert samples["neighbour"] == Sample(median=0.125, low=0.125, high=0.125, rounds=3)
    assert samples["spinner"].median == 0.5


def test_the_devices_time_counts() -> None:
    clock = _Clock()
    pending = [0.0]

    def launch() -> None:
        pending[0] += 5.0

    def wait() -> None:
        clock.now += pending[0]
        pending[0] = 0.0

    assert take_turns({"a": launch}, 1, wait=wait, clock=clock)["a"].median == 5.0
