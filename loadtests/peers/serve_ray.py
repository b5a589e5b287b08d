"""Ray Serve: replicas with `serve.batch`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import ray
from photo_model import PhotoModel, Setting
from ray import serve
from starlette.requests import Request
from torch import Tensor

setting = Setting.read()


@serve.deployment(
    num_replicas=setting.workers,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": setting.threads},
)
class Classify:
    """Decodes in threads, batches, runs."""

    def __init__(self) -> None:
        self.model = PhotoModel(setting)

    @serve.batch(max_batch_size=setting.batch, batch_wait_timeout_s=setting.wait_s)
    async def run(self, images: list[Tensor]) -> list[dict[str, Any]]:
        """A batch's answers."""
        return await asyncio.to_thread(self.model.top5, images)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One photo."""
        body = await request.body()
        image = await asyncio.to_thread(self.model.decode, body)
        answer: dict[str, Any] = await self.run(image)
        return answer


if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    ray.init(
        num_cpus=setting.workers * setting.threads,
        include_dashboard=False,
        object_store_memory=256 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": setting.port})
    serve.run(Classify.bind(), route_prefix="/classify")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
