"""Converts requests to httpx's arguments and responses to typed values. Pure functions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import httpx
import orjson
from pydantic import TypeAdapter, ValidationError

from prunepool import errors
from prunepool.client.connection import without_password
from prunepool.client.types import (
    Classification,
    ClassifyOptions,
    Image,
    Model,
    ModelDetails,
    Readiness,
    UnexpectedAnswer,
)
from prunepool.errors import InvalidParameter, PrunepoolError, RateLimited, Unavailable
from prunepool.files import read_regular

T = TypeVar("T")

_CLASSIFICATION: TypeAdapter[Classification] = TypeAdapter(Classification)
_MODEL: TypeAdapter[ModelDetails] = TypeAdapter(ModelDetails)
_READINESS: TypeAdapter[Readiness] = TypeAdapter(Readiness)
_MODELS: TypeAdapter[list[Model]] = TypeAdapter(list[Model])
_STANDARD_MEMBERS = frozenset({"type", "title", "status", "code", "detail"})
#: Retry-After of a response that has none, such as a proxy's.
_DEFAULT_RETRY_AFTER_S = 1.0
#: Bytes of an image: far more than any server takes in one request.
_LONGEST_FILE = 1 << 30
#: A longer one counts as this: nobody waits for it.
_LONGEST_RETRY_AFTER_S = 1e9
#: Names that the errors' classes have for arguments of their own.
_OWN_ARGUMENTS = frozenset({"self", "retry_after"})


def _classes_by_code() -> dict[str, type[PrunepoolError]]:
    """Return the error class of each code; the most general one if several share a code."""
    found: dict[str, type[PrunepoolError]] = {}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, PrunepoolError):
            found.setdefault(kind.code, kind)
    return found


_CLASSES = _classes_by_code()


def query_of(options: Mapping[str, object]) -> dict[str, str]:
    """Convert options to query parameters; None is left out."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
        if value is not None
    }


def options_of_many(options: ClassifyOptions, models: Any) -> ClassifyOptions:
    """Return the options of each of many requests, with the model's own ratio if they leave the ratio open.

    `auto` reduces under load, and the load of these requests would be their own.

    Args:
        options: as the caller gave them.
        models: the document that `GET /models` returns.

    Raises:
        UnexpectedAnswer: the document is another one.
    """
    name = options.get("model") or models.get("default") if isinstance(models, dict) else None
    model = next((one for one in read_models(models) if one.name == name), None)
    if model is None or model.requested_by_default != "auto":
        return options  # the server refuses the name, or has a ratio of its own
    bound = options.get("max_reduction_ratio")
    own = model.default_reduction_ratio
    return {**options, "reduction_ratio": own if bound is None else min(own, bound)}


def leaves_ratio_open(options: ClassifyOptions) -> bool:
    """Whether neither a ratio nor a bound on the accuracy decides how much is reduced."""
    return options.get("reduction_ratio") is None and options.get("max_accuracy_drop") is None


def one_image(image: Image) -> dict[str, Any]:
    """Return the body of a request for one image, as httpx's arguments."""
    return {"content": _bytes(image), "headers": {"Content-Type": "application/octet-stream"}}


def several_images(images: Sequence[Image]) -> dict[str, Any]:
    """Return the body of a request whose response is a list, as httpx's arguments."""
    if len(images) == 1:  # the response to a form with one file is no list
        return {"json": {"images": [base64.b64encode(_bytes(images[0])).decode("ascii")]}}
    parts = [("file", (str(i), _bytes(image), "application/octet-stream")) for i, image in enumerate(images)]
    return {"files": parts}


def _bytes(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    return read_regular(image, _LONGEST_FILE) if isinstance(image, Path) else image()


def read_response(response: httpx.Response) -> Any:
    """Return the JSON of a successful response.

    Raises:
        PrunepoolError: the error in an unsuccessful one.
    """
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        document = None
    if response.is_success and document is not None:
        return document
    retry_after = _retry_after(response.headers.get("Retry-After", ""))
    if isinstance(document, dict) and isinstance(document.get("code"), str):
        raise error_of(document, retry_after)
    url = without_password(response.request.url)
    answered = f"{url} answered {response.status_code} {response.reason_phrase}"
    detail = f"{answered}, not as prunepool does"
    if response.status_code == Unavailable.status:  # a proxy on the way, or a server that is not up yet
        raise Unavailable(detail, retry_after=_DEFAULT_RETRY_AFTER_S if retry_after is None else retry_after)
    raise UnexpectedAnswer(detail)


def _retry_after(header: str) -> float | None:
    """Read the header Retry-After: seconds, or the date of a proxy; None for something else."""
    if header.isascii() and header.isdecimal():
        return min(float(header), _LONGEST_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError):  # OverflowError: a year or an offset of many digits
        return None
    wait = at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)
    return min(max(0.0, wait.total_seconds()), _LONGEST_RETRY_AFTER_S)


def error_of(problem: Mapping[str, Any], retry_after: float | None = None) -> PrunepoolError:
    """Convert a problem document to an error.

    Args:
        problem: the document.
        retry_after: seconds in the header Retry-After, if there is one.

    Returns:
        An instance of the class with the document's code; `UnexpectedAnswer` if the code is unknown.
    """
    stated = problem.get("retry_after")
    extra = {n: v for n, v in problem.items() if n not in _STANDARD_MEMBERS and n not in _OWN_ARGUMENTS}
    detail = str(problem.get("detail", ""))
    kind = _CLASSES.get(str(problem.get("code")))
    if kind is None:
        return UnexpectedAnswer(f"{problem.get('code')}: {detail}")
    if issubclass(kind, InvalidParameter):
        return kind(str(extra.get("parameter")), extra.get("value"), str(extra.get("limit")))
    if issubclass(kind, Unavailable | RateLimited):
        if retry_after is None:
            known = isinstance(stated, int | float) and 0 <= stated < _LONGEST_RETRY_AFTER_S
            retry_after = float(cast("float", stated)) if known else _DEFAULT_RETRY_AFTER_S
        return cast("type[Unavailable]", kind)(detail, retry_after=retry_after, **extra)
    return kind(detail, **extra)


def read_classification(document: object) -> Classification:
    """Read the classification of one image.

    Raises:
        UnexpectedAnswer: the document is not one.
    """
    return _validated(_CLASSIFICATION, document)


def read_results(document: Any, images: int) -> list[Classification | PrunepoolError]:
    """Read the results of several images; a failed image is replaced by its error.

    Args:
        document: the response.
        images: how many were sent.

    Raises:
        UnexpectedAnswer: the document does not hold one result for each image.
    """
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or not all(isinstance(entry, dict) for entry in results):
        raise UnexpectedAnswer("the response has no list of results")
    if len(results) != images:
        raise UnexpectedAnswer(f"the response has {len(results)} results for {images} images")
    return [error_of(entry) if "code" in entry else read_classification(entry) for entry in results]


def read_models(document: Any) -> list[Model]:
    """Read a list of models.

    Raises:
        UnexpectedAnswer: the document is not one.
    """
    return _validated(_MODELS, document.get("models") if isinstance(document, dict) else None)


def read_model(document: object) -> ModelDetails:
    """Read a model in full.

    Raises:
        UnexpectedAnswer: the document is not one.
    """
    return _validated(_MODEL, document)


def model_path(name: str) -> str:
    """Return the path of a model; its name may contain any character."""
    return f"/models/{quote(name, safe='')}"


def read_readiness(response: httpx.Response) -> Readiness:
    """Read the readiness in a response, whether ready or not.

    Raises:
        PrunepoolError: the response is an error, or something else.
    """
    if response.status_code != Unavailable.status:
        return _validated(_READINESS, read_response(response))
    try:
        return _validated(_READINESS, orjson.loads(response.content))
    except (orjson.JSONDecodeError, UnexpectedAnswer):
        read_response(response)  # raises the error if a proxy answered
        raise


def _validated(adapter: TypeAdapter[T], document: object) -> T:
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise UnexpectedAnswer(f"the response is not one of this service: {path}: {first['msg']}") from error
