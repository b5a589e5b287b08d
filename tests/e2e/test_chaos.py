"""The short form of `make chaos`: a real server, hostile clients, and accounts that must come out even."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import chaos
import pytest
import scenes
from scenes import Stage

pytestmark = pytest.mark.e2e
SECONDS = 3.0
#: Played in every run; the others every night.
ALWAYS = scenes.vanishing_clients


def played(scene: chaos.Scene) -> Any:
    marks = [] if scene is ALWAYS else [pytest.mark.nightly]
    return pytest.param(scene, id=scene.__name__, marks=marks)


@pytest.fixture(scope="module")
def warm() -> Iterator[Stage]:
    """A stage on one server that must bear everything."""
    with chaos.stages(None, ()) as server:
        yield asyncio.run(chaos.warm(server, SECONDS))


@pytest.mark.parametrize("scene", [played(scene) for scene in chaos.SURVIVED])
def test_nothing_is_lost_and_nothing_kept(warm: Stage, scene: chaos.Scene) -> None:
    stage = Stage(warm.server, warm.images, SECONDS, warm.capacity)
    verdict = asyncio.run(chaos.play(scene, stage))
    assert verdict.faults == []
    assert verdict.outcomes["ok"] > 0


@pytest.mark.nightly  # test_first_light has a plain form of it
def test_a_server_that_is_told_to_end_answers_what_it_accepted() -> None:
    with chaos.stages(None, ()) as server:
        verdict = asyncio.run(chaos.scenes_end(server, SECONDS))
    assert verdict.faults == []
    assert verdict.outcomes["ok"] > 0
