"""What requests and answers look like, for the OpenAPI document: real answers of the embedded model.

They were taken from `prunepool serve --dtype float32` on a CPU and shortened where lists are long.
"""

from __future__ import annotations

from typing import Any

from prunepool import errors

CLASSIFICATION: dict[str, Any] = {
    "model": "deit_tiny_imagenette",
    "predictions": [
        {"index": 4, "label": "church", "score": 0.9981503486633301},
        {"index": 8, "label": "golf ball", "score": 0.0011191697558388114},
    ],
    "reduction": {
        "requested": 0.755,
        "applied": 0.755,
        "reason": "requested",
        "tokens": [197, 147, 97, 49],
        "gmacs": 0.798195072,
        "macs_saved": 0.3632234120279815,
    },
    "timing_ms": {"decode": 15.943, "queue": 0.138, "inference": 55.44, "total": 75.255},
    "batch_size": 1,
}

_TOKEN_MAP = {
    "grid": [14, 14],
    "tokens": [{"patches": [147, 148, 149], "pooled": True}, {"patches": [186, 187], "pooled": True}],
    "stages": [
        {"block": 3, "action": "pool", "variance": 1.6599075024714693e-05, "pruned": [], "groups": [[1, 2]]}
    ],
}

_SUMMARY: dict[str, Any] = {
    "name": "deit_tiny_imagenette",
    "architecture": "deit_tiny_patch16_224",
    "input_size": 224,
    "classes": 10,
    "max_reduction_ratio": 0.8724489795918368,
    "default_reduction_ratio": 0.5,
    "gmacs": 1.25349312,
    "parameters": 5526346,
    "device": "cpu",
    "dtype": "float32",
    "ready": True,
    "licence": "Apache-2.0",
}

MODELS = {"default": "deit_tiny_imagenette", "models": [_SUMMARY]}

MODEL = {
    **_SUMMARY,
    "crop_pct": 0.9,
    "labels": ["tench", "English springer", "cassette player", "chain saw", "church"],
    "plans": [
        {
            "reduction_ratio": 0.755,
            "blocks": [3, 6, 9],
            "removed": [50, 50, 48],
            "thresholds": [7e-05, 7e-05, 7e-05],
            "tokens": [197, 147, 97, 49],
            "gmacs": 0.798195072,
            "macs_saved": 0.3632234120279815,
            "method": "ppt",
        }
    ],
    "profile": [{"ratio": 0.755, "gmacs": 0.798195072}],
}

HEALTH = {"alive": True}
READY = {"ready": True, "missing": []}
NOT_READY = {"ready": False, "missing": ["draining"]}

METRICS = """\
# HELP prunepool_requests_total Images asked for, by how they ended: ok, or the code of the error.
# TYPE prunepool_requests_total counter
prunepool_requests_total{model="deit_tiny_imagenette",outcome="ok"} 5.0
"""

#: What a request may bring, beside an image alone.
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
NOT_FOUND = errors.ModelNotFound("no model named 'vit' is served; there are: deit_tiny_imagenette")
TIMEOUT = errors.RequestTimeout("the request did not arrive in time: 65536 bytes of its body did")
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
DRAINING = errors.Draining("the server is stopping: new requests are not taken", retry_after=30.0)
ENGINE = errors.EngineUnavailable("deit_tiny_imagenette: the engine is being restarted", retry_after=1.0)
DEADLINE = errors.DeadlineExceeded("the deadline of 50 ms came before the image was decoded")

EXPLAINED = {**CLASSIFICATION, "token_map": _TOKEN_MAP}
RESULTS = {"results": [CLASSIFICATION, UNDECODABLE.problem()]}
