"""Converted passes, kept in a folder: only the first start converts, and again only what is no longer intact."""

from __future__ import annotations

import errno
import hashlib
import inspect
import logging
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch

from prunepool import reduction
from prunepool.backends import dynamic_pass, openvino_conversion, pass_file
from prunepool.backends.dynamic_pass import DynamicPass, PlanFamily
from prunepool.backends.openvino_conversion import to_openvino
from prunepool.backends.openvino_pass import AT_ONCE, Arrays, OpenVinoPass, Streams
from prunepool.backends.pass_file import ConvertedPass, PassFileInvalid
from prunepool.errors import ConversionInvalid, ConversionNotKept, InvalidParameter
from prunepool.models import packing, vit
from prunepool.models.vit import ReducingViT
from prunepool.reduction.methods import METHODS
from prunepool.store import hidden

log = logging.getLogger(__name__)

#: OpenVINO keeps what it prepares for a shape, so many of them at most.
_PREPARED_SHAPES = 1000

#: There is no room: nothing that another value of the setting would help against at once.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PassCache:
    """A folder of converted passes, each named by a digest of everything that it was made from.

    Args:
        path: the folder; created by the first conversion.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @torch.no_grad()
    def get(
        self, network: ReducingViT, family: PlanFamily, size: int, *, dtype: torch.dtype | None = None
    ) -> OpenVinoPass:
        """The pass for a family of plans: from the folder, or converted now, which takes half a minute.

        Args:
            network: on a CPU.
            family: of the plans.
            size: input resolution, in pixels a side.
            dtype: to compute in; the network's, if not given.

        Raises:
            ConversionInvalid: OpenVINO is not installed, or cannot convert the pass.
            ConversionNotKept: there is no room for it in the folder.
            InvalidParameter: the folder cannot be written to.
        """
        if find_spec("openvino") is None:
            raise ConversionInvalid('cpu_openvino needs OpenVINO: pip install "prunepool[openvino]"')
        file = self.path / f"{_digest(network, family, size)}.pass"
        model = _kept(file)
        if model is None:
            model = self._convert(network, family, size, file)
        threads = torch.get_num_threads()
        widest = max(width for width in range(1, AT_ONCE + 1) if threads % width == 0)
        try:
            streams = _compiled(model, dtype or network.dtype, dict.fromkeys((1, widest)))
        except RuntimeError as error:
            raise ConversionInvalid(f"OpenVINO cannot compile {file}: {error}") from error
        return OpenVinoPass(streams, family, network.geometry)

    def _convert(self, network: ReducingViT, family: PlanFamily, size: int, file: Path) -> Any:
        """Make a file; the `openvino.Model` that it holds."""
        hidden.clean(self.path)
        try:
            # Made first, for what cannot be written to should not take half a minute to say so. The file is moved
            # into place when it is complete: several engines may convert at once.
            with hidden.staging(self.path) as folder:
                log.info("converting the pass of plans by %s for OpenVINO: %s", family.method, file)
                began = time.perf_counter()
                converted = _conversion(network, family, size, folder)
                try:
                    model = _model(converted)
                except RuntimeError as error:
                    detail = "OpenVINO cannot read the pass that it has written; the disk may be full"
                    raise ConversionNotKept(f"{self.path}: {detail} ({_first_line(error)})") from error
                pass_file.write(folder / file.name, converted)
                (folder / file.name).replace(file)
        except OSError as error:
            why = error.strerror or str(error)
            if error.errno in _FULL:
                raise ConversionNotKept(f"{self.path}: the converted pass finds no room ({why})") from error
            limit = f"a folder that can be written to ({why})"
            raise InvalidParameter("cpu_openvino_folder", str(self.path), limit) from error
        log.info("converted in %.0f s", time.perf_counter() - began)
        return model


def _kept(file: Path) -> Any | None:
    """The `openvino.Model` in a file; None if there is none, or no longer what was written."""
    try:
        return _model(pass_file.read(file))
    except FileNotFoundError:
        return None
    except (PassFileInvalid, RuntimeError) as error:
        log.warning("%s cannot be used, and is made anew: %s", file, _first_line(error))
        return None


def _conversion(network: ReducingViT, family: PlanFamily, size: int, folder: Path) -> ConvertedPass:
    """Convert a pass; OpenVINO writes it to a folder.

    Raises:
        ConversionInvalid: OpenVINO cannot convert it.
        ConversionNotKept: OpenVINO cannot write it.
    """
    import openvino as ov

    try:
        model = to_openvino(DynamicPass(network, family).exported(size))
    except Exception as error:  # neither the exporter's errors nor the converter's have a common class
        raise ConversionInvalid(f"OpenVINO cannot take over the pass: {error}") from error
    xml = folder / "pass.xml"
    try:
        ov.save_model(model, xml, compress_to_fp16=False)
    except RuntimeError as error:
        detail = "OpenVINO cannot write the converted pass; the disk may be full"
        raise ConversionNotKept(f"{folder.parent}: {detail} ({_first_line(error)})") from error
    return ConvertedPass(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())


def _model(converted: ConvertedPass) -> Any:
    """The `openvino.Model` of a pass; it has its own copy of the weights.

    Raises:
        RuntimeError: OpenVINO cannot read it.
    """
    import openvino as ov

    return ov.Core().read_model(converted.xml, converted.weights)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _compiled(model: Any, dtype: torch.dtype, widths: Iterable[int]) -> list[Streams]:
    """An `openvino.Model`, compiled for as many threads as PyTorch computes with, for each number of streams."""
    import openvino as ov

    formats = {torch.float32: ov.Type.f32, torch.bfloat16: ov.Type.bf16, torch.float16: ov.Type.f16}
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": formats[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Several engines may share a machine, and none knows which cores the others use.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _PREPARED_SHAPES,
    }
    core = ov.Core()
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
        # Copies: the next run overwrites the output tensors.
        return [[tensor.data.copy() for tensor in request.output_tensors] for request in requests]

    return Streams(width, infer)


def _sources() -> list[str]:
    """The source of the code that a converted pass is made by."""
    modules = (openvino_conversion, dynamic_pass, vit, packing)
    folder = sorted(path for root in reduction.__path__ for path in Path(root).glob("*.py"))
    return [*map(inspect.getsource, modules), *(path.read_text() for path in folder)]


#: Read when this module is imported, as the code itself is: a file that is changed while the process runs, by an
#: upgrade for one, changes nothing of what runs.
_SOURCES = _sources()


def _digest(network: ReducingViT, family: PlanFamily, size: int) -> str:
    """A digest of everything that a converted pass depends on: code, versions, weights, plans, resolution."""
    import openvino as ov

    versions = [torch.__version__, timm.__version__, ov.__version__]
    step = inspect.getmodule(METHODS[family.method].load())
    elsewhere = [] if step is None or step.__name__.startswith("prunepool.") else [inspect.getsource(step)]
    parts = [*_SOURCES, *elsewhere, *versions, str(network), str(family), str(size)]
    digest = hashlib.sha256("\n".join(parts).encode())
    for name, weight in network.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(weight.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
