"""What models measured when they warmed up, as JSON, so that another process does the same without measuring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from prunepool.core.cost_model import TimedBatch
from prunepool.core.registry import ModelEntry


class WarmUp(NamedTuple):
    """What one model measured.

    Attributes:
        profile: its timed batches.
        decisions: what its backend decided by measuring: the dtype, and what OpenVINO runs.
    """

    profile: tuple[TimedBatch, ...]
    decisions: dict[str, Any]


#: By name of the model.
WarmUps = dict[str, WarmUp]
_decode = msgspec.json.Decoder(WarmUps).decode


def to_json(entries: Iterable[ModelEntry]) -> str:
    """What the served models measured."""
    warm_ups = {
        entry.model.name: WarmUp(entry.scheduler.warm_up_profile, dict(entry.model.decisions))
        for entry in entries
    }
    return msgspec.json.encode(warm_ups).decode()


def from_json(text: str) -> WarmUps:
    """What :func:`to_json` has written."""
    return _decode(text)
