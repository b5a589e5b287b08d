"""The machine that a figure was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import timm
import torch

import prunepool
from prunepool import processor


def environment(device: torch.device) -> dict[str, object]:
    """Processor, its instructions, cores, device and versions, JSON-serialisable."""
    return {
        "prunepool": prunepool.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "openvino": version("openvino"),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor.name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "instructions": list(processor.instructions()),
    }


def in_words(where: Mapping[str, Any]) -> str:
    """An environment in one line, for a table or a picture.

    Args:
        where: from :func:`environment`.
    """
    instructions = processor.summary(where["instructions"])
    return f"{where['device']} ({instructions}), {where['cores']} cores, torch {where['torch']}"
