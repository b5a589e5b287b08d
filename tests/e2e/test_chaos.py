"""The short form of `make chaos`: a real server, hostile clients, and accounts that must come out even."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import chaos
import pytest
from scenes import Stage

SECONDS = 3.0


@pytest.fixture(scope="module")
def warm() -> Iterator[Stage]:
    """A stage on one server that must bear everything."""
    with chaos.stages(None, ()) as server:
        yield asyncio.run(chaos.warm(server, SECONDS))


@pytest.mark.parametrize("scene", chaos.SURVIVED, ids=lambda scene: scene.__name__)
def test_nothing_is_lost_and_nothing_kept(warm: Stage, scene: chaos.Scene) -> None:
    stage = Stage(warm.server, warm.images, SECONDS, warm.capacity)
    verdict = asyncio.run(chaos.play(scene, stage))
    assert verdict.faults == []
    assert verdict.outcomes["ok"] > 0


def test_a_server_that_is_told_to_end_answers_what_it_accepted() -> None:
    with chaos.stages(None, ()) as server:
        verdict = asyncio.run(chaos.scenes_end(server, SECONDS))
    assert verdict.faults == []
    assert verdict.outcomes["ok"] > 0
