"""What a start has measured, kept for the next one: it answers sooner, and in the same number format.

A start times a compiled model in several formats and sizes of batch, which takes seconds. The next start of the
same release on the same processor with the same settings takes over what was found, for a week.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import structlog

from prunepool import processor
from prunepool.core.cost_model import TimedBatch
from prunepool.core.profiles import from_json, to_json
from prunepool.core.registry import ModelEntry
from prunepool.core.served_model import ServedModel
from prunepool.server.decisions import DecisionFile, DecisionFolder

_log = structlog.stdlib.get_logger("prunepool.server")

#: What is fastest changes with the load of a machine, and nobody may look: after so long it is measured again.
_FRESH_S = 7 * 24 * 3600.0
_LIBRARIES = ("prunepool", "openvino", "numpy")
_PROFILE = "warm_up_profile"


class KeptDecisions:
    """The decisions and warm-up profiles of earlier starts on a CPU.

    Args:
        folder: of all that is kept.
        conditions: settings that change what is measured.
        clock: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, conditions: Iterable[object], clock: Callable[[], float] = time.time
    ) -> None:
        parts = [
            *map(version, _LIBRARIES),
            processor.name(),
            *processor.instructions(),
            *map(str, conditions),
        ]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        self._path = folder / f"measured-{digest[:24]}"
        self._folder = DecisionFolder(self._path, "cpu")
        self._clock = clock

    def of(self, generation: str) -> DecisionFile:
        """The decisions for one generation of a model."""
        found = self._folder.of(generation)
        if not 0 <= self._clock() - found.changed < _FRESH_S:
            found.clear()
        return found

    def profiles(self, models: Iterable[ServedModel]) -> Mapping[str, Sequence[TimedBatch]]:
        """The warm-up profiles of models that an earlier start has timed, by name."""
        profiles: dict[str, Sequence[TimedBatch]] = {}
        for model in models:
            try:
                profiles |= from_json(self.of(model.generation)[_PROFILE])
            except KeyError:
                continue
            except (TypeError, ValueError) as error:  # msgspec's error is a ValueError
                _log.warning("a warm-up profile is measured again", model=model.name, why=str(error))
                continue
            _log.info("measured by an earlier start", model=model.name, folder=str(self._path))
        return profiles

    def keep(self, entries: Iterable[ModelEntry]) -> None:
        """Keep the warm-up profiles of compiled models; another one may be converted by the next start."""
        for entry in entries:
            decisions = self.of(entry.model.generation)
            if "format" in decisions and _PROFILE not in decisions:
                decisions[_PROFILE] = to_json([entry])
