"""Which device a setting names. PyTorch is asked only if the machine may have a GPU: to import it takes seconds."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunepool.backends.registry import device_type, is_registered
from prunepool.errors import InvalidParameter
from prunepool.extras import has_torch

#: The driver of NVIDIA's GPUs, and the device file of AMD's, which PyTorch calls cuda as well.
_NVIDIA_DRIVER = "libcuda.so.1"
_AMD_DRIVER = Path("/dev/kfd")
#: Made by Docker, and by Podman.
_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))


def resolve_device(device: str) -> str:
    """The device that a setting names; `auto` is a GPU if one is visible and PyTorch is installed.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N`, or one of a registered backend.

    Raises:
        InvalidParameter: the device does not exist, or needs PyTorch, which is not installed.
    """
    if is_registered(device) or device == "cpu":
        return device
    if device == "auto" and not (has_torch() and _may_have_gpu()):
        return "cpu"
    if not has_torch() and device_type(device) == "cuda":
        hint = 'pip install "prunepool[gpu]"'
        if in_container():  # of an image of ours, or of the user's own
            hint += ", or docker-compose.gpu.yml for an image that has it"
        raise InvalidParameter("device", device, f"auto or cpu without PyTorch ({hint})")
    from prunepool.models import loader

    try:
        return str(loader.resolve_device(device))
    except InvalidParameter as error:
        if not in_container():
            raise
        hint = "what is visible in this container needs docker-compose.gpu.yml and the NVIDIA runtime"
        raise InvalidParameter("device", device, f"{error.extra['limit']}; {hint}") from error


def in_container(marks: Sequence[Path] = _CONTAINER, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a container of Docker, Podman or Kubernetes."""
    return "KUBERNETES_SERVICE_HOST" in environment or any(mark.exists() for mark in marks)


def _may_have_gpu() -> bool:
    """Whether a driver is installed that PyTorch could use; whether it works, only PyTorch knows."""
    try:
        ctypes.CDLL(_NVIDIA_DRIVER)
    except OSError:
        return _AMD_DRIVER.exists()
    return True
