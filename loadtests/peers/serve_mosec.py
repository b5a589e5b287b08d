"""mosec: one stage of processes decodes, the next runs batches; its HTTP side is written in Rust."""

from __future__ import annotations

import sys
from typing import Any

from mosec import Server, Worker
from photo_model import PhotoModel, Setting
from torch import Tensor

setting = Setting.read()


class Run(Worker):
    """Decodes and runs batches."""

    def __init__(self) -> None:
        super().__init__()
        self.model = PhotoModel(setting)

    def deserialize(self, data: bytes) -> Tensor:
        """One photo's pixels."""
        return self.model.decode(data)

    def forward(self, data: list[Tensor]) -> list[dict[str, Any]]:
        """A batch's answers."""
        return self.model.top5(data)


if __name__ == "__main__":
    sys.argv += ["--address", "127.0.0.1", "--port", str(setting.port), "--timeout", "120000"]
    sys.argv += ["--log-level", "warning"]
    server = Server()
    server.append_worker(
        Run,
        num=setting.workers,
        max_batch_size=setting.batch,
        max_wait_time=round(setting.wait_s * 1000),
        start_method="spawn",
        timeout=120,
        route="/classify",
    )
    server.run()
