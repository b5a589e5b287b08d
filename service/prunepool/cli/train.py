"""`prunepool train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunepool.cli.accuracy import ImagesOption, LabelsOption, LimitOption, SeedOption, progress
from prunepool.cli.options import UsageError, load_settings, with_flags
from prunepool.errors import InvalidParameter

if TYPE_CHECKING:
    from prunepool.lab.images import ImageSet
    from prunepool.models.model import Model
    from prunepool.settings import Settings

#: The paper's fine-tuning.
_EPOCHS = 30


@with_flags("model_store", "device", "dtype")
def train(
    flags: Mapping[str, str],
    model: Annotated[
        str | None,
        typer.Argument(help="Begin with this model's weights: its name in the store, or a folder."),
    ] = None,
    *,
    name: Annotated[str, typer.Option(help="What the result is called in the store.")],
    images: ImagesOption,
    labels: LabelsOption = None,
    teacher: Annotated[
        str | None, typer.Option(help="Learn to answer as this model does; labels are optional then.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Without MODEL: begin with random weights of this timm architecture.")
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(help="With --architecture: one name a class, .txt or .json; else the teacher's."),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0.0, help="How often each image is seen.")] = _EPOCHS,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the optimiser, in place of --epochs.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-5,
    warmup: Annotated[int, typer.Option(min=0, help="Steps in which it rises to that.")] = 0,
    optimiser: Annotated[str, typer.Option(help="adamw, or muon: AdamW, but Muon for the blocks.")] = "adamw",
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")] = 0.02,
    ema: Annotated[float, typer.Option(help="Decay of the average of the weights that is kept.")] = 0.999,
    label_share: Annotated[float, typer.Option(help="The labels' share of the loss beside a teacher.")] = 0.4,
    feature_weight: Annotated[
        float, typer.Option(help="Of the hidden states of a teacher of the same depth and width.")
    ] = 1.0,
    patches: Annotated[
        int | None, typer.Option(help="Show this many random patches of each image; all if not given.")
    ] = None,
    ratios: Annotated[
        str, typer.Option(help="Reduction ratios with commas between them, one drawn for each batch.")
    ] = "0",
    method: Annotated[str, typer.Option(help="Who leaves, as in a model's manifest.")] = "ppt",
    threshold: Annotated[float, typer.Option(help="Score variance from which ppt prunes.")] = 6e-5,
    min_area: Annotated[float, typer.Option(help="Least share of a photo that a random crop shows.")] = 0.25,
    jitter: Annotated[float, typer.Option(help="Of brightness and contrast.")] = 0.2,
    mix: Annotated[float, typer.Option(help="Share of batches with mixup or CutMix.")] = 0.0,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 2,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", help="Checkpoint and journal; runs/NAME if not given.", metavar="DIR"),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the checkpoint that is there.")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=1.0, help="Between checkpoints.")] = 300.0,
    report_every: Annotated[int, typer.Option(min=1, help="Steps between lines about the losses.")] = 50,
    weights: Annotated[
        str, typer.Option(help="float32, float16 or bfloat16: how they are stored.")
    ] = "float32",
    licence: Annotated[str, typer.Option("--licence", "--license", help="Of the result.")] = "unknown",
    origin: Annotated[
        str | None, typer.Option(help="Where the result came from; else written for you.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name.")] = False,
) -> None:
    """Train a model on a folder of images, with labels, a teacher or both, and put it into the store.

    It can be interrupted: the same call goes on where it stopped, and ends with the same weights. The defaults
    are the paper's fine-tuning; `--ratios 0,0.755` has tokens leave while it learns.
    """
    settings = load_settings(flags)
    if (model is None) == (architecture is None):
        raise UsageError("either MODEL or --architecture says where to begin")
    if labels is None and teacher is None:
        raise UsageError("without --labels there must be a --teacher")
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
            report=lambda told: typer.echo(str(told)),
            advance=begin("steps", recipe.steps),
            report_every=report_every,
            checkpoint_seconds=checkpoint_seconds,
            workers=workers,
        )
    said = origin or _origin(model, taught, images, found)
    admitted = keep(store, trainer.average, student.manifest, name, licence, said, weights, replace=force)
    for notice in admitted.notices:
        typer.echo(notice)
    typer.echo(
        f"{name} is in {store.root}: {recipe.steps} steps of {batch_size} images; {folder} may be deleted"
    )


def _load(name: str, settings: Settings) -> Model:
    from prunepool.models.loader import load_model

    return load_model(name, device=settings.device, dtype="float32", store=settings.model_store)


def _new(
    architecture: str | None,
    name: str,
    class_names: Path | None,
    teacher: Model | None,
    settings: Settings,
    seed: int,
) -> Model:
    """A student with random weights, of the teacher's classes and pixels where there is one."""
    from prunepool.lab.training.student import new_student
    from prunepool.models.labels import read_labels

    assert architecture is not None
    if class_names is None and teacher is None:
        raise UsageError("--architecture needs --class-names or a --teacher to know the classes")
    like = None if teacher is None else teacher.manifest
    labels = read_labels(class_names) if class_names else like.labels if like else ()
    return new_student(architecture, name, labels, like, settings.device, seed)


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidParameter("ratios", text, "numbers with commas between them") from None


def _origin(model: str | None, teacher: Model | None, images: Path, found: ImageSet) -> str:
    """One line for the manifest."""
    start = "random weights" if model is None else Path(model).name
    taught = "" if teacher is None else f", taught by {teacher.name}"
    return f"trained with prunepool from {start}{taught}, on {len(found)} images of {images.name or images}"
