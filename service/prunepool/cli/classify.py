"""`prunepool classify`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from prunepool.cli import inputs
from prunepool.cli.options import WrongCall, flag, load_settings, with_flags
from prunepool.cli.output import Output
from prunepool.errors import InvalidParameter, ModelNotFound, PrunepoolError, Unauthorized

if TYPE_CHECKING:
    from prunepool.engine import Options

#: Takes one encoded image, gives the answer in the JSON of the API.
Classify = Callable[[bytes], Awaitable[dict[str, Any]]]

#: Requests under way to a server.
_CONNECTIONS = 16


@with_flags("model", "model_store", "device", "dtype")
def classify(
    flags: Mapping[str, str],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES...", help="Images, folders of images, or - for standard input."),
    ],
    reduction_ratio: Annotated[
        str | None, typer.Option(help="Share of patch tokens to remove, or auto.", metavar="RATIO|auto")
    ] = None,
    top_k: Annotated[str | None, typer.Option(help="How many predictions.", metavar="N")] = None,
    url: Annotated[
        str | None, typer.Option(help="Ask this server instead of loading a model.", metavar="URL")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with the members of the API's answer.")
    ] = False,
) -> int:
    """Classify images in process, or by a server."""
    from prunepool.logs import logging_to

    options = _options({"reduction_ratio": reduction_ratio, "top_k": top_k})
    backend = _in_process(flags, options) if url is None else _by_server(url, flags, options)
    names = list(inputs.expand(files))
    with logging_to(sys.stderr, "console", "warning"), Output(as_json, len(names)) as output:
        asyncio.run(_classify_all(backend, names, output))
    return 1 if output.failed else 0


def _options(given: Mapping[str, str | None]) -> Options:
    from prunepool.api.options import Given, read_options

    return read_options(
        Given("command line", name, value) for name, value in given.items() if value is not None
    )


@asynccontextmanager
async def _in_process(flags: Mapping[str, str], options: Options) -> AsyncIterator[tuple[Classify, int]]:
    """The real engine, as a server would run it, without the server."""
    from prunepool import build
    from prunepool.api.answers import classification_json
    from prunepool.engine import resolve

    settings = load_settings(flags)
    engine = build.build_engine(settings, build.create_metrics())

    async def classify_here(image: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = orjson.loads(
            orjson.dumps(classification_json(await engine.classify(image, options)))
        )
        return answer

    try:
        await engine.start()
        resolve(options, engine.model(engine.default_model))
        yield classify_here, min(2 * settings.max_batch_size, settings.max_queue_requests)
    finally:
        await engine.close(settings.drain_timeout_s)


@asynccontextmanager
async def _by_server(
    url: str, flags: Mapping[str, str], options: Options
) -> AsyncIterator[tuple[Classify, int]]:
    from prunepool.client import AsyncClient

    for name in flags:
        if name != "model":
            raise WrongCall(f"{flag(name)} is the server's to choose; leave it out with --url")
    if not url.startswith(("http://", "https://")):
        raise WrongCall(f"--url must be http://… or https://…; got {url!r}")
    async with AsyncClient(url) as client:

        async def classify_there(image: bytes) -> dict[str, Any]:
            answer = await client.classify(
                image,
                model=flags.get("model"),
                reduction_ratio=options.reduction_ratio,
                top_k=options.top_k,
            )
            return {name: value for name, value in asdict(answer).items() if value is not None}

        yield classify_there, _CONNECTIONS


async def _classify_all(
    backend: AbstractAsyncContextManager[tuple[Classify, int]], names: Sequence[str], output: Output
) -> None:
    """Classify several at a time; results come out in the order of the names."""
    async with backend as (classify_one, at_once):
        gate = asyncio.Semaphore(at_once)

        async def one(name: str) -> dict[str, Any]:
            async with gate:
                return await classify_one(await asyncio.to_thread(inputs.read, name))

        tasks = [asyncio.create_task(one(name)) for name in names]
        try:
            for name, task in zip(names, tasks, strict=True):
                await _write_result(name, task, output)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _write_result(name: str, task: asyncio.Task[dict[str, Any]], output: Output) -> None:
    from prunepool.client import ServerUnreachable, UnexpectedAnswer

    try:
        output.answer(name, await task)
    except OSError as error:
        output.error(name, "unreadable", error.strerror or str(error))
    except (InvalidParameter, ModelNotFound, Unauthorized, ServerUnreachable, UnexpectedAnswer):
        raise  # no fault of this image: the others would fail in the same way
    except PrunepoolError as error:
        output.error(name, error.code, error.detail)
