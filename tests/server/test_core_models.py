"""Models of a core in this process, prepared, committed and aborted."""

from __future__ import annotations

import asyncio
import threading

import pytest

from prunepool.core.core import Core, CoreConfig
from prunepool.core.served_model import ServedModel
from prunepool.metrics import Metrics
from prunepool.server.core_models import CoreModels
from prunepool.testing import fake_served


async def test_an_abort_ends_a_prepare_that_still_opens_files(metrics: Metrics) -> None:
    opening, go_on = threading.Event(), threading.Event()

    def open_model(reference: str) -> ServedModel:
        opening.set()
        go_on.wait()
        return fake_served("b")

    core = Core([fake_served("a")], config=CoreConfig(), metrics=metrics)
    await core.start()
    models = CoreModels(core, open_model, lambda info: None)
    preparing = asyncio.create_task(models.prepare("b"))
    await asyncio.to_thread(opening.wait)
    aborting = asyncio.create_task(models.abort("b"))
    go_on.set()
    await aborting
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert await models.served() == ["a"]
    assert await models.prepare("b")  # nothing of the first one is in its way
    await models.commit("b")
    assert await models.served() == ["a", "b"]
    for thread in [one for one in threading.enumerate() if one.name.startswith("prunepool-open")]:
        await asyncio.to_thread(thread.join, 10.0)
        assert not thread.is_alive()
    await core.close(0.0)
