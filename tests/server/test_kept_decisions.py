"""What a start has measured serves the next one on the same machine, for a while."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunepool.core.cost_model import TimedBatch, effort
from prunepool.server import factory
from prunepool.server.kept_decisions import KeptDecisions
from prunepool.settings import Settings

NOW = 1_000_000_000.0
WEEK = 7 * 24 * 3600.0
CONDITIONS = ("auto", 2)


def entry(generation: str, seconds: float = 0.1) -> Any:
    profile = (TimedBatch(effort(Counter([0.0]), lambda ratio: 1.0), seconds),)
    model = SimpleNamespace(name="m", generation=generation)
    return SimpleNamespace(model=model, scheduler=SimpleNamespace(warm_up_profile=profile))


def kept(folder: Path, *conditions: object, now: float = NOW) -> KeptDecisions:
    return KeptDecisions(folder, conditions or CONDITIONS, clock=lambda: now)


def decide(folder: Path, generation: str = "one") -> Any:
    """A start that found out something at `NOW`."""
    first, served = kept(folder), entry(generation)
    first.of(generation)["format"] = "int8"
    for file in folder.rglob("*.json"):
        os.utime(file, (NOW, NOW))
    first.keep([served])
    for file in folder.rglob("*.json"):
        os.utime(file, (NOW, NOW))
    return served


def test_the_next_start_takes_over_what_was_measured(tmp_path: Path) -> None:
    served = decide(tmp_path / "not" / "there")
    later = kept(tmp_path / "not" / "there", now=NOW + WEEK - 1)
    assert later.of("one")["format"] == "int8"
    assert later.profiles([served.model]) == {"m": served.scheduler.warm_up_profile}


@pytest.mark.parametrize("other", ["settings", "generation", "too late", "clock set back"])
def test_under_other_conditions_it_is_measured_again(other: str, tmp_path: Path) -> None:
    decide(tmp_path)
    later = {
        "settings": kept(tmp_path, "auto", 4),
        "too late": kept(tmp_path, now=NOW + WEEK),
        "clock set back": kept(tmp_path, now=NOW - 1),
    }.get(other, kept(tmp_path))
    generation = "two" if other == "generation" else "one"
    assert dict(later.of(generation)) == {}
    assert later.profiles([entry(generation).model]) == {}


def test_only_a_compiled_model_s_profile_is_kept(tmp_path: Path) -> None:
    one = kept(tmp_path, now=NOW)
    one.keep([entry("one")])
    assert one.profiles([entry("one").model]) == {}, "by the next start it may be converted, and faster"


@pytest.mark.parametrize("text", ["nothing", "[]", '{"m": 1}', 7])
def test_a_profile_that_cannot_be_read_is_measured_again(text: object, tmp_path: Path) -> None:
    served = decide(tmp_path)
    later = kept(tmp_path)
    later.of("one")["warm_up_profile"] = text
    for file in tmp_path.rglob("*.json"):
        os.utime(file, (NOW, NOW))
    assert later.profiles([served.model]) == {}


def test_a_gpu_is_measured_at_each_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert factory.kept_decisions(Settings(device="cpu")) is not None
    monkeypatch.setattr(factory, "resolve_device", lambda device: "cuda:0")
    assert factory.kept_decisions(Settings(device="cuda")) is None
