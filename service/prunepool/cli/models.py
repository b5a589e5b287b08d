"""`prunepool models`: list, show, add, pull, compile, verify and remove models of the store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from prunepool.cli import models_output as output
from prunepool.cli.models_input import ForceOption, JsonOption, check_within, per_channel, store_of
from prunepool.cli.options import UsageError, with_flags
from prunepool.cli.terminal import say, say_json, shown
from prunepool.errors import ModelNotFound, PrunepoolError
from prunepool.extras import needs_torch
from prunepool.store import ModelStore
from prunepool.store.compiled import WeightFormat
from prunepool.store.folders import exists, what_is_at

Flags = Mapping[str, str]

models_app = typer.Typer(
    name="models",
    help="List, show, add, pull, compile, verify and remove models of the store.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@models_app.command("list")
@with_flags("model_store")
def list_models(flags: Flags, as_json: JsonOption = False) -> None:
    """List the models, and say where each is."""
    store = store_of(flags)
    rows = [output.row(store, name) for name in store.names()]
    if as_json:
        say_json(rows, indent=2)
    elif rows:
        output.print_table(rows, store)
    else:
        missing = "" if exists(store.root, Path.is_dir) else f", because {what_is_at(store.root)}"
        say(f"no models in {store.root}{missing}; --model-store names another")


@models_app.command()
@with_flags("model_store")
def show(
    flags: Flags,
    name: Annotated[str, typer.Argument(help="Name in the store, or a folder with a model.json.")],
    as_json: JsonOption = False,
) -> None:
    """Show a model: manifest, size, the limit of its ratio, licence, measured profile."""
    model = store_of(flags).open(name)
    if as_json:
        say_json(output.details(model), indent=2)
    else:
        output.print_details(model)


@models_app.command()
@with_flags("model_store")
def add(
    flags: Flags,
    path: Annotated[
        Path,
        typer.Argument(
            help="Weights: .safetensors, or a checkpoint of torch.save; or a folder with a config.json, as "
            "transformers and timm save models.",
            exists=True,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the model in the store; of a folder, by default the folder's.")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            help="timm's name; with a tag, mean, std and crop default to those of the tag. A folder's config.json "
            "says it itself."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Names of the classes: .txt with one a line, .csv with indices and names, or .json as Hugging "
            "Face, timm and torchvision have it. Without it ImageNet's, where their number is the same, else "
            "'class 0', ….",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    input_size: Annotated[int | None, typer.Option(help="Input resolution: pixels per side.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Per channel, of pixels from 0 to 1: 0.5 or 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Per channel, like the mean.")] = None,
    crop_pct: Annotated[
        float | None, typer.Option(help="Share of the resized side that the centre crop keeps.")
    ] = None,
    crop_mode: Annotated[
        Literal["center", "squash", "border"] | None,
        typer.Option(help="What becomes of a picture's longer side: cut, squashed, or kept between borders."),
    ] = None,
    interpolation: Annotated[
        Literal["nearest", "bilinear", "bicubic", "lanczos"] | None,
        typer.Option(help="Interpolation of the resize."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", "--license", help="License of the weights; by default that of a folder's README.md."
        ),
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="Source of the weights; by default the name of the file.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check weights from a file or a folder and copy them into the store."""
    given: dict[str, Any] = {
        "mean": per_channel("mean", mean, 0.0),
        "std": per_channel("std", std, 1e-6),
        "input_size": input_size,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": interpolation,
        "licence": licence,
    }
    check_within("input-size", input_size, 16, 4096)
    check_within("crop-pct", crop_pct, 0.01, 1)
    if path.is_dir():
        if architecture is not None:
            raise UsageError("--architecture is for a file of weights; a folder's config.json says it")
    elif name is None or architecture is None:
        raise UsageError(
            "a file of weights needs --name and --architecture; a folder's config.json says them"
        )
    name = name or path.resolve().name
    store = store_of(flags)
    if not force:
        store.check_free(name)  # before timm is imported, which takes seconds
    needs_torch("models add")
    from prunepool.models.add import add_file
    from prunepool.models.add_folder import add_folder, description_of
    from prunepool.models.catalogue import description_of_entry, look_up
    from prunepool.models.label_files import read_labels
    from prunepool.models.model_folder import read_folder

    if labels is not None:
        given["labels"] = read_labels(labels)
    origin = origin or f"{'folder' if path.is_dir() else 'file'} {shown(path.resolve().name)}"
    options = {key: value for key, value in given.items() if value is not None}
    options["resample"] = input_size is not None
    if architecture is None:
        folder = read_folder(path)
        description = replace(description_of(folder, name, origin), **options)
        added = add_folder(store, folder, description, replace=force)
    else:
        description = replace(description_of_entry(look_up(architecture), name, origin), **options)
        added = add_file(store, path, description, replace=force)
    _print_added(store, name, added.notices, as_json=as_json)


@models_app.command()
@with_flags("model_store")
def pull(
    flags: Flags,
    reference: Annotated[
        str,
        typer.Argument(
            help="timm's name, such as deit_small_patch16_224.fb_in1k; or a repository, OWNER/NAME or "
            "OWNER/NAME@REVISION, with a model of transformers or timm.",
            metavar="NAME",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the model in the store; by default that on the hub.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Download published weights from the model hub into the store."""
    store = store_of(flags)
    needs_torch("models pull")
    from prunepool.models.hub import Hub
    from prunepool.models.pull import pull as run

    added = run(store, reference, hub=Hub.from_environment(), name=name, replace=force)
    _print_added(store, added.model.manifest.name, added.notices, as_json=as_json)


@models_app.command("compile")
@with_flags("model_store")
def compile_model(
    flags: Flags,
    name: Annotated[str, typer.Argument(help="Name in the store, or a folder with a model.json.")],
    weights: Annotated[
        str, typer.Option(help="Number formats of the weights, comma-separated: int8, float16, float32.")
    ] = "int8,float16",
    as_json: JsonOption = False,
) -> None:
    """Convert a model for OpenVINO, to be served on a CPU without PyTorch; needs PyTorch and OpenVINO itself."""
    formats = _weight_formats(weights)
    needs_torch("compiling")
    store = store_of(flags)
    from prunepool.backends.openvino_compile import compile_stored

    compiled = compile_stored(store, name, formats)
    summary = output.compiled_row(compiled)
    if as_json:
        say_json(summary, indent=2)
        return
    for file, size in summary["files"].items():
        say(f"{file}: {size:,} bytes")
    say(f"{name} compiled with OpenVINO {summary['openvino']} in {compiled.folder}")


def _weight_formats(text: str) -> list[WeightFormat]:
    """The formats of a comma-separated list, without repetition."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    known: tuple[WeightFormat, ...] = get_args(WeightFormat)
    formats = [one for one in known if one in names]
    unknown = [one for one in names if one not in known]
    if unknown or not names:
        raise UsageError(f"--weights must be of {', '.join(known)}; got {unknown[0] if unknown else text!r}")
    return formats


@models_app.command()
@with_flags("model_store")
def verify(
    flags: Flags,
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to verify; by default all in the store.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare weights with their manifests: sha256, classes and labels, sizes."""
    store = store_of(flags)
    names = names or list(store.names())
    if not names and not exists(store.root, Path.is_dir):
        raise ModelNotFound(f"no models in {store.root}: {what_is_at(store.root)}")
    problems = {name: _problem(store, name) for name in names}
    if as_json:
        say_json(
            [{"name": n, "ok": not problem, "error": problem} for n, problem in problems.items()], indent=2
        )
    elif not problems:
        say(f"no models in {store.root}")
    for name, problem in problems.items():
        if problem:
            say(f"prunepool: {problem}", error=True)
        elif not as_json:
            say(f"{name}: ok")
    if any(problems.values()):
        raise typer.Exit(1)


@models_app.command()
@with_flags("model_store")
def remove(
    flags: Flags,
    name: Annotated[str, typer.Argument(help="Name in the store.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a model from the store."""
    store = store_of(flags)
    store.check_removable(name)
    if as_json and not yes:
        raise UsageError("--json does not ask for confirmation, so it needs --yes")
    if not yes and not typer.confirm(shown(f"Delete {store.root / name} and its weights?"), err=True):
        say(f"{name} is kept", error=True)
        raise typer.Exit(1)
    store.remove(name)
    if as_json:
        say_json({"removed": name}, indent=2)
    else:
        say(f"{name} removed")


def _problem(store: ModelStore, name: str) -> str | None:
    """Read all weights of a model; return what is wrong with it, or None."""
    try:
        with _hashing(store, name) as advance:
            store.verify(name, advance)
    except ModelNotFound:
        raise
    except PrunepoolError as error:
        return error.detail
    except OSError as error:
        return f"{store.root / name}: cannot be read ({error.strerror or error})"
    return None


@contextmanager
def _hashing(store: ModelStore, name: str) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if stderr is a terminal; yield a function that advances it by bytes."""
    total = store.open(name).weights_path.stat().st_size
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=output.stderr(), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task(shown(name), total=total)
        yield lambda count: progress.advance(task, count)


def _print_added(store: ModelStore, name: str, notices: tuple[str, ...], *, as_json: bool) -> None:
    for notice in notices:
        say(f"note: {notice}", error=True)
    summary = output.row(store, name)
    if as_json:
        say_json(summary, indent=2)
        return
    say(
        f"{name} added to {store.root}: {summary['architecture']}, {summary['classes'] or 'no'} classes, "
        f"{summary['parameters']:,} parameters, licence {summary['licence']}"
    )
    say(f"its images are {output.preprocessing(store.open(name).manifest)}")
