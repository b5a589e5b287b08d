"""What models were timed with when they warmed up, as text, so that another process need not time them again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from prunepool.core.cost_model import Measured
from prunepool.serving.registry import Line

#: The timed batches of each model.
Rehearsals = dict[str, tuple[Measured, ...]]
_decode = msgspec.json.Decoder(Rehearsals).decode


def to_json(lines: Iterable[Line]) -> str:
    """What the models that are served were timed with."""
    rehearsals = {line.model.name: line.scheduler.rehearsed for line in lines}
    return msgspec.json.encode(rehearsals).decode()


def from_json(text: str) -> Rehearsals:
    """What :func:`to_json` has written."""
    return _decode(text)
