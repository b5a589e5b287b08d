"""What an installation may lack: the libraries of the extra `torch`.

The dependencies of prunepool serve compiled models on a CPU. PyTorch and what comes with it is ten times as large,
and only training, calibrating, converting and GPUs need it.
"""

from __future__ import annotations

from importlib.util import find_spec

from prunepool.errors import DependencyMissing

#: The libraries of the extra that prunepool imports.
_TORCH = ("torch", "timm", "huggingface_hub", "matplotlib")


def has_torch() -> bool:
    """Whether PyTorch and timm are installed; imports neither."""
    return not _missing("torch", "timm")


def needs_torch(what: str) -> None:
    """Check that the extra `torch` is installed; imports nothing of it.

    Args:
        what: needs it, as the beginning of a sentence.

    Raises:
        DependencyMissing: a library of the extra is missing; the message says how to install it.
    """
    if missing := _missing(*_TORCH):
        raise DependencyMissing(
            f'{what} needs PyTorch and what comes with it: pip install "prunepool[torch]" '
            f"(missing: {', '.join(missing)})"
        )


def _missing(*libraries: str) -> list[str]:
    return [library for library in libraries if find_spec(library) is None]
