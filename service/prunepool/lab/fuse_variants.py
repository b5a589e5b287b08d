"""Variants of `reduction.fuse`; docs/notes/02-reduction-methods.md has the results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from prunepool.lab.variants import PruneThenPool, RestToken, ppt_in_order
from prunepool.reduction import ppt
from prunepool.reduction.rows import gather_rows
from prunepool.reduction.step import Reduced, Step, StepInputs
from prunepool.reduction.tokens import TokenReduction


@dataclass(frozen=True)
class Fuse:
    """Merge the tokens that lose least into kept tokens; with the defaults, what `reduction.fuse` does.

    Attributes:
        leavers: which tokens may be removed: the `even` positions, merged into odd ones; or the less important
            `half`, or `all`, each merged into a more important token.
        loss: of merging j into k: `ward` (s_j·s_k / (s_j + s_k)) or `score` (s_j), times (1 − cos).
        exponent: of the scores in the loss.
        metric: what is compared: `tokens`, `keys`, or `values`.
        mean: a token's weight in the mean: its `size`, its `score`, or `both`: size times √score.
        length: 0 leaves the mean's length unchanged, 1 restores the mean length of its parts, more exceeds it.
    """

    leavers: Literal["even", "half", "all"] = "half"
    loss: Literal["ward", "score"] = "ward"
    exponent: float = 1.0
    metric: Literal["tokens", "keys", "values"] = "tokens"
    mean: Literal["size", "score", "both"] = "score"
    length: float = 1.0

    def __call__(self, given: StepInputs) -> Reduced:
        """One step."""
        scores, prefix = given.scores(), given.prefix
        loss = self._loss(given, scores)
        patches = scores.shape[1]
        remove = loss.amin(-1).argsort(dim=-1, stable=True)[:, : given.removed]
        gone = torch.zeros_like(scores, dtype=torch.bool).scatter(1, remove, True)
        stay = gone.byte().argsort(dim=-1, stable=True)[:, : patches - given.removed]
        into = gather_rows(loss, remove).masked_fill(gone[:, None], torch.inf).argmin(-1)
        target = ((~gone).cumsum(-1) - 1).gather(1, into) + prefix
        front = torch.arange(prefix, device=stay.device).expand(len(stay), prefix)
        indices = TokenReduction(torch.cat((front, stay + prefix), 1), remove + prefix, target)
        return self._merged(given, scores, indices)

    def _loss(self, given: StepInputs, scores: Tensor) -> Tensor:
        """The loss of merging each patch token into each other, [B, T, T]; infinite where that is not allowed."""
        compared = {
            "tokens": given.x,
            "keys": given.mean_keys(),
            "values": given.value.transpose(1, 2).flatten(2),
        }
        unit = F.normalize(compared[self.metric][:, given.prefix :].float(), dim=-1)
        own, other = scores[:, :, None], scores[:, None]
        weight = own * other / (own + other) if self.loss == "ward" else own
        loss = weight.pow(self.exponent) * (1 - unit @ unit.transpose(1, 2)).clamp_min(0)
        rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        never = rank[:, None] >= rank[:, :, None]
        patches = scores.shape[1]
        if self.leavers == "half":
            never = never | (rank < patches - patches // 2)[:, :, None]
        elif self.leavers == "even":
            even = (torch.arange(patches, device=rank.device) + given.prefix) % 2 == 0
            never = (~even[:, None] | even[None]).expand_as(loss)
        return loss.masked_fill(never, torch.inf)

    def _merged(self, given: StepInputs, scores: Tensor, indices: TokenReduction) -> Reduced:
        keep, remove, target = indices
        weight = F.pad(scores, (given.prefix, 0), value=1.0)
        if self.mean != "score":
            weight = given.sizes() * (weight.sqrt() if self.mean == "both" else 1)

        def gathered(amount: Tensor) -> Tensor:
            return amount.gather(1, keep).scatter_add(1, target, amount.gather(1, remove))

        x, total = given.x.float(), gathered(weight)
        left = gather_rows(x, remove) * weight.gather(1, remove)[..., None]
        merged = gather_rows(x, keep) * weight.gather(1, keep)[..., None]
        merged = merged.scatter_add(1, target[..., None].expand_as(left), left) / total[..., None]
        parts = gathered(weight * x.norm(dim=-1)) / total
        merged = merged * (parts / merged.norm(dim=-1)).pow(self.length)[..., None]
        zeros = torch.zeros(len(total), device=total.device)
        return Reduced(merged.to(given.x.dtype), gathered(given.sizes()), indices, zeros > 0, zeros)


_OURS = Fuse()
#: The first version: PPT's matching, and a mean by size.
_FIRST = Fuse(leavers="even", loss="score", exponent=0.75, mean="size", length=0.0)

#: Tried at the blocks of `fuse`.
FUSE_VARIANTS: dict[str, Step] = {
    "fuse, even into odd by s^¾, mean by size": _FIRST,
    "the same, length kept": replace(_FIRST, length=1.0),
    "fuse, length not kept": replace(_OURS, length=0.0),
    "fuse, length × 1¼ of what was lost": replace(_OURS, length=1.25),
    "fuse, all may leave": replace(_OURS, leavers="all"),
    "fuse, even into odd": replace(_OURS, leavers="even"),
    "fuse, loss by the leaver's score": replace(_OURS, loss="score"),
    "fuse, exponent ¾": replace(_OURS, exponent=0.75),
    "fuse, exponent 1¼": replace(_OURS, exponent=1.25),
    "fuse, mean by size": replace(_OURS, mean="size"),
    "fuse, mean by size and √score": replace(_OURS, mean="both"),
    "fuse, similarity of keys": replace(_OURS, metric="keys"),
    "fuse, similarity of values": replace(_OURS, metric="values"),
    "prune ½ and pool ½ in one block": PruneThenPool(0.5),
    "prune into a rest token, counted in full": RestToken(as_one=False),
    "PPT": ppt.step,
    "PPT, spatial order kept": ppt_in_order,
}
