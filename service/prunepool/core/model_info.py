"""What callers may know of a served model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prunepool.core.formats import FormatTrial


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """One point of a model's ratio_spec."""

    reduction_ratio: float
    blocks: tuple[int, ...]
    removed: tuple[int, ...]
    thresholds: tuple[float, ...]
    tokens: tuple[int, ...]
    gmacs: float
    macs_saved: float
    method: str = "ppt"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a caller may know of a served model.

    Attributes:
        name: its name.
        architecture: timm's name of the architecture.
        input_size: pixels a side.
        labels: one a class.
        max_reduction_ratio: the largest ratio it can do.
        default_reduction_ratio: of calls for many images, and what `auto` takes without a latency target; 0 for a
            model without a measured profile.
        gmacs: of the dense model.
        parameters: how many.
        device: where it runs.
        dtype: what it computes in.
        backend: what computes, as `openvino` or `pytorch`; empty before it was loaded.
        ready: whether it can serve.
        licence: of the weights.
        mean: of the red, green and blue of training photos, 0 to 1; subtracted by whoever normalises.
        std: what is divided by after that.
        crop_pct: the centre crop's share of the resized image's side.
        crop_mode: which side is resized: see :class:`prunepool.imaging.Preprocess`.
        interpolation: of the resize.
        plans: the ratio_spec on a grid of ratios.
        profile: measured figures per ratio, from the manifest; None where none were measured. A point has
            `ratio` and `gmacs`, and what else was measured; `drop`, in points, is what `max_accuracy_drop`
            goes by.
        format_trials: what was measured of each number format on this processor, if it was.
        requested_by_default: what a request that names no ratio asks for, by the server's setting.
        auto_max_reduction_ratio: `auto` goes no further where neither the server nor the caller sets a bound;
            0 for a model without a measured profile; None: as far as the model can.
    """

    name: str
    architecture: str
    input_size: int
    labels: tuple[str, ...]
    max_reduction_ratio: float
    default_reduction_ratio: float
    gmacs: float
    parameters: int
    device: str
    dtype: str
    ready: bool
    licence: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    plans: tuple[PlanInfo, ...] = ()
    profile: Sequence[Mapping[str, object]] | None = None
    auto_max_reduction_ratio: float | None = None
    format_trials: tuple[FormatTrial, ...] = ()
    requested_by_default: float | Literal["auto"] = "auto"
    backend: str = ""

    def auto_limit(self, max_ratio: float | None) -> float:
        """The largest ratio of `auto` for a caller who sets no bound.

        Args:
            max_ratio: the server's bound; None: the model's own holds.
        """
        limit = self.max_reduction_ratio
        if max_ratio is not None:
            return min(max_ratio, limit)
        usual = self.auto_max_reduction_ratio
        return limit if usual is None else min(usual, limit)
