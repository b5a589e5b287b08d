"""Checkpoints: the state of a training run on disk."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import torch

from prunepool.errors import ModelError


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a run's state atomically: the old checkpoint stays until the new one is complete.

    Raises:
        ModelError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, draft)
        draft.replace(path)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"the checkpoint {path} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a run's state; only tensors and plain values are unpickled.

    Raises:
        ModelError: the file is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise ModelError(f"{path} is no checkpoint of a training run: {error}") from error
    if not isinstance(state, dict) or "step" not in state:
        raise ModelError(f"{path} is no checkpoint of a training run")
    return state
