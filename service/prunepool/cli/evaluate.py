"""`prunepool evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr

from prunepool.cli.accuracy import (
    BatchOption,
    ImagesOption,
    JsonOption,
    LabelsOption,
    LimitOption,
    SeedOption,
    check_plot,
    load,
    numbers,
    print_rows,
    progress,
    save_json,
    say_broken,
)
from prunepool.cli.options import ApiKeyOption, UsageError, flag, load_settings, with_flags
from prunepool.cli.terminal import say_skipped
from prunepool.extras import needs_torch
from prunepool.reduction.methods import METHODS
from prunepool.store import Manifest, open_store

if TYPE_CHECKING:
    from prunepool.lab.accuracy_row import AccuracyRow

#: Methods that are measured by default: the model's own dial, and the paper's for comparison.
_DEFAULT_METHODS = "dial,ppt"


@with_flags("model_store", "device", "dtype")
def evaluate(
    flags: Mapping[str, str],
    images: ImagesOption,
    model: Annotated[str | None, typer.Argument(help="Its name in the store, or a folder.")] = None,
    labels: LabelsOption = None,
    ratios: Annotated[str, typer.Option(help="Reduction ratios, comma-separated.")] = "0.25,0.5,0.755",
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Reduction methods, of dial (the model's own plans), {', '.join(METHODS)}. "
            f"[dim]\\[default: {_DEFAULT_METHODS}][/dim]",
            show_default=False,
            metavar="NAMES",
        ),
    ] = None,
    match_gmacs: Annotated[
        bool,
        typer.Option(
            "--match-gmacs", help="Compare at equal cost: each method gets PPT's GMACs at the ratio."
        ),
    ] = False,
    escalate_below: Annotated[
        str | None,
        typer.Option(
            help="Also measure running images again dense whose best two scores are closer than these.",
            metavar="MARGINS",
        ),
    ] = None,
    dtypes: Annotated[
        str | None,
        typer.Option(
            help="Measure the dial in these number formats instead, each against float32 at the same ratio: "
            "bfloat16, int8, int8+bfloat16.",
            metavar="NAMES",
        ),
    ] = None,
    keep_formats: Annotated[
        bool,
        typer.Option("--keep-formats", help="With --dtypes, write the figures into the model's profile."),
    ] = False,
    limit: LimitOption = None,
    batch_size: BatchOption = 64,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the trade-off here.", metavar="FILE.png")] = None,
    url: Annotated[
        str | None, typer.Option(help="Evaluate this server instead of loading a model.", metavar="URL")
    ] = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Measure the accuracy at each ratio, compared to labels and to the dense model."""
    check_plot(plot)
    wanted = numbers("--ratios", ratios)
    if url is None:
        needs_torch("evaluate without --url")
    elif plot is not None:
        needs_torch("evaluate --plot")
    if dtypes is not None and (url is not None or methods or match_gmacs or escalate_below):
        raise UsageError("--dtypes measures a model's own dial; leave out --url and options of methods")
    if keep_formats and dtypes is None:
        raise UsageError("--keep-formats needs --dtypes")
    measured: Manifest | None = None
    if url is not None:
        if flags or match_gmacs or methods or escalate_below:
            given = (
                [flag(name) for name in flags]
                + ["--match-gmacs"] * match_gmacs
                + ["--methods"] * bool(methods)
                + ["--escalate-below"] * bool(escalate_below)
            )
            raise UsageError(f"{given[0]} is a setting of the server; leave it out with --url")
        rows, document = _of_server(url, api_key, model, images, labels, wanted, limit, seed)
        title = f"{document['model']} at {url}"
    else:
        if model is None:
            raise UsageError("name a MODEL, or a server with --url")
        chosen = (methods or _DEFAULT_METHODS).split(",")
        margins = numbers("--escalate-below", escalate_below) if escalate_below else ()
        if dtypes is not None:
            formats = [name.strip() for name in dtypes.split(",")]
            rows, document, measured = _of_formats(
                model, flags, images, labels, wanted, formats, limit, batch_size, seed
            )
        else:
            rows, document = _of_model(
                model, flags, images, labels, wanted, chosen, match_gmacs, margins, limit, batch_size, seed
            )
        title = str(document["model"])
    # Names only: the report identifies the set of images, not where it was stored.
    named = {"images": images.name, "labels": labels and Path(labels).name}
    try:  # what took hours is neither lost with a reader of the output nor with a file that cannot be written
        if keep_formats and model is not None and measured is not None:
            _keep_formats(model, measured, rows, flags)
        save_json({**named, **document}, json_file)
        if plot is not None:
            from prunepool.lab.accuracy_plot import draw

            draw(rows, plot, title=title)
    finally:
        print_rows(rows)


def _of_model(
    name: str,
    flags: Mapping[str, str],
    folder: Path,
    labels: str | None,
    ratios: Sequence[float],
    methods: Sequence[str],
    match_gmacs: bool,
    margins: Sequence[float],
    limit: int | None,
    batch_size: int,
    seed: int,
) -> tuple[list[AccuracyRow], dict[str, object]]:
    from prunepool.lab import evaluate as tool
    from prunepool.lab.images import crops, find_images
    from prunepool.models.preprocess import preprocess_of

    model = load(name, flags)
    settings = tool.settings_of(model, methods, ratios, match_gmacs=match_gmacs, escalate_below=margins)
    images = find_images(folder, labels, model.manifest.labels)
    say_skipped(images.found, str(folder))
    images = images if limit is None else images.sample(limit, seed=seed)
    plans = {setting.plan for setting in settings}
    broken: list[str] = []
    with progress() as begin:
        advance = begin("evaluating", len(images) * len(plans))
        batches = crops(images, preprocess_of(model.manifest), batch_size, broken)
        rows = tool.evaluate(model, batches, settings, seed=seed, advance=advance)
    say_broken(broken, len(images))
    return rows, {**tool.report(model, rows, seed=seed), "left_out": len(broken)}


def _of_formats(
    name: str,
    flags: Mapping[str, str],
    folder: Path,
    labels: str | None,
    ratios: Sequence[float],
    dtypes: Sequence[str],
    limit: int | None,
    batch_size: int,
    seed: int,
) -> tuple[list[AccuracyRow], dict[str, object], Manifest]:
    from prunepool.lab import evaluate as tool
    from prunepool.lab.images import crops, find_images
    from prunepool.lab.number_formats import check_formats, evaluate_formats
    from prunepool.models.preprocess import preprocess_of

    check_formats(dtypes)
    model = load(name, {**flags, "device": "cpu", "dtype": "float32"})
    images = find_images(folder, labels, model.manifest.labels)
    say_skipped(images.found, str(folder))
    images = images if limit is None else images.sample(limit, seed=seed)
    broken: list[str] = []
    with progress() as begin:
        advance = begin("evaluating", len(images) * len({0.0, *ratios}))
        batches = crops(images, preprocess_of(model.manifest), batch_size, broken)
        rows = evaluate_formats(model, batches, ratios, dtypes, seed=seed, advance=advance)
    say_broken(broken, len(images))
    document = {**tool.report(model, rows, seed=seed), "compared_with": "float32 at the same ratio"}
    return rows, {**document, "left_out": len(broken)}, model.manifest


def _keep_formats(
    name: str, measured: Manifest, rows: Sequence[AccuracyRow], flags: Mapping[str, str]
) -> None:
    """Write the figures into the profile of the model that was measured."""
    from prunepool.lab.number_formats import with_formats

    store = open_store(load_settings(flags).model_store)
    profile = with_formats(measured.profile or (), rows)
    store.update_manifest(name, measured, {"profile": profile}, depends_on=("profile",))


def _of_server(
    url: str,
    api_key: SecretStr | None,
    model: str | None,
    folder: Path,
    labels: str | None,
    ratios: Sequence[float],
    limit: int | None,
    seed: int,
) -> tuple[list[AccuracyRow], dict[str, object]]:
    from prunepool.client import Client
    from prunepool.errors import ModelNotFound
    from prunepool.lab.images import find_images
    from prunepool.lab.served import evaluate_server

    with Client(url, api_key=api_key) as client, progress() as begin:
        served = {info.name: info for info in client.models()}
        info = served.get(model) if model else next(iter(served.values()))
        if info is None:
            raise ModelNotFound(f"no model named {model!r} is served; there are: {', '.join(served)}")
        images = find_images(folder, labels, [f"class {i}" for i in range(info.classes)])
        say_skipped(images.found, str(folder))
        images = images if limit is None else images.sample(limit, seed=seed)
        advance = begin("evaluating", len(images) * len({0.0, *ratios}))
        broken: list[str] = []
        rows = evaluate_server(
            client, images, ratios, model=info.name, seed=seed, advance=advance, broken=broken
        )
    say_broken(broken, len(images))
    document = {"model": info.name, "device": info.device, "dtype": info.dtype, "seed": seed, "url": url}
    return rows, {**document, "left_out": len(broken), "rows": [asdict(row) for row in rows]}
