"""Turns the types of `serving` into the JSON documents that `schemas` describes."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from prunepool.core.formats import FormatTrial
from prunepool.core.model_info import ModelInfo
from prunepool.serving.types import Classification


def json_response(content: object, status: int = 200) -> Response:
    """Make a JSON response."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def classification_json(answer: Classification) -> dict[str, object]:
    """Describe one image's classification; the token map only if the request asked for it."""
    timing = answer.timing_ms
    document: dict[str, object] = {
        "model": answer.model,
        "predictions": answer.predictions,
        "reduction": answer.reduction,
        # Rounded to microseconds: none of these is measured more precisely.
        "timing_ms": {
            stage: round(getattr(timing, stage), 3) for stage in ("decode", "queue", "inference", "total")
        },
        "batch_size": answer.batch_size,
    }
    if (token_map := answer.token_map) is not None:
        document["token_map"] = {
            "grid": token_map.grid,
            "tokens": [{"patches": patches, "pooled": len(patches) > 1} for patches in token_map.tokens],
            "stages": token_map.stages,
        }
    return document


def model_summary_json(info: ModelInfo) -> dict[str, object]:
    """Describe a model for a list, without labels, plans and profile."""
    return {
        "name": info.name,
        "architecture": info.architecture,
        "input_size": info.input_size,
        "classes": len(info.labels),
        "max_reduction_ratio": info.max_reduction_ratio,
        "default_reduction_ratio": info.default_reduction_ratio,
        "requested_by_default": info.requested_by_default,
        "gmacs": info.gmacs,
        "parameters": info.parameters,
        "device": info.device,
        "dtype": info.dtype,
        "ready": info.ready,
        "licence": info.licence,
    }


def model_json(info: ModelInfo) -> dict[str, object]:
    """Describe a model in full, with labels, plans and measured profile."""
    return {
        **model_summary_json(info),
        "auto_max_reduction_ratio": info.auto_limit(None),
        "crop_pct": info.crop_pct,
        "crop_mode": info.crop_mode,
        "labels": info.labels,
        "plans": info.plans,
        "profile": None if info.profile is None else [dict(point) for point in info.profile],
        "number_formats": [_format_json(trial) for trial in info.format_trials],
    }


def _format_json(trial: FormatTrial) -> dict[str, object]:
    """Describe what was measured of a number format; a divergence that is no number becomes null."""
    return {
        "dtype": trial.dtype,
        "chosen": trial.chosen,
        "measured": [
            {"reduction_ratio": ratio, "images_per_s": speed, "agreement": own.agreement, "kl": own.kl}
            for ratio, speed, own in zip(trial.ratios, trial.images_per_s, trial.fidelity, strict=True)
        ],
    }
