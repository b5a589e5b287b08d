"""Training losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL divergence of the student's prediction from the teacher's, in nats; logits [B, classes] each."""
    log_p = teacher.float().log_softmax(-1)
    return F.kl_div(student.float().log_softmax(-1), log_p, reduction="batchmean", log_target=True)


def residual(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference between student and teacher, divided by the teacher's variance.

    Args:
        student: tokens, [B, N, C].
        teacher: the same tokens of the teacher.
    """
    teacher = teacher.float()
    spread = teacher - teacher.mean(dim=(0, 1), keepdim=True)
    return (student.float() - teacher).square().mean() / (spread.square().mean() + 1e-12)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean residual over the depths at which tokens are compared."""
    return torch.stack([residual(s, t) for s, t in zip(student, teacher, strict=True)]).mean()


def label_loss(
    logits: Tensor, labels: Tensor, smoothing: float, partner: Tensor | None, share: Tensor | None
) -> Tensor:
    """Cross entropy with the labels, in nats; for mixed images, with both labels by their shares.

    Args:
        logits: [B, classes].
        labels: int64 [B].
        smoothing: label smoothing.
        partner: int64 [B], the image that each is mixed with, or None.
        share: float32 [B], weight of its own label.
    """
    own = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction="none")
    if partner is None or share is None:
        return own.mean()
    other = F.cross_entropy(logits.float(), labels[partner], label_smoothing=smoothing, reduction="none")
    return (own * share + other * (1 - share)).mean()
