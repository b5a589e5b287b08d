"""What a trial of number formats measured, as plain data."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import NamedTuple

#: The largest mean KL divergence from float32, in nats, at ratio 0 and with tokens removed, where rounding may also
#: change which tokens are removed.
MOST_KL, MOST_KL_REDUCED = 0.002, 0.01


class Fidelity(NamedTuple):
    """How far answers are from float32's at one ratio.

    Attributes:
        agreement: share of the photos whose best class is the same.
        kl: mean KL divergence of the prediction from float32's, in nats.
    """

    agreement: float
    kl: float


@dataclass(frozen=True, slots=True)
class FormatTrial:
    """What was measured of one number format on this processor.

    Attributes:
        dtype: the number format.
        ratios: that were tried.
        images_per_s: at each of them, in a batch of all photos.
        fidelity: at each of them.
        chosen: whether the model computes in it.
    """

    dtype: str
    ratios: tuple[float, ...]
    images_per_s: tuple[float, ...]
    fidelity: tuple[Fidelity, ...]
    chosen: bool = False

    @property
    def faithful(self) -> bool:
        """Whether it agrees with float32."""
        limits = (MOST_KL if ratio == 0 else MOST_KL_REDUCED for ratio in self.ratios)
        return all(one.kl <= limit for one, limit in zip(self.fidelity, limits, strict=True))

    @property
    def speed(self) -> float:
        """Images/s over all ratios: their harmonic mean."""
        return statistics.harmonic_mean(self.images_per_s)
