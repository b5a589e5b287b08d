"""Warm-up profiles as JSON, so that another process need not time its models again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from prunepool.core.cost_model import TimedBatch
from prunepool.core.registry import ModelEntry

#: The timed batches of each model, by name.
Profiles = dict[str, tuple[TimedBatch, ...]]
_decode = msgspec.json.Decoder(Profiles).decode


def to_json(entries: Iterable[ModelEntry]) -> str:
    """The warm-up profiles of the served models."""
    profiles = {entry.model.name: entry.scheduler.warm_up_profile for entry in entries}
    return msgspec.json.encode(profiles).decode()


def from_json(text: str) -> Profiles:
    """What :func:`to_json` has written."""
    return _decode(text)
