"""What every peer serves: a timm model from a folder of the store, from the bytes of a photo to its top five."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Setting:
    """How a peer is set up, from its environment.

    Attributes:
        folder: of the model.
        port: to listen on.
        workers: processes or threads, each with a model of its own.
        threads: of torch, in each worker.
        batch: most images in one run.
        wait_s: how long a run waits for more images.
        openvino: whether OpenVINO runs the model.
        dtype: float32, bfloat16 or int8, which only OpenVINO has here.
        says: file that takes what the model really computes in.
    """

    folder: Path
    port: int
    workers: int
    threads: int
    batch: int
    wait_s: float
    openvino: bool
    dtype: str
    says: Path

    @classmethod
    def read(cls) -> Setting:
        """From the variables that `compare.py` sets."""
        return cls(
            Path(os.environ["PEER_FOLDER"]),
            int(os.environ["PEER_PORT"]),
            int(os.environ["PEER_WORKERS"]),
            int(os.environ["PEER_THREADS"]),
            int(os.environ["PEER_BATCH"]),
            float(os.environ["PEER_WAIT_MS"]) / 1000,
            os.environ["PEER_OPENVINO"] == "1",
            os.environ["PEER_DTYPE"],
            Path(os.environ["PEER_SAYS"]),
        )


Run = Callable[[Tensor], Tensor]

#: OpenVINO quantises activations in groups of so many, where weights are int8; as its documentation has it.
_GROUP = 64


def by_torch(vit: nn.Module, dtype: str) -> tuple[Run, str]:
    """The model as timm makes it, and what it computes in."""
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    network = vit.to(kind)
    return lambda images: network(images.to(kind)).float(), dtype


def by_openvino(vit: nn.Module, size: int, threads: int, dtype: str) -> tuple[Run, str]:
    """The same model, run by OpenVINO, for any number of images; and what OpenVINO says that it computes in.

    int8 needs no data: weights are compressed, activations are quantised as they come, and the rest is in what
    OpenVINO takes by itself.
    """
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # What `openvino.convert_model` does, but for its report to its maker.
    decoder = TorchScriptPythonDecoder(vit, example_input=torch.zeros(2, 3, size, size))
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, 3, size, size])
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    if dtype == "int8":
        import nncf

        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _GROUP
    else:
        settings["INFERENCE_PRECISION_HINT"] = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}[dtype]
    compiled = ov.Core().compile_model(model, "CPU", settings)
    rest = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[
        compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    ]
    ran = f"int8, the rest {rest}" if dtype == "int8" else rest
    return lambda images: torch.from_numpy(compiled(images.numpy())[0]), ran


class PhotoModel:
    """A timm model and the transform that timm itself makes for it.

    Args:
        setting: which, and with how many threads.
    """

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        manifest = json.loads((setting.folder / "model.json").read_text())
        self._labels = manifest["labels"]
        vit = timm.create_model(manifest["architecture"], num_classes=len(self._labels)).eval()
        weights = load_file(setting.folder / manifest["weights"]["file"])
        vit.load_state_dict({key: value.float() for key, value in weights.items()})
        self._size = manifest["input_size"]
        if setting.openvino:
            self._run, ran = by_openvino(vit, self._size, setting.threads, setting.dtype)
        else:
            self._run, ran = by_torch(vit, setting.dtype)
        self._transform = create_transform(
            self._size,
            interpolation=manifest["interpolation"],
            crop_pct=manifest["crop_pct"],
            mean=manifest["mean"],
            std=manifest["std"],
        )
        self.top5([torch.zeros(3, self._size, self._size)] * setting.batch)
        setting.says.write_text(ran)

    def decode(self, body: bytes) -> Tensor:
        """Normalised pixels, [3, H, W], of an encoded photo."""
        pixels: Tensor = self._transform(Image.open(io.BytesIO(body)).convert("RGB"))
        return pixels

    @torch.inference_mode()
    def top5(self, images: Sequence[Tensor]) -> list[dict[str, Any]]:
        """The answer to each image."""
        scores, classes = self._run(torch.stack(list(images))).softmax(-1).topk(5)
        return [
            {"predictions": [{"label": self._labels[c], "score": s} for c, s in zip(*row, strict=True)]}
            for row in zip(classes.tolist(), scores.tolist(), strict=True)
        ]
