"""Scores: the importance of each token, and the variance that decides between pruning and pooling.

Everything is computed in float32, whatever the model's dtype: half precision cannot resolve a variance near 7e-5.

Source: Wu et al., "PPT", arXiv 2310.01812.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_attention(
    query: Tensor, key: Tensor, scale: float, size: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """The class token's attention: one row of the attention matrix, without computing the rest.

    Args:
        query: the class token's queries, or what stands for it, [B, H, D].
        key: all keys, [B, H, N, D].
        scale: of the attention logits.
        size: patches merged into each token, float32 [B, N], or None while all are 1; its logarithm is added to
            the logits (proportional attention).
        bias: of positions, added to the logits, [B, H, N] or [1, H, N].

    Returns:
        Softmax over all N tokens, float32 [B, H, N].
    """
    # Multiply and sum: a batched product of a strided matrix with one vector copies the matrix first.
    logits = (key.float() * (query.float() * scale).unsqueeze(2)).sum(dim=-1)
    if bias is not None:
        logits = logits + bias
    if size is not None:
        logits = logits + size.log().unsqueeze(1)
    return logits.softmax(dim=-1)


def mean_query(query: Tensor, size: Tensor | None) -> Tensor:
    """The mean of the patches' queries, which stands for a class token where there is none.

    Args:
        query: of the patch tokens, [B, H, T, D].
        size: patches merged into each of them, float32 [B, T], or None while all are 1.

    Returns:
        float32 [B, H, D].
    """
    if size is None:
        return query.float().mean(dim=2)
    share = size / size.sum(dim=1, keepdim=True)
    return (query.float() * share[:, None, :, None]).sum(dim=2)


def attention_received(
    query: Tensor, key: Tensor, scale: float, size: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """The attention that each token receives from all patches, averaged over heads and over what attends.

    Unlike the class token's, it takes the whole attention matrix.

    Args:
        query: queries, [B, H, N, D].
        key: keys, [B, H, N, D].
        scale: of the attention logits.
        size: patches merged into each token, float32 [B, N], or None while all are 1: the logarithm is added to
            the logits, and a token counts so often among what attends.
        bias: of positions, added to the logits, [B, H, N, N] or [1, H, N, N].

    Returns:
        float32 [B, N]; each image's sum to 1.
    """
    logits = (query.float() * scale) @ key.float().transpose(-1, -2)
    if bias is not None:
        logits = logits + bias
    if size is None:
        return logits.softmax(dim=-1).mean(dim=(1, 2))
    attention = (logits + size.log()[:, None, None]).softmax(dim=-1).mean(dim=1)
    share = size / size.sum(dim=-1, keepdim=True)
    return (share.unsqueeze(1) @ attention).squeeze(1)


def token_scores(attention: Tensor, value: Tensor, prefix: int) -> Tensor:
    """Importance of every patch token: s_j = Σ_heads A[h, class, j] · ‖v_j‖₂, normalised to sum to 1.

    Args:
        attention: the class token's attention, float32 [B, H, N].
        value: values, [B, H, N, D]; the norm is taken over the channels of all heads together.
        prefix: P, tokens in front that are not scored.

    Returns:
        float32 [B, N−P].
    """
    norm: Tensor = torch.linalg.vector_norm(value.float(), dim=(1, 3))
    scores = (attention.sum(dim=1) * norm)[:, prefix:]
    return scores / scores.sum(dim=-1, keepdim=True)


def score_variance(scores: Tensor) -> Tensor:
    """Unbiased variance of the normalised scores over the tokens, float32 [B].

    It is CV²/n² for n tokens (CV: coefficient of variation), so a threshold holds for one model and one n.
    """
    return scores.var(dim=-1, unbiased=True)
