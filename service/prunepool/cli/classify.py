"""`prunepool classify`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from pydantic import SecretStr

from prunepool.cli import inputs
from prunepool.cli.options import ApiKeyOption, UsageError, flag, load_settings, with_flags
from prunepool.cli.output import Output
from prunepool.cli.terminal import say
from prunepool.errors import InvalidParameter, ModelNotFound, PrunepoolError

if TYPE_CHECKING:
    from prunepool.serving.options import InferenceOptions

#: The classification as the API's JSON, or an error.
Result = dict[str, Any] | PrunepoolError


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
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(
            help="Instead of a ratio: points of accuracy that may be lost, by the model's profile.",
            metavar="POINTS",
        ),
    ] = None,
    max_reduction_ratio: Annotated[
        str | None, typer.Option(help="With auto: largest ratio.", metavar="RATIO")
    ] = None,
    top_k: Annotated[str | None, typer.Option(help="Number of predictions.", metavar="N")] = None,
    deadline_ms: Annotated[
        str | None, typer.Option(help="Deadline in milliseconds; a later image fails.", metavar="MS")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="With --json: which patches were pruned or pooled.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Use this server instead of loading a model.", metavar="URL")
    ] = None,
    api_key: ApiKeyOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line, as the API returns it.")
    ] = False,
) -> int:
    """Classify images in this process, or by a server."""
    options = _options(
        {
            "reduction_ratio": reduction_ratio,
            "max_reduction_ratio": max_reduction_ratio,
            "max_accuracy_drop": max_accuracy_drop,
            "top_k": top_k,
            "deadline_ms": deadline_ms,
            "explain": "true" if explain else None,
        }
    )
    notices: list[str] = []
    names = list(inputs.expand(files, notices))
    results = (
        _in_process(names, flags, options) if url is None else _by_server(names, url, api_key, flags, options)
    )
    with Output(as_json, len(names)) as output:
        asyncio.run(_write(results, output))
    for notice in notices:
        say(f"prunepool: {notice}", error=True)
    return 1 if output.failed else 0


def _options(given: Mapping[str, str | None]) -> InferenceOptions:
    from prunepool.api.options import RawOption, read_options

    return read_options(
        RawOption("command line", name, value) for name, value in given.items() if value is not None
    )


async def _in_process(
    names: Sequence[str], flags: Mapping[str, str], options: InferenceOptions
) -> AsyncGenerator[tuple[str, Result], None]:
    """Classify with the engine of a server, but without the server."""
    from prunepool.api.json_documents import classification_json
    from prunepool.client import ImageUnreadable
    from prunepool.client.streaming import in_order
    from prunepool.server import factory
    from prunepool.server.observability import create_metrics
    from prunepool.serving.options import resolve

    # Nobody waits for an image, so there is no latency target, and no image is refused.
    unlimited = {"target_latency_ms": math.inf, "max_queue_ms": math.inf}
    settings = load_settings(flags).model_copy(update=unlimited)
    engine = factory.create_local_service(settings, create_metrics())

    async def classify_here(name: str) -> Result:
        try:
            answer = await engine.classify(await asyncio.to_thread(inputs.read, name), options)
        except (InvalidParameter, ModelNotFound):
            raise  # every other image would fail in the same way
        except PrunepoolError as error:
            return error
        except OSError as error:
            return ImageUnreadable(error.strerror or str(error))
        document: dict[str, Any] = orjson.loads(orjson.dumps(classification_json(answer)))
        return document

    try:
        await engine.start()
        resolve(options, engine.model(engine.default_model))
        at_once = min(2 * settings.max_batch_size, settings.max_queue_requests)
        async with aclosing(in_order(names, classify_here, at_once)) as results:
            async for name, result in results:
                yield name, result
    finally:
        await engine.close(settings.drain_timeout_s)


async def _by_server(
    names: Sequence[str],
    url: str,
    api_key: SecretStr | None,
    flags: Mapping[str, str],
    options: InferenceOptions,
) -> AsyncGenerator[tuple[str, Result], None]:
    from prunepool.client import AsyncClient, ClassifyOptions

    for name in flags:
        if name != "model":
            raise UsageError(f"{flag(name)} is a setting of the server; leave it out with --url")
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url must be http://… or https://…; got {url!r}")
    chosen = ClassifyOptions(**{**asdict(options), "model": flags.get("model")})  # type: ignore[typeddict-item]
    images = [partial(inputs.read, name) for name in names]
    async with (
        AsyncClient(url, api_key=api_key) as client,
        aclosing(client.classify_many(images, **chosen)) as answers,
    ):
        in_turn = iter(names)
        async for classified in answers:
            result = classified.result
            if not isinstance(result, PrunepoolError):
                yield next(in_turn), {k: v for k, v in asdict(result).items() if v is not None}
            else:
                yield next(in_turn), result


async def _write(results: AsyncGenerator[tuple[str, Result], None], output: Output) -> None:
    async with aclosing(results):  # what is under way ends before the loop does, also if the output is lost
        async for name, result in results:
            if isinstance(result, PrunepoolError):
                output.error(name, result.code, result.detail)
            else:
                output.answer(name, result)
