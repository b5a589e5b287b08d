"""A single image's pass, compiled ahead of time: one file of kernels for each reduction plan.

With one image, a good part of the time goes to hundreds of short operations. AOTInductor fuses them and writes
the whole pass as a shared library, which holds no weights, is loaded in a tenth of a second and needs no compiler
then. Shapes are fixed, so nothing can be compiled while requests are served: what has no kernels runs as it always
did. With eight images and more the time goes to the matrix products, which are the same, and there is nothing to
win.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import timm
import torch
from torch import Tensor, nn

from prunepool.errors import InvalidParameter, KernelsInvalid
from prunepool.models import geometry, packing, vit
from prunepool.models.vit import Forward, ReducingViT
from prunepool.ppt import fusing, plan, pooling, pruning, reduction, scoring, tokens
from prunepool.ppt.plan import ReductionPlan
from prunepool.ppt.tokens import Departure, Stage

log = logging.getLogger(__name__)

#: Tensors that a stage gives: those of its departure, which images were pruned, and their variance.
_OF_A_STAGE = 5

#: Weights are those that are in memory already, and as many threads compute as the process says when it runs.
_OPTIONS = {"aot_inductor.package_constants_in_so": False, "cpp.dynamic_threads": True}


class Kernels:
    """One plan's compiled pass over a single image.

    Args:
        run: normalised pixels [1, 3, H, W] to logits, and five tensors for each stage.
        blocks: where a stage reduces.
        weights: that `run` reads where they are; kept for as long as it may.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Sequence[Tensor]],
        blocks: Sequence[int],
        weights: Mapping[str, Tensor],
    ) -> None:
        self._run = run
        self._blocks = tuple(blocks)
        self._weights = weights

    def __call__(self, image: Tensor) -> Forward:
        """What :class:`~prunepool.models.vit.ReducingViT` gives for this image, [1, 3, H, W]."""
        # The kernels take the memory to lie as it did when they were compiled, and do not look.
        logits, *rest = self._run(image.contiguous())
        stages = []
        for at, block in enumerate(self._blocks):
            keep, leave, target, pruned, variance = rest[at * _OF_A_STAGE : (at + 1) * _OF_A_STAGE]
            stages.append(Stage(block, 0, Departure(keep, leave, target), pruned, variance))
        return Forward(logits, stages)


class KernelFolder:
    """Where compiled passes are kept, each under a digest of all that it was made from.

    The files are programs: whoever can write to the folder can have the service run what they like.

    Args:
        path: the folder; made when there is something to keep.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @torch.no_grad()
    def kernels(self, network: ReducingViT, plan: ReductionPlan, size: int) -> Kernels:
        """The compiled pass of one plan; from the folder, or compiled now, which takes about half a minute.

        Args:
            network: on a processor, in the number format it shall run in. Its weights are read where they
                are; they must not move afterwards.
            plan: what a single image follows.
            size: pixels a side.

        Raises:
            KernelsInvalid: there is no compiler, or the pass cannot be compiled.
            InvalidParameter: the folder cannot be written to.
        """
        single = _SingleImage(network, plan)
        file = self.path / f"{_digest(network, plan, size)}.pt2"
        if not file.exists():
            self._compile(single, torch.zeros(1, 3, size, size, dtype=network.dtype), file)
        weights = {**dict(single.named_parameters()), **dict(single.named_buffers())}
        try:
            package: Any = torch._inductor.aoti_load_package(str(file))
            wanted = {name: weights[name] for name in package.get_constant_fqns()}
            package.load_constants(wanted, check_full_update=True, user_managed=True)
        except (RuntimeError, KeyError) as error:
            raise KernelsInvalid(
                f"{file} cannot be loaded, delete it to have it made anew: {error}"
            ) from error
        counts = pairwise(plan.tokens(network.geometry.tokens, network.geometry.prefix))
        reducing = [block for block, (n, m) in zip(plan.blocks, counts, strict=True) if m < n]
        return Kernels(package, reducing, wanted)

    def _compile(self, single: nn.Module, image: Tensor, file: Path) -> None:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise KernelsInvalid(
                f"{self.path} holds no kernels for this model, processor and torch {torch.__version__}, and "
                "there is no C++ compiler to make them: install g++ or set CXX, or unset compiled_ratios"
            ) from error
        log.info("compiling kernels for a single image: %s", file)
        began = time.perf_counter()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Moved into its place when whole: several engines may want the same file at the same time.
            with TemporaryDirectory(dir=self.path) as folder:
                path = str(Path(folder) / file.name)
                exported = torch.export.export(single, (image,))
                torch._inductor.aoti_compile_and_package(
                    exported, package_path=path, inductor_configs=dict(_OPTIONS)
                )
                Path(path).replace(file)
        except OSError as error:
            raise InvalidParameter(
                "compiled_folder",
                str(self.path),
                f"a folder that can be written to ({error.strerror or error})",
            ) from error
        except Exception as error:  # a compiler's own errors have no common class
            raise KernelsInvalid(f"the pass of a single image cannot be compiled: {error}") from error
        log.info("compiled in %.0f s", time.perf_counter() - began)


class _SingleImage(nn.Module):
    """One plan's pass as tensors in and out, for the exporter."""

    def __init__(self, network: ReducingViT, plan: ReductionPlan) -> None:
        super().__init__()
        self.network = network
        self._plan = plan

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        logits, stages = self.network(image, [(self._plan, 1)])
        return logits, *(tensor for stage in stages for tensor in _tensors(stage))


def _tensors(stage: Stage) -> Iterator[Tensor]:
    yield from stage.departure
    yield stage.pruned
    yield stage.variance


#: What the compiled pass was written in.
_SOURCES: tuple[ModuleType, ...] = (
    *(sys.modules[__name__], vit, packing, geometry),
    *(fusing, plan, pooling, pruning, reduction, scoring, tokens),
)


def _digest(network: ReducingViT, chosen: ReductionPlan, size: int) -> str:
    """Of all that makes the kernels what they are.

    The weights are among it, though the file does not hold them: a bias of a few numbers becomes part of the
    compiled code.
    """
    parts = [*map(inspect.getsource, _SOURCES), torch.__version__, timm.__version__, repr(_OPTIONS)]
    parts += [str(network), str(chosen), str(size), *_processor()]
    digest = hashlib.sha256("\n".join(parts).encode())
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _processor() -> Sequence[str]:
    """What tells processors apart that cannot run each other's kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return [platform.system(), platform.machine(), torch.backends.cpu.get_cpu_capability(), *flags]
