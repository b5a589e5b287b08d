"""A training run from start to end: batches, checkpoints, a journal of steps, and the resulting weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import orjson

from prunepool.errors import InvalidParameter, ModelError
from prunepool.lab.images import ImageSet
from prunepool.lab.training.checkpoint import load_checkpoint, save_checkpoint
from prunepool.lab.training.report import Report
from prunepool.lab.training.trainer import Step, Trainer
from prunepool.lab.training.views import views

CHECKPOINT = "checkpoint.pt"
#: One JSON object for each report, with the mean losses since the last.
JOURNAL = "steps.jsonl"


def train(
    trainer: Trainer,
    images: ImageSet,
    folder: Path,
    *,
    report: Callable[[Report], object],
    advance: Callable[[int], object],
    report_every: int = 50,
    checkpoint_seconds: float = 300.0,
    workers: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train to the last step, starting from the folder's checkpoint if there is one.

    Args:
        trainer: a new one.
        images: the training images.
        folder: for the checkpoint and the journal.
        report: called with a summary of every `report_every` steps.
        advance: advances a progress bar.
        report_every: steps between two reports.
        checkpoint_seconds: seconds between checkpoints; another is written at the end and on interruption.
        workers: number of decoding threads.
        clock: a monotonic clock, in seconds.

    Raises:
        InvalidParameter: the checkpoint is of another recipe, or of other images.
        ModelError: the loss is NaN or infinite, or a checkpoint cannot be read or written.
        ImageUndecodable: a file is not an image.
    """
    path = folder / CHECKPOINT
    if path.exists():
        _resume(trainer, images, path)
    advance(trainer.step)

    def save() -> None:
        save_checkpoint({**trainer.state(), "images": len(images)}, path)

    size, recipe = trainer.model.manifest.input_size, trainer.recipe
    since: list[Step] = []
    saved = reported = clock()
    batches = views(images, size, recipe, start=trainer.step, workers=workers)
    try:
        for step in trainer.run(batches):
            since.append(step)
            advance(1)
            if trainer.step % report_every == 0 or trainer.step == recipe.steps:
                now = clock()
                told = Report.of(since, now - reported, recipe.batch_size)
                _write(folder / JOURNAL, told)
                report(told)
                since, reported = [], now
            if clock() - saved >= checkpoint_seconds:
                save()
                saved = clock()
    except ModelError:
        raise  # the last checkpoint is better than weights that are no numbers
    except BaseException:
        # In the middle of an update, some weights are one step ahead of the others.
        if trainer.whole:
            save()
        raise
    finally:
        batches.close()
    save()


def _resume(trainer: Trainer, images: ImageSet, path: Path) -> None:
    state = load_checkpoint(path)
    if state.get("images") != len(images):
        raise InvalidParameter(
            "images", len(images), f"the {state.get('images')} of the run in {path.parent}"
        )
    trainer.resume(state)


def _write(path: Path, report: Report) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(orjson.dumps(report.as_json()) + b"\n")
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}") from error
