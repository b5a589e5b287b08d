"""BentoML: adaptive batching of a service's worker processes; `bentoml serve serve_bentoml:Classify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import bentoml
from bentoml.validators import ContentType
from photo_model import PhotoModel, Setting

setting = Setting.read()


@bentoml.service(workers=setting.workers, traffic={"timeout": 120, "max_concurrency": 256})
class Model:
    """Runs batches of pixels."""

    def __init__(self) -> None:
        self.model = PhotoModel(setting)

    @bentoml.api(batchable=True, max_batch_size=setting.batch, max_latency_ms=60_000)
    def classify(self, files: list[Annotated[Path, ContentType("image/jpeg")]]) -> list[dict[str, Any]]:
        """A batch of photos."""
        return self.model.top5([self.model.decode(file.read_bytes()) for file in files])
