"""Schemas of the response bodies, as pydantic models from which FastAPI makes the OpenAPI document.

Their names are those of the OpenAPI components, on which generated clients depend. The types of `serving` and of
`client` bear some of the same names, so import this module, not its classes: `schemas.Classification`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

#: An enumeration of one value, because client generators take a constant beside a number for the only value.
Auto = Annotated[Literal["auto"], WithJsonSchema({"type": "string", "enum": ["auto"]})]


class _Response(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Prediction(_Response):
    """One class and its probability."""

    index: Annotated[int, Field(ge=0, description="Which output of the model.", examples=[1])]
    label: Annotated[str, Field(examples=["English springer"])]
    score: Annotated[float, Field(ge=0, le=1, description="Softmax probability, float32.", examples=[0.93])]


class Reduction(_Response):
    """The reduction that was requested and the one that was applied."""

    requested: Annotated[float | Auto, Field(examples=[0.755])]
    applied: Annotated[float, Field(ge=0, lt=1, description="Never more than requested.", examples=[0.7551])]
    reason: Annotated[
        str,
        Field(
            description="`requested`, `accuracy` (from `max_accuracy_drop`), `escalated` (an unsure image was"
            " run again unreduced), or `auto:` and what decided.",
            examples=["requested"],
        ),
    ]
    tokens: Annotated[
        list[int],
        Field(
            description="Number of tokens, prefix tokens included, before the first reducing block and after each.",
            examples=[[197, 147, 97, 49]],
        ),
    ]
    gmacs: Annotated[
        float, Field(ge=0, description="Billions of multiply-accumulates spent.", examples=[0.8])
    ]
    macs_saved: Annotated[
        float, Field(description="Share saved against the unreduced model.", examples=[0.363])
    ]


class TimingMs(_Response):
    """Milliseconds per stage."""

    decode: Annotated[float, Field(ge=0, examples=[1.7])]
    queue: Annotated[float, Field(ge=0, examples=[0.4])]
    inference: Annotated[float, Field(ge=0, examples=[12.1])]
    total: Annotated[float, Field(ge=0, examples=[14.6])]


class SurvivingToken(_Response):
    """A patch token that is left after the last reducing block."""

    patches: Annotated[list[int], Field(description="Patches in the token, numbered row by row from 0.")]
    pooled: Annotated[bool, Field(description="Whether there are several.")]


class Stage(_Response):
    """The effect of one reducing block on the image."""

    block: Annotated[int, Field(ge=0)]
    action: Annotated[str, Field(description="`prune` or `pool`.")]
    variance: Annotated[
        float, Field(description="Variance of the scores; it decides between pruning and pooling.")
    ]
    pruned: Annotated[list[int], Field(description="Patches that this block pruned.")]
    groups: Annotated[list[list[int]], Field(description="Patches in each token after this block.")]


class TokenMap(_Response):
    """Which patches were pruned or pooled, and where."""

    grid: Annotated[tuple[int, int], Field(description="Rows and columns of patches.", examples=[[14, 14]])]
    tokens: list[SurvivingToken]
    stages: list[Stage]


class Classification(_Response):
    """The classification of one image."""

    model: Annotated[str, Field(examples=["deit_tiny_imagenet1k"])]
    predictions: Annotated[list[Prediction], Field(description="The most probable first.")]
    reduction: Reduction
    timing_ms: TimingMs
    batch_size: Annotated[int, Field(ge=1, description="Number of images in the batch.", examples=[8])]
    token_map: Annotated[TokenMap | None, Field(description="Only with `explain`.")] = None


class Problem(BaseModel):
    """An error as in RFC 9457; some have further members."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(examples=["urn:prunepool:error:invalid_parameter"])]
    title: Annotated[str, Field(examples=["Invalid parameter"])]
    status: Annotated[int, Field(ge=400, le=599, examples=[422])]
    code: Annotated[str, Field(description="Stable identifier for programs.", examples=["invalid_parameter"])]
    detail: Annotated[
        str,
        Field(
            description="Text for people: what was wrong, the value and the limit.",
            examples=["reduction_ratio must be auto or a number between 0 and 0.8724; got 0.9"],
        ),
    ]


class Results(_Response):
    """The classifications of several images in order, with an error in place of each image that failed."""

    results: list[Classification | Problem]


class ModelSummary(_Response):
    """A served model."""

    name: Annotated[str, Field(examples=["deit_tiny_imagenet1k"])]
    architecture: Annotated[str, Field(description="timm's name.", examples=["deit_tiny_patch16_224"])]
    input_size: Annotated[int, Field(description="Input resolution: pixels per side.", examples=[224])]
    classes: Annotated[int, Field(examples=[1000])]
    max_reduction_ratio: Annotated[
        float, Field(description="Largest possible reduction ratio.", examples=[0.8724])
    ]
    default_reduction_ratio: Annotated[
        float,
        Field(description="The model's own ratio; clients take it for calls of many images.", examples=[0.5]),
    ]
    requested_by_default: Annotated[
        float | Auto,
        Field(description="What a request that names no ratio asks for, a setting.", examples=["auto"]),
    ]
    gmacs: Annotated[float, Field(description="GMACs of the unreduced model.", examples=[1.26])]
    parameters: Annotated[int, Field(examples=[5_717_416])]
    device: Annotated[str, Field(examples=["cpu"])]
    dtype: Annotated[str, Field(examples=["float32"])]
    ready: bool
    licence: Annotated[str, Field(description="License of the weights.", examples=["Apache-2.0"])]


class Plan(_Response):
    """A reduction plan: which blocks remove how many tokens."""

    reduction_ratio: float
    blocks: Annotated[list[int], Field(examples=[[3, 6, 9]])]
    removed: Annotated[list[int], Field(examples=[[50, 50, 48]])]
    thresholds: list[float]
    tokens: Annotated[list[int], Field(examples=[[197, 147, 97, 49]])]
    gmacs: float
    macs_saved: float
    method: Annotated[str, Field(description="Reduction method.", examples=["ppt"])]


class ProfilePoint(BaseModel):
    """Figures measured at one ratio; there may be further ones."""

    model_config = ConfigDict(extra="allow")

    ratio: Annotated[float, Field(description="The reduction ratio.", examples=[0.755])]
    gmacs: Annotated[float, Field(examples=[0.798])]
    method: Annotated[str | None, Field(description="Reduction method.", examples=["ppt"])] = None
    blocks: Annotated[list[int] | None, Field(examples=[[3, 6, 9]])] = None
    removed: Annotated[list[int] | None, Field(examples=[[50, 50, 48]])] = None
    thresholds: list[float] | None = None
    images: Annotated[int | None, Field(description="Number of images measured.", examples=[1000])] = None
    top1: Annotated[float | None, Field(description="Top-1 accuracy, as a share.", examples=[0.97])] = None
    top5: float | None = None
    agreement: Annotated[
        float | None,
        Field(description="Share of images predicted as by the unreduced model.", examples=[0.99]),
    ] = None
    kl: Annotated[float | None, Field(description="Mean divergence from its probabilities, in nats.")] = None
    drop: Annotated[
        float | None,
        Field(description="Points lost: of top-1 accuracy, or of agreement without labels.", examples=[0.4]),
    ] = None
    intervals: Annotated[
        dict[str, tuple[float, float]] | None, Field(description="95 % confidence interval of each figure.")
    ] = None
    speed: Annotated[
        dict[str, object] | None, Field(description="`speedup` over the dense model, and on which device.")
    ] = None
    validation: Annotated[
        dict[str, object] | None,
        Field(
            description="`top1` and `top5` on `images` that the model was not calibrated on; `of` names them."
        ),
    ] = None


class FormatMeasured(_Response):
    """What was measured of a number format at one ratio, on this processor."""

    reduction_ratio: Annotated[float, Field(examples=[0.5])]
    images_per_s: Annotated[float, Field(description="In a batch of eight sample photos.", examples=[120.0])]
    agreement: Annotated[
        float, Field(description="Share of sample photos predicted as in float32.", examples=[1.0])
    ]
    kl: Annotated[
        float | None,
        Field(description="Mean divergence from float32's probabilities, in nats.", examples=[0.0004]),
    ]


class NumberFormat(_Response):
    """A number format that `dtype` `auto` tried."""

    dtype: Annotated[str, Field(examples=["int8"])]
    chosen: Annotated[bool, Field(description="Whether the model computes in it.")]
    measured: list[FormatMeasured]


class Model(ModelSummary):
    """A served model in full."""

    auto_max_reduction_ratio: Annotated[
        float,
        Field(
            description="Where neither the server nor a request sets a bound, `auto` goes no further: to where the "
            "profile has lost 2 points; 0 for a model without a measured profile.",
            examples=[0.8724489795918368],
        ),
    ]
    crop_pct: Annotated[
        float,
        Field(description="Share of the resized side that the centre crop keeps.", examples=[0.9]),
    ]
    crop_mode: Annotated[
        Literal["center", "squash", "border"],
        Field(
            description="How a picture becomes a square: by resizing the short side and cutting the long one, by "
            "resizing both sides alike, or by resizing the long side and adding borders."
        ),
    ]
    labels: Annotated[list[str], Field(description="Name of each class.")]
    plans: Annotated[list[Plan], Field(description="Plans on a grid of ratios.")]
    profile: Annotated[
        list[ProfilePoint] | None, Field(description="Measured figures per ratio, if there are any.")
    ]
    number_formats: Annotated[
        list[NumberFormat],
        Field(description="What `dtype` `auto` measured at start; empty if it chose among none."),
    ]


class FailedModel(_Response):
    """A model that is to be served and could not be loaded; a reload tries again."""

    name: str
    why: str


class Models(_Response):
    """All served models."""

    default: Annotated[str, Field(description="Model of requests that name none.")]
    models: list[ModelSummary]
    failed: Annotated[
        list[FailedModel], Field(description="Models that some engine could not load.", examples=[[]])
    ]


class Health(_Response):
    """Whether this process can still come to serve."""

    alive: bool


class Readiness(_Response):
    """Whether requests can be served, and what is missing if not."""

    ready: bool
    missing: Annotated[list[str], Field(examples=[[]])]
