"""Every error that prunepool raises deliberately, as one tree.

    PrunepoolError
    ├── RequestError                 the caller can correct it
    │   ├── InvalidParameter         422 invalid_parameter
    │   ├── ImageUndecodable         400 image_undecodable
    │   ├── ImageTooLarge            413 image_too_large
    │   ├── BodyTooLarge             413 body_too_large
    │   ├── UnsupportedMediaType     415 unsupported_media_type
    │   ├── ModelNotFound            404 model_not_found
    │   ├── ModelHasNoClasses        422 model_has_no_classes
    │   ├── Unauthorized             401 unauthorized
    │   ├── Forbidden                403 forbidden
    │   ├── RequestTimeout           408 request_timeout
    │   └── RateLimited              429 rate_limited
    ├── Unavailable                  503, try again after `retry_after` seconds
    │   ├── Overloaded               overloaded
    │   ├── Draining                 draining
    │   └── EngineUnavailable        engine_unavailable
    ├── DeadlineExceeded             504 deadline_exceeded
    └── ModelError                   500 model_error: the operator can correct it
        ├── ManifestInvalid          a missing or invalid model.json
        ├── WeightsInvalid           weights missing, changed, or of another architecture
        ├── ArchitectureUnsupported  a timm model that cannot be reduced
        ├── ConversionInvalid        a network that OpenVINO cannot run correctly
        ├── DependencyMissing        a library that comes with an extra is not installed
        └── HubUnreachable           no model hub answers

Each class has a stable `code` and an HTTP `status`. A message names what was wrong, the value and the limit.
Over HTTP every error is an RFC 9457 problem document (`application/problem+json`).
"""

from __future__ import annotations

from typing import ClassVar, Self


def problem_document(code: str, title: str, status: int, detail: str, **extra: object) -> dict[str, object]:
    """Return an RFC 9457 problem document.

    Args:
        code: of the error; stable, for programs.
        title: the kind of error, for people.
        status: HTTP status.
        detail: one sentence for people.
        extra: further members.
    """
    return {
        "type": f"urn:prunepool:error:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        **extra,
    }


class PrunepoolError(Exception):
    """Root of the tree.

    Args:
        detail: one sentence for people: what was wrong, the value, the limit.
        extra: further members of the problem document, JSON-serialisable.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, **extra: object) -> None:
        # It may name a file whose name is no UTF-8, which neither JSON nor messages between processes can have.
        self.detail = _as_utf8(detail)
        super().__init__(self.detail)
        self.extra = extra

    def problem(self) -> dict[str, object]:
        """Return the error as an RFC 9457 problem document."""
        return problem_document(self.code, self.title, self.status, self.detail, **self.extra)


class RequestError(PrunepoolError):
    """The request is wrong; the same request will fail again."""

    code = "bad_request"
    status = 400
    title = "Bad request"


class InvalidParameter(RequestError):
    """A parameter has a value that is not allowed.

    Args:
        parameter: its name as the caller wrote it.
        value: its value.
        limit: what is allowed, as the end of a sentence: "a number from 0 to 1".
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
    """The bytes cannot be decoded as an image."""

    code = "image_undecodable"
    status = 400
    title = "Image cannot be decoded"


class ImageTooLarge(RequestError):
    """The image has too many pixels according to its header."""

    code = "image_too_large"
    status = 413
    title = "Image has too many pixels"


class BodyTooLarge(RequestError):
    """The request body is too long."""

    code = "body_too_large"
    status = 413
    title = "Request body is too large"


class UnsupportedMediaType(RequestError):
    """The Content-Type or the image format is not supported."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class ModelNotFound(RequestError):
    """There is no model of that name."""

    code = "model_not_found"
    status = 404
    title = "Model not found"


class ModelHasNoClasses(RequestError):
    """The model's output is an embedding, and not one number a class."""

    code = "model_has_no_classes"
    status = 422
    title = "Model has no classes"

    @classmethod
    def of(cls, model: str) -> Self:
        """The error of a model, by its name."""
        return cls(
            f"{model} has no classes: its output is an embedding, which /embed is for; "
            "/classify and /v2 need a model with labels",
            model=model,
        )


class Unauthorized(RequestError):
    """The API key is missing or unknown."""

    code = "unauthorized"
    status = 401
    title = "Unauthorized"


class Forbidden(RequestError):
    """The caller may not do this, with this key or without one."""

    code = "forbidden"
    status = 403
    title = "Forbidden"


class RequestTimeout(RequestError):
    """The request took too long to arrive."""

    code = "request_timeout"
    status = 408
    title = "Request timeout"


class RateLimited(RequestError):
    """The key has reached its rate limit.

    Args:
        detail: the limit.
        retry_after: seconds after which the request would be accepted.
    """

    code = "rate_limited"
    status = 429
    title = "Rate limited"

    def __init__(self, detail: str, *, retry_after: float, **extra: object) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.retry_after = retry_after


class Unavailable(PrunepoolError):
    """The request is correct and can be sent again.

    Args:
        detail: the reason.
        retry_after: seconds after which a retry is worthwhile, computed from the load.
    """

    code = "unavailable"
    status = 503
    title = "Service unavailable"

    def __init__(self, detail: str, *, retry_after: float, **extra: object) -> None:
        super().__init__(detail, retry_after=retry_after, **extra)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """The queue is full: too many requests, or too much work."""

    code = "overloaded"
    title = "Overloaded"


class Draining(Unavailable):
    """The server is stopping: it answers accepted requests and refuses new ones."""

    code = "draining"
    title = "Draining"


class EngineUnavailable(Unavailable):
    """The process or thread that runs the model is restarting."""

    code = "engine_unavailable"
    title = "Engine unavailable"


class ModelReplaced(EngineUnavailable):
    """Another generation of the model is served than the one that a request was prepared for: prepare it again."""

    code = "model_replaced"


class DeadlineExceeded(PrunepoolError):
    """The response would be, or is, later than the request's deadline."""

    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"


class ModelError(PrunepoolError):
    """A model in the store cannot be used."""

    code = "model_error"
    title = "Model cannot be used"


class ManifestInvalid(ModelError):
    """A model.json is missing, is not JSON, or is invalid."""


class WeightsInvalid(ModelError):
    """Weights are missing, differ from their sha256, or belong to another architecture."""


class ArchitectureUnsupported(ModelError):
    """The tokens of a timm model cannot be reduced."""


class ConversionInvalid(ModelError):
    """OpenVINO cannot convert or load a network, or computes other results with it."""


class DependencyMissing(ModelError):
    """What was asked for needs a library that is not installed; the message names the extra that it comes with."""


class HubUnreachable(ModelError):
    """The model hub does not answer, or does not have the model."""


def limit_reached(error: BaseException) -> str | None:
    """Which limit of the machine an error of Python's means, in one sentence; None for other errors."""
    if isinstance(error, MemoryError):
        return "there is too little memory"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "the system has no thread left to give: raise the limit on processes (ulimit -u, a pids limit)"
    return None


def why_of(error: BaseException) -> str:
    """What an error says to people, in one sentence; of one that is not ours, also what it is."""
    if isinstance(error, PrunepoolError):
        return error.detail
    return limit_reached(error) or _as_utf8(f"{type(error).__name__}: {error}")


def _as_utf8(text: str) -> str:
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
