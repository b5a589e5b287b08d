"""The JSON that goes out, as pydantic models: they make the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

#: Said as an enumeration of one: generators take a constant beside a number for the only value.
Auto = Annotated[Literal["auto"], WithJsonSchema({"type": "string", "enum": ["auto"]})]


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Prediction(_Out):
    """One class and its probability."""

    index: Annotated[int, Field(ge=0, description="Which output of the model.", examples=[1])]
    label: Annotated[str, Field(examples=["English springer"])]
    score: Annotated[float, Field(ge=0, le=1, description="Softmax probability, float32.", examples=[0.93])]


class Reduction(_Out):
    """What was asked of the dial and what was done."""

    requested: Annotated[float | Auto, Field(examples=[0.755])]
    applied: Annotated[float, Field(ge=0, lt=1, description="Never more than asked.", examples=[0.7551])]
    reason: Annotated[
        str,
        Field(
            description="`requested`, `accuracy` (from `max_accuracy_drop`), `escalated` (an unsure answer was"
            " looked at again, unreduced), or `auto:` and what decided.",
            examples=["requested"],
        ),
    ]
    tokens: Annotated[
        list[int],
        Field(
            description="Tokens, prefix included, before the first and after each reducing block.",
            examples=[[197, 147, 97, 49]],
        ),
    ]
    gmacs: Annotated[
        float, Field(ge=0, description="Billions of multiply-accumulates spent.", examples=[0.8])
    ]
    macs_saved: Annotated[
        float, Field(description="Share saved against the unreduced model.", examples=[0.363])
    ]


class TimingMs(_Out):
    """Milliseconds per stage."""

    decode: Annotated[float, Field(ge=0, examples=[1.7])]
    queue: Annotated[float, Field(ge=0, examples=[0.4])]
    inference: Annotated[float, Field(ge=0, examples=[12.1])]
    total: Annotated[float, Field(ge=0, examples=[14.6])]


class SurvivingToken(_Out):
    """A patch token that the last block still saw."""

    patches: Annotated[list[int], Field(description="The patches it stands for, row by row from 0.")]
    pooled: Annotated[bool, Field(description="Whether it stands for more than one.")]


class Stage(_Out):
    """What one reducing block did to the image."""

    block: Annotated[int, Field(ge=0)]
    action: Annotated[str, Field(description="`prune` or `pool`.")]
    variance: Annotated[float, Field(description="Of the scores; it decides between pruning and pooling.")]
    pruned: Annotated[list[int], Field(description="Patches that left here.")]
    groups: Annotated[list[list[int]], Field(description="The patches of each token after this block.")]


class TokenMap(_Out):
    """What became of every patch."""

    grid: Annotated[tuple[int, int], Field(description="Rows and columns of patches.", examples=[[14, 14]])]
    tokens: list[SurvivingToken]
    stages: list[Stage]


class Classification(_Out):
    """The answer for one image."""

    model: Annotated[str, Field(examples=["deit_tiny_imagenet1k"])]
    predictions: Annotated[list[Prediction], Field(description="The most probable first.")]
    reduction: Reduction
    timing_ms: TimingMs
    batch_size: Annotated[int, Field(ge=1, description="Images that were computed together.", examples=[8])]
    token_map: Annotated[TokenMap | None, Field(description="With `explain` only.")] = None


class Problem(BaseModel):
    """An error, as RFC 9457 has it; some carry further members."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(examples=["urn:prunepool:error:invalid_parameter"])]
    title: Annotated[str, Field(examples=["Invalid parameter"])]
    status: Annotated[int, Field(ge=400, le=599, examples=[422])]
    code: Annotated[str, Field(description="Stable; made for programs.", examples=["invalid_parameter"])]
    detail: Annotated[
        str,
        Field(
            description="For people: what was wrong, the value and the limit.",
            examples=["reduction_ratio must be auto or a number between 0 and 0.8724; got 0.9"],
        ),
    ]


class Results(_Out):
    """The answers for several images, in their order; a bad image spoils only its own entry."""

    results: list[Classification | Problem]


class ModelSummary(_Out):
    """A served model."""

    name: Annotated[str, Field(examples=["deit_tiny_imagenet1k"])]
    architecture: Annotated[str, Field(description="timm's name.", examples=["deit_tiny_patch16_224"])]
    input_size: Annotated[int, Field(description="Pixels a side.", examples=[224])]
    classes: Annotated[int, Field(examples=[1000])]
    max_reduction_ratio: Annotated[float, Field(description="The largest it can do.", examples=[0.8724])]
    default_reduction_ratio: Annotated[float, Field(description="What `auto` starts with.", examples=[0.5])]
    gmacs: Annotated[float, Field(description="Of the unreduced model.", examples=[1.26])]
    parameters: Annotated[int, Field(examples=[5_717_416])]
    device: Annotated[str, Field(examples=["cpu"])]
    dtype: Annotated[str, Field(examples=["float32"])]
    ready: bool
    licence: Annotated[str, Field(description="Of the weights.", examples=["Apache-2.0"])]


class Plan(_Out):
    """One point of the dial: which block removes how many tokens."""

    reduction_ratio: float
    blocks: Annotated[list[int], Field(examples=[[3, 6, 9]])]
    removed: Annotated[list[int], Field(examples=[[50, 50, 48]])]
    thresholds: list[float]
    tokens: Annotated[list[int], Field(examples=[[197, 147, 97, 49]])]
    gmacs: float
    macs_saved: float
    method: Annotated[str, Field(description="Who leaves, and what becomes of it.", examples=["ppt"])]


class ProfilePoint(BaseModel):
    """Figures measured at one point of the dial; there may be more than are listed here."""

    model_config = ConfigDict(extra="allow")

    ratio: Annotated[float, Field(description="The reduction ratio.", examples=[0.755])]
    gmacs: Annotated[float, Field(examples=[0.798])]
    method: Annotated[str | None, Field(description="Who leaves.", examples=["ppt"])] = None
    blocks: Annotated[list[int] | None, Field(examples=[[3, 6, 9]])] = None
    removed: Annotated[list[int] | None, Field(examples=[[50, 50, 48]])] = None
    thresholds: list[float] | None = None
    images: Annotated[int | None, Field(description="How many were measured.", examples=[1000])] = None
    top1: Annotated[float | None, Field(description="Share that was right.", examples=[0.97])] = None
    top5: float | None = None
    agreement: Annotated[
        float | None, Field(description="Share answered as the unreduced model does.", examples=[0.99])
    ] = None
    kl: Annotated[float | None, Field(description="Mean divergence from its answer, in nats.")] = None
    drop: Annotated[
        float | None,
        Field(description="Points lost: of top-1, or of agreement without labels.", examples=[0.4]),
    ] = None
    intervals: Annotated[
        dict[str, tuple[float, float]] | None, Field(description="95 % confidence, by figure.")
    ] = None
    speed: Annotated[
        dict[str, object] | None, Field(description="`speedup` over the dense model, and where.")
    ] = None
    validation: Annotated[
        dict[str, object] | None,
        Field(
            description="`top1` and `top5` on `images` that the model was not calibrated on; `of` names them."
        ),
    ] = None


class Model(ModelSummary):
    """A served model in full."""

    crop_pct: Annotated[
        float, Field(description="The centre crop's share of the resized short side.", examples=[0.9])
    ]
    labels: Annotated[list[str], Field(description="One a class.")]
    plans: Annotated[list[Plan], Field(description="The dial, on a grid of ratios.")]
    profile: Annotated[
        list[ProfilePoint] | None, Field(description="TimedBatch figures per ratio, where there are any.")
    ]


class Models(_Out):
    """All served models."""

    default: Annotated[str, Field(description="Answers when a request names none.")]
    models: list[ModelSummary]


class Health(_Out):
    """Whether this process can still come to serve."""

    alive: bool


class Readiness(_Out):
    """Whether requests can be served, and what is missing if not."""

    ready: bool
    missing: Annotated[list[str], Field(examples=[[]])]
