"""Views: each served model appears in the protocol once for tensors and once for encoded images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prunepool.core.model_info import ModelInfo
from prunepool.errors import ModelNotFound
from prunepool.model_names import ENCODED_SUFFIX
from prunepool.serving.types import Service
from prunepool.settings import Settings

#: Every model has one version.
VERSION = "1"
INPUT = "images"
OUTPUTS = ("logits", "probabilities")


@dataclass(frozen=True, slots=True)
class View:
    """A model as clients of the protocol see it.

    Attributes:
        name: name of the view.
        info: the model behind it.
        encoded: whether it takes encoded images; if not, float32 pixels, cropped and normalised.
        max_batch_size: largest number of images in a request.
    """

    name: str
    info: ModelInfo
    encoded: bool
    max_batch_size: int

    @property
    def datatype(self) -> str:
        """Datatype of the input."""
        return "BYTES" if self.encoded else "FP32"

    @property
    def dims(self) -> list[int]:
        """Shape of one image in the input."""
        return [1] if self.encoded else [3, self.info.input_size, self.info.input_size]

    def metadata(self) -> dict[str, object]:
        """Return names, datatypes and shapes; the first dimension is the number of images."""
        classes = len(self.info.labels)
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "prunepool",
            "inputs": [{"name": INPUT, "datatype": self.datatype, "shape": [-1, *self.dims]}],
            "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, classes]} for name in OUTPUTS],
        }

    def config(self, max_wait_s: float) -> dict[str, object]:
        """Return Triton's model configuration; its shapes are those of one image.

        Args:
            max_wait_s: longest batching window, in seconds.
        """
        info = self.info
        parameters = {
            "model": info.name,
            "max_reduction_ratio": f"{info.max_reduction_ratio:.6g}",
            "default_reduction_ratio": f"{info.default_reduction_ratio:.6g}",
            "mean": ",".join(map(str, info.mean)),
            "std": ",".join(map(str, info.std)),
            "crop_pct": f"{info.crop_pct:.6g}",
            "crop_mode": info.crop_mode,
            "interpolation": info.interpolation,
        }
        given = {"name": INPUT, "data_type": "TYPE_STRING", "format": "FORMAT_NONE", "dims": self.dims}
        if not self.encoded:
            given |= {"data_type": "TYPE_FP32", "format": "FORMAT_NCHW"}
        return {
            "name": self.name,
            "platform": "",
            "backend": "prunepool",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": self.max_batch_size,
            "input": [given],
            "output": [
                {"name": name, "data_type": "TYPE_FP32", "dims": [len(info.labels)]} for name in OUTPUTS
            ],
            "dynamic_batching": {"max_queue_delay_microseconds": round(max_wait_s * 1e6)},
            "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        }


def views(service: Service, settings: Settings) -> Iterator[View]:
    """Yield both views of every served model. No two have the same name: the store refuses names of views."""
    for info in service.models():
        # A request may not be longer than this, which limits the number of tensors.
        tensor_bytes = 3 * info.input_size**2 * 4
        fit = max(1, settings.max_body_bytes // tensor_bytes)
        yield View(info.name, info, False, min(fit, settings.max_images_per_request))
        yield View(info.name + ENCODED_SUFFIX, info, True, settings.max_images_per_request)


def find(service: Service, settings: Settings, name: str, version: str | None = None) -> View:
    """Return the view of a name.

    Raises:
        ModelNotFound: there is no such view, or no such version.
    """
    found = {view.name: view for view in views(service, settings)}
    if name not in found:
        raise ModelNotFound(f"no model named {name[:100]!r} is served; there are: {', '.join(found)}")
    if version not in (None, VERSION):
        raise ModelNotFound(f"{name} has no version {str(version)[:100]!r}; there is: {VERSION}")
    return found[name]
