"""`prunepool train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunepool.cli.accuracy import ImagesOption, LabelsOption, LimitOption, SeedOption, progress
from prunepool.cli.options import UsageError, load_settings, with_flags
from prunepool.cli.terminal import say, say_skipped
from prunepool.errors import InvalidParameter
from prunepool.extras import needs_torch

if TYPE_CHECKING:
    from prunepool.lab.images import ImageSet
    from prunepool.models.loaded_model import LoadedModel
    from prunepool.settings import Settings

#: As in the paper's fine-tuning.
_EPOCHS = 30


@with_flags("model_store", "device", "dtype")
def train(
    flags: Mapping[str, str],
    model: Annotated[
        str | None,
        typer.Argument(help="Start from this model's weights: name in the store, or a folder."),
    ] = None,
    *,
    name: Annotated[str, typer.Option(help="Name of the result in the store.")],
    images: ImagesOption,
    labels: LabelsOption = None,
    teacher: Annotated[
        str | None, typer.Option(help="Distil from this model; labels are optional then.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Without MODEL: start from random weights of this timm architecture.")
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="With --architecture: names of the classes, .txt or .json; by default the teacher's."
        ),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.0, max=1e6, help="Epochs.")] = _EPOCHS,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps, instead of --epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-5,
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which the learning rate rises to --lr.")] = 0,
    optimiser: Annotated[str, typer.Option(help="adamw, or muon: AdamW, but Muon for the blocks.")] = "adamw",
    weight_decay: Annotated[float, typer.Option(help="Weight decay of matrices.")] = 0.02,
    ema: Annotated[
        float,
        typer.Option(help="Decay of the exponential moving average of the weights, which is the result."),
    ] = 0.999,
    label_share: Annotated[
        float, typer.Option(help="Weight of the labels in the loss if there is a teacher.")
    ] = 0.4,
    feature_weight: Annotated[
        float, typer.Option(help="Weight of the hidden states of a teacher of the same depth and width.")
    ] = 1.0,
    patches: Annotated[
        int | None, typer.Option(help="Train on this many random patches of each image; by default on all.")
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Reduction ratios, comma-separated; one is drawn for each batch.")
    ] = "0",
    method: Annotated[str, typer.Option(help="Reduction method.")] = "ppt",
    threshold: Annotated[float, typer.Option(help="Score variance from which ppt prunes.")] = 6e-5,
    min_area: Annotated[
        float, typer.Option(help="Smallest share of a photo that a random crop shows.")
    ] = 0.25,
    jitter: Annotated[float, typer.Option(help="Jitter of brightness and contrast.")] = 0.2,
    mix: Annotated[float, typer.Option(help="Share of batches with mixup or CutMix.")] = 0.0,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    workers: Annotated[int, typer.Option(min=1, help="Decoding threads.")] = 2,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of checkpoint and journal; by default runs/NAME.", metavar="DIR"),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Ignore an existing checkpoint.")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=1.0, help="Seconds between checkpoints.")] = 300.0,
    report_every: Annotated[int, typer.Option(min=1, help="Steps between reports of the losses.")] = 50,
    weights: Annotated[
        str, typer.Option(help="Dtype of the stored weights: float32, float16 or bfloat16.")
    ] = "float32",
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="License of the result.")
    ] = "unknown",
    origin: Annotated[
        str | None, typer.Option(help="Source of the result; by default described by the command.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name.")] = False,
) -> None:
    """Train a model on a folder of images, with labels, a teacher or both, and add it to the store.

    After an interruption, the same command continues, and ends with the same weights. The defaults are those of the
    paper's fine-tuning; `--ratios 0,0.755` trains with reduced tokens in half of the batches.
    """
    settings = load_settings(flags)
    if (model is None) == (architecture is None):
        raise UsageError("give either MODEL or --architecture")
    if labels is None and teacher is None:
        raise UsageError("give --labels, --teacher or both")
    needs_torch("train")
    from prunepool.store import open_store

    store = open_store(settings.model_store)
    if not force:
        store.check_free(name)
    from prunepool.lab.images import find_images
    from prunepool.lab.training.precision import amp_dtype
    from prunepool.lab.training.recipe import Recipe
    from prunepool.lab.training.run import CHECKPOINT
    from prunepool.lab.training.run import train as run
    from prunepool.lab.training.student import check_dtype, keep
    from prunepool.lab.training.trainer import Trainer

    check_dtype(weights)
    taught = None if teacher is None else _load(teacher, settings)
    if model is not None:
        student = _load(model, settings)
    else:
        student = _new(architecture, name, class_names, taught, settings, seed)
    found = find_images(images, labels, student.manifest.labels)
    say_skipped(found.found, str(images))
    found = found if limit is None else found.sample(limit, seed=seed)
    recipe = Recipe(
        steps=steps or max(1, round(epochs * len(found) / batch_size)),
        batch_size=batch_size,
        lr=lr,
        warmup=warmup,
        optimiser=optimiser,  # type: ignore[arg-type]
        weight_decay=weight_decay,
        ema=ema,
        label_share=label_share,
        feature_weight=feature_weight,
        patches=patches,
        ratios=_ratios(ratios),
        method=method,
        threshold=threshold,
        min_area=min_area,
        jitter=jitter,
        mix=mix,
        seed=seed,
    )
    trainer = Trainer(student, taught, recipe, amp=amp_dtype(settings.dtype, student))
    folder = run_folder or Path("runs") / name
    if restart:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    with progress() as begin:
        run(
            trainer,
            found,
            folder,
            report=lambda line: say(str(line)),
            advance=begin("steps", recipe.steps),
            report_every=report_every,
            checkpoint_seconds=checkpoint_seconds,
            workers=workers,
        )
    source = origin or _origin(model, taught, images, found)
    added = keep(store, trainer.average, student.manifest, name, licence, source, weights, replace=force)
    for notice in added.notices:
        say(notice)
    say(f"{name} is in {store.root}: {recipe.steps} steps of {batch_size} images; {folder} may be deleted")


def _load(name: str, settings: Settings) -> LoadedModel:
    from prunepool.models.loader import load_model

    return load_model(name, device=settings.device, dtype="float32", store=settings.model_store)


def _new(
    architecture: str | None,
    name: str,
    class_names: Path | None,
    teacher: LoadedModel | None,
    settings: Settings,
    seed: int,
) -> LoadedModel:
    """Make a student with random weights; classes and input are the teacher's if there is one."""
    from prunepool.lab.training.student import new_student
    from prunepool.models.label_files import read_labels

    assert architecture is not None
    if class_names is None and teacher is None:
        raise UsageError("--architecture needs --class-names or --teacher, for the names of the classes")
    like = None if teacher is None else teacher.manifest
    labels = read_labels(class_names) if class_names else like.labels if like else ()
    return new_student(architecture, name, labels, like, settings.device, seed)


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidParameter("ratios", text, "comma-separated numbers") from None


def _origin(model: str | None, teacher: LoadedModel | None, images: Path, found: ImageSet) -> str:
    """Describe the source of the result, for the manifest."""
    start = "random weights" if model is None else Path(model).name
    taught = "" if teacher is None else f", taught by {teacher.name}"
    return f"trained with prunepool from {start}{taught}, on {len(found)} images of {images.name or images}"
