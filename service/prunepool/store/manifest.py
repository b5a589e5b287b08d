"""The manifest: everything about a model except its weights."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from prunepool.model_names import NAME_PATTERN, reserved_suffix
from prunepool.reduction.methods import METHODS
from prunepool.store.compiled import Compiled
from prunepool.store.geometry import Geometry
from prunepool.store.manifest_fields import STRICT, Sha256
from prunepool.store.network_options import NetworkOptions
from prunepool.store.profile import Ascending, ProfilePoint, Ratio, Share, Text, Thresholds

#: The reduction method that stands for the plans of the paper; blocks, thresholds and profile are ignored.
PAPER = "ppt-paper"

#: One path component, so that a manifest cannot point outside its folder.
WEIGHTS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$"

#: A smaller one makes pixels overflow.
Spread = Annotated[float, Field(ge=1e-6, le=1)]


class Weights(BaseModel):
    """The file of weights next to the manifest, and its checksum.

    Attributes:
        file: its name, a safetensors file.
        sha256: of the file, 64 hexadecimal digits.
        dtype: of the tensors; `mixed` if they differ.
        parameters: number of parameters in all tensors together.
    """

    model_config = STRICT

    file: Annotated[str, Field(pattern=WEIGHTS_PATTERN, max_length=255)] = "model.safetensors"
    sha256: Sha256
    dtype: Literal["float64", "float32", "bfloat16", "float16", "mixed"]
    parameters: Annotated[int, Field(gt=0)]


class ReductionDefaults(BaseModel):
    """Defaults for reduction plans.

    Attributes:
        method: the reduction method if the profile holds no plans: a name in
            :data:`prunepool.reduction.methods.METHODS`, or `ppt-paper`, which means the paper's plans and ignores
            blocks, thresholds and profile.
        blocks: 0-based reducing blocks, ascending; None for the method's own.
        thresholds: score variance from which an image is pruned, one for each block; None for the paper's.
        default_ratio: the ratio that `auto` applies if nothing else decides.
        max_ratio: the largest ratio; None for what the architecture allows.
    """

    model_config = STRICT

    method: str = "ppt"
    blocks: Ascending | None = None
    thresholds: Thresholds | None = None
    default_ratio: Ratio = 0.5
    max_ratio: Ratio | None = None

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        """Refuse a method that is not registered."""
        if method not in (*METHODS, PAPER):
            raise ValueError(f"must be one of {', '.join((*METHODS, PAPER))}")
        return method

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse values that make no plan."""
        if self.blocks is not None and (not self.blocks or list(self.blocks) != sorted(set(self.blocks))):
            raise ValueError("blocks must be one or more ascending block indices")
        method = METHODS["ppt" if self.method == PAPER else self.method]
        stages = method.default_stages if self.blocks is None else len(self.blocks)
        if self.thresholds is not None and stages is None:
            raise ValueError(f"{self.method} has no thresholds")
        if self.thresholds is not None and len(self.thresholds) != stages:
            raise ValueError(f"thresholds must be {stages} numbers, one for each reducing block")
        if self.max_ratio is not None and self.default_ratio > self.max_ratio:
            raise ValueError(f"default_ratio {self.default_ratio} must not exceed max_ratio {self.max_ratio}")
        return self


class Manifest(BaseModel):
    """The contents of a `model.json`.

    Attributes:
        schema_version: of this layout.
        name: of the model; inside a store, the name of its folder.
        architecture: timm's name, without a tag.
        input_size: input resolution: height and width in pixels.
        mean: per channel, of pixels scaled to 0 … 1.
        std: per channel, of pixels scaled to 0 … 1.
        crop_pct: the centre crop's share of the resized image's side, at least 0.01.
        crop_mode: `center` resizes the short side and cuts the long one, `squash` resizes both sides alike,
            `border` resizes the long side and adds borders of the mean's colour to the short one.
        crop_rounding: where the centre crop is if its centre lies between two pixels: `even`, at the even one, as
            timm has it, or `down`, at the first, as transformers has it.
        interpolation: of the resize.
        labels: one for each class, in the order of the logits; none for a network without classes, whose output is
            an embedding.
        licence: of the weights.
        origin: where the weights came from.
        weights: the file of weights.
        network: what the network has otherwise than its architecture; None for nothing.
        geometry: of the network; None in manifests of older releases, for which it is computed.
        reduction: defaults for the reduction plan.
        profile: plans and measurements for several ratios.
        compiled: forward passes converted for OpenVINO; None if the model was not compiled. One that was compiled
            from other weights than the manifest's is refused.
    """

    model_config = STRICT

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=200)]
    input_size: Annotated[int, Field(ge=16, le=4096)]
    mean: tuple[Share, Share, Share]
    std: tuple[Spread, Spread, Spread]
    crop_pct: Annotated[float, Field(ge=0.01, le=1)]
    crop_mode: Literal["center", "squash", "border"] = "center"
    crop_rounding: Literal["even", "down"] = "even"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    labels: tuple[Text, ...]
    licence: Text
    origin: Text
    weights: Weights
    network: NetworkOptions | None = None
    geometry: Geometry | None = None
    reduction: ReductionDefaults = ReductionDefaults()
    profile: tuple[ProfilePoint, ...] | None = None
    compiled: Compiled | None = None

    @model_serializer(mode="wrap")
    def _readable_by_older_releases(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out keys that older releases do not know, where they say what those take for granted."""
        written: dict[str, object] = write(self)
        usual = {"crop_mode": "center", "crop_rounding": "even"}
        return {key: value for key, value in written.items() if key not in usual or value != usual[key]}

    @property
    def planned(self) -> tuple[ProfilePoint, ...]:
        """The points of the profile that hold a plan; none if the method is `ppt-paper`."""
        if self.reduction.method == PAPER:
            return ()
        return tuple(point for point in self.profile or () if point.removed)

    @field_validator("name")
    @classmethod
    def _unreserved(cls, name: str) -> str:
        """Refuse a name under which another model's second view is served."""
        if (suffix := reserved_suffix(name)) is not None:
            raise ValueError(
                f"must not end in {suffix}, under which /v2 serves the encoded view of"
                f" {name.removesuffix(suffix)!r}: give the model and its folder another name"
            )
        return name

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        """Refuse a geometry of another network than the rest of the manifest describes."""
        if self.geometry is None:
            return self
        if self.geometry.depth < 4:
            raise ValueError(f"geometry.depth must be at least 4; got {self.geometry.depth}")
        grid = tuple(self.input_size // side for side in self.geometry.patch_size)
        if self.geometry.patch_grid != grid:
            raise ValueError(
                f"geometry.patch_grid must be {list(grid)}: the input resolution {self.input_size} over the patch "
                f"size {list(self.geometry.patch_size)}; got {list(self.geometry.patch_grid)}"
            )
        if self.labels and (not self.geometry.classes or self.geometry.classes % len(self.labels)):
            raise ValueError(
                f"geometry.classes must be a multiple of the {len(self.labels)} labels; got {self.geometry.classes}"
            )
        return self

    @model_validator(mode="after")
    def _compiled_from_these_weights(self) -> Self:
        """Refuse a compiled model that would answer for other weights."""
        if self.compiled is None:
            return self
        if self.compiled.source_sha256 != self.weights.sha256:
            raise ValueError(
                f"compiled.source_sha256 must be {self.weights.sha256}, that of the weights; got "
                f"{self.compiled.source_sha256}; `prunepool models compile` converts them"
            )
        if self.geometry is None:
            raise ValueError("compiled needs a geometry")
        return self

    @field_validator("profile")
    @classmethod
    def _ascending(cls, profile: tuple[ProfilePoint, ...] | None) -> tuple[ProfilePoint, ...] | None:
        """Refuse a profile whose ratios do not ascend."""
        ratios = [point.ratio for point in profile or ()]
        if ratios != sorted(set(ratios)):
            raise ValueError("the ratios of its points must ascend")
        return profile
