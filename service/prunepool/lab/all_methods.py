"""Every reduction method at equal cost: `python -m prunepool.lab.all_methods MODEL --images DIR` (make methods)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import torch
import typer
from rich.console import Console
from rich.table import Table

from prunepool.errors import InvalidParameter
from prunepool.lab.accuracy_plot import draw
from prunepool.lab.accuracy_row import DENSE_ROW, AccuracyRow
from prunepool.lab.evaluate import Setting, cheapest_within, evaluate, report
from prunepool.lab.images import crops, find_images
from prunepool.lab.shapes import Shape
from prunepool.lab.timing import Sample, take_turns
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.models.preprocess import preprocess_of
from prunepool.reduction.diffrate import TOKENS
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, ReductionPlan, default_blocks, max_removed
from prunepool.reduction.step import Reduced, StepInputs
from prunepool.store import Geometry

#: Costs in GMACs of a network that takes 1.25 without reduction, as shares of it.
SHARES = (0.758, 0.638, 0.55, 0.5025, 0.4335)
#: Images and rounds of the timing of one step.
_IMAGES, _ROUNDS = 8, 15


def plan_within(method: str, gmacs: float, geometry: Geometry) -> ReductionPlan | None:
    """The plan of a method that costs most within a limit.

    Args:
        method: a name in :data:`prunepool.reduction.methods.METHODS`.
        gmacs: the limit.
        geometry: of the network.

    Returns:
        By the method's own blocks with an even split, or with one that falls from block to block; from the
        second block to the last but one where those cannot save as much; None if neither can. No plan removes
        more than the paper's can. DiffRate's has the published proportions.
    """
    depth, patches = geometry.depth, geometry.patches
    tried = (default_blocks(depth, method), tuple(range(1, depth - 1)))
    shapes = [Shape(method, method, blocks, shares=(1.0,) * len(blocks)) for blocks in tried]
    if method == "diffrate" and depth == len(TOKENS[2.3]) - 1:
        gone = [before - after for before, after in pairwise(TOKENS[2.3])]
        blocks = tuple(block for block, count in enumerate(gone) if count)
        shapes.insert(0, Shape(method, method, blocks, shares=tuple(float(gone[block]) for block in blocks)))
    for shape in shapes:
        most = max_removed(patches, min(3, len(shape.blocks)))
        try:
            return cheapest_within(
                gmacs,
                lambda removed, shape=shape: shape.plan(removed, patches),  # type: ignore[misc]
                most,
                geometry,
            )
        except InvalidParameter:
            if (steep := shape.within(gmacs, most, geometry)) is not None:
                return steep.plan(most, patches)
    return None


def settings_at(methods: Sequence[str], geometry: Geometry, shares: Sequence[float]) -> list[Setting]:
    """The dense model, then each method at each share of its cost that it can reach."""
    dense = geometry.gmacs(DENSE)
    settings = [Setting(DENSE_ROW, 0.0, DENSE)]
    for method in methods:
        for share in shares:
            plan = plan_within(method, share * dense, geometry)
            if plan is not None:
                settings.append(Setting(method, sum(plan.removed) / geometry.patches, plan))
    return settings


def settings_by(plans: str, methods: Sequence[str], geometry: Geometry) -> list[Setting]:
    """The dense model, then each plan with each method.

    Args:
        plans: comma-separated, each as `3-10:160:0.7975`: first and last block, tokens removed in all, and the cost
            in GMACs that it may have; removals fall from block to block, as late as that allows.
        methods: their names.
        geometry: of the network.

    Raises:
        InvalidParameter: a plan is not written like that, or its blocks cannot save as much; names it.
    """
    settings = [Setting(DENSE_ROW, 0.0, DENSE)]
    for text in plans.split(","):
        found = re.fullmatch(r"(\d+)-(\d+):(\d+):([\d.]+)", text.strip())
        if found is None:
            raise InvalidParameter("plans", text, "first-last:removed:GMACs, as 3-10:160:0.7975")
        blocks = tuple(range(int(found[1]), int(found[2]) + 1))
        removed = int(found[3])
        for method in methods:
            shape = Shape(method, method, blocks).within(float(found[4]), removed, geometry)
            if shape is None:
                raise InvalidParameter("plans", text, "one whose blocks can save as much")
            plan = shape.plan(removed, geometry.patches)
            settings.append(Setting(method, removed / geometry.patches, plan))
    return settings


@torch.inference_mode()
def time_steps(model: LoadedModel, methods: Sequence[str], images: torch.Tensor) -> dict[str, Sample]:
    """How long a step of each takes, in turns, on what real images give it at the first quarter of the blocks.

    Args:
        model: to run.
        methods: their names.
        images: normalised, [B, 3, H, W].
    """
    seen: list[StepInputs] = []

    def note(inputs: StepInputs) -> Reduced:
        seen.append(inputs)
        return METHODS["prune"].load()(inputs)

    geometry = model.geometry
    block, removed = geometry.depth // 4, geometry.patches // 9
    type(model.vit)(model.vit.vit, note)(
        images, [(ReductionPlan((block,), (removed,), (7e-5,), "prune"), len(images))]
    )
    inputs = seen[0]
    steps = {method: METHODS[method].load() for method in methods}
    wait = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    return take_turns(
        {method: lambda step=step: step(inputs) for method, step in steps.items()},  # type: ignore[misc]
        _ROUNDS,
        wait=wait,
    )


def _rows_of(rows: Sequence[AccuracyRow], times: Mapping[str, Sample]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        kl, (low, high) = row.figures.kl, row.figures.intervals["kl"]
        known = METHODS.get(row.method)
        yield (
            row.method if known is None else known.title,
            f"{row.gmacs:.3f}",
            f"{kl:.4f} ({low:.4f}–{high:.4f})",
            f"{row.figures.agreement:.1%}",
            f"{row.figures.drop:+.1f}",
            f"{1000 * times[row.method].median:.2f}" if row.method in times else "",
        )


def main(
    model: Annotated[str, typer.Argument(help="Its name in the store, or a folder.")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    labels: Annotated[str | None, typer.Option(help="CSV, or 'folders'.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Folder of the models.")] = None,
    methods: Annotated[str, typer.Option(help="Names, comma-separated.")] = ",".join(METHODS),
    plans: Annotated[
        str | None,
        typer.Option(help="Instead of equal costs, these plans, as 3-10:160:0.7975,2-10:176:0.6275."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take so many of the images, at random.")] = None,
    every_second: Annotated[
        bool,
        typer.Option(
            help="Leave out the first, third … by name, which the constants of ours were chosen on."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, and of the limit.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write all figures here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the trade-off here.")] = None,
) -> None:
    """Measure every method on the same images, at the same costs, without calibration."""
    loaded = load_model(model, device="cpu", dtype="float32", store=model_store)
    found = find_images(images, labels, loaded.manifest.labels)
    if every_second:
        found = found.subset(np.argsort([file.name for file in found.files])[1::2])
    wanted = found if limit is None else found.sample(limit, seed=seed)
    chosen = methods.split(",")
    geometry = loaded.geometry
    settings = settings_by(plans, chosen, geometry) if plans else settings_at(chosen, geometry, SHARES)
    batches = list(crops(wanted, preprocess_of(loaded.manifest), 64))
    pixels = torch.from_numpy(batches[0].pixels[:_IMAGES])
    times = time_steps(loaded, chosen, loaded.normalise(pixels))
    rows = evaluate(loaded, batches, settings, seed=seed)
    table = Table("method", "GMACs", "KL", "agreement", "points lost", "step, ms", box=None)
    for row in _rows_of(rows, times):
        table.add_row(*row)
    try:
        if json is not None:
            document = {**report(loaded, rows, seed=seed), "every_second": every_second, "steps": times}
            json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        if plot is not None:
            draw(rows, plot, title=loaded.name)
    finally:
        Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
