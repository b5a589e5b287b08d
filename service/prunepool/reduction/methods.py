"""The registry of reduction methods, and what is known of each before torch is loaded.

A method is one file of this package with a function `step`, and one entry in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunepool.reduction.step import Step

#: Among the targets of merged tokens, the target of one that is dropped where others of its image merge.
DROPPED = -1

#: From the depth of a model to the blocks where it reduces unless somebody chooses others.
Blocks = Callable[[int], tuple[int, ...]]


def quarters(depth: int) -> tuple[int, ...]:
    """The paper's three blocks, at each quarter of the depth: (3, 6, 9) of 12."""
    return tuple(depth * i // 4 for i in (1, 2, 3))


def every_block(depth: int) -> tuple[int, ...]:
    """All blocks."""
    return tuple(range(depth))


def local_then_global(depth: int) -> tuple[int, ...]:
    """The second block, where patches are still what they show, the middle and three quarters: (1, 6, 9) of 12."""
    return 1, depth // 2, depth * 3 // 4


def from_first_quarter(depth: int) -> tuple[int, ...]:
    """Every block from the first quarter to the last but one: 3 … 10 of 12."""
    return tuple(range(depth // 4, depth - 1))


@dataclass(frozen=True, slots=True)
class ReductionMethod:
    """A way to choose which tokens are removed, and what becomes of them.

    Attributes:
        name: as in plans, manifests and on the command line.
        title: as in tables and charts.
        load: imports and returns the step, a pure function on tensors.
        default_blocks: where it reduces by default.
        default_stages: how many blocks those are; None if that depends on the depth.
        uses_threshold: whether the step reads a plan's thresholds.
        keeps_order: whether a step that removes no token leaves all tokens in their places.
        served: whether it is fast enough to serve; others are for comparison alone.
        converts: whether OpenVINO was seen to give the same answers with it; PyTorch serves any other one.
    """

    name: str
    title: str
    load: Callable[[], Step]
    default_blocks: Blocks = quarters
    default_stages: int | None = 3
    uses_threshold: bool = False
    keeps_order: bool = False
    served: bool = True
    converts: bool = True


def _step_of(module: str) -> Callable[[], Step]:
    """What imports the step of a module of this package, and torch with it."""

    def load() -> Step:
        step: Step = import_module(f"prunepool.reduction.{module}").step
        return step

    return load


#: Every method by name; its file names its source. `tome`: Bolya et al., "Token Merging", arXiv 2210.09461, which
#: pools a little at every block.
METHODS: dict[str, ReductionMethod] = {
    method.name: method
    for method in (
        ReductionMethod("ppt", "PPT", _step_of("ppt"), uses_threshold=True),
        ReductionMethod("prune", "prune only", _step_of("prune")),
        ReductionMethod("pool", "pool only", _step_of("pool")),
        ReductionMethod("fuse", "fuse (ours)", _step_of("fuse"), from_first_quarter, None, keeps_order=True),
        ReductionMethod("ward", "Ward (ours)", _step_of("ward"), from_first_quarter, None, keeps_order=True),
        ReductionMethod("tome", "ToMe", _step_of("pool"), every_block, None),
        ReductionMethod("topk", "top-k", _step_of("topk")),
        ReductionMethod("turbo", "Turbo", _step_of("turbo"), every_block, None, converts=False),
        ReductionMethod("mctf", "MCTF", _step_of("mctf"), every_block, None, converts=False),
        ReductionMethod("unlike", "keep the unlike", _step_of("unlike")),
        ReductionMethod(
            "pitome", "PiToMe", _step_of("pitome"), every_block, None, keeps_order=True, converts=False
        ),
        ReductionMethod(
            "diffrate", "DiffRate", _step_of("diffrate"), every_block, None, keeps_order=True, converts=False
        ),
        ReductionMethod(
            "kmedoids",
            "Token Pooling",
            _step_of("kmedoids"),
            every_block,
            None,
            keeps_order=True,
            converts=False,
        ),
        ReductionMethod(
            "local", "ALGM", _step_of("local"), local_then_global, keeps_order=True, converts=False
        ),
        ReductionMethod("atc", "ATC", _step_of("atc"), keeps_order=True, served=False, converts=False),
    )
}
