"""`prunepool calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunepool.cli.accuracy import (
    BatchOption,
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
from prunepool.cli.options import UsageError, load_settings, with_flags
from prunepool.cli.terminal import say, say_skipped
from prunepool.errors import InvalidParameter
from prunepool.extras import needs_torch
from prunepool.reduction.methods import METHODS
from prunepool.store.manifest import PAPER

if TYPE_CHECKING:
    from prunepool.lab.calibrate import Calibrated
    from prunepool.lab.images import ImageSet
    from prunepool.models.loaded_model import LoadedModel
    from prunepool.store import StoredModel


class Keep(StrEnum):
    """What a calibration keeps: the split or the plans of the paper, or the plans of the profile."""

    SPLIT = "split"
    PLANS = "plans"
    PROFILE = "profile"


#: Results so far, in the model's folder until the profile is written.
JOURNAL = "calibration.jsonl"
#: Methods whose plans are tried by default: the paper's, and the one that has won on every model so far.
_DEFAULT_METHODS = "ppt,fuse"
#: Images below which a difference of a point between two plans is noise.
_FEW_IMAGES = 200


@with_flags("model_store", "device", "dtype")
def calibrate(
    flags: Mapping[str, str],
    model: Annotated[str, typer.Argument(help="Its name in the store, or a folder.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images.", metavar="DIR")] = None,
    labels: LabelsOption = None,
    report_images: Annotated[
        Path | None,
        typer.Option(
            help="Measure on these images; by default, on the half not used for choosing.", metavar="DIR"
        ),
    ] = None,
    report_labels: Annotated[
        str | None, typer.Option(help="Their labels, as --labels.", metavar="CSV|folders")
    ] = None,
    ratios: Annotated[
        str | None,
        typer.Option(help="Choose a plan for each of these ratios, with at most the GMACs of the paper's."),
    ] = None,
    methods: Annotated[
        str, typer.Option(help=f"Reduction methods to try plans of: {', '.join(METHODS)}.", metavar="NAMES")
    ] = _DEFAULT_METHODS,
    keep: Annotated[
        Keep | None,
        typer.Option(
            help="split: keep the paper's split of tokens over blocks and choose only the method. plans: keep the "
            "paper's plans and only measure. profile: keep the profile and only time its plans here; no images."
        ),
    ] = None,
    speed_rounds: Annotated[
        int, typer.Option(min=0, help="Rounds in which each plan is timed; 0 to skip.")
    ] = 5,
    limit: LimitOption = None,
    batch_size: BatchOption = 64,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
    plot: Annotated[Path | None, typer.Option(help="Draw before and after here.", metavar="FILE.png")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the choice without writing to the model.")
    ] = False,
) -> None:
    """Choose a model's plans by their accuracy, and write its profile.

    One half of the images chooses the plans whose predictions differ least from the dense model's; the other half
    measures them. With --keep plans, all images measure. After an interruption, the same command continues.
    """
    check_plot(plot)
    needs_torch("calibrate")
    if keep is Keep.PROFILE:
        _time(model, flags, speed_rounds, json_file, dry_run)
        return
    if images is None:
        raise UsageError("--images is needed, a folder of them")
    tried = tuple(name.strip() for name in methods.split(","))
    for name in tried:
        if name not in METHODS:
            raise InvalidParameter("method", name, ", ".join(METHODS))
    import numpy as np

    from prunepool.lab.calibrate import GRID
    from prunepool.lab.calibrate import calibrate as run
    from prunepool.lab.images import crops, find_images
    from prunepool.lab.journal import open_journal
    from prunepool.models.preprocess import preprocess_of
    from prunepool.store import open_store

    wanted = tuple(numbers("--ratios", ratios)) if ratios is not None else GRID
    if report_labels is not None and report_images is None:
        raise UsageError("--report-labels needs --report-images")
    store = open_store(load_settings(flags).model_store)
    stored = store.open(model)
    if stored.manifest.reduction.method == PAPER and keep is not Keep.PLANS:
        raise InvalidParameter(f"reduction.method of {model}", PAPER, "another one, or go with --keep plans")
    loaded = load(model, flags)
    classes = loaded.manifest.labels
    found = find_images(images, labels, classes)
    say_skipped(found.found, str(images))
    found = found if limit is None else found.sample(limit, seed=seed)
    if keep is Keep.PLANS and report_images is None:
        choose_set, report_set = found.subset(np.arange(0)), found
    elif report_images is None:
        choose_set, report_set = _halves(found, seed)
    else:
        choose_set, _ = _halves(found, seed, parts=1)
        report_set = find_images(report_images, report_labels, classes)
        say_skipped(report_set.found, str(report_images))
    _warn_if_few(len(choose_set) + len(report_set))
    prepare = preprocess_of(loaded.manifest)
    path = store.work_file(stored, JOURNAL)
    broken: list[str] = []
    with progress() as begin, open_journal(path) as journal:
        choose_crops = list(crops(choose_set, prepare, batch_size, broken))
        report_crops = list(crops(report_set, prepare, batch_size, broken))
        say_broken(broken, len(choose_set) + len(report_set))
        result = run(
            loaded,
            choose_crops,
            report_crops,
            journal=journal,
            begin=begin,
            seed=seed,
            ratios=tuple(ratio for ratio in wanted if ratio),
            keep=None if keep is None else "split" if keep is Keep.SPLIT else "plans",
            methods=tried,
            speed_rounds=speed_rounds,
        )
    chosen_on, measured_on = (
        sum(len(part.pixels) for part in parts) for parts in (choose_crops, report_crops)
    )
    images_of = {"chosen_on": chosen_on, "measured_on": measured_on, "labels": labels is not None}
    written = None
    try:  # what was measured is neither lost with a reader of the output nor with a file that cannot be written
        if not dry_run:
            found_out = {"profile": tuple(result.points), "geometry": loaded.geometry}
            written = store.update_manifest(model, loaded.manifest, found_out)
            path.unlink(missing_ok=True)
        save_json({**images_of, **_document(loaded, result, seed)}, json_file)
        if plot is not None:
            from prunepool.lab.accuracy_plot import draw

            title = f"{loaded.name}, images it was not chosen on"
            draw([*result.before, *result.after[1:]], plot, title=title)
    finally:
        _print(result)
    if written is not None:
        say(f"the profile of {model} is written: {len(result.points)} points{_copied(stored, written)}")


def _time(name: str, flags: Mapping[str, str], rounds: int, json_file: Path | None, dry_run: bool) -> None:
    """Time the plans of a model's profile on this machine, and write how fast they are into it."""
    from prunepool.lab.environment import environment
    from prunepool.lab.plan_speed import timed
    from prunepool.store import open_store

    if not rounds:
        raise UsageError("--keep profile only times, and --speed-rounds 0 leaves that out")
    store = open_store(load_settings(flags).model_store)
    stored = store.open(name)
    if not any(point.removed for point in stored.manifest.profile or ()):
        raise InvalidParameter(f"profile of {name}", "none", "there: calibrate without --keep profile")
    loaded = load(name, flags)
    points = timed(loaded, loaded.manifest.profile or (), rounds=rounds)
    for point in points:
        if point.speed is not None:
            where = f"{point.speed.device}, {point.speed.dtype}, batch {point.speed.batch}"
            say(f"{point.ratio:.4g}  {point.gmacs:.3f} GMACs  ×{point.speed.speedup:.2f}  {where}")
    found = [point.model_dump(mode="json", exclude_none=True) for point in points]
    save_json({"model": name, "environment": environment(loaded.device), "points": found}, json_file)
    if not dry_run:
        found_out = {"profile": points, "geometry": loaded.geometry}
        written = store.update_manifest(name, loaded.manifest, found_out, depends_on=("profile",))
        say(f"the profile of {name} says how fast its plans are here{_copied(stored, written)}")


def _warn_if_few(count: int) -> None:
    """Say in a line that so few images decide nothing, if they are few."""
    if count < _FEW_IMAGES:
        say(
            f"prunepool: warning: {count} images are few: each is a point or more of what is measured; take "
            f"{_FEW_IMAGES} or more, as the model will see them",
            error=True,
        )


def _copied(stored: StoredModel, written: StoredModel) -> str:
    """Say where the copy of a packaged model is, which is read-only itself; nothing for other models."""
    return f"; it is a copy now, in {written.folder}" if stored.packaged else ""


def _halves(images: ImageSet, seed: int, parts: int = 2) -> tuple[ImageSet, ImageSet]:
    """Split images at random into those to choose on and those to report on; with one part, choose on all."""
    import numpy as np

    from prunepool.lab.statistics import halves

    if parts == 1:
        order = np.random.default_rng(seed).permutation(len(images))
        return images.subset(order), images.subset(order[:0])
    if len(images) < 2:
        raise InvalidParameter("images", len(images), "2 or more, half to choose on and half to measure on")
    choose, report = halves(images.labels, len(images), seed=seed)
    return images.subset(choose), images.subset(report)


def _print(result: Calibrated) -> None:
    """Print the plans that were tried, and the figures before and after."""
    for shape, losses in sorted(result.tried.items(), key=lambda item: sum(item[1])):
        say(f"tried  {' '.join(f'{loss:.4f}' for loss in losses)}  {shape.name}")
    rows, names = [result.before[0]], ["dense"]
    for choice, before, after in zip(result.choices, result.before[1:], result.after[1:], strict=True):
        if before.plan != after.plan:
            rows.append(before)
            names.append(f"PPT {choice.ratio:g}")
        rows.append(after)
        names.append(choice.shape.name)
    print_rows(rows, names)


def _document(model: LoadedModel, result: Calibrated, seed: int) -> dict[str, object]:
    from prunepool.lab.evaluate import report

    document = report(model, result.after, seed=seed)
    return {
        **document,
        "before": [asdict(row) for row in result.before],
        "shapes": [asdict(choice.shape) | {"loss": choice.loss} for choice in result.choices],
        "tried": [asdict(shape) | {"losses": losses} for shape, losses in result.tried.items()],
    }
