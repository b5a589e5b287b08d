"""One reducing step: what a method reads, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from prunepool.reduction.scoring import attention_received, class_attention, mean_query, token_scores
from prunepool.reduction.tokens import TokenReduction, apply_reduction, unit_sizes


class StepInputs(NamedTuple):
    """What a step knows of B images at one block, after the block's attention.

    Attributes:
        x: tokens, [B, N, C].
        size: patches merged into each token, float32 [B, N], or None while all are 1.
        query: the block's queries, [B, H, N, D].
        key: its keys, [B, H, N, D].
        value: its values, [B, H, N, D].
        scale: factor of its attention logits.
        removed: r, tokens to remove from each image, at most half of the patch tokens.
        threshold: the plan's threshold at this block, a number or a float32 scalar.
        prefix: P, tokens in front that are never removed: class, distillation, registers.
        bias: what positions add to the attention logits, [B, H, N, N] or [1, H, N, N]; None for nothing.
        class_token: whether the first token is a class token that the network's output is read from. Without one
            the mean of the patches stands for it.
        depth: share of the network's blocks that come before this one, l/L.
        grid: rows and columns of patches at the input; None where it is unknown.
        counted: how often attention counts each token, float32 [B, N]; None for as often as it has patches.
    """

    x: Tensor
    size: Tensor | None
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    removed: int
    threshold: float | Tensor
    prefix: int
    bias: Tensor | None = None
    class_token: bool = True
    depth: float = 0.0
    grid: tuple[int, int] | None = None
    counted: Tensor | None = None

    def sizes(self) -> Tensor:
        """Patches merged into each token, float32 [B, N]."""
        return unit_sizes(self.x) if self.size is None else self.size

    def counts(self) -> Tensor | None:
        """How often attention counts each token, float32 [B, N]; None for once."""
        return self.size if self.counted is None else self.counted

    def class_attention(self) -> Tensor:
        """The attention of the class token, or of the patches' mean query without one, float32 [B, H, N]."""
        if self.class_token:
            query, bias = self.query[:, :, 0], None if self.bias is None else self.bias[:, :, 0]
        else:
            query = mean_query(self.query[:, :, self.prefix :], self._patch_sizes())
            bias = None if self.bias is None else self.bias[:, :, self.prefix :].float().mean(dim=2)
        return class_attention(query, self.key, self.scale, self.counts(), bias)

    def attention_received(self) -> Tensor:
        """The attention that each token receives from all patches, float32 [B, N]."""
        return attention_received(self.query, self.key, self.scale, self.size, self.bias)

    def _patch_sizes(self) -> Tensor | None:
        return None if self.size is None else self.size[:, self.prefix :]

    def scores(self) -> Tensor:
        """Importance of every patch token, float32 [B, N−P]; each image's sum to 1."""
        return token_scores(self.class_attention(), self.value, self.prefix)

    def mean_keys(self) -> Tensor:
        """Keys averaged over the heads, float32 [B, N, D]."""
        return self.key.float().mean(dim=1)


class Reduced(NamedTuple):
    """What a step returns.

    Attributes:
        tokens: the tokens that remain, [B, N−r, C].
        size: patches merged into each, float32 [B, N−r].
        indices: which tokens were kept, which were removed, and what those were merged into.
        pruned: bool [B], true where the removed tokens were dropped, false where they were merged.
        variance: of the scores, float32 [B]; zeros if the method does not compute it.
        dropped: how many of the removed tokens of an image that is not pruned were dropped all the same; their
            target is :data:`~prunepool.reduction.methods.DROPPED`.
        counted: how often attention counts each remaining token, float32 [B, N−r]; None for as often as it has
            patches (proportional attention).
    """

    tokens: Tensor
    size: Tensor
    indices: TokenReduction
    pruned: Tensor
    variance: Tensor
    dropped: int = 0
    counted: Tensor | None = None


#: A reduction method. It must not wait for the device: every shape follows from the inputs' shapes and `removed`.
Step = Callable[[StepInputs], Reduced]


class StageRecord(NamedTuple):
    """One reduction of neighbouring images of a batch; its tensors stay on the device until they are read.

    Attributes:
        block: index of the reducing block.
        first: index in the batch of the first image.
        indices: which tokens were kept, removed and merged.
        pruned: bool [B], whether each image's removed tokens were dropped.
        variance: float32 [B], variance of the scores that this was decided on.
        dropped: tokens of each image that were dropped though it was not pruned; see :class:`Reduced`.
    """

    block: int
    first: int
    indices: TokenReduction
    pruned: Tensor
    variance: Tensor
    dropped: int = 0


def carry_out(
    inputs: StepInputs, indices: TokenReduction, pruned: Tensor | bool, variance: Tensor | None = None
) -> Reduced:
    """Remove tokens: drop them where `pruned`, merge them by size-weighted mean elsewhere.

    Args:
        inputs: of the step.
        indices: which tokens to keep, remove and merge.
        pruned: bool [B], or one for all images.
        variance: of the scores, float32 [B], if it was computed.
    """
    if isinstance(pruned, bool):
        pruned = same_for_all(inputs, pruned)
    tokens, size = apply_reduction(inputs.x, inputs.size, indices, pruned)
    if variance is None:
        variance = torch.zeros(inputs.x.shape[0], device=inputs.x.device)
    return Reduced(tokens, size, indices, pruned, variance)


def same_for_all(inputs: StepInputs, pruned: bool) -> Tensor:
    """One decision for every image, bool [B]."""
    return torch.full((inputs.x.shape[0],), pruned, device=inputs.x.device)
