"""What models were timed with when they warmed up, as text, so that another process need not time them again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from prunepool.core.cost_model import TimedBatch
from prunepool.core.registry import ModelEntry

#: The timed batches of each model.
Profiles = dict[str, tuple[TimedBatch, ...]]
_decode = msgspec.json.Decoder(Profiles).decode


def to_json(lines: Iterable[ModelEntry]) -> str:
    """What the models that are served were timed with."""
    profiles = {line.model.name: line.scheduler.warm_up_profile for line in lines}
    return msgspec.json.encode(profiles).decode()


def from_json(text: str) -> Profiles:
    """What :func:`to_json` has written."""
    return _decode(text)
