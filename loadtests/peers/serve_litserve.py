"""LitServe: its worker processes decode and run batches."""

# Without `from __future__ import annotations`: LitServe looks at the annotation of the request itself.

from typing import Any

import litserve as ls
from fastapi import Request
from photo_model import PhotoModel, Setting
from torch import Tensor

setting = Setting.read()


class Classify(ls.LitAPI):
    """Photos as the form field `file`, as its examples take images."""

    def setup(self, device: str) -> None:
        """Load the model; called in each worker."""
        self.model = PhotoModel(setting)

    def decode_request(self, request: Request) -> Tensor:
        """One photo's pixels."""
        return self.model.decode(request["file"].file.read())  # type: ignore[index] # its form

    def batch(self, inputs: list[Tensor]) -> list[Tensor]:
        """They are stacked when they are run."""
        return inputs

    def predict(self, x: list[Tensor]) -> list[dict[str, Any]]:
        """A batch's answers."""
        return self.model.top5(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """They are apart already."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return output


if __name__ == "__main__":
    api = Classify(max_batch_size=setting.batch, batch_timeout=setting.wait_s, api_path="/classify")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=setting.workers, timeout=120)
    server.run(host="127.0.0.1", port=setting.port, generate_client_file=False, log_level="warning")
