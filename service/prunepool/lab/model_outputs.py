"""A model's outputs for a set of images, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutputs:
    """A model's outputs for n images at one setting.

    Attributes:
        predicted: index of the best class, int64 [n].
        confidence: its probability, float32 [n].
        place: number of classes ranked above the correct one, int64 [n]; None without labels.
        kl: KL divergence between this prediction and the dense model's, in nats, float32 [n]; None if the dense
            model's probabilities are unknown.
        margin: probability of the best class minus that of the second best, float32 [n]; None if it is unknown.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    place: NDArray[np.int64] | None
    kl: NDArray[np.float32] | None
    margin: NDArray[np.float32] | None = None

    @staticmethod
    def from_logits(logits: Tensor, dense: Tensor, labels: NDArray[np.int64] | None) -> ModelOutputs:
        """Compute outputs from logits.

        Args:
            logits: float32 [n, classes].
            dense: logits of the dense model, float32 [n, classes].
            labels: the correct classes, [n], or None.
        """
        log_p, log_q = dense.log_softmax(-1), logits.log_softmax(-1)
        # Rounding may make a divergence of zero slightly negative.
        kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)
        best, predicted = log_q.max(-1)
        scores = log_q.topk(min(2, log_q.shape[-1]), dim=-1).values.exp()
        margin = scores[:, 0] - scores[:, 1] if scores.shape[1] > 1 else scores[:, 0]
        place = None
        if labels is not None:
            import torch  # not above: outputs of a server are compared without it

            right = torch.from_numpy(labels).to(logits.device)[:, None]
            score = logits.gather(1, right)
            earlier = torch.arange(logits.shape[1], device=logits.device) < right
            place = ((logits > score) | ((logits == score) & earlier)).sum(-1).cpu().numpy()
        return ModelOutputs(
            predicted.cpu().numpy(),
            best.exp().cpu().numpy(),
            place,
            kl.cpu().numpy(),
            margin.cpu().numpy(),
        )

    def escalated(self, dense: ModelOutputs, below: float) -> ModelOutputs:
        """Replace outputs with a small margin by the dense model's; see `escalate_below`.

        Args:
            dense: outputs of the dense model for the same images.
            below: outputs with a smaller margin are replaced.
        """
        assert self.margin is not None
        again = self.margin < below

        def chosen(name: str) -> Any:
            pair = getattr(dense, name), getattr(self, name)
            return None if any(array is None for array in pair) else np.where(again, *pair)

        return ModelOutputs(*map(chosen, self.__slots__))

    @staticmethod
    def join(parts: Sequence[ModelOutputs]) -> ModelOutputs:
        """Concatenate outputs of several sets of images."""

        def joined(name: str) -> Any:
            found = [getattr(part, name) for part in parts]
            return None if any(array is None for array in found) else np.concatenate(found)

        return ModelOutputs(*map(joined, ModelOutputs.__slots__))

    def to_json(self) -> dict[str, list[float] | None]:
        """As lists."""
        return {
            name: None if (array := getattr(self, name)) is None else array.tolist()
            for name in self.__slots__
        }

    @staticmethod
    def from_json(document: dict[str, Any]) -> ModelOutputs:
        """Restore from lists, exactly."""

        def array(name: str, dtype: type) -> Any:
            return None if document[name] is None else np.array(document[name], dtype)

        return ModelOutputs(
            array("predicted", np.int64),
            array("confidence", np.float32),
            array("place", np.int64),
            array("kl", np.float32),
            array("margin", np.float32),
        )
