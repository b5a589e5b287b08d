"""What a manifest says of a compiled model: forward passes converted for OpenVINO, kept beside the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from prunepool.reduction.methods import METHODS
from prunepool.store.manifest_fields import STRICT, Sha256
from prunepool.store.profile import Ascending, Text

#: The number formats that the weights of a compiled pass may be in.
WeightFormat = Literal["float32", "float16", "int8"]


class CompiledFile(BaseModel):
    """A file in the model's folder, and its checksum.

    Attributes:
        file: its name; one path component, so that a manifest cannot point outside its folder.
        sha256: of the file, 64 hexadecimal digits.
    """

    model_config = STRICT

    file: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(xml\.gz|bin|safetensors)$", max_length=255)
    ]
    sha256: Sha256


class ReferenceFile(CompiledFile):
    """Float32 answers of PyTorch on sample photos, which every number format is compared with.

    Attributes:
        photos: a digest of the photos.
    """

    photos: Text


class PassFiles(BaseModel):
    """A forward pass for all plans that differ in counts and thresholds alone, in OpenVINO's format.

    Attributes:
        weights: the number format of its weights.
        method: the reduction method of its plans.
        blocks: where any of its plans reduces, ascending; none for a pass that runs the dense plan alone.
        graph: the operations, OpenVINO's `.xml`, compressed.
        constants: the weights, OpenVINO's `.bin`; passes of one format share them.
    """

    model_config = STRICT

    weights: WeightFormat
    method: str
    blocks: Ascending
    graph: CompiledFile
    constants: CompiledFile

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        """Refuse a method that is not registered."""
        if method not in METHODS:
            raise ValueError(f"must be one of {', '.join(METHODS)}")
        return method


class Compiled(BaseModel):
    """The section `compiled` of a manifest: what `prunepool models compile` wrote.

    Attributes:
        openvino: the version of OpenVINO that it was converted with.
        source_sha256: of the file of weights that it was converted from.
        passes: together they run every plan of the dial, in each format of weights.
        reference: float32 answers of PyTorch on sample photos, which every number format is compared with.
    """

    model_config = STRICT

    openvino: Text
    source_sha256: Sha256
    passes: Annotated[tuple[PassFiles, ...], Field(min_length=1)]
    reference: ReferenceFile | None = None

    @property
    def formats(self) -> tuple[WeightFormat, ...]:
        """The formats of weights that it has passes in, without repetition."""
        return tuple(dict.fromkeys(one.weights for one in self.passes))

    def files(self) -> Iterator[CompiledFile]:
        """Every file that it consists of; one that several passes share is repeated."""
        for one in self.passes:
            yield one.graph
            yield one.constants
        if self.reference is not None:
            yield self.reference

    @model_validator(mode="after")
    def _once(self) -> Self:
        """Refuse two passes that do the same, or two files of one name."""
        keys = [(one.weights, one.method, one.blocks) for one in self.passes]
        if len(set(keys)) < len(keys):
            raise ValueError("passes must differ in weights, method or blocks")
        names = [one.file for one in dict.fromkeys(self.files())]
        if len(set(names)) < len(names):
            raise ValueError("a file must have one sha256, and another name than all others")
        return self
