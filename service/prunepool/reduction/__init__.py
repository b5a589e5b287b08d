"""PPT, token pruning and pooling, as pure functions on tensors.

Source: Wu et al., "PPT: Token Pruning and Pooling for Efficient Vision Transformers", arXiv 2310.01812.

`plan` says how many tokens leave and where; `scoring` says which matter and whether an image's scores call
for pruning or pooling; `pruning` and `pooling` say which tokens leave; `tokens` carries it out.
"""

from prunepool.reduction.plan import DENSE, PlanError, ReductionPlan, plan_for_ratio

__all__ = ["DENSE", "PlanError", "ReductionPlan", "plan_for_ratio"]
