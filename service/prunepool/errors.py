"""Every error that prunepool raises on purpose, as one tree.

    PrunepoolError
    ├── RequestError                 the caller can mend it
    │   ├── InvalidParameter         422 invalid_parameter
    │   ├── ImageUndecodable         400 image_undecodable
    │   ├── ImageTooLarge            413 image_too_large
    │   ├── BodyTooLarge             413 body_too_large
    │   ├── UnsupportedMediaType     415 unsupported_media_type
    │   ├── ModelNotFound            404 model_not_found
    │   ├── Unauthorized             401 unauthorized
    │   ├── Forbidden                403 forbidden
    │   ├── RequestTimeout           408 request_timeout
    │   └── RateLimited              429 rate_limited
    ├── Unavailable                  503, try again after `retry_after` seconds
    │   ├── Overloaded               overloaded
    │   ├── Draining                 draining
    │   └── EngineUnavailable        engine_unavailable
    ├── DeadlineExceeded             504 deadline_exceeded
    └── ModelError                   500 model_error: the operator can mend it
        ├── ManifestInvalid          a model.json that does not say what it must
        ├── WeightsInvalid           weights missing, changed, or not of this architecture
        ├── ArchitectureUnsupported  a timm model that cannot be reduced
        ├── ConversionInvalid        a pass that OpenVINO cannot run, or not rightly
        └── HubUnreachable           no model hub answers

Each class carries the stable `code` and the HTTP `status`; a message names what was wrong, the value and
the limit. Over HTTP all of them take the one shape of RFC 9457 (`application/problem+json`).
"""

from __future__ import annotations

from typing import ClassVar


class PrunepoolError(Exception):
    """Root of the tree.

    Args:
        detail: one sentence for a human: what was wrong, the value, the limit.
        extra: further members of the problem document, JSON-serialisable.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra

    def problem(self) -> dict[str, object]:
        """The error as an RFC 9457 problem document."""
        return {
            "type": f"urn:prunepool:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.extra,
        }


class RequestError(PrunepoolError):
    """The request was wrong; the same request will fail again."""

    code = "bad_request"
    status = 400
    title = "Bad request"


class InvalidParameter(RequestError):
    """A parameter has a value it may not have.

    Args:
        parameter: its name as the caller wrote it.
        value: what was given.
        limit: what is allowed, in words.
    """

    code = "invalid_parameter"
    status = 422
    title = "Invalid parameter"

    def __init__(self, parameter: str, value: object, limit: str) -> None:
        shown = value if isinstance(value, int | float | bool | str) or value is None else repr(value)
        if isinstance(shown, str) and len(shown) > 100:
            shown = shown[:100] + "…"
        if isinstance(shown, float) and not abs(shown) < float("inf"):
            shown = str(shown)  # JSON has no nan and no infinity
        super().__init__(
            f"{parameter} must be {limit}; got {shown!r}", parameter=parameter, value=shown, limit=limit
        )
        self.parameter = parameter


class ImageUndecodable(RequestError):
    """The bytes are not an image that can be decoded."""

    code = "image_undecodable"
    status = 400
    title = "Image cannot be decoded"


class ImageTooLarge(RequestError):
    """The image has more pixels than allowed; found in its header, before decoding."""

    code = "image_too_large"
    status = 413
    title = "Image has too many pixels"


class BodyTooLarge(RequestError):
    """The request body is longer than allowed."""

    code = "body_too_large"
    status = 413
    title = "Request body is too large"


class UnsupportedMediaType(RequestError):
    """The Content-Type, or the image format found in the bytes, is not served."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class ModelNotFound(RequestError):
    """No model of that name is there."""

    code = "model_not_found"
    status = 404
    title = "Model not found"


class Unauthorized(RequestError):
    """No API key, or one that is not known."""

    code = "unauthorized"
    status = 401
    title = "Unauthorized"


class Forbidden(RequestError):
    """The caller is known, or need not be, and still may not do this."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class RequestTimeout(RequestError):
    """The request took too long to arrive."""

    code = "request_timeout"
    status = 408
    title = "Request timeout"


class RateLimited(RequestError):
    """This key has used up its share for now."""

    code = "rate_limited"
    status = 429
    title = "Rate limited"

    def __init__(self, detail: str, *, retry_after: float, **extra: object) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.retry_after = retry_after


class Unavailable(PrunepoolError):
    """The request was fine and can be sent again.

    Args:
        detail: why not now.
        retry_after: seconds after which it is worth trying again, computed, not guessed.
    """

    code = "unavailable"
    status = 503
    title = "Service unavailable"

    def __init__(self, detail: str, *, retry_after: float, **extra: object) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """The queue is full, by requests or by the time it would take."""

    code = "overloaded"
    title = "Overloaded"


class Draining(Unavailable):
    """The server is stopping: accepted requests are answered, new ones are not taken."""

    code = "draining"
    title = "Draining"


class EngineUnavailable(Unavailable):
    """The process or thread that owns the model is down and being restarted."""

    code = "engine_unavailable"
    title = "Engine unavailable"


class DeadlineExceeded(PrunepoolError):
    """The answer would come, or came, too late to be of use to the caller."""

    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"


class ModelError(PrunepoolError):
    """A model in the store cannot be used as it is."""

    code = "model_error"
    title = "Model cannot be used"


class ManifestInvalid(ModelError):
    """A model.json that is missing, is not JSON, or does not say what it must."""


class WeightsInvalid(ModelError):
    """Weights that are missing, changed since they were recorded, or not of this architecture."""


class ArchitectureUnsupported(ModelError):
    """A timm model whose tokens cannot be reduced without changing what it computes."""


class ConversionInvalid(ModelError):
    """A pass that OpenVINO cannot take over, that cannot be loaded, or that gives other answers."""


class HubUnreachable(ModelError):
    """No model hub answers, or it has no such model."""
