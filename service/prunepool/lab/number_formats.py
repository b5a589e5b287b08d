"""The accuracy of number formats: each with OpenVINO, held against PyTorch's float32 at the same ratio."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import torch

from prunepool.backends.compiled_pass import CompiledPasses, Group
from prunepool.backends.format_trial import FORMATS
from prunepool.backends.openvino_compile import open_formats
from prunepool.errors import InvalidParameter
from prunepool.lab.accuracy_figures import figures
from prunepool.lab.accuracy_row import AccuracyRow
from prunepool.lab.images import Crops
from prunepool.lab.model_outputs import ModelOutputs
from prunepool.models.loaded_model import LoadedModel
from prunepool.store import FormatAccuracy, ProfilePoint

#: What the others are compared with.
EXACT = "float32"


def check_formats(dtypes: Sequence[str]) -> None:
    """Check names of number formats.

    Raises:
        InvalidParameter: one does not exist.
    """
    for dtype in dtypes:
        if dtype not in FORMATS:
            raise InvalidParameter("dtypes", dtype, "of " + ", ".join(FORMATS))


@torch.inference_mode()
def evaluate_formats(
    model: LoadedModel,
    batches: Iterable[Crops],
    ratios: Sequence[float],
    dtypes: Sequence[str],
    *,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
) -> list[AccuracyRow]:
    """Measure the dial in several number formats.

    Args:
        model: in float32, on a CPU.
        batches: the images.
        ratios: of the dial; 0 is measured as well.
        dtypes: number formats; float32 is measured as well, with PyTorch.
        seed: of the bootstrap.
        advance: called with the number of (image, ratio) pairs that were completed.

    Returns:
        For each format, float32 first, a row for each ratio, its method named after the format. Agreement, KL and
        drop are against float32 at the same ratio.

    Raises:
        ConversionInvalid: OpenVINO is not installed, or cannot convert the model.
    """
    others = [dtype for dtype in dict.fromkeys(dtypes) if dtype != EXACT]
    passes = open_formats(model, others, torch.get_num_threads())
    plans = {ratio: model.plan(ratio) for ratio in sorted({0.0, *ratios})}
    parts: dict[tuple[str, float], list[ModelOutputs]] = defaultdict(list)
    for batch in batches:
        images = model.normalise(torch.from_numpy(batch.pixels))
        for ratio, plan in plans.items():
            groups = [(plan, len(images))]
            exact = model.vit(images, groups).logits
            for dtype in (EXACT, *others):
                logits = exact if dtype == EXACT else _logits(passes[dtype], images, groups)
                parts[dtype, ratio].append(ModelOutputs.from_logits(logits, exact, batch.labels))
            advance(len(images))
    found = {key: ModelOutputs.join(outputs) for key, outputs in parts.items()}
    return [
        AccuracyRow(
            dtype,
            ratio,
            model.geometry.gmacs(plan),
            plan,
            figures(found[dtype, ratio], found[EXACT, ratio], seed=seed),
        )
        for dtype in (EXACT, *others)
        for ratio, plan in plans.items()
    ]


def with_formats(profile: Sequence[ProfilePoint], rows: Sequence[AccuracyRow]) -> tuple[ProfilePoint, ...]:
    """A profile whose points have the accuracy of each number format, where it was measured at their ratio."""
    by_ratio: dict[float, dict[str, FormatAccuracy]] = defaultdict(dict)
    for row in rows:
        own = row.figures
        by_ratio[row.ratio][row.method] = FormatAccuracy(
            images=own.images, top1=own.top1, agreement=own.agreement, kl=own.kl
        )
    return tuple(
        point.model_copy(update={"formats": by_ratio[point.ratio]}) if point.ratio in by_ratio else point
        for point in profile
    )


def _logits(passes: CompiledPasses, images: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    return torch.from_numpy(passes(images.numpy(), groups).logits)
