"""Forward passes that OpenVINO runs on a processor, for batches whose images all follow one plan.

OpenVINO fuses what timm's modules do one by one, and lays the weights out for its own matrix products. One
converted pass serves every ratio and every number of images, so that the weights are in memory twice more, and
not once for each. It is kept in a folder: only the first start converts.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from torch import Tensor

from prunepool import reduction
from prunepool.backends import dynamic_pass, openvino_conversion
from prunepool.backends.dynamic_pass import DynamicPass, PlanFamily, stages_of
from prunepool.backends.openvino_conversion import to_openvino
from prunepool.errors import ConversionInvalid, InvalidParameter
from prunepool.models import packing, vit
from prunepool.models.packing import even_shares, joined
from prunepool.models.vit import Forward, ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.reduction.plan import ReductionPlan
from prunepool.reduction.step import StageRecord
from prunepool.store.geometry import Geometry

log = logging.getLogger(__name__)

#: Images that OpenVINO computes at once: from so many on they get no cheaper, and it keeps memory for the most that
#: it has seen, on a DeiT-S some 23 MB an image.
_AT_ONCE = 8

#: What OpenVINO makes ready for a shape is kept, so much of it at most.
_PREPARED_SHAPES = 1000

#: What a pass takes or gives, in its order.
Arrays = Sequence[np.ndarray]


class Streams(NamedTuple):
    """Runs of the converted :class:`~prunepool.backends.dynamic_pass.DynamicPass`, some at a time.

    Attributes:
        width: how many run side by side; they share the threads.
        infer: from what each of so many runs takes to what it gives.
    """

    width: int
    infer: Callable[[Sequence[Arrays]], Sequence[Arrays]]


class OpenVinoPass:
    """The pass for all plans of one family. Of one thread at a time.

    What all streams can have the same number of images of goes into them, so that threads wait for each other once
    a run and not after each operation; what is left over is one run of all threads.

    Args:
        streams: first the single one that has all threads, then those that share them, if there are any.
        family: of the plans.
        geometry: of the network.
    """

    def __init__(self, streams: Sequence[Streams], family: PlanFamily, geometry: Geometry) -> None:
        self._streams = tuple(streams)
        self._family = family
        self._geometry = geometry

    @property
    def alone(self) -> OpenVinoPass:
        """The same with all threads in each run, as a single image has them."""
        return OpenVinoPass(self._streams[:1], self._family, self._geometry)

    def runs(self, plan: ReductionPlan) -> bool:
        """Whether a plan is of this family."""
        return self._family.counts(plan, self._geometry) is not None

    def __call__(self, images: Tensor, plan: ReductionPlan) -> Forward:
        """What :class:`~prunepool.models.vit.ReducingViT` gives for these images, [B, 3, H, W], and one plan.

        Raises:
            RuntimeError: OpenVINO cannot compute it.
        """
        counts = self._family.counts(plan, self._geometry)
        assert counts is not None, plan
        limits = dict(zip(plan.blocks, plan.thresholds, strict=True))
        thresholds = np.array([limits.get(block, 0.0) for block in self._family.blocks], np.float32)
        stay = [np.zeros(count, np.float32) for count in counts]
        logits: list[Tensor] = []
        stages: list[StageRecord] = []
        first = 0
        for streams, sizes in self._shares(len(images)):
            share = images[first : first + sum(sizes)].float().contiguous()
            taken = [[part.numpy(), thresholds, *stay] for part in torch.split(share, sizes)]
            for size, given in zip(sizes, streams.infer(taken), strict=True):
                answer, *rest = map(torch.from_numpy, given)
                logits.append(answer)
                stages += stages_of(rest, self._family, counts, self._geometry.tokens, first)
                first += size
        return Forward(joined(logits), sorted(stages, key=lambda stage: (stage.block, stage.first)))

    def _shares(self, images: int) -> Iterator[tuple[Streams, list[int]]]:
        """What runs at a time: in which streams, and the images of each of them."""
        for streams in reversed(self._streams):
            each, images = divmod(images, streams.width)
            for share in even_shares(each, _AT_ONCE // streams.width):
                yield streams, [share] * streams.width


class PassCache:
    """Where converted passes are kept, each under a digest of all that it was made from.

    Args:
        path: the folder; made when there is something to keep.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @torch.no_grad()
    def get(self, network: ReducingViT, family: PlanFamily, size: int) -> OpenVinoPass:
        """The pass for plans of a family; from the folder, or converted now, which takes half a minute.

        Args:
            network: on a processor, in the number format that shall be computed in.
            family: of the plans.
            size: pixels a side.

        Raises:
            ConversionInvalid: OpenVINO is not installed, or cannot take over the pass.
            InvalidParameter: the folder cannot be written to.
        """
        if find_spec("openvino") is None:
            raise ConversionInvalid('cpu_openvino needs OpenVINO: pip install "prunepool[openvino]"')
        file = self.path / f"{_digest(network, family, size)}.xml"
        if not file.exists():
            self._convert(network, family, size, file)
        threads = torch.get_num_threads()
        widest = max(width for width in range(1, _AT_ONCE + 1) if threads % width == 0)
        try:
            streams = _opened(file, network.dtype, dict.fromkeys((1, widest)))
        except RuntimeError as error:
            raise ConversionInvalid(
                f"{file} cannot be loaded, delete it to have it made anew: {error}"
            ) from error
        return OpenVinoPass(streams, family, network.geometry)

    def _convert(self, network: ReducingViT, family: PlanFamily, size: int, file: Path) -> None:
        import openvino as ov

        log.info("converting the pass of plans by %s for OpenVINO: %s", family.method, file)
        began = time.perf_counter()
        try:
            model = to_openvino(DynamicPass(network, family).exported(size))
        except Exception as error:  # neither the exporter's errors nor the converter's have a common class
            raise ConversionInvalid(f"OpenVINO cannot take over the pass: {error}") from error
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Moved into their places when whole, what is looked for last: several engines may want the same.
            with TemporaryDirectory(dir=self.path) as folder:
                made = Path(folder) / file.name
                ov.save_model(model, made, compress_to_fp16=False)
                for suffix in (".bin", ".xml"):
                    made.with_suffix(suffix).replace(file.with_suffix(suffix))
        except OSError as error:
            limit = f"a folder that can be written to ({error.strerror or error})"
            raise InvalidParameter("cpu_openvino_folder", str(self.path), limit) from error
        log.info("converted in %.0f s", time.perf_counter() - began)


def _opened(file: Path, dtype: torch.dtype, widths: Iterable[int]) -> list[Streams]:
    """A converted pass, ready to run on as many threads as PyTorch computes with."""
    import openvino as ov

    formats = {torch.float32: ov.Type.f32, torch.bfloat16: ov.Type.bf16, torch.float16: ov.Type.f16}
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": formats[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Several engines share a machine, and none knows which cores the others are on.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _PREPARED_SHAPES,
    }
    core = ov.Core()
    model = core.read_model(file)
    return [
        _streams(core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": width}), width)
        for width in widths
    ]


def _streams(compiled: Any, width: int) -> Streams:
    requests = [compiled.create_infer_request() for _ in range(width)]

    def infer(parts: Sequence[Arrays]) -> list[Arrays]:
        for request, arrays in zip(requests, parts, strict=True):
            request.start_async(list(arrays), share_inputs=True)
        for request in requests:
            request.wait()
        # Copies: the next run writes where this one's answers are.
        return [[tensor.data.copy() for tensor in request.output_tensors] for request in requests]

    return Streams(width, infer)


#: Beside the method: the code that a converted pass was made by.
_MODULES: tuple[ModuleType, ...] = (openvino_conversion, dynamic_pass, vit, packing)


def _sources(method: str) -> list[str]:
    """The source of all code that a converted pass of a method was made by; a method may use any other."""
    step = inspect.getmodule(METHODS[method].load())
    modules = [*_MODULES, *([] if step is None else [step])]
    shared = sorted(path for folder in reduction.__path__ for path in Path(folder).glob("*.py"))
    return [*map(inspect.getsource, modules), *(path.read_text() for path in shared)]


def _digest(network: ReducingViT, family: PlanFamily, size: int) -> str:
    """Of all that makes the converted pass what it is, the weights among it."""
    import openvino as ov

    versions = [torch.__version__, timm.__version__, ov.__version__]
    parts = [*_sources(family.method), *versions, str(network), str(family), str(size)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
