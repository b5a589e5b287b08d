"""Measure other reduction steps at equal cost: `python -m prunepool.lab.experiments MODEL --images DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from prunepool.lab.accuracy_figures import AccuracyFigures, figures
from prunepool.lab.evaluate import cheapest_within
from prunepool.lab.fuse_variants import FUSE_VARIANTS
from prunepool.lab.images import Crops, crops, find_images
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.lab.variants import PPT_VARIANTS
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.models.preprocess import preprocess_of
from prunepool.reduction.plan import DENSE, ReductionPlan, default_blocks, max_removed, plan_for_ratio
from prunepool.reduction.step import Step

#: A name, a plan, and the step that carries it out; None for that of the plan's method.
Case = tuple[str, ReductionPlan, Step | None]


def cases(model: LoadedModel, ratio: float) -> list[Case]:
    """Every step with the plan that it is tried with; none costs more than PPT at this ratio."""
    found: list[Case] = []
    for method, steps in (("ppt", PPT_VARIANTS), ("fuse", FUSE_VARIANTS)):
        plan = _plan(model, method, ratio)
        found.append(("PPT" if method == "ppt" else "fuse", plan, None))
        # The variants use PPT's threshold, also at the blocks of fuse.
        plain = ReductionPlan(plan.blocks, plan.removed, (7e-5,) * len(plan.blocks))
        found += [(name, plain, step) for name, step in steps.items()]
    return found


def _plan(model: LoadedModel, method: str, ratio: float) -> ReductionPlan:
    geometry = model.geometry

    def make(removed: int, method: str = method) -> ReductionPlan:
        share = removed / geometry.patches
        return plan_for_ratio(share, patches=geometry.patches, depth=geometry.depth, method=method)

    limit = geometry.gmacs(make(round(ratio * geometry.patches), "ppt"))
    most = max_removed(geometry.patches, len(default_blocks(geometry.depth, method)))
    return cheapest_within(limit, make, most, geometry)


@torch.inference_mode()
def answers_of(
    model: LoadedModel, batches: Sequence[Crops], case: Case, dense: Sequence[torch.Tensor]
) -> ModelOutputs:
    """The outputs of a model that reduces by the step of a case."""
    _, plan, step = case
    network = type(model.vit)(model.vit.vit, step)
    parts = []
    for batch, logits in zip(batches, dense, strict=True):
        images = model.normalise(torch.from_numpy(batch.pixels).to(model.device))
        out = network(images, [(plan, len(images))]).logits
        parts.append(ModelOutputs.from_logits(out, logits, batch.labels))
    return ModelOutputs.join(parts)


def main(
    model: Annotated[str, typer.Argument(help="Its name in the store, or a folder.")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    labels: Annotated[str | None, typer.Option(help="CSV, or 'folders'.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Folder of the models.")] = None,
    ratio: Annotated[float, typer.Option(help="PPT's GMACs at this ratio are the limit.")] = 0.755,
    limit: Annotated[int | None, typer.Option(help="Take so many of the images, at random.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, and of the limit.")] = 0,
) -> None:
    """Measure every variant on the same images."""
    loaded = load_model(model, dtype="float32", store=model_store)
    manifest = loaded.manifest
    preprocess = preprocess_of(manifest)
    found_images = find_images(images, labels, manifest.labels)
    wanted = found_images if limit is None else found_images.sample(limit, seed=seed)
    batches = list(crops(wanted, preprocess, 64))
    dense_logits = [
        loaded(loaded.normalise(torch.from_numpy(batch.pixels).to(loaded.device))).logits for batch in batches
    ]
    dense = answers_of(loaded, batches, ("dense", DENSE, None), dense_logits)
    table = Table("step", "blocks", "GMACs", "KL", "agreement", "top-1", box=None)
    for case in track(cases(loaded, ratio), console=Console(stderr=True), transient=True):
        found = figures(answers_of(loaded, batches, case, dense_logits), dense, seed=seed)
        blocks = case[1].blocks
        where = f"{blocks[0]} … {blocks[-1]}" if len(blocks) > 3 else ", ".join(map(str, blocks))
        table.add_row(case[0], where, f"{loaded.geometry.gmacs(case[1]):.3f}", *_cells(found))
    Console(width=140).print(table)


def _cells(f: AccuracyFigures) -> tuple[str, str, str]:
    low, high = f.intervals["kl"]
    top1 = "" if f.top1 is None else f"{f.top1:.1%}"
    return f"{f.kl:.4f} ({low:.4f}–{high:.4f})", f"{f.agreement:.1%}", top1


if __name__ == "__main__":
    typer.run(main)
