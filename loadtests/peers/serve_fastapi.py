"""A plain FastAPI server around timm: photos are decoded in threads, a task forms batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from photo_model import PhotoModel, Setting
from torch import Tensor

setting = Setting.read()
Waiting = tuple[Tensor, "asyncio.Future[dict[str, Any]]"]


async def batches(model: PhotoModel, queue: asyncio.Queue[Waiting]) -> None:
    """Take what waits, and what comes within the wait, run it, answer it."""
    loop = asyncio.get_running_loop()
    while True:
        batch = [await queue.get()]
        until = loop.time() + setting.wait_s
        while len(batch) < setting.batch:
            try:
                async with asyncio.timeout_at(until):
                    batch.append(await queue.get())
            except TimeoutError:
                break
        answers = await asyncio.to_thread(model.top5, [image for image, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The model and its batches."""
    app.state.model = PhotoModel(setting)
    app.state.queue = asyncio.Queue()
    task = asyncio.create_task(batches(app.state.model, app.state.queue))
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
async def classify(request: Request) -> dict[str, Any]:
    """One photo."""
    body = await request.body()
    image = await asyncio.to_thread(app.state.model.decode, body)
    future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    await app.state.queue.put((image, future))
    return await future


if __name__ == "__main__":
    uvicorn.run(
        "serve_fastapi:app",
        port=setting.port,
        workers=setting.workers,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
