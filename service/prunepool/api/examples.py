"""Example requests and responses for the OpenAPI document: real responses of the default model.

They come from `prunepool serve --dtype float32` on a CPU; long lists are shortened.
"""

from __future__ import annotations

from typing import Any

from prunepool import errors

CLASSIFICATION: dict[str, Any] = {
    "model": "deit_tiny_imagenet1k",
    "predictions": [
        {"index": 497, "label": "church", "score": 0.8778244256973267},
        {"index": 437, "label": "beacon", "score": 0.03689063712954521},
    ],
    "reduction": {
        "requested": 0.755,
        "applied": 0.755,
        "reason": "requested",
        "tokens": [197, 171, 147, 126, 107, 90, 75, 61, 49],
        "gmacs": 0.796679424,
        "macs_saved": 0.3645289144817446,
    },
    "timing_ms": {"decode": 7.395, "queue": 0.635, "inference": 46.003, "total": 54.954},
    "batch_size": 1,
}

_TOKEN_MAP = {
    "grid": [14, 14],
    "tokens": [{"patches": [18, 19, 32], "pooled": True}, {"patches": [33], "pooled": False}],
    "stages": [
        {
            "block": 3,
            "action": "pool",
            "variance": 1.0854299034690484e-05,
            "pruned": [],
            "groups": [[10, 11, 12], [26, 27]],
        }
    ],
}

_SUMMARY: dict[str, Any] = {
    "name": "deit_tiny_imagenet1k",
    "architecture": "deit_tiny_patch16_224",
    "input_size": 224,
    "classes": 1000,
    "max_reduction_ratio": 0.8724489795918368,
    "default_reduction_ratio": 0.5,
    "requested_by_default": "auto",
    "gmacs": 1.2536832,
    "parameters": 5717416,
    "device": "cpu",
    "dtype": "float32",
    "ready": True,
    "licence": "Apache-2.0",
}

MODELS = {"default": "deit_tiny_imagenet1k", "models": [_SUMMARY], "failed": []}

MODEL = {
    **_SUMMARY,
    "auto_max_reduction_ratio": 0.8724489795918368,
    "crop_pct": 0.9,
    "crop_mode": "center",
    "labels": ["tench", "goldfish", "great white shark", "tiger shark", "hammerhead"],
    "plans": [
        {
            "reduction_ratio": 0.755,
            "blocks": [3, 4, 5, 6, 7, 8, 9, 10],
            "removed": [26, 24, 21, 19, 17, 15, 14, 12],
            "thresholds": [0.0] * 8,
            "tokens": [197, 171, 147, 126, 107, 90, 75, 61, 49],
            "gmacs": 0.796679424,
            "macs_saved": 0.3645289144817446,
            "method": "fuse",
        }
    ],
    "profile": [{"ratio": 0.755, "gmacs": 0.796679}],
    "number_formats": [],
}

HEALTH = {"alive": True}
BROKEN = {"alive": False}
READY = {"ready": True, "missing": []}
NOT_READY = {"ready": False, "missing": ["draining"]}

METRICS = """\
# HELP prunepool_requests_total Images requested, by outcome: ok, or the code of the error.
# TYPE prunepool_requests_total counter
prunepool_requests_total{model="deit_tiny_imagenet1k",outcome="ok"} 5.0
"""

#: Request bodies other than a single image.
JSON_ONE = {"image": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD", "reduction_ratio": 0.755, "top_k": 5}
JSON_SEVERAL = {
    "images": ["/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD", "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA"],
    "reduction_ratio": "auto",
    "max_reduction_ratio": 0.5,
}
FORM = {"file": ["(the bytes of a JPEG)"], "reduction_ratio": 0.755, "top_k": 5}

UNDECODABLE = errors.ImageUndecodable("the 5 bytes are not a JPEG, PNG, WebP, GIF, BMP or TIFF image")
UNAUTHORIZED = errors.Unauthorized(
    "an API key is needed: send it as Authorization: Bearer … or as X-API-Key: …"
)
NOT_FOUND = errors.ModelNotFound("no model named 'vit' is served; there are: deit_tiny_imagenet1k")
TIMEOUT = errors.RequestTimeout("the request did not arrive in time: only 65536 bytes of its body did")
BODY = errors.BodyTooLarge("the body has 40000000 bytes; the limit is 33554432", limit=33554432)
PIXELS = errors.ImageTooLarge(
    "the JPEG image has 12000×9000 = 108,000,000 pixels; the limit is 50,000,000",
    pixels=108_000_000,
    limit=50_000_000,
)
MEDIA_TYPE = errors.UnsupportedMediaType(
    "Content-Type must be image/*, application/octet-stream, multipart/form-data or application/json; "
    "got 'text/plain'"
)
PARAMETER = errors.InvalidParameter("reduction_ratio", 0.9, "auto or a number between 0 and 0.8724")
RATE = errors.RateLimited(
    "the key 'alice' may send 50 images a second, 100 at once; the next fits in 0.48 s", retry_after=0.48
)
UNEXPECTED = errors.PrunepoolError("the server failed unexpectedly; its log says more")
OVERLOADED = errors.Overloaded("512 images wait for their answers, and 512 is the limit", retry_after=2.4)
DRAINING = errors.Draining("the server is stopping: new requests are refused", retry_after=30.0)
ENGINE = errors.EngineUnavailable("deit_tiny_imagenet1k: the engine is being restarted", retry_after=1.0)
DEADLINE = errors.DeadlineExceeded("the deadline of 50 ms came before the image was decoded")

EXPLAINED = {**CLASSIFICATION, "token_map": _TOKEN_MAP}
RESULTS = {"results": [CLASSIFICATION, UNDECODABLE.problem()]}
