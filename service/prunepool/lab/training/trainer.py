"""The training loop."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunepool.errors import InvalidParameter, ModelError
from prunepool.lab.training.losses import divergence, feature_loss, label_loss
from prunepool.lab.training.mixing import Mixed, mix
from prunepool.lab.training.optimisers import learning_rate, make_optimisers
from prunepool.lab.training.passes import Pass, dense_pass, random_patches, reduced_pass
from prunepool.lab.training.recipe import Recipe
from prunepool.lab.training.views import Views
from prunepool.models.loaded_model import LoadedModel
from prunepool.models.vit import ReducingViT
from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, plan_for_ratio


@dataclass(frozen=True, slots=True)
class Step:
    """The results of one step.

    Attributes:
        step: its number, from 0.
        ratio: the reduction ratio.
        losses: `loss` and its parts, by name.
        lr: learning rate.
        gradient: norm of the gradient before clipping.
    """

    step: int
    ratio: float
    losses: dict[str, float]
    lr: float
    gradient: float


class Trainer:
    """Trains a model.

    Args:
        model: in float32, on its device; it is trained in place.
        teacher: the model to distil; None to learn from labels only.
        recipe: of the run.
        amp: dtype of the passes; the weights stay float32.

    Attributes:
        step: number of the next step.
        average: the moving average of the weights, by timm's names.
        whole: whether no update is incomplete.

    Raises:
        InvalidParameter: the teacher has other classes or another input, or a ratio is out of range.
    """

    def __init__(
        self,
        model: LoadedModel,
        teacher: LoadedModel | None,
        recipe: Recipe,
        *,
        amp: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self._teacher = teacher
        self._amp = amp
        self._plans = {ratio: _plan(model, ratio, recipe) for ratio in recipe.ratios}
        if teacher is not None:
            _check_teacher(model, teacher)
        if recipe.patches is not None and not 1 <= recipe.patches <= model.geometry.patches:
            raise InvalidParameter("patches", recipe.patches, f"from 1 to {model.geometry.patches}")
        self._alike = teacher is not None and (teacher.geometry.depth, teacher.geometry.width) == (
            model.geometry.depth,
            model.geometry.width,
        )
        self.step = 0
        self.whole = True
        self._vit: ReducingViT = model.vit.requires_grad_(True)
        self.average: dict[str, Tensor] = copy.deepcopy(dict(self._vit.vit.state_dict()))
        self._optimisers = make_optimisers(self._vit.vit, recipe)

    def run(self, batches: Iterable[Views]) -> Iterator[Step]:
        """Learn from batches, one step each.

        Raises:
            ModelError: the loss is NaN or infinite.
        """
        for batch in batches:
            yield self._learn(batch)

    def _learn(self, batch: Views) -> Step:
        assert batch.step == self.step, "batches come in order"
        recipe, model = self.recipe, self.model
        rng = np.random.default_rng([recipe.seed, 3, self.step])
        ratio = recipe.ratios[int(rng.integers(len(recipe.ratios)))]
        pixels = torch.from_numpy(batch.pixels).to(model.device).permute(0, 3, 1, 2).float() / 255
        labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(model.device)
        mixed = mix(pixels, rng) if len(pixels) > 1 and rng.random() < recipe.mix else None
        pixels = pixels if mixed is None else mixed.images
        plan = self._plans[ratio]
        patches = None
        if plan.dense and recipe.patches is not None and recipe.patches < model.geometry.patches:
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            patches = random_patches(len(pixels), model.geometry.patches, recipe.patches, generator)
        losses = self._losses(pixels, labels, mixed, plan, patches)
        loss = losses["loss"]
        if not bool(torch.isfinite(loss)):
            raise ModelError(f"the loss is {loss.item()} at step {self.step}: a lower --lr may help")
        lr = learning_rate(self.step, recipe)
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = lr
        loss.backward()  # type: ignore[no-untyped-call]
        self.whole = False
        gradient = torch.nn.utils.clip_grad_norm_(self._vit.parameters(), recipe.clip)
        for optimiser in self._optimisers:
            optimiser.step()
        self._follow()
        done = Step(self.step, ratio, {k: float(v.detach()) for k, v in losses.items()}, lr, float(gradient))
        self.step += 1
        self.whole = True
        return done

    def _losses(
        self,
        pixels: Tensor,
        labels: Tensor | None,
        mixed: Mixed | None,
        plan: ReductionPlan,
        patches: Tensor | None,
    ) -> dict[str, Tensor]:
        """`loss` and its parts, for pixels 0 … 1, [B, 3, H, W]."""
        recipe = self.recipe
        with torch.autocast(self.model.device.type, self._amp, enabled=self._amp != torch.float32):
            images = _normalised(pixels, self.model)
            if plan.dense:
                student = dense_pass(self._vit, images, patches)
            else:
                student = reduced_pass(self._vit, images, plan)
            teacher = self._taught(pixels, patches if self._alike else None)
        parts: dict[str, Tensor] = {}
        total = student.logits.new_zeros(())
        if labels is not None:
            partner, share = (None, None) if mixed is None else (mixed.partner, mixed.share)
            parts["labels"] = label_loss(student.logits, labels, recipe.smoothing, partner, share)
            total = total + parts["labels"] * (1.0 if teacher is None else recipe.label_share)
        if teacher is not None:
            parts["teacher"] = divergence(student.logits, teacher.logits)
            total = total + parts["teacher"] * (1.0 if labels is None else 1 - recipe.label_share)
            if self._alike and recipe.feature_weight:
                shown = len(student.features)
                parts["features"] = feature_loss(student.features, teacher.features[:shown])
                total = total + recipe.feature_weight * parts["features"]
        return {"loss": total, **parts}

    def _taught(self, pixels: Tensor, patches: Tensor | None) -> Pass | None:
        if self._teacher is None:
            return None
        with torch.no_grad():
            return dense_pass(self._teacher.vit, _normalised(pixels, self._teacher), patches)

    @torch.no_grad()
    def _follow(self) -> None:
        """Update the moving average; it decays faster at first, so that it forgets the initial weights."""
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        for name, value in self._vit.vit.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Everything that is needed to resume the run, on the CPU."""
        return {
            "step": self.step,
            "recipe": self.recipe.as_json(),
            "from": self._from(),
            "model": self._vit.vit.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def _from(self) -> dict[str, str | None]:
        """Digests of the initial weights and of the teacher."""
        teacher = None if self._teacher is None else self._teacher.manifest.weights.sha256
        return {"start": self.model.manifest.weights.sha256, "teacher": teacher}

    def resume(self, state: dict[str, Any]) -> None:
        """Resume from a state; the number of steps may differ.

        Raises:
            InvalidParameter: the state is of a run with another recipe, initial weights or teacher.
        """
        ours = {**self.recipe.as_json(), **self._from()}
        theirs = {**state["recipe"], **state["from"]}
        for name in ours:
            if name != "steps" and ours[name] != theirs.get(name):
                limit = f"{theirs.get(name)!r}, as in the run that is resumed (or start anew with --restart)"
                raise InvalidParameter(name, ours[name], limit)
        self._vit.vit.load_state_dict(state["model"])
        self.average = {name: value.to(self.model.device) for name, value in state["average"].items()}
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step = int(state["step"])


def _normalised(pixels: Tensor, model: LoadedModel) -> Tensor:
    """Normalise pixels 0 … 1 for a model."""
    mean = torch.tensor(model.manifest.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(model.manifest.std, device=pixels.device).view(3, 1, 1)
    return (pixels - mean) / std


def _plan(model: LoadedModel, ratio: float, recipe: Recipe) -> ReductionPlan:
    geometry = model.geometry
    try:
        plan = plan_for_ratio(ratio, patches=geometry.patches, depth=geometry.depth, method=recipe.method)
    except PlanError as error:
        raise InvalidParameter(error.parameter, error.value, error.limit) from error
    thresholds = (recipe.threshold,) * len(plan.blocks)
    return DENSE if plan.dense else ReductionPlan(plan.blocks, plan.removed, thresholds, plan.method)


def _check_teacher(model: LoadedModel, teacher: LoadedModel) -> None:
    ours, theirs = model.manifest, teacher.manifest
    if len(ours.labels) != len(theirs.labels):
        value = f"{theirs.name} with {len(theirs.labels)} classes"
        raise InvalidParameter("teacher", value, f"one with {len(ours.labels)}, as {ours.name}")
    if ours.input_size != theirs.input_size:
        value = f"{theirs.name}, with an input resolution of {theirs.input_size}"
        raise InvalidParameter("teacher", value, f"one with {ours.input_size}, as {ours.name}")
