"""Token pruning and pooling as pure functions on tensors.

Source: Wu et al., "PPT: Token Pruning and Pooling for Efficient Vision Transformers", arXiv 2310.01812.

`plan` and `curve` decide how many tokens are removed at which block; `methods` is the registry of methods. Those
three need no torch. `step` is what a method reads and returns, and each method is a file: `ppt`, `prune`, `pool`,
`fuse`, `topk`. They share `scoring` (how much a token matters) and `tokens` (removing and merging).
"""

from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, plan_for_ratio

__all__ = ["DENSE", "PlanError", "ReductionPlan", "plan_for_ratio"]
