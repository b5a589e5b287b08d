"""Runs the real `prunepool serve` over an engine that holds its results until SIGUSR1.

It writes `held` for each request that it holds. With HELD_SERVER_FAILS set it cannot start.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys

from prunepool import cli
from prunepool.errors import WeightsInvalid
from prunepool.metrics import Metrics
from prunepool.server import single
from prunepool.serving.options import InferenceOptions
from prunepool.serving.types import Classification, Service
from prunepool.settings import Settings
from prunepool.testing import FakeService


class HeldEngine(FakeService):
    """Accepts at once, answers after SIGUSR1."""

    async def start(self) -> None:
        if os.environ.get("HELD_SERVER_FAILS"):
            raise WeightsInvalid("the weights of 'fake' have changed")
        self.released = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.released.set)

    async def classify(self, image: bytes, options: InferenceOptions) -> Classification:
        answer = await super().classify(image, options)
        sys.stdout.write("held\n")
        sys.stdout.flush()
        await self.released.wait()
        return answer


def make_engine(settings: Settings, metrics: Metrics) -> Service:
    return HeldEngine()


if __name__ == "__main__":
    single.serve = functools.partial(single.serve, make_service=make_engine)
    cli.main()
