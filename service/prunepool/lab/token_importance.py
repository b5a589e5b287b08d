"""What can stand for the class token where a network has none? `python -m prunepool.lab.token_importance MODEL …`.

A ViT with a class token is used without it: its features are average-pooled, and a linear head on them is fitted to
what its class token would give. Scores of importance are then compared by what is left of that
head's dense answers at equal cost: with the class token taken out of the sequence (as in SigLIP's or I-JEPA's
networks), or left in it unread (as in BEiT's and EVA-02's).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import timm
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.lab.accuracy_figures import figures
from prunepool.lab.environment import environment
from prunepool.lab.evaluate import cheapest_within
from prunepool.lab.images import ImageSet, crops, find_images
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.loader import load_model
from prunepool.models.preprocess import preprocess_of
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import DENSE, ReductionPlan, default_blocks, max_removed, plan_for_ratio
from prunepool.reduction.scoring import token_scores
from prunepool.reduction.step import Reduced, Step, StepInputs

_BATCH = 50
#: Of the fit of the linear head, in shares of the features' mean variance.
_RIDGE = 0.01

Score = Callable[[StepInputs], Tensor]


def _normalised(scores: Tensor) -> Tensor:
    return scores / scores.sum(dim=-1, keepdim=True)


def by_mean_query(given: StepInputs) -> Tensor:
    """Attention that a token receives from the patches' mean query, times the length of its value."""
    return StepInputs.scores(given._replace(class_token=False))


def by_class_token(given: StepInputs) -> Tensor:
    """The same from the class token, where it was left in the sequence: what is withheld."""
    return StepInputs.scores(given._replace(class_token=True))


def by_attention_received(given: StepInputs) -> Tensor:
    """Attention that a token receives from all patches, times the length of its value."""
    logits = given.query[:, :, given.prefix :].float() @ given.key.float().transpose(2, 3) * given.scale
    if given.size is not None:
        logits = logits + given.size.log()[:, None, None, :]
    share = torch.ones_like(given.sizes()) if given.size is None else given.size
    share = _normalised(share[:, given.prefix :])
    received = (logits.softmax(dim=-1) * share[:, None, :, None]).sum(dim=2)
    return token_scores(received, given.value, given.prefix)


def by_value(given: StepInputs) -> Tensor:
    """The length of a token's value."""
    length: Tensor = torch.linalg.vector_norm(given.value.float(), dim=(1, 3))
    return _normalised(length[:, given.prefix :])


def by_nearness(given: StepInputs) -> Tensor:
    """How near a token is to the mean of all, by the cosine."""
    x = given.x[:, given.prefix :].float()
    return _normalised(1.001 + F.cosine_similarity(x, x.mean(dim=1, keepdim=True), dim=-1))


def by_distance(given: StepInputs) -> Tensor:
    """How far a token is from the mean of all, by the cosine."""
    x = given.x[:, given.prefix :].float()
    return _normalised(1.001 - F.cosine_similarity(x, x.mean(dim=1, keepdim=True), dim=-1))


def by_nothing(given: StepInputs) -> Tensor:
    """All tokens alike."""
    return torch.full_like(given.sizes()[:, given.prefix :], 1 / (given.x.shape[1] - given.prefix))


SCORES: dict[str, Score] = {
    "mean query": by_mean_query,
    "attention received": by_attention_received,
    "value": by_value,
    "near the mean": by_nearness,
    "far from the mean": by_distance,
    "none": by_nothing,
}

#: Methods that read a score; the others are measured once.
_SCORED = ("prune", "fuse")
_UNSCORED = ("pool", "tome")


class _Scored:
    """A method's step with another score."""

    def __init__(self, method: str, score: Score) -> None:
        step = METHODS[method].load()
        own = type("Scored", (StepInputs,), {"scores": score, "__slots__": ()})
        self._step: Step = lambda given: step(own(*given))

    def __call__(self, given: StepInputs) -> Reduced:
        return self._step(given)


def without_class_token(model: LoadedModel, *, kept: bool) -> ReducingViT:
    """The network average-pooled, its class token out of the sequence or `kept` in it unread; no head yet."""
    source = model.vit.vit
    weights = {
        f"fc_{key}" if key.startswith("norm.") else key: value for key, value in source.state_dict().items()
    }
    if not kept:
        del weights["cls_token"]
        weights["pos_embed"] = weights["pos_embed"][:, source.num_prefix_tokens :]
    vit = timm.create_model(
        model.manifest.architecture,
        pretrained=False,
        num_classes=model.geometry.classes,
        img_size=model.manifest.input_size,
        class_token=kept,
        global_pool="avg",
    )
    vit.load_state_dict(weights)
    return ReducingViT(vit.eval().requires_grad_(False))


@torch.inference_mode()
def _features(network: ReducingViT, images: Tensor, plan: ReductionPlan = DENSE) -> Tensor:
    """What enters the head, for normalised images [n, 3, H, W]: float32 [n, C]."""
    head, network.vit.head = network.vit.head, nn.Identity()
    try:
        parts = [network(part, [(plan, len(part))]).logits for part in torch.split(images, _BATCH)]
    finally:
        network.vit.head = head
    return torch.cat(parts)


@torch.inference_mode()
def fit_head(network: ReducingViT, own_head: nn.Linear, images: Tensor, wanted: Tensor) -> float:
    """Fit the head: by least squares from the pooled features to those of a class token, then its head.

    Args:
        network: average-pooled.
        own_head: of the class token that it is to do without.
        images: normalised, [n, 3, H, W].
        wanted: features of the class token, [n, C].

    Returns:
        The share of the variance of the class token's features that is not explained.
    """
    x, y = _features(network, images).double(), wanted.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram + ridge, x.T @ y)
    weight = own_head.weight.double() @ solved.T
    network.vit.head.weight.copy_(weight.float())
    network.vit.head.bias.copy_(
        (own_head.bias.double() + own_head.weight.double() @ y_mean - weight @ x_mean).float()
    )
    return float((y - x @ solved).square().sum() / y.square().sum())


def _plan(network: ReducingViT, method: str, ratio: float) -> ReductionPlan:
    """The plan of a method that costs no more than PPT's at a ratio."""
    geometry = network.geometry

    def make(removed: int, method: str = method) -> ReductionPlan:
        share = removed / geometry.patches
        return plan_for_ratio(share, patches=geometry.patches, depth=geometry.depth, method=method)

    limit = geometry.gmacs(make(round(ratio * geometry.patches), "ppt"))
    most = max_removed(geometry.patches, len(default_blocks(geometry.depth, method)))
    return cheapest_within(limit, make, most, geometry)


def _cases(kept: bool) -> Iterator[tuple[str, str, Score | None]]:
    for method in _UNSCORED:
        yield method, "", None
    scores = {**SCORES, **({"class token (withheld)": by_class_token} if kept else {})}
    for method in _SCORED:
        for name, score in scores.items():
            yield method, name, score
    for name in ("mean query", *(["class token (withheld)"] if kept else [])):
        yield "ppt", name, scores[name]


def _score_ms(score: Score, network: ReducingViT, images: int = 8, rounds: int = 20) -> float:
    """Median milliseconds of a score at the first reducing block, for a batch of images."""
    geometry = network.geometry
    generator = torch.Generator().manual_seed(0)
    shape = (images, geometry.heads, geometry.tokens, geometry.width // geometry.heads)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    x = torch.randn(images, geometry.tokens, geometry.width, generator=generator)
    given = StepInputs(x, None, q, k, v, shape[-1] ** -0.5, 10, 0.0, geometry.prefix_tokens)
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            score(given)
            times.append(time.perf_counter() - start)
    return sorted(times)[rounds // 2] * 1000


def main(
    model: Annotated[
        str, typer.Argument(help="A ViT with a class token: its name in the store, or a folder.")
    ],
    fit_on: Annotated[Path, typer.Option(help="Folder of images that the head is fitted on.")],
    images: Annotated[Path, typer.Option(help="Folder of images to measure on.")],
    labels: Annotated[str | None, typer.Option(help="CSV, or 'folders'.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Folder of the models.")] = None,
    ratios: Annotated[str, typer.Option(help="PPT's GMACs at these ratios are the limits.")] = "0.755",
    limit: Annotated[int | None, typer.Option(help="Measure on so many of the images, at random.")] = None,
    fit_limit: Annotated[int | None, typer.Option(help="Fit on so many of the images, at random.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="File to write the figures to.")] = None,
) -> None:
    """Measure every score with every method that reads one, and those that read none."""
    loaded = load_model(model, device="cpu", dtype="float32", store=model_store)
    prepare = preprocess_of(loaded.manifest)
    found = _limited(find_images(images, labels, loaded.manifest.labels), limit)
    batches = list(crops(found, prepare, _BATCH))
    measured = torch.cat([loaded.normalise(torch.from_numpy(batch.pixels)) for batch in batches])
    truth = found.labels
    to_fit = _limited(find_images(fit_on, None, loaded.manifest.labels), fit_limit)
    fitted = torch.cat(
        [loaded.normalise(torch.from_numpy(batch.pixels)) for batch in crops(to_fit, prepare, _BATCH, [])]
    )
    wanted = _features(loaded.vit, fitted)
    rows: list[dict[str, object]] = []
    for kept in (True, False):
        network = without_class_token(loaded, kept=kept)
        head = network.vit.head
        left = fit_head(network, loaded.vit.vit.head, fitted, wanted)
        features = _features(network, measured)
        with torch.inference_mode():
            dense_logits = head(features)
        dense = ModelOutputs.from_logits(dense_logits, dense_logits, truth)
        where = "left in the sequence, unread" if kept else "out of the sequence"
        top1 = figures(dense, dense, seed=0).top1
        rows.append({"class_token": where, "method": "dense", "top1": top1, "unexplained": left})
        Console(stderr=True).print(rows[-1])
        for ratio in map(float, ratios.split(",")):
            for method, name, score in _cases(kept):
                plan = _plan(network, method, ratio)
                step = None if score is None else _Scored(method, score)
                reduced = _features(ReducingViT(network.vit, step), measured, plan)
                with torch.inference_mode():
                    logits = head(reduced)
                got = figures(ModelOutputs.from_logits(logits, dense_logits, truth), dense, seed=0)
                rows.append(
                    {
                        "class_token": where,
                        "ratio": ratio,
                        "method": method,
                        "score": name,
                        "gmacs": network.geometry.gmacs(plan),
                        "cosine": float(F.cosine_similarity(reduced, features, dim=-1).mean()),
                        "kl": got.kl,
                        "kl_interval": got.intervals["kl"],
                        "agreement": got.agreement,
                        "top1": got.top1,
                    }
                )
                Console(stderr=True, width=400).print(rows[-1])
        for name, score in SCORES.items():
            rows.append({"class_token": where, "score": name, "score_ms_batch_8": _score_ms(score, network)})
    _print(rows)
    if out is not None:
        kind = {"model": loaded.name, "images": len(found), "fitted_on": len(to_fit)}
        document = {**kind, "environment": environment(torch.device("cpu")), "rows": rows}
        out.write_text(json.dumps(document, indent=1) + "\n")


def _limited(images: ImageSet, limit: int | None) -> ImageSet:
    return images if limit is None else images.sample(limit, seed=0)


def _print(rows: Sequence[dict[str, object]]) -> None:
    table = Table(
        "class token", "ratio", "method", "score", "KL", "agreement", "top-1", "score, ms", box=None
    )
    keys = (
        "class_token",
        "ratio",
        "method",
        "score",
        "cosine",
        "kl",
        "agreement",
        "top1",
        "score_ms_batch_8",
    )
    for row in rows:
        values = (row.get(key) for key in keys)
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else str("" if v is None else v) for v in values))
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
